"""RUN's programs: on an image's files, with the runtime of containers, and nothing left of them."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from ketch.build import graph
from ketch.build.graph import MountKind
from ketch.build.request import Request
from ketch.build.steps import Outcome, Prepared, Source, Steps, caches, clean
from ketch.engine.engine import Engine as Library
from ketch.engine.networks.default import default_bridge
from ketch.engine.processes import Patience
from ketch.engine.settings import Settings
from ketch.errors import InvalidArgumentError, NotFoundError, StartError, UnavailableError
from tests.support.commands import Engine

pytestmark = pytest.mark.root_engine("the engine in this process is root's")

BASE = graph.Scratch(name="base")


class CalledOffError(Exception):
    """A test does not want to wait any more."""


class Limited(Patience):
    """Waits until an event, and then no more."""

    def __init__(self, ended: threading.Event) -> None:
        self._ended = ended

    def poll(self, milliseconds: int | None, *watched: tuple[int, int]) -> list[tuple[int, int]]:
        while True:
            if self._ended.is_set():
                raise CalledOffError
            if found := super().poll(20, *watched):
                return found


class Bench:
    """Runs steps on busybox, each on a root of its own."""

    def __init__(self, engine: Library, directory: pathlib.Path) -> None:
        self.engine = engine
        self.directory = directory
        self.root = ""
        self.errors = b""

    def prepare(self) -> str:
        directory = self.directory / os.urandom(6).hex()
        directory.mkdir()
        image = self.engine.images.resolve("busybox", "")
        self.engine.images.snapshotter.prepare(str(directory), image.chain_ids, bare=True)
        return str(directory)

    def run(
        self,
        steps: Steps,
        *words: str,
        sources: Mapping[graph.Mount, Source] | None = None,
        **fields: object,
    ) -> tuple[Outcome, str]:
        self.root = self.prepare()
        written = {1: b"", 2: b""}

        def output(stream: int, data: bytes) -> None:
            written[stream] += data

        step = graph.Run(name="RUN", base=BASE, arguments=words, **fields)  # type: ignore[arg-type]
        outcome = steps.run(step, self.root, output, sources=sources)
        self.errors = written[2]
        return outcome, written[1].decode()

    def changes(self) -> list[tuple[int, bytes]]:
        return [(one.kind, one.path) for one in self.engine.images.snapshotter.changes(self.root)]


@pytest.fixture
def bench(ketch: Engine, tmp_path: pathlib.Path) -> Iterator[Bench]:
    places = dict(zip(ketch.prefix[1::2], ketch.prefix[2::2], strict=False))
    engine = Library(Settings(places["--root"], places["--state"]))
    yield Bench(engine, tmp_path)
    engine.store.close()


@pytest.fixture
def steps(bench: Bench) -> Iterator[Steps]:
    with Steps(bench.engine, Request(contexts={})) as steps:
        yield steps


def test_a_step_has_its_image_user_directory_and_environment(bench: Bench, steps: Steps) -> None:
    script = "id -u; pwd; hostname; env | sort; cat /etc/hosts; echo wrong >&2; exit 7"
    outcome, told = bench.run(
        steps, "sh", "-c", script, user="7", directory="/made", environment=("A=b",),
        hidden=("http_proxy=there",),
    )  # fmt: skip
    assert outcome == Outcome(7)
    assert bench.errors == b"wrong\n"
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert told.splitlines() == [
        "7", "/made", "buildkitsandbox", "A=b", "HOME=/", f"PATH={path}", "PWD=/made", "SHLVL=1",
        "http_proxy=there", "127.0.0.1\tlocalhost buildkitsandbox",
        "::1\tlocalhost ip6-localhost ip6-loopback",
    ]  # fmt: skip


def test_what_is_mounted_for_a_step_is_no_part_of_its_result(bench: Bench, steps: Steps) -> None:
    outcome, _ = bench.run(steps, "sh", "-c", "mkdir /new && echo x >/new/file && rm /bin/wc")
    assert outcome == Outcome(0)
    paths = sorted(path for _, path in bench.changes())
    assert paths == [b"bin", b"bin/wc", b"new", b"new/file"]
    image = bench.engine.images.resolve("busybox", "")
    below = bench.engine.images.snapshotter.path(image.chain_ids[-1])
    for name in ("etc", "bin"):  # of which one got mount points, the other was changed
        places = (f"{below}/diff/{name}", f"{bench.root}/upper/{name}")
        times = [os.stat(place).st_mtime_ns for place in places]
        assert (times[0] == times[1]) == (name == "etc")


def test_a_step_is_in_a_network_of_its_own_that_the_next_one_has(
    bench: Bench, steps: Steps
) -> None:
    show = ("sh", "-c", "readlink /proc/self/ns/net; ip -4 -o address show eth0; ip route")
    _, first = bench.run(steps, *show)
    _, second = bench.run(steps, *show)
    _, none = bench.run(steps, *show, network=graph.Network.NONE)
    _, host = bench.run(steps, *show, network=graph.Network.HOST)
    assert first == second
    assert "default via" in first
    assert none.splitlines()[1:] == []
    assert host.splitlines()[0] == os.readlink("/proc/self/ns/net")


def test_a_step_without_a_zygote(bench: Bench) -> None:
    settings = Settings(bench.engine.settings.root, bench.engine.settings.state, zygote=False)
    with Steps(Library(settings), Request(contexts={})) as steps:
        outcome, told = bench.run(steps, "sh", "-c", "ip -o link; exit 3")
    assert outcome == Outcome(3)
    assert ": eth0@" in told


def test_how_a_program_ends_is_told(bench: Bench, steps: Steps) -> None:
    outcome, _ = bench.run(steps, "sh", "-c", "sh -c 'kill -9 $$'; exit $?")
    assert outcome == Outcome(137)
    with pytest.raises(StartError) as raised:
        bench.run(steps, "nothing-like-it")
    assert raised.value.exit_status == 127
    with pytest.raises(InvalidArgumentError, match="unable to find user nobody-here"):
        bench.run(steps, "true", user="nobody-here")


def test_what_a_step_leaves_behind_dies_with_it(bench: Bench, steps: Steps) -> None:
    began = time.monotonic()
    outcome, told = bench.run(steps, "sh", "-c", "sleep 100 & echo begun")
    assert (outcome, told) == (Outcome(0), "begun\n")
    assert time.monotonic() - began < 20


def test_a_step_that_is_called_off_ends(bench: Bench, steps: Steps) -> None:
    begun = threading.Event()
    step = graph.Run(name="RUN", base=BASE, arguments=("sh", "-c", "echo begun; sleep 100"))
    with pytest.raises(CalledOffError):
        steps.run(step, bench.prepare(), lambda *_: begun.set(), patience=Limited(begun))
    deadline = time.monotonic() + 10
    while os.listdir(f"{bench.engine.settings.state}/steps"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_flood_of_output_is_bounded_by_its_reader(bench: Bench, steps: Steps) -> None:
    seen = 0

    def output(_stream: int, data: bytes) -> None:
        nonlocal seen
        assert len(data) <= 64 * 1024
        seen += len(data)

    words = ("sh", "-c", "head -c 20000000 /dev/zero")
    step = graph.Run(name="RUN", base=BASE, arguments=words)
    assert steps.run(step, bench.prepare(), output) == Outcome(0)
    assert seen == 20_000_000


# Mounts


def mount(kind: MountKind, target: str, **fields: object) -> graph.Mount:
    return graph.Mount(kind, target, **fields)  # type: ignore[arg-type]


def test_what_is_bound_is_a_part_of_a_root_and_not_of_the_result(
    bench: Bench, steps: Steps
) -> None:
    read = mount(MountKind.BIND, "/a/b", source=BASE, source_path="/etc/passwd", read_only=True)
    write = mount(MountKind.BIND, "/written", source=BASE)
    empty = mount(MountKind.BIND, "/empty")
    roots = {read: Prepared(bench.prepare()), write: Prepared(bench.prepare())}
    script = (
        "grep -c root /a/b; echo x >>/a/b; rm /written/bin/wc; echo y >/written/new; "
        "ls /written/bin/wc; ls -A /empty; : >/stays; mkdir /more"
    )
    outcome, told = bench.run(steps, "sh", "-c", script, mounts=(read, write, empty), sources=roots)
    assert (outcome, told) == (Outcome(0), "1\n")
    assert b"/a/b: Read-only file system" in bench.errors
    assert b"/written/bin/wc: No such file" in bench.errors
    assert sorted(path for _, path in bench.changes()) == [b"more", b"stays"]
    missing = mount(MountKind.BIND, "/a", source=BASE, source_path="/not/there")
    with pytest.raises(NotFoundError, match="/not/there"):
        bench.run(steps, "true", mounts=(missing,), sources={missing: roots[write]})


def test_no_symlink_leads_out_of_what_is_bound(bench: Bench, steps: Steps) -> None:
    """CVE-2024-1753, CVE-2024-11218: links of the source's, of the root's mount points."""
    source = bench.prepare()
    for place in (source, None):
        root = source if place else bench.prepare()
        os.symlink("/etc", f"{root}/upper/out")
        os.symlink("/../../../../../etc/passwd", f"{root}/upper/file")
    dangerous = mount(MountKind.BIND, "/out/made", source=BASE, source_path="/file", read_only=True)
    step = graph.Run(name="RUN", base=BASE, arguments=("cat", "/etc/made"), mounts=(dangerous,))
    written = []
    outcome = steps.run(
        step, root, lambda _, data: written.append(data), sources={dangerous: Prepared(source)}
    )
    assert outcome == Outcome(0)
    assert b"".join(written).startswith(b"root:")
    assert pathlib.Path("/etc/passwd").read_bytes() != b"".join(written)
    assert not os.path.lexists("/etc/made")
    assert not os.path.lexists(f"{root}/upper/etc/made")


def test_a_tmpfs_has_its_size(bench: Bench, steps: Steps) -> None:
    wanted = mount(MountKind.TMPFS, "/memory", size_bytes=1 << 20)
    script = "grep /memory /proc/mounts; echo x >/memory/file"
    outcome, told = bench.run(steps, "sh", "-c", script, mounts=(wanted,))
    assert outcome == Outcome(0)
    assert "size=1024k" in told
    assert bench.changes() == []


def test_secrets_are_files_and_variables_and_nowhere_else(bench: Bench) -> None:
    word = os.urandom(8).hex()
    request = Request(contexts={}, secrets=Words({"word": word.encode()}))
    mounts = (
        mount(MountKind.SECRET, "/run/secrets/word", id="word", uid=7, gid=8),
        mount(MountKind.SECRET, "", id="word", variable="WORD"),
        mount(MountKind.SECRET, "/run/secrets/other", id="other"),
    )
    script = (
        "cat /run/secrets/word; echo :$WORD; stat -c '%a %u %g' /run/secrets/word; "
        "grep -o 'secrets/word.*' /proc/mounts; ls /run/secrets"
    )
    with Steps(bench.engine, request) as steps:
        outcome, told = bench.run(steps, "sh", "-c", script, mounts=mounts)
        assert outcome == Outcome(0)
        lines = told.splitlines()
        assert lines[:2] == [f"{word}:{word}", "400 7 8"]
        assert lines[2].split()[2].startswith("ro,nosuid,nodev,noexec")
        assert lines[3:] == ["word"]
        assert bench.changes() == []
        required = mount(MountKind.SECRET, "/s", id="other", required=True)
        with pytest.raises(NotFoundError, match="secret other: not found"):
            bench.run(steps, "true", mounts=(required,))
    settings = bench.engine.settings
    for place in (settings.root, settings.state, bench.root):
        found = subprocess.run(["grep", "-r", "-l", word, place], check=False, capture_output=True)
        assert not found.stdout


def test_an_agent_is_reached_by_a_socket_of_the_step_s_own(
    bench: Bench, tmp_path: pathlib.Path
) -> None:
    """Whoever runs there: the agent hears of its user alone."""
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen()
        threading.Thread(target=_echo, args=(listener,), daemon=True).start()
        request = Request(contexts={}, agents=Words({"default": path.encode()}))
        wanted = mount(MountKind.SSH, "", id="default", uid=7, mode=0o600)
        script = "stat -c '%a %u %F' $SSH_AUTH_SOCK; while [ ! -e /tmp/asked ]; do sleep 0.02; done"
        step = graph.Run(
            name="RUN", base=BASE, arguments=("sh", "-c", script), user="7", mounts=(wanted,)
        )
        told = b""

        def output(_stream: int, data: bytes) -> None:
            nonlocal told
            inside = f"/proc/{_program(bench.engine.settings)}/root"
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(f"{inside}/run/buildkit/ssh_agent.0")
                for word in (b"one", b"two"):
                    asking.sendall(word)
                    told += asking.recv(100)
                asking.shutdown(socket.SHUT_WR)
                told += b" " + data + asking.recv(100)
            pathlib.Path(f"{inside}/tmp/asked").touch()

        with Steps(bench.engine, request) as steps:
            assert steps.run(step, bench.prepare(), output) == Outcome(0)
    assert told == b"onetwo 600 7 socket\n"


def _program(settings: Settings) -> int:
    """Pid of the program of the only step that runs."""
    (step,) = pathlib.Path(f"{settings.state}/steps").iterdir()
    pid = os.readlink(step).split()[0]
    return int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text())


def _echo(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        while data := connection.recv(100):
            connection.sendall(data)


class Words:
    """Secrets, or the paths of agents."""

    def __init__(self, words: dict[str, bytes]) -> None:
        self._words = words

    def get(self, id: str) -> bytes | None:  # noqa: A002 - the protocol's word
        return self._words.get(id)

    def socket(self, id: str) -> str | None:  # noqa: A002 - the protocol's word
        found = self._words.get(id)
        return None if found is None else found.decode()


def test_here_documents_are_executable_files(bench: Bench, steps: Steps) -> None:
    text = b"#!/bin/sh\necho from a here-document\n"
    outcome, told = bench.run(steps, "/dev/pipes/EOF", files={"EOF": text})
    assert (outcome, told) == (Outcome(0), "from a here-document\n")
    assert bench.changes() == []


def test_a_cache_is_what_earlier_steps_left_there(bench: Bench, steps: Steps) -> None:
    name = os.urandom(6).hex()
    cache = mount(MountKind.CACHE, "/cache", id=name)
    other = mount(MountKind.CACHE, "/cache", id=f"../{name}", mode=0o1777, uid=7, gid=8)
    script = "stat -c '%a %u %g' /cache; ls /cache; echo x >/cache/left"
    seen = [bench.run(steps, "sh", "-c", script, mounts=(one,))[1] for one in (cache, cache, other)]
    assert seen == ["755 0 0\n", "755 0 0\nleft\n", "1777 7 8\n"]
    with Steps(bench.engine, Request(contexts={}), scope="somebody else") as others:
        assert bench.run(others, "ls", "/cache", mounts=(cache,))[1] == ""
    root = bench.engine.settings.root
    mine = [one for one in caches.listed(root) if name in one.id]
    assert len(mine) == 3
    assert all(caches.remove(root, one.name) for one in mine)
    assert not [one for one in caches.listed(root) if name in one.id]


def test_a_cache_begins_with_what_its_source_has(bench: Bench, steps: Steps) -> None:
    """Of which a link may be there that leads out: buildah's CVE-2024-9675, by what is in it."""
    root = bench.prepare()
    os.symlink("/", f"{root}/upper/out")
    wanted = mount(MountKind.CACHE, "/c", id=os.urandom(6).hex(), source=BASE, source_path="/etc")
    words = ("sh", "-c", "ls /c/passwd && rm /c/passwd")
    for status in (0, 1):
        sources = {wanted: Prepared(root, "it")}
        assert bench.run(steps, *words, mounts=(wanted,), sources=sources)[0] == Outcome(status)
    out = dataclasses.replace(wanted, source_path="/out/bin")
    _, told = bench.run(steps, "ls", "/c", mounts=(out,), sources={out: Prepared(root, "it")})
    assert "busybox" in told.split()
    assert "bash" not in told.split()


