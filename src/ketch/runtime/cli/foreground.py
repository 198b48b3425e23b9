"""Staying with a process until it ends: its terminal, the signals for it, its orphans.

The process has this one's standard streams themselves, unless it has a terminal: then what is
typed here goes there, and what is written there comes here.
"""

import errno
import fcntl
import os
import select
import struct
import termios

from ketch.errors import InvalidArgumentError
from ketch.linux import process, signals, tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cli.notify import Listener
    from ketch.runtime.create import Container

_CHUNK_BYTES = 64 * 1024
# SIGURG is the runtime's own in Go and so is never passed on; these two would stop us, not it.
_KEPT = {signals.SIGURG, signals.SIGTTIN, signals.SIGTTOU, signals.SIGPIPE}


class Foreground:
    """Watches over a created process; made before it starts, so that no signal is lost.

    Args:
        container: the process; this closes its descriptors.
        adopt: whether orphans below this process become its children and are reaped.
        listener: hears when the container's program is ready, and tells the supervisor; or None.

    Raises:
        InvalidArgumentError: the process has a terminal and this one has none.
    """

    __slots__ = (
        "_container", "_input", "_input_open", "_listener", "_saved", "_terminal", "_wakeups",
        "_writer",
    )  # fmt: skip

    def __init__(
        self, container: "Container", *, adopt: bool, listener: "Listener | None" = None
    ) -> None:
        self._container = container
        self._listener = listener
        self._terminal = -1
        self._saved: list[object] | None = None
        self._input_open = container.console is not None
        self._input = b""  # typed here, and not taken there yet
        if adopt:
            process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
        if container.console is not None:
            os.set_blocking(container.console, False)
            _leave_line_ends(container.console)
            self._terminal = _find_terminal()
            self._saved = termios.tcgetattr(self._terminal)
            _make_raw(self._terminal)
            self._pass_size_on()
        self._wakeups, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signals.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in signals.valid_signals() - _KEPT:
            try:
                signals.signal(number, _ignore)
            except (OSError, ValueError):  # SIGKILL, SIGSTOP, those of the C library
                continue

    def restore(self) -> None:
        """Give the terminal back as it was."""
        if self._saved is not None:
            termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            self._saved = None

    def run(self) -> int:
        """Wait for the process's end.

        Returns:
            Its exit status: 0 to 255, 128 + n for signal n.
        """
        try:
            while True:
                for descriptor, events in self._poll():
                    if descriptor == self._wakeups:
                        status = self._take_signals()
                        if status is not None:
                            self._drain()
                            return status
                    elif self._listener is not None and descriptor == self._listener.fileno():
                        if self._listener.take():
                            self._listener.close()
                            self._listener = None
                    elif descriptor == self._container.console:
                        if events & ~select.POLLOUT:
                            self._read_console()
                        self._write_input()
                    else:
                        self._read_input()
        finally:
            self.restore()

    def _poll(self) -> list[tuple[int, int]]:
        poll = select.poll()
        poll.register(self._wakeups, select.POLLIN)
        if self._listener is not None:
            poll.register(self._listener.fileno(), select.POLLIN)
        if self._container.console is not None:
            wanted = select.POLLIN | (select.POLLOUT if self._input else 0)
            poll.register(self._container.console, wanted)
            if self._input_open and not self._input:
                poll.register(0, select.POLLIN)
        return poll.poll()

    def _take_signals(self) -> int | None:
        """Act on the signals that have come; the process's exit status once it has ended."""
        try:
            numbers = os.read(self._wakeups, 512)
        except BlockingIOError:
            return None
        for number in dict.fromkeys(numbers):
            if number == signals.SIGCHLD:
                status = self._reap()
                if status is not None:
                    return status
            elif number == signals.SIGWINCH and self._terminal >= 0:
                self._pass_size_on()
            else:
                try:
                    process.pidfd_send_signal(self._container.pidfd, number)
                except ProcessLookupError:
                    continue
        return None

    def _reap(self) -> int | None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            if pid == self._container.pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code

    def _pass_size_on(self) -> None:
        assert self._container.console is not None
        size = fcntl.ioctl(self._terminal, termios.TIOCGWINSZ, b"\0" * 8)
        rows, columns, _, _ = struct.unpack("HHHH", size)
        tty.set_window_size(self._container.console, rows, columns)

    def _read_input(self) -> None:
        self._input = os.read(0, _CHUNK_BYTES)
        if not self._input:
            self._input_open = False
        self._write_input()

    def _write_input(self) -> None:
        """Pass on as much as the process's terminal takes now."""
        if self._input and self._container.console is not None:
            try:
                self._input = self._input[os.write(self._container.console, self._input) :]
            except BlockingIOError:
                return

    def _read_console(self) -> None:
        assert self._container.console is not None
        try:
            data = os.read(self._container.console, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # what a terminal says once its other end is closed
                raise
            data = b""
        if data:
            _write(1, data)
        else:
            self._container.console = None

    def _drain(self) -> None:
        """Write what the process has said last."""
        while self._container.console is not None:
            poll = select.poll()
            poll.register(self._container.console, select.POLLIN)
            if not poll.poll(0):
                return
            self._read_console()


def _find_terminal() -> int:
    """The caller's terminal: a standard stream, or the one that controls this process."""
    for descriptor in (2, 1, 0):
        if os.isatty(descriptor):
            return descriptor
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgumentError(
            f"open /dev/tty: {(error.strerror or '').lower()}",
            "run it on a terminal, or detached with --console-socket",
        ) from error


def _leave_line_ends(console: int) -> None:
    """Have the container's terminal leave ends of lines as they are.

    A terminal shows them right by itself, and a file or a pipe is not to hold carriage returns that
    the program never wrote.
    """
    attributes = termios.tcgetattr(console)
    attributes[1] &= ~termios.ONLCR
    termios.tcsetattr(console, termios.TCSANOW, attributes)


def _make_raw(terminal: int) -> None:
    """Pass every key on as it is: cfmakeraw(3), but for the processing of output.

    What arrives here ends its lines by a line feed alone, see ``_leave_line_ends``.
    """
    attributes = termios.tcgetattr(terminal)
    attributes[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    attributes[1] |= termios.OPOST
    attributes[2] = (attributes[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    attributes[3] &= ~(
        termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
    )
    attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _ignore(number: int, frame: object) -> None:
    """The wakeup descriptor has told already."""
