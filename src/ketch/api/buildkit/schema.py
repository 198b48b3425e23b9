"""Messages of protobuf, whose classes are made of our own .proto files when one is first needed.

protobuf's runtime wants descriptors, which its compiler would write into generated modules that
nobody can read. The files in ``messages/`` are in that compiler's own language, as much of it as
they use (proto3: flat messages of scalars, messages, ``repeated``, ``map`` and ``oneof``), and this
makes the descriptors. Fields may be left out of them: what a peer sends of those is passed over.
Source: protobuf.dev, the proto3 language specification; google/protobuf/descriptor.proto.
"""

import functools
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, EncodeError

from ketch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(r"\s+|//[^\n]*|([\w.]+|[<>={};,])")
_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS: dict[str, int] = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
    "uint32": _FIELD.TYPE_UINT32,
}


def decode(kind: Any, data: bytes) -> Any:
    """Returns what a message says.

    Args:
        kind: its class.
        data: as it came.

    Raises:
        InvalidArgumentError: it is no such message.
    """
    try:
        return kind.FromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"not a {kind.DESCRIPTOR.name} message: {error}") from error


def encode(message: Any) -> bytes:
    """Returns a message as it is sent.

    Raises:
        InvalidArgumentError: it is larger than any can be.
    """
    try:
        data: bytes = message.SerializeToString()
    except EncodeError as error:
        raise InvalidArgumentError(f"cannot encode {message.DESCRIPTOR.name}: {error}") from error
    return data


@functools.cache
def messages(name: str) -> Any:
    """Returns the messages of a file as attributes of an object.

    Args:
        name: the file's, in ``messages/``, without ``.proto``.
    """
    text = resources.files("ketch.api.buildkit").joinpath(f"messages/{name}.proto").read_text()
    return compiled(text)


def compiled(text: str) -> Any:
    """Returns the messages that a text in proto's language declares.

    Raises:
        ValueError: it is more than is understood here, or wrong.
    """
    file = _File(text)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file.descriptor)
    found = pool.FindFileByName(file.descriptor.name)
    kinds = {
        name: message_factory.GetMessageClass(kind)
        for name, kind in found.message_types_by_name.items()
    }
    return type(file.descriptor.package, (), kinds)


class _File:
    """A file as it is read.

    Args:
        text: what it says.
    """

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self.descriptor = descriptor_pb2.FileDescriptorProto(syntax="proto3")
        self._expect("package")
        self.descriptor.package = self._next()
        self.descriptor.name = f"{self.descriptor.package}.proto"
        self._expect(";")
        for token in self._tokens:
            if token != "message":
                raise ValueError(f"{token!r} where a message was expected")
            self._message()

    def _message(self) -> None:
        message = self.descriptor.message_type.add(name=self._next())
        self._expect("{")
        while (token := self._next()) != "}":
            if token == "oneof":
                self._oneof(message)
            elif token == "map":
                self._map(message)
            elif token == "repeated":
                self._field(message, self._next(), label=_FIELD.LABEL_REPEATED)
            else:
                self._field(message, token)

    def _oneof(self, message: Any) -> None:
        message.oneof_decl.add(name=self._next())
        self._expect("{")
        while (kind := self._next()) != "}":
            self._field(message, kind).oneof_index = len(message.oneof_decl) - 1

    def _map(self, message: Any) -> None:
        self._expect("<")
        key = self._next()
        self._expect(",")
        value = self._next()
        self._expect(">")
        # A map is a repeated message of a name that is made of the field's: proto3, "Maps".
        field = self._field(message, "", label=_FIELD.LABEL_REPEATED)
        words = re.split(r"_+", field.name)
        name = "".join(word[:1].upper() + word[1:] for word in words) + "Entry"
        entry = message.nested_type.add(name=name)
        entry.options.map_entry = True
        for number, (place, kind) in enumerate((("key", key), ("value", value)), 1):
            self._type(entry.field.add(name=place, number=number, label=1), kind)
        field.type = _FIELD.TYPE_MESSAGE
        field.type_name = f".{self.descriptor.package}.{message.name}.{name}"

    def _field(self, message: Any, kind: str, label: int = _FIELD.LABEL_OPTIONAL) -> Any:
        name = self._next()
        self._expect("=")
        field = message.field.add(name=name, number=int(self._next()), label=label)
        self._expect(";")
        if kind:
            self._type(field, kind)
        return field

    def _type(self, field: Any, kind: str) -> None:
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
        else:
            field.type = _FIELD.TYPE_MESSAGE
            field.type_name = f".{self.descriptor.package}.{kind}"

    def _next(self) -> str:
        token = next(self._tokens, None)
        if token is None:
            raise ValueError("the file ends too early")
        return token

    def _expect(self, wanted: str) -> None:
        token = self._next()
        if token != wanted:
            raise ValueError(f"{token!r} where {wanted!r} was expected")


def _tokens(text: str) -> "Iterator[str]":
    end = 0
    for match in _TOKEN.finditer(text):
        if match.start() != end:
            break
        end = match.end()
        if match[1]:
            yield match[1]
    if end != len(text):
        raise ValueError(f"not understood: {text[end : end + 20]!r}")
