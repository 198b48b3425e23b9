"""D-Bus messages as bytes: types, alignment, headers. No connection, no bus.

A value is what Python has for it: ``y n q i u x t h`` are int, ``b`` bool, ``d`` float, ``s o g``
str, ``a`` a list (``a{..}`` a dict), ``(...)`` a tuple, ``v`` a ``Variant``.

Source: D-Bus Specification 0.43, "Type System", "Marshaling", "Message Protocol".
"""

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
FIXED_BYTES = 16
"""As much of a message has to be read to know its whole length."""
MESSAGE_BYTES_MAX = 1 << 27

_NUMBERS = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q",
            "d": "d", "h": "I"}  # fmt: skip
_ALIGNMENT = {"y": 1, "n": 2, "q": 2, "b": 4, "i": 4, "u": 4, "h": 4, "s": 4, "o": 4, "a": 4,
              "x": 8, "t": 8, "d": 8, "(": 8, "{": 8, "g": 1, "v": 1}  # fmt: skip
_CLOSING = {"(": ")", "{": "}"}
_DEPTH_MAX = 64
# Header field -> its code and type.
_FIELDS = {"path": (1, "o"), "interface": (2, "s"), "member": (3, "s"), "error": (4, "s"),
           "reply_to": (5, "u"), "destination": (6, "s"), "sender": (7, "s"),
           "signature": (8, "g")}  # fmt: skip
_NAMES = {code: name for name, (code, _) in _FIELDS.items()}


class Variant:
    """A value that tells its own type.

    Args:
        signature: one complete type.
        value: of that type.
    """

    __slots__ = ("signature", "value")

    def __init__(self, signature: str, value: "Any") -> None:
        self.signature = signature
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Whether type and value are the same."""
        if not isinstance(other, Variant):
            return NotImplemented
        return (self.signature, self.value) == (other.signature, other.value)

    __hash__ = None  # type: ignore[assignment] # its value may be a list

    def __repr__(self) -> str:
        """As it is written in code."""
        return f"Variant({self.signature!r}, {self.value!r})"


class Message:
    """One message.

    Attributes:
        kind: METHOD_CALL, METHOD_RETURN, ERROR or SIGNAL.
        serial: its number among the sender's messages, from 1.
        fields: header fields by name: path, interface, member, error, reply_to, destination,
            sender, signature (of the body; empty where it has none).
        body: its arguments.
    """

    __slots__ = ("body", "fields", "kind", "serial")

    def __init__(
        self, kind: int, serial: int, fields: "dict[str, Any]", body: "Sequence[Any]" = ()
    ) -> None:
        self.kind = kind
        self.serial = serial
        self.fields = fields
        self.body = list(body)

    def encode(self) -> bytes:
        """The message's bytes, little-endian."""
        body = marshal(self.fields.get("signature", ""), self.body)
        header = [
            (_FIELDS[name][0], Variant(_FIELDS[name][1], value))
            for name, value in self.fields.items()
            if value != ""
        ]
        start = [ord("l"), self.kind, 0, 1, len(body), self.serial, header]
        head = marshal("yyyyuua(yv)", start)
        return head + bytes(-len(head) % 8) + body

    @classmethod
    def decode(cls, data: bytes) -> "Message":
        """Read a whole message.

        Raises:
            ValueError: it is none.
        """
        order = _order(data)
        head, end = _Reader(data, order).read_all("yyyyuua(yv)")
        _, kind, _, _, body_bytes, serial, header = head
        fields = {_NAMES[code]: each.value for code, each in header if code in _NAMES}
        start = end + -end % 8
        body = unmarshal(fields.get("signature", ""), data[start : start + body_bytes], order)
        return cls(kind, serial, fields, body)


def length(start: bytes) -> int:
    """A message's length in bytes.

    Args:
        start: its first ``FIXED_BYTES``.

    Raises:
        ValueError: no message begins so, or none that is that long.
    """
    body_bytes, _, header_bytes = struct.unpack(f"{_order(start)}III", start[4:FIXED_BYTES])
    whole: int = FIXED_BYTES + header_bytes + -header_bytes % 8 + body_bytes
    if whole > MESSAGE_BYTES_MAX:
        raise ValueError(f"a message of {whole} bytes")
    return whole


def _order(data: bytes) -> str:
    try:
        return {ord("l"): "<", ord("B"): ">"}[data[0]]
    except (KeyError, IndexError):
        raise ValueError("not a D-Bus message") from None


def types(signature: str) -> list[str]:
    """Part a signature into its complete types.

    Raises:
        ValueError: it is none.
    """
    return list(_types(signature, 0))


def _types(signature: str, depth: int) -> "Iterator[str]":
    if depth > _DEPTH_MAX:
        raise ValueError("types that are nested too deeply")
    rest = signature
    while rest:
        end = _end_of_type(rest, depth)
        yield rest[:end]
        rest = rest[end:]


