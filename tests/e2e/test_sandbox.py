"""ketch.Sandbox: what programs find that nobody has read, and what is left of them: nothing."""

import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ketch
from ketch import Pool, Sandbox
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    ProgramTimeoutError,
    StartError,
)
from ketch.linux import namespaces, procfs
from tests.support.commands import Engine as Command

pytestmark = pytest.mark.in_process

USER = "65534" if namespaces.in_initial_user_namespace() else "1000"  # of a sandbox's programs
# The interpreters of this machine, seen in a busybox.
PROGRAMS = {place: place for place in ("/usr", "/lib", "/lib64") if pathlib.Path(place).exists()}
needs_python = pytest.mark.skipif(
    not pathlib.Path("/usr/bin/python3").exists(), reason="this machine has no /usr/bin/python3"
)
needs_node = pytest.mark.skipif(
    not pathlib.Path("/usr/bin/node").exists(), reason="this machine has no /usr/bin/node"
)


@pytest.fixture(scope="module")
def sandbox(library: ketch.Engine) -> Iterator[Sandbox]:
    with Sandbox.create("busybox", engine=library, mounts=PROGRAMS, timeout=None) as made:
        yield made


def test_a_program_is_told_about_whole(sandbox: Sandbox) -> None:
    result = sandbox.run("echo out; echo err >&2; pwd; exit 3", env={"A": "b"})
    assert (result.status, result.stdout, result.stderr) == (3, b"out\n/workspace\n", b"err\n")
    assert result.text == "out\n/workspace\n"
    assert {result.timed_out, result.oom_killed, result.truncated} == {False}
    assert 0 < result.duration < 60
    assert sandbox.run(["cat"], stdin=b"given").stdout == b"given"
    assert sandbox.run(["sh", "-c", "echo $A"], env={"A": "b"}, cwd="/tmp").stdout == b"b\n"
    with pytest.raises(StartError, match="nosuch"):
        sandbox.run(["nosuch"])


def test_whoever_takes_too_much_is_ended(sandbox: Sandbox) -> None:
    """Time, words, memory, processes, room and names of files: and the sandbox goes on."""
    late = sandbox.run("trap '' TERM INT; echo begun; sleep 100", timeout=0.5)
    assert (late.status, late.timed_out, late.stdout) == (137, True, b"begun\n")
    stopped = sandbox.run("kill -STOP $$", timeout=0.5)
    assert stopped.timed_out
    crowd = sandbox.run("for i in $(seq 100); do sleep 1000 & done; wait", timeout=2)
    assert crowd.timed_out
    loud = sandbox.run("yes", max_output=1000)
    assert (loud.truncated, len(loud.stdout)) == (True, 1000)
    bomb = sandbox.run("bomb() { bomb | bomb & }; bomb; sleep 1000", timeout=1)
    assert bomb.timed_out
    full = sandbox.run("dd if=/dev/zero of=big bs=1M; rm big")
    assert b"No space left on device" in full.stderr
    many = sandbox.run("i=0; while echo > f$i; do i=$((i+1)); done 2>&1 | tail -1; rm f*; echo $i")
    assert b"No space left on device" in many.stdout
    assert sandbox.run(["true"]).status == 0


@needs_python
def test_memory_is_bounded_and_its_end_is_told(library: ketch.Engine, sandbox: Sandbox) -> None:
    if not library.info()["MemoryLimit"]:
        pytest.skip("there is no cgroup to bound it")
    eater = sandbox.run(["python3", "-c", "x = bytearray(600 << 20)"])
    assert (eater.status, eater.oom_killed) == (137, True)


