"""Pseudo-terminals: pty(7), ioctl_tty(2)."""

import fcntl
import os
import struct

TIOCGPTPEER = 0x5441
TIOCSCTTY = 0x540E
TIOCSPTLCK = 0x40045431
TIOCSWINSZ = 0x5414
TIOCGPTN = 0x80045430


def open_pair(ptmx: int) -> tuple[int, int]:
    """Unlock a pseudo-terminal's master and open its other end from it.

    The peer comes from the kernel by TIOCGPTPEER (Linux 4.13) and not by path, so that nothing
    planted over /dev/pts can stand in for it.

    Args:
        ptmx: descriptor of an opened ``ptmx``.

    Returns:
        The peer's descriptor, close-on-exec, and its number under ``/dev/pts``.
    """
    fcntl.ioctl(ptmx, TIOCSPTLCK, struct.pack("i", 0))
    number = struct.unpack("i", fcntl.ioctl(ptmx, TIOCGPTN, b"\0\0\0\0"))[0]
    peer = fcntl.ioctl(ptmx, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return peer, number


def set_window_size(terminal: int, rows: int, columns: int) -> None:
    """Tell a terminal its size in characters: TIOCSWINSZ."""
    fcntl.ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def set_controlling_terminal(terminal: int) -> None:
    """Make a terminal the session's own; the caller must lead a session: TIOCSCTTY."""
    fcntl.ioctl(terminal, TIOCSCTTY, 0)
