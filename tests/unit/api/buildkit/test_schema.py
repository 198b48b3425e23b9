"""Messages whose classes are made of .proto texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.api.buildkit import schema
from ketch.errors import InvalidArgumentError

control, session = schema.messages("control"), schema.messages("session")


def test_a_message_is_what_protobufs_own_encoding_says() -> None:
    # By hand from the encoding's description: field 1 text, field 7 a map's entry.
    message = control.SolveRequest(Ref="x", FrontendAttrs={"a": "b"})
    assert schema.encode(message) == b"\x0a\x01x\x3a\x06\x0a\x01a\x12\x01b"
    packet = session.Packet(type=3, ID=300)
    assert schema.encode(packet) == b"\x08\x03\x18\xac\x02"


def test_unknown_fields_are_passed_over_and_oneofs_tell_which() -> None:
    known = schema.decode(control.StatusRequest, b"\x0a\x01r\x7a\x03new")
    assert known.Ref == "r"
    assert control.Result(ref=control.Ref(id="1")).WhichOneof("result") == "ref"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_packet_or_refused(data: bytes) -> None:
    try:
        packet = schema.decode(session.Packet, data)
    except InvalidArgumentError:
        return
    assert schema.decode(session.Packet, schema.encode(packet)) == packet


@given(
    st.builds(
        dict,
        path=st.binary(max_size=40),
        mode=st.integers(0, (1 << 32) - 1),
        size=st.integers(-(1 << 63), (1 << 63) - 1),
        xattrs=st.dictionaries(st.text(max_size=10), st.binary(max_size=10), max_size=3),
    )
)
def test_what_is_encoded_is_decoded(fields: dict[str, object]) -> None:
    stat = session.Stat(**fields)
    found = schema.decode(session.Packet, schema.encode(session.Packet(stat=stat))).stat
    assert {name: getattr(found, name) for name in fields if name != "xattrs"} == {
        name: value for name, value in fields.items() if name != "xattrs"
    }
    assert dict(found.xattrs) == fields["xattrs"]


@pytest.mark.parametrize(
    "text",
    ["message A {}", "package p; enum A {}", "package p; message A { string a = 1 }",
     "package p; message A { string a = 1;", "package p; message A { string a = 1; } §"],
)  # fmt: skip
def test_a_text_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|early|understood"):
        schema.compiled(text)
