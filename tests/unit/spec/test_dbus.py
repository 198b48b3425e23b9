"""D-Bus marshalling: what goes out comes back, and known bytes stay known."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.spec import dbus
from ketch.spec.dbus import Message, Variant

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
BASIC: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(2**15), 2**15 - 1),
    "q": st.integers(0, 2**16 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "u": st.integers(0, 2**32 - 1),
    "x": st.integers(-(2**63), 2**63 - 1),
    "t": st.integers(0, 2**64 - 1),
    "d": st.floats(allow_nan=False),
    "s": TEXT,
    "o": st.just("/org/freedesktop/systemd1"),
    "g": st.sampled_from(["", "s", "a(sv)", "a{sv}"]),
}
SIGNATURES = st.recursive(
    st.sampled_from([*BASIC, "v"]),
    lambda inner: st.one_of(
        inner.map(lambda kind: f"a{kind}"),
        st.lists(inner, min_size=1, max_size=3).map(lambda kinds: f"({''.join(kinds)})"),
        st.tuples(st.sampled_from(list("yqixtsbo")), inner).map(lambda p: f"a{{{p[0]}{p[1]}}}"),
    ),
    max_leaves=6,
)


def values(kind: str) -> st.SearchStrategy[Any]:
    """Values of one complete type."""
    if kind in BASIC:
        return BASIC[kind]
    if kind == "v":
        inner = st.sampled_from(["s", "u", "as", "(st)"])
        return inner.flatmap(lambda k: values(k).map(lambda value: Variant(k, value)))
    if kind.startswith("a{"):
        key, value = dbus.types(kind[2:-1])
        return st.dictionaries(values(key), values(value), max_size=3)
    if kind.startswith("a"):
        return st.lists(values(kind[1:]), max_size=3)
    return st.tuples(*(values(member) for member in dbus.types(kind[1:-1])))


@given(st.lists(SIGNATURES, max_size=4).flatmap(
    lambda kinds: st.tuples(st.just("".join(kinds)), st.tuples(*map(values, kinds)))
))  # fmt: skip
def test_values_come_back_as_they_went(pair: tuple[str, tuple[Any, ...]]) -> None:
    signature, sent = pair
    assert dbus.unmarshal(signature, dbus.marshal(signature, sent)) == list(sent)


@given(
    st.sampled_from([dbus.METHOD_CALL, dbus.METHOD_RETURN, dbus.ERROR, dbus.SIGNAL]),
    st.integers(1, 2**32 - 1),
    TEXT.filter(bool),
    st.lists(TEXT, max_size=3),
)
def test_messages_come_back_and_tell_their_length(
    kind: int, serial: int, member: str, body: list[str]
) -> None:
    fields = {"path": "/a", "member": member, "reply_to": 7}
    if body:
        fields["signature"] = "s" * len(body)
    data = Message(kind, serial, fields, body).encode()
    assert dbus.length(data[: dbus.FIXED_BYTES]) == len(data)
    found = Message.decode(data)
    assert (found.kind, found.serial, found.fields, found.body) == (kind, serial, fields, body)


@given(st.binary(max_size=80), SIGNATURES)
def test_strange_bytes_are_refused_in_words(data: bytes, signature: str) -> None:
    for read in (lambda: dbus.unmarshal(signature, data), lambda: Message.decode(b"l" + data)):
        try:
            read()
        except ValueError:
            continue


def test_known_bytes() -> None:
    # From the specification: an array of one 64-bit number begins at offset 8, and its padding
    # does not count.
    assert dbus.marshal("at", [[5]]) == struct.pack("<IIQ", 8, 0, 5)
    assert dbus.marshal("yu", [1, 2]) == b"\1\0\0\0\2\0\0\0"
    assert dbus.marshal("s", ["ab"]) == b"\2\0\0\0ab\0"
    assert dbus.marshal("v", [Variant("b", True)]) == b"\1b\0\0\1\0\0\0"
    assert dbus.unmarshal("q", b"\1\2", ">") == [0x102]


def test_hello_as_every_client_sends_it() -> None:
    message = Message(dbus.METHOD_CALL, 1, {
        "path": "/org/freedesktop/DBus", "interface": "org.freedesktop.DBus", "member": "Hello",
        "destination": "org.freedesktop.DBus",
    })  # fmt: skip
    assert message.encode() == (
        b"l\1\0\1\0\0\0\0\1\0\0\0m\0\0\0\1\1o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0"
        b"\2\1s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0\3\1s\0\5\0\0\0Hello\0\0\0"
        b"\6\1s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0"
    )


@pytest.mark.parametrize("signature", ["a", "(", "()", "a{s}", "z", "(s", "a" * 80 + "s"])
def test_no_types(signature: str) -> None:
    with pytest.raises(ValueError, match="type"):
        dbus.types(signature)


def test_values_that_do_not_fit_are_refused() -> None:
    for signature, sent in (("y", [256]), ("s", ["a\0b"]), ("(ss)", [("a",)]), ("s", [])):
        with pytest.raises(ValueError, match=r"."):
            dbus.marshal(signature, sent)
