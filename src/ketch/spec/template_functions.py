"""What templates can call, and how Go prints values: text/template's builtins and Docker's own.

Values are those of JSON, and ``Struct`` for what has a fixed set of fields.
"""

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


_ESCAPED = {
    number: f"\\u{number:04x}"
    for number in (*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


class Struct(dict[str, "Any"]):
    """A value with fixed fields, in their order: asking for another one is an error.

    Args:
        fields: the fields; a callable one is a method, which takes the arguments that follow it.
        type_name: what it is called in errors.
        optional: fields that JSON leaves out where they are not among ``fields``, and what a
            template finds in them: an empty text, or Go's zero of their type where that is given.

    Attributes:
        wire: what it is in JSON, where its fields have other names there; else None.
    """

    __slots__ = ("optional", "type_name", "wire")

    def __init__(
        self,
        fields: "dict[str, Any]",
        type_name: str = "",
        optional: "tuple[str, ...] | dict[str, Any]" = (),
    ) -> None:
        super().__init__(fields)
        self.optional = optional if isinstance(optional, dict) else dict.fromkeys(optional, "")
        self.type_name = type_name
        self.wire: Struct | None = None


class NilSlice(list["Any"]):
    """A list that nobody has made: empty to a template, null in JSON."""

    __slots__ = ()


class NilMap(dict[str, "Any"]):
    """A map that nobody has made: empty to a template, null in JSON."""

    __slots__ = ()


class NoValue:
    """What a map has for a key that is not in it."""

    def __repr__(self) -> str:
        """Returns what Go prints for it."""
        return "<no value>"


NO_VALUE = NoValue()


class CallError(Exception):
    """A function cannot do anything with its arguments."""


class WrongTypeError(CallError):
    """A function's first argument has the wrong type."""


def truth(value: object) -> bool:
    """Whether a value counts as true: not false, zero, empty or nil."""
    return isinstance(value, Struct) or (value is not NO_VALUE and bool(value))


def type_name(value: object) -> str:
    """Returns what Go calls a value's type."""
    if isinstance(value, Struct):
        return value.type_name or "struct"
    return {
        str: "string", bool: "bool", int: "int", float: "float64", list: "[]interface {}",
        dict: "map[string]interface {}", type(None): "nil",
    }.get(type(value), "interface {}")  # fmt: skip


def text(value: object) -> str:
    """Returns a value as Go's ``%v`` prints it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<nil>"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, list):
        return f"[{' '.join(map(text, value))}]"
    if isinstance(value, Struct):
        return "{" + " ".join(text(field) for field in value.values() if not callable(field)) + "}"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{text(value[key])}' for key in sorted(value))}]"
    return str(value)


def _float(value: float) -> str:
    """Write a number with as few digits as tell it: Go's ``%g``, %e from a million on."""
    if value - value != 0:  # an infinity, or no number
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, decimals = mantissa.partition(".")
    digits = (whole + decimals).lstrip("0")
    # Of the first digit that is not zero.
    place = int(exponent or "0") + len(digits) - len(decimals) - 1
    if not digits.strip("0") or -5 < place < 6:
        return str(int(value)) if value == int(value) else repr(value)
    digits = digits.rstrip("0")
    shown = digits[0] + ("." + digits[1:] if digits[1:] else "")
    return f"{'-' if value < 0 else ''}{shown}e{place:+03d}"


def to_json(value: object) -> str:
    """Returns compact JSON: a struct's fields in their order, a map's keys sorted."""
    return legible(json.dumps(plain(value), ensure_ascii=False, separators=(",", ":")))


def legible(text: str) -> str:
    """Returns the same JSON for a terminal, which obeys more controls than JSON must escape.

    They are DEL, the second set of controls, and what turns the direction of writing around.
    """
    return text.translate(_ESCAPED)


def plain(value: object) -> object:
    """Returns a value without methods, maps sorted, for a JSON encoder."""
    if isinstance(value, Struct):
        if value.wire is not None:
            return plain(value.wire)
        return {key: plain(field) for key, field in value.items() if not callable(field)}
    if isinstance(value, NilMap):
        return None
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return None if isinstance(value, NilSlice) else [plain(element) for element in value]
    return None if value is NO_VALUE else value


def _length(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, list | dict) and not isinstance(value, Struct):
        return len(value)
    if value is None:
        raise CallError("len of nil pointer")
    raise CallError(f"len of type {type_name(value)}")


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if value is None or value is NO_VALUE:
            raise CallError("index of untyped nil")
        if isinstance(value, dict) and not isinstance(value, Struct):
            if not isinstance(key, str):
                raise CallError(f"value has type {type_name(key)}; should be string")
            # A map's zero value is that of its elements' type.
            empty = "" if all(isinstance(element, str) for element in value.values()) else None
            value = value.get(key, empty)
        elif isinstance(value, list | str):
            if not isinstance(key, int) or isinstance(key, bool):
                raise CallError(f"cannot index slice/array with type {type_name(key)}")
            elements = value.encode() if isinstance(value, str) else value
            if not 0 <= key < len(elements):
                raise CallError(f"index out of range: {key}")
            value = elements[key]
        else:
            raise CallError(f"can't index item of type {type_name(value)}")
    return value


def _slice(value: object, *bounds: object) -> object:
    if not isinstance(value, list | str):
        raise CallError(f"can't slice item of type {type_name(value)}")
    elements = value.encode() if isinstance(value, str) else value
    numbers = []
    for bound in bounds:
        if not isinstance(bound, int) or not 0 <= bound <= len(elements):
            raise CallError(f"index out of range: {text(bound)}")
        numbers.append(bound)
    start, end = (*numbers, *(0, len(elements))[len(numbers) :])[:2]
    if start > end:
        raise CallError(f"invalid slice index: {start} > {end}")
    cut = elements[start:end]
    return cut.decode("utf-8", "replace") if isinstance(cut, bytes) else cut


def _basic(value: object) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        return type_name(value)
    raise CallError(f"non-comparable type {text(value)}: {type_name(value)}")


def _equal(first: object, *others: object) -> bool:
    if not others:
        raise CallError("missing argument for comparison")
    for other in others:
        kinds = {_basic(first), _basic(other)}
        if len(kinds) > 1 and "nil" not in kinds:
            raise CallError("incompatible types for comparison")
        if first == other:
            return True
    return False


def _less(first: object, second: object) -> bool:
    if _basic(first) != _basic(second):
        raise CallError("incompatible types for comparison")
    if first is None or isinstance(first, bool):
        raise CallError("invalid type for comparison")
    return first < second  # type: ignore[operator,no-any-return]


def _less_or_equal(first: object, second: object) -> bool:
    return _less(first, second) or _equal(first, second)


def _spaced(*values: object) -> str:
    """Join as Go's ``Sprint``: a space between two that are no strings."""
    joined = ""
    for position, value in enumerate(values):
        if position and not isinstance(value, str) and not isinstance(values[position - 1], str):
            joined += " "
        joined += text(value)
    return joined


def _urlquery(*values: object) -> str:
    from urllib.parse import quote_plus  # noqa: PLC0415 - hardly anybody needs it

    return quote_plus(_spaced(*values))


# A width beyond what Go allows, a million, is part of no verb.
_VERB = re.compile(r"%([-+# 0]*)([0-9]{0,6})(?:\.([0-9]{0,6}))?(.?)", re.DOTALL)


def _printf(template: str, *values: object) -> str:
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not verb:
            return "%!(NOVERB)"
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        shown = _verb(verb, value, flags, int(precision or 0) if precision is not None else None)
        if shown is None:
            return f"%!{verb}({type_name(value)}={text(value)})"
        if "-" in flags:
            return shown.ljust(int(width or 0))
        if "0" in flags and not isinstance(value, str):
            return shown.zfill(int(width or 0))
        return shown.rjust(int(width or 0))

    done = _VERB.sub(one, template)
    if rest:
        extra = ", ".join(f"{type_name(value)}={text(value)}" for value in rest)
        done += f"%!(EXTRA {extra})"
    return done


def _verb(verb: str, value: object, flags: str, precision: int | None) -> str | None:
    """Write a value by one of Go's verbs; None where they do not fit."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    sign = "+" if "+" in flags else ""
    if verb == "v":
        return text(value)
    if verb == "s" and not isinstance(value, bool | int | float):
        return text(value)[:precision]
    if verb == "q" and isinstance(value, str):
        return quote(value)
    if verb == "t" and isinstance(value, bool):
        return text(value)
    if verb == "T":
        return type_name(value)
    if verb in "dboxX" and is_integer:
        return format(value, sign + verb)
    if verb in "xX" and isinstance(value, str):
        digits = value.encode().hex()
        return digits.upper() if verb == "X" else digits
    if verb == "U" and is_integer:
        return f"U+{value:04X}"
    if verb == "c" and is_integer:
        return chr(value)  # type: ignore[arg-type]
    if verb in "feEgG" and isinstance(value, float):
        return format(value, f"{sign}.{6 if precision is None else precision}{verb}")
    return None


def quote(value: str) -> str:
    """Returns text in double quotes, as Go's ``%q``."""
    pieces = []
    for character in value:
        code = ord(character)
        if character in _QUOTED:
            pieces.append(_QUOTED[character])
        elif 0xDC80 <= code <= 0xDCFF:
            pieces.append(f"\\x{code - 0xDC00:02x}")
        elif character == " " or (character.isprintable() and code != 0x7F):
            pieces.append(character)
        else:
            pieces.append(f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"
                          if code < 0x10000 else f"\\U{code:08x}")  # fmt: skip
    return f'"{"".join(pieces)}"'


_QUOTED = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r",
    "\t": "\\t", "\v": "\\v",
}  # fmt: skip


_HTML = str.maketrans(
    {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
)
_JS = str.maketrans(
    {
        **{chr(code): f"\\u{code:04X}" for code in (*range(0x20), *map(ord, "<>&="))},
        "\\": "\\\\", "'": "\\'", '"': '\\"',
    }
)  # fmt: skip


def _title(value: str) -> str:
    """Capitalise the first letter of each word and leave the rest alone: ``strings.Title``."""
    pieces = []
    previous = " "
    for character in value:
        starts = not (previous.isalnum() or previous == "_") and (
            previous.isascii() or previous.isspace()
        )
        pieces.append(character.upper() if starts else character)
        previous = character
    return "".join(pieces)


def _split(value: str, separator: str) -> list[str]:
    return value.split(separator) if separator else list(value)


def _join(values: object, separator: str) -> str:
    if values is None:
        return ""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise WrongTypeError(f"wrong type for value; expected []string; got {type_name(values)}")
    return separator.join(values)


def _pad(value: str, before: int, after: int) -> str:
    return f"{' ' * before}{value}{' ' * after}" if value else value


def _strings(function: "Callable[..., object]") -> "Callable[..., object]":
    """Let a function have its first argument only if it is a string."""

    def checked(first: object, *rest: object) -> object:
        if not isinstance(first, str):
            raise WrongTypeError(f"wrong type for value; expected string; got {type_name(first)}")
        return function(first, *rest)

    return checked


# Name: (function, least number of arguments, most or None for any number). `and` and `or` are the
# interpreter's, since they leave out what need not be evaluated.
FUNCTIONS: "dict[str, tuple[Callable[..., object], int, int | None]]" = {
    "and": (lambda *values: values[-1], 1, None),
    "eq": (_equal, 1, None),
    "ge": (lambda first, second: not _less(first, second), 2, 2),
    "gt": (lambda first, second: not _less_or_equal(first, second), 2, 2),
    "html": (lambda *values: _spaced(*values).translate(_HTML), 1, None),
    "index": (_index, 1, None),
    "join": (_join, 2, 2),
    "js": (lambda *values: _spaced(*values).translate(_JS), 1, None),
    "json": (to_json, 1, 1),
    "le": (_less_or_equal, 2, 2),
    "len": (_length, 1, 1),
    "lower": (_strings(str.lower), 1, 1),
    "lt": (_less, 2, 2),
    "ne": (lambda first, second: not _equal(first, second), 2, 2),
    "not": (lambda value: not truth(value), 1, 1),
    "or": (lambda *values: values[-1], 1, None),
    "pad": (_strings(_pad), 3, 3),
    "print": (_spaced, 0, None),
    "printf": (_strings(_printf), 1, None),
    "println": (lambda *values: " ".join(map(text, values)) + "\n", 0, None),
    "slice": (_slice, 1, 3),
    "split": (_strings(_split), 2, 2),
    "title": (_strings(_title), 1, 1),
    "truncate": (_strings(lambda value, length: value[:length]), 2, 2),
    "upper": (_strings(str.upper), 1, 1),
    "urlquery": (_urlquery, 1, None),
}
