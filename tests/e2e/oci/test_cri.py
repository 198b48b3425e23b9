"""Pods: ketch-oci beneath containerd's CRI, after the same with runc, which shows it is fair.

What a kubelet asks of a node: namespaces that a pod's containers share or not, probes, streams,
logs, figures, limits, ends.
"""

import os
import pathlib
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ketch.api.buildkit.grpc import Code, StatusError
from tests.support import cri, peers
from tests.support.cri import Mode, Node, Pod, State, Stream

pytestmark = pytest.mark.timeout(180)

HAS_PLUGINS = pathlib.Path(f"{peers.TREE}{cri.PLUGINS}/bridge").exists()
Pods = Callable[..., Pod]


@pytest.fixture(scope="module")
def node(run_name: str, ketch_oci: str) -> Iterator[Node]:
    runc = shutil.which("runc")
    if runc is None:
        pytest.skip("runc is not installed")
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{run_name}-"))
    directory.chmod(0o711)  # root of a user namespace goes through it
    try:
        with cri.node(directory, {"runc": runc, "ketch-oci": ketch_oci}) as made:
            yield made
    except peers.PeerUnavailableError as error:
        pytest.skip(str(error))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["runc", "ketch-oci"])
def pods(request: pytest.FixtureRequest, node: Node, tmp_path: pathlib.Path) -> Iterator[Pods]:
    """Return what makes pods, on the node's network unless told otherwise."""
    made: list[Pod] = []

    def make(
        network: Mode = Mode.NODE,
        pid: Mode = Mode.CONTAINER,
        ipc: Mode = Mode.POD,
        sysctls: dict[str, str] | None = None,
        *,
        privileged: bool = False,
        **options: Any,
    ) -> Pod:
        namespaces = {"network": network, "pid": pid, "ipc": ipc, **options}
        config = {
            "metadata": {"name": f"p{len(made)}", "uid": os.urandom(8).hex(), "namespace": "n"},
            "hostname": "" if network is Mode.NODE else "boat",
            "log_directory": str(tmp_path),
            "linux": {
                "cgroup_parent": f"/{peers.CGROUP}",
                "sysctls": sysctls or {},
                "security_context": {"namespace_options": namespaces, "privileged": privileged},
            },
        }
        made.append(Pod(node, config, request.param))
        return made[-1]

    yield make
    for pod in made:
        pod.remove()


@pytest.fixture
def pod(pods: Pods) -> Pod:
    return pods()


@pytest.fixture
def networked(pods: Pods) -> Pod:
    """Return a pod with a network of its own."""
    if not HAS_PLUGINS:
        pytest.skip("CNI's plugins are not there (Debian: containernetworking-plugins)")
    return pods(network=Mode.POD)


def said(node: Node, container: str, *command: str, seconds: int = 20) -> str:
    """Return what a command in a container printed; it must succeed."""
    answer = node("ExecSync", container_id=container, cmd=command, timeout=seconds)
    assert answer.exit_code == 0, answer
    return bytes(answer.stdout).decode()


def ended(node: Node, container: str) -> Any:
    """Wait for a container's end; return its status."""
    deadline = time.monotonic() + 20
    while True:
        status = node("ContainerStatus", container_id=container).status
        if status.state == State.EXITED:
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.05)


def lines(log: pathlib.Path) -> list[str]:
    """Return what a log has, without times."""
    return [line.split(" ", 1)[1] for line in log.read_text(encoding="utf-8").splitlines()]


def written(log: pathlib.Path, wanted: list[str]) -> None:
    """Wait until a log has what is wanted, and nothing else."""
    deadline = time.monotonic() + 10
    while lines(log) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert lines(log) == wanted