@pytest.mark.parametrize("sharing", list(graph.Sharing))
def test_who_may_have_a_cache_at_the_same_time(
    bench: Bench, steps: Steps, sharing: graph.Sharing
) -> None:
    """Shared: one directory for both. Private: another. Locked: one after the other."""
    cache = mount(MountKind.CACHE, "/c", id=os.urandom(6).hex(), sharing=sharing)
    begun = threading.Event()
    words = ("sh", "-c", "echo >/c/first; echo; sleep 1; rm /c/first; ls /c")
    first = graph.Run(name="RUN", base=BASE, arguments=words, mounts=(cache,))
    thread = threading.Thread(
        target=steps.run, args=(first, bench.prepare(), lambda *_: begun.set())
    )
    thread.start()
    begun.wait(20)
    began = time.monotonic()
    _, told = bench.run(steps, "ls", "/c", mounts=(cache,))
    waited = time.monotonic() - began
    thread.join()
    assert told == ("first\n" if sharing is graph.Sharing.SHARED else "")
    assert sharing is not graph.Sharing.LOCKED or waited > 0.5
    made = [one for one in caches.listed(bench.engine.settings.root) if one.id == cache.id]
    assert len(made) == (2 if sharing is graph.Sharing.PRIVATE else 1)
    assert not any(one.in_use for one in made)


