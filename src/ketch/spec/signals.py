"""Signals by the names that users type: signal(7)."""

from ketch.errors import InvalidArgumentError
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # without its enums, which take longer than all else here

# As the C library has them: it keeps the kernel's first two, 32 and 33, to itself.
_FIRST_REAL_TIME, _LAST_REAL_TIME = 34, 64
# How far names count from either end, as those that kill(1) lists, and Docker knows, do.
_FROM_FIRST, _FROM_LAST = 15, 14
INTERNAL = (32, 33)
"""SIGCANCEL and SIGSETXID of nptl(7), which nobody but the C library sends."""

NUMBERS = {
    name.removeprefix("SIG"): int(number)
    for name, number in vars(signal).items()
    if name.startswith("SIG") and name[3] != "_" and isinstance(number, int)
}


def number(text: str) -> int:
    """Returns a signal's number from ``SIGTERM``, ``TERM``, ``term``, ``15`` or ``RTMIN+3``.

    Raises:
        InvalidArgumentError: there is no such signal, or it is one of the C library's own.
    """
    given = decimal(text)
    if given is not None and 0 < given <= _LAST_REAL_TIME and given not in INTERNAL:
        return given
    # A number is no name, so there is no SIG9.
    name = text.upper().removeprefix("SIG")
    if name in NUMBERS:
        return NUMBERS[name]
    for base, origin, step, furthest in (
        ("RTMIN+", _FIRST_REAL_TIME, 1, _FROM_FIRST), ("RTMAX-", _LAST_REAL_TIME, -1, _FROM_LAST),
    ):  # fmt: skip
        offset = decimal(name.removeprefix(base)) if name.startswith(base) else None
        if offset and offset <= furthest:
            return origin + step * offset
    raise InvalidArgumentError(f"invalid signal: {text}", "it is TERM, KILL or 9, say: kill -l")