def test_a_container_from_its_creation_to_its_end(
    node: Node, pod: Pod, tmp_path: pathlib.Path
) -> None:
    assert pod.status.state == 0
    script = "echo out; echo err >&2; printf part; exit 7"
    container = pod.create(
        "sh", "-c", script, envs=[{"key": "A", "value": "b"}], working_dir="/bin"
    )
    assert node("ContainerStatus", container_id=container).status.state == State.CREATED
    node("StartContainer", container_id=container)
    status = ended(node, container)
    assert (status.exit_code, status.reason) == (7, "Error")
    assert status.created_at < min(status.started_at, status.finished_at)
    log = tmp_path / "c1.log"
    assert sorted(lines(log)) == ["stderr F err", "stdout F out", "stdout P part"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|\+)", log.read_text(encoding="utf-8"))
    node("RemoveContainer", container_id=container)
    with pytest.raises(StatusError) as refused:
        node("ContainerStatus", container_id=container)
    assert refused.value.code == Code.NOT_FOUND


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("nosuch", "executable file not found in $PATH"),
        ("/nosuch", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ],
)
def test_programs_that_do_not_start(node: Node, pod: Pod, command: str, words: str) -> None:
    container = pod.create(command)
    with pytest.raises(StatusError, match=re.escape(words)):
        node("StartContainer", container_id=container)
    status = node("ContainerStatus", container_id=container).status
    assert (status.state, status.exit_code, status.reason) == (State.EXITED, 128, "StartError")
    assert words in status.message
    node("RemoveContainer", container_id=container)


def test_a_pod_goes_with_what_runs_in_it(node: Node, pods: Pods) -> None:
    pod = pods()
    container = pod.run("sleep", "1000")
    node("StopPodSandbox", pod_sandbox_id=pod.id)
    assert pod.status.state == 1
    assert ended(node, container).exit_code == 137
    node("RemovePodSandbox", pod_sandbox_id=pod.id)
    assert pod.id not in {one.id for one in node("ListPodSandbox").items}


def test_pods_outlive_their_containerd(node: Node, pod: Pod) -> None:
    container = pod.run("sleep", "1000")
    node.start_anew()
    assert pod.status.state == 0
    assert node("ContainerStatus", container_id=container).status.state == State.RUNNING
    assert said(node, container, "echo", "here") == "here\n"
    node("StopContainer", container_id=container)
    assert ended(node, container).exit_code == 137


