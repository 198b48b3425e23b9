"""A host of its own for every network test."""

from collections.abc import Iterator
from ipaddress import IPv4Interface

import pytest

from ketch.linux import rtnetlink
from ketch.network.bridge import Bridge
from tests.kernel.network import machines


@pytest.fixture(autouse=True)
def host() -> Iterator[int]:
    """Be on a machine without links, routes or rules; its namespace's descriptor."""
    with machines.machine() as descriptor, machines.entered(descriptor):
        yield descriptor


@pytest.fixture
def kernel(host: int) -> Iterator[rtnetlink.Socket]:
    """Return an rtnetlink socket of the host."""
    with rtnetlink.Socket() as socket:
        yield socket


@pytest.fixture
def bridge() -> Bridge:
    """Return a default network."""
    return Bridge("ketch0", [IPv4Interface("172.17.0.1/16")])
