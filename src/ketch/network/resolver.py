"""The process that answers for all name servers of an engine's containers.

One a state directory, started by the first container that needs it; it leaves some time after the
last one has gone. A monitor registers its container by a connection of its own and passes the name
server's sockets along; the registration lasts as long as the connection. Names are looked up anew
in the engine's database whenever that has changed, so this process can be killed and started at any
time.

What no container is called is passed on: to the host's servers from the host's network, to those
of ``--dns`` from the container's. A container whose networks lead nowhere gets no such answers, or
it could speak to anyone by way of its questions (CVE-2024-29018).
"""

import asyncio
import contextlib
import os
import resource
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from ketch.dataclass import dataclass
from ketch.linux import process
from ketch.network import dns, dns_message, nameserver
from ketch.network.forwarding import (
    SERVERS_MAX,
    UPSTREAM_PORT,
    UPSTREAM_SECONDS,
    Forward,
    Forwarder,
    socket_in,
)
from ketch.network.names import servers_in
from ketch.network.shares import Shares

# To start anew takes the processor as long as a start does that is not the first, so who starts one
# container now and then finds it again.
IDLE_SECONDS = 30.0
CONNECTIONS_MAX = 64  # of one container
_CONNECTIONS_TOTAL = 1024  # of all containers, beside what each is sure of
_CONNECTIONS_SURE = 4
_REST_SECONDS = 0.5
_CONNECTION_SECONDS = 10.0
_MESSAGE_BYTES_MAX = 65535
_VAIN_MAX = 8  # messages in a server's stream that answer nothing
_DESCRIPTORS_MAX = 5
_NAME_BYTES_MAX = 256
_DATAGRAMS_AT_ONCE = 16
_ANSWERS_MAX = 256
_KEPT_BYTES_MAX = 512


@dataclass
class Directories:
    """What the engine knows and this process asks it for at each question.

    Args:
        names: who is called what, now.
        servers: the addresses that ``--dns`` named for a container's id.
    """

    names: Callable[[], dns.Directory]
    servers: Callable[[str], Sequence[str]]


class HostServers:
    """The host's name servers, read again when its file has changed.

    Args:
        paths: resolv.conf(5) files, the first one that has servers counts.
        fallback: addresses to use where there are none.
        loopback: which address reaches servers on the host's loopback, where that is not the
            caller's; empty where it is.
    """

    __slots__ = ("_fallback", "_loopback", "_paths", "_seen", "_servers")

    def __init__(self, paths: Sequence[str], fallback: Sequence[str], loopback: str = "") -> None:
        self._paths = paths
        self._loopback = loopback
        self._fallback = list(fallback)
        self._seen: list[tuple[int, int, int]] = []
        self._servers: list[str] = []

    def __call__(self) -> list[str]:
        """Returns their addresses, in order."""
        seen = [_state_of(path) for path in self._paths]
        if seen != self._seen:
            self._seen = seen
            found = (servers_in(_text_of(path)) for path in self._paths)
            servers = next((servers for servers in found if servers), self._fallback)
            self._servers = [*dict.fromkeys(map(self._reached, servers))]
        return self._servers

    def _reached(self, server: str) -> str:
        return self._loopback if self._loopback and ip_address(server).is_loopback else server


class Registered:
    """A container with a name server.

    Args:
        container_id: its id.
        connection: from its monitor.
        namespace: descriptor of its network namespace.
        server: its sockets.
    """

    __slots__ = ("answers", "connection", "container_id", "namespace", "server", "tasks")

    def __init__(
        self,
        container_id: str,
        connection: socket.socket,
        namespace: int,
        server: nameserver.NameServer,
    ) -> None:
        self.container_id = container_id
        self.connection = connection
        self.namespace = namespace
        self.server = server
        self.tasks: set[asyncio.Task[None]] = set()
        self.answers = Answers()


class Answers:
    """What one container was told last, by what it asked, as long as that is true.

    Programs ask for the same few names again and again, and taking messages apart is most of the
    work.
    """

    __slots__ = ("_directory", "_told")

    def __init__(self) -> None:
        self._directory: dns.Directory | None = None
        self._told: dict[bytes, bytes] = {}

    def find(self, directory: dns.Directory, data: bytes) -> bytes | None:
        """Returns the answer to a message, None where it is not known.

        Args:
            directory: who is called what, now.
            data: the message, whose first two bytes are its number.
        """
        if directory is not self._directory:
            self._directory = directory
            self._told.clear()
        told = self._told.get(data[2:])
        return None if told is None else data[:2] + told

    def keep(self, data: bytes, answer: bytes) -> None:
        """Keep an answer, unless it has several records, whose order is to change, or is long."""
        records = int.from_bytes(answer[6:8], "big")
        small = len(data) <= _KEPT_BYTES_MAX  # the container says how long its questions are
        if records <= 1 and small and len(self._told) < _ANSWERS_MAX:
            self._told[data[2:]] = answer[2:]