class TestNamespaces:
    def test_a_network_of_the_pods_own(self, node: Node, networked: Pod) -> None:
        address = networked.status.network.ip
        assert address.startswith("10.88.0.")
        serving = networked.run("sh", "-c", "echo well >/tmp/f; exec httpd -f -p 8080 -h /tmp")
        asking = networked.run("sleep", "1000")
        said(node, serving, "sh", "-c", "until wget -qO- 127.0.0.1:8080/f; do sleep 0.1; done")
        assert said(node, asking, "wget", "-qO-", "http://127.0.0.1:8080/f") == "well\n"
        assert said(node, asking, "hostname") == "boat\n"
        assert address in said(node, asking, "ip", "-4", "address", "show", "eth0")
        with node.connected(address, 8080) as connection:
            connection.sendall(b"GET /f HTTP/1.0\r\n\r\n")
            assert connection.makefile("rb").read().endswith(b"well\n")

    def test_the_nodes_network(self, node: Node, pod: Pod) -> None:
        container = pod.run("sleep", "1000")
        here = node.program("readlink", "/proc/self/ns/net")
        assert said(node, container, "readlink", "/proc/self/ns/net") == here

    def test_processes_of_a_container(self, node: Node, pods: Pods) -> None:
        pod = pods(pid=Mode.CONTAINER)
        pod.run("sleep", "1001")
        container = pod.run("sleep", "1002")
        listed = said(node, container, "ps", "-o", "pid,args")
        assert re.search(r"^ +1 sleep 1002$", listed, re.MULTILINE)
        assert "sleep 1001" not in listed

    def test_processes_of_a_pod(self, node: Node, pods: Pods) -> None:
        pod = pods(pid=Mode.POD)
        first = pod.run("sleep", "1001")
        container = pod.run("sleep", "1002")
        listed = said(node, container, "ps", "-o", "pid,args")
        assert re.search(r"^ +1 sleep 2147483647$", listed, re.MULTILINE)  # the pause
        assert "sleep 1001" in listed
        # One of it ends with all of its processes, whoever else is in the namespace.
        said(node, first, "sh", "-c", "sleep 1003 >/dev/null 2>&1 &")
        node("StopContainer", container_id=first)
        listed = said(node, container, "ps", "-o", "pid,args")
        assert "sleep 1001" not in listed
        assert "sleep 1003" not in listed
        assert "sleep 1002" in listed

    def test_processes_of_the_node(self, node: Node, pods: Pods) -> None:
        container = pods(pid=Mode.NODE).run("sleep", "1000")
        assert said(node, container, "readlink", "/proc/self/ns/pid") == node.program(
            "readlink", "/proc/self/ns/pid"
        )

    def test_processes_of_another_container(self, node: Node, pods: Pods) -> None:
        """As an ephemeral container has them, by ``kubectl debug --target``."""
        pod = pods(pid=Mode.CONTAINER)
        target = pod.run("sleep", "1001")
        pod.run("sleep", "1002")
        targeted = pod.namespaces(pid=Mode.TARGET, target_id=target)
        container = pod.run("sleep", "1003", security={"namespace_options": targeted})
        listed = said(node, container, "ps", "-o", "pid,args")
        assert re.search(r"^ +1 sleep 1001$", listed, re.MULTILINE)
        assert "sleep 1003" in listed
        assert "sleep 1002" not in listed
        assert said(node, container, "cat", "/proc/1/root/etc/hostname")
        node("StopContainer", container_id=container)
        assert "sleep 1003" not in said(node, target, "ps", "-o", "pid,args")

    def test_shared_memory_of_a_pod(self, node: Node, pods: Pods) -> None:
        pod = pods(ipc=Mode.POD)
        first, second = pod.run("sleep", "1000"), pod.run("sleep", "1000")
        said(node, first, "sh", "-c", "echo shared >/dev/shm/f")
        assert said(node, second, "cat", "/dev/shm/f") == "shared\n"
        spaces = {said(node, one, "readlink", "/proc/self/ns/ipc") for one in (first, second)}
        assert len(spaces) == 1
        assert spaces != {node.program("readlink", "/proc/self/ns/ipc")}

    def test_shared_memory_of_the_node(self, node: Node, pods: Pods) -> None:
        container = pods(ipc=Mode.NODE).run("sleep", "1000")
        here = node.program("readlink", "/proc/self/ns/ipc")
        assert said(node, container, "readlink", "/proc/self/ns/ipc") == here

    @pytest.mark.parametrize("pid", [Mode.POD, Mode.CONTAINER])
    def test_users_of_the_pods_own(self, node: Node, pods: Pods, pid: Mode) -> None:
        """``hostUsers: false``."""
        if not HAS_PLUGINS:
            pytest.skip("CNI's plugins are not there (Debian: containernetworking-plugins)")
        ids = [{"host_id": 131072, "container_id": 0, "length": 65536}]
        users = {"mode": Mode.POD, "uids": ids, "gids": ids}
        pod = pods(network=Mode.POD, pid=pid, userns_options=users)
        first, second = pod.run("sleep", "1000"), pod.run("sleep", "1000")
        for container in (first, second):
            assert said(node, container, "cat", "/proc/self/uid_map").split() == [
                "0", "131072", "65536",
            ]  # fmt: skip
            assert said(node, container, "id", "-u") == "0\n"
            assert said(node, container, "stat", "-c", "%u", "/bin/busybox") == "0\n"
            said(node, container, "touch", "/made")
        spaces = {said(node, one, "readlink", "/proc/self/ns/user") for one in (first, second)}
        assert len(spaces) == 1
        assert pod.status.network.ip in said(node, first, "ip", "address", "show", "eth0")
        # Its root is nobody on the node.
        found = node.program("ps", "-eo", "uid,args")
        assert re.search(r"^131072 sleep 1000$", found.replace("  ", ""), re.MULTILINE)

    def test_sysctls(self, node: Node, pods: Pods) -> None:
        if not HAS_PLUGINS:
            pytest.skip("CNI's plugins are not there (Debian: containernetworking-plugins)")
        asked = {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shmmax": "12345678"}
        container = pods(network=Mode.POD, sysctls=asked).run("sleep", "1000")
        for name, value in asked.items():
            path = f"/proc/sys/{name.replace('.', '/')}"
            assert said(node, container, "cat", path) == f"{value}\n"


class TestProbes:
    def test_what_a_command_says(self, node: Node, pod: Pod) -> None:
        container = pod.run("sleep", "1000", envs=[{"key": "A", "value": "b"}])
        command = ["sh", "-c", "echo out $A; echo err >&2; exit 3"]
        answer = node("ExecSync", container_id=container, cmd=command)
        assert (answer.exit_code, answer.stdout, answer.stderr) == (3, b"out b\n", b"err\n")

    def test_one_that_takes_too_long(self, node: Node, pod: Pod) -> None:
        container = pod.run("sleep", "1000")
        begun = time.monotonic()
        with pytest.raises(StatusError) as late:
            node("ExecSync", container_id=container, cmd=["sleep", "1234"], timeout=1)
        assert late.value.code == Code.DEADLINE_EXCEEDED
        assert 0.9 < time.monotonic() - begun < 15
        assert "sleep 1234" not in said(node, container, "ps", "-o", "args")

    def test_one_that_is_not_there(self, node: Node, pod: Pod) -> None:
        container = pod.run("sleep", "1000")
        with pytest.raises(StatusError, match=r"executable file not found in \$PATH"):
            node("ExecSync", container_id=container, cmd=["nosuch"])

    def test_many_at_once(self, node: Node, pod: Pod) -> None:
        container = pod.run("sleep", "1000")
        answers: list[str] = []

        def probe(number: int) -> None:
            answers.append(said(node, container, "echo", str(number)))

        threads = [threading.Thread(target=probe, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [f"{number}\n" for number in range(8)]

    def test_much_output(self, node: Node, pod: Pod) -> None:
        container = pod.run("sleep", "1000")
        assert len(said(node, container, "head", "-c", "3000000", "/dev/zero")) == 3_000_000

    def test_one_is_within_the_containers_limits(self, node: Node, pod: Pod) -> None:
        container = pod.run("sleep", "1000")
        own = said(node, container, "cat", "/proc/1/cgroup")
        assert said(node, container, "cat", "/proc/self/cgroup") == own


class TestStreams:
    def exec(self, node: Node, container: str, *command: str, **asked: bool) -> Stream:
        asked = {"stdout": True, **asked}
        return node.stream(node("Exec", container_id=container, cmd=command, **asked).url)

    def test_a_command_with_input(self, node: Node, pod: Pod) -> None:
        container = pod.run("sleep", "1000")
        script = "read x; echo got-$x; echo err >&2; exit 3"
        with self.exec(node, container, "sh", "-c", script, stdin=True, stderr=True) as stream:
            stream.send(Stream.STDIN, b"typed\n")
            assert stream.status() == 3
            assert stream.kept[Stream.STDOUT] == b"got-typed\n"
            assert stream.kept[Stream.STDERR] == b"err\n"

    def test_a_terminal(self, node: Node, pod: Pod) -> None:
        container = pod.run("sleep", "1000")
        script = "tty; read x; stty size; echo got-$x; exit 4"
        with self.exec(node, container, "sh", "-c", script, stdin=True, tty=True) as stream:
            stream.until(Stream.STDOUT, b"/dev/pts/0")
            stream.resize(33, 99)
            deadline = time.monotonic() + 10
            size = ["sh", "-c", "stty size </dev/pts/0"]
            while said(node, container, *size) != "33 99\n":
                assert time.monotonic() < deadline
                time.sleep(0.1)
            stream.send(Stream.STDIN, b"typed\n")
            assert stream.status() == 4
            assert b"33 99\r\ngot-typed\r\n" in stream.kept[Stream.STDOUT]

    def test_one_attaches_to_a_container(
        self, node: Node, pod: Pod, tmp_path: pathlib.Path
    ) -> None:
        script = "while read x; do echo got-$x; done"
        container = pod.run("sh", "-c", script, stdin=True)
        asked = node("Attach", container_id=container, stdin=True, stdout=True, stderr=True)
        with node.stream(asked.url) as stream:
            stream.send(Stream.STDIN, b"one\n")
            stream.until(Stream.STDOUT, b"got-one\n")
        asked = node("Attach", container_id=container, stdin=True, stdout=True, stderr=True)
        with node.stream(asked.url) as stream:
            stream.send(Stream.STDIN, b"two\n")
            assert stream.until(Stream.STDOUT, b"got-two\n") == b"got-two\n"
        written(tmp_path / "c1.log", ["stdout F got-one", "stdout F got-two"])

    def test_one_attaches_to_a_containers_terminal(self, node: Node, pod: Pod) -> None:
        container = pod.run("sh", "-c", "read x; tty; exit 5", stdin=True, tty=True)
        asked = node("Attach", container_id=container, stdin=True, stdout=True, tty=True)
        with node.stream(asked.url) as stream:
            stream.send(Stream.STDIN, b"typed\n")
            assert b"/dev/pts/0\r\n" in stream.rest()
        assert ended(node, container).exit_code == 5

    def test_a_port_is_forwarded(self, node: Node, networked: Pod) -> None:
        serving = networked.run("sh", "-c", "echo well >/tmp/f; exec httpd -f -p 8080 -h /tmp")
        said(node, serving, "sh", "-c", "until wget -qO- 127.0.0.1:8080/f; do sleep 0.1; done")
        asked = node("PortForward", pod_sandbox_id=networked.id, port=[8080])
        with node.stream(asked.url, "?port=8080") as stream:
            stream.send(0, b"GET /f HTTP/1.0\r\n\r\n")
            # Both channels begin with the port, in two bytes.
            found = stream.until(0, b"well\n")
        assert found.startswith((8080).to_bytes(2, "little") + b"HTTP/1.")


class TestLogs:
    def test_one_is_taken_away_amid_its_writing(
        self, node: Node, pod: Pod, tmp_path: pathlib.Path
    ) -> None:
        script = "echo before; while [ ! -e /go ]; do sleep 0.1; done; echo after; sleep 1000"
        container = pod.run("sh", "-c", script)
        log = tmp_path / "c1.log"
        written(log, ["stdout F before"])
        log.rename(tmp_path / "c1.log.old")
        node("ReopenContainerLog", container_id=container)
        said(node, container, "touch", "/go")
        written(log, ["stdout F after"])
        assert lines(tmp_path / "c1.log.old") == ["stdout F before"]

    def test_a_long_line_is_parted(self, node: Node, pod: Pod, tmp_path: pathlib.Path) -> None:
        container = pod.run("sh", "-c", "head -c 20000 /dev/zero | tr '\\0' x; echo")
        ended(node, container)
        assert [line[:9] for line in lines(tmp_path / "c1.log")] == ["stdout P ", "stdout F "]


class TestLimits:
    def test_figures(self, node: Node, pod: Pod) -> None:
        container = pod.run("sh", "-c", "while :; do :; done")
        deadline = time.monotonic() + 10
        while True:
            stats = node("ContainerStats", container_id=container).stats
            if stats.cpu.usage_core_nano_seconds.value > 50_000_000:
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert 0 < stats.memory.working_set_bytes.value < 1 << 30
        whole = node("PodSandboxStats", pod_sandbox_id=pod.id).stats.linux
        assert [one.attributes.id for one in whole.containers] == [container]
        assert whole.cpu.usage_core_nano_seconds.value > 50_000_000

    def test_limits_and_their_change(self, node: Node, pod: Pod) -> None:
        limits = {"memory_limit_in_bytes": 64 << 20, "cpu_quota": 50_000, "cpu_period": 100_000,
                  "cpu_shares": 512, "oom_score_adj": 500}  # fmt: skip
        container = pod.run("sleep", "1000", resources=limits)
        groups = dict(
            line.split(":", 2)[1:]
            for line in said(node, container, "cat", "/proc/1/cgroup").split()
        )
        if "memory" not in groups:
            pytest.skip("the figures are looked up in cgroup v1")

        def figure(name: str) -> str:
            pid = node.ctr.ok("tasks", "list").split(container)[1].split()[0]
            text = pathlib.Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
            of = dict(line.split(":", 2)[1:] for line in text.split())
            kind = name.partition(".")[0]
            (path,) = (at for names, at in of.items() if kind in names.split(","))
            return pathlib.Path(f"/sys/fs/cgroup/{kind}{path}/{name}").read_text(encoding="ascii")

        assert figure("memory.limit_in_bytes") == f"{64 << 20}\n"
        assert figure("cpu.cfs_quota_us") == "50000\n"
        assert figure("cpu.shares") == "512\n"
        assert said(node, container, "cat", "/proc/1/oom_score_adj") == "500\n"
        changed = {"memory_limit_in_bytes": 96 << 20, "cpu_quota": 25_000, "cpu_shares": 256}
        node("UpdateContainerResources", container_id=container, linux=changed)
        assert figure("memory.limit_in_bytes") == f"{96 << 20}\n"
        assert figure("cpu.cfs_quota_us") == "25000\n"
        assert figure("cpu.shares") == "256\n"

    def test_out_of_memory(self, node: Node, pod: Pod) -> None:
        container = pod.run("tail", "/dev/zero", resources={"memory_limit_in_bytes": 16 << 20})
        status = ended(node, container)
        assert (status.exit_code, status.reason) == (137, "OOMKilled")


class TestEnds:
    def test_one_that_heeds(self, node: Node, pod: Pod, tmp_path: pathlib.Path) -> None:
        script = "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.1; done"
        container = pod.run("sh", "-c", script)
        log = tmp_path / "c1.log"
        written(log, ["stdout F up"])
        node("StopContainer", container_id=container, timeout=30)
        assert ended(node, container).exit_code == 4
        assert lines(log) == ["stdout F up", "stdout F bye"]

    @pytest.mark.parametrize("grace_seconds", [0, 1])
    def test_one_that_does_not(self, node: Node, pod: Pod, grace_seconds: int) -> None:
        container = pod.run("sleep", "1000")  # as PID 1 it takes no signal that it does not catch
        begun = time.monotonic()
        node("StopContainer", container_id=container, timeout=grace_seconds)
        assert grace_seconds <= time.monotonic() - begun < grace_seconds + 10
        assert ended(node, container).exit_code == 137
        node("StopContainer", container_id=container)  # done already, and no error


class TestSecurity:
    def test_users_and_groups(self, node: Node, pod: Pod) -> None:
        security = {
            "run_as_user": {"value": 5}, "run_as_group": {"value": 6},
            "supplemental_groups": [7, 8], "no_new_privs": True, "readonly_rootfs": True,
        }  # fmt: skip
        container = pod.run("sleep", "1000", security=security)
        status = said(node, container, "cat", "/proc/self/status")
        assert re.search(r"^Uid:\t5\t5\t5\t5$", status, re.MULTILINE)
        assert re.search(r"^Gid:\t6\t6\t6\t6$", status, re.MULTILINE)
        assert re.search(r"^Groups:\t6 7 8 $", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
        answer = node("ExecSync", container_id=container, cmd=["touch", "/tmp/x"])
        assert b"Read-only file system" in answer.stderr

    def test_capabilities_and_system_calls(self, node: Node, pod: Pod) -> None:
        security = {
            "capabilities": {"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["ALL"]},
            "seccomp": {"profile_type": 0},
        }
        container = pod.run("sleep", "1000", security=security)
        status = said(node, container, "cat", "/proc/1/status")
        assert re.search(rf"^CapBnd:\t{1 << 12:016x}$", status, re.MULTILINE)
        assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
        assert node("ExecSync", container_id=container, cmd=["unshare", "-U"]).exit_code != 0

    def test_paths(self, node: Node, pod: Pod) -> None:
        security = {"masked_paths": ["/proc/keys", "/bin"], "readonly_paths": ["/proc/sys"]}
        container = pod.create("/bin/true", security=security)
        with pytest.raises(StatusError, match="no such file or directory"):
            node("StartContainer", container_id=container)
        security["masked_paths"] = ["/proc/keys"]
        container = pod.run("sleep", "1000", security=security)
        assert said(node, container, "cat", "/proc/keys") == ""
        writing = node("ExecSync", container_id=container,
                       cmd=["sh", "-c", "echo x >/proc/sys/kernel/domainname"])  # fmt: skip
        assert b"Read-only file system" in writing.stderr

    def test_privileges(self, node: Node, pods: Pods) -> None:
        pod = pods(privileged=True)
        security = {"privileged": True}
        container = pod.run("sleep", "1000", security=security)
        status = said(node, container, "cat", "/proc/1/status")
        own = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
        (all_of_them,) = re.findall(r"^CapBnd:\t(.+)$", own, re.MULTILINE)
        assert re.search(rf"^CapEff:\t{all_of_them}$", status, re.MULTILINE)
        assert re.search(r"^Seccomp:\t0$", status, re.MULTILINE)
        said(node, container, "mount", "-t", "tmpfs", "tmpfs", "/tmp")
        said(node, container, "test", "-c", "/dev/kmsg")


class TestMounts:
    def test_of_the_node(self, node: Node, pod: Pod, tmp_path: pathlib.Path) -> None:
        (tmp_path / "file").write_text("of the node\n")
        mounts = [
            {"container_path": "/v", "host_path": str(tmp_path), "readonly": True},
            {"container_path": "/w", "host_path": str(tmp_path)},
            {"container_path": "/etc/one", "host_path": str(tmp_path / "file")},
        ]
        container = pod.run("sleep", "1000", mounts=mounts)
        assert said(node, container, "cat", "/v/file", "/etc/one") == "of the node\n" * 2
        writing = node("ExecSync", container_id=container, cmd=["touch", "/v/x"])
        assert b"Read-only file system" in writing.stderr
        said(node, container, "touch", "/w/x")
        assert (tmp_path / "x").exists()

    def test_they_are_passed_on(self, node: Node, pods: Pods) -> None:
        """As a driver of volumes passes on what it mounts, and its users see it."""
        node.program("sh", "-c", "mkdir -p /run/shared && mount -t tmpfs s /run/shared"
                     " && mount --make-rshared /run/shared && mkdir -p /run/shared/in")  # fmt: skip
        try:
            pod = pods(privileged=True)
            mount = {"container_path": "/v", "host_path": "/run/shared"}
            driver = pod.run("sleep", "1000", mounts=[{**mount, "propagation": 2}],
                             security={"privileged": True})  # fmt: skip
            user = pod.run("sleep", "1000", mounts=[{**mount, "propagation": 1}])
            apart = pod.run("sleep", "1000", mounts=[mount])
            script = "mount -t tmpfs m /v/in && echo driven >/v/in/file"
            said(node, driver, "sh", "-c", script)
            assert said(node, user, "cat", "/v/in/file") == "driven\n"
            assert said(node, apart, "ls", "/v/in") == ""
        finally:
            node.program("umount", "-R", "-l", "/run/shared")

    def test_a_device(self, node: Node, pod: Pod, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "device"
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(10, 237))  # loop-control
        devices = [{"container_path": "/dev/other", "host_path": str(path), "permissions": "r"}]
        container = pod.run("sleep", "1000", devices=devices)
        said(node, container, "sh", "-c", ": </dev/other")
        writing = node("ExecSync", container_id=container, cmd=["sh", "-c", ": >>/dev/other"])
        assert b"Operation not permitted" in writing.stderr
