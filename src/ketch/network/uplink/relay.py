"""The way into a user's network: what comes to published ports is passed on to their containers.

A process of its own, forked by ``service``, in the user's network, so that what it opens is there;
the sockets at which it is asked are the machine's, and handed to it. It is told ``add KEY PROTOCOL
ADDRESS PORT`` with such a socket, and ``drop KEY``, whereupon all that came by it ends, and it
says ``dropped``.

Streams go through pipes in the kernel (splice(2)), which a connection has only while something is
on its way. Who may have how many is bounded, each container's share apart: a stream that cannot be
had waits in its socket's queue, and the oldest flow of datagrams gives way to the next one.
"""

import errno
import os
import resource
import select
import socket
import struct
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress

from ketch.network.shares import Shares
from ketch.network.uplink.origins import Origins

MESSAGE_BYTES_MAX = 256
_DESCRIPTORS_MAX = 65536
_DESCRIPTORS_SPARE = 256
_DESCRIPTORS_EACH = 6  # of a connection: two sockets, and two pipes at worst
_SURE = 16  # connections that a container gets whatever the others have
_PIPE_BYTES = 64 * 1024
_PIPES_KEPT = 64
_AT_ONCE = 64
_BUDGET_BYTES = 1024 * 1024  # after which a connection lets others have a turn
_DATAGRAM_BYTES_MAX = 65535
_FLOWS_MAX = 1024  # of one published port
# As netfilter's conntrack has it for UDP: without an answer, and with one.
_UNANSWERED_SECONDS = 30
_ANSWERED_SECONDS = 120
_SWEEP_SECONDS = 5
_SPLICE_FLAGS = 1 | 2  # SPLICE_F_MOVE, SPLICE_F_NONBLOCK
_EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed is reset
# linux/in.h, linux/in6.h; Python has them since 3.12 or not at all.
_IP_PKTINFO = 8
_IPV6_RECVPKTINFO, _IPV6_PKTINFO = 49, 50
_PKTINFO = struct.Struct("=i4s4s")
_PKTINFO_6 = struct.Struct("=16si")

Place = tuple[str, int]


