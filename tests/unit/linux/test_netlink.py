"""Netlink's wire format, against its description and against anything that may arrive."""

import contextlib
import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError, SyscallError, UnsupportedError
from ketch.linux import netlink
from ketch.linux.netlink import Message

attribute_rows = st.lists(
    st.tuples(st.integers(0, netlink.NLA_TYPE_MASK), st.binary(max_size=300)), max_size=8
)
messages = st.lists(
    st.builds(
        Message,
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFF),
        st.binary(max_size=300),
        st.integers(0, 0xFFFFFFFF),
    ),
    max_size=6,
)


def fields(message: Message) -> tuple[int, int, bytes, int]:
    return message.kind, message.flags, message.payload, message.sequence


@given(messages)
def test_a_row_of_messages_comes_back_as_it_went(row: list[Message]) -> None:
    datagram = b"".join(message.encode() for message in row)
    assert [fields(message) for message in netlink.decode(datagram)] == list(map(fields, row))
    assert len(datagram) % 4 == 0


@given(attribute_rows, st.binary(max_size=16))
def test_a_row_of_attributes_comes_back_as_it_went(
    row: list[tuple[int, bytes]], structure: bytes
) -> None:
    structure += bytes(-len(structure) % 4)
    payload = structure + b"".join(netlink.attribute(kind, value) for kind, value in row)
    assert netlink.attributes(payload, len(structure)) == row


@given(attribute_rows)
def test_nesting_is_flagged_and_comes_back(row: list[tuple[int, bytes]]) -> None:
    encoded = netlink.nested(7, *(netlink.attribute(kind, value) for kind, value in row))
    assert struct.unpack_from("=HH", encoded)[1] == 7 | netlink.NLA_F_NESTED
    ((kind, value),) = netlink.attributes(encoded)
    assert kind == 7
    assert netlink.attributes(value) == row


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read_but_nothing_else(garbage: bytes) -> None:
    for read in (lambda: list(netlink.decode(garbage)), lambda: netlink.attributes(garbage)):
        with contextlib.suppress(UnsupportedError):
            read()


@given(st.binary(max_size=100), st.sampled_from([netlink.NLMSG_ERROR, netlink.NLMSG_DONE]))
def test_a_garbled_acknowledgement_is_refused_or_read(garbage: bytes, kind: int) -> None:
    for flags in (0, netlink.NLM_F_ACK_TLVS, netlink.NLM_F_ACK_TLVS | netlink.NLM_F_CAPPED):
        with contextlib.suppress(UnsupportedError):
            netlink.outcome(Message(kind, flags, garbage))


def test_lengths_that_point_outside_are_refused() -> None:
    message = bytearray(Message(16, 0, b"abcd").encode())
    message[0] = 200
    with pytest.raises(UnsupportedError, match="claims 200 bytes where 20 are left"):
        list(netlink.decode(bytes(message)))
    with pytest.raises(UnsupportedError, match="attribute 3 claims 9 bytes"):
        netlink.attributes(struct.pack("=HH", 9, 3) + b"abcd")


def test_values_that_do_not_fit_are_refused() -> None:
    netlink.attribute(1, bytes(0xFFFB))
    with pytest.raises(InvalidArgumentError, match="65532 bytes for attribute 1"):
        netlink.attribute(1, bytes(0xFFFC))
    with pytest.raises(InvalidArgumentError, match="zero byte"):
        netlink.text(1, "eth\0")


def test_strings_and_numbers_are_read_as_written() -> None:
    ((_, name),) = netlink.attributes(netlink.text(3, "ketch0"))
    assert netlink.string(name) == "ketch0"
    ((_, value),) = netlink.attributes(netlink.u32(4, 1500))
    assert netlink.number(value) == 1500
    assert netlink.number(b"") == 0


