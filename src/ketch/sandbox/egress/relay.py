"""The relay: what a sandbox with rules reaches, it reaches by this, a process outside of it.

All that the sandbox sends to whatever address arrives here (``steering``): questions for names are
answered, datagrams lead nowhere, and of a connection is found out whom it means and whether it may
(``passage``), before it is made anew from the machine's network (``reaching``) and passed on. A
thread for each connection, of which there are few; what they wait for is the kernel.
"""

import contextlib
import resource
import threading
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ketch.sandbox.egress import names, policy
from ketch.sandbox.egress.passage import Passage
from ketch.sandbox.egress.reaching import Network, place
from ketch.sandbox.egress.record import Record

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence

    from ketch.sandbox.egress.policy import Address, Policy, Rule
    from ketch.sandbox.egress.steering import Sockets
    from ketch.sandbox.egress.tls import Vaults

CONNECTIONS_MAX = 256
_NEW_MAX = 4000  # connections a second
_DATAGRAM_BYTES_MAX = 65535
_STACK_BYTES = 512 << 10
_SOL_IP, _RECVORIGDSTADDR = 0, 20
_SOL_IPV6, _IPV6_RECVORIGDSTADDR = 41, 74


class Relay:
    """Serves one sandbox.

    Args:
        sockets: made in its network namespace.
        allowed: what it may reach.
        servers: tells which name servers to ask.
        vaults: what it uses without having it, if there is anything.
    """

    def __init__(
        self,
        sockets: "Sockets",
        allowed: "Policy",
        servers: "Callable[[], Sequence[str]]",
        vaults: "Vaults | None" = None,
    ) -> None:
        self.policy = allowed
        self.vaults = vaults
        self.record = Record()
        self._sockets = sockets
        self._names = names.Names()
        self.network = Network(servers)
        self._lock = threading.Lock()
        self._open: dict[Passage, None] = {}

    def start(self) -> None:
        """Serve, in threads."""
        threading.stack_size(_STACK_BYTES)
        for work in (self._accept, self._discard, self._answer, self._answer_streams):
            threading.Thread(target=work, daemon=True).start()

    def change(self, rules: "Iterable[Rule]") -> None:
        """Have other rules from now on; what they do not allow any more ends."""
        self.policy = policy.Policy(rules)
        with self._lock:
            passages = list(self._open)
        for passage in passages:
            passage.recheck(self.policy)

    # Names

    def _answer(self) -> None:
        asked = self._sockets.names
        while True:
            with contextlib.suppress(OSError):
                data, peer = asked.recvfrom(_DATAGRAM_BYTES_MAX)
                told = names.answer(data, self._names, self.policy.knows, self.record)
                if told is not None:
                    asked.sendto(told, peer)

    def _answer_streams(self) -> None:
        """Questions by TCP, one connection at a time, briefly: nobody needs them."""
        while True:
            with contextlib.suppress(OSError):
                connection, _ = self._sockets.name_streams.accept()
                with connection:
                    connection.settimeout(1.0)
                    data = _exactly(connection, int.from_bytes(_exactly(connection, 2), "big"))
                    told = names.answer(data, self._names, self.policy.knows, self.record)
                    if told is not None:
                        connection.sendall(len(told).to_bytes(2, "big") + told)

    # Datagrams

    def _discard(self) -> None:
        """Datagrams lead nowhere, QUIC's among them; that they were sent is told."""
        while True:
            with contextlib.suppress(OSError):
                _, about, _, _ = self._sockets.datagrams.recvmsg(1, 256)
                self.record.refuse("udp", "", _destination(about), "datagrams are not passed on")
                time.sleep(0.001)  # who floods fills its own queue

    # Connections

    def _accept(self) -> None:
        second, count = 0, 0
        while True:
            try:
                client, _ = self._sockets.streams.accept()
            except OSError:
                time.sleep(0.05)  # no descriptors: some come back
                continue
            count = count + 1 if second == int(time.monotonic()) else 0
            second = int(time.monotonic())
            if count >= _NEW_MAX:
                time.sleep(0.05)
            passage = Passage(self, client)
            with self._lock:
                full = len(self._open) >= CONNECTIONS_MAX
                if not full:
                    self._open[passage] = None
            if full:
                passage.refuse("too many connections at once")
                continue
            try:
                threading.Thread(target=self._serve, args=(passage,), daemon=True).start()
            except RuntimeError:  # no threads
                self._forget(passage)
                passage.refuse("too many connections at once")

    def _serve(self, passage: "Passage") -> None:
        try:
            passage.serve()
        finally:
            self._forget(passage)

    def _forget(self, passage: "Passage") -> None:
        with self._lock:
            self._open.pop(passage, None)

    # What a passage asks

    def named(self, address: "Address") -> str | None:
        """Returns which name seems to be at an address."""
        return self._names.name(address)


def _exactly(connection: "socket.socket", count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise OSError("cut off")
        data += piece
    return data


def _destination(about: "Iterable[tuple[int, int, bytes]]") -> str:
    """Where a datagram was to go."""
    for level, kind, data in about:
        port = int.from_bytes(data[2:4], "big")
        if (level, kind) == (_SOL_IP, _RECVORIGDSTADDR):
            return place(ip_address(data[4:8]), port)
        if (level, kind) == (_SOL_IPV6, _IPV6_RECVORIGDSTADDR):
            return place(policy.unmapped(ip_address(data[8:24])), port)
    return ""


def allow_many() -> None:
    """Let this process have the descriptors that so many connections need."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX * 8 + 64
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
