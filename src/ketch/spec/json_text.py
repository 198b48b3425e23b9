"""JSON without the package ``json``, whose import costs a third of a container's whole start.

The scanner and the encoder are the C functions that ``json`` itself calls; what it adds (hooks,
other encodings, floats for everything) has no use here, and the regular expressions that it loads
are not needed where the C functions are.
"""

from _json import encode_basestring_ascii, make_encoder, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_BLANKS = " \t\n\r"


def _constant(name: str) -> "NoReturn":
    raise ValueError(f"{name} is not JSON")


class _Context:
    """The attributes that the scanner looks for in a ``json.JSONDecoder``."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_constant)


def _unknown(value: object) -> "NoReturn":
    raise TypeError(f"{type(value).__name__} has no form in JSON")


_scan = make_scanner(_Context)  # type: ignore[arg-type]
_encode = make_encoder({}, _unknown, encode_basestring_ascii, None, ":", ",", False, False, False)


def loads(text: str | bytes) -> "Any":
    """Read one JSON document.

    Raises:
        ValueError: it is none; the message says where.
    """
    if isinstance(text, bytes):
        text = text.decode()
    text = text.strip(_BLANKS)
    try:
        value, end = _scan(text, 0)
    except StopIteration as error:
        raise ValueError(f"no JSON value at character {error.value}") from None
    except SystemError:
        # The scanner cannot make its exception, which is of the module that is not loaded.
        import json  # noqa: PLC0415 its words are worth a wait

        json.loads(text)
        raise
    if end != len(text):
        raise ValueError(f"something follows the JSON document at character {end}")
    return value


def dumps(value: object) -> str:
    """Write a value in ASCII, without blanks."""
    return "".join(_encode(value, 0))


def dumps_indented(value: object, indent: str) -> str:
    """Write a value with a line for each member, as Go's ``json.MarshalIndent`` does."""
    return "".join(_pieces(value, "\n", indent))


def _pieces(value: object, line: str, indent: str) -> list[str]:
    if isinstance(value, dict) and value:
        opening, closing = "{", "}"
        members = [(f"{dumps(str(key))}: ", member) for key, member in value.items()]
    elif isinstance(value, (list, tuple)) and value:
        opening, closing = "[", "]"
        members = [("", member) for member in value]
    else:
        return [dumps(value)]
    pieces = [opening]
    for number, (name, member) in enumerate(members):
        pieces += ["," * bool(number), line + indent, name, *_pieces(member, line + indent, indent)]
    return [*pieces, line, closing]