def test_it_is_locked(sandbox: Sandbox) -> None:
    status = sandbox.run(["cat", "/proc/self/status"]).text
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {found[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (found["NoNewPrivs"], found["Seccomp"], found["Uid"].split()[0]) == ("1", "2", USER)
    outside = sandbox.run(["cat", "/proc/self/uid_map"]).text.split()
    assert int(outside[1]) > 0
    assert sandbox.run("echo x > /etc/passwd").status != 0
    assert sandbox.run(["ls", "/sys/class/net"]).text == "lo\n"
    assert sandbox.run(["hostname"]).text == "sandbox\n"
    assert sandbox.run("ls /proc/[0-9]*/cmdline | wc -l").text.strip() in {"3", "4", "5"}


@needs_python
@pytest.mark.parametrize(
    "attempt",
    [
        "libc.unshare(0x10000000)",
        "libc.ptrace(0, 0, 0, 0)",
        "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
        "libc.syscall(248, b'user', b'x', b'y', 1, -2)",
        "libc.syscall(425, 1, None)",
        "libc.syscall(321, 0, None, 0)",
        "libc.socket(38, 5, 0)",
        "libc.socket(40, 1, 0)",
        "libc.socket(17, 3, 0)",
        "libc.vmsplice(1, None, 0, 0)",
        "libc.syscall(0x40000000 + 39)",
    ],
    ids=["userns", "ptrace", "mount", "add_key", "io_uring", "bpf", "alg", "vsock", "packet",
         "vmsplice", "x32"],
)  # fmt: skip
def test_calls_that_lead_out_are_refused(sandbox: Sandbox, attempt: str) -> None:
    if "syscall(" in attempt and sandbox.run(["uname", "-m"]).text != "x86_64\n":
        pytest.skip("these are x86-64's numbers")
    told = sandbox.run_code(
        f"import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"(({attempt}), ctypes.get_errno())", context="attack",
    )  # fmt: skip
    assert told.text in {"(-1, 1)", "(-1, 38)", "(-1, 13)", "(-1, 97)"}, told


@needs_python
def test_an_interpreter_keeps_its_state(sandbox: Sandbox) -> None:
    first = sandbox.run_code("x = 40\nprint('said')\nx + 2")
    assert (first.text, first.stdout, first.error, first.status) == ("42", "said\n", None, 0)
    assert sandbox.run_code("x").text == "40"
    assert sandbox.run_code("x", context="other").error is not None
    failed = sandbox.run_code("def f():\n    return 1 / 0\nf()")
    assert failed.error is not None
    assert (failed.error.name, failed.error.message) == ("ZeroDivisionError", "division by zero")
    assert failed.error.traceback.startswith('Traceback (most recent call last):\n  File "<code')
    assert "return 1 / 0" in failed.error.traceback
    child = sandbox.run_code("import os\nos.system('echo child; echo err >&2')\nNone")
    assert (child.stdout, child.stderr) == ("child\n", "err\n")
    assert sandbox.run_code("import asyncio\nawait asyncio.sleep(0, 'awaited')").text == "'awaited'"
    made = sandbox.run_code("open('made', 'w').write('1')")
    assert made.files == ["made"]
    picture = "class P:\n    def _repr_png_(self): return b'png'\nP()"
    assert sandbox.run_code(picture).pictures() == [b"png"]
    assert sandbox.run_code("raise SystemExit(3)").error is not None
    assert sandbox.run_code("x").text == "40"


@needs_python
def test_an_interpreter_is_interrupted_before_it_is_killed(sandbox: Sandbox) -> None:
    sandbox.run_code("x = 1", context="i")
    late = sandbox.run_code("while True: pass", context="i", timeout=0.5)
    assert late.timed_out
    assert late.error is not None
    assert late.error.name == "KeyboardInterrupt"
    assert sandbox.run_code("x", context="i").text == "1"
    timer = threading.Timer(0.5, lambda: sandbox.interrupt(context="i"))
    timer.start()
    asked = sandbox.run_code("while True: pass", context="i", timeout=30)
    assert asked.error is not None
    assert (asked.error.name, asked.timed_out) == ("KeyboardInterrupt", False)
    deaf = "import signal\nsignal.signal(2, signal.SIG_IGN)\nwhile True: pass"
    assert sandbox.run_code(deaf, context="i", timeout=0.3).timed_out
    assert sandbox.run_code("x", context="i").error is not None
    flood = sandbox.run_code("while True: print('y' * 1000)", context="i", max_output=10_000)
    assert (flood.truncated, len(flood.stdout)) == (True, 10_000)


@needs_python
@pytest.mark.parametrize(
    "forged",
    ["b'z' + bytes(4)", "b'd' + b'\\xff' * 4", "b'd\\0\\0\\0\\x02[]'", "b'd\\0\\0\\0\\x01{'"],
)
def test_an_interpreter_that_lies_is_killed(sandbox: Sandbox, forged: str) -> None:
    """The way for answers is a descriptor that hostile code finds."""
    lying = (
        "import os\nfor number in range(3, 20):\n"
        f"    try: os.write(number, {forged})\n    except OSError: pass"
    )
    told = sandbox.run_code(lying, context="liar", timeout=20)
    assert told.error is not None
    assert told.error.name == "InterpreterError"
    assert sandbox.run_code("1", context="liar").text == "1"


def test_a_shell_keeps_its_state(sandbox: Sandbox) -> None:
    first = sandbox.run_code("a=5; cd /tmp; echo hi; false", "shell")
    assert (first.stdout, first.status) == ("hi\n", 1)
    again = sandbox.run_code("echo $a; pwd >&2", "shell")
    assert (again.stdout, again.stderr, again.status) == ("5\n", "/tmp\n", 0)
    assert sandbox.run_code("if", "shell").status == 2
    late = sandbox.run_code("sleep 100", "shell", timeout=0.5)
    assert late.timed_out
    assert sandbox.run_code("echo $a; exit 4", "shell").stdout == "5\n"
    assert sandbox.run_code("echo [$a]", "shell").stdout == "[]\n"


@needs_node
def test_node_keeps_its_state(sandbox: Sandbox) -> None:
    first = sandbox.run_code("let x = 40; console.log('said'); x + 2", "node")
    assert (first.text, first.stdout) == ("42", "said\n")
    assert (
        sandbox.run_code("new Promise(done => setTimeout(() => done(x), 10))", "node").text == "40"
    )
    failed = sandbox.run_code("null.x", "node")
    assert failed.error is not None
    assert failed.error.name == "TypeError"
    assert sandbox.run_code("while (true) {}", "node", timeout=1).timed_out


def test_files_come_and_go(sandbox: Sandbox, tmp_path: pathlib.Path) -> None:
    files = sandbox.files
    files.write("deep/er/file.txt", "content", mode=0o600)
    assert files.read("deep/er/file.txt") == b"content"
    entry = files.stat("deep/er/file.txt")
    assert (entry.kind, entry.size, entry.mode) == ("file", 7, 0o600)
    assert sandbox.run(["stat", "-c", "%u %a", "deep/er/file.txt"]).text == f"{USER} 600\n"
    listed = [one.path for one in files.list("deep", recursive=True)]
    assert listed == ["/workspace/deep/er", "/workspace/deep/er/file.txt"]
    files.move("deep/er/file.txt", "moved")
    files.remove("deep")
    with pytest.raises(NotFoundError):
        files.read("deep/er/file.txt")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("a")
    files.upload(tmp_path / "tree", "up")
    assert sandbox.run("echo b > up/a; cat up/a").text == "b\n"
    files.download("up", tmp_path / "down")
    assert (tmp_path / "down" / "a").read_text() == "b\n"
    (tmp_path / "content").mkdir()
    files.download("up/.", tmp_path / "content")
    assert (tmp_path / "content" / "a").read_text() == "b\n"
    with pytest.raises(InvalidArgumentError, match="more than 3"):
        files.read("moved", max_bytes=3)


def test_what_happens_to_files_is_told(sandbox: Sandbox, tmp_path: pathlib.Path) -> None:
    sandbox.files.make_directory("watched")
    told: list[tuple[str, str]] = []

    def watch() -> None:
        for event in sandbox.files.watch("watched", recursive=True):
            told.append((event.kind, event.path.removeprefix("/workspace/watched/")))
            if event.path.endswith("/end"):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    deadline = time.monotonic() + 30
    while not told:  # it has begun
        assert time.monotonic() < deadline
        sandbox.run("echo x > watched/first")
    sandbox.run(
        "cd watched; mkdir -p a/b; echo x > a/b/c; mv a/b/c d; rm d;"
        f" ln -s {tmp_path} out; touch out/outside; touch end"
    )
    watcher.join(30)
    assert not watcher.is_alive()
    after = [one for one in told if one[1] != "first"]
    assert after[0] == ("created", "a")
    assert {("created", "a/b"), ("created", "d"), ("removed", "d"), ("created", "out")} <= {*after}
    assert not [path for _, path in after if "outside" in path]
    with pytest.raises(NotFoundError):
        next(sandbox.files.watch("watched/first"))


def test_links_of_the_guest_lead_nowhere_outside(sandbox: Sandbox, tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    sandbox.run(f"mkdir -p trap; cd trap; ln -s {secret} file; ln -s {tmp_path} dir; ln -s / root;"
                "ln -s loop loop; mkfifo fifo")  # fmt: skip
    for path in ("trap/file", "trap/dir/secret", "trap/root/../../etc/shadow", "trap/loop"):
        with pytest.raises((NotFoundError, InvalidArgumentError)):
            sandbox.files.read(path)
    with pytest.raises(InvalidArgumentError, match="no file"):
        sandbox.files.read("trap/fifo")
    with pytest.raises((NotFoundError, InvalidArgumentError)):
        sandbox.files.write("trap/dir/secret", "overwritten")
    target = tmp_path / "target"
    sandbox.files.download("trap", target)
    assert secret.read_text() == "the host's"
    assert (target / "file").is_symlink()


def test_others_find_it(sandbox: Sandbox, library: ketch.Engine) -> None:
    assert sandbox.name in [one.name for one in Sandbox.list(engine=library)]
    assert Sandbox.connect(sandbox.name, engine=library).run("echo same").text == "same\n"
    with (
        library.containers.create("busybox", ["true"]) as other,
        pytest.raises(NotFoundError, match="No such sandbox"),
    ):
        Sandbox.connect(other.id, engine=library)


def test_it_stands_still_and_goes_on(sandbox: Sandbox) -> None:
    session = sandbox.start("while sleep 0.1; do echo tick; done")
    ticks = iter(session)
    next(ticks)
    sandbox.pause()
    with pytest.raises(ConflictError):
        sandbox.run(["true"])
    sandbox.resume()
    assert next(ticks)[0] == "stdout"
    session.kill()
    assert session.wait() == 137
    assert sandbox.stats()["pids_stats"]["limit"] == 128


def test_a_program_s_streams_are_its_caller_s(sandbox: Sandbox) -> None:
    script = "trap 'echo heard' USR1; echo $$; while read line; do echo got $line; done; exit 5"
    with sandbox.start(script, stdin=True) as process:
        assert isinstance(process, ketch.Process)
        output = iter(process)
        assert next(output)[0] == "stdout"
        process.write(b"a\n")
        assert next(output) == ("stdout", b"got a\n")
        process.signal("USR1")  # which may end the shell's read as well
        assert next(output) == ("stdout", b"heard\n")
        process.end_input()
        assert list(output) == []
        assert process.wait() == process.exit_status == 5
    shown = sandbox.start(["sh", "-c", "read x; stty size"], tty=True, stdin=True)
    shown.resize(11, 77)
    shown.write(b"\n")
    assert b"11 77" in shown.read()[0]
    late = sandbox.start("trap '' TERM; sleep 1000 & echo begun; sleep 1000")
    with pytest.raises(ProgramTimeoutError, match=r"0\.5 s"):
        late.wait(timeout=0.5)
    assert (late.exit_status, late.wait()) == (137, 137)
    assert "sleep 1000" not in sandbox.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").text
    loud = sandbox.start("yes")
    with pytest.raises(ProgramTimeoutError):
        loud.wait(timeout=0.5)
    with pytest.raises(InvalidArgumentError, match="timeout=nan"):
        loud.wait(timeout=float("nan"))


def test_what_watches_a_program_that_lasts_is_small(
    sandbox: Sandbox, library: ketch.Engine
) -> None:
    engine = library._places.engine
    process = sandbox.start(["sleep", "1000"])
    pid = engine.execs.find(process.id).pid
    watcher = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    lines = pathlib.Path(f"/proc/{watcher}/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    began = procfs.process_start_time(watcher) or 0
    assert private < 3000, "in KiB; one that does all by itself has more than 5000"
    assert engine.execs.find(process.id).is_running
    process.kill()
    assert process.exit_status == 137
    ended = engine.execs.find(process.id)
    assert (ended.is_running, ended.exit_status) == (False, 137)
    deadline = time.monotonic() + 30
    while procfs.is_running(watcher, began):  # it lets go of its client, and ends
        assert time.monotonic() < deadline
        time.sleep(0.05)


_NO_NUMBERS = [float("nan"), float("inf"), -1.0, 1e300, "1", True]


@pytest.mark.parametrize("wrong", _NO_NUMBERS, ids=repr)
def test_what_is_no_number_of_seconds_is_said(
    sandbox: Sandbox, library: ketch.Engine, wrong: Any
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: sandbox.run("true", timeout=wrong),
        lambda: sandbox.run_code("1", timeout=wrong),
        lambda: sandbox.set_timeout(wrong),
        lambda: Sandbox.create("busybox", engine=library, timeout=wrong),
        lambda: Sandbox.create("busybox", engine=library, idle_timeout=wrong),
        lambda: Sandbox.create("busybox", engine=library, cpus=wrong),
        lambda: library.containers.run("busybox", ["true"], timeout=wrong),
        lambda: library.containers.run("busybox", ["true"], max_output=wrong),
        lambda: library.containers.run("busybox", ["true"], cpus=wrong),
        lambda: library.containers.create("busybox", ["true"], timeout=wrong),
        lambda: sandbox._container.wait(timeout=wrong),
        lambda: sandbox._container.wait_healthy(timeout=wrong),
        lambda: sandbox._container.exec_run(["true"], timeout=wrong),
    ]
    for number, call in enumerate(calls):
        if wrong == "1" and number in {5, 8}:
            continue  # the command line's text
        said = r"=(nan|inf|-1\.0|1e\+300|'1'|True): |^Range of CPUs is"
        with pytest.raises(InvalidArgumentError, match=said):
            call()


def test_forks_have_its_files_and_leave_nothing(sandbox: Sandbox, library: ketch.Engine) -> None:
    before = {image.id for image in library.images.list(all=True)}
    sandbox.run("echo mine > note; chmod 600 note")
    one, two = sandbox.fork(2)
    assert one.run("cat note; echo other > note").text == "mine\n"
    assert (two.run(["cat", "note"]).text, sandbox.run(["cat", "note"]).text) == (
        "mine\n",
        "mine\n",
    )
    one.kill()
    (three,) = two.fork()
    assert three.run("stat -c '%u %a' note").text == f"{USER} 600\n"
    two.kill()
    three.kill()
    assert {image.id for image in library.images.list(all=True)} == before


def test_a_snapshot_is_an_image(sandbox: Sandbox, library: ketch.Engine) -> None:
    sandbox.run("echo kept > kept")
    with sandbox.snapshot("sandbox-snapshot:1"):
        assert (
            library.containers.run("sandbox-snapshot:1", ["cat", "/workspace/kept"], rm=True)
            == b"kept\n"
        )


def await_end(sandbox: Sandbox) -> None:
    deadline = time.monotonic() + 30
    while sandbox.is_running:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_its_time_is_the_engines_business(library: ketch.Engine) -> None:
    made = Sandbox.create("busybox", engine=library, timeout=1, lifetime="container")
    assert made.is_running
    await_end(made)
    kept = Sandbox.create("busybox", engine=library, idle_timeout=2)
    await_end(kept)
    changed = Sandbox.create("busybox", engine=library)
    changed.set_timeout(1)
    await_end(changed)


def test_it_goes_with_a_program_that_is_killed(
    ketch_engine: Command, library: ketch.Engine
) -> None:
    options = list(ketch_engine.prefix)
    root, state = (options[options.index(name) + 1] for name in ("--root", "--state"))
    script = (
        "import ketch, time\n"
        f"engine = ketch.Engine({root!r}, {state!r})\n"
        "sandbox = ketch.Sandbox.create('busybox', engine=engine, memory=None, cpus=None)\n"
        "sandbox.start('sleep 1000')\nprint(sandbox.name, flush=True)\ntime.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        name = program.stdout.readline().decode().strip()
        assert Sandbox.connect(name, engine=library).is_running
        program.kill()
    deadline = time.monotonic() + 30
    while name in [one.name for one in library.containers.list(all=True)]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_server_in_it_is_reached_and_reaches_nobody(library: ketch.Engine) -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as host,
        Sandbox.create("busybox", engine=library, ports=[8080]) as server,
    ):
        server.files.write("index.html", "served")
        server.start(["httpd", "-f", "-p", "8080"])
        deadline = time.monotonic() + 20
        while True:
            try:
                got = urllib.request.urlopen(server.url(8080), timeout=5).read()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert got == b"served"
        gateway = server.run(
            "ip route | sed -n 's/.* src \\([0-9.]*\\)\\.[0-9]*.*/\\1.1/p'"
        ).text.strip()
        assert gateway.endswith(".1")
        knock = server.run(["nc", "-w", "2", gateway, str(host.getsockname()[1])])
        assert knock.status != 0
        assert server.run("nslookup name.example").status != 0
        host.settimeout(0.1)
        with pytest.raises(TimeoutError):
            host.accept()
    library.networks.get("ketch-sandbox-closed").remove()


def test_a_pool_gives_each_once(library: ketch.Engine) -> None:
    with Pool(2, "busybox", engine=library) as pool:
        with pool.acquire() as first, pool.acquire() as second:
            assert first.name != second.name
            first.files.write("mark", "x")
        numbered = pool.map(lambda one, item: one.run(f"ls; echo {item}").text, range(3))
        assert list(numbered) == ["0\n", "1\n", "2\n"]
    with pytest.raises(ConflictError, match="closed"):
        pool.acquire()
    with (
        Pool(1, "no-such-image", engine=library, pull="never") as broken,
        pytest.raises(NotFoundError),
    ):
        broken.acquire()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"memory": "lots"}, "memory='lots'"),
        ({"disk": 0}, "disk=0"),
        ({"writable": ["work"]}, "writable: 'work'"),
        ({"egress": ("exa mple",)}, "exa mple"),
        ({"timeout": -1}, "timeout=-1"),
        ({"cpus": 0}, "cpus=0: a number above 0"),
        ({"cpus": float("nan")}, "cpus=nan"),
        ({"pids": 0}, "pids=0: a whole number above 0"),
        ({"pids": -1}, "pids=-1"),
        ({"pids": 1.5}, "pids=1.5"),
        ({"ports": [0]}, "ports: 0"),
        ({"ports": ["80"]}, "ports: '80'"),
        ({"ports": [65536]}, "ports: 65536"),
        ({"mounts": {"/no/such/place": "/x"}}, "mounts: /no/such/place"),
        ({"runtime": "runsc"}, "runtime name: runsc"),
    ],
)
def test_what_cannot_be_is_said(library: ketch.Engine, wrong: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=why):
        Sandbox.create("busybox", engine=library, **wrong)  # type: ignore[arg-type]
    assert not pathlib.Path("/no").exists()
