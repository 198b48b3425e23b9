"""Identifiers and names."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.records import names
from ketch.errors import InvalidArgumentError


def test_identifiers_are_64_hexadecimal_digits_and_differ() -> None:
    made = {names.new_id() for _ in range(200)}
    assert len(made) == 200
    for identifier in made:
        assert len(identifier) == 64
        assert set(identifier) <= set("0123456789abcdef")


def test_an_identifier_never_begins_with_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([b"\x12" * 32, b"\xab" * 32])
    monkeypatch.setattr("os.urandom", lambda _: next(draws))
    assert names.new_id() == "ab" * 32


def test_generated_names_are_names() -> None:
    for attempt in range(12):
        name = names.new_name(attempt)
        assert names.check_name(name) == name
        assert name[-1].isdigit() == (attempt >= 6)


def test_there_are_names_enough() -> None:
    first, second = names._FIRST.split(), names._SECOND.split()
    assert len(set(first)) == len(first)
    assert len(set(second)) == len(second)
    assert len(first) * len(second) > 15_000


@pytest.mark.parametrize("name", ["a1", "web-1.test_x", "0a", "x" * 200])
def test_good_names(name: str) -> None:
    assert names.check_name(name) == name
    assert names.check_name("/" + name) == name


@pytest.mark.parametrize(
    "name", ["", "a", "-a", ".a", "_a", "a b", "a/b", "//ab", "äb", "a\n", "²a"]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="Invalid container name"):
        names.check_name(name)


@given(st.text(max_size=6))
def test_whatever_passes_is_a_safe_path_component(name: str) -> None:
    try:
        bare = names.check_name(name)
    except InvalidArgumentError:
        return
    assert set(bare) <= set(string.ascii_letters + string.digits + "_.-")
    assert bare not in {".", ".."}
