"""What a user's engine asks of the process that is in the machine's network, and how.

By one SOCK_SEQPACKET connection for each container, which lasts as long as the container runs: by
its end all that it was asked for is taken back. Messages and answers are words parted by NUL.

``way`` asks for the way out, and is answered ``ok``, or ``none MESSAGE HINT`` where there is none.
Anything else ends the conversation.
"""

import _socket
import os

from ketch.errors import UnavailableError
from ketch.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MESSAGE_BYTES_MAX = 256
_ANSWER_BYTES_MAX = 16 * 1024
# Longer than it takes to find out that neither of the programs comes up.
_PATIENCE_SECONDS = 30


class NoWayOutError(UnavailableError):
    """There is no way out of the user's network; why, and what to do."""


class Outside:
    """Who asks.

    Args:
        connection: to the process; this object's from now on.
    """

    __slots__ = ("_awaits_way", "_connection", "_wanted")

    def __init__(self, connection: _socket.socket) -> None:
        self._connection = connection
        self._connection.settimeout(_PATIENCE_SECONDS)
        self._awaits_way = False
        self._wanted = False

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
        if not self._awaits_way:
            return
        self._awaits_way = False
        (verdict, *words), _ = self._hear()
        if verdict != "ok":
            message, hint = (*words, "", "")[:2]
            raise NoWayOutError(message, hint)

    def _say(self, *words: str) -> None:
        try:
            self._connection.send("\0".join(words).encode("ascii"))
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


def receive(connection: _socket.socket) -> tuple[str, list[str]]:
    """Take what somebody asks.

    Args:
        connection: to them; does not block.

    Returns:
        A verb and its words.

    Raises:
        BlockingIOError: there is nothing yet.
        OSError: they have left.
        ValueError: it is not as words are.
    """
    data = connection.recv(MESSAGE_BYTES_MAX)
    if not data:
        raise ConnectionResetError
    verb, *words = data.decode("ascii").split("\0")
    return verb, words


def answer(connection: _socket.socket, words: "Sequence[str]", descriptor: int | None) -> None:
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
