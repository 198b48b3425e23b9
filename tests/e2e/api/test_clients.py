"""docker-py, raw sockets and crowds of clients; a server that is killed under its containers."""

import concurrent.futures
import contextlib
import io
import json
import pathlib
import shutil
import socket as sockets
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable

import docker  # type: ignore[import-untyped]
import pytest

from ketch.api import units
from ketch.engine.settings import Settings
from tests.support import serving
from tests.support.commands import Engine

Ask = Callable[..., tuple[int, bytes]]


@pytest.mark.root_engine("cgroup v1 gives ordinary users none")
def test_docker_py(client: docker.DockerClient, tmp_path: pathlib.Path) -> None:
    assert client.ping()
    assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
    with pytest.raises(docker.errors.ContainerError):
        client.containers.run("busybox", ["false"], remove=True)
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nobody")
    network = client.networks.create("api-net", labels={"of": "api"})
    volume = client.volumes.create("api-volume")
    container = client.containers.run(
        "busybox", ["sh", "-c", "echo up; sleep 100"], detach=True, name="api-one",
        network="api-net", volumes={"api-volume": {"bind": "/data"}}, environment={"A": "b"},
        ports={"80/tcp": ("127.0.0.1", None)}, mem_limit="64m", labels={"of": "api"},
    )  # fmt: skip
    try:
        container.reload()
        assert container.status == "running"
        assert container.attrs["HostConfig"]["Memory"] == 64 << 20
        assert client.containers.list(filters={"label": "of=api"}) == [container]
        assert [one.name for one in client.networks.list(names=["api-net"])] == ["api-net"]
        for _ in range(10):  # what comes together with the answer's head, docker-py loses
            result = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 5"], demux=True)
            assert (result.exit_code, result.output) == (5, (b"out\n", b"err\n"))
        assert next(iter(container.logs(stream=True, follow=True))) == b"up\n"
        assert container.top()["Processes"]
        assert container.stats(stream=False)["pids_stats"]["current"] >= 1
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            member = tarfile.TarInfo("file")
            member.size = 4
            tar.addfile(member, io.BytesIO(b"text"))
        assert container.put_archive("/data", archive.getvalue())
        pieces, stat = container.get_archive("/data/file")
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
            extracted = tar.extractfile("file")
            assert extracted is not None
            assert extracted.read() == b"text"
        assert stat["size"] == 4
        assert {"Path": "/data", "Kind": 1} in container.diff()
        container.pause()
        container.unpause()
        container.rename("api-two")
        container.restart(timeout=0)
        image = container.commit("api-image", "1")
        assert image.tags == ["api-image:1"]
        saved = b"".join(image.save(named=True))
        client.images.remove("api-image:1")
        (loaded,) = client.images.load(saved)
        assert loaded.tags == ["api-image:1"]
        client.images.remove("api-image:1")
        container.stop(timeout=0)
        assert container.wait()["StatusCode"] == 137
    finally:
        container.remove(force=True)
        network.remove()
        volume.remove()


def test_events_as_they_happen(client: docker.DockerClient) -> None:
    seen: list[str] = []
    stream = client.events(decode=True, filters={"type": "container"})

    def watch() -> None:
        for event in stream:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    time.sleep(0.3)
    client.containers.run("busybox", ["true"], remove=True)
    watcher.join(15)
    stream.close()
    wanted = ["create", "attach", "start", "die", "destroy"]
    assert [action for action in seen if action in wanted] in (wanted, wanted[:1] + wanted[2:])


