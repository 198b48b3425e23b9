"""Memberships: addresses, ways out and published ports, with the host's routes given."""

import errno
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ketch.engine.networks import plan, publishing, uplinks
from ketch.engine.networks.endpoints import Endpoints
from ketch.engine.networks.networks import Networks
from ketch.engine.networks.plan import Plan
from ketch.engine.networks.records import Network
from ketch.engine.records.store import Store
from ketch.engine.settings import Settings
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from ketch.network import ports
from ketch.network.uplink.outside import RefusedError

Routes = Callable[..., None]


@pytest.fixture
def engine(tmp_path: Path, routes: Routes) -> Iterator[Endpoints]:
    store = Store(str(tmp_path))
    yield Endpoints(Settings(str(tmp_path)), store)
    store.close()


def request(mode: str = "bridge", asked: Any = None, **host: Any) -> dict[str, Any]:
    return {
        "Config": {"Hostname": "boat", "ExposedPorts": host.pop("ExposedPorts", {})},
        "HostConfig": {"NetworkMode": mode, **host},
        "NetworkingConfig": {"EndpointsConfig": asked or {}},
    }


def start(engine: Endpoints, container_id: str, asked: dict[str, Any] | None = None) -> Plan:
    record = asked or request()
    if not engine.of(container_id):
        engine.declare(container_id, record)
    plan = engine.acquire(container_id, record, uplinks.Direct())
    publishing.let_go(plan.taken)
    plan.turn.close()  # or who chooses a subnet next, in whatever test, waits for it
    return plan


def address(engine: Endpoints, container_id: str) -> str:
    return str(start(engine, container_id).members[0].addresses[0])


def create(engine: Endpoints, name: str, *subnets: str, **given: Any) -> Network:
    config = [{"Subnet": subnet} for subnet in subnets]
    return Networks(engine._settings, engine._store).create(
        {"Name": name, "IPAM": {"Config": config}, **given}
    )[0]


def test_a_start_gives_all_that_a_link_needs(engine: Endpoints) -> None:
    (endpoint,) = start(engine, "one").endpoints()
    assert endpoint.network == "bridge"
    assert [str(address) for address in endpoint.addresses] == ["172.17.0.2/16"]
    assert (endpoint.mac, endpoint.interface) == ("02:42:ac:11:00:02", "eth0")
    assert {version: str(hop) for version, hop in endpoint.routes.items()} == {4: "172.17.0.1"}
    assert [str(address) for address in endpoint.link.addresses] == ["172.17.0.1/16"]  # type: ignore[union-attr]
    (member,) = engine.of("one")
    assert len(member.id) == 64
    assert member.names == ["one", "boat"]


def test_addresses_are_given_again_after_all_others(engine: Endpoints) -> None:
    assert address(engine, "one") == "172.17.0.2/16"
    assert address(engine, "two") == "172.17.0.3/16"
    engine.release("one")
    assert engine.of("one")[0].addresses == []
    assert address(engine, "three") == "172.17.0.4/16"
    assert address(engine, "one") == "172.17.0.5/16"
    engine.release("nobody")


def test_many_starts_and_ends_leak_no_address(engine: Endpoints) -> None:
    create(engine, "small", "10.9.0.0/29")
    for number in range(200):
        container_id = f"container {number}"
        start(engine, container_id, request("small"))
        engine.release(container_id)
    with engine._store.reading() as connection:
        assert not connection.execute("SELECT * FROM lease").fetchall()
        assert not connection.execute("SELECT * FROM port").fetchall()


def test_a_full_network_takes_back_what_the_dead_hold(engine: Endpoints) -> None:
    create(engine, "small", "10.9.0.0/29")
    for number in range(5):
        start(engine, f"c{number}", request("small"))
    engine.declare("more", request("small"))
    with pytest.raises(UnavailableError, match=r"no address is free in 10\.9\.0\.0/29"):
        engine.acquire("more", request("small"), uplinks.Direct())
    alive = ["c0", "c1", "c2", "c4"]
    plan = engine.acquire("more", request("small"), uplinks.Direct(), alive)
    plan.turn.close()
    assert str(plan.members[0].addresses[0]) == "10.9.0.5/29"


def test_the_default_subnet_moves_from_a_new_route_only_when_nobody_uses_it(
    engine: Endpoints, routes: Routes
) -> None:
    assert address(engine, "one") == "172.17.0.2/16"
    routes("172.17.128.0/24")
    assert address(engine, "two") == "172.17.0.3/16"
    engine.release("one")
    engine.release("two")
    assert address(engine, "four") == "172.18.0.2/16"


