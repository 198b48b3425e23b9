"""A terminal that passes every key on, while a program at the other end has one of its own."""

import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def make_raw(descriptor: int) -> "list[Any]":
    """Make a terminal pass every key on unchanged: cfmakeraw(3).

    Returns:
        What ``restore`` takes.
    """
    saved = termios.tcgetattr(descriptor)
    mode = [*saved[:6], [*saved[6]]]
    mode[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)
    return saved


def restore(descriptor: int, saved: "list[Any]") -> None:
    """Make a terminal what it was; one that has gone meanwhile is left alone."""
    try:  # noqa: SIM105 - contextlib's import takes longer than all the rest here
        termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)
    except termios.error:
        pass