def _end_of_type(signature: str, depth: int) -> int:
    """Where the complete type ends that a signature begins with."""
    kind = signature[:1]
    if kind == "a":
        if depth > _DEPTH_MAX:
            raise ValueError("types that are nested too deeply")
        return 1 + _end_of_type(signature[1:], depth + 1)
    if kind in _CLOSING:
        level = 0
        for position, character in enumerate(signature):
            level += {kind: 1, _CLOSING[kind]: -1}.get(character, 0)
            if level == 0:
                inner = list(_types(signature[1:position], depth + 1))
                if inner and (kind == "(" or len(inner) == 2):
                    return position + 1
                break
        raise ValueError(f"{signature!r} is no type")
    if kind not in _ALIGNMENT:
        raise ValueError(f"{signature!r} is no type")
    return 1


def marshal(signature: str, values: "Sequence[Any]") -> bytes:
    """Values to bytes, little-endian, from an offset that is a multiple of 8.

    Raises:
        ValueError: their number, or a value, does not fit the signature.
    """
    out = bytearray()
    kinds = types(signature)
    if len(kinds) != len(values):
        raise ValueError(f"{len(values)} values for the signature {signature!r}")
    for kind, value in zip(kinds, values, strict=True):
        _write(out, kind, value)
    return bytes(out)


def _write(out: bytearray, kind: str, value: "Any") -> None:
    out += bytes(-len(out) % _ALIGNMENT[kind[0]])
    if code := _NUMBERS.get(kind):
        try:
            out += struct.pack(f"<{code}", value)
        except struct.error as error:
            raise ValueError(f"{value!r} is not of type {kind}: {error}") from error
    elif kind in {"s", "o", "g"}:
        text = value.encode()
        if b"\0" in text:
            raise ValueError(f"{value!r} has a NUL in it")
        out += struct.pack("<B" if kind == "g" else "<I", len(text)) + text + b"\0"
    elif kind == "v":
        _write(out, "g", value.signature)
        _write(out, value.signature, value.value)
    elif kind[0] == "a":
        _write_array(out, kind[1:], list(value.items()) if kind[1] == "{" else value)
    else:
        members = types(kind[1:-1])
        if len(members) != len(value):
            raise ValueError(f"{value!r} is not of type {kind}")
        for member, each in zip(members, value, strict=True):
            _write(out, member, each)


def _write_array(out: bytearray, kind: str, items: "Sequence[Any]") -> None:
    place = len(out)
    out += bytes(4)
    # The padding before the first element does not count to the array's length.
    out += bytes(-len(out) % _ALIGNMENT[kind[0]])
    start = len(out)
    for item in items:
        _write(out, kind, item)
    struct.pack_into("<I", out, place, len(out) - start)


def unmarshal(signature: str, data: bytes, order: str = "<") -> "list[Any]":
    """Bytes to values.

    Args:
        signature: their types.
        data: from an offset that is a multiple of 8.
        order: ``<`` little-endian, ``>`` big-endian.

    Raises:
        ValueError: the bytes do not fit the signature.
    """
    return _Reader(data, order).read_all(signature)[0]


class _Reader:
    """Reads values, one after the other."""

    __slots__ = ("_at", "_data", "_order")

    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._order = order
        self._at = 0

    def read_all(self, signature: str) -> "tuple[list[Any], int]":
        """The values of a signature, and the offset behind them."""
        try:
            return [self._read(kind, 0) for kind in types(signature)], self._at
        except (struct.error, UnicodeDecodeError) as error:
            raise ValueError(f"does not fit the signature {signature!r}: {error}") from error

    def _number(self, code: str) -> "Any":
        (value,) = struct.unpack_from(f"{self._order}{code}", self._data, self._at)
        self._at += struct.calcsize(f"={code}")
        return value

    def _align(self, kind: str) -> None:
        self._at += -self._at % _ALIGNMENT[kind[0]]

    def _read(self, kind: str, depth: int) -> "Any":
        if depth > _DEPTH_MAX:
            raise ValueError("values that are nested too deeply")
        self._align(kind)
        if code := _NUMBERS.get(kind):
            value = self._number(code)
            return bool(value) if kind == "b" else value
        if kind in {"s", "o", "g"}:
            size = self._number("B" if kind == "g" else "I")
            text = self._data[self._at : self._at + size]
            if len(text) < size:
                raise ValueError("a text that is cut short")
            self._at += size + 1
            return text.decode()
        if kind == "v":
            signature = self._read("g", depth)
            if len(types(signature)) != 1:
                raise ValueError(f"a variant of type {signature!r}")
            return Variant(signature, self._read(signature, depth + 1))
        if kind[0] == "a":
            return self._read_array(kind[1:], depth + 1)
        return tuple(self._read(member, depth + 1) for member in types(kind[1:-1]))

    def _read_array(self, kind: str, depth: int) -> "Any":
        size = self._number("I")
        self._align(kind)
        end = self._at + size
        if end > len(self._data):
            raise ValueError("an array that is cut short")
        items = []
        while self._at < end:
            items.append(self._read(kind, depth))
        if self._at != end:
            raise ValueError("an array whose length does not fit its elements")
        return dict(items) if kind[0] == "{" else items
