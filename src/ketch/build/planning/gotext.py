"""Values as Go's fmt prints them: what BuildKit's history lines are made of."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ketch.spec.template_functions import quote

if TYPE_CHECKING:
    from ketch.spec.image import Healthcheck

_UNITS = ((3_600_000_000_000, "h"), (60_000_000_000, "m"))


def listed(words: Sequence[str]) -> str:
    """Returns a list as ``%v`` has it: ``[a b]``."""
    return f"[{' '.join(words)}]"


def quoted_list(words: Sequence[str]) -> str:
    """Returns a list as ``%q`` has it: ``["a" "b"]``."""
    return f"[{' '.join(map(quote, words))}]"


def duration(nanoseconds: int) -> str:
    """Returns a duration as Go shows it: ``1m30s``, ``1.5s``, ``300ms``, ``0s``."""
    if not nanoseconds:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit, name in ((1_000, "ns"), (1_000_000, "µs"), (1_000_000_000, "ms")):
        if rest < unit:
            return f"{sign}{_decimals(rest, unit // 1_000)}{name}"
    shown = ""
    for unit, name in _UNITS:
        count, rest = divmod(rest, unit)
        if count or shown:
            shown += f"{count}{name}"
    return f"{sign}{shown}{_decimals(rest, 1_000_000_000)}s"


def healthcheck(check: "Healthcheck") -> str:
    """Returns a health check as ``%+v`` shows the structure."""
    return (
        f"{{Test:{listed(check.get('Test', []))} Interval:{duration(check.get('Interval', 0))} "
        f"Timeout:{duration(check.get('Timeout', 0))} "
        f"StartPeriod:{duration(check.get('StartPeriod', 0))} "
        f"StartInterval:{duration(check.get('StartInterval', 0))} "
        f"Retries:{check.get('Retries', 0)}}}"
    )


def _decimals(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
