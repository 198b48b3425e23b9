"""What a container's monitor and the processes it forks say to each other.

A monitor has touched nothing and so costs next to nothing. What takes many modules (the database,
JSON, networks, mounts) is done by processes that it forks and that end: a **starter** makes init,
the monitor's child by CLONE_PARENT, and hands it over; a **finisher** releases what the container
held and records its end; a **prober** runs a health check; a **scribe** writes the log::

    starter                                        monitor
      │  {"at": "made"} + init's pidfd, streams ──▶ │  may end it, should the starter die now
      │  {"at": "ports"} + sockets ───────────────▶ │  any number of times; holds them
      │  {"at": "started"} [+ the client] ────────▶ │  watches over it
      ▼                                             │  ... init ends
    finisher, or the starter, where the end         │
      │  comes soon and somebody waits for it       │
      │  ◀─────────────────────── {"status": n ...} │  to the starter alone
      │  {"told": step} ──────────────────────────▶ │  any number, where somebody asks for steps
      │  {"restart_ms": n} ───────────────────────▶ │  starts it again after n ms, ends where -1
      ▼

Each message is the fields of ``wire.encode`` in one SOCK_SEQPACKET message, descriptors beside it.
Before those of the first one stand three bytes: whether the monitor has to read them at once, how
many of the descriptors are to be waited for, and how many of these are outputs. Else it leaves all
that packed until something happens to the program, for each object that it uses is a page of memory
of its own.
"""

import _socket
import os
import struct

from ketch.engine.requests import wire
from ketch.linux import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

_MESSAGE_BYTES_MAX = 64 * 1024
DESCRIPTORS_MAX = 253  # unix(7): SCM_MAX_FD
PORTS = wire.encode({"at": "ports"})
HEAD_BYTES = 3
_RIGHTS_BYTES = _socket.CMSG_SPACE(4 * DESCRIPTORS_MAX)
_AGREED = wire.encode({"at": "ready"})


class Channel:
    """One end of the conversation. It owns its socket."""

    __slots__ = ("_socket",)

    def __init__(self, socket: _socket.socket) -> None:
        self._socket = socket

    @staticmethod
    def pair() -> "tuple[Channel, Channel]":
        """Make the two ends."""
        ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        return Channel(ends[0]), Channel(ends[1])

    def fileno(self) -> int:
        """The socket's descriptor, for polling."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def tell(
        self,
        fields: "dict[str, wire.Value]",
        descriptors: "Sequence[int]" = (),
        head: bytes = b"",
    ) -> None:
        """Say something, and hand descriptors over.

        Raises:
            OSError: the other end is gone.
        """
        data = head + wire.encode(fields)
        rights = process.rights(*descriptors) if descriptors else []
        self._socket.sendmsg([data], rights, _socket.MSG_NOSIGNAL)

    def hand_ports(self, descriptors: "Sequence[int]") -> None:
        """Hand over the sockets that keep published ports, in as many messages as it takes.

        Raises:
            OSError: the other end is gone.
        """
        for first in range(0, len(descriptors), DESCRIPTORS_MAX):
            self.tell({"at": "ports"}, descriptors[first : first + DESCRIPTORS_MAX])

    def pass_on(self, data: bytes) -> None:
        """Say something that is no fields.

        Raises:
            OSError: the other end is gone.
        """
        self._socket.send(data, _socket.MSG_NOSIGNAL)

    def take(self) -> tuple[bytes, bytes]:
        """Wait for what the other end says next, and leave it packed; empty where it is gone.

        Returns:
            The message, and its descriptors as C has them: an array of int.
        """
        try:
            data, rights, _, _ = self._socket.recvmsg(
                _MESSAGE_BYTES_MAX, _RIGHTS_BYTES, _socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return b"", b""
        return data, rights[0][2] if rights else b""

    def agree(self) -> None:
        """Say that all is well; the other end may be gone."""
        try:  # noqa: SIM105 - see above on objects
            self._socket.send(_AGREED)
        except OSError:
            pass

    def hear(self) -> "tuple[dict[str, wire.Value], tuple[int, ...]] | None":
        """Wait for what the other end says next; None where it is gone.

        Returns:
            The fields and the descriptors, close-on-exec, which are the caller's from now on.
        """
        data, raw = self.take()
        return unpack(data, raw) if data else None


def unpack(data: bytes, raw: bytes) -> "tuple[dict[str, wire.Value], tuple[int, ...]]":
    """Unpack what ``take`` returned, less the head."""
    return wire.decode(data), struct.unpack(f"{len(raw) // 4}i", raw)


def fork(work: "Callable[[Channel], object]") -> tuple[int, Channel]:
    """Fork a process that does something and ends.

    Args:
        work: what it does, given its end of a channel to the caller.

    Returns:
        Its pid, and the caller's end of the channel.
    """
    ours, theirs = Channel.pair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _work(work, theirs)
    theirs.close()
    return pid, ours


def end_with_monitor() -> None:
    """Have the calling process end when the monitor that forked it does."""
    parent = os.getppid()
    process.prctl(process.PR_SET_PDEATHSIG, signals.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _work(work: "Callable[[Channel], object]", channel: Channel) -> "NoReturn":
    status = 1
    try:
        work(channel)
        status = 0
    except BaseException as error:  # noqa: BLE001 - no way back into the monitor's loop
        from ketch.engine import mishaps  # noqa: PLC0415 loaded by the zygote

        mishaps.note("a monitor's helper", error)
    os._exit(status)