def test_a_part_of_a_cache_that_another_step_exchanges(bench: Bench, steps: Steps) -> None:
    """CVE-2024-23651: a directory becomes a symlink between the look and the mount."""
    whole = mount(MountKind.CACHE, "/c", id=os.urandom(6).hex())
    part = mount(MountKind.CACHE, "/c", id=whole.id, source_path="/part")
    done = threading.Event()
    begun = threading.Event()
    script = "cd /c; echo; while :; do mkdir part; rmdir part; ln -s / part; rm part; done"
    step = graph.Run(name="RUN", base=BASE, arguments=("sh", "-c", script), mounts=(whole,))
    root = bench.prepare()

    def exchange() -> None:
        with contextlib.suppress(CalledOffError):
            steps.run(step, root, lambda *_: begun.set(), patience=Limited(done))

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        assert begun.wait(20)
        for _ in range(15):
            # It is not there, or not any more.
            with contextlib.suppress(NotFoundError, InvalidArgumentError):
                outcome, told = bench.run(steps, "ls", "/c", mounts=(part,))
                assert outcome == Outcome(0)
                assert told in {"", "part\n"}
    finally:
        done.set()
        thread.join()


# Limits and privileges


def test_limits_privileges_and_devices(bench: Bench) -> None:
    request = Request(
        contexts={}, shm_size_bytes=1 << 20, ulimits=("nofile=123:456",),
        add_hosts=("there:1.2.3.4",),
        cgroup_parent="/ketch-tests-parent", limits={"Memory": 32 << 20, "PidsLimit": 100},
    )  # fmt: skip
    script = (
        "ulimit -n; grep -o 'size=1024k' /proc/mounts; grep there /etc/hosts; "
        "grep -c tests-parent /proc/self/cgroup; grep CapEff /proc/self/status; "
        "head -c 100000000 /dev/zero | tail -c 99999999 >/dev/null"
    )
    with Steps(bench.engine, request) as steps:
        outcome, told = bench.run(steps, "sh", "-c", script, network=graph.Network.NONE)
        assert outcome.oom
        lines = told.splitlines()
        assert lines[:3] == ["123", "size=1024k", "1.2.3.4\tthere"]
        assert lines[4].split()[1] == "00000000a80425fb"
        insecure = ("sh", "-c", "grep CapEff /proc/self/status; mount -t tmpfs none /tmp")
        outcome, told = bench.run(steps, *insecure, insecure=True)
        assert outcome == Outcome(0)
        assert int(told.split()[1], 16) & 1 << 21  # CAP_SYS_ADMIN
        with pytest.raises(InvalidArgumentError, match="required device"):
            bench.run(steps, "true", devices=(("vendor.com/none=a", True),))
        assert bench.run(steps, "true", devices=(("vendor.com/none=a", False),))[0] == Outcome(0)


