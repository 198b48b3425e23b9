"""A DNS message as a name server reads and writes it: RFC 1035 4, RFC 6891 6.

Whoever asks decides what a message is made of, so reading one takes time in proportion to its
length, which is bounded, and follows no compression pointer: in a question there is nothing that
one could point to.
"""

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BYTES_MAX = 4096
"""Of a question. A name takes 255 bytes at most, the options of EDNS some tens."""

NOERROR, FORMERR, SERVFAIL, NOTIMP, REFUSED = 0, 1, 2, 4, 5
A, PTR, AAAA, OPT = 1, 12, 28, 41
IN = 1

_HEADER = struct.Struct("!2sHHHHH")
_RECORD = struct.Struct("!HHIH")  # of a resource record, behind its name
_ANSWER, _TRUNCATED, _RECURSION_AVAILABLE = 0x8000, 0x0200, 0x0080
_KEPT = 0x7900  # of a question's flags: the operation, and whether recursion is desired
_NAME_BYTES_MAX = 255
_POINTER = 0xC0
_TO_QUESTION = b"\xc0\x0c"  # a pointer to the name behind the header
_ANSWER_BYTES_MAX = 65535 - 2 * _NAME_BYTES_MAX  # a stream's message, less question and EDNS


class Question:
    """A message that asks something.

    Args:
        data: the message.

    Attributes:
        data: the message.
        labels: of the name that is asked about; the question's other parts are ``type`` and
            ``kind`` (its class). None of them where the operation is no query, or there is not
            just one question.
        operation: 0 for a query.
        count: how many questions there are.
        section: the bytes of the question, which an answer repeats.
        extended: how large the asker's datagrams may be, None where it does not speak EDNS.

    Raises:
        ValueError: it is no message that asks, or a longer one than anybody needs.
    """

    __slots__ = ("count", "data", "extended", "kind", "labels", "operation", "section", "type")

    def __init__(self, data: bytes) -> None:
        if not _HEADER.size <= len(data) <= BYTES_MAX:
            raise ValueError(f"a message of {len(data)} bytes")
        _number, flags, self.count, *others = _HEADER.unpack_from(data)
        if flags & _ANSWER:
            raise ValueError("an answer where a question was due")
        self.data = data
        self.operation = flags >> 11 & 0xF
        self.labels: list[bytes] = []
        self.type = self.kind = 0
        self.section = b""
        self.extended: int | None = None
        if self.operation == 0 and self.count == 1:
            self._read(sum(others))

    def _read(self, records: int) -> None:
        data, at = self.data, _HEADER.size
        try:
            while length := data[at]:
                if length & _POINTER:
                    raise ValueError("a compressed name, or none, in a question")
                self.labels.append(data[at + 1 : at + 1 + length])
                at += 1 + length
            if at + 1 - _HEADER.size > _NAME_BYTES_MAX:
                raise ValueError("a longer name than there are")
            self.type, self.kind = struct.unpack_from("!HH", data, at + 1)
            at += 5
            self.section = data[_HEADER.size : at]
            for _ in range(records):
                while (length := data[at]) and length & _POINTER != _POINTER:
                    at += 1 + length
                at += 2 if length else 1
                record, size, _ttl, length = _RECORD.unpack_from(data, at)
                at += _RECORD.size + length
                if record == OPT and self.extended is None:
                    self.extended = size  # where other records have their class
        except (IndexError, struct.error) as error:
            raise ValueError("a message that is cut off") from error
        if at > len(data):
            raise ValueError("a message that is cut off")


def reply(
    question: Question,
    status: int = NOERROR,
    records: "Sequence[bytes]" = (),
    *,
    own_size: int,
    truncated: bool = False,
) -> bytes:
    """An answer to a question, of any length that a stream may have.

    Args:
        question: what was asked.
        status: one of the numbers above.
        records: what ``record`` made; those that have no room are left out.
        own_size: how large datagrams may be that are sent to us, for who speaks EDNS.
        truncated: whether more is to be said than fits.
    """
    if records:
        records = records[: _ANSWER_BYTES_MAX // max(len(one) for one in records)]
    flags = _ANSWER | _RECURSION_AVAILABLE | status
    flags |= int.from_bytes(question.data[2:4], "big") & _KEPT
    flags |= _TRUNCATED if truncated else 0
    extended = question.extended is not None
    header = _HEADER.pack(
        question.data[:2], flags, bool(question.section), len(records), 0, extended
    )
    option = b"\0" + _RECORD.pack(OPT, own_size, 0, 0) if extended else b""
    return header + question.section + b"".join(records) + option


def record(kind: int, data: bytes, ttl_seconds: int) -> bytes:
    """A resource record about the name in question."""
    return _TO_QUESTION + _RECORD.pack(kind, IN, ttl_seconds, len(data)) + data


def encoded(name: str) -> bytes | None:
    """A name as a record has it; None where it is none, such as one of long labels."""
    labels = [label.encode("utf-8", "surrogateescape") for label in name.split(".")]
    if not all(0 < len(label) < 64 for label in labels):
        return None
    whole = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return whole if len(whole) <= _NAME_BYTES_MAX else None
