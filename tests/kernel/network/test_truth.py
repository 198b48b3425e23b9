"""Whatever happens, the packet filter has exactly what the running containers need."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ketch.engine.engine import Engine
from ketch.engine.networks import releasing, wiring
from ketch.engine.records.rows import Container
from ketch.engine.settings import Settings
from ketch.errors import AlreadyExistsError, ConflictError, NotFoundError, UnavailableError
from ketch.linux import nftables
from tests.kernel.network import machines

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

    def start(self, container_id: str, network: str, port: int | None) -> None:
        if container_id in self.running or container_id in self.crashed:
            return
        bindings = {} if port is None else {"80/tcp": [{"HostIp": "", "HostPort": str(port)}]}
        record = {
            "Config": {"Hostname": container_id[:12]},
            "HostConfig": {"NetworkMode": network, "PortBindings": bindings},
        }
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
            held = wiring.prepare(self.engine, Container(row, "boot"))
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


def mapped() -> set[tuple[int, str, int]]:
    found = set()
    for key, value in members("any4", "map"):
        _, number = key["elem"]["val"]["concat"]
        address, port = value["concat"]
        found.add((number, address, port))
    return found


def members(name: str, kind: str = "set") -> list[Any]:
    try:
        entries = nftables.listing(kind, "inet", "ketch", name)
    except UnavailableError:  # no start has made the table yet
        return []
    found = next(entry[kind].get("elem", []) for entry in entries if kind in entry)
    return [tuple(element["concat"]) if isinstance(element, dict) else element for element in found]


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