# Networks


def test_a_named_network_and_the_names_there(ketch: Engine, bench: Bench, run_name: str) -> None:
    ketch.ok("network", "create", run_name)
    try:
        ketch.ok("run", "-d", "--name", run_name, "--network", run_name, "busybox", "sleep", "100")
        with Steps(bench.engine, Request(contexts={}, network=run_name)) as steps:
            outcome, _ = bench.run(steps, "ping", "-c", "1", "-W", "5", run_name)
            assert outcome == Outcome(0)
            inspected = ketch("network", "rm", run_name)
            assert "active endpoints" in inspected.err
            assert 'name:"build"' in inspected.err
    finally:
        ketch.ok("rm", "-f", run_name)
        eventually(lambda: not ketch("network", "rm", run_name).status, "the network stays")
    with (
        Steps(bench.engine, Request(contexts={}, network="not-there")) as steps,
        pytest.raises(NotFoundError, match="network not-there not found"),
    ):
        bench.run(steps, "true")


def test_what_a_step_s_connections_leave_is_not_the_next_one_s(bench: Bench, steps: Steps) -> None:
    show = "readlink /proc/self/ns/net"
    server = "echo x | nc -l -p 80 & sleep 0.3; nc 127.0.0.1 80 </dev/null; wait"
    _, first = bench.run(steps, "sh", "-c", f"{show}; {server}")
    _, second = bench.run(steps, "sh", "-c", show)
    _, third = bench.run(steps, "sh", "-c", show, insecure=True)
    _, fourth = bench.run(steps, "sh", "-c", show)
    assert first.split() != second.split() == third.split() != fourth.split()


