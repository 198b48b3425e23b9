"""The zygote: one for like callers, gone when unused, replaced when ketch changes, safe to kill."""

import _socket
import contextlib
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ketch.engine.monitor import zygote
from ketch.engine.requests import launch, wire
from ketch.engine.settings import Settings
from ketch.linux.memory_image import Image

pytestmark = pytest.mark.root

PACKAGE = pathlib.Path(launch.__file__).parents[2]


@pytest.fixture
def state(run_name: str) -> Iterator[pathlib.Path]:
    """A state directory; the zygotes that serve it are ended afterwards."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{run_name}-"))
    yield directory
    for pid in zygotes(directory):
        with contextlib.suppress(ProcessLookupError):  # a monitor may just have ended
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(directory)


def zygotes(state: pathlib.Path) -> list[int]:
    """Processes that serve a state directory: zygote and monitors."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                words = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                if os.fsencode(state) in words:
                    found.append(int(entry))
    return found


def alone(state: pathlib.Path) -> int:
    """Wait until the zygote is the only process left; returns its pid."""
    deadline = time.monotonic() + 20
    while len(found := zygotes(state)) != 1:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found[0]


def gone(state: pathlib.Path) -> None:
    deadline = time.monotonic() + 20
    while zygotes(state):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(state: pathlib.Path, *, zygote: bool = True) -> str:
    """Ask for the impossible, which takes a monitor to refuse; returns its words."""
    settings = Settings("/", str(state), zygote=zygote)
    with contextlib.closing(launch.connect(settings)) as connection:
        return answer(connection)


def answer(connection: _socket.socket) -> str:
    request: dict[str, wire.Value] = {
        "action": "exec", **Settings("/dev/null/none", "/dev/null").fields,
        "arguments": ["x", "y"],
        "environment": [], "directory": "/", "--env": [], "--env-file": [], "--user": "",
        "--workdir": "", "--tty": False, "--interactive": False, "--detach": False,
        "--privileged": False,
    }  # fmt: skip
    connection.sendall(wire.frame(wire.REQUEST, wire.encode(request)))
    decoder = wire.Decoder()
    while data := connection.recv(65536):
        for kind, payload in decoder.feed(data):
            assert kind == wire.FAILED
            return wire.decode_failure(payload)[1]
    return ""


def test_it_starts_at_first_use_and_stays(state: pathlib.Path) -> None:
    assert "/dev/null" in ask(state)
    first = alone(state)
    assert "/dev/null" in ask(state)
    assert alone(state) == first


def test_concurrent_first_callers_start_one(state: pathlib.Path) -> None:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(ask_apart(state))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 20
    assert all("/dev/null" in words for words in answers), answers
    alone(state)
    assert len(list(state.glob("*.socket"))) == 1


ASK = """
import os, sys
from tests.kernel.engine.monitor import test_zygote
import pathlib
print(test_zygote.ask(pathlib.Path(sys.argv[1])))
"""