def test_attaching_by_websocket(socket: pathlib.Path, ketch: Engine) -> None:
    ketch.ok("run", "-d", "-i", "--name", "api-ws", "busybox", "cat")
    with sockets.socket(sockets.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(socket))
        raw.sendall(
            b"GET /containers/api-ws/attach/ws?stdin=1&stdout=1&stream=1 HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += raw.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # RFC 6455, 1.3
        raw.sendall(bytes([0x81, 0x80 | 3]) + b"\0\0\0\0" + b"hi\n")
        assert raw.recv(100) == bytes([0x82, 3]) + b"hi\n"
    ketch.ok("rm", "-f", "api-ws")


def test_a_crowd(ask: Ask, socket: pathlib.Path, ketch: Engine) -> None:
    def visit(number: int) -> int:
        connection = serving.Connection(socket, timeout=60)
        statuses = set()
        for target in ("/containers/json?all=1", "/images/json", "/_ping", "/nothing", "/info"):
            statuses.add(connection.ask("GET", target)[0])
        connection.close()
        return 0 if statuses == {200, 404} else number

    with concurrent.futures.ThreadPoolExecutor(200) as crowd:
        assert not any(crowd.map(visit, range(1, 201)))


def test_readers_that_do_not_read(socket: pathlib.Path, ketch: Engine, ask: Ask) -> None:
    talk = "dd if=/dev/zero bs=64k count=320 | tr '\\0' 'y' | fold -w 200; sleep 100"
    ketch.ok("run", "-d", "--name", "api-talks", "busybox", "sh", "-c", talk)
    time.sleep(2)
    pid = _server_pid(socket)
    before = _resident_kib(pid)
    with contextlib.ExitStack() as held:
        for _ in range(40):
            raw = held.enter_context(sockets.socket(sockets.AF_UNIX))
            raw.connect(str(socket))
            raw.sendall(b"GET /containers/api-talks/logs?stdout=1&follow=1 HTTP/1.1\r\n"
                        b"Host: x\r\n\r\n")  # fmt: skip
        time.sleep(2)
        assert ask("GET", "/_ping")[0] == 200
        assert _resident_kib(pid) - before < 80 << 10
    state = json.loads(ask("GET", "/containers/api-talks/json")[1])["State"]
    assert state["Running"]
    ketch.ok("rm", "-f", "api-talks")


def test_a_killed_server_leaves_its_containers_alone(ketch: Engine, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "api.sock"
    command = [*ketch.prefix]
    docker_command = Engine("docker", ["docker", "--host", f"unix://{path}"])
    with serving.served(command, path, tmp_path / "log") as server:
        docker_command.ok("run", "-d", "--name", "api-lasts", "busybox", "sleep", "100")
        attached = docker_command.start("attach", "api-lasts")
        time.sleep(0.3)
        server.kill()
        server.wait()
        attached.wait(10)
        attached.communicate()
    assert ketch.ok("exec", "api-lasts", "echo", "there") == "there"
    with serving.served(command, path, tmp_path / "log"):
        assert docker_command.ok("exec", "api-lasts", "echo", "still") == "still"
        assert docker_command.ok("rm", "-f", "api-lasts") == "api-lasts"
    assert not path.exists()


def test_a_context_of_dockers_command_line(
    socket: pathlib.Path, ketch: Engine, tmp_path: pathlib.Path
) -> None:
    command = Engine("docker", ["docker"], {"DOCKER_CONFIG": str(tmp_path)})
    command.ok("context", "create", "ketch", "--docker", f"host=unix://{socket}")
    assert "busybox" in command.ok("--context", "ketch", "images")
    command.ok("context", "use", "ketch")
    assert command.ok("run", "--rm", "busybox", "echo", "hi") == "hi"


def test_a_socket_that_systemd_hands_over(ketch: Engine, tmp_path: pathlib.Path) -> None:
    if not shutil.which("systemd-socket-activate"):
        pytest.skip("systemd-socket-activate is not installed")
    path = tmp_path / "api.sock"
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            ["systemd-socket-activate", f"--listen={path}", *ketch.prefix, "serve",
             "--idle-timeout", "1"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        serving.await_answer(path, server)
        assert server.wait(20) == 0, "it does not leave when idle"
    finally:
        server.kill()
        server.wait()
    assert b'"idle"' in (tmp_path / "log").read_bytes()


def test_units_that_systemd_accepts(ketch: Engine, tmp_path: pathlib.Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    settings = Settings(root=f"{tmp_path}/a root", state=f"{tmp_path}/state")
    for name, text in units.files(settings, ketch.prefix[0], "root").items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.glob("ketch*"))],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    about_ours = [line for line in verified.stderr.splitlines() if "ketch" in line]
    assert not about_ours, verified.stderr


def test_checkpoints_of_a_container_that_does_not_run(ketch: Engine, ask: Ask) -> None:
    ketch.ok("create", "--name", "api-saved", "busybox", "true")
    try:
        assert ask("GET", "/containers/api-saved/checkpoints") == (200, b"[]\n")
        status, body = ask("POST", "/containers/api-saved/checkpoints", b'{"CheckpointID":"one"}')
        assert (status, b"not running" in body) == (409, True)
        assert ask("POST", "/containers/api-saved/start?checkpoint=one")[0] == 404
        assert ask("DELETE", "/containers/api-saved/checkpoints/one")[0] == 404
        assert ask("GET", "/containers/nobody/checkpoints")[0] == 404
    finally:
        ketch.ok("rm", "api-saved")


@pytest.mark.root_engine("a user's socket is its own alone: rootless/test_faces.py")
def test_who_may_use_the_socket(
    socket: pathlib.Path, ketch: Engine, tmp_path: pathlib.Path
) -> None:
    assert socket.stat().st_mode & 0o777 == 0o660
    refused = ketch("serve", "--host", "tcp://127.0.0.1:0")
    assert refused.status == 1
    assert "never served to clients without certificates" in refused.err


def _server_pid(socket: pathlib.Path) -> int:
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"serve" in words and f"unix://{socket}".encode() in words:
                    return int(entry.name)
    raise AssertionError("no server")


def _resident_kib(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0])
