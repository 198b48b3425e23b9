"""podman, containerd and dockerd with ketch-oci, after the same with runc, which shows it is fair.

Each caller has directories, namespaces and processes of its own.
"""

import contextlib
import json
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator

import pytest

from tests.support import containerd, peers
from tests.support.commands import Engine, finish

pytestmark = pytest.mark.timeout(180)
NO_NETWORK = ("--network", "none")


@pytest.fixture(scope="module")
def program(request: pytest.FixtureRequest, ketch_oci: str) -> str:
    """Return the path of the runtime that the caller is to use."""
    path = {"runc": shutil.which("runc"), "ketch-oci": ketch_oci}[request.param]
    if path is None:
        pytest.skip("runc is not installed")
    return str(path)


@pytest.fixture(scope="module")
def directory(run_name: str) -> Iterator[pathlib.Path]:
    """Return a short path, for sockets are below it."""
    made = pathlib.Path(tempfile.mkdtemp(prefix=f"{run_name}-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def podman(program: str, directory: pathlib.Path) -> Iterator[Engine]:
    with _or_skip(peers.podman(directory, program)) as engine:
        yield engine


@pytest.fixture(scope="module")
def docker(program: str, directory: pathlib.Path) -> Iterator[Engine]:
    with _or_skip(peers.docker(directory, program)) as engine:
        yield engine


@pytest.fixture(scope="module")
def ctr(program: str, directory: pathlib.Path) -> Iterator[Engine]:
    with _or_skip(containerd.containerd(directory)) as engine:
        yield engine


@contextlib.contextmanager
def _or_skip(peer: contextlib.AbstractContextManager[Engine]) -> Iterator[Engine]:
    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(peer)
        except peers.PeerUnavailableError as error:
            pytest.skip(str(error))
        yield engine


@pytest.mark.parametrize("program", ["runc", "ketch-oci"], indirect=True, scope="module")
class TestPodman:
    @pytest.fixture
    def container(self, podman: Engine) -> Iterator[str]:
        yield podman.ok("run", "-d", *NO_NETWORK, "busybox", "sleep", "1000")
        podman.ok("rm", "--force", "--all", "--time", "0")

    def test_run(self, podman: Engine, program: str) -> None:
        result = podman(
            "run", "--rm", "-i", *NO_NETWORK, "busybox", "sh", "-c", "cat; exit 7", stdin="hi\n"
        )
        assert (result.status, result.out) == (7, "hi\n"), result.err
        shown = podman.ok("info", "--format", "{{.Host.OCIRuntime.Path}}")
        assert pathlib.Path(shown).name == pathlib.Path(program).name
        shown = podman.ok("info", "--format", "{{.Host.OCIRuntime.Version}}")
        assert re.match(rf"{pathlib.Path(program).name} version \d+\.\d+\.\d+", shown)

    @pytest.mark.parametrize(
        ("command", "status", "words"),
        [
            ("nosuch", 127, "executable file not found in $PATH"),
            ("/nosuch", 127, "no such file or directory"),
            ("/etc/passwd", 126, "permission denied"),
        ],
    )
    def test_programs_that_do_not_start(
        self, podman: Engine, command: str, status: int, words: str
    ) -> None:
        result = podman("run", "--rm", *NO_NETWORK, "busybox", command)
        assert result.status == status
        assert words in result.err

    def test_a_terminal(self, podman: Engine) -> None:
        terminal = podman.terminal(
            "run", "--rm", "-it", *NO_NETWORK, "busybox", "sh", "-c",
            "tty; sleep 0.5; stty size; read x; echo got-$x; exit 3", rows=33, columns=99,
        )  # fmt: skip
        terminal.expect_exact("/dev/pts/0")
        terminal.expect_exact("33 99")
        terminal.sendline("typed")
        terminal.expect_exact("got-typed")
        assert finish(terminal) == 3

    def test_exec(self, podman: Engine, container: str) -> None:
        result = podman("exec", "-e", "A=b", container, "sh", "-c", "echo $A; exit 3")
        assert (result.status, result.out) == (3, "b\n")
        result = podman("exec", "-i", "-u", "5", "-w", "/bin", container, "sh", "-c",
                        "cat; id -u; pwd", stdin="in\n")  # fmt: skip
        assert result.out == "in\n5\n/bin\n"
        assert podman("exec", container, "nosuch").status == 127
        podman.ok("exec", "-d", container, "touch", "/made")
        podman.ok("exec", container, "sh", "-c", "until [ -e /made ]; do sleep 0.1; done")

    def test_exec_with_a_terminal(self, podman: Engine, container: str) -> None:
        terminal = podman.terminal("exec", "-it", container, "sh", "-c", "tty; read x; echo got-$x")
        terminal.expect_exact("/dev/pts/0")
        terminal.sendline("typed")
        terminal.expect_exact("got-typed")
        assert finish(terminal) == 0

    def test_logs_and_stop(self, podman: Engine) -> None:
        script = "echo out; echo err >&2; trap 'echo bye; exit 4' TERM; while :; do sleep 0.1; done"
        name = podman.ok("run", "-d", *NO_NETWORK, "busybox", "sh", "-c", script)
        time.sleep(0.5)
        podman.ok("stop", name)
        assert podman.ok("wait", name) == "4"
        result = podman("logs", name)
        assert (result.out, result.err) == ("out\nbye\n", "err\n")
        podman.ok("rm", name)

    def test_kill_pause_and_restart(self, podman: Engine, container: str) -> None:
        def status() -> str:
            return podman.ok("inspect", "--format", "{{.State.Status}}", container)

        podman.ok("pause", container)
        assert status() == "paused"
        podman.ok("unpause", container)
        podman.ok("restart", "--time", "0", container)
        assert status() == "running"
        podman.ok("kill", "--signal", "KILL", container)
        assert podman.ok("wait", container) == "137"

    def test_stats_and_top(self, podman: Engine, container: str) -> None:
        (figures,) = json.loads(podman.ok("stats", "--no-stream", "--format", "json", container))
        assert figures["pids"] == "1"
        assert "sleep 1000" in podman.ok("top", container, "args")
        assert "sleep 1000" in podman.ok("top", container, "-ef")

    def test_limits_and_their_update(self, podman: Engine) -> None:
        name = podman.ok(
            "run", "-d", *NO_NETWORK, "--memory", "64m", "--pids-limit", "50", "--cpus", "0.5",
            "busybox", "sleep", "1000",
        )  # fmt: skip
        try:
            figures = json.loads(podman.ok("stats", "--no-stream", "--format", "json", name))
            assert "67.11MB" in figures[0]["mem_usage"]
            cgroup = pathlib.Path(podman.ok("inspect", "-f", "{{.State.CgroupPath}}", name))
            limits = pathlib.Path(f"/sys/fs/cgroup/pids{cgroup}/pids.max")
            if not limits.exists():
                pytest.skip("the figures are looked up in cgroup v1")
            assert limits.read_text() == "50\n"
            quota = pathlib.Path(f"/sys/fs/cgroup/cpu{cgroup}/cpu.cfs_quota_us")
            assert quota.read_text() == "50000\n"
            podman.ok("update", "--cpus", "0.25", name)
            assert quota.read_text() == "25000\n"
        finally:
            podman.ok("rm", "--force", "--time", "0", name)

    def test_a_healthcheck(self, podman: Engine) -> None:
        name = podman.ok(
            "run", "-d", *NO_NETWORK, "--health-cmd", "test -e /well", "--health-interval",
            "disable", "--health-retries", "1", "busybox", "sleep", "1000",
        )  # fmt: skip
        try:
            assert podman("healthcheck", "run", name).status == 1
            podman.ok("exec", name, "touch", "/well")
            assert podman("healthcheck", "run", name).status == 0
        finally:
            podman.ok("rm", "--force", "--time", "0", name)

    def test_volumes_and_read_only_roots(self, podman: Engine, tmp_path: pathlib.Path) -> None:
        (tmp_path / "file").write_text("of the host\n")
        result = podman(
            "run", "--rm", *NO_NETWORK, "--read-only", "--volume",
            f"{tmp_path}:/v:ro", "--tmpfs", "/t", "--hostname", "named", "--cap-drop", "all",
            "busybox", "sh", "-c", "cat /v/file; touch /x; touch /v/x; hostname",
        )  # fmt: skip
        assert result.out == "of the host\nnamed\n", result.err
        assert result.err.count("Read-only file system") == 2

    def test_sharing_namespaces(self, podman: Engine, container: str) -> None:
        out = podman.ok(
            "run", "--rm", "--network", f"container:{container}", "--pid",
            f"container:{container}", "busybox", "ps",
        )  # fmt: skip
        assert "sleep 1000" in out

    def test_a_user_namespace(self, podman: Engine) -> None:
        out = podman.ok(
            "run", "--rm", *NO_NETWORK, "--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000",
            "busybox", "cat", "/proc/self/uid_map",
        )  # fmt: skip
        assert out.split() == ["0", "100000", "1000"]


@pytest.mark.parametrize("program", ["runc", "ketch-oci"], indirect=True, scope="module")
class TestContainerd:
    @pytest.fixture
    def run(self, program: str) -> list[str]:
        return ["run", "--snapshotter", "native", "--runc-binary", peers.runtime_inside(program)]

    @pytest.fixture
    def task(self, ctr: Engine, run: list[str]) -> Iterator[str]:
        ctr.ok(*run, "--detach", containerd.IMAGE, "task", "sleep", "1000")
        yield "task"
        ctr("tasks", "delete", "--force", "task")
        ctr("containers", "delete", "task")

    def test_run(self, ctr: Engine, run: list[str]) -> None:
        result = ctr(*run, "--rm", containerd.IMAGE, "c", "sh", "-c", "echo $HOME; exit 7")
        assert (result.status, result.out) == (7, "/root\n"), result.err

    def test_a_program_that_does_not_start(self, ctr: Engine, run: list[str]) -> None:
        result = ctr(*run, "--rm", containerd.IMAGE, "c", "nosuch")
        assert result.status == 1
        assert "OCI runtime create failed" in result.err
        assert "executable file not found in $PATH" in result.err
        ctr("containers", "delete", "c")

    def test_a_terminal(self, ctr: Engine, run: list[str]) -> None:
        script = "tty; read x; echo got-$x"
        terminal = ctr.terminal(*run, "--rm", "--tty", containerd.IMAGE, "c", "sh", "-c", script)
        terminal.expect_exact("/dev/pts/0")
        terminal.sendline("typed")
        terminal.expect_exact("got-typed")
        assert finish(terminal) == 0

    def test_exec(self, ctr: Engine, task: str) -> None:
        words = ["tasks", "exec", "--exec-id", "e", task]
        result = ctr(*words, "sh", "-c", "echo in; exit 3")
        assert (result.status, result.out) == (3, "in\n")
        assert "executable file not found in $PATH" in ctr(*words, "nosuch").err

    def test_exec_with_a_terminal(self, ctr: Engine, task: str) -> None:
        script = "tty; read x; echo got-$x"
        terminal = ctr.terminal(
            "tasks", "exec", "--tty", "--exec-id", "e", task, "sh", "-c", script
        )
        terminal.expect_exact("/dev/pts/0")
        terminal.sendline("typed")
        terminal.expect_exact("got-typed")
        assert finish(terminal) == 0

    def test_pause_and_metrics(self, ctr: Engine, task: str) -> None:
        ctr.ok("tasks", "pause", task)
        assert "PAUSED" in ctr.ok("tasks", "list")
        ctr.ok("tasks", "resume", task)
        assert "RUNNING" in ctr.ok("tasks", "list")
        assert "pids.current" in ctr.ok("tasks", "metrics", task)
        assert len(ctr.ok("tasks", "ps", task).splitlines()) == 2

    def test_kill_and_delete(self, ctr: Engine, task: str) -> None:
        ctr.ok("tasks", "kill", "--signal", "SIGKILL", task)
        deadline = time.monotonic() + 10
        while "STOPPED" not in ctr.ok("tasks", "list"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        ctr.ok("tasks", "delete", task)
        assert task not in ctr.ok("tasks", "list")

    def test_limits(self, ctr: Engine, run: list[str]) -> None:
        ctr.ok(*run, "-d", "--memory-limit", "67108864", containerd.IMAGE, "c", "sleep", "1000")
        try:
            assert "67108864" in ctr.ok("tasks", "metrics", "c")
        finally:
            ctr("tasks", "delete", "--force", "c")
            ctr("containers", "delete", "c")


@pytest.mark.parametrize("program", ["runc", "ketch-oci"], indirect=True, scope="module")
class TestDocker:
    @pytest.fixture
    def container(self, docker: Engine) -> Iterator[str]:
        name = docker.ok("run", "-d", "busybox", "sleep", "1000")
        yield name
        docker.ok("rm", "--force", name)

    def test_run(self, docker: Engine) -> None:
        assert docker.ok("info", "--format", "{{.DefaultRuntime}}") == "other"
        result = docker("run", "--rm", "-i", "busybox", "sh", "-c", "cat; exit 7", stdin="hi\n")
        assert (result.status, result.out) == (7, "hi\n"), result.err

    def test_its_version(self, docker: Engine) -> None:
        """What dockerd reads of ``--version`` is shown, as the release and the commit."""
        assert docker.ok("info", "--format", "{{.RuncCommit.ID}}") not in {"", "N/A", "<nil>"}
        assert re.search(r"^ runc version: \S+$", docker.ok("info"), re.MULTILINE)
        form = "{{range .Server.Components}}{{.Name}} {{.Version}} {{.Details.GitCommit}}\n{{end}}"
        told = docker.ok("version", "--format", form)
        assert re.search(r"^(runc|other) \d+\.\d+\.\d+\S* \S+$", told, re.MULTILINE), told

    @pytest.mark.parametrize(
        ("command", "status"), [("nosuch", 127), ("/nosuch", 127), ("/etc/passwd", 126)]
    )
    def test_programs_that_do_not_start(self, docker: Engine, command: str, status: int) -> None:
        assert docker("run", "--rm", "busybox", command).status == status

    def test_a_terminal(self, docker: Engine) -> None:
        terminal = docker.terminal(
            "run", "--rm", "-it", "busybox", "sh", "-c", "tty; read x; echo got-$x; exit 3"
        )
        terminal.expect_exact("/dev/pts/0")
        terminal.sendline("typed")
        terminal.expect_exact("got-typed")
        assert finish(terminal) == 3

    def test_the_network(self, docker: Engine) -> None:
        assert "eth0" in docker.ok("run", "--rm", "busybox", "ip", "address")
        out = docker.ok("run", "--rm", "--network", "none", "busybox", "ip", "address")
        assert "eth0" not in out

    def test_exec(self, docker: Engine, container: str) -> None:
        words = ["exec", "-e", "A=b", "-w", "/bin", "-u", "5:6", container, "sh", "-c"]
        result = docker(*words, "echo $A; pwd; id -u; exit 3")
        assert (result.status, result.out) == (3, "b\n/bin\n5\n")
        result = docker("exec", container, "nosuch")
        assert result.status in {126, 127}  # which, depends on dockerd's version
        assert "executable file not found in $PATH" in result.out + result.err
        assert docker("exec", container, "/etc/passwd").status == 126
        docker.ok("exec", "-d", container, "touch", "/made")
        docker.ok("exec", container, "sh", "-c", "until [ -e /made ]; do sleep 0.1; done")

    def test_exec_with_a_terminal(self, docker: Engine, container: str) -> None:
        terminal = docker.terminal("exec", "-it", container, "sh", "-c", "tty; read x; echo got-$x")
        terminal.expect_exact("/dev/pts/")
        terminal.sendline("typed")
        terminal.expect_exact("got-typed")
        assert finish(terminal) == 0

    def test_pause_stop_and_logs(self, docker: Engine) -> None:
        script = "echo out; trap 'echo bye; exit 4' TERM; while :; do sleep 0.1; done"
        name = docker.ok("run", "-d", "busybox", "sh", "-c", script)
        try:
            docker.ok("pause", name)
            assert docker.ok("inspect", "-f", "{{.State.Status}}", name) == "paused"
            docker.ok("unpause", name)
            docker.ok("stop", name)
            assert docker.ok("wait", name) == "4"
            assert docker.ok("logs", name) == "out\nbye"
        finally:
            docker.ok("rm", "--force", name)

    def test_stats_top_and_update(self, docker: Engine, container: str) -> None:
        out = docker.ok("stats", "--no-stream", "--format", "{{.PIDs}}", container)
        assert out == "1"
        assert "sleep 1000" in docker.ok("top", container)
        docker.ok("update", "--memory", "64m", "--memory-swap", "64m", container)
        assert "64MiB" in docker.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", container)

    def test_out_of_memory(self, docker: Engine) -> None:
        words = ["run", "--memory", "16m", "--memory-swap", "16m", "--name", "big", "busybox"]
        try:
            assert docker(*words, "tail", "/dev/zero").status == 137
            assert docker.ok("inspect", "-f", "{{.State.OOMKilled}}", "big") == "true"
        finally:
            docker("rm", "--force", "big")

    def test_a_healthcheck(self, docker: Engine) -> None:
        name = docker.ok(
            "run", "-d", "--health-cmd", "true", "--health-interval", "200ms", "busybox",
            "sleep", "1000",
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 15
            while docker.ok("inspect", "-f", "{{.State.Health.Status}}", name) != "healthy":
                assert time.monotonic() < deadline
                time.sleep(0.2)
        finally:
            docker.ok("rm", "--force", name)

    def test_init_and_restart(self, docker: Engine) -> None:
        name = docker.ok("run", "-d", "--init", "busybox", "sleep", "1000")
        try:
            docker.ok("restart", "--time", "0", name)
            assert docker.ok("inspect", "-f", "{{.State.Running}}", name) == "true"
        finally:
            docker.ok("rm", "--force", name)
