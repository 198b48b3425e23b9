"""Networks and the default network's place, with the host's routes given."""

import json
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from ketch.engine import configuration_file
from ketch.engine.networks import default
from ketch.engine.networks.networks import Networks
from ketch.engine.networks.records import Network
from ketch.engine.records.store import Store
from ketch.engine.settings import Settings
from ketch.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    PermissionDeniedError,
)
from ketch.network.bridge import Bridge

Routes = Callable[..., None]


@pytest.fixture
def engine(tmp_path: Path, routes: Routes) -> Iterator[Networks]:
    store = Store(str(tmp_path))
    yield Networks(Settings(str(tmp_path)), store)
    store.close()


def create(engine: Networks, name: str, subnet: str = "", **given: Any) -> Network:
    config = [{"Subnet": subnet}] if subnet else []
    network, _ = engine.create({"Name": name, "IPAM": {"Config": config}, **given})
    return network


def test_the_three_networks_are_there_from_the_start(engine: Networks) -> None:
    found = {network.name: network for network in engine.every()}
    assert {name: network.driver for name, network in found.items()} == {
        "bridge": "bridge",
        "host": "host",
        "none": "null",
    }
    (subnet,) = found["bridge"].subnets
    assert (str(subnet.subnet), str(subnet.gateway)) == ("172.17.0.0/16", "172.17.0.1")
    assert found["host"].subnets == []
    assert len({network.id for network in found.values()}) == 3
    assert engine.find("default").id == found["bridge"].id
    assert engine.find(found["none"].id[:9]).name == "none"


def test_an_unknown_network_is_not_found(engine: Networks) -> None:
    with pytest.raises(NotFoundError, match="network backend not found"):
        engine.find("backend")


def test_networks_get_subnets_of_their_own(engine: Networks, routes: Routes) -> None:
    routes("172.18.0.0/16")
    one, two = create(engine, "one"), create(engine, "two", EnableIPv6=True)
    assert [str(subnet.subnet) for subnet in one.subnets] == ["172.19.0.0/16"]
    first, second = two.subnets
    assert str(first.subnet) == "172.20.0.0/16"
    assert second.subnet.version == 6
    assert str(second.subnet).startswith("fd")
    assert second.subnet.prefixlen == 64
    assert one.bridge != two.bridge
    assert len(one.bridge) == 15


def test_a_subnet_is_one_networks_alone(engine: Networks) -> None:
    create(engine, "one", "10.9.0.0/24")
    with pytest.raises(ConflictError, match="Pool overlaps with other one") as caught:
        create(engine, "two", "10.9.0.128/25")
    assert "of network one" in caught.value.hint
    with pytest.raises(AlreadyExistsError, match="network with name one already exists"):
        create(engine, "one")
    engine.remove("one")
    create(engine, "two", "10.9.0.128/25")


def test_many_networks_come_and_go_and_leak_nothing(engine: Networks) -> None:
    for number in range(100):
        made = [create(engine, f"{number}-{name}", EnableIPv6=True) for name in "abc"]
        assert {str(network.subnets[0].subnet) for network in made} == {
            "172.18.0.0/16",
            "172.19.0.0/16",
            "172.20.0.0/16",
        }
        for network in made:
            engine.remove(network.id[:12])
    assert [network.name for network in engine.every()] == ["bridge", "host", "none"]


def test_gateways_ranges_and_auxiliary_addresses(engine: Networks) -> None:
    config = {
        "Subnet": "10.9.0.0/24",
        "IPRange": "10.9.0.128/28",
        "AuxiliaryAddresses": {"router": "10.9.0.129"},
    }
    network, _ = engine.create({"Name": "one", "IPAM": {"Config": [config]}})
    (subnet,) = network.subnets
    assert str(subnet.gateway) == "10.9.0.128"
    assert {str(address) for address in subnet.reserved} == {"10.9.0.128", "10.9.0.129"}
    assert subnet.document() == {**config, "Gateway": "10.9.0.128"}


