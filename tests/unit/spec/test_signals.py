"""Signals as users name them."""

import signal

import pytest

from ketch.errors import InvalidArgumentError
from ketch.spec import signals


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15), ("TERM", 15), ("term", 15), ("sigkill", 9), ("9", 9), ("64", 64),
        ("RTMIN", 34), ("SIGRTMIN+3", 37), ("rtmin+15", 49), ("RTMAX", 64), ("RTMAX-14", 50),
        ("CLD", 17), ("POLL", 29),
    ],
)  # fmt: skip
def test_a_signal(text: str, number: int) -> None:
    assert signals.number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65",
        "-9",
        "NOSUCH",
        "SIG",
        "RTMIN+16",
        "RTMAX-15",
        "32",
        "33",
        "RTMIN+31",
        "RTMIN-1",
        "RTMAX-31",
        "RTMIN+",
        "²",
        "SIG9",
        "SIG42",
        "sig15",
        "RTMIN+0",
        "RTMAX-0",
        "SIGSIGTERM",
        "+9",
        "9" * 5000,
        "RTMIN+" + "9" * 5000,
        "RTMAX-²",
    ],
)
def test_no_signal(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid signal: "):
        signals.number(text)


def test_every_signal_that_python_knows() -> None:
    for known in signal.Signals:
        assert signals.number(known.name) == known.value


def test_knows_all_that_python_knows() -> None:
    for name, value in signal.Signals.__members__.items():
        assert signals.number(name) == value