def ask_apart(state: pathlib.Path, *prefix: str, **options: object) -> str:
    """Ask from another process, since locks and limits belong to processes."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", ASK, str(state)], check=True, capture_output=True,
        text=True, cwd=PACKAGE.parents[1], **options,
    )  # type: ignore[call-overload]  # fmt: skip
    return str(done.stdout).strip()


def test_without_a_zygote_none_is_started(state: pathlib.Path) -> None:
    assert "/dev/null" in ask(state, zygote=False)
    gone(state)
    assert not list(state.glob("*.socket"))


def test_a_killed_one_is_replaced(state: pathlib.Path) -> None:
    ask(state)
    first = alone(state)
    pidfd = os.pidfd_open(first)
    os.kill(first, signal.SIGKILL)
    # Its arguments go before its socket does, on which a caller would still be let in.
    assert select.select((pidfd,), (), (), 20)[0]
    os.close(pidfd)
    assert "/dev/null" in ask(state)
    assert alone(state) != first


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"x",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100_000,
        wire.frame(wire.REQUEST, b""),
        wire.frame(wire.REQUEST, b"a\0sb"),
        wire.frame(wire.REQUEST, wire.encode({"action": "nope"})),
        wire.frame(wire.REQUEST, wire.encode({"action": ["run"]})),
        wire.frame(wire.REQUEST, wire.encode({"action": "run"})),
    ],
    ids=range(9),
)
def test_junk_hurts_nobody(state: pathlib.Path, junk: bytes) -> None:
    ask(state)
    first = alone(state)
    connection = launch.connect(Settings("/", str(state)))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(junk)
    connection.close()
    assert "/dev/null" in ask(state)
    assert alone(state) == first


def test_nothing_of_the_first_caller_is_kept(state: pathlib.Path, tmp_path: pathlib.Path) -> None:
    reader, writer = os.pipe()
    kept = tmp_path / "kept"
    kept.touch()
    script = 'umask 077; exec 7<"$1"; cd "$2"; shift 2; trap "" HUP USR1; exec "$@"'
    ask_apart(
        state, "sh", "-c", script, "sh", str(kept), str(tmp_path), "env", "-C",
        str(PACKAGE.parents[1]), "SECRET=1",
        pass_fds=[writer], stdin=subprocess.PIPE,
    )  # fmt: skip
    os.close(writer)
    assert os.read(reader, 1) == b"", "somebody holds the caller's pipe"
    os.close(reader)
    pid = alone(state)
    process = pathlib.Path("/proc", str(pid))
    assert process.joinpath("cwd").readlink() == pathlib.Path("/")
    assert process.joinpath("environ").read_bytes() == b""
    status = dict(
        line.split(":\t", 1) for line in process.joinpath("status").read_text().splitlines()
    )
    assert status["Umask"] == "0022"
    ignored = int(status["SigIgn"], 16)
    assert not ignored & (1 << (signal.SIGHUP - 1) | 1 << (signal.SIGUSR1 - 1))
    assert int(status["SigBlk"], 16) == 0
    opened = {entry.name: str(entry.readlink()) for entry in process.joinpath("fd").iterdir()}
    listener = opened.pop("3")
    assert listener.startswith("socket:")
    own = [name for name, what in opened.items() if what == "anon_inode:inotify"]
    assert opened.pop(own[0])
    assert opened == {"0": "/dev/null", "1": "/dev/null", "2": f"{state}/errors.log"}
    assert os.getsid(pid) == pid


def test_callers_with_other_limits_have_another(state: pathlib.Path) -> None:
    ask_apart(state, "prlimit", "--nofile=321:1234")
    limited = alone(state)
    ask(state)
    limits = {}
    for pid in zygotes(state):
        with contextlib.suppress(FileNotFoundError):  # who served the request may be ending
            limits[pid] = pathlib.Path(f"/proc/{pid}/limits").read_text()
    assert "321                  1234" in limits.pop(limited)
    assert limits
    assert all("321                  1234" not in text for text in limits.values())
    assert len(list(state.glob("*.socket"))) == 2


def test_the_interpreter_cannot_be_written_from_a_container(state: pathlib.Path) -> None:
    """What /proc/PID/exe leads to is on a read-only mount of its own: CVE-2019-5736."""
    ask(state)
    program = f"/proc/{alone(state)}/exe"
    with pytest.raises(OSError, match=r"Read-only|Text file busy"):
        os.open(program, os.O_WRONLY)
    mode = os.statvfs(program).f_flag
    assert mode & os.ST_RDONLY


def in_place(package: pathlib.Path, text: str) -> None:
    (package / CHANGED).write_text(text)


def by_name(package: pathlib.Path, text: str) -> None:
    """As package managers do."""
    new = package / "new.py"
    new.write_text(text)
    new.rename(package / CHANGED)


def with_its_directory(package: pathlib.Path, text: str) -> None:
    directory = (package / CHANGED).parent
    aside = package / "aside"
    directory.rename(aside)
    shutil.copytree(aside, directory)
    in_place(package, text)
    shutil.rmtree(aside)


def as_a_whole(package: pathlib.Path, text: str) -> None:
    """Exchange a directory above all that is loaded."""
    top = package.parent
    new = top.with_name("new")
    shutil.copytree(top, new)
    in_place(new / package.name, text)
    top.rename(top.with_name("old"))
    new.rename(top)


CHANGED = pathlib.Path("engine", "monitor", "requests.py")
CHANGES = [in_place, by_name, with_its_directory, as_a_whole]


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
def test_new_code_is_used_at_once(
    state: pathlib.Path, tmp_path: pathlib.Path, change: Callable[[pathlib.Path, str], None]
) -> None:
    package = tmp_path / "place" / "ketch"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    program = tmp_path / "ask.py"
    program.write_text(
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from ketch.engine.requests import launch, wire\n"
        "from ketch.engine.settings import Settings\n"
        "s = launch.connect(Settings('/', sys.argv[1]))\n"
        "s.sendall(wire.frame(wire.REQUEST, wire.encode({'action': 'exec', 'state': '/'})))\n"
        "print(s.recv(1000))\n"
    )
    command = [sys.executable, str(program), str(state), str(package.parent)]

    def said() -> bytes:
        environment = {**os.environ, "PYTHONPATH": str(package.parent)}
        return subprocess.run(command, check=True, capture_output=True, env=environment).stdout

    text = (package / CHANGED).read_text()
    assert b"new code" not in said()
    pid = alone(state)
    for number in range(2):  # what has been made anew is watched too
        # Of another length each time: Python knows what it has compiled by second and size.
        words = f"new code {'+' * number}"
        failing = f"def _exec(*_):\n    raise KetchError({words!r})\n\n\ndef _old_exec("
        change(package, text.replace("def _exec(", failing))
        assert words.encode() in said()
        assert alone(state) == pid, "it is the same process with other code"
        shutil.rmtree(tmp_path / "old", ignore_errors=True)


def test_nothing_is_looked_at_for_each_caller(state: pathlib.Path) -> None:
    ask(state)
    pid = alone(state)
    calls = state / "calls"
    with subprocess.Popen(
        ["strace", "-q", "-o", calls, "-e", "trace=file", "-p", str(pid)], stderr=subprocess.PIPE
    ) as tracer:
        traced = pathlib.Path(f"/proc/{pid}/status")
        deadline = time.monotonic() + 20
        while "TracerPid:\t0" in traced.read_text(encoding="ascii"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for _ in range(3):
            ask(state)
        tracer.terminate()
    lines = [line for line in calls.read_text().splitlines() if "stat" in line]
    assert len(lines) == 3, lines  # where the package is, once each


# Its loop, with a stub for a monitor and an idle time that suits a test.


@contextlib.contextmanager
def loop(path: pathlib.Path, serve: Callable[..., None], idle_seconds: float) -> Iterator[int]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(128)
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            status = {"idle": 0, "changed": 2}[
                zygote.serve_until_idle(listener, str(path), serve, idle_seconds, Image())
            ]
        os._exit(status)
    listener.close()
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def echo(connection: socket.socket, _memory: Image) -> None:
    connection.send(b"%d" % os.getpid())


def call(path: pathlib.Path) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(path))
        return caller.recv(100)


def test_it_leaves_after_a_while_unused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "z.socket"
    with loop(path, echo, 0.4) as pid:
        for _ in range(4):
            time.sleep(0.2)  # together longer than the idle time
            assert call(path)
        assert os.waitpid(pid, 0)[1] == 0
        assert not path.exists()


def test_it_does_not_take_anothers_socket_along(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "z.socket"
    with loop(path, echo, 0.3) as pid:
        assert call(path)
        path.unlink()
        path.touch()
        assert os.waitpid(pid, 0)[1] == 0
        assert path.exists()


def test_no_caller_is_lost_when_it_leaves(tmp_path: pathlib.Path) -> None:
    """Whoever could connect is served: the moment of leaving is hit by calling without a pause."""
    path = tmp_path / "z.socket"
    for round_ in range(5):
        with loop(path, echo, 0.001 * (round_ + 1)) as pid:
            while True:
                time.sleep(0.001 * (round_ + 1))
                try:
                    answered = call(path)
                except (FileNotFoundError, ConnectionRefusedError):
                    break
                assert answered
            assert os.waitpid(pid, 0)[1] == 0


def test_monitors_are_of_another_session_and_default_signals(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "z.socket"

    def report(connection: socket.socket, _memory: Image) -> None:
        alone_ = os.getsid(0) == os.getpid()
        children = signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
        connection.send(b"%d %d %d" % (alone_, children, connection.getblocking()))

    with loop(path, report, 10):
        assert call(path) == b"1 1 1"


def test_another_users_call_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "z.socket"
    with loop(path, echo, 10):
        os.chmod(path, 0o777)
        for parent in list(path.parents)[:-1]:
            if parent.stat().st_uid == os.getuid() and parent != pathlib.Path("/tmp"):
                os.chmod(parent, 0o755)
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
             "/usr/bin/python3", "-c",
             "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
             " print(s.recv(100))", str(path)],
            check=True, capture_output=True, text=True, cwd="/",
        )  # fmt: skip
        assert done.stdout == "b''\n"
        assert call(path)


def test_a_failing_monitor_harms_nobody_else(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "z.socket"

    def fail(connection: socket.socket, _memory: Image) -> None:
        if connection.recv(1) == b"x":
            os.close(2)
            raise SystemExit
        connection.send(b"fine")

    with loop(path, fail, 10):
        for word, expected in ((b"x", b""), (b"y", b"fine")):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
                caller.connect(str(path))
                caller.send(word)
                assert caller.recv(100) == expected
