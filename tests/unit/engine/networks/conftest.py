"""A host whose routes and links are what a test says."""

from collections.abc import Callable
from ipaddress import ip_network

import pytest

from ketch.engine.networks import networks
from ketch.engine.networks.networks import Networks
from ketch.network import ipam


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the host's routes; none at first, and no bridge."""
    destinations: list[ipam.Network] = []

    def announce(*given: str) -> None:
        destinations[:] = [ip_network(text) for text in given]

    monkeypatch.setattr(networks, "_destinations", lambda version=4: list(destinations))
    monkeypatch.setattr(networks, "_exists", lambda link: False)
    monkeypatch.setattr(networks, "_check_routes", lambda *_: None)
    monkeypatch.setattr(Networks, "_make", lambda *_: None)
    monkeypatch.setattr(Networks, "_unmake", lambda *_: None)
    return announce
