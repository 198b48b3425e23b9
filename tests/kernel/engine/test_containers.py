"""Containers' records against real processes: a fake monitor, real kills."""

import contextlib
import json
import os
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ketch import cgroups
from ketch.engine.containers.containers import Containers
from ketch.engine.containers.ledger import Keeper, Ledger
from ketch.engine.networks import uplinks
from ketch.engine.networks.endpoints import Endpoints
from ketch.engine.records import names
from ketch.engine.records.rows import LOST_ERROR, LOST_EXIT_STATUS
from ketch.engine.records.store import Store
from ketch.engine.settings import Settings
from ketch.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    NotModifiedError,
    UnavailableError,
)
from ketch.linux import procfs


class Engine:
    """An engine in a directory of its own, and monitors that hold no real container."""

    def __init__(self, directory: Path) -> None:
        self.settings = Settings(str(directory / "root"), str(directory / "state"))
        self.containers = self.open()
        self.children: list[int] = []
        self.inits: list[tuple[int, int]] = []

    def open(self) -> Containers:
        return Containers(self.settings, Store(self.settings.root))

    def create(self, name: str = "", **options: object) -> str:
        return create(self.containers, names.new_id(), name, **options)  # type: ignore[arg-type]

    def fork(self, work: Callable[[Containers], None]) -> int:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(self.open())
                status = 0
            finally:
                os._exit(status)
        self.children.append(child)
        return child

    def run(
        self, name: str = "", *, program: list[str] | None = None, **options: object
    ) -> tuple[str, int]:
        """Start a monitor that runs a program as a container's; returns its id and its pid."""
        container_id = names.new_id()
        ready, tell = os.pipe()

        def monitor(containers: Containers) -> None:
            create(containers, container_id, name, in_charge=True, **options)
            init = os.posix_spawn(
                "/bin/sh", program or ["sh", "-c", "exec sleep 1000"], dict(os.environ)
            )
            start_time = procfs.process_start_time(init)
            assert start_time is not None
            containers.mark_started(container_id, init, start_time, time.time_ns())
            os.makedirs(containers._settings.runtime_directory(container_id))
            os.write(tell, b"x")
            code = os.waitstatus_to_exitcode(os.waitpid(init, 0)[1])
            time.sleep(0.05)  # the time that releasing network and cgroup takes
            containers.mark_exited(
                container_id,
                code if code >= 0 else 128 - code,
                oom_killed=False,
                finished_ns=time.time_ns(),
            )
            if options.get("auto_remove"):
                containers.remove(container_id)

        child = self.fork(monitor)
        os.close(tell)
        assert os.read(ready, 1) == b"x"
        os.close(ready)
        started = self.containers.find(container_id)
        self.inits.append((started.init_pid, started.init_start_time))
        return container_id, child

    def end(self) -> None:
        for pid, start_time in self.inits:
            if procfs.is_running(pid, start_time):
                os.kill(pid, signal.SIGKILL)
        for child in self.children:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def create(
    containers: Containers,
    container_id: str,
    name: str,
    *,
    in_charge: bool = False,
    **options: object,
) -> str:
    record = {"Path": "sleep", "Args": ["1000"], "Config": options.pop("config", {})}
    containers.create_record(
        container_id,
        name=name,
        image_id="sha256:1",
        image_reference="busybox",
        record=record,
        **options,  # type: ignore[arg-type]
    )
    return containers.mark_created(container_id, keep=in_charge).id


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    yield made
    made.end()


