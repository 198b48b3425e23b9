"""Frames under any cut, requests and failures there and back, and nonsense refused."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch import errors
from ketch.engine.requests import wire

FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8)
# What the bytes of an argument or a variable can be once Python has decoded them.
TEXT = st.binary(max_size=30).map(
    lambda data: data.replace(b"\0", b"\1").decode("utf-8", "surrogateescape")
)
FIELDS = st.dictionaries(TEXT, TEXT | st.booleans() | st.integers() | st.lists(TEXT, max_size=4))


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 2500)))
def test_frames_come_whole_however_they_are_cut(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(wire.frame(kind, payload) for kind, payload in frames)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    decoder = wire.Decoder()
    got = [
        frame for start, end in itertools.pairwise(edges) for frame in decoder.feed(data[start:end])
    ]
    assert got == frames


@given(data=st.binary(max_size=200), cut=st.integers(0, 200))
def test_hostile_frames_are_given_or_refused(data: bytes, cut: int) -> None:
    decoder = wire.Decoder()
    try:
        got = [*decoder.feed(data[:cut]), *decoder.feed(data[cut:])]
    except wire.ProtocolError:
        return
    assert data.startswith(b"".join(wire.frame(kind, payload) for kind, payload in got))


@pytest.mark.parametrize(
    "header",
    [
        b"\0\1\0\0\0\0\0\0",
        b"\0\0\0\1\0\0\0\0",
        b"\0\0\0\0" + (wire.PAYLOAD_BYTES_MAX + 1).to_bytes(4, "big"),
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_a_bad_header_is_refused_before_its_payload_is_awaited(header: bytes) -> None:
    with pytest.raises(wire.ProtocolError, match="bad frame header"):
        list(wire.Decoder().feed(header))


def test_the_longest_payload_is_taken() -> None:
    payload = bytes(wire.PAYLOAD_BYTES_MAX)
    assert list(wire.Decoder().feed(wire.frame(9, payload))) == [(9, payload)]


@given(fields=FIELDS)
def test_a_request_comes_out_as_it_went_in(fields: "dict[str, wire.Value]") -> None:
    got = wire.decode(wire.encode(fields))
    assert got == fields
    assert [type(value) for value in got.values()] == [type(value) for value in fields.values()]


@given(data=st.binary(max_size=200))
def test_a_hostile_request_is_given_or_refused(data: bytes) -> None:
    try:
        fields = wire.decode(data)
    except wire.ProtocolError:
        return
    assert wire.decode(wire.encode(fields)) == fields


@pytest.mark.parametrize(
    "data",
    [b"name", b"name\0", b"name\0x", b"name\0i", b"name\0iten", b"name\0l2\0one", b"name\0l-",
     b"name\0l99999999999999999999\0one", b"n\0i" + b"9" * 5000],
)  # fmt: skip
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.decode(data)


def test_bytes_that_are_no_text_stay_what_they_are() -> None:
    name = b"caf\xe9\xff".decode("utf-8", "surrogateescape")
    assert b"caf\xe9\xff" in wire.encode({"name": name})
    assert wire.decode(wire.encode({"name": name})) == {"name": name}


@given(status=st.none() | st.integers(0, 255), message=TEXT, hint=TEXT)
def test_a_failure_comes_out_as_it_went_in(status: int | None, message: str, hint: str) -> None:
    assert wire.decode_failure(wire.encode_failure(status, message, hint, "NotFoundError")) == (
        status, message, hint, "NotFoundError",
    )  # fmt: skip


def test_a_nul_in_a_failure_does_not_shift_its_parts() -> None:
    assert wire.decode_failure(wire.encode_failure(1, "a\0b", "c")) == (1, "a\\0b", "c", "")


@pytest.mark.parametrize("name", ["KetchError", "SyscallError", "os", "", "NoSuchError"])
def test_a_failure_of_no_class_that_is_meant_is_still_one_of_ours(name: str) -> None:
    raised = wire.error(wire.encode_failure(None, "what", "why", name))
    assert (raised.message, raised.hint) == ("what", "why")
    assert type(raised).__name__ in {"KetchError", "UnavailableError"}


@pytest.mark.parametrize("data", [b"", b"125", b"1\0a\0b", b"x\0a\0b\0c", b"1\0a\0b\0c\0d"])
def test_what_is_no_failure_is_refused(data: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.decode_failure(data)


@pytest.mark.parametrize("text", ["a\0--privileged\0b1", "\0", "\ud800"])
def test_what_would_be_read_otherwise_is_not_sent(text: str) -> None:
    fields: tuple[dict[str, wire.Value], ...] = (
        {"name": text}, {text: "value"}, {"arguments": ["one", text], "--user": ""}
    )  # fmt: skip
    for asked in fields:
        with pytest.raises(errors.InvalidArgumentError):
            wire.encode(asked)
