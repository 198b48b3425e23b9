"""Whatever happens, the packet filter has exactly what the running containers need."""

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ketch.engine.engine import Engine
from ketch.engine.networks import releasing, uplinks, wiring
from ketch.engine.records.rows import Container
from ketch.engine.settings import Settings
from ketch.errors import AlreadyExistsError, ConflictError, NotFoundError, UnavailableError
from ketch.linux import nftables, rtnetlink
from ketch.network import bridge as bridges
from tests.kernel.network import machines
from tests.support.descriptors import open_now

pytestmark = pytest.mark.root

NETWORKS = ("bridge", "one", "two")
CONTAINERS = tuple(f"{number:x}" * 64 for number in range(10, 14))

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.sampled_from(CONTAINERS), st.sampled_from(NETWORKS),
                  st.sampled_from([None, 8080, 8081, 0])),
        st.tuples(st.sampled_from(["stop", "crash", "look"]), st.sampled_from(CONTAINERS)),
        st.tuples(st.sampled_from(["create", "remove"]), st.sampled_from(NETWORKS[1:])),
        st.tuples(st.just("flush")),
    ),
    min_size=4, max_size=14,
)  # fmt: skip


class Machine:
    """An engine whose containers have networks and no processes."""

    def __init__(self, directory: Path) -> None:
        self.engine = Engine(Settings(str(directory / "root"), str(directory / "state")))
        self.running: dict[str, wiring.Wiring] = {}
        self.crashed: set[str] = set()
        self.flushed = False
        self.records: dict[str, dict[str, Any]] = {}

    def start(self, container_id: str, network: str, *ports: int | None) -> None:
        if container_id in self.running or container_id in self.crashed:
            return
        bindings = {
            f"{80 + number}/tcp": [{"HostIp": "", "HostPort": str(port)}]
            for number, port in enumerate(ports)
            if port is not None
        }
        # One in two may configure its network.
        capabilities = ["NET_ADMIN"] if int(container_id[0], 16) % 2 else []
        record = {
            "Config": {"Hostname": container_id[:12]},
            "HostConfig": {
                "NetworkMode": network, "PortBindings": bindings, "CapAdd": capabilities,
            },
        }  # fmt: skip
        with self.engine.store.transaction() as connection:
            connection.execute("DELETE FROM endpoint WHERE container_id = ?", (container_id,))
            connection.execute("DELETE FROM container WHERE id = ?", (container_id,))
            connection.execute(
                "INSERT INTO container (id, name, image_id, image_reference, created_ns, record, "
                "state) VALUES (?, ?, '', '', 0, ?, 'created')",
                (container_id, container_id[:4], json.dumps(record)),
            )
            row = connection.execute(
                "SELECT * FROM container WHERE id = ?", (container_id,)
            ).fetchone()
        self.engine.endpoints.declare(container_id, record)
        try:
            held = wiring.prepare(self.engine, Container(row, "boot"), uplinks.Direct())
        except (ConflictError, NotFoundError):
            self.engine.endpoints.release(container_id)
            return
        held.settle()
        self.running[container_id] = held
        # The first start that looks puts back what somebody flushed.
        self.flushed = False

    def stop(self, container_id: str) -> None:
        if held := self.running.pop(container_id, None):
            held.close()
            releasing.release(self.engine.store, self.engine.settings, container_id)

    def crash(self, container_id: str) -> None:
        if held := self.running.pop(container_id, None):
            held.close()
            self.crashed.add(container_id)

    def look(self, container_id: str) -> None:
        if container_id in self.crashed:
            self.crashed.remove(container_id)
            releasing.release(self.engine.store, self.engine.settings, container_id)

    def create(self, network: str) -> None:
        try:
            self.engine.networks.create({"Name": network})
        except (AlreadyExistsError, ConflictError):
            return
        self.flushed = False

    def remove(self, network: str) -> None:
        try:
            self.engine.networks.remove(network)
        except (ConflictError, NotFoundError):
            return

    def flush(self) -> None:
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        self.flushed = True

    def check(self) -> None:
        if self.flushed:
            return
        published = self.engine.endpoints.ports()
        assert set(published) <= set(self.running) | self.crashed
        wanted = {
            (port.host_port, str(port.address), port.port)
            for ports in published.values()
            for port in ports
        }
        assert mapped() == wanted
        assert set(members("self4")) == {(address, address) for _, address, _ in wanted}
        near = {number: gateway for (_, number), gateway in near_any()}
        assert near.keys() == {number for number, _, _ in wanted}
        self.check_pins()

    def check_pins(self) -> None:
        """Who runs is pinned, and nobody else."""
        alive = [
            (container_id, member)
            for container_id in CONTAINERS
            for member in self.engine.endpoints.of(container_id)
            if member.id and member.addresses
        ]
        ports = {f"veth{member.id[:8]}" for _, member in alive}
        addresses = {
            (f"veth{one.id[:8]}", str(each.ip)) for _, one in alive for each in one.addresses
        }
        assert set(members("ports")) == set(members("ports", family="bridge")) == ports
        assert set(members("own4", family="bridge")) == addresses
        assert set(members("free", family="bridge")) == {
            f"veth{member.id[:8]}" for owner, member in alive if int(owner[0], 16) % 2
        }
        taken = {address for _, address in addresses}
        gateways = {
            str(network.gateway) for network in self.engine.networks.every() if network.subnets
        }
        for family in ("inet", "bridge"):
            # A network whose bridge is still to be made has no gateway there.
            assert taken <= set(members("taken4", family=family)) <= taken | gateways


