import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec import values


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("100", 100),
        ("100b", 100),
        ("1k", 1024),
        ("100m", 100 << 20),
        ("100MB", 100 << 20),
        ("1.5g", 3 << 29),
        ("1.5GiB", 3 << 29),
        (".5g", 1 << 29),
        ("1 g", 1 << 30),
        ("2t", 2 << 40),
        ("1p", 1 << 50),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert values.size(text) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "invalid size: 'x'"),
        ("", "invalid size: ''"),
        ("-1", "invalid size: '-1'"),
        ("5gg", "invalid suffix: 'gg'"),
        ("1ki", "invalid suffix: 'ki'"),
        ("1bb", "invalid suffix: 'bb'"),
        ("1e", "invalid suffix: 'e'"),
        ("1  g", 'strconv.ParseFloat: parsing "1 ": invalid syntax'),
        ("1_0m", 'strconv.ParseFloat: parsing "1_0": invalid syntax'),
        ("99999p", "invalid size: '99999p'"),
    ],
)
def test_malformed_sizes_have_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        values.size(text)
    assert caught.value.message == message


@given(st.integers(0, (1 << 53) - 1))
def test_whole_bytes_are_exact(size: int) -> None:
    assert values.size(str(size)) == size


@given(st.text())
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidArgumentError):
        assert 0 <= values.size(text) < 1 << 63


def test_only_minus_one_is_a_negative_swap_size() -> None:
    assert values.swap_size("-1") == -1
    with pytest.raises(InvalidArgumentError):
        values.swap_size("-2")


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("1", 10**9),
        ("0.25", 250_000_000),
        ("1.5", 1_500_000_000),
        (".5", 500_000_000),
        ("2.", 2 * 10**9),
        ("1/2", 500_000_000),
        (".5e-1", 50_000_000),
        ("0.000000001", 1),
        ("-1", -(10**9)),
        ("+1", 10**9),
    ],
)
def test_cpus(text: str, nanos: int) -> None:
    assert values.cpus(text) == nanos


@pytest.mark.parametrize(
    "text", ["x", "", ".", "1e", "1/0", "1/", "--1", "1 ", "1.2.3", "٣", "1e9999"]
)
def test_malformed_cpus(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"failed to parse .* as a rational number"):
        values.cpus(text)


@pytest.mark.parametrize("text", ["1/3", "0.0000000001"])
def test_cpus_beyond_a_billionth(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="value is too precise"):
        values.cpus(text)


@given(st.text(alphabet="0123456789.e-+/", max_size=12))
def test_any_text_is_a_number_of_cpus_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidArgumentError):
        assert abs(values.cpus(text)) <= 1 << 63


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("-7", -7), ("+7", 7), ("0x1F", 31), ("010", 8), ("0o10", 8), ("0b11", 3)],
)
def test_integers_have_gos_bases(text: str, number: int) -> None:
    assert values.integer(text) == number


@pytest.mark.parametrize("text", ["", "x", "1.0", " 1", "1 ", "--1", "08", "٣"])
def test_malformed_integers(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid syntax"):
        values.integer(text)


def test_integers_out_of_range() -> None:
    assert values.integer("-9223372036854775808") == -(1 << 63)
    with pytest.raises(InvalidArgumentError, match="value out of range"):
        values.integer("9223372036854775808")
    with pytest.raises(InvalidArgumentError, match="value out of range"):
        values.unsigned16("65536")
    with pytest.raises(InvalidArgumentError, match=r"ParseUint.*invalid syntax"):
        values.unsigned16("-1")


def test_ulimits() -> None:
    assert values.ulimit("nofile=5") == {"Name": "nofile", "Soft": 5, "Hard": 5}
    assert values.ulimit("nofile=5:9") == {"Name": "nofile", "Soft": 5, "Hard": 9}
    assert values.ulimit("core=-1") == {"Name": "core", "Soft": -1, "Hard": -1}
    assert values.ulimit("core=1:-1") == {"Name": "core", "Soft": 1, "Hard": -1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", "invalid ulimit argument: foo"),
        ("foo=1", "invalid ulimit type: foo"),
        ("nofile=x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("nofile=", 'strconv.ParseInt: parsing "": invalid syntax'),
        ("nofile=9:8", "ulimit soft limit must be less than or equal to hard limit: 9 > 8"),
        (
            "nofile=-1:10",
            "ulimit soft limit must be less than or equal to hard limit: "
            "soft: -1 (unlimited), hard: 10",
        ),
        (
            "nofile=1:2:3",
            "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`",
        ),
    ],
)
def test_malformed_ulimits(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        values.ulimit(text)
    assert caught.value.message == message
