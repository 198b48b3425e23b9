"""Digits that others wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.spec.digits import DIGITS_MAX, decimal, signed


@given(st.integers(0, 10**DIGITS_MAX - 1))
def test_a_number_is_read(number: int) -> None:
    assert decimal(str(number)) == number


@given(st.text())
def test_nothing_but_ascii_digits_is_a_number(text: str) -> None:
    ascii_digits = text != "" and set(text) <= set("0123456789") and len(text) <= DIGITS_MAX
    assert (decimal(text) is not None) == ascii_digits


@pytest.mark.parametrize("text", ["", "²", "٣", "1²", "-1", "+1", " 1", "1_0", "1" * 20, "1\n"])
def test_what_int_or_isdigit_would_take_is_none(text: str) -> None:
    assert decimal(text) is None


@given(st.integers(1 - 10**DIGITS_MAX, 10**DIGITS_MAX - 1))
def test_a_number_with_a_sign_is_read(number: int) -> None:
    assert signed(str(number)) == signed(f"{number:+}") == number


@given(st.text("+-_ 059²٣", max_size=5))
def test_nothing_but_one_sign_and_ascii_digits_is_a_number_with_a_sign(text: str) -> None:
    digits = text[1:] if text[:1] in {"+", "-"} else text
    assert (signed(text) is not None) == (digits != "" and set(digits) <= set("059"))
