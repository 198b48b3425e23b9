"""gRPC: messages' lengths, statuses, calls."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.api.buildkit import grpc, schema
from ketch.api.buildkit.grpc import Call, Code, Reader, StatusError, framed
from ketch.api.buildkit.http2 import Stream
from ketch.errors import InvalidArgumentError, NotFoundError, UnavailableError
from tests.unit.api.buildkit.wires import connected

session = schema.messages("session")


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 30))
def test_messages_come_out_as_they_went_in_however_they_are_cut(
    messages: list[bytes], cut: int
) -> None:
    data = b"".join(map(framed, messages))
    reader = Reader()
    found = []
    for at in range(0, len(data), cut):
        found += reader.feed(data[at : at + cut])
    assert found == messages
    assert not reader.is_amid


def test_compressed_and_large_messages_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="compressed"):
        Reader().feed(b"\x01\0\0\0\x01x")
    with pytest.raises(InvalidArgumentError, match="at most 4"):
        Reader(4).feed(b"\0\0\0\0\x05")


@pytest.mark.parametrize(
    ("status", "code"),
    [("5", 5), ("16", 16), ("", 2), ("-1", 2), ("+5", 2), ("1_0", 2), ("\u00b2", 2), ("\u0665", 2),
     ("12345", 2), ("9" * 5000, 2)],
)  # fmt: skip
def test_whatever_a_client_calls_a_status_is_one(status: str, code: int) -> None:
    with pytest.raises(StatusError) as caught:
        grpc._check_status([("grpc-status", status), ("grpc-message", "no%20way")])
    assert (int(caught.value.code), str(caught.value)) == (code, "no way")
    grpc._check_status([("grpc-status", "0")])
    with pytest.raises(StatusError, match="status 2"):
        grpc._check_status([])


async def _double(call: Call) -> None:
    asked = await call.request(session.GetSecretRequest)
    if asked.ID == "none":
        raise NotFoundError("secret none: not found – at all")
    if asked.ID == "mistake":
        raise ZeroDivisionError
    if asked.ID == "wait":
        await asyncio.Event().wait()
    await call.send(session.GetSecretResponse(data=asked.ID.encode() * 2))


def _asked(path: str, name: str, seconds: float = 5.0) -> bytes:
    async def accept(stream: Stream) -> None:
        await grpc.answer(stream, {"/a.B/Double": _double})

    async def main() -> bytes:
        async with connected(accept) as (client, _):
            request = session.GetSecretRequest(ID=name)
            answer = await grpc.ask(client, path, request, session.GetSecretResponse, seconds)
            data: bytes = answer.data
            return data

    return asyncio.run(main())


def test_a_call_is_answered_or_its_status_raised() -> None:
    assert _asked("/a.B/Double", "ab") == b"abab"
    for path, name, code, text in (
        ("/a.B/Double", "none", Code.NOT_FOUND, "secret none: not found – at all"),
        ("/a.B/Double", "mistake", Code.INTERNAL, "internal error: ZeroDivisionError"),
        ("/a.B/Other", "", Code.UNIMPLEMENTED, "unknown method /a.B/Other"),
    ):
        with pytest.raises(StatusError) as raised:
            _asked(path, name)
        assert (raised.value.code, raised.value.message) == (code, text)


def test_a_call_that_is_not_answered_ends() -> None:
    with pytest.raises(UnavailableError, match="in time"):
        _asked("/a.B/Double", "wait", 0.2)
