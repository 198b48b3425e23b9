"""Decimal numbers in text that others wrote: ASCII digits, and no more of them than make sense."""

DIGITS_MAX = 19
"""As many as a signed number of 64 bits may have."""


def decimal(text: str, digits_max: int = DIGITS_MAX) -> int | None:
    """Returns the number that text is made of; None where it is anything but ASCII digits.

    ``str.isdigit`` takes "²" and Arabic digits too, ``int`` signs, spaces and underscores, and both
    a megabyte of them.

    Args:
        text: what was written.
        digits_max: how many digits there may be.
    """
    if not text or len(text) > digits_max or not text.isascii() or not text.isdigit():
        return None
    return int(text)


def signed(text: str) -> int | None:
    """Returns the number that text is made of, which may have a sign; None where it has no such."""
    negative = text[:1] == "-"
    number = decimal(text[1:] if text[:1] in {"-", "+"} else text)
    return -number if number is not None and negative else number
