"""``ketch-oci`` by itself: each check runs against runc first, which shows that it is fair."""

import array
import contextlib
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import oci
from tests.support.commands import Engine, finish

Bundle = Callable[..., str]


def create(runtime: Engine, *words: str) -> int:
    """Create a container; return the exit status."""
    return oci.quietly(runtime, "create", *words)


def run_detached(runtime: Engine, *words: str) -> None:
    assert oci.quietly(runtime, "run", "--detach", *words) == 0


def status(runtime: Engine, name: str = "c") -> str:
    return str(json.loads(runtime.ok("state", name))["status"])


def await_status(runtime: Engine, wanted: str, name: str = "c") -> None:
    deadline = time.monotonic() + 10
    while status(runtime, name) != wanted:
        assert time.monotonic() < deadline, f"still {status(runtime, name)}"
        time.sleep(0.05)


def running(pid: int) -> bool:
    """Whether there is such a process that is no zombie."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


class TestRun:
    def test_streams_and_exit_status(self, runtime: Engine, bundle: Bundle) -> None:
        path = bundle("sh", "-c", "cat; echo err >&2; exit 7")
        result = runtime("run", "--bundle", path, "c", stdin="hello\n")
        assert (result.status, result.out, result.err) == (7, "hello\n", "err\n")
        assert runtime.ok("list", "-q") == ""

    def test_death_by_a_signal(self, runtime: Engine, bundle: Bundle) -> None:
        # Not init itself, which no signal without a handler reaches.
        path = bundle("sh", "-c", "sh -c 'kill -9 $$'; exit $?")
        assert runtime("run", "-b", path, "c").status == 128 + 9

    def test_keep(self, runtime: Engine, bundle: Bundle) -> None:
        path = bundle("true")
        runtime.ok("run", "--keep", "-b", path, "c")
        assert status(runtime) == "stopped"
        runtime.ok("delete", "c")

    def test_detached(self, runtime: Engine, bundle: Bundle, tmp_path: pathlib.Path) -> None:
        path = bundle("sleep", "100")
        run_detached(runtime, "--pid-file", f"{tmp_path}/pid", "-b", path, "c")
        pid = int((tmp_path / "pid").read_text())
        assert json.loads(runtime.ok("state", "c"))["pid"] == pid
        assert status(runtime) == "running"

    def test_signals_are_passed_on(self, runtime: Engine, bundle: Bundle) -> None:
        path = bundle(
            "sh", "-c", "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 1; done"
        )
        process = runtime.start("run", "-b", path, "c")
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"got\n"
        assert process.wait(10) == 5

    def test_a_terminal(self, runtime: Engine, bundle: Bundle) -> None:
        path = bundle(
            "sh", "-c", "tty; sleep 0.5; stty size; read x; echo got-$x; exit 3", terminal=True
        )
        terminal = runtime.terminal("run", "-b", path, "c", rows=33, columns=99)
        terminal.expect_exact("/dev/pts/0")
        terminal.expect_exact("33 99")
        terminal.sendline("typed")
        terminal.expect_exact("got-typed")
        assert finish(terminal) == 3

    def test_a_terminals_output_in_a_file(
        self, runtime: Engine, bundle: Bundle, tmp_path: pathlib.Path
    ) -> None:
        files = tmp_path / "run", tmp_path / "exec"
        prefix = shlex.join(runtime.prefix)
        path = bundle("sh", "-c", "printf 'a\\nb\\n'", terminal=True)
        idle = oci.write_bundle(tmp_path / "idle", oci.configuration_of(path, "sleep", "100"))
        run_detached(runtime, "-b", idle, "d")
        script = (
            f"{prefix} run -b {path} c > {files[0]}; "
            f"{prefix} exec -t d sh -c 'printf \"a\\nb\\n\"; tty' > {files[1]}; "
            f"{prefix} exec -t d printf 'a\\nb\\n'; stty -a"
        )
        terminal = Engine("sh", ["sh"]).terminal("-c", script, columns=200)
        # On a terminal lines end as they should, and it is afterwards as it was.
        terminal.expect_exact("a\r\nb\r\n")
        terminal.expect(r" onlcr")
        assert finish(terminal) == 0
        assert files[0].read_bytes() == b"a\nb\n"
        assert files[1].read_bytes() == b"a\nb\n/dev/pts/0\n"

    def test_resizing_a_terminal(self, runtime: Engine, bundle: Bundle) -> None:
        script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done"
        terminal = runtime.terminal("run", "-b", bundle("sh", "-c", script, terminal=True), "c")
        terminal.expect_exact("ready")
        terminal.setwinsize(11, 22)
        terminal.expect_exact("11 22")
        assert finish(terminal) == 0

    def test_preserved_descriptors(
        self, runtime: Engine, bundle: Bundle, tmp_path: pathlib.Path
    ) -> None:
        (tmp_path / "file").write_text("through\n")
        path = bundle("sh", "-c", "cat <&3; ls /proc/self/fd")
        out = subprocess.run(
            ["sh", "-c", 'exec 3<"$0"; exec "$@"', str(tmp_path / "file"), *runtime.prefix,
             "run", "--preserve-fds", "1", "-b", path, "c"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        # The one more is ls's own.
        assert out.split() == ["through", "0", "1", "2", "3", "4"]

    def test_a_missing_preserved_descriptor(
        self, runtime: Engine, bundle: Bundle, rootfs: pathlib.Path
    ) -> None:
        if runtime.name == "runc":
            pytest.skip("runc takes a descriptor of its own for the caller's")
        result = runtime("run", "--preserve-fds", "2", "-b", bundle("true"), "c")
        assert result.status == 1
        assert "please check that preserved-fd 0 (of 2) is present" in result.err
        assert runtime("list", "-q").out == ""

    def test_home_comes_from_the_containers_users(self, runtime: Engine, bundle: Bundle) -> None:
        assert runtime.ok("run", "-b", bundle("sh", "-c", "echo $HOME"), "c") == "/root"


class TestCreateAndStart:
    def test_the_whole_life(self, runtime: Engine, bundle: Bundle, tmp_path: pathlib.Path) -> None:
        path = bundle("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
        assert create(runtime, "--pid-file", f"{tmp_path}/pid", "-b", path, "c") == 0
        pid = int((tmp_path / "pid").read_text())
        state = json.loads(runtime.ok("state", "c"))
        assert (state["id"], state["pid"], state["status"]) == ("c", pid, "created")
        assert state["bundle"] == path
        runtime.ok("start", "c")
        assert status(runtime) == "running"
        runtime.ok("kill", "c", "TERM")
        await_status(runtime, "stopped")
        runtime.ok("delete", "c")
        assert runtime("state", "c").status == 1

    def test_the_caller_can_reap_init(
        self, runtime: Engine, bundle: Bundle, tmp_path: pathlib.Path
    ) -> None:
        # As conmon and containerd's shim do: a subreaper calls create and waits for init.
        path = bundle("sh", "-c", "exit 9")
        program = (
            "import ctypes, json, os, subprocess, sys\n"
            "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
            "prefix, pid_file, bundle = json.loads(sys.argv[1])\n"
            "words = ['create', '--pid-file', pid_file, '-b', bundle, 'c']\n"
            "quiet = dict(stdin=-3, stdout=-3, stderr=-3, check=True)\n"
            "subprocess.run([*prefix, *words], **quiet)\n"
            "subprocess.run([*prefix, 'start', 'c'], check=True)\n"
            "pid = int(open(pid_file).read())\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        )
        words = json.dumps([runtime.prefix, f"{tmp_path}/pid", path])
        done = subprocess.run(
            ["python3", "-c", program, words], check=True, capture_output=True, text=True
        )
        assert done.stdout == "9\n"
        assert status(runtime) == "stopped"

    def test_a_created_container_may_be_deleted(self, runtime: Engine, bundle: Bundle) -> None:
        assert create(runtime, "-b", bundle("sleep", "100"), "c") == 0
        runtime.ok("delete", "c")
        assert runtime.ok("list", "-q") == ""

    @pytest.mark.parametrize("word", ["TERM", "INT"])
    def test_a_created_container_may_be_killed(
        self, runtime: Engine, bundle: Bundle, word: str
    ) -> None:
        assert create(runtime, "-b", bundle("sleep", "100"), "c") == 0
        runtime.ok("kill", "c", word)
        await_status(runtime, "stopped")
        assert "cannot start a container that has stopped" in runtime("start", "c").err

    def test_too_little_memory_to_begin(self, runtime: Engine, bundle: Bundle) -> None:
        def limit(config: Any) -> None:
            config["linux"]["resources"]["memory"] = {"limit": 256 << 10}

        result = runtime("run", "-b", bundle("true", change=limit), "c")
        assert result.status == 1
        assert "memory limit" in result.err
        assert runtime.ok("list", "-q") == ""

    def test_one_that_runs_may_not(self, runtime: Engine, bundle: Bundle) -> None:
        run_detached(runtime, "-b", bundle("sleep", "100"), "c")
        result = runtime("delete", "c")
        assert result.status == 1
        assert "cannot delete container c that is not stopped: running" in result.err
        runtime.ok("delete", "--force", "c")
        runtime.ok("delete", "--force", "c")

    def test_a_terminal_goes_to_the_console_socket(
        self, runtime: Engine, bundle: Bundle, tmp_path: pathlib.Path
    ) -> None:
        path = bundle("sh", "-c", "read x; echo got-$x", terminal=True)
        # So long that a path of its own would not do: unix(7).
        directory = tmp_path / ("d" * 60)
        directory.mkdir()
        address = str(directory / "s")
        with socket.socket(socket.AF_UNIX) as listener:
            with contextlib.chdir(directory):
                listener.bind("s")
            listener.listen()
            listener.settimeout(20)
            socket_path = f"/proc/{os.getpid()}/fd/{os.open(directory, os.O_PATH)}/s"
            words = ["-b", path, "--console-socket", socket_path, "c"]
            assert create(runtime, *words) == 0, address
            connection, _ = listener.accept()
            with connection:
                name, rights, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
        assert re.fullmatch(rb"/dev/(pts/\d+|ptmx|pts/ptmx)", name.rstrip(b"\0"))
        master = array.array("i", rights[0][2])[0]
        runtime.ok("start", "c")
        os.write(master, b"typed\n")
        said = b""
        with contextlib.suppress(OSError):
            while b"got-typed" not in said:
                said += os.read(master, 1024)
        os.close(master)
        assert b"got-typed" in said

    def test_a_console_sockets_path_may_be_relative(self, runtime: Engine, bundle: Bundle) -> None:
        path = bundle("true", terminal=True)
        with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(path):
            listener.bind("s")
            listener.listen()
            listener.settimeout(20)
            assert create(runtime, "--console-socket", "s", "c") == 0
            connection, _ = listener.accept()
            with connection:
                assert connection.recvmsg(4096, socket.CMSG_SPACE(4))[1]
            runtime.ok("delete", "--force", "c")
            # Where nobody listens nothing is left.
            pathlib.Path("s").unlink()
            failed = runtime("create", "--console-socket", "s", "c")
            assert failed.status == 1
            assert "no such file" in failed.err
            assert runtime("state", "c").status == 1

    @pytest.mark.parametrize(
        ("words", "terminal", "message"),
        [
            (["create"], True, "cannot allocate tty if .* will detach without setting console"),
            (["run", "-d"], True, "cannot allocate tty if .* will detach without setting console"),
            (["create", "--console-socket", "/x"], False, "cannot use console socket if .* will"),
            (["run", "--console-socket", "/x"], True, "cannot use console socket if .* will not"),
        ],
    )
    def test_terminals_that_cannot_be(
        self, runtime: Engine, bundle: Bundle, words: list[str], *, terminal: bool, message: str
    ) -> None:
        path = bundle("true", terminal=terminal)
        result = runtime(*words, "-b", path, "c")
        assert result.status == 1
        assert re.search(message, result.err)

    def test_the_programs_failure_is_creates(self, runtime: Engine, bundle: Bundle) -> None:
        result = runtime("create", "-b", bundle("nosuch"), "c")
        assert result.status == 1
        assert "executable file not found in $PATH" in result.err
        assert runtime.ok("list", "-q") == ""

    def test_descriptors_of_the_caller_stay_out(self, runtime: Engine, bundle: Bundle) -> None:
        path = bundle("sh", "-c", "ls /proc/self/fd | wc -w")
        with open("/etc/passwd", "rb") as leaked:
            os.set_inheritable(leaked.fileno(), True)
            out = subprocess.run(
                [*runtime.prefix, "run", "-b", path, "c"], check=True, capture_output=True,
                text=True, pass_fds=[leaked.fileno()],
            ).stdout  # fmt: skip
        assert out.strip() == "4"


class TestExec:
    @pytest.fixture
    def container(self, runtime: Engine, bundle: Bundle) -> str:
        run_detached(runtime, "-b", bundle("sleep", "100"), "c")
        return "c"

    def test_streams_and_exit_status(self, runtime: Engine, container: str) -> None:
        result = runtime("exec", container, "sh", "-c", "cat; echo err >&2; exit 7", stdin="in\n")
        assert (result.status, result.out, result.err) == (7, "in\n", "err\n")

    def test_flags(self, runtime: Engine, container: str) -> None:
        script = "id -u; id -g; id -G; pwd; echo $A $B; grep NoNewPrivs /proc/self/status"
        out = runtime.ok(
            "exec", "-u", "5:6", "-g", "8", "--cwd", "/tmp", "-e", "A=1", "-e", "B=2",
            "--no-new-privs=false", container, "sh", "-c", script,
        )  # fmt: skip
        assert out.split() == ["5", "6", "6", "8", "/tmp", "1", "2", "NoNewPrivs:", "0"]

    def test_capabilities(self, runtime: Engine, container: str) -> None:
        script = ["grep", "CapEff", "/proc/self/status"]
        before = int(runtime.ok("exec", container, *script).split()[1], 16)
        after = int(runtime.ok("exec", "--cap", "CAP_NET_RAW", container, *script).split()[1], 16)
        assert after == before | 1 << 13

    def test_a_terminal(self, runtime: Engine, container: str) -> None:
        terminal = runtime.terminal("exec", "-t", container, "sh", "-c", "tty; read x; echo got-$x")
        terminal.expect_exact("/dev/pts/0")
        terminal.sendline("typed")
        terminal.expect_exact("got-typed")
        assert finish(terminal) == 0

    def test_a_file(self, runtime: Engine, container: str, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "process.json"
        path.write_text(
            json.dumps({"args": ["sh", "-c", "pwd; exit 4"], "cwd": "/bin", "env": ["PATH=/bin"],
                        "user": {"uid": 0, "gid": 0}}),
        )  # fmt: skip
        result = runtime("exec", "--process", str(path), container)
        assert (result.status, result.out) == (4, "/bin\n")

    def test_a_file_that_leaves_out_privileges(
        self, runtime: Engine, container: str, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / "process.json"
        path.write_text(json.dumps({"args": ["/bin/grep", "Cap", "/proc/self/status"], "cwd": "/"}))
        own = runtime.ok("exec", container, "grep", "Cap", "/proc/self/status")
        assert runtime.ok("exec", "--process", str(path), container) == own

    def test_detached(self, runtime: Engine, container: str, tmp_path: pathlib.Path) -> None:
        words = ["--pid-file", f"{tmp_path}/pid", container, "sleep", "50"]
        assert oci.quietly(runtime, "exec", "-d", *words) == 0
        pid = int((tmp_path / "pid").read_text())
        assert pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0050\0"
        assert pid in json.loads(runtime.ok("ps", "-f", "json", container))

    def test_it_is_in_the_containers_cgroup(self, runtime: Engine, container: str) -> None:
        out = runtime.ok("exec", container, "cat", "/proc/self/cgroup")
        assert all("/ketch-test-oci" in line for line in out.splitlines() if ":memory:" in line)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["c", "nosuch"], "executable file not found in $PATH"),
            (["c", "/nosuch"], "no such file or directory"),
            (["c", "/tmp"], "is a directory|permission denied"),
            (["c"], "process args cannot be empty"),
            (["nosuch", "true"], "container does not exist"),
        ],
    )
    def test_failures(
        self, runtime: Engine, container: str, words: list[str], message: str
    ) -> None:
        result = runtime("exec", *words)
        assert result.status == 255
        assert any(part in result.err for part in message.split("|")), result.err
        assert "exec failed: " in result.err

    def test_paused(self, runtime: Engine, container: str) -> None:
        runtime.ok("pause", container)
        result = runtime("exec", container, "true")
        assert result.status == 255
        assert "cannot exec in a paused container" in result.err
        runtime.ok("resume", container)
        runtime.ok("exec", container, "true")


class TestControl:
    def test_pause_and_resume(self, runtime: Engine, bundle: Bundle) -> None:
        run_detached(runtime, "-b", bundle("sleep", "100"), "c")
        runtime.ok("pause", "c")
        assert status(runtime) == "paused"
        assert runtime("pause", "c").status == 1
        runtime.ok("resume", "c")
        assert status(runtime) == "running"
        assert "container not paused" in runtime("resume", "c").err

    def test_a_paused_container_can_be_killed(self, runtime: Engine, bundle: Bundle) -> None:
        run_detached(runtime, "-b", bundle("sleep", "100"), "c")
        runtime.ok("pause", "c")
        runtime.ok("kill", "c", "KILL")
        await_status(runtime, "stopped")

    @pytest.mark.parametrize("word", ["USR1", "SIGUSR1", "usr1", "10"])
    def test_kill_takes_names_and_numbers(self, runtime: Engine, bundle: Bundle, word: str) -> None:
        path = bundle("sh", "-c", "trap 'exit 0' USR1; while :; do sleep 0.1; done")
        run_detached(runtime, "-b", path, "c")
        deadline = time.monotonic() + 10  # until the trap is set
        while status(runtime) != "stopped":
            runtime("kill", "c", word)
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def test_kill_all(self, runtime: Engine, bundle: Bundle) -> None:
        run_detached(runtime, "-b", bundle("sh", "-c", "sleep 101 & sleep 102"), "c")
        runtime.ok("kill", "--all", "c", "KILL")
        await_status(runtime, "stopped")
        runtime.ok("kill", "--all", "c", "KILL")
        assert "container not running" in runtime("kill", "c", "KILL").err

    def test_update(self, runtime: Engine, bundle: Bundle) -> None:
        run_detached(runtime, "-b", bundle("sleep", "100"), "c")
        runtime.ok("update", "--memory", "64m", "--pids-limit", "77", "--cpu-share", "512", "c")
        directory = pathlib.Path(f"/sys/fs/cgroup/memory/ketch-test-oci-{os.getpid()}")
        if not directory.exists():
            pytest.skip("the figures are looked up in cgroup v1")
        assert (directory / "memory.limit_in_bytes").read_text() == f"{64 << 20}\n"
        pids = str(directory).replace("memory", "pids")
        assert pathlib.Path(f"{pids}/pids.max").read_text() == "77\n"
        runtime.ok("update", "-r", "-", "c", stdin='{"memory": {"limit": 33554432}}')
        assert (directory / "memory.limit_in_bytes").read_text() == f"{32 << 20}\n"
        stats = json.loads(runtime.ok("events", "--stats", "c"))
        assert stats["data"]["memory"]["usage"]["limit"] == 32 << 20

    @pytest.mark.parametrize(("option", "limit"), [("0", "1"), ("-1", "max"), ("9", "9")])
    def test_update_of_the_number_of_processes(
        self, runtime: Engine, bundle: Bundle, option: str, limit: str
    ) -> None:
        if runtime.name == "runc" and option == "0":
            pytest.skip("runc before 1.4 takes 0 for no change")
        run_detached(runtime, "-b", bundle("sleep", "100"), "c")
        runtime.ok("update", "--pids-limit", "50", "c")
        runtime.ok("update", f"--pids-limit={option}", "c")
        runtime.ok("update", "--cpu-share", "100", "c")  # which leaves the other as it is
        assert oci.cgroup_file("pids", "pids.max") == limit

    def test_update_of_realtime_in_every_direction(self, runtime: Engine, bundle: Bundle) -> None:
        run_detached(runtime, "-b", bundle("sleep", "100"), "c")
        if oci.cgroup_file("cpu", "cpu.rt_runtime_us") is None:
            pytest.skip("this kernel gives cgroups no real-time")
        if runtime.name == "runc":
            pytest.skip("runc does since 1.2")
        # Longer and shorter, more and less, each way; little, since what has just been removed
        # still counts with the kernel.
        for period, taken in (
            (1_000_000, 200_000), (10_000, 1_000), (10_000, 2_000), (1_000_000, 9_000),
            (10_000, 2_000), (500_000, 100_000), (400_000, 40_000), (30_000, 6_000),
        ):  # fmt: skip
            runtime.ok("update", f"--cpu-rt-period={period}", f"--cpu-rt-runtime={taken}", "c")
            assert oci.cgroup_file("cpu", "cpu.rt_period_us") == str(period)
            assert oci.cgroup_file("cpu", "cpu.rt_runtime_us") == str(taken)

    @pytest.mark.parametrize("words", [["kill", "c", "KILL"], ["delete", "--force", "c"]])
    @pytest.mark.parametrize("init", ["lives", "has ended"])
    def test_without_a_pid_namespace_all_are_killed(
        self, runtime: Engine, bundle: Bundle, words: list[str], init: str
    ) -> None:
        if runtime.name == "runc" and words[0] == "kill":
            pytest.skip("runc does since 1.2")

        def share(config: Any) -> None:
            namespaces = config["linux"]["namespaces"]
            namespaces[:] = [each for each in namespaces if each["type"] != "pid"]

        script = "sleep 1000 & sleep 1001 & exec sleep 1002"
        run_detached(runtime, "-b", bundle("sh", "-c", script, change=share), "c")
        pids = [int(pid) for pid in json.loads(runtime.ok("ps", "-f", "json", "c"))]
        while len(pids) < 3:
            pids = [int(pid) for pid in json.loads(runtime.ok("ps", "-f", "json", "c"))]
        if init == "has ended":
            runtime.ok("kill", "c", "TERM")
            await_status(runtime, "stopped")
        runtime.ok(*words)
        deadline = time.monotonic() + 10
        while any(running(pid) for pid in pids):
            assert time.monotonic() < deadline, [pid for pid in pids if running(pid)]
            time.sleep(0.02)

    def test_a_frozen_cgroup_is_left_alone(self, runtime: Engine, bundle: Bundle) -> None:
        name = f"/ketch-test-oci-{os.getpid()}"
        frozen = pathlib.Path(f"/sys/fs/cgroup/freezer{name}")
        if not frozen.parent.is_dir():
            pytest.skip("the freezer is looked for in cgroup v1")
        frozen.mkdir()
        try:
            (frozen / "freezer.state").write_text("FROZEN")
            failed = runtime("run", "-b", bundle("true"), "c")
            assert failed.status == 1
            assert "frozen" in failed.err
            if runtime.name == "ketch-oci":
                assert (frozen / "freezer.state").read_text() == "FROZEN\n"
                assert runtime.ok("list", "-q") == ""
        finally:
            if frozen.exists():
                (frozen / "freezer.state").write_text("THAWED")
                frozen.rmdir()

    def test_events_until_the_end(self, runtime: Engine, bundle: Bundle) -> None:
        run_detached(runtime, "-b", bundle("sleep", "100"), "c")
        process = runtime.start("events", "--interval", "200ms", "c")
        assert process.stdout is not None
        events = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert {event["type"] for event in events} == {"stats"}
        runtime.ok("delete", "--force", "c")
        process.communicate(timeout=20)

    def test_running_out_of_memory(self, runtime: Engine, bundle: Bundle) -> None:
        def limit(config: Any) -> None:
            config["linux"]["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}

        # The child is what the kernel kills.
        script = "sleep 1; while :; do tail /dev/zero; sleep 0.5; done"
        run_detached(runtime, "-b", bundle("sh", "-c", script, change=limit), "c")
        process = runtime.start("events", "--interval", "60s", "c")
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"type": "oom", "id": "c"}
        runtime.ok("delete", "--force", "c")
        process.communicate(timeout=20)

    def test_ps(self, runtime: Engine, bundle: Bundle) -> None:
        run_detached(runtime, "-b", bundle("sh", "-c", "sleep 103 & sleep 104"), "c")
        time.sleep(0.2)
        assert len(json.loads(runtime.ok("ps", "--format", "json", "c"))) == 2
        lines = runtime.ok("ps", "c", "-o", "pid,args").splitlines()
        assert lines[0].split() == ["PID", "COMMAND"]
        assert {line.split(None, 1)[1] for line in lines[1:]} >= {"sleep 103", "sleep 104"}


class TestHooks:
    def test_their_order_and_what_they_read(
        self, runtime: Engine, bundle: Bundle, tmp_path: pathlib.Path
    ) -> None:
        log = tmp_path / "log"

        def hooks(config: Any) -> None:
            def hook(name: str) -> dict[str, Any]:
                script = f'read -r x; echo "{name} $x" >>{log}'
                return {"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 10}

            outside = ("prestart", "createRuntime", "poststart", "poststop")
            config["hooks"] = {name: [hook(name)] for name in outside}

        runtime.ok("run", "-b", bundle("true", change=hooks), "c")
        lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
        assert [name for name, _ in lines] == ["prestart", "createRuntime", "poststart", "poststop"]
        states = {name: json.loads(text) for name, text in lines}
        assert {state["id"] for state in states.values()} == {"c"}
        assert states["createRuntime"]["status"] in {"creating", "created"}
        assert states["poststop"]["status"] == "stopped"

    def test_one_that_fails(self, runtime: Engine, bundle: Bundle) -> None:
        def hooks(config: Any) -> None:
            config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}

        assert runtime("run", "-b", bundle("true", change=hooks), "c").status == 1
        assert runtime.ok("list", "-q") == ""
