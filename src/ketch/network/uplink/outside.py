"""What a user's engine asks of the process that is in the machine's network, and how.

By one SOCK_SEQPACKET connection for each container, which lasts as long as the container runs: by
its end all that it was asked for is taken back. Messages and answers are words parted by NUL.

Whoever is let in hears ``hello``. ``way`` asks for the way out, and is answered ``ok ADDRESS...``
with the machine's own addresses, or ``none MESSAGE HINT`` where there is none.
``bind PROTOCOL ADDRESS PORT`` asks for a socket of the machine's, and is answered ``ok`` with it,
``none`` where the kernel does not speak the protocol, ``refused ERRNO HINT`` where it is not to be
had. ``publish PROTOCOL ADDRESS PORT``, with such a socket, has what comes to it passed on to a
container, and is not answered. ``versions`` is answered ``ok VERSION...``, the IP versions in
which the machine reaches others. ``lead DOCUMENT``, with a network namespace, has a program lead
out of it for this container alone: the document is JSON, ``mode`` and ``forwards`` as ``private``
has them; it is answered ``ok``, addresses of name servers, an empty word, and the machine's
addresses, or ``none MESSAGE HINT``. Anything else ends the conversation.
"""

import _socket
import os

from ketch.errors import UnavailableError, UnsupportedError
from ketch.linux import process
from ketch.network import ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MESSAGE_BYTES_MAX = 64 * 1024
RELAYED = ("tcp", "udp")
HELLO = b"hello"
_ANSWER_BYTES_MAX = 16 * 1024
# Longer than it takes to find out that neither of the programs comes up.
_PATIENCE_SECONDS = 30


class RefusedError(OSError):
    """The machine does not give a socket: its own error number, and what to do about it."""

    def __init__(self, number: int, hint: str) -> None:
        super().__init__(number, os.strerror(number))
        self.hint = hint


class NoWayOutError(UnavailableError):
    """There is no way out of the user's network; why, and what to do."""


