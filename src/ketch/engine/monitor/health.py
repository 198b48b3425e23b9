"""What a health check is, and what its results make of a container. Pure.

Source: Docker's daemon/health.go. ``probing`` runs the checks.
"""

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ketch.engine.records.rows import Container
    from ketch.spec import container as api
    from ketch.spec.image import Healthcheck

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"

_INTERVAL_NS = 30 * 10**9
TIMEOUT_NS = 30 * 10**9
_START_INTERVAL_NS = 5 * 10**9
RETRIES = 3
_ENTRIES = 5


def check_of(container: "Container") -> "Healthcheck | None":
    """The check that a container has, None where it has none."""
    config: api.Config = container.record["Config"]
    check = config.get("Healthcheck") or {}
    test = check.get("Test") or ()
    return check if len(test) > 1 and test[0] in {"CMD", "CMD-SHELL"} else None


def beginning() -> str:
    """What is on record of a container that has just been started, as JSON."""
    return json.dumps({"Status": STARTING, "FailingStreak": 0, "Log": []})


def schedule(check: "Healthcheck | None") -> list[str]:
    """What the monitor must know of a check, for ``probing.Watch``; empty where there is none."""
    if check is None:
        return []
    times_ns = (
        check.get("Interval") or _INTERVAL_NS,
        check.get("StartInterval") or _START_INTERVAL_NS,
        check.get("StartPeriod") or 0,
    )
    return [str(time_ns) for time_ns in times_ns]


def pause(times: "Sequence[float]", passed: float, *, starting: bool, first: bool = False) -> float:
    """Returns how long to wait for the next check, in the unit of what is given.

    While a container is starting, its start interval counts; but the first check comes no later
    than one interval after the start, and none later than one after the start period.

    Args:
        times: what ``schedule`` says.
        passed: how long ago the container was started.
        starting: whether it has not been healthy yet, nor unhealthy.
        first: whether there has been no check yet.
    """
    interval, start_interval, start_period = times
    if not starting or passed >= start_period:
        return interval
    if first:
        return min(interval, start_interval)
    return min(start_interval, start_period - passed + interval)


def judge(
    health: "dict[str, Any]", result: "dict[str, Any]", retries: int, *, starting: bool
) -> "dict[str, Any]":
    """Returns what a result makes of what was known.

    Args:
        health: what was known.
        result: ``ExitCode`` and what else there is to keep of it.
        retries: how many failures in a row mean unhealthy.
        starting: whether the check began within the start period.
    """
    status, streak = health["Status"], health["FailingStreak"]
    if result["ExitCode"] == 0:
        status, streak = HEALTHY, 0
    elif not (starting and status == STARTING):
        streak += 1
        if streak >= retries:
            status = UNHEALTHY
    log = [*health["Log"], result][-_ENTRIES:]
    return {"Status": status, "FailingStreak": streak, "Log": log}