class Relay:
    """All published ports of an engine.

    Args:
        channel: from the service, SOCK_SEQPACKET.
        origins: makes the sockets by which containers are asked.
    """

    def __init__(self, channel: socket.socket, origins: Origins) -> None:
        self._channel = channel
        self.origins = origins
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = min(hard, _DESCRIPTORS_MAX) if hard != resource.RLIM_INFINITY else _DESCRIPTORS_MAX
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
        total = max(1, (most - _DESCRIPTORS_SPARE) // _DESCRIPTORS_EACH)
        self.shares = Shares(total, max(_SURE, total // 2), _SURE)
        self.pipes = Pipes()
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._ports: dict[str, list[Listener | Datagrams]] = {}
        self._paused: deque[Listener] = deque()
        self._ready: dict[Connection, None] = {}  # those with more to do, in turns
        self._swept_at = time.monotonic()
        self.watch(channel, select.EPOLLIN, self._told)

    def serve(self) -> None:
        """Pass on until the service has gone."""
        while self._channel.fileno() >= 0:
            timeout = 0 if self._ready else _SWEEP_SECONDS
            for descriptor, events in self._epoll.poll(timeout):
                handler = self._handlers.get(descriptor)
                if handler is not None:  # else it went by what came before
                    handler(events)
            for connection in list(self._ready):
                self._ready.pop(connection, None)
                connection.pump()
            if time.monotonic() - self._swept_at > _SWEEP_SECONDS:
                self._swept_at = time.monotonic()
                self._resume()
                for port in [port for ports in self._ports.values() for port in ports]:
                    port.sweep(self._swept_at)

    # What the parts ask of the whole

    def watch(self, what: socket.socket, events: int, handler: Callable[[int], None]) -> None:
        """Have a handler called for what happens to a socket."""
        self._handlers[what.fileno()] = handler
        self._epoll.register(what, events)

    def forget(self, what: socket.socket) -> None:
        """Undo that."""
        if self._handlers.pop(what.fileno(), None) is not None:
            self._epoll.unregister(what)

    def again(self, connection: "Connection") -> None:
        """Let a connection go on when others had a turn."""
        self._ready[connection] = None

    def pause(self, listener: "Listener") -> None:
        """Take nobody in until somebody has gone."""
        self.forget(listener.socket)
        self._paused.append(listener)

    def ended(self, connection: "Connection") -> None:
        """Hear that a connection has ended."""
        self._ready.pop(connection, None)
        self.shares.give(connection.key)
        self._resume()

    def _resume(self) -> None:
        if self._paused:
            self._paused.popleft().resume()

    # What the service says

    def _told(self, _events: int) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES_MAX, 1)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self.forget(self._channel)
            self._channel.close()
            return
        verb, key, *words = data.decode("ascii").split("\0")
        if verb == "drop":
            for port in self._ports.pop(key, ()):
                with suppress(ValueError):
                    self._paused.remove(port)  # type: ignore[arg-type]
                port.close()
            self._channel.send(b"dropped")
            return
        (descriptor,) = descriptors
        os.set_inheritable(descriptor, False)
        protocol, address, number = words
        outer = socket.socket(fileno=descriptor)
        outer.setblocking(False)
        kind = Listener if protocol == "tcp" else Datagrams
        self._ports.setdefault(key, []).append(kind(self, key, outer, (address, int(number))))


class Pipes:
    """Pipes that are in nobody's use: to make one takes longer than to pass something on by it."""

    def __init__(self) -> None:
        self._idle: list[tuple[int, int]] = []

    def take(self) -> tuple[int, int]:
        """Returns an empty one, its ends for reading and for writing."""
        return self._idle.pop() if self._idle else os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def give(self, pipe: tuple[int, int], *, empty: bool) -> None:
        """Take one back."""
        if empty and len(self._idle) < _PIPES_KEPT:
            self._idle.append(pipe)
            return
        for descriptor in pipe:
            os.close(descriptor)


class Listener:
    """A published port of streams.

    Args:
        relay: whose it is.
        key: whose share its connections are of.
        outer: listens in the machine's network.
        target: the container's address and port.
    """

    def __init__(self, relay: Relay, key: str, outer: socket.socket, target: Place) -> None:
        self._relay = relay
        self._key = key
        self._target = target
        self._connections: set[Connection] = set()
        self.socket = outer
        self.resume()

    def resume(self) -> None:
        """Take in who comes."""
        self._relay.watch(self.socket, select.EPOLLIN, self._accept)

    def close(self) -> None:
        """End it, and all that came by it."""
        self._relay.forget(self.socket)
        self.socket.close()
        for connection in list(self._connections):
            connection.abort()

    def sweep(self, now: float) -> None:
        """Streams end by themselves: keepalive finds out about others' ends."""

    def _accept(self, _events: int) -> None:
        for _ in range(_AT_ONCE):
            if not self._relay.shares.take(self._key):
                self._relay.pause(self)
                return
            try:
                client, place = self.socket.accept()
            except BlockingIOError:
                self._relay.shares.give(self._key)
                return
            except OSError as error:
                self._relay.shares.give(self._key)
                if error.errno == errno.ECONNABORTED:  # it has left again
                    continue
                self._relay.pause(self)  # there are no descriptors, or no memory
                return
            connection = Connection(self._relay, self._key, client, self._connections)
            connection.open(place, self._target)


class Connection:
    """A stream from outside and the one that it is passed on by.

    Args:
        relay: whose it is.
        key: whose share it is of.
        client: from outside.
        among: the connections of its port, which it is in until it ends.
    """

    def __init__(
        self, relay: Relay, key: str, client: socket.socket, among: "set[Connection]"
    ) -> None:
        self._relay = relay
        self._among = among
        self._sockets = [client]
        self._directions: list[Direction] = []
        self.key = key
        among.add(self)

    def open(self, place: tuple[object, ...], target: Place) -> None:
        """Connect to the container, as the client at a place."""
        (client,) = self._sockets
        try:
            client.setblocking(False)
            inner = self._relay.origins.connect(socket.SOCK_STREAM, place, target)
            self._sockets.append(inner)
            for one in self._sockets:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._relay.watch(inner, _EDGES, self._connected)
        except OSError:
            self.abort()

    def _connected(self, _events: int) -> None:
        client, inner = self._sockets
        if inner.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort()
            return
        self._directions = [Direction(client, inner), Direction(inner, client)]
        self._relay.forget(inner)
        for one in self._sockets:
            self._relay.watch(one, _EDGES, lambda _: self.pump())
        self.pump()

    def pump(self) -> None:
        """Pass on what there is, in both directions."""
        try:
            more = [one.pump(self._relay.pipes) for one in self._directions]
        except OSError:
            self.abort()
            return
        if all(one.is_over for one in self._directions):
            self._end()
        elif any(more):
            self._relay.again(self)

    def abort(self) -> None:
        """End it so that both sides know that something is missing."""
        for one in self._sockets:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self._end()

    def _end(self) -> None:
        if self not in self._among:
            return
        self._among.remove(self)
        for direction in self._directions:
            direction.close(self._relay.pipes)
        for one in self._sockets:
            self._relay.forget(one)
            one.close()
        self._relay.ended(self)


class Direction:
    """One direction of a connection.

    Attributes:
        is_over: whether its end has been passed on as well.
    """

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._source, self._target = source, target
        self._pipe: tuple[int, int] | None = None
        self._held = 0  # bytes in the pipe
        self._at_end = False
        self.is_over = False

    def pump(self, pipes: Pipes) -> bool:
        """Pass on what there is; returns whether there may be more at once.

        Raises:
            OSError: one of the sides has gone.
        """
        budget = _BUDGET_BYTES
        while budget > 0 and not self.is_over:
            if self._pipe is None:
                self._pipe = pipes.take()
            reader, writer = self._pipe
            try:
                if not self._held and not self._at_end:
                    self._held = os.splice(
                        self._source.fileno(), writer, _PIPE_BYTES, flags=_SPLICE_FLAGS
                    )
                    self._at_end = not self._held
                if self._held:
                    passed = os.splice(
                        reader, self._target.fileno(), self._held, flags=_SPLICE_FLAGS
                    )
                    self._held -= passed
                    budget -= passed
            except BlockingIOError:
                break
            if self._at_end and not self._held:
                self._target.shutdown(socket.SHUT_WR)
                self.is_over = True
        if not self._held:
            self.close(pipes)
        return budget <= 0

    def close(self, pipes: Pipes) -> None:
        """Give the pipe back."""
        if self._pipe is not None:
            pipes.give(self._pipe, empty=not self._held)
            self._pipe = None


class Datagrams:
    """A published port of datagrams.

    Args:
        relay: whose it is.
        key: whose it is of; its flows have a bound of their own.
        outer: bound in the machine's network.
        target: the container's address and port.
    """

    def __init__(self, relay: Relay, key: str, outer: socket.socket, target: Place) -> None:
        self._relay = relay
        self._key = key
        self._target = target
        self._outer = outer
        self._flows: OrderedDict[tuple[object, bytes], Flow] = OrderedDict()
        if outer.family == socket.AF_INET:
            outer.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        else:
            outer.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        relay.watch(outer, select.EPOLLIN, self._receive)

    def close(self) -> None:
        """End it, and all flows."""
        self._relay.forget(self._outer)
        self._outer.close()
        for flow in list(self._flows.values()):
            self._end(flow)

    def sweep(self, now: float) -> None:
        """End the flows by which nothing has gone for a while."""
        for flow in [one for one in self._flows.values() if one.until < now]:
            self._end(flow)

    def _receive(self, _events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                said, about, _, client = self._outer.recvmsg(_DATAGRAM_BYTES_MAX, 64)
            except OSError:  # nothing more, or an earlier answer did not arrive
                return
            back = _back(about)
            flow = self._flows.get((client, back))
            if flow is None:
                flow = self._begin(client, back)
            if flow is not None:
                self._flows.move_to_end((client, back))
                flow.touch()
                with suppress(OSError):  # the container's queue is full, or nobody listens
                    flow.inner.send(said)

    def _begin(self, client: tuple[object, ...], back: bytes) -> "Flow | None":
        if len(self._flows) >= _FLOWS_MAX or not self._relay.shares.take(self._key):
            if not self._flows:
                return None
            self._end(next(iter(self._flows.values())))
            if not self._relay.shares.take(self._key):
                return None
        try:
            inner = self._relay.origins.connect(socket.SOCK_DGRAM, client, self._target)
        except OSError:
            self._relay.shares.give(self._key)
            return None
        flow = self._flows[client, back] = Flow(inner, client, back)
        try:
            self._relay.watch(inner, select.EPOLLIN, lambda _: self._answer(flow))
        except OSError:
            self._end(flow)
            return None
        return flow

    def _answer(self, flow: "Flow") -> None:
        for _ in range(_AT_ONCE):
            try:
                said = flow.inner.recv(_DATAGRAM_BYTES_MAX)
            except OSError:  # nothing more, or nobody listens
                return
            flow.answered = True
            flow.touch()
            self._send(said, flow)

    def _send(self, said: bytes, flow: "Flow") -> None:
        about = []
        if flow.back:
            kind = (
                (socket.IPPROTO_IP, _IP_PKTINFO)
                if self._outer.family == socket.AF_INET
                else (socket.IPPROTO_IPV6, _IPV6_PKTINFO)
            )
            about = [(*kind, flow.back)]
        with suppress(OSError):
            self._outer.sendmsg([said], about, 0, flow.client)  # type: ignore[arg-type]

    def _end(self, flow: "Flow") -> None:
        del self._flows[flow.client, flow.back]
        self._relay.forget(flow.inner)
        flow.inner.close()
        self._relay.shares.give(self._key)


class Flow:
    """The datagrams of one client, to one of the machine's addresses.

    Args:
        inner: connected to the container.
        client: where answers go.
        back: as control data, from which address they go there.
    """

    def __init__(self, inner: socket.socket, client: object, back: bytes) -> None:
        self.inner = inner
        self.client = client
        self.back = back
        self.answered = False
        self.until = 0.0

    def touch(self) -> None:
        """Something goes by it."""
        patience = _ANSWERED_SECONDS if self.answered else _UNANSWERED_SECONDS
        self.until = time.monotonic() + patience


def _back(about: list[tuple[int, int, bytes]]) -> bytes:
    """By what control data an answer comes from where a datagram was sent to: ip(7), ipv6(7)."""
    for level, kind, data in about:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            _, local, sent_to = _PKTINFO.unpack(data)
            # Of what came before the socket was asked to say it, the header alone is known.
            return _PKTINFO.pack(0, local if any(local) else sent_to, bytes(4))
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            address, link = _PKTINFO_6.unpack(data)
            is_link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80
            return _PKTINFO_6.pack(address, link if is_link_local else 0)
    return b""