class Outside:
    """Who asks.

    Args:
        connection: to the process; this object's from now on.
    """

    __slots__ = ("_awaits_way", "_connection", "_own", "_problem", "_wanted")

    def __init__(self, connection: _socket.socket) -> None:
        self._connection = connection
        self._connection.settimeout(_PATIENCE_SECONDS)
        self._awaits_way = False
        self._own: list[str] = []
        self._problem: NoWayOutError | None = None
        self._wanted = False

    def is_served(self) -> bool:
        """Wait until it is known whether this is heard by a process that is not about to end."""
        try:
            return self._connection.recv(MESSAGE_BYTES_MAX) == HELLO
        except OSError:
            return False

    @property
    def connection(self) -> _socket.socket | None:
        """What is to be held as long as the container runs; None where it needs nothing of this."""
        return self._connection if self._wanted else None

    def close(self) -> None:
        """Let go of all that was asked for, unless somebody else holds the connection as well."""
        self._connection.close()

    def ask_way(self) -> None:
        """Ask for the way out, and do not wait for the answer: see ``await_way``."""
        self._say("way")
        self._wanted = self._awaits_way = True

    def await_way(self) -> None:
        """Wait until there is a way out, where it has been asked for.

        Raises:
            NoWayOutError: there is none.
            UnavailableError: there is nobody to ask.
        """
        self._hear_of_way()
        if self._problem is not None:
            raise self._problem

    def own_addresses(self) -> list[str]:
        """The machine's addresses as a container reaches them; none where there is no way out.

        Raises:
            UnavailableError: there is nobody to ask.
        """
        self._hear_of_way()
        return self._own

    def _hear_of_way(self) -> None:
        if self._awaits_way:
            self._awaits_way = False
            (verdict, *words), _ = self._hear()
            if verdict == "ok":
                self._own = words
            else:
                message, hint = (*words, "", "")[:2]
                self._problem = NoWayOutError(message, hint)

    def bind(self, protocol: str, address: "ports.Address", port: int) -> int | None:
        """Take a port of the machine's, as ``ports.bind`` does where the machine's network is.

        Returns:
            The socket's descriptor, close-on-exec, which for TCP listens; None where the kernel
            does not speak the protocol.

        Raises:
            RefusedError: the machine does not give it.
            UnsupportedError: the protocol cannot be passed on.
            UnavailableError: there is nobody to ask.
        """
        if protocol not in RELAYED:
            raise UnsupportedError(
                f"ports of {' and '.join(RELAYED)} can be passed on here, not of {protocol}",
                "with --network host the program itself listens on the machine's addresses",
            )
        self._say("bind", protocol, str(address), str(port))
        (verdict, *words), descriptor = self._hear()
        if verdict == "refused":
            number, hint = words
            raise RefusedError(int(number), hint)
        return descriptor

    def publish(self, published: "Iterable[ports.Port]", taken: "Iterable[int]") -> None:
        """Have what comes to published ports passed on, as long as the connection is held.

        Args:
            published: the ports, and where they lead.
            taken: descriptors of sockets from ``bind``; those of other ports as well.

        Raises:
            UnavailableError: there is nobody to ask.
        """
        places = {one.place: one for one in published if not one.routed}
        for descriptor in taken:
            port = places.get(ports.place(descriptor))
            if port is not None:
                self._say("publish", port.protocol, str(port.address), str(port.port),
                          descriptor=descriptor)  # fmt: skip
                self._wanted = True

    def restore(self, published: "Sequence[ports.Port]", taken: "Sequence[int]") -> None:
        """Publish ports of a container that runs, when who has passed on what came was killed.

        Args:
            published: all of its ports.
            taken: descriptors of the sockets that are still held; the others are bound anew.

        Raises:
            RefusedError: somebody else has taken a port meanwhile.
            UnavailableError: there is nobody to ask.
        """
        held = {ports.place(one) for one in taken}
        missing = [one for one in published if not one.routed and one.place not in held]
        again = [self.bind(one.protocol, one.host_address, one.host_port) for one in missing]
        self.publish(published, [*taken, *(one for one in again if one is not None)])

    def versions(self) -> frozenset[int]:
        """The IP versions in which the machine reaches others.

        Raises:
            UnavailableError: there is nobody to ask.
        """
        self._say("versions")
        (_, *words), _ = self._hear()
        return frozenset(map(int, words))

    def lead(self, document: str, namespace: int) -> tuple[list[str], list[str]]:
        """Have a container led out by a program of its own, as long as the connection is held.

        Args:
            document: see above.
            namespace: descriptor of the container's network namespace.

        Returns:
            Addresses of name servers, and of the machine, as the container reaches them.

        Raises:
            UnavailableError: the program does not do it; why.
        """
        if len(document) > MESSAGE_BYTES_MAX // 2:
            raise UnavailableError("the network's options and ports are too many to be passed on")
        self._say("lead", document, descriptor=namespace)
        (verdict, *words), _ = self._hear()
        if verdict != "ok":
            raise UnavailableError(*(*words, "", "")[:2])
        self._wanted = True
        middle = words.index("")
        return words[:middle], words[middle + 1 :]

    def _say(self, *words: str, descriptor: int | None = None) -> None:
        rights = [] if descriptor is None else process.rights(descriptor)
        try:
            self._connection.sendmsg(["\0".join(words).encode("ascii")], rights)
        except OSError as error:
            raise _alone() from error

    def _hear(self) -> tuple[list[str], int | None]:
        try:
            data, rights, _, _ = self._connection.recvmsg(
                _ANSWER_BYTES_MAX, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise _alone() from error
        if not data:
            raise _alone()
        return data.decode("utf-8", "surrogateescape").split("\0"), process.received(rights)


def _alone() -> UnavailableError:
    return UnavailableError(
        "the process that leads out of this user's network does not answer",
        "try again: the next start begins another one",
    )


def receive(connection: _socket.socket) -> tuple[str, list[str], int | None]:
    """Take what somebody asks.

    Args:
        connection: to them; does not block.

    Returns:
        A verb and its words, and the descriptor that came with them, which is the caller's.

    Raises:
        BlockingIOError: there is nothing yet.
        OSError: they have left.
        ValueError: it is not as words are.
    """
    data, rights, _, _ = connection.recvmsg(
        MESSAGE_BYTES_MAX, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC
    )
    if not data:
        raise ConnectionResetError
    descriptor = process.received(rights)
    try:
        verb, *words = data.decode("ascii").split("\0")
    except ValueError:
        if descriptor is not None:
            os.close(descriptor)
        raise
    return verb, words, descriptor


def answer(
    connection: _socket.socket, words: "Sequence[str]", descriptor: int | None = None
) -> None:
    """Answer; a descriptor that goes with it is the other end's alone from now on.

    Raises:
        OSError: they have left, or do not listen.
    """
    data = "\0".join(words).encode("utf-8", "surrogateescape")
    try:
        rights = [] if descriptor is None else process.rights(descriptor)
        connection.sendmsg([data], rights, _socket.MSG_DONTWAIT)
    finally:
        if descriptor is not None:
            os.close(descriptor)
