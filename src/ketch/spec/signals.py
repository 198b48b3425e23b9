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
    given = decimal(text)
    if given is not None and 0 < given <= _LAST_REAL_TIME:
        return given
    # A number is no name, so there is no SIG9.
    name = text.upper().removeprefix("SIG")
    if name in NUMBERS:
        return NUMBERS[name]
    for base, origin, step in (("RTMIN+", _FIRST_REAL_TIME, 1), ("RTMAX-", _LAST_REAL_TIME, -1)):
        offset = decimal(name.removeprefix(base)) if name.startswith(base) else None
        if offset and _FIRST_REAL_TIME <= origin + step * offset <= _LAST_REAL_TIME:
            return origin + step * offset
    raise InvalidArgumentError(f"invalid signal: {text}")
