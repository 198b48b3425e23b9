"""Option values that are numbers: sizes, CPUs, limits. Pure, and cheap to import.

Each function takes the text that the user gave and returns its value, or raises
InvalidArgumentError with the reason in the words of the Docker command line.
"""

from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.container import Ulimit

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"})


def quoted(text: str) -> str:
    """Quotes text for a message, as Go's ``%q`` does."""
    return f'"{text.translate(_ESCAPES)}"'


def fields(text: str) -> list[str]:
    """Splits a line of comma-separated values; one in double quotes may hold commas."""
    if '"' not in text:
        if not text:
            raise InvalidArgumentError("EOF")
        return text.split(",")
    import csv  # noqa: PLC0415 - hardly anyone quotes, and csv imports re

    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise InvalidArgumentError(f"parse error on line 1: {error}") from error


def boolean(text: str) -> bool:
    """Reads a truth value as Go's ``strconv.ParseBool`` does."""
    if text in {"1", "t", "T", "true", "TRUE", "True"}:
        return True
    if text in {"0", "f", "F", "false", "FALSE", "False"}:
        return False
    raise InvalidArgumentError(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")


def integer(text: str) -> int:
    """Reads a signed 64-bit number: decimal, ``0x``, ``0o``, ``0b`` or a C octal (``010``)."""
    return _number("ParseInt", text, -(1 << 63), (1 << 63) - 1)


def unsigned16(text: str) -> int:
    """Reads an unsigned 16-bit number, in the bases of ``integer``."""
    if text[:1] in {"+", "-"}:
        raise InvalidArgumentError(f"strconv.ParseUint: parsing {quoted(text)}: invalid syntax")
    return _number("ParseUint", text, 0, (1 << 16) - 1)


def _number(function: str, text: str, low: int, high: int) -> int:
    sign, digits = (text[0], text[1:]) if text[:1] in {"+", "-"} else ("", text)
    reason = "invalid syntax"
    # int() alone would take blanks, a second sign and other scripts' digits.
    if digits[:1].isdigit() and digits.isascii() and digits.strip() == digits:
        octal = digits[0] == "0" and digits.strip("01234567") == ""
        try:
            value = int(digits, 8 if octal else 0)
        except ValueError:
            pass
        else:
            value = -value if sign == "-" else value
            if low <= value <= high:
                return value
            reason = "value out of range"
    raise InvalidArgumentError(f"strconv.{function}: parsing {quoted(text)}: {reason}")


_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def size(text: str) -> int:
    """Reads bytes: a number with an optional b, k, m, g, t or p (also kb, KiB), as powers of 1024.

    A fraction of a byte is dropped, and one blank may stand before the unit (go-units' RAMInBytes).
    """
    end = max(text.rfind(character) for character in "0123456789. ")
    if end < 0:
        raise InvalidArgumentError(f"invalid size: '{text}'")
    number, unit = text[: end + (text[end] != " ")], text[end + 1 :].lower()
    try:
        # float() alone would take underscores, "nan" and "infinity".
        amount = float("" if number.strip("0123456789.eE+-") else number)
    except ValueError as error:
        raise InvalidArgumentError(
            f"strconv.ParseFloat: parsing {quoted(number)}: invalid syntax"
        ) from error
    if unit not in {"", "b"}:
        if unit[0] not in _UNITS or unit[1:] not in {"", "b", "ib"}:
            raise InvalidArgumentError(f"invalid suffix: '{unit}'")
        amount *= _UNITS[unit[0]]
    if not 0 <= amount < 1 << 63:
        raise InvalidArgumentError(f"invalid size: '{text}'")
    return int(amount)


def swap_size(text: str) -> int:
    """Reads a size, or -1 for unlimited."""
    return -1 if text == "-1" else size(text)


def cpus(text: str) -> int:
    """Reads a number of CPUs, such as ``1.5``, ``1/2`` or ``5e-1``, into billionths of a CPU."""
    numerator, denominator = _ratio(text)
    nanos, remainder = divmod(numerator * 10**9, denominator)
    if remainder:
        raise InvalidArgumentError("value is too precise")
    if not -(1 << 63) <= nanos < 1 << 63:
        raise InvalidArgumentError("value out of range")
    return nanos


def _ratio(text: str) -> tuple[int, int]:
    """A decimal or a fraction as numerator and denominator (Go's ``big.Rat``)."""
    wrong = InvalidArgumentError(f"failed to parse {text} as a rational number")
    sign, digits = (
        (-1 if text[:1] == "-" else 1),
        text.removeprefix("-" if text[:1] == "-" else "+"),
    )
    above, slash, below = digits.partition("/")
    if slash:
        if not (_decimal(above) and _decimal(below)) or int(below) == 0:
            raise wrong
        return sign * int(above), int(below)
    mantissa, exponential, power = digits.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    exponent = power[1:] if power[:1] in {"-", "+"} else power
    # Three digits of exponent are far beyond any CPU, and more would only burn time.
    bad_power = bool(exponential) and not (_decimal(exponent) and len(exponent) < 4)
    if bad_power or not _decimal(whole + fraction):
        raise wrong
    shift = int(power or 0) - len(fraction)
    return sign * int(whole + fraction) * 10 ** max(shift, 0), 10 ** max(-shift, 0)


def _decimal(text: str) -> bool:
    # int() refuses thousands of digits, and no CPU needs them.
    return text.isascii() and text.isdigit() and len(text) < 1000


ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
    "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip


def ulimit(text: str) -> "Ulimit":
    """Reads a resource limit: ``name=soft[:hard]``, -1 for unlimited."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise InvalidArgumentError(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise InvalidArgumentError(f"invalid ulimit type: {name}", f"one of {', '.join(ULIMITS)}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise InvalidArgumentError(
            f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
        )
    soft = _number("ParseInt", parts[0], -(1 << 63), (1 << 63) - 1)
    hard = _number("ParseInt", parts[-1], -(1 << 63), (1 << 63) - 1)
    order = "ulimit soft limit must be less than or equal to hard limit"
    if hard != -1 and soft == -1:
        raise InvalidArgumentError(f"{order}: soft: -1 (unlimited), hard: {hard}")
    if hard != -1 and soft > hard:
        raise InvalidArgumentError(f"{order}: {soft} > {hard}")
    return {"Name": name, "Soft": soft, "Hard": hard}
