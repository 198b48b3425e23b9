"""Passing questions on to other name servers, by datagram, for many containers at once.

Each question has a socket of its own, so that it is asked from a port, and under a number, that
nobody can foresee. Whoever asks decides how many there are, and servers may be silent or lie; so
there is a bound to what waits, per asker and for all, and to what a server may say in vain. Nothing
here runs for long at a time: what many need is done a few at a time, others' turns in between.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence

from ketch.linux import namespaces
from ketch.network import dns
from ketch.network.shares import Shares

UPSTREAM_SECONDS = 4.0  # Docker's
UPSTREAM_PORT = 53
SERVERS_MAX = 3  # resolv.conf(5)

OPEN_MAX = 1024  # of one container; Docker's
WAITING_MAX = 256  # of one container, beyond those
_OPEN_TOTAL = 4096  # of all containers, beside what each is sure of
_OPEN_SURE = 32
_MESSAGE_BYTES_MAX = 65535
_AT_ONCE = 4  # datagrams of one server, before it is somebody else's turn
_VAIN_MAX = 32  # datagrams of one server that answer nothing
_EXPIRED_AT_ONCE = 32
_LOOK_SECONDS = 0.25

Done = Callable[[bytes], None]


class Forward:
    """A question on its way.

    Args:
        asker: whose it is.
        query: what is asked.
        servers: addresses, to be asked one after the other.
        namespace: descriptor of the network namespace to ask from, None for this process's own.
        done: takes the answer, once.
    """

    __slots__ = ("answer", "asker", "done", "due", "namespace", "number", "query", "servers",
                 "socket", "vain")  # fmt: skip

    def __init__(
        self, asker: Hashable, query: dns.Query, servers: Sequence[str], namespace: int | None,
        done: Done,
    ) -> None:  # fmt: skip
        self.asker = asker
        self.query = query
        self.servers = deque(servers)
        self.namespace = namespace
        self.done = done
        self.due = 0.0
        self.number = b""
        self.vain = 0
        self.socket: socket.socket | None = None
        self.answer: bytes | None = None  # of a server that could not tell


class Forwarder:
    """Passes questions on, and sees that each gets an answer in time.

    Args:
        loop: where it works.
        descriptors: how many files this process may have open; less than nothing for no limit.
    """

    __slots__ = ("_due", "_loop", "_shares", "_timer", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptors: int) -> None:
        self._loop = loop
        total = _OPEN_TOTAL if descriptors < 0 else min(_OPEN_TOTAL, descriptors // 2)
        self._shares = Shares(total, OPEN_MAX, _OPEN_SURE)
        self._waiting: dict[Hashable, deque[Forward]] = {}
        self._due: OrderedDict[Forward, None] = OrderedDict()  # all have the same patience
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None

    def ask(self, forward: Forward) -> bool:
        """Pass a question on, now or when one of the asker's others has been answered.

        Returns:
            Whether it will be answered; not where too many of the asker's wait.
        """
        if self._shares.take(forward.asker):
            self._next(forward)
            return True
        waiting = self._waiting.setdefault(forward.asker, deque())
        if len(waiting) >= WAITING_MAX:
            return False
        waiting.append(forward)
        self._watch(forward)
        return True

    def forget(self, asker: Hashable) -> None:
        """Drop what an asker has asked; it has gone."""
        self._waiting.pop(asker, None)
        for forward in [one for one in self._due if one.asker == asker]:
            del self._due[forward]
            if forward.socket is not None:
                self._close(forward)
                self._shares.give(asker)

    def _next(self, forward: Forward) -> None:
        """Ask the next server, or give the answer that there is."""
        while forward.servers:
            server = forward.servers.popleft()
            with contextlib.suppress(OSError):
                self._send(forward, server)
                self._watch(forward)
                return
        self._finish(forward, forward.answer or forward.query.failed())

    def _send(self, forward: Forward, server: str) -> None:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        forward.number = os.urandom(2)
        forward.vain = 0
        asking = socket_in(forward.namespace, family, socket.SOCK_DGRAM)
        try:
            asking.setblocking(False)
            asking.connect((server, UPSTREAM_PORT))
            asking.send(forward.number + forward.query.data[2:])
        except BaseException:
            asking.close()
            raise
        forward.socket = asking
        self._loop.add_reader(asking, self._hear, forward)

    def _hear(self, forward: Forward) -> None:
        asking = forward.socket
        assert asking is not None
        for _ in range(_AT_ONCE):
            try:
                said = asking.recv(_MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:  # nobody listens there
                self._give_up(forward)
                return
            if dns.matches(forward.query, forward.number, said):
                self._take(forward, forward.query.data[:2] + said[2:])
                return
            forward.vain += 1
            if forward.vain >= _VAIN_MAX:
                self._give_up(forward)
                return

    def _take(self, forward: Forward, answer: bytes) -> None:
        if not dns.is_failure(answer):
            self._close(forward)
            self._finish(forward, answer)
            return
        forward.answer = answer
        self._give_up(forward)

    def _give_up(self, forward: Forward) -> None:
        """Expect nothing more of the server that was asked last."""
        self._close(forward)
        self._next(forward)

    def _close(self, forward: Forward) -> None:
        asking, forward.socket = forward.socket, None
        if asking is not None:
            self._loop.remove_reader(asking)
            asking.close()

    def _finish(self, forward: Forward, answer: bytes) -> None:
        self._due.pop(forward, None)
        self._shares.give(forward.asker)
        waiting = self._waiting.get(forward.asker)
        # Not now: where servers refuse at once, that would go on and on.
        if waiting:
            self._loop.call_soon(self._admit, forward.asker)
        forward.done(answer)

    def _admit(self, asker: Hashable) -> None:
        waiting = self._waiting.get(asker)
        if waiting and self._shares.take(asker):
            forward = waiting.popleft()
            self._due.pop(forward, None)
            self._next(forward)
        if not waiting:
            self._waiting.pop(asker, None)

    # Patience

    def _watch(self, forward: Forward) -> None:
        """See that a question does not wait for ever, for its turn or for its server."""
        self._due.pop(forward, None)
        self._due[forward] = None
        forward.due = time.monotonic() + UPSTREAM_SECONDS
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        first = list(itertools.islice(self._due, _EXPIRED_AT_ONCE))
        expired = [forward for forward in first if forward.due <= now]
        for forward in expired:
            del self._due[forward]
            if forward.socket is not None:
                self._give_up(forward)
                continue
            with contextlib.suppress(KeyError, ValueError):
                self._waiting[forward.asker].remove(forward)
            forward.done(forward.query.failed())
        self._timer = None
        if len(expired) == _EXPIRED_AT_ONCE:
            self._timer = self._loop.call_soon(self._look)
        elif self._due:
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)


def socket_in(namespace: int | None, family: int, kind: int) -> socket.socket:
    """A socket of a network namespace, or of this process's own where that is None."""
    if namespace is None:
        return socket.socket(family, kind)
    with namespaces.network_entered(namespace):
        return socket.socket(family, kind)
