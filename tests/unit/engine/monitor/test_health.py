"""When checks come, and what their results make of a container."""

from typing import TYPE_CHECKING, Any

import pytest

from ketch.engine.monitor import health
from ketch.spec import health as options

if TYPE_CHECKING:
    from ketch.spec.image import Healthcheck

# Interval, start interval, start period.
SHORT_PERIOD, LONG_PERIOD, NO_PERIOD = (1.0, 5.0, 1.0), (30.0, 1.0, 60.0), (30.0, 5.0, 0.0)


@pytest.mark.parametrize(
    ("times", "passed", "starting", "first", "expected"),
    [
        (NO_PERIOD, 0.0, True, True, 30.0),
        (LONG_PERIOD, 0.0, True, True, 1.0),
        (LONG_PERIOD, 10.0, True, False, 1.0),
        (LONG_PERIOD, 10.0, False, False, 30.0),
        (LONG_PERIOD, 60.0, True, False, 30.0),
        # The first within an interval of the start, and one within an interval of the period's end.
        (SHORT_PERIOD, 0.0, True, True, 1.0),
        ((10.0, 5.0, 60.0), 0.0, True, True, 5.0),
        ((1.0, 50.0, 60.0), 59.5, True, False, 1.5),
        ((1.0, 50.0, 60.0), 5.0, True, False, 50.0),
    ],
)
def test_when_the_next_check_comes(
    times: tuple[float, ...], passed: float, starting: bool, first: bool, expected: float
) -> None:
    assert health.pause(times, passed, starting=starting, first=first) == expected


def _judged(results: list[int], retries: int, *, starting: bool = False) -> dict[str, Any]:
    known: dict[str, Any] = {"Status": health.STARTING, "FailingStreak": 0, "Log": []}
    for number, status in enumerate(results):
        result = {"ExitCode": status, "Output": str(number)}
        known = health.judge(known, result, retries, starting=starting)
    return known


@pytest.mark.parametrize(
    ("results", "starting", "status", "streak"),
    [
        ([1, 1], False, "starting", 2),
        ([1, 1, 1], False, "unhealthy", 3),
        ([1, 1, 0, 1], False, "healthy", 1),
        ([1, 1, 1, 0], False, "healthy", 0),
        ([1, 1, 1, 1], True, "starting", 0),
        ([0, 1, 1, 1], True, "unhealthy", 3),  # once healthy, failures count within the period too
        ([-1, 2, 137], False, "unhealthy", 3),
    ],
)
def test_so_many_failures_in_a_row_mean_unhealthy(
    results: list[int], starting: bool, status: str, streak: int
) -> None:
    known = _judged(results, 3, starting=starting)
    assert (known["Status"], known["FailingStreak"]) == (status, streak)


def test_five_results_are_kept() -> None:
    assert [one["Output"] for one in _judged([0] * 7, 3)["Log"]] == ["2", "3", "4", "5", "6"]


class _Container:
    def __init__(self, *test: str) -> None:
        self.record = {"Config": {"Healthcheck": {"Test": [*test]}}}


@pytest.mark.parametrize(
    ("test", "there"),
    [
        (("CMD", "x"), True), (("CMD-SHELL", "x"), True), (("CMD",), False), (("NONE",), False),
        (("true",), False), (("true", "x"), False), (("", "x"), False), ((), False),
    ],
)  # fmt: skip
def test_which_checks_are_run(test: tuple[str, ...], there: bool) -> None:
    assert (health.check_of(_Container(*test)) is not None) is there  # type: ignore[arg-type]


def test_an_image_alone_asks_for_a_second_at_least() -> None:
    image: Healthcheck = {
        "Test": ["CMD", "x"], "Interval": 1_000_000, "StartInterval": 999_999_999, "Timeout": 5,
    }  # fmt: skip
    merged = options.merge(None, image)
    assert merged == {**image, "Interval": 10**9, "StartInterval": 10**9}
    assert image["Interval"] == 1_000_000
    own: Healthcheck = {"Interval": 2_000_000}
    assert (options.merge(own, image) or {})["Interval"] == 2_000_000
    assert (options.merge(own, image) or {})["StartInterval"] == 10**9
    long: Healthcheck = {"Interval": 2 * 10**9, "StartInterval": 0}
    assert options.merge({}, long) == long
    assert options.merge(own, None) == own
