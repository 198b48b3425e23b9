"""Signals by the names that users type: signal(7)."""

from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # without its enums, which take longer than all else here

# As the C library has them: it keeps the kernel's first two, 32 and 33, to itself.
_FIRST_REAL_TIME, _LAST_REAL_TIME = 34, 64

NUMBERS = {
    name.removeprefix("SIG"): int(number)
    for name, number in vars(signal).items()
    if name.startswith("SIG") and name[3] != "_" and isinstance(number, int)
}


def number(text: str) -> int:
    """Returns a signal's number from ``SIGTERM``, ``TERM``, ``term``, ``15`` or ``RTMIN+3``.

    Raises:
        InvalidArgumentError: there is no such signal.
    """
    name = text.upper().removeprefix("SIG")
    if name.isascii() and name.isdecimal():
        if 0 < int(name) <= _LAST_REAL_TIME:
            return int(name)
    elif name in NUMBERS:
        return NUMBERS[name]
    else:
        for base, origin in (("RTMIN+", _FIRST_REAL_TIME), ("RTMAX-", _LAST_REAL_TIME)):
            digits = name.removeprefix(base)
            if digits != name and digits.isascii() and digits.isdecimal():
                offset = int(digits) if base[-1] == "+" else -int(digits)
                if _FIRST_REAL_TIME <= origin + offset <= _LAST_REAL_TIME:
                    return origin + offset
    raise InvalidArgumentError(f"Invalid signal: {text}")