class Resolver:
    """Serves until nobody is registered any more.

    Args:
        listener: where monitors register; SOCK_SEQPACKET, listening.
        directories: what the engine knows.
        host_servers: the host's name servers.
    """

    __slots__ = ("_connections", "_directories", "_forwarder", "_host_servers", "_idle_since",
                 "_listener", "_loop", "_registered")  # fmt: skip

    def __init__(
        self,
        listener: socket.socket,
        directories: Directories,
        host_servers: Callable[[], Sequence[str]],
    ) -> None:
        self._listener = listener
        self._directories = directories
        self._host_servers = host_servers
        self._registered: set[Registered] = set()
        self._loop: asyncio.AbstractEventLoop
        self._forwarder: Forwarder
        self._connections = Shares(_CONNECTIONS_TOTAL, CONNECTIONS_MAX, _CONNECTIONS_SURE)
        self._idle_since = time.monotonic()

    async def serve(self, idle_seconds: float = IDLE_SECONDS) -> None:
        """Answer until nobody has been registered for a while."""
        self._loop = asyncio.get_running_loop()
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._forwarder = Forwarder(self._loop, descriptors)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)
        try:
            while self._registered or time.monotonic() - self._idle_since < idle_seconds:
                await asyncio.sleep(idle_seconds / 4)
        finally:
            self._loop.remove_reader(self._listener)

    # Registrations

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has left again
            return
        connection.setblocking(False)
        _pid, user, _group = process.peer(connection)
        if user != os.getuid():
            connection.close()
            return
        self._idle_since = time.monotonic()
        self._loop.add_reader(connection, self._register, connection)

    def _register(self, connection: socket.socket) -> None:
        self._loop.remove_reader(connection)
        try:
            name, descriptors = _receive(connection)
        except OSError:
            connection.close()
            return
        if not name or not 3 <= len(descriptors) <= _DESCRIPTORS_MAX:
            for descriptor in descriptors:
                os.close(descriptor)
            connection.close()
            return
        namespace, *sockets = descriptors
        served = Registered(
            name.decode("ascii", "replace"), connection, namespace,
            nameserver.NameServer(sockets),
        )  # fmt: skip
        self._registered.add(served)
        self._loop.add_reader(connection, self._leave, served)
        self._loop.add_reader(served.server.udp, self._datagrams, served)
        self._loop.add_reader(served.server.tcp, self._connection, served)

    def _leave(self, served: Registered) -> None:
        """A monitor says nothing after its registration, so what comes is its end."""
        for reader in (served.connection, served.server.udp, served.server.tcp):
            self._loop.remove_reader(reader)
        for task in served.tasks:
            task.cancel()
        self._forwarder.forget(served)
        served.connection.close()
        served.server.close()
        os.close(served.namespace)
        self._registered.discard(served)
        self._idle_since = time.monotonic()

    # Questions

    def _datagrams(self, served: Registered) -> None:
        try:
            directory = self._directories.names()
        except Exception as error:  # noqa: BLE001 - no descriptors, no database: it may come back
            self._rest(served, error)
            return
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                # One byte more than there may be: so what is longer shows, and is no question.
                data, peer = served.server.udp.recvfrom(dns_message.BYTES_MAX + 1)
                told = served.answers.find(directory, data)
                if told is not None:
                    _send(served, told, peer)
                    continue
                query = dns.Query(data)
            except ValueError:
                continue
            except OSError:
                return
            answer = _known(directory, served, query)
            if answer is not None:
                answer = query.datagram(answer)
                served.answers.keep(data, answer)
                _send(served, answer, peer)
            else:
                self._pass_on(served, query, peer)

    def _rest(self, served: Registered, error: Exception) -> None:
        """Tell what failed, and leave a container's questions where they are for a while.

        They would be found again at once, and fail again, as fast as a processor can.
        """
        self._tell(error)
        self._loop.remove_reader(served.server.udp)

        def go_on() -> None:
            if served in self._registered:
                self._loop.add_reader(served.server.udp, self._datagrams, served)

        self._loop.call_later(_REST_SECONDS, go_on)

    def _tell(self, error: BaseException) -> None:
        """Write down what keeps a container from being answered."""
        self._loop.call_exception_handler({"message": "cannot answer", "exception": error})

    def _pass_on(self, served: Registered, query: dns.Query, peer: tuple[str, int]) -> None:
        def done(answer: bytes) -> None:
            _send(served, query.datagram(answer), peer)

        servers, namespace = self._others(served)
        if not servers or not self._forwarder.ask(Forward(served, query, servers, namespace, done)):
            done(query.failed())

    def _connection(self, served: Registered) -> None:
        try:
            connection = socket.socket(fileno=served.server.accept())
        except OSError:
            return
        if self._connections.take(served):
            self._start(served, connection)
        else:
            connection.close()

    def _start(self, served: Registered, connection: socket.socket) -> None:
        def end(task: asyncio.Task[None]) -> None:  # also of one that never began
            served.tasks.discard(task)
            self._connections.give(served)
            connection.close()
            if not task.cancelled() and (error := task.exception()):
                self._tell(error)

        task = self._loop.create_task(self._converse(served, connection))
        served.tasks.add(task)
        task.add_done_callback(end)

    async def _converse(self, served: Registered, connection: socket.socket) -> None:
        """Answer the questions that come by one connection, one after the other: RFC 7766."""
        connection.setblocking(False)
        with contextlib.suppress(OSError, TimeoutError, ValueError):  # it has left, or is silent
            while True:
                # Where there is always something to read, nothing below waits.
                await asyncio.sleep(0)
                async with asyncio.timeout(_CONNECTION_SECONDS):
                    query = dns.Query(await self._receive_framed(connection, dns_message.BYTES_MAX))
                try:
                    directory = self._directories.names()
                except Exception as error:  # noqa: BLE001 - not the other end's fault
                    self._tell(error)
                    return
                answer = _known(directory, served, query)
                if answer is None:
                    answer = await self._ask_others(served, query)
                async with asyncio.timeout(_CONNECTION_SECONDS):
                    await self._loop.sock_sendall(connection, _framed(answer))

    # Others' answers

    def _others(self, served: Registered) -> tuple[Sequence[str], int | None]:
        """Whom to ask what is no container's name, and from which network namespace."""
        if not self._directories.names().leads_out(served.container_id):
            return [], None
        own = self._directories.servers(served.container_id)
        if own:
            # Our own address would mean to ask ourselves, for ever.
            servers = [server for server in own[:SERVERS_MAX] if server != nameserver.ADDRESS]
            return servers, served.namespace
        return self._host_servers()[:SERVERS_MAX], None

    async def _ask_others(self, served: Registered, query: dns.Query) -> bytes:
        """Ask others by stream, as the asker does."""
        answer = query.failed()
        servers, namespace = self._others(served)
        for server in servers:
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                async with asyncio.timeout(UPSTREAM_SECONDS):
                    answer = await self._ask(query, server, namespace)
                if not dns.is_failure(answer):
                    break
        return answer

    async def _ask(self, query: dns.Query, server: str, namespace: int | None) -> bytes:
        """Pass a question on, from a port and under a number that nobody can foresee."""
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        number = os.urandom(2)
        with socket_in(namespace, family, socket.SOCK_STREAM) as asking:
            asking.setblocking(False)
            await self._loop.sock_connect(asking, (server, UPSTREAM_PORT))
            await self._loop.sock_sendall(asking, _framed(number + query.data[2:]))
            for _ in range(_VAIN_MAX):
                answer = await self._receive_framed(asking, _MESSAGE_BYTES_MAX)
                if dns.matches(query, number, answer):
                    return query.data[:2] + answer[2:]
        raise ValueError("a server that answers other questions")

    async def _receive_framed(self, connection: socket.socket, bytes_max: int) -> bytes:
        """One message of a stream: RFC 1035, 4.2.2."""
        length = int.from_bytes(await self._receive_exactly(connection, 2), "big")
        if length > bytes_max:
            raise ValueError(f"a message of {length} bytes")
        return await self._receive_exactly(connection, length)

    async def _receive_exactly(self, connection: socket.socket, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = await self._loop.sock_recv(connection, count - len(data))
            if not piece:
                raise ConnectionResetError("the other end has left")
            data += piece
        return bytes(data)


def _known(directory: dns.Directory, served: Registered, query: dns.Query) -> bytes | None:
    return query.refused() or query.answer(directory, served.container_id)


def _send(served: Registered, answer: bytes, peer: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):
        served.server.reply(answer, peer)


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Take one message with the descriptors that come with it, which the caller then owns."""
    name, descriptors, _flags, _address = socket.recv_fds(
        connection, _NAME_BYTES_MAX, _DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
    )
    return name, descriptors


def _state_of(path: str) -> tuple[int, int, int]:
    try:
        facts = os.stat(path)
    except OSError:
        return 0, 0, 0
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def _text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
