"""Lists of processors or memory nodes, such as ``0-3,7``: cpuset(7), "List format".

A list is a number whose bits are its members, so that a long one costs no more than its text:
``0-40000000`` must not become forty million numbers before somebody says that there are none such.
"""

from ketch.errors import InvalidArgumentError
from ketch.spec.digits import decimal

MAXIMUM = 8192
"""The kernel's largest NR_CPUS; it has fewer memory nodes."""


def bits(text: str) -> int:
    """Reads a list; the bits of what is returned say which numbers it has.

    Raises:
        InvalidArgumentError: it is none, or has a number above ``MAXIMUM``.
    """
    found = 0
    for part in text.split(",") if text else ():
        low, dash, high = part.partition("-")
        first = decimal(low)
        last = decimal(high) if dash else first
        if first is None or last is None or last < first:
            raise InvalidArgumentError(f"invalid format: {text}")
        if last > MAXIMUM:
            raise InvalidArgumentError(f"value of out range, maximum is {MAXIMUM}")
        found |= (1 << last + 1) - (1 << first)
    return found


def number_list(text: str) -> set[int]:
    """Reads a list into the set of its numbers.

    Raises:
        InvalidArgumentError: as ``bits`` does.
    """
    found = bits(text)
    return {number for number in range(found.bit_length()) if found >> number & 1}


def without_blanks(text: str) -> str:
    """A list without the blanks that the kernel takes around its numbers, but none within one."""
    return ",".join(
        "-".join(number.strip() for number in part.split("-")) for part in text.split(",")
    )
