import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec import number_lists


def test_number_lists() -> None:
    assert number_lists.number_list("") == set()
    assert number_lists.number_list("0") == {0}
    assert number_lists.number_list("0-2,7,7") == {0, 1, 2, 7}
    assert number_lists.bits("0-2,7") == 0b10000111
    assert max(number_lists.number_list("8190-8192")) == 8192


@given(st.sets(st.integers(0, 300)))
def test_a_list_has_the_numbers_that_it_names(numbers: set[int]) -> None:
    assert number_lists.number_list(",".join(map(str, sorted(numbers)))) == numbers


@pytest.mark.parametrize(
    "text",
    ["x", "3-1", "1,", ",", "1-", "-1", "1-2-3", " 1", "\u00b2", "0-\u00b2", "1_0", "9" * 5000],
)
def test_malformed_number_lists(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid format"):
        number_lists.number_list(text)


@pytest.mark.parametrize("text", ["8193", "0-8193", "0-40000000", "3,0-999999999999"])
def test_a_number_list_is_bounded(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="maximum is 8192"):
        number_lists.number_list(text)


def test_a_list_costs_what_its_text_does() -> None:
    """Each of these is the whole list once more, a thousand million numbers in all."""
    assert len(number_lists.number_list(",".join(["0-8192"] * 120_000))) == 8193


def test_blanks_are_taken_off_around_numbers_only() -> None:
    assert number_lists.without_blanks(" 1, 3 - 4\t,7\n") == "1,3-4,7"
    assert number_lists.without_blanks("1 2") == "1 2"