def acknowledgement(code: int, flags: int, request: bytes, words: str = "") -> Message:
    tail = netlink.text(netlink.NLMSGERR_ATTR_MSG, words) if words else b""
    header = struct.pack("=IHHII", 16 + len(request), 16, 0, 1, 0)
    # Without NLM_F_CAPPED the kernel echoes the request's payload, but only with an error.
    echo = b"" if flags & netlink.NLM_F_CAPPED or not code else request + bytes(-len(request) % 4)
    return Message(netlink.NLMSG_ERROR, flags, struct.pack("=i", -code) + header + echo + tail)


@pytest.mark.parametrize("capped", [0, netlink.NLM_F_CAPPED])
@pytest.mark.parametrize("request_payload", [b"", b"abcde", b"a" * 64])
def test_the_kernels_own_words_are_found_behind_the_request(
    capped: int, request_payload: bytes
) -> None:
    flags = capped | netlink.NLM_F_ACK_TLVS
    message = acknowledgement(errno.EINVAL, flags, request_payload, "Invalid MTU")
    assert netlink.outcome(message) == (errno.EINVAL, "Invalid MTU")
    assert netlink.outcome(acknowledgement(0, flags, request_payload)) == (0, "")
    assert netlink.outcome(acknowledgement(errno.EPERM, capped, request_payload)) == (
        errno.EPERM,
        "",
    )


def test_a_dump_may_end_with_or_without_a_status() -> None:
    assert netlink.outcome(Message(netlink.NLMSG_DONE, 0, b"")) == (0, "")
    assert netlink.outcome(Message(netlink.NLMSG_DONE, 0, struct.pack("=i", 0))) == (0, "")
    assert netlink.outcome(Message(netlink.NLMSG_DONE, 0, struct.pack("=i", -1))) == (1, "")


class Dumps:
    """A socket whose other end is no kernel: each dump is answered with what is next.

    Args:
        answers: of each dump, the flags of its two messages and of its end.
    """

    def __init__(self, *answers: tuple[int, int, int]) -> None:
        self._answers = list(answers)
        self._waiting: list[bytes] = []
        self.asked = 0

    def send(self, datagram: bytes) -> int:
        (request,) = netlink.decode(datagram)
        assert request.flags & netlink.NLM_F_DUMP == netlink.NLM_F_DUMP
        flags = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        kinds = (16, 16, netlink.NLMSG_DONE)
        for kind, flag in zip(kinds, flags, strict=True):
            payload = b"" if kind == netlink.NLMSG_DONE else bytes([self.asked, 0, 0, 0])
            message = Message(kind, netlink.NLM_F_MULTI | flag, payload, request.sequence)
            self._waiting.append(message.encode())
        return len(datagram)

    def recv_into(self, buffer: bytearray, _size: int, _flags: int) -> int:
        datagram = self._waiting.pop(0)
        buffer[: len(datagram)] = datagram
        return len(datagram)


def dumped(answers: Dumps) -> list[int]:
    """Which of the dumps the messages are of that a socket gives its caller."""
    reader = netlink.Socket.__new__(netlink.Socket)
    reader._socket, reader._sequence, reader._buffer = answers, 0, bytearray(4096)  # type: ignore[assignment]
    request = netlink.Request("RTM_GETLINK", 18, 0, b"", "list links")
    return [message.payload[0] for message in reader.dump(request)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_dump_that_others_changed_is_begun_again(place: int) -> None:
    interrupted = tuple(netlink.NLM_F_DUMP_INTR if one == place else 0 for one in range(3))
    answers = Dumps(interrupted, interrupted, (0, 0, 0))  # type: ignore[arg-type]
    assert dumped(answers) == [3, 3]
    assert answers.asked == 3


def test_a_dump_that_never_holds_still_is_given_up() -> None:
    answers = Dumps((0, netlink.NLM_F_DUMP_INTR, 0))
    with pytest.raises(SyscallError, match="list links") as caught:
        dumped(answers)
    assert caught.value.errno == errno.EINTR
    assert 1 < answers.asked < 100
