"""Moments and durations, against Go's and Docker's ways of writing them."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec import timestamps
from ketch.spec.timestamps import SECOND_NS

NOW = 1_700_000_000 * SECOND_NS


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("moment_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_136_214_245_000_000_000, "2006-01-02T15:04:05Z"),
        (1_136_214_245_999_999_999, "2006-01-02T15:04:05.999999999Z"),
        (1_136_214_245_100_000_000, "2006-01-02T15:04:05.1Z"),
        (1_136_214_245_000_000_010, "2006-01-02T15:04:05.00000001Z"),
    ],
)
def test_writing(moment_ns: int, text: str) -> None:
    assert timestamps.rfc3339(moment_ns) == text
    fixed = timestamps.rfc3339_fixed(moment_ns)
    assert len(fixed) == len("2006-01-02T15:04:05.999999999Z")
    assert timestamps.moment(fixed, NOW) == timestamps.moment(text, NOW) == moment_ns


@given(st.integers(0, 4_000_000_000 * SECOND_NS))
def test_what_is_written_is_read(moment_ns: int) -> None:
    assert timestamps.moment(timestamps.rfc3339(moment_ns), NOW) == moment_ns


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2006-01-02T15:04:05Z", 1_136_214_245),
        ("2006-01-02T15:04:05+01:30", 1_136_214_245 - 5400),
        ("2006-01-02T15:04:05-00:30", 1_136_214_245 + 1800),
        ("2006-01-02T15:04Z", 1_136_214_240),
        ("2006-01-02T15Z", 1_136_214_000),
        ("2006-01-02Z", 1_136_160_000),
        ("1136073845", 1_136_073_845),
        ("-10", -10),
        ("10m", 1_700_000_000 - 600),
        ("1h30m", 1_700_000_000 - 5400),
        ("-10s", 1_700_000_000 + 10),
    ],
)
def test_reading(text: str, seconds: int) -> None:
    assert timestamps.moment(text, NOW) == seconds * SECOND_NS


def test_reading_decimals() -> None:
    assert timestamps.moment("1136073845.000000001", NOW) == 1_136_073_845_000_000_001
    assert timestamps.moment("1136073845.5", NOW) == 1_136_073_845_500_000_000
    assert timestamps.moment("2006-01-02T15:04:05.25Z", NOW) == 1_136_214_245_250_000_000


@pytest.mark.usefixtures("far_east")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2006-01-02", 1_136_127_600),
        ("2006-01-02T15:04:05", 1_136_181_845),
        ("2006-01-02T15:04", 1_136_181_840),
        ("2006-01-02T15:04:05Z", 1_136_214_245),
    ],
)
def test_without_a_zone_it_is_local_time(text: str, seconds: int) -> None:
    assert timestamps.moment(text, NOW) == seconds * SECOND_NS


@pytest.mark.parametrize(
    "text",
    ["", "abc", "2006-13-02", "2006-02-30", "2006-01-02T25", "2006-01-02T15:04:05+99:00",
     "2006-01-02 15:04", "5x", "1.2.3", "²", "10 m", "0000-01-01", "9" * 5000,
     "-" + "9" * 5000],
)  # fmt: skip
def test_no_moment(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        timestamps.moment(text, NOW)
    assert caught.value.message == f'failed to parse value as time or duration: "{text}"'


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0), ("5s", 5 * SECOND_NS), ("30s", 30 * SECOND_NS), ("1.5s", 1_500_000_000),
        (".5s", 500_000_000), ("1.s", SECOND_NS), ("-1m", -60 * SECOND_NS), ("+5ns", 5),
        ("1us", 1000), ("1µs", 1000), ("1μs", 1000), ("5ms", 5_000_000),
        ("1h15m30.918273645s", 4_530_918_273_645),
        ("0.3333333333333333333h", 1_199_999_999_999), ("39h9m14.425s", 140_954_425_000_000),
        ("0." + "3" * 5000 + "s", 333_333_333),
    ],
)  # fmt: skip
def test_durations_as_go_reads_them(text: str, nanoseconds: int) -> None:
    assert timestamps.duration(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "s",
        ".",
        "-.",
        ".s",
        "+.s",
        "1s ",
        "3000000h",
        "s1",
        "9" * 5000 + "s",
        "²s",
    ],
)
def test_durations_that_go_refuses(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        timestamps.duration(text)
    assert caught.value.message == f'time: invalid duration "{text}"'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("3", "missing unit in"),
        ("1s2.", "missing unit in"),
        ("1d", 'unknown unit "d" in'),
        ("1 s", 'unknown unit " s" in'),
        ("-1m.5S3", 'unknown unit "S" in'),
    ],
)
def test_what_go_says_of_a_duration(text: str, fault: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        timestamps.duration(text)
    assert caught.value.message == f'time: {fault} duration "{text}"'


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "Less than a second"), (1, "1 second"), (45, "45 seconds"), (59.9, "59 seconds"),
        (60, "About a minute"), (119, "About a minute"), (180, "3 minutes"),
        (59 * 60 + 59, "59 minutes"), (3600, "About an hour"), (89 * 60, "About an hour"),
        (90 * 60, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"),
        (13 * 86400, "13 days"), (14 * 86400, "2 weeks"), (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"), (729 * 86400, "24 months"), (730 * 86400, "2 years"),
        (-5, "Less than a second"),
    ],
)  # fmt: skip
def test_words(seconds: float, words: str) -> None:
    assert timestamps.spoken(int(seconds * SECOND_NS)) == words


@pytest.mark.parametrize(
    ("text", "moment_ns"),
    [
        ("1970-01-01T00:00:02Z", 2_000_000_000),
        ("1970-01-01T00:00:02.5Z", 2_500_000_000),
        ("1970-01-01T01:00:00.25+01:00", 250_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:02", timestamps.UNKNOWN_NS),
        ("1970-01-01", timestamps.UNKNOWN_NS),
        ("0001-01-01T00:00:00Z", timestamps.UNKNOWN_NS),
        ("", timestamps.UNKNOWN_NS),
    ],
)
def test_when_an_image_was_made(text: str, moment_ns: int) -> None:
    assert timestamps.created_ns(text) == moment_ns