def test_a_reboot_frees_every_address(engine: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    create(engine, "own", "10.9.0.0/24")
    fixed = request("own", {"own": {"IPAMConfig": {"IPv4Address": "10.9.0.77"}}})
    start(engine, "one", fixed)
    start(engine, "two")
    monkeypatch.setattr(engine, "_boot_id", "another boot")
    start(engine, "three")
    assert engine.of("one")[0].id == engine.of("two")[0].id == ""
    # A fixed address is the container's whatever happens.
    assert str(start(engine, "one", fixed).members[0].addresses[0]) == "10.9.0.77/24"


def test_several_networks_and_their_ways_out(engine: Endpoints) -> None:
    create(engine, "beta", "10.2.0.0/24")
    create(engine, "alpha", "10.1.0.0/24")
    create(engine, "inner", "10.3.0.0/24", Internal=True)
    plan = start(engine, "one", request("beta", {"beta": {}, "inner": {}, "alpha": {}}))
    assert [(m.network_name, m.interface, m.gateway) for m in plan.members] == [
        ("beta", "eth0", set()),
        ("inner", "eth1", set()),
        ("alpha", "eth2", {4}),
    ]
    plan = start(engine, "two", request("alpha", {"alpha": {}, "beta": {"GwPriority": 1}}))
    assert [(m.network_name, m.gateway) for m in plan.members] == [("alpha", set()), ("beta", {4})]


def test_a_network_is_one_by_whatever_name(engine: Endpoints) -> None:
    network = create(engine, "own", "10.9.0.0/24")
    asked = {"own": {"Aliases": ["a"]}, network.id: {"MacAddress": "02:00:00:00:00:01"}}
    engine.declare("one", request(network.id[:12], asked))
    (member,) = engine.of("one")
    assert member.settings == {"Aliases": ["a"], "MacAddress": "02:00:00:00:00:01"}
    asked = {"own": {"Aliases": ["a"]}, network.id: {"Aliases": ["b"]}}
    with pytest.raises(InvalidArgumentError, match="Aliases is given twice for one network"):
        engine.declare("two", request("own", asked))
    assert engine.of("two") == []


@pytest.mark.parametrize("mode", ["bridge", "none", "alpha"])
def test_networks_that_are_listed_are_all_that_there_are(engine: Endpoints, mode: str) -> None:
    """Who lists an internal network alone is not on the default one besides, which leads out."""
    create(engine, "alpha", "10.1.0.0/24")
    create(engine, "inner", "10.3.0.0/24", Internal=True)
    plan = start(engine, "one", request(mode, {"inner": {}}))
    assert [member.network_name for member in plan.members] == ["inner"]
    with pytest.raises(InvalidArgumentError, match="host network"):
        engine.declare("two", request("host", {"inner": {}}))
    with pytest.raises(InvalidArgumentError, match="host network"):
        engine.declare("two", request(mode, {"host": {}}))
    with pytest.raises(InvalidArgumentError, match="multiple networks"):
        engine.declare("two", request(mode, {"inner": {}, "none": {}}))
    engine.declare("two", request("host", {"host": {}}))


@pytest.mark.parametrize("spelt", ["02-42-0A-00-00-05", "0242.0a00.0005", "02:42:0A:00:00:05"])
def test_a_hardware_address_in_any_spelling_is_one(engine: Endpoints, spelt: str) -> None:
    create(engine, "own", "10.9.0.0/24")
    plan = start(engine, "one", request("own", {"own": {"MacAddress": spelt}}))
    assert plan.members[0].mac == "02:42:0a:00:00:05"


@pytest.mark.parametrize("text", ["zz", "02:42:0a:00:00:00:00:08", "2:4:a:0:0:5", "02420a000005"])
def test_what_is_no_hardware_address_is_refused_at_once(engine: Endpoints, text: str) -> None:
    """Before anything is made of it: when it is created, and when it is connected."""
    network = create(engine, "own", "10.9.0.0/24")
    with pytest.raises(InvalidArgumentError, match="invalid MAC address"):
        engine.declare("one", request("own", {"own": {"MacAddress": text}}))
    engine.declare("one", request())
    with pytest.raises(InvalidArgumentError, match="invalid MAC address"):
        engine.join("one", network, {"MacAddress": text}, record=request(), running=False)


@pytest.mark.parametrize(
    ("key", "text"),
    [("IPv4Address", "2001:db8::5"), ("IPv6Address", "10.9.0.5"), ("IPv4Address", "10.9")],
)
def test_an_address_is_of_its_version(engine: Endpoints, key: str, text: str) -> None:
    create(engine, "own", "10.9.0.0/24", "2001:db8::/64", EnableIPv6=True)
    with pytest.raises(InvalidArgumentError, match=f"invalid {key[:4]} address: {text}"):
        engine.declare("one", request("own", {"own": {"IPAMConfig": {key: text}}}))


@pytest.mark.parametrize("name", ["lo", "eth0"])
def test_a_links_name_is_no_others(engine: Endpoints, name: str) -> None:
    create(engine, "more", "10.9.0.0/24")
    options = {"com.docker.network.endpoint.ifname": name}
    record = request("bridge", {"bridge": {}, "more": {"DriverOpts": options}})
    with pytest.raises(ConflictError, match=f"interface name {name} is already in use"):
        start(engine, "one", record)


def test_no_network_is_no_company(engine: Endpoints) -> None:
    """A container is on networks, or on none."""
    networks = Networks(engine._settings, engine._store)
    start(engine, "one")
    start(engine, "two", request("none"))
    for container_id, other in (("one", "none"), ("two", "bridge")):
        with pytest.raises(InvalidArgumentError, match=r"in private \(none\) mode"):
            engine.join(container_id, networks.find(other), {}, record=request(), running=False)


def test_fixed_addresses_are_one_containers_alone(engine: Endpoints) -> None:
    create(engine, "own", "10.9.0.0/24")
    fixed = request("own", {"own": {"IPAMConfig": {"IPv4Address": "10.9.0.77"}}})
    start(engine, "one", fixed)
    engine.declare("two", fixed)
    with pytest.raises(ConflictError, match=r"Address already in use: 10\.9\.0\.77"):
        engine.acquire("two", fixed, uplinks.Direct())
    wrong = request("own", {"own": {"IPAMConfig": {"IPv4Address": "10.8.0.77"}}})
    with pytest.raises(InvalidArgumentError, match="no configured subnet contains IP address"):
        engine.declare("three", wrong)
    wrong = request("bridge", {"bridge": {"IPAMConfig": {"IPv4Address": "172.17.0.9"}}})
    with pytest.raises(InvalidArgumentError, match="supported on user defined networks only"):
        engine.declare("three", wrong)


def test_a_network_that_is_no_more_is_told_at_the_start(engine: Endpoints) -> None:
    engine.declare("one", request("gone"))
    with pytest.raises(NotFoundError, match="network gone not found"):
        engine.acquire("one", request("gone"), uplinks.Direct())
    create(engine, "gone")
    assert start(engine, "one", request("gone")).members[0].network_name == "gone"


def test_joining_and_leaving(engine: Endpoints) -> None:
    own = create(engine, "own", "10.9.0.0/24")
    start(engine, "one")
    with engine._store.transaction() as connection:
        connection.execute(
            "INSERT INTO container (id, name, image_id, image_reference, created_ns, record, state)"
            " VALUES ('one', 'web', '', '', 0, '{}', 'running')"
        )
    record = request()
    member = engine.join(
        "one", own, {"Aliases": ["db"]}, record=record, running=True, interfaces={"eth0", "eth1"}
    )
    assert (str(member.addresses[0]), member.interface) == ("10.9.0.2/24", "eth2")
    assert "db" in member.names
    with pytest.raises(PermissionDeniedError, match="endpoint with name web already exists in"):
        engine.join("one", own, {}, record=record, running=True)
    host = Networks(engine._settings, engine._store).find("host")
    with pytest.raises(InvalidArgumentError, match="connected to host network"):
        engine.join("one", host, {}, record=record, running=True)
    # For one that does not run nothing changes.
    again = engine.join("one", own, {"Aliases": ["else"]}, record=record, running=False)
    assert (again.id, again.settings) == (member.id, {"Aliases": ["db"]})
    engine.leave(member, own)
    assert [member.network_name for member in engine.of("one")] == ["bridge"]


def published(engine: Endpoints, container_id: str) -> list[str]:
    return [publishing.spoken(port) for port in engine.ports().get(container_id, [])]


def test_ports_are_one_containers_alone(engine: Endpoints) -> None:
    asked = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}
    start(engine, "one", request(PortBindings=asked))
    (port,) = engine.ports()["one"]
    assert publishing.spoken(port) == f"127.0.0.1:{port.host_port}->80/tcp"
    for address in ("127.0.0.1", "0.0.0.0"):
        same = request(
            PortBindings={"81/tcp": [{"HostIp": address, "HostPort": str(port.host_port)}]}
        )
        engine.declare(address, same)
        with pytest.raises(
            ConflictError, match=f"Bind for {address}:{port.host_port} failed: port"
        ):
            engine.acquire(address, same, uplinks.Direct())
    engine.release("one")
    assert engine.ports() == {}
    start(engine, "127.0.0.1", request(PortBindings=same["HostConfig"]["PortBindings"]))


