"""What a container's init and its parent say to each other while the container comes to be.

One SOCK_SEQPACKET pair, one JSON object a message, at most one descriptor beside it::

    parent                                              init
      │  clone3(2) ─────────────────────────────────────▶ │  cgroup
      │  {"go": "begin"}  its maps are written             │  only in a user namespace, and after
      │                                                   │  a birth through a process between
      │ ◀─────────────────────────────── {"at": "hooks"} ─ │  all is mounted; only with hooks
      │  {"go": "hooks"}  prestart, createRuntime have run │  createContainer, then pivot_root
      │ ◀──── {"at": "console"} + the terminal's master ─ │  only with a terminal
      │ ◀──────────────────────────── {"at": "limits"} ── │  only with limits, in a user namespace
      │  {"go": "limits"}  they are set                   │
      │ ◀───────────────────────── {"at": "listener N"} ─ │  only with a filter that notifies: its
      │  {"go": "listener"}  it was handed to supervisor  │  descriptor is N in init
      │ ◀──────────────────────────── {"at": "created"} ─ │  ready; the program was found
      │  {"go": "start"}  (or a byte in the exec fifo) ─▶ │  execve(2)
      │ ◀─────────────────── end of file: that succeeded  │
      │ ◀── {"error": ...} instead of any of the above ── │  exits
      │ ◀──── {"say": ...} before any of the above ────── │  each step, where it is explained, in
      │                                                   │  as many messages as it takes

Both ends are close-on-exec, which is what turns a successful execve(2) into end of file.
"""

import _socket
import os

from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    StartError,
    SyscallError,
    UnavailableError,
    UnsupportedError,
    in_words,
)
from ketch.linux import process
from ketch.linux.scopes import suppress
from ketch.spec import json_text
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from ketch.spec.told import Say

_MESSAGE_BYTES_MAX = 64 * 1024
_WORDS_MAX = 4 * 1024  # JSON takes up to 12 bytes for a character, and must stay whole
_ERRORS: dict[str, type[KetchError]] = {
    kind.__name__: kind
    for kind in (
        ConflictError, InvalidArgumentError, NotFoundError, UnavailableError, UnsupportedError,
    )
}  # fmt: skip


class Channel:
    """One end of the conversation. It owns its socket.

    Attributes:
        hear: at the parent's end, takes what init says of its steps.
    """

    __slots__ = ("_socket", "hear")

    def __init__(self, socket: _socket.socket) -> None:
        self._socket = socket
        self.hear: Say | None = None

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

    def go(self, step: str) -> None:
        """Parent: tell init that it may go on."""
        self._send({"go": step})

    def reached(self, point: str, descriptor: int | None = None) -> None:
        """Init: tell the parent how far it has come, and hand over a descriptor."""
        self._send({"at": point}, descriptor)

    def say(self, told: Told) -> None:
        """Init: explain a step, through the parent.

        Soon init's own standard error is the program's; and so the steps of both are told in their
        order. To nobody, where another process starts the program: by then the parent is gone.
        """
        with suppress(OSError):
            text = told.encode()
            for start in range(0, len(text), _WORDS_MAX):
                end = start + _WORDS_MAX
                self._send({"say": text[start:end], "goes_on": end < len(text)})

    def hand_over(self, listener: int) -> None:
        """Init: have its filter's listener given to the supervisor, and wait until it has been."""
        self.reached(f"listener {listener}")
        self.await_go("listener")

    def be_limited(self) -> None:
        """Init: have the parent set the resource limits, which it alone may raise."""
        self.reached("limits")
        self.await_go("limits")

    def failed(self, error: BaseException) -> None:
        """Init: tell the parent why it gives up."""
        message = {
            "kind": type(error).__name__,
            "message": (in_words(error) or type(error).__name__)[:_WORDS_MAX],
            "hint": getattr(error, "hint", ""),
            "exit_status": getattr(error, "exit_status", None),
        }
        self._send({"error": message})

    def await_go(self, step: str) -> None:
        """Init: wait for the parent's word.

        Raises:
            UnavailableError: the parent is gone or said something else.
        """
        message, _ = self._receive()
        if message != {"go": step}:
            raise UnavailableError(f"init waited for {step!r} and was told {message!r}")

    def await_point(self) -> tuple[str, int | None]:
        """Parent: wait until init has reached a point.

        Returns:
            The point and the descriptor that came along; ``("executed", None)`` when init has
            become the container's program.

        Raises:
            KetchError: what made init give up, as init raised it.
        """
        message, descriptor = self._receive()
        said = ""
        while message is not None and "say" in message:
            said += message["say"]
            if not message["goes_on"]:
                if self.hear is not None:
                    self.hear(Told.decode(said))
                said = ""
            message, descriptor = self._receive()
        if message is None:
            return "executed", None
        if "error" in message:
            raise _raised(message["error"])
        return str(message["at"]), descriptor

    def _send(self, message: dict[str, object], descriptor: int | None = None) -> None:
        data = json_text.dumps(message).encode()
        if descriptor is not None:
            self._socket.sendmsg([data], process.rights(descriptor), _socket.MSG_NOSIGNAL)
        else:
            # Not sendmsg(2): of all calls only write(2) is never left to a filter's supervisor,
            # who does not know of the filter before this has been said. Python ignores SIGPIPE.
            os.write(self._socket.fileno(), data)

    def _receive(self) -> "tuple[dict[str, Any] | None, int | None]":
        try:
            data, rights, _, _ = self._socket.recvmsg(
                _MESSAGE_BYTES_MAX, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return None, None
        return (json_text.loads(data) if data else None), process.received(rights)


def run_child(channel: Channel, work: "Callable[[], None]") -> "NoReturn":
    """Init: do the work that ends in execve(2), or tell the parent why it did not; never returns.

    Args:
        channel: init's end.
        work: what to do; it returns only where something is wrong.
    """
    status = 1
    try:
        work()
    except SyscallError as error:
        _report(channel, UnsupportedError(f"the kernel refused to set the container up: {error}"))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        _report(channel, error)
        status = getattr(error, "exit_status", status)
    os._exit(status)


def _report(channel: Channel, error: BaseException) -> None:
    """Tell the parent, if it is still there: who started by the fifo is somebody else."""
    with suppress(OSError):
        channel.failed(error)


def _raised(told: "dict[str, Any]") -> KetchError:
    """Make anew the error that init reported."""
    message, hint = str(told["message"]), str(told["hint"])
    status = told["exit_status"]
    if isinstance(status, int):
        return StartError(message, hint, exit_status=status)
    return _ERRORS.get(str(told["kind"]), UnavailableError)(message, hint)