# kill -9

_STEPS = """
import os, sys, tempfile
from ketch.build import graph
from ketch.build.request import Request
from ketch.build.steps import Steps
from ketch.engine.engine import Engine
from ketch.engine.settings import Settings

root, state, place = sys.argv[1:]
engine = Engine(Settings(root, state))
image = engine.images.resolve("busybox", "")
with Steps(engine, Request(contexts={})) as steps:
    print(flush=True)
    while True:
        directory = tempfile.mkdtemp(dir=place)
        engine.images.snapshotter.prepare(directory, image.chain_ids, bare=True)
        mounts = (graph.Mount(graph.MountKind.CACHE, "/c", id="killed"),)
        words = ("sh", "-c", "sleep 0.02; echo")
        step = graph.Run(name="", base=graph.Scratch(name=""), arguments=words, mounts=mounts)
        steps.run(step, directory, lambda *_: None)
"""


def test_a_build_is_killed(bench: Bench, tmp_path: pathlib.Path) -> None:
    settings = bench.engine.settings
    for number in range(10):
        words = [sys.executable, "-c", _STEPS, settings.root, settings.state, str(tmp_path)]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.03 * number)
            process.kill()
        _expect_nothing(bench)


@pytest.mark.parametrize("victim", ["ketch-step", "ketch-steps", "ketch-sandbox", "ketch-zygote"])
def test_a_process_of_a_step_is_killed(bench: Bench, victim: str) -> None:
    settings = bench.engine.settings
    ran: list[str] = []
    with Steps(bench.engine, Request(contexts={})) as steps:

        def kill(*_: object) -> None:
            ran.extend(os.listdir(f"{settings.state}/steps"))
            for pid in _processes(settings.state, victim):
                os.kill(pid, signal.SIGKILL)

        words = ("sh", "-c", "trap '' TERM; echo; sleep 1; echo done")
        step = graph.Run(name="RUN", base=BASE, arguments=words)
        if victim == "ketch-step":
            root = bench.prepare()
            with (
                pytest.raises(UnavailableError, match="has gone"),
                ThreadPoolExecutor() as threads,
            ):
                threads.submit(steps.run, step, root, kill).result()
        else:
            assert steps.run(step, bench.prepare(), kill) == Outcome(0)
        assert bench.run(steps, "true")[0] == Outcome(0)
    _expect_nothing(bench)
    assert ran
    cgroups = [top for top, _, _ in os.walk("/sys/fs/cgroup")]  # others' come and go meanwhile
    assert not [cgroup for cgroup in cgroups if os.path.basename(cgroup) in ran]


def _processes(state: str, name: str) -> list[int]:
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            named = entry.name.isdigit() and (entry / "comm").read_text() == f"{name}\n"
            if named and state in os.fsdecode((entry / "cmdline").read_bytes()):
                found.append(int(entry.name))
    return found


def _expect_nothing(bench: Bench) -> None:
    """The next command leaves nothing of what was killed."""
    engine, settings = bench.engine, bench.engine.settings

    def is_clean() -> bool:
        clean(engine)
        with engine.store.reading() as connection:
            rows = [
                connection.execute(f"SELECT * FROM {table}").fetchall()
                for table in ("sandbox", "lease", "endpoint")
            ]
        names = ("ketch-step", "ketch-steps", "ketch-sandbox")
        alive = [pid for name in names for pid in _processes(settings.state, name)]
        ports = os.listdir(f"/sys/class/net/{default_bridge(settings.root)}/brif")
        return not any((*rows, alive, ports, *pathlib.Path(settings.state).glob("steps/*")))

    eventually(is_clean, "something of the build stays")
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        assert settings.state not in mounts.read()


def eventually(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