def test_ports_of_one_ip_version_are_not_in_the_way_of_the_others(engine: Endpoints) -> None:
    create(engine, "both", "10.9.0.0/24", EnableIPv6=True)
    four = request("both", PortBindings={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]})
    start(engine, "one", four)
    number = engine.ports()["one"][0].host_port
    six = request("both", PortBindings={"80/tcp": [{"HostIp": "::1", "HostPort": str(number)}]})
    start(engine, "two", six)
    assert published(engine, "two") == [f"[::1]:{number}->80/tcp"]


def test_a_port_of_a_process_of_the_host_is_not_taken(engine: Endpoints) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        asked = request(PortBindings={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(number)}]})
        engine.declare("one", asked)
        with pytest.raises(ConflictError, match="address already in use") as caught:
            engine.acquire("one", asked, uplinks.Direct())
    assert "process" in caught.value.hint
    # From a range another one is chosen.
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        entry = {"HostIp": "127.0.0.1", "HostPort": f"{number}-{number + 20}"}
        start(engine, "two", request(PortBindings={"80/tcp": [entry]}))
        assert engine.ports()["two"][0].host_port != number


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (RefusedError(errno.EADDRINUSE, "end it"), ConflictError),
        (ConflictError("it is taken"), ConflictError),
        (UnavailableError("nobody answers"), UnavailableError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_port_that_cannot_be_had_whole_is_not_kept_in_part(
    engine: Endpoints, failure: BaseException, raised: type[BaseException]
) -> None:
    """Of two addresses one is taken, and the other is not to be had."""
    taken: list[int] = []

    class Outside(uplinks.Direct):
        def bind(self, protocol: str, address: "ports.Address", port: int) -> int | None:
            if taken:
                raise failure
            taken.append(ports.bind(protocol, address, port) or -1)
            return taken[0]

    create(engine, "both", "10.9.0.0/24", EnableIPv6=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    asked = request("both", PortBindings={"80/tcp": [{"HostIp": "", "HostPort": str(number)}]})
    engine.declare("one", asked)
    with pytest.raises(raised):
        engine.acquire("one", asked, Outside())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(taken[0])
    assert engine.ports() == {}


def test_all_exposed_ports_are_published_on_free_ones(engine: Endpoints) -> None:
    exposed: dict[str, Any] = {"80/tcp": {}, "53/udp": {}}
    start(engine, "one", request(PublishAllPorts=True, ExposedPorts=exposed))
    assert {(port.port, port.protocol) for port in engine.ports()["one"]} == {
        (80, "tcp"),
        (53, "udp"),
    }
    assert all(port.host_port > 1023 for port in engine.ports()["one"])


def test_what_a_network_without_ipv6_cannot_publish_is_refused(engine: Endpoints) -> None:
    asked = request(PortBindings={"80/tcp": [{"HostIp": "::1", "HostPort": ""}]})
    engine.declare("one", asked)
    with pytest.raises(InvalidArgumentError, match="has no IPv6 address"):
        engine.acquire("one", asked, uplinks.Direct())


def test_internal_networks_publish_nothing(engine: Endpoints) -> None:
    create(engine, "inner", "10.3.0.0/24", Internal=True)
    start(engine, "one", request("inner", PortBindings={"80/tcp": [{"HostPort": ""}]}))
    assert engine.ports() == {}


def lease_many(root: str, worker: int, count: int) -> list[str]:
    store = Store(root)
    engine = Endpoints(Settings(root), store)
    leased = [address(engine, f"{worker}-{number}") for number in range(count)]
    store.close()
    return leased


def test_starts_at_once_get_different_addresses(tmp_path: Path, routes: Routes) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.starmap(lease_many, [(str(tmp_path), worker, 10) for worker in range(4)])
    every = [address for leased in found for address in leased]
    assert len(set(every)) == len(every) == 40
    assert {address.rsplit(".", 1)[0] for address in every} == {"172.17.0"}


def test_link_parameters_are_read() -> None:
    read = plan._sysctls("net.ipv4.conf.IFNAME.log_martians=1", "eth3")
    assert read == {"net/ipv4/conf/eth3/log_martians": "1"}
    with pytest.raises(InvalidArgumentError, match="invalid entry"):
        plan._sysctls("net.core.somaxconn=1", "eth3")
