import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.spec import json_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(VALUES)
def test_reads_and_writes_as_the_standard_library_does(value: object) -> None:
    assert json_text.dumps(value) == json.dumps(value, separators=(",", ":"))
    assert json_text.loads(json.dumps(value)) == value


@given(VALUES, st.sampled_from(["  ", "    ", "\t"]))
def test_indents_as_the_standard_library_does(value: object, indent: str) -> None:
    assert json_text.dumps_indented(value, indent) == json.dumps(value, indent=indent)


@pytest.mark.parametrize(
    "text", ["", "  ", "{", "[1,]", "{}{}", '{"a":1}x', "NaN", "[Infinity]", '"\x01"', "nul"]
)
def test_refuses_what_is_not_one_document(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 the message is the C scanner's
        json_text.loads(text)


def test_takes_bytes() -> None:
    assert json_text.loads(b'\n{"a": "\xc3\xa9"} ') == {"a": "é"}


def test_writes_no_nan() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 the message is the C encoder's
        json_text.dumps(float("nan"))
