"""A host whose routes and links are what a test says."""

from collections.abc import Callable
from ipaddress import ip_network

import pytest

from ketch.engine.networks import kernel, networks, pools
from ketch.network import bridge, ipam


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the host's routes; none at first, and no bridge."""
    destinations: list[ipam.Network] = []

    def announce(*given: str) -> None:
        destinations[:] = [ip_network(text) for text in given]

    monkeypatch.setattr(pools, "destinations", lambda version=4: list(destinations))
    monkeypatch.setattr(bridge, "exists", lambda name: False)
    monkeypatch.setattr(networks, "_check_routes", lambda *_: None)
    monkeypatch.setattr(kernel, "make", lambda *_: None)
    monkeypatch.setattr(kernel, "unmake", lambda *_: None)
    return announce
