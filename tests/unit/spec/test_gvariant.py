"""GVariant's text format."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.spec import gvariant
from ketch.spec.dbus import Variant


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", Variant("b", True)),
        ("12", Variant("i", 12)),
        ("-3", Variant("i", -3)),
        ("0x10", Variant("i", 16)),
        ("1.5", Variant("d", 1.5)),
        ("uint64 123456789", Variant("t", 123456789)),
        ("byte 0x2f", Variant("y", 47)),
        ("'inactive-or-failed'", Variant("s", "inactive-or-failed")),
        ('"a\\"b\\n"', Variant("s", 'a"b\n')),
        (r"'é\u00e9'", Variant("s", "éé")),
        ("objectpath '/a'", Variant("o", "/a")),
        ("['a', 'b']", Variant("as", ["a", "b"])),
        ("@as []", Variant("as", [])),
        ("[uint32 1, 2]", Variant("au", [1, 2])),
        ("('x', 1)", Variant("(si)", ("x", 1))),
        ("[('a', true)]", Variant("a(sb)", [("a", True)])),
        ("@a(ss) [('a', 'b')]", Variant("a(ss)", [("a", "b")])),
        ("  5  ", Variant("i", 5)),
    ],
)
def test_values(text: str, value: Variant) -> None:
    assert gvariant.parse(text) == value


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "'a", "[1, 'a']", "byte 256", "1 2", "(1", "@zz 1", "uint32 'a'", "[1"]
)
def test_no_values(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        gvariant.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        gvariant.parse(text)