def mapped() -> set[tuple[int, str, int]]:
    found = set()
    for key, value in members("any4", "map"):
        _, number = key["elem"]["val"]["concat"]
        address, port = value["concat"]
        found.add((number, address, port))
    return found


def near_any() -> list[Any]:
    """Under whose address loopback's clients come to each published port."""
    return [(key["elem"]["val"]["concat"], address) for key, address in members("near_any4", "map")]


def members(name: str, kind: str = "set", family: str = "inet") -> list[Any]:
    try:
        entries = nftables.listing(kind, family, "ketch", name)
    except UnavailableError:  # no start has made the table yet
        return []
    found = next(entry[kind].get("elem", []) for entry in entries if kind in entry)
    return [value(element) for element in found]


def value(element: Any) -> Any:
    """An element as nft lists it, without its comment."""
    if isinstance(element, dict) and "elem" in element:
        element = element["elem"]["val"]
    return tuple(element["concat"]) if isinstance(element, dict) else element


def test_what_a_failed_start_had_of_ports_is_free(tmp_path: Path) -> None:
    def held() -> set[int]:
        """Ports that a socket of this process has."""
        return {port for port in range(8080, 8090) if not is_free(port)}

    def is_free(port: int) -> bool:
        with socket.socket() as other:
            try:
                other.bind(("0.0.0.0", port))
            except OSError:
                return False
        return True

    with (
        machines.machine() as descriptor,
        machines.entered(descriptor),
        socket.socket(socket.AF_INET6) as somebody,
    ):
        machine = Machine(tmp_path)
        machine.engine.networks.create({"Name": "six", "EnableIPv6": True})
        # The second port's second address is somebody else's.
        somebody.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        somebody.bind(("::", 8085))
        before = open_now()
        machine.start(CONTAINERS[0], "six", 8081, 8085)
        assert CONTAINERS[0] not in machine.running
        assert held() == set()
        # What others have left to be collected may go meanwhile.
        assert set(os.listdir("/proc/self/fd")) <= before
        # Another container's, which the database knows before anybody binds it.
        machine.start(CONTAINERS[0], "six", 8082)
        assert held() == {8082}
        descriptors = open_now()
        machine.start(CONTAINERS[1], "six", 8081, 8082)
        assert CONTAINERS[1] not in machine.running
        assert held() == {8082}
        assert set(os.listdir("/proc/self/fd")) <= descriptors
        # A link in the way of a start that has its ports already.
        with rtnetlink.Socket() as kernel:
            machine.stop(CONTAINERS[0])
            bridge = machine.engine.networks.find("six").bridge
            bridges.delete(kernel, bridge)
            kernel.execute(
                rtnetlink.add_veth(bridge, "other", namespace=descriptor, bridge=0,
                                   mac="02:00:00:00:00:09", mtu_bytes=1500)
            )  # fmt: skip
        machine.start(CONTAINERS[0], "six", 8081)
        assert CONTAINERS[0] not in machine.running
        assert held() == set()


@given(steps=STEPS)
@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_any_sequence(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    with machines.machine() as descriptor, machines.entered(descriptor):
        machine = Machine(tmp_path_factory.mktemp("engine"))
        try:
            for name, *arguments in steps:
                getattr(machine, name)(*arguments)
                machine.check()
            for container_id in CONTAINERS:
                machine.stop(container_id)
                machine.look(container_id)
            machine.check()
            assert machine.engine.endpoints.ports() == {}
            for network in NETWORKS[1:]:
                machine.remove(network)
            bridge = machine.engine.networks.find("bridge").bridge
            assert set(members("bridges")) <= {bridge}
        finally:
            for held in machine.running.values():
                held.close()
            machine.engine.store.close()
