"""GVariant's text format, as far as properties of systemd units need it.

``true``, ``123``, ``1.5``, ``'text'``, ``['a', 'b']``, ``('x', 1)``, each with its type where that
is not plain: ``uint64 5``, ``byte 0x2f``, ``objectpath '/a'``, ``@as []``.

Source: GLib's "GVariant Text Format".
"""

from ketch.spec import dbus
from ketch.spec.dbus import Variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEYWORDS = {
    "boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u",
    "handle": "h", "int64": "x", "uint64": "t", "double": "d", "string": "s", "objectpath": "o",
    "signature": "g",
}  # fmt: skip
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_CODE_MAX = 0x10FFFF
_CODE_DIGITS = {"u": 4, "U": 8}
_SPACE = " \t\n"


def parse(text: str) -> Variant:
    """Read a value with its type.

    Raises:
        ValueError: the text is none.
    """
    reader = _Reader(text)
    found = reader.value("")
    reader.skip()
    if reader.rest():
        raise ValueError(f"{reader.rest()!r} follows the value")
    dbus.marshal(found.signature, [found.value])  # what does not fit its type is said now
    return found


class _Reader:
    """Reads from left to right."""

    __slots__ = ("_at", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def rest(self) -> str:
        """What has not been read."""
        return self._text[self._at :]

    def skip(self) -> None:
        """Go past white space."""
        while self.rest()[:1] and self.rest()[0] in _SPACE:
            self._at += 1

    def _peek(self) -> str:
        self.skip()
        return self.rest()[:1]

    def _take(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self._at += 1
        return True

    def _word(self) -> str:
        start = self._at
        while self.rest()[:1] and self.rest()[0] in _WORD:
            self._at += 1
        return self._text[start : self._at]

    def value(self, signature: str) -> Variant:
        """Read a value.

        Args:
            signature: the type that it has to be of, or empty where it says so itself.
        """
        first = self._peek()
        if first == "@":
            start = self._at = self._at + 1
            while self.rest()[:1] not in {"", *_SPACE}:
                self._at += 1
            signature = self._text[start : self._at]
            if len(dbus.types(signature)) != 1:
                raise ValueError(f"@{signature} is not one type")
            return self.value(signature)
        if first in {"'", '"'}:
            return Variant(self._fitting(signature, "sog", "s"), self._string())
        if first == "[":
            return self._array(signature)
        if first == "(":
            return self._tuple(signature)
        word = self._word()
        if word in _KEYWORDS:
            return self.value(_KEYWORDS[word])
        if word in {"true", "false"}:
            return Variant(self._fitting(signature, "b", "b"), word == "true")
        return self._number(word, signature)

    def _fitting(self, signature: str, allowed: str, default: str) -> str:
        if signature and (len(signature) > 1 or signature not in allowed):
            raise ValueError(f"{self._text!r} is not of type {signature}")
        return signature or default

    def _number(self, word: str, signature: str) -> Variant:
        whole = word.isascii() and word.lstrip("+-").isdigit()
        kind = self._fitting(signature, "ynqiuxthd", "i" if whole or "x" in word[:3] else "d")
        try:
            return Variant(kind, float(word) if kind == "d" else int(word, 0))
        except ValueError:
            raise ValueError(f"{word or self.rest()!r} is no value") from None

    def _string(self) -> str:
        quote = self._text[self._at]
        self._at += 1
        out = ""
        while (character := self.rest()[:1]) != quote:
            if not character:
                raise ValueError(f"{self._text!r} has a text without its end")
            self._at += 1
            if character == "\\":
                character = self._escape()
            out += character
        self._at += 1
        return out

    def _escape(self) -> str:
        letter = self.rest()[:1]
        self._at += 1
        if digits := _CODE_DIGITS.get(letter):
            code = int(self.rest()[:digits], 16)
            self._at += digits
            return chr(min(code, _CODE_MAX + 1))
        return _ESCAPES.get(letter, letter)

    def _array(self, signature: str) -> Variant:
        if signature and signature[0] != "a":
            raise ValueError(f"{self._text!r} is not of type {signature}")
        self._at += 1
        inner = signature[1:]
        items: list[Any] = []
        while not self._take("]"):
            if items and not self._take(","):
                raise ValueError(f"{self._text!r} has an array without its end")
            item = self.value(inner)
            inner = item.signature
            items.append(item.value)
        if not inner:
            raise ValueError("an empty array needs a type: @as []")
        return Variant(f"a{inner}", items)

    def _tuple(self, signature: str) -> Variant:
        wanted = dbus.types(signature[1:-1]) if signature else []
        self._at += 1
        items: list[Any] = []
        kinds = ""
        while not self._take(")"):
            if items and not self._take(","):
                raise ValueError(f"{self._text!r} has a tuple without its end")
            if self._take(")"):
                break
            item = self.value(wanted[len(items)] if len(items) < len(wanted) else "")
            items.append(item.value)
            kinds += item.signature
        if signature not in {"", f"({kinds})"}:
            raise ValueError(f"{self._text!r} is not of type {signature}")
        return Variant(f"({kinds})", tuple(items))
