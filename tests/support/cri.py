"""A node's containerd as a kubelet sees it: CRI by gRPC, its streams by WebSocket.

Streams carry numbered channels, each message's first byte: ``v4.channel.k8s.io``, of Kubernetes'
apimachinery, pkg/util/httpstream/wsstream.
"""

import asyncio
import contextlib
import json
import pathlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from typing import Any
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto import events as told

from ketch.api.buildkit import grpc, schema
from ketch.api.buildkit.http2 import Connection
from ketch.api.http import RawStream
from ketch.linux import namespaces
from tests.support import containerd, peers
from tests.support.commands import Engine

PAUSE = "docker.io/library/pause:latest"
PLUGINS = "/usr/lib/cni"
"""Where Debian's containernetworking-plugins has CNI's."""

words = schema.compiled(pathlib.Path(__file__).with_name("cri.proto").read_text(encoding="utf-8"))

_CALL_SECONDS = 60.0
_STREAM_SECONDS = 20.0
_CONFIGURATION = """version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "{directory}/s"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
stream_server_address = "127.0.0.1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{directory}/net"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
"""
_RUNTIME = """[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
BinaryName = "{path}"
"""
_NETWORK = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.88.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}


class Mode(IntEnum):
    """Whose namespace a container is in."""

    POD = 0
    CONTAINER = 1
    NODE = 2
    TARGET = 3


class State(IntEnum):
    """What a container does."""

    CREATED = 0
    RUNNING = 1
    EXITED = 2
    UNKNOWN = 3


class Node:
    """A containerd with CRI.

    Args:
        ctr: the command that speaks to it.
        address: its socket.
        enter: the command prefix that enters where it runs.
        start_anew: what stops it and starts it again.

    Attributes:
        ctr: as given.
        enter: as given.
    """

    def __init__(
        self, ctr: Engine, address: str, enter: Sequence[str], start_anew: Callable[[], None]
    ) -> None:
        self.ctr = ctr
        self.enter = enter
        self._start_anew = start_anew
        self._address = address

    def start_anew(self) -> None:
        """Stop containerd and start it again; return when CRI, its last part, is ready."""
        self._start_anew()
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(grpc.StatusError):
                self("ListPodSandbox")
                return
            assert time.monotonic() < deadline, "CRI is not ready"
            time.sleep(0.1)

    def __call__(self, method: str, /, **fields: Any) -> Any:
        """Call a method of CRI's; return its answer.

        Args:
            method: its name.
            fields: of the request, messages as mappings.

        Raises:
            StatusError: it was refused.
        """
        request = getattr(words, f"{method}Request")(**fields)
        return asyncio.run(self._ask(method, request))

    async def _ask(self, method: str, request: Any) -> Any:
        reader, writer = await asyncio.open_unix_connection(self._address)
        connection = Connection(RawStream(reader, writer, b""), client=True)
        carrying = asyncio.ensure_future(connection.run())
        service = "ImageService" if "Image" in method else "RuntimeService"
        answer = getattr(words, f"{method}Response")
        try:
            path = f"/runtime.v1.{service}/{method}"
            return await grpc.ask(connection, path, request, answer, _CALL_SECONDS)
        finally:
            connection.stop("it has answered")
            await carrying
            writer.close()

    def stream(self, url: str, query: str = "") -> "Stream":
        """Take up a stream that a call of CRI's has given the address of."""
        where = urlsplit(url)
        return Stream(self.connected(str(where.hostname), where.port or 80), where.path + query)

    def program(self, *words: str) -> str:
        """Run a program on the node; return what it printed."""
        done = subprocess.run([*self.enter, *words], check=True, capture_output=True, text=True)
        return done.stdout

    def connected(self, host: str, port: int) -> socket.socket:
        """Return a connection of the node's to one of its addresses."""

        def connect() -> socket.socket:
            with open(f"/proc/{self.enter[2]}/ns/net", "rb") as network:
                namespaces.setns(network.fileno())
            return socket.create_connection((host, port), _STREAM_SECONDS)

        # A thread of its own, which is in the node's network as long as it lives.
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(connect).result()