def kill_and_reap(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not ours to reap is gone."""
    deadline = time.monotonic() + 10
    while procfs.process_start_time(pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_new_container(engine: Engine) -> None:
    before = time.time_ns()
    container_id = engine.create("web")
    found = engine.containers.find("web")
    assert (found.id, found.name, found.status) == (container_id, "web", "created")
    assert found.image_reference == "busybox"
    assert found.record["Args"] == ["1000"]
    assert before <= found.created_ns <= time.time_ns()
    assert os.path.isdir(engine.settings.container_directory(container_id))
    assert engine.containers.list() == []
    assert [c.id for c in engine.containers.list(all=True)] == [container_id]


def test_a_taken_name_is_refused_in_dockers_words(engine: Engine) -> None:
    holder = engine.create("web")
    with pytest.raises(AlreadyExistsError) as caught:
        engine.create("/web")
    assert caught.value.message == (
        f'Conflict. The container name "/web" is already in use by container "{holder}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    assert len(engine.containers.list(all=True)) == 1


def test_a_bad_name_makes_nothing(engine: Engine) -> None:
    with pytest.raises(InvalidArgumentError):
        engine.create("a b")
    assert engine.containers.list(all=True) == []


def test_a_made_up_name_avoids_those_in_use(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = iter(["quiet_clipper", "quiet_clipper", "calm_sea"])
    monkeypatch.setattr(names, "new_name", lambda attempt: next(made_up))
    ids = [engine.create(), engine.create()]
    found = [engine.containers.find(name).id for name in ("quiet_clipper", "calm_sea")]
    assert found == ids


def test_finding(engine: Engine) -> None:
    first, second = "ab" * 32, "ac" * 32
    create(engine.containers, first, "one")
    create(engine.containers, second, "ac")
    for reference in (first, "one", "/one", "ab", "abababababab"):
        assert engine.containers.find(reference).id == first
    assert engine.containers.find("ac").id == second, "a name goes before a start of an id"
    with pytest.raises(InvalidArgumentError, match=r"multiple IDs found with provided prefix: a$"):
        engine.containers.find("a")
    for reference in ("nope", "abd", "AB", "ab%", "on"):
        with pytest.raises(NotFoundError, match=f"^No such container: {reference}$"):
            engine.containers.find(reference)
    with pytest.raises(InvalidArgumentError, match="empty"):
        engine.containers.find("")


def test_a_life(engine: Engine) -> None:
    container_id, monitor = engine.run("web", program=["sh", "-c", "sleep 0.3; exit 7"])
    running = engine.containers.find("web")
    assert (running.status, running.monitor_pid) == ("running", monitor)
    assert procfs.is_running(running.init_pid, running.init_start_time)
    assert engine.containers.wait("web") == 7
    ended = engine.containers.find(container_id)
    assert (ended.status, ended.exit_status, ended.init_pid) == ("exited", 7, 0)
    assert ended.monitor_pid == 0
    assert 0 < ended.started_ns < ended.finished_ns
    assert engine.containers.wait("web") == 7


def test_a_failed_start_stays_created(engine: Engine) -> None:
    container_id = engine.create("web", in_charge=True)
    engine.containers.mark_start_failed(container_id, 127, "no such program")
    found = engine.containers.find("web")
    assert (found.status, found.exit_status, found.error) == ("created", 127, "no such program")
    engine.containers.remove("web")
    assert engine.containers.list(all=True) == []


def test_stop_waits_for_the_record(engine: Engine) -> None:
    engine.run("web")
    engine.containers.stop("web")
    found = engine.containers.find("web")
    assert (found.status, found.exit_status) == ("exited", 128 + signal.SIGTERM)
    engine.containers.stop("web")  # again is no error


def trapping(traps: str, ready: Path) -> list[str]:
    """Return a program that says, by making a file, that its traps are set."""
    return ["sh", "-c", f"{traps}; : > {ready}; while :; do sleep 0.05; done"]


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_stop_kills_what_does_not_listen(engine: Engine, tmp_path: Path) -> None:
    engine.run("web", program=trapping("trap '' TERM", tmp_path / "ready"))
    wait_for_file(tmp_path / "ready")
    begin = time.monotonic()
    engine.containers.stop("web", timeout_seconds=1)
    assert 1 <= time.monotonic() - begin < 5
    assert engine.containers.find("web").exit_status == 128 + signal.SIGKILL


def test_stop_uses_the_containers_own_signal_and_patience(engine: Engine, tmp_path: Path) -> None:
    program = trapping("trap 'exit 33' USR1; trap '' TERM", tmp_path / "ready")
    engine.run("web", program=program, config={"StopSignal": "SIGUSR1", "StopTimeout": 5})
    wait_for_file(tmp_path / "ready")
    engine.containers.stop("web")
    assert engine.containers.find("web").exit_status == 33


def test_a_signal_that_does_not_exist_changes_nothing(engine: Engine) -> None:
    engine.run("web")
    for attempt in (engine.containers.stop, engine.containers.kill):
        with pytest.raises(InvalidArgumentError, match="invalid signal"):
            attempt("web", signal="NOSUCH")
    assert engine.containers.find("web").status == "running"


def test_kill(engine: Engine) -> None:
    container_id, _ = engine.run("web")
    engine.containers.kill("web")
    assert engine.containers.find("web").exit_status == 137
    with pytest.raises(ConflictError) as caught:
        engine.containers.kill("web")
    assert caught.value.message == (
        f"cannot kill container: web: container {container_id} is not running"
    )


def test_a_reused_pid_is_never_signalled(engine: Engine) -> None:
    """The record names our own pid, with the start time of another process."""
    container_id = engine.create("web", in_charge=True)
    engine.containers.mark_started(container_id, os.getpid(), 12345, time.time_ns())
    with pytest.raises(ConflictError, match="is not running"):
        engine.containers.kill("web")


def test_remove_refuses_what_runs(engine: Engine) -> None:
    engine.run("web")
    with pytest.raises(ConflictError) as caught:
        engine.containers.remove("web")
    assert caught.value.message == (
        'cannot remove container "/web": container is running: '
        "stop the container before removing or force remove"
    )
    engine.containers.remove("web", force=True)
    assert engine.containers.list(all=True) == []
    assert os.listdir(f"{engine.settings.root}/containers") == []


def test_remove_by_force_what_its_monitor_removes(engine: Engine) -> None:
    container_id, monitor = engine.run("web", auto_remove=True)
    engine.containers.remove("web", force=True)
    with pytest.raises(NotFoundError):
        engine.containers.find(container_id)
    assert os.waitstatus_to_exitcode(os.waitpid(monitor, 0)[1]) == 0


def test_remove_by_force_what_was_started_meanwhile(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    container_id, monitor = engine.run("web")
    looked = []

    def find(self: Containers, reference: str) -> object:
        looked.append(reference)
        if len(looked) == 1:  # between its end and its restart
            return types.SimpleNamespace(id=container_id, name="web", is_active=False)
        return Ledger.find(self, reference)

    monkeypatch.setattr(Containers, "find", find)
    engine.containers.remove("web", force=True)
    with pytest.raises(NotFoundError):
        Ledger.find(engine.containers, container_id)
    assert os.waitstatus_to_exitcode(os.waitpid(monitor, 0)[1]) == 0


def test_wait_knows_the_status_of_what_is_already_removed(engine: Engine) -> None:
    engine.run("web", program=["sh", "-c", "sleep 0.2; exit 9"], auto_remove=True)
    assert engine.containers.wait("web") == 9


def test_two_removals_at_once(engine: Engine) -> None:
    container_id = engine.create("web")

    def hold(containers: Containers) -> None:
        containers._begin_removal(container_id)
        time.sleep(60)

    holder = engine.fork(hold)
    deadline = time.monotonic() + 10
    while engine.containers.find("web").status != "removing":
        assert time.monotonic() < deadline
    with pytest.raises(ConflictError, match="removal of container web is already in progress"):
        engine.containers.remove("web")
    kill_and_reap(holder)
    assert engine.containers.list(all=True) == [], "the next command finishes it"
    assert os.listdir(f"{engine.settings.root}/containers") == []


def test_a_directory_that_cannot_go_makes_it_dead(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.create("web")

    def refuse(path: str) -> None:
        raise OSError(16, "Device or resource busy", path)

    monkeypatch.setattr("ketch.engine.containers.ledger.remove_tree", refuse)
    with pytest.raises(UnavailableError, match="device or resource busy"):
        engine.containers.remove("web")
    assert engine.containers.find("web").status == "dead"
    monkeypatch.undo()
    engine.containers.remove("web")
    assert engine.containers.list(all=True) == []


def test_both_killed_at_once(engine: Engine) -> None:
    container_id, monitor = engine.run("web")
    init = engine.containers.find("web").init_pid
    kill_and_reap(monitor)
    os.kill(init, signal.SIGKILL)
    wait_for_end(init)
    (found,) = engine.containers.list(all=True)
    assert (found.status, found.exit_status, found.error) == (
        "exited",
        LOST_EXIT_STATUS,
        LOST_ERROR,
    )
    assert found.finished_ns > found.started_ns
    assert not os.path.exists(engine.settings.runtime_directory(container_id))
    assert not engine.containers.find("web").left_behind


def test_a_container_outlives_its_monitor_and_can_be_stopped(engine: Engine) -> None:
    _, monitor = engine.run("web")
    kill_and_reap(monitor)
    assert engine.containers.find("web").status == "running"
    engine.containers.stop("web")
    assert engine.containers.find("web").status == "exited"


def test_auto_remove_does_not_depend_on_the_monitor(engine: Engine) -> None:
    _, monitor = engine.run("web", auto_remove=True)
    init = engine.containers.find("web").init_pid
    kill_and_reap(monitor)
    os.kill(init, signal.SIGKILL)
    wait_for_end(init)
    assert engine.containers.list(all=True) == []
    assert os.listdir(f"{engine.settings.root}/containers") == []


def test_a_container_that_was_half_made_was_never_there(engine: Engine) -> None:
    container_id = names.new_id()

    def begin(containers: Containers) -> None:
        containers.create_record(
            container_id, name="web", image_id="", image_reference="busybox", record={}
        )
        time.sleep(60)

    child = engine.fork(begin)
    deadline = time.monotonic() + 10
    while not os.path.exists(engine.settings.container_directory(container_id)):
        assert time.monotonic() < deadline
    assert engine.containers.list(all=True) == []
    with pytest.raises(NotFoundError):
        engine.containers.find("web")
    with pytest.raises(AlreadyExistsError):
        engine.create("web")
    kill_and_reap(child)
    assert engine.containers.list(all=True) == []
    assert os.listdir(f"{engine.settings.root}/containers") == []
    engine.create("web")


def test_one_starts_at_a_time(engine: Engine) -> None:
    """The second waits for the first, and then finds the container running."""
    container_id = engine.create("web")

    def begin(containers: Containers) -> None:
        containers.claim("web")
        time.sleep(0.3)
        init = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
        start_time = procfs.process_start_time(init) or 0
        containers.mark_started(container_id, init, start_time, time.time_ns())
        time.sleep(60)

    engine.fork(begin)
    deadline = time.monotonic() + 10
    while not engine.containers.read(container_id).monitor_pid:
        assert time.monotonic() < deadline
    with pytest.raises(NotModifiedError):
        engine.containers.claim("web")
    found = engine.containers.find("web")
    engine.inits.append((found.init_pid, found.init_start_time))
    assert found.started_ns


def test_only_its_keeper_says_what_becomes_of_a_container(engine: Engine) -> None:
    """Neither another process does, nor one that has got its keeper's pid."""
    container_id = names.new_id()
    ready, tell = os.pipe()

    def keep(containers: Containers) -> None:
        create(containers, container_id, "kept", in_charge=True)
        os.write(tell, b"x")
        time.sleep(60)

    child = engine.fork(keep)
    os.close(tell)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    later = Keeper(child)
    later.start_time += 1
    store = Store(engine.settings.root)
    for stranger in (engine.containers, Containers(engine.settings, store, later)):
        refused = pytest.raises(ConflictError, match="container kept has got into other hands")
        with refused:
            stranger.mark_started(container_id, os.getpid(), 1, time.time_ns())
        with refused:
            stranger.mark_start_failed(container_id, 1, "no")
    found = engine.containers.find(container_id)
    assert (found.status, found.monitor_pid, found.error) == ("created", child, "")
    Containers(engine.settings, store, Keeper(child)).mark_start_failed(container_id, 1, "yes")
    assert engine.containers.find(container_id).error == "yes"


def test_no_row_of_a_removed_container_is_left(engine: Engine) -> None:
    gone, other = engine.create("gone"), engine.create("other")
    store = Store(engine.settings.root)
    endpoints = Endpoints(engine.settings, store)
    for one, target in ((gone, other), (other, gone)):
        request = {"Config": {}, "HostConfig": {"NetworkMode": "bridge"}}
        endpoints.declare(one, request, [(target, "al")])
        endpoints.acquire(one, request, uplinks.Direct()).turn.close()
        endpoints.release(one)
        with store.transaction() as connection:
            connection.execute(
                "INSERT INTO exec (id, container_id, created_ns, record) VALUES (?, ?, 0, '{}')",
                (f"exec {one}", one),
            )
            connection.execute(
                "INSERT INTO volume_use (volume, container_id) VALUES ('v', ?)", (one,)
            )
    engine.containers.remove("gone")
    holding = {}
    with store.reading() as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        for table in [row["name"] for row in connection.execute(query)]:
            columns = {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")}
            if "container_id" in columns:
                rows = connection.execute(f"SELECT container_id FROM {table}").fetchall()
                holding[table] = {row["container_id"] for row in rows}
    assert {"endpoint", "exec", "link", "volume_use", "lease", "port"} <= holding.keys()
    assert {table for table, ids in holding.items() if gone in ids} == set()
    kept = {"endpoint", "exec", "link", "volume_use"}
    assert {table for table, ids in holding.items() if other in ids} == kept


@pytest.mark.parametrize("auto_remove", [True, False])
def test_a_monitor_killed_before_the_start(engine: Engine, auto_remove: bool) -> None:
    def begin(containers: Containers) -> None:
        create(containers, names.new_id(), "web", in_charge=True, auto_remove=auto_remove)

    os.waitpid(engine.fork(begin), 0)
    found = engine.containers.list(all=True)
    assert [c.status for c in found] == ([] if auto_remove else ["created"])


def test_after_a_reboot_nothing_runs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.run("web")
    monkeypatch.setattr(procfs, "boot_id", lambda: "another")
    (found,) = engine.open().list(all=True)
    assert (found.status, found.exit_status) == ("exited", LOST_EXIT_STATUS)


def test_many_look_while_one_ends(engine: Engine) -> None:
    """Whatever the moment, nobody takes an ordinary end for a lost one."""
    seen: set[tuple[str, int]] = set()
    for _ in range(5):
        container_id, monitor = engine.run(program=["sh", "-c", "sleep 0.05; exit 3"])
        stop = threading.Event()

        def look(stop: threading.Event = stop, container_id: str = container_id) -> None:
            containers = engine.open()
            while not stop.is_set():
                found = containers.find(container_id)
                seen.add((found.status, found.exit_status))

        looker = threading.Thread(target=look)
        looker.start()
        os.waitpid(monitor, 0)
        stop.set()
        looker.join()
        assert engine.containers.find(container_id).exit_status == 3
    assert seen <= {("running", 0), ("exited", 3)}


def test_events_do_not_pile_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ketch.engine.records.events.KEPT", 3)
    for _ in range(4):
        engine.containers.remove(engine.create())
    with engine.containers._store.reading() as connection:
        rows = connection.execute("SELECT action FROM event ORDER BY id").fetchall()
    assert [row["action"] for row in rows] == ["destroy", "create", "destroy"]


@pytest.mark.root
def test_the_cgroup_of_a_lost_container_goes_with_all_in_it(engine: Engine, run_name: str) -> None:
    """A grandchild in a v1 or v2 cgroup is all that a killed monitor and init left."""
    container_id = names.new_id()
    path = f"/{run_name}/{container_id}"
    ready, tell = os.pipe()

    def monitor(containers: Containers) -> None:
        create(containers, container_id, "web", in_charge=True)
        directory = engine.settings.container_directory(container_id)
        Path(directory, "config.json").write_text(json.dumps({"linux": {"cgroupsPath": path}}))
        cgroup = cgroups.manager(path, cgroups.detect())
        cgroup.create()
        survivor = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}, setsid=True)
        cgroup.attach(survivor)
        containers.mark_started(container_id, survivor, 1, time.time_ns())
        os.write(tell, str(survivor).encode())
        time.sleep(60)

    child = engine.fork(monitor)
    os.close(tell)
    survivor = int(os.read(ready, 20))
    os.close(ready)
    kill_and_reap(child)
    (found,) = engine.containers.list(all=True)
    assert found.status == "exited"
    wait_for_end(survivor)
    assert not cgroups.manager(path, cgroups.detect()).exists()
    cgroups.manager(f"/{run_name}", cgroups.detect()).delete()
