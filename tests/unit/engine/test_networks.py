"""Leases and the default network's subnet, with the host's routes given."""

import multiprocessing
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from ketch.engine import networks
from ketch.engine.networks import Networks
from ketch.engine.settings import Settings
from ketch.engine.store import Store
from ketch.errors import NotFoundError, UnavailableError
from ketch.network import ipam

Routes = Callable[..., None]


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Routes:
    """Set the host's routes; none at first, and no bridge."""
    destinations: list[ipam.Network] = []

    def announce(*given: str) -> None:
        destinations[:] = [ip_network(text) for text in given]

    monkeypatch.setattr(networks, "_destinations", lambda: list(destinations))
    monkeypatch.setattr(networks, "_exists", lambda link: False)
    return announce


@pytest.fixture
def engine(tmp_path: Path, routes: Routes) -> Iterator[Networks]:
    store = Store(str(tmp_path))
    yield Networks(Settings(str(tmp_path)), store)
    store.close()


def address(engine: Networks, container_id: str) -> str:
    return str(engine.lease(container_id).addresses[0])


def test_the_three_networks_are_there_from_the_start(engine: Networks) -> None:
    found = {network.name: network for network in engine.networks()}
    assert {name: network.driver for name, network in found.items()} == {
        "bridge": "bridge",
        "host": "host",
        "none": "null",
    }
    assert str(found["bridge"].subnet) == "172.17.0.0/16"
    assert str(found["bridge"].gateway) == "172.17.0.1"
    assert found["host"].subnet is None
    assert len({network.id for network in found.values()}) == 3
    assert engine.find("default").id == found["bridge"].id
    assert engine.find(found["none"].id).name == "none"
    assert [network.id for network in engine.networks()] == [
        found[name].id for name in ("bridge", "host", "none")
    ]


def test_an_unknown_network_is_not_found(engine: Networks) -> None:
    with pytest.raises(NotFoundError, match="network backend not found"):
        engine.find("backend")


def test_a_lease_says_all_that_a_link_needs(engine: Networks) -> None:
    endpoint = engine.lease("one")
    assert endpoint.network == "bridge"
    assert [str(address) for address in endpoint.addresses] == ["172.17.0.2/16"]
    assert endpoint.mac == "02:42:ac:11:00:02"
    assert [str(gateway) for gateway in endpoint.gateways] == ["172.17.0.1"]
    assert [str(address) for address in endpoint.bridge.addresses] == ["172.17.0.1/16"]
    assert engine.addresses("one") == {"bridge": "172.17.0.2"}


def test_a_container_keeps_its_address_until_it_is_released(engine: Networks) -> None:
    assert address(engine, "one") == address(engine, "one") == "172.17.0.2/16"
    assert address(engine, "two") == "172.17.0.3/16"
    engine.release("one")
    assert address(engine, "three") == "172.17.0.4/16"
    assert address(engine, "one") == "172.17.0.5/16"
    engine.release("nobody")
    assert engine.addresses("nobody") == {}


def test_leases_of_the_dead_are_reclaimed(engine: Networks) -> None:
    for container_id in ("one", "two", "three"):
        engine.lease(container_id)
    engine.reclaim({"two"})
    assert engine.addresses("one") == engine.addresses("three") == {}
    assert engine.addresses("two") == {"bridge": "172.17.0.3"}


def test_a_full_network_says_so_and_goes_on_when_there_is_room(
    engine: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipam, "DEFAULT_POOLS", (ipam.Pool("10.9.0.0/29", 29),))
    for number in range(5):
        engine.lease(f"container {number}")
    with pytest.raises(UnavailableError, match=r"no address is free in 10\.9\.0\.0/29"):
        engine.lease("one more")
    engine.release("container 3")
    assert address(engine, "one more") == "10.9.0.5/29"


def test_the_subnet_avoids_the_hosts_routes(engine: Networks, routes: Routes) -> None:
    routes("172.16.0.0/14")
    assert address(engine, "one") == "172.20.0.2/16"


def test_the_subnet_moves_from_a_new_route_only_when_nobody_uses_it(
    engine: Networks, routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert address(engine, "one") == "172.17.0.2/16"
    routes("172.17.128.0/24")
    assert address(engine, "two") == "172.17.0.3/16"
    engine.release("one")
    engine.release("two")
    with monkeypatch.context() as patch:
        # The route may be the bridge's own.
        patch.setattr(networks, "_exists", lambda link: True)
        assert address(engine, "three") == "172.17.0.4/16"
    engine.release("three")
    endpoint = engine.lease("four")
    assert str(endpoint.addresses[0]) == "172.18.0.2/16"
    assert str(endpoint.bridge.addresses[0]) == "172.18.0.1/16"
    routes()
    assert address(engine, "five") == "172.18.0.3/16"


def test_a_reboot_frees_every_address(
    engine: Networks, routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.lease("one")
    engine.lease("two")
    monkeypatch.setattr(engine, "_boot_id", "another boot")
    routes("172.17.0.0/16")
    assert address(engine, "three") == "172.18.0.2/16"
    assert engine.addresses("one") == {}
    assert address(engine, "two") == "172.18.0.3/16"


def lease_many(root: str, worker: int, count: int) -> list[str]:
    store = Store(root)
    engine = Networks(Settings(root), store)
    leased = [str(engine.lease(f"{worker}-{number}").addresses[0]) for number in range(count)]
    store.close()
    return leased


def test_starts_at_once_get_different_addresses(tmp_path: Path, routes: Routes) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.starmap(lease_many, [(str(tmp_path), worker, 10) for worker in range(4)])
    every = [address for leased in found for address in leased]
    assert len(set(every)) == len(every) == 40
    assert {address.rsplit(".", 1)[0] for address in every} == {"172.17.0"}


def test_engines_with_other_roots_have_other_bridges() -> None:
    assert networks.default_bridge("/var/lib/ketch") == "ketch0"
    others = {networks.default_bridge(f"/tmp/{number}") for number in range(100)}
    assert len(others) == 100
    assert all(len(name) <= 15 and name.startswith("ketch") for name in others)