class Stream:
    """A WebSocket's numbered channels.

    Args:
        connection: to the server.
        target: what is asked for there.
    """

    STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)

    def __init__(self, connection: socket.socket, target: str) -> None:
        self._connection = connection
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: list[Any] = []
        self._pieces = b""
        self._over = False
        self.kept: dict[int, bytes] = {}
        asked = told.Request(host="node", target=target, subprotocols=["v4.channel.k8s.io"])
        self._connection.sendall(self._protocol.send(asked))
        event = self._next()
        assert isinstance(event, told.AcceptConnection), event

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, channel: int, data: bytes) -> None:
        """Send a message."""
        self._connection.sendall(self._protocol.send(told.BytesMessage(bytes([channel]) + data)))

    def resize(self, rows: int, columns: int) -> None:
        """Say how large the terminal is."""
        self.send(self.RESIZE, json.dumps({"Width": columns, "Height": rows}).encode())

    def until(self, channel: int, text: bytes) -> bytes:
        """Read until a channel has said something; return all that it has said."""
        while text not in self.kept.get(channel, b""):
            assert self._read(), f"it ended: {self.kept}"
        return self.kept[channel]

    def rest(self, channel: int = STDOUT) -> bytes:
        """Read to the end; return all that a channel has said."""
        while self._read():
            pass
        return self.kept.get(channel, b"")

    def status(self) -> int:
        """Read to the end; return the exit status that is told there."""
        told_last = json.loads(self.rest(self.ERROR))
        if told_last["status"] == "Success":
            return 0
        assert told_last["reason"] == "NonZeroExitCode", told_last
        (cause,) = told_last["details"]["causes"]
        return int(cause["message"])

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def _read(self) -> bool:
        event = self._next()
        if isinstance(event, told.BytesMessage):
            self._pieces += event.data
            if event.message_finished:
                channel, said = self._pieces[0], self._pieces[1:]
                self.kept[channel] = self.kept.get(channel, b"") + said
                self._pieces = b""
        elif isinstance(event, told.CloseConnection):
            return False
        return event is not None

    def _next(self) -> Any:
        while not self._events:
            if self._over:
                return None
            data = self._connection.recv(65536)
            self._over = not data
            self._protocol.receive_data(data or None)
            self._events += self._protocol.events()
        return self._events.pop(0)


class Pod:
    """A pod.

    Args:
        node: where.
        config: what it was asked for as.
        handler: the runtime's name.
    """

    def __init__(self, node: Node, config: Mapping[str, Any], handler: str) -> None:
        self._node = node
        self._config = config
        self._count = 0
        self.id = node("RunPodSandbox", config=config, runtime_handler=handler).pod_sandbox_id

    @property
    def status(self) -> Any:
        """What it is."""
        return self._node("PodSandboxStatus", pod_sandbox_id=self.id).status

    def create(
        self,
        *command: str,
        security: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """Create a container; return its id.

        Args:
            command: its program and arguments.
            security: its security context.
            resources: its limits.
            fields: what else it is asked for as.
        """
        self._count += 1
        name = f"c{self._count}"
        config = {
            "metadata": {"name": name},
            "image": {"image": containerd.IMAGE},
            "command": command,
            "log_path": f"{name}.log",
            "linux": {
                "resources": resources or {},
                "security_context": {
                    "namespace_options": self.namespaces(),
                    **(security or {}),
                },
            },
            **fields,
        }
        return str(
            self._node(
                "CreateContainer", pod_sandbox_id=self.id, config=config,
                sandbox_config=self._config,
            ).container_id
        )  # fmt: skip

    def run(self, *command: str, **fields: Any) -> str:
        """Create a container and start it; return its id."""
        created = self.create(*command, **fields)
        self._node("StartContainer", container_id=created)
        return created

    def namespaces(self, **others: Any) -> dict[str, Any]:
        """Return the namespaces of its containers, which the pod's are unless told otherwise."""
        own = self._config["linux"]["security_context"]["namespace_options"]
        return {**own, **others}

    def remove(self) -> None:
        """Take it away."""
        self._node("StopPodSandbox", pod_sandbox_id=self.id)
        self._node("RemovePodSandbox", pod_sandbox_id=self.id)


@contextlib.contextmanager
def node(directory: pathlib.Path, runtimes: Mapping[str, str]) -> Iterator[Node]:
    """Start a containerd with CRI, and images of busybox and of a pause.

    Args:
        directory: where all it stores is.
        runtimes: paths of OCI runtimes, by the names of their handlers.
    """
    configuration = _CONFIGURATION.format(directory=directory, pause=PAUSE, plugins=PLUGINS)
    for name, path in runtimes.items():
        configuration += _RUNTIME.format(name=name, path=peers.runtime_inside(path))
    networks = directory / "net"
    networks.mkdir()
    (networks / "pods.conflist").write_text(json.dumps(_NETWORK), encoding="utf-8")
    pause = directory / "pause.tar"
    containerd.write_image(pause, PAUSE, ["sleep", "2147483647"])
    with containerd.running(directory, configuration, "k8s.io", "overlayfs") as (
        ctr,
        enter,
        start_anew,
    ):
        ctr.ok("image", "import", "--snapshotter", "overlayfs", str(pause))
        made = Node(ctr, f"{directory}/s", enter, start_anew)
        deadline = time.monotonic() + 20
        for image in (PAUSE, containerd.IMAGE):  # CRI hears of them by an event
            while not made("ImageStatus", image={"image": image}).image.id:
                assert time.monotonic() < deadline, image
                time.sleep(0.1)
        yield made
