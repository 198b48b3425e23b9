"""Netlink: messages, attributes and acknowledgements, and a socket to exchange them by.

The wire format is netlink(7) and, for extended acknowledgements and dumps, the kernel's
Documentation/userspace-api/netlink/intro.rst: a datagram is a row of messages, each a header of 16
bytes and a payload, each payload a fixed structure and a row of attributes (type, length, value),
all of it in the machine's own byte order and padded to 4 bytes.

A whole row of requests goes out in one ``send``: the kernel handles them in order, one after
another, before the call returns, so configuring a namespace costs one system call and as many
reads as there are answers.
"""

import _socket
import errno
import struct
import sys
from collections.abc import Iterator, Sequence

from ketch.errors import (
    InvalidArgumentError,
    SyscallError,
    UnavailableError,
    UnsupportedError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

NLM_F_REQUEST = 0x001
NLM_F_MULTI = 0x002
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
# Of requests that read.
NLM_F_DUMP = 0x300
# Of requests that write.
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

NLMSGERR_ATTR_MSG = 1

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")

# The kernel never fills a dump's datagram beyond 32 KiB (netlink_dump in net/netlink/af_netlink.c).
_BUFFER_BYTES = 65536
# Answers wait in the socket's receive buffer; too many would overflow it (ENOBUFS).
_PIPELINE_REQUESTS = 64
# A dump that others keep changing under the reader is begun anew this often.
_DUMP_ATTEMPTS = 16
_ANSWER_SECONDS = 10


class Message:
    """One netlink message.

    Args:
        kind: NLMSG_* or the family's own message type.
        flags: NLM_F_*.
        payload: what follows the header.
        sequence: pairs an answer with its request.
    """

    __slots__ = ("flags", "kind", "payload", "sequence")

    def __init__(self, kind: int, flags: int, payload: bytes, sequence: int = 0) -> None:
        self.kind = kind
        self.flags = flags
        self.payload = payload
        self.sequence = sequence

    def encode(self) -> bytes:
        """The message as bytes, padded, ready to be joined with others."""
        length = _HEADER.size + len(self.payload)
        header = _HEADER.pack(length, self.kind, self.flags, self.sequence, 0)
        return header + self.payload + bytes(-length % 4)


class Request:
    """What the kernel is asked to do, and how to speak of it when it fails.

    Args:
        name: the message type's name, such as ``RTM_NEWLINK``: the "call" of a SyscallError.
        kind: the message type.
        flags: NLM_F_* beside NLM_F_REQUEST and NLM_F_ACK, which are added on sending.
        payload: the family's structure and attributes.
        detail: what the request is to do, in words.
        accept: error numbers that mean success, such as EEXIST where existing will do.
    """

    __slots__ = ("accept", "detail", "flags", "kind", "name", "payload")

    def __init__(
        self,
        name: str,
        kind: int,
        flags: int,
        payload: bytes,
        detail: str,
        accept: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.kind = kind
        self.flags = flags
        self.payload = payload
        self.detail = detail
        self.accept = accept


def decode(datagram: bytes | memoryview) -> Iterator[Message]:
    """Take a datagram apart into its messages.

    Raises:
        UnsupportedError: a length points outside the datagram.
    """
    offset, end = 0, len(datagram)
    while offset < end:
        if end - offset < _HEADER.size:
            raise UnsupportedError(f"netlink: {end - offset} stray bytes after the last message")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        if not _HEADER.size <= length <= end - offset:
            raise UnsupportedError(
                f"netlink: a message claims {length} bytes where {end - offset} are left"
            )
        payload = bytes(datagram[offset + _HEADER.size : offset + length])
        yield Message(kind, flags, payload, sequence)
        offset += length + (-length % 4)


def attribute(kind: int, value: bytes) -> bytes:
    """Encode one attribute, padded to 4 bytes.

    Raises:
        InvalidArgumentError: the value does not fit an attribute's 16-bit length.
    """
    length = _ATTRIBUTE.size + len(value)
    if length > 0xFFFF:
        raise InvalidArgumentError(f"netlink: a value of {len(value)} bytes for attribute {kind}")
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Encode an attribute whose value is a row of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def u32(kind: int, value: int) -> bytes:
    """Encode an attribute of 32 bits in the machine's byte order."""
    return attribute(kind, value.to_bytes(4, sys.byteorder))


def text(kind: int, value: str) -> bytes:
    """Encode an attribute that is a string, with the zero byte that the kernel wants.

    Raises:
        InvalidArgumentError: the string itself has a zero byte.
    """
    if "\0" in value:
        raise InvalidArgumentError(f"netlink: zero byte in {value!r}")
    return attribute(kind, value.encode() + b"\0")


def attributes(payload: bytes, offset: int = 0) -> list[tuple[int, bytes]]:
    """Take a row of attributes apart.

    Args:
        payload: a message's payload, or a nested attribute's value.
        offset: where the attributes begin: the size of the structure before them, padded.

    Returns:
        Types, without the flags for nesting and byte order, and values, in their order.

    Raises:
        UnsupportedError: a length points outside the payload.
    """
    found = []
    end = len(payload)
    while end - offset >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if not _ATTRIBUTE.size <= length <= end - offset:
            raise UnsupportedError(
                f"netlink: attribute {kind & NLA_TYPE_MASK} claims {length} bytes "
                f"where {end - offset} are left"
            )
        found.append((kind & NLA_TYPE_MASK, payload[offset + _ATTRIBUTE.size : offset + length]))
        offset += length + (-length % 4)
    return found


def string(value: bytes) -> str:
    """The text of a string attribute: up to its zero byte."""
    return value.split(b"\0", 1)[0].decode(errors="replace")


def number(value: bytes) -> int:
    """An unsigned integer attribute of any width, in the machine's byte order."""
    return int.from_bytes(value, sys.byteorder)


def outcome(message: Message) -> tuple[int, str]:
    """Read an acknowledgement (NLMSG_ERROR) or the end of a dump (NLMSG_DONE).

    Returns:
        The error number, 0 for success, and the kernel's own words about it, often empty.
    """
    if len(message.payload) < _ERROR.size:
        # A dump may end without a status.
        return 0, ""
    code: int = -_ERROR.unpack_from(message.payload)[0]
    offset = _ERROR.size
    if message.kind == NLMSG_ERROR:
        if len(message.payload) < offset + _HEADER.size:
            raise UnsupportedError("netlink: an acknowledgement without its request's header")
        # The request comes back whole with an error unless the socket asked for its header alone.
        length = _HEADER.unpack_from(message.payload, offset)[0]
        capped = message.flags & NLM_F_CAPPED or not code
        offset += _HEADER.size if capped else length + (-length % 4)
    words = ""
    if message.flags & NLM_F_ACK_TLVS:
        for kind, value in attributes(message.payload, offset):
            if kind == NLMSGERR_ATTR_MSG:
                words = string(value)
    return code, words


class Socket:
    """A netlink socket, bound to the network namespace in which it was made.

    It goes on speaking to that namespace when its process enters another one. Close-on-exec.

    Args:
        family: NETLINK_ROUTE, NETLINK_NETFILTER...
    """

    __slots__ = ("_buffer", "_sequence", "_socket")

    def __init__(self, family: int) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, family)
        # What was sent has been carried out when send(2) returns: an answer is there, or never is.
        limit = struct.pack("@ll", _ANSWER_SECONDS, 0)
        self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, limit)
        self._sequence = 0
        self._buffer = bytearray(_BUFFER_BYTES)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            # Comforts: Linux 4.3, 4.12 and 4.20. Without the last a dump answers with more than
            # was asked for, and callers filter anyway.
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:
                    raise

    def __enter__(self) -> "Self":
        """Own the socket for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self.close()

    def close(self) -> None:
        """Close the socket; closing twice does no harm."""
        self._socket.close()

    def execute(self, *requests: Request) -> None:
        """Send requests together and wait until the kernel has answered each.

        Every request is carried out, those after a failed one too.

        Raises:
            SyscallError: a request failed; the first one that did, with the kernel's own words.
        """
        for failure in self.attempt(*requests):
            if failure is not None:
                raise failure

    def attempt(self, *requests: Request) -> list[SyscallError | None]:
        """Send requests together; return each one's failure, or None, in their order."""
        if not requests:
            return []
        if len(requests) > _PIPELINE_REQUESTS:
            rest = requests[_PIPELINE_REQUESTS:]
            return self.attempt(*requests[:_PIPELINE_REQUESTS]) + self.attempt(*rest)
        first = self._send(requests, NLM_F_ACK)
        failures: list[SyscallError | None] = [None] * len(requests)
        waiting = len(requests)
        while waiting:
            for message in self._receive():
                position = message.sequence - first
                if message.kind == NLMSG_ERROR and 0 <= position < len(requests):
                    failures[position] = _failure(requests[position], message)
                    waiting -= 1
        return failures

    def enclosed(self, first: Request, requests: Sequence[Request], last: Request) -> None:
        """Send requests that are carried out all or none, between those that begin and end it.

        Raises:
            SyscallError: a request failed, the first one that did; nothing has been carried out.
        """
        flags = NLM_F_REQUEST | NLM_F_ACK
        sequence = self._sequence + 1
        self._sequence += len(requests) + 2
        every = [first, *requests, last]
        self._socket.send(
            b"".join(
                Message(
                    request.kind,
                    request.flags | (NLM_F_REQUEST if request in {first, last} else flags),
                    request.payload,
                    sequence + position,
                ).encode()
                for position, request in enumerate(every)
            )
        )
        failures: list[SyscallError] = []
        waiting = len(requests)
        while waiting:
            for message in self._receive():
                position = message.sequence - sequence
                if message.kind != NLMSG_ERROR or not 0 <= position < len(every):
                    continue
                failure = _failure(every[position], message)
                if failure is not None:
                    failures.append(failure)
                if every[position] in {first, last} and failure is not None:
                    waiting = 0  # the others are not even looked at
                else:
                    waiting -= 1
        if failures:
            raise failures[0]

    def query(self, *requests: Request) -> list[Message | None]:
        """Send requests together that each have one message for an answer.

        Returns:
            In the order of the requests the answers, None for one that failed in a way that it
            accepts (such as ENOENT).

        Raises:
            SyscallError: a request failed otherwise.
        """
        first = self._send(requests, 0)
        answers: list[Message | None] = [None] * len(requests)
        failure: SyscallError | None = None
        waiting = len(requests)
        while waiting:
            for message in self._receive():
                position = message.sequence - first
                if not 0 <= position < len(requests):
                    continue
                waiting -= 1
                if message.kind != NLMSG_ERROR:
                    answers[position] = message
                    continue
                failure = failure or _failure(requests[position], message)
                if failure is not None and failure.errno == errno.EPERM:
                    # Netfilter answers the first of a datagram alone. Who it is not, answers late.
                    raise failure
        if failure is not None:
            raise failure
        return answers

    def dump(self, request: Request) -> list[Message]:
        """Ask for all that the kernel has of something.

        Raises:
            SyscallError: the request failed; EINTR when others kept changing what was dumped.
        """
        for _ in range(_DUMP_ATTEMPTS):
            answers = self._dump_once(request)
            if answers is not None:
                return answers
        raise SyscallError(errno.EINTR, request.name, request.detail)

    def _dump_once(self, request: Request) -> list[Message] | None:
        first = self._send((request,), NLM_F_DUMP)
        answers: list[Message] = []
        consistent = True
        while True:
            for message in self._receive():
                if message.sequence != first:
                    continue
                consistent = consistent and not message.flags & NLM_F_DUMP_INTR
                if message.kind in {NLMSG_ERROR, NLMSG_DONE}:
                    failure = _failure(request, message)
                    if failure is not None:
                        raise failure
                    return answers if consistent else None
                answers.append(message)

    def _send(self, requests: Sequence[Request], flags: int) -> int:
        """Number the requests and send them; return the first one's sequence number."""
        first = self._sequence + 1
        self._sequence += len(requests)
        self._socket.send(
            b"".join(
                Message(
                    request.kind, request.flags | flags | NLM_F_REQUEST, request.payload, sequence
                ).encode()
                for sequence, request in enumerate(requests, first)
            )
        )
        return first

    def _receive(self) -> Iterator[Message]:
        # With MSG_TRUNC the kernel tells a datagram's true length.
        try:
            length = self._socket.recv_into(self._buffer, 0, _socket.MSG_TRUNC)
        except BlockingIOError:
            raise UnavailableError(
                f"the kernel has not answered by netlink within {_ANSWER_SECONDS} seconds",
                "look for what it says in dmesg, and for a seccomp filter around ketch",
            ) from None
        if length > len(self._buffer):
            raise UnsupportedError(f"netlink: a datagram of {length} bytes")
        return decode(memoryview(self._buffer)[:length])


def _failure(request: Request, message: Message) -> SyscallError | None:
    code, words = outcome(message)
    if not code or code in request.accept:
        return None
    detail = f"{request.detail}: {words}" if words else request.detail
    return SyscallError(code, request.name, detail)
