"""Scalar option values: numbers, sizes, CPU counts. Pure, and cheap to import.

Each function takes the text that the user gave and returns its value, or raises
InvalidArgumentError with the reason in the words of the Docker command line.
"""

from ketch.errors import InvalidArgumentError

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def quoted(text: str) -> str:
    """Quotes text for a message, as Go's ``%q`` does."""
    return '"' + "".join(_ESCAPES.get(character, character) for character in text) + '"'


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