@pytest.mark.parametrize(
    ("subnet", "ip_range"),
    [("2001:389::/32", "2001:389::0/96"), ("2001:0389::/32", "2001:389:0:0::/64"),
     ("2001:389::/32", "2001:0389:00::ffff:0/112")],
)  # fmt: skip
def test_ranges_are_numbers_not_texts(engine: Networks, subnet: str, ip_range: str) -> None:
    config = {"Subnet": subnet, "IPRange": ip_range, "Gateway": "2001:389:0::0001"}
    network, _ = engine.create({"Name": "six", "EnableIPv6": True, "IPAM": {"Config": [config]}})
    shown = next(one.document() for one in network.subnets if one.subnet.version == 6)
    assert shown["Gateway"] == "2001:389::1"
    assert ip_network(shown["IPRange"]) == ip_network(ip_range)
    config["IPRange"] = "2001:389::1/112"
    asked = {"Name": "x", "EnableIPv6": True, "IPAM": {"Config": [config]}}
    with pytest.raises(InvalidArgumentError, match="it should be 2001:389::/112"):
        engine.create(asked)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"Name": " "}, "invalid network name: name is empty"),
        ({"Name": "a\0b"}, "a NUL is in it"),
        ({"Name": "bridge"}, "not permitted on predefined bridge network"),
        ({"Name": "x", "Driver": "weave"}, 'plugin "weave" not found'),
        ({"Name": "x", "Driver": "host"}, 'only one instance of "host" network is allowed'),
        ({"Name": "x", "Scope": "swarm"}, "needs a swarm"),
        ({"Name": "x", "Options": {"foo": "1"}}, "the bridge driver has no option foo"),
        (
            {"Name": "x", "Options": {"com.docker.network.bridge.enable_icc": "maybe"}},
            "enable_icc: ",
        ),
        ({"Name": "x", "Options": {"com.docker.network.driver.mtu": "12"}}, "failed to parse"),
        (
            {"Name": "x", "IPAM": {"Config": [{"Subnet": "10.9.0.1/24"}]}},
            "invalid subnet 10.9.0.1/24: it should be 10.9.0.0/24",
        ),
        (
            {"Name": "x", "IPAM": {"Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.8.0.1"}]}},
            "invalid gateway 10.8.0.1: parent subnet 10.9.0.0/24 doesn't contain this address",
        ),
        (
            {"Name": "x", "IPAM": {"Config": [{"Subnet": "10.9.0.0/24", "IPRange": "10.0.0.0/8"}]}},
            "CIDR block is bigger than its parent subnet",
        ),
        ({"Name": "x", "IPAM": {"Config": [{"Subnet": "fd00::/64"}]}}, "IPv6 has not been enabled"),
        ({"Name": "x", "EnableIPv4": False}, "IPv4 or IPv6 must be enabled"),
        (
            {"Name": "x", "Driver": "macvlan", "Options": {"macvlan_mode": "fast"}},
            "unknown value",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    engine: Networks, document: dict[str, Any], message: str
) -> None:
    with pytest.raises(KetchError, match=message):
        engine.create(document)
    assert len(engine.every()) == 3


def test_built_in_networks_stay(engine: Networks) -> None:
    with pytest.raises(PermissionDeniedError, match="bridge is a pre-defined network and cannot"):
        engine.remove("bridge")


def test_the_configuration_file_shapes_the_default_network(
    engine: Networks, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"bip": "10.7.0.9/24", "mtu": 1400, "icc": False, "ipv6": True}))
    network = engine.find("bridge")
    assert str(network.subnets[0].subnet) == "10.7.0.0/24"
    assert str(network.gateway) == "10.7.0.9"
    assert network.has(6)
    link = network.link()
    assert isinstance(link, Bridge)
    assert (link.mtu_bytes, link.isolated) == (1400, True)
    path.write_text('{"colour": "blue"}')
    with pytest.raises(InvalidArgumentError, match="unknown key colour"):
        configuration_file.read(Settings(str(tmp_path)))


def test_a_configuration_network_gives_what_it_holds(engine: Networks) -> None:
    config = create(engine, "config", "10.9.0.0/24", ConfigOnly=True, Labels={"a": "b"})
    assert config.subnets == []
    made, _ = engine.create({"Name": "made", "ConfigFrom": {"Network": "config"}})
    assert [str(subnet.subnet) for subnet in made.subnets] == ["10.9.0.0/24"]
    assert made.labels == {"a": "b"}
    with pytest.raises(ConflictError, match="configuration network config is in use by made"):
        engine.remove("config")


def test_a_parent_carries_one_macvlan_network(engine: Networks) -> None:
    create(engine, "one", "10.9.0.0/24", Driver="macvlan", Options={"parent": "eth7"})
    with pytest.raises(ConflictError, match="network one is already using parent interface eth7"):
        create(engine, "two", "10.8.0.0/24", Driver="macvlan", Options={"parent": "eth7"})
    alone = create(engine, "alone", "10.7.0.0/24", Driver="ipvlan")
    assert alone.internal
    assert alone.bridge == f"dm-{alone.id[:12]}"


def test_engines_with_other_roots_have_other_bridges() -> None:
    assert default.default_bridge("/var/lib/ketch") == "ketch0"
    others = {default.default_bridge(f"/tmp/{number}") for number in range(100)}
    assert len(others) == 100
    assert all(len(name) <= 15 and name.startswith("ketch") for name in others)
