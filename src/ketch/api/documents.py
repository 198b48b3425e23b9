"""A stranger's JSON brought to the types that the engine's documents have.

As Go's decoder does it: fields that nobody knows are left out, those that are known may be spelt
in any case, the last of several counts, null is the same as missing, and a value of another type
than the field's is an error.
"""

import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from ketch.errors import InvalidArgumentError
from ketch.spec import shape
from ketch.spec.shape import Misfit


def _number(value: object) -> None:
    if type(value) is not float:
        raise Misfit(f"must be a number, not {shape.shown(value)}")


# Go's names of plain types, and what values they have.
_PLAIN: "dict[Any, tuple[str, Callable[[object], None]]]" = {
    str: ("string", shape.text),
    int: ("int64", shape.integer(-(1 << 63), (1 << 63) - 1)),
    bool: ("bool", shape.flag),
    float: ("float64", _number),
}


class Healthcheck(typing.TypedDict, total=False):
    """How to probe a container. Times are nanoseconds."""

    Test: list[str]
    Interval: int
    Timeout: int
    StartPeriod: int
    StartInterval: int
    Retries: int


# What documents name that is there for type checkers alone.
_ELSEWHERE: dict[str, Any] = {"Healthcheck": Healthcheck}

# Of what a container is made with, a single text stands for a list with it: Docker's strslice.
_TEXT_OR_LIST = ("Cmd", "Entrypoint", "Shell")
_WITH_THEM = ("Config", "Creation")


def conform(value: object, wanted: Any, where: str = "", module: str = "") -> Any:
    """Returns a value with the type that a document's field has.

    Args:
        value: what came.
        wanted: the type: a TypedDict, ``list[...]``, ``dict[str, ...]``, ``object``, a plain one.
        where: the field's name in messages.
        module: where names in annotations are looked up.

    Raises:
        InvalidArgumentError: it has another type.
    """
    if isinstance(wanted, (str, typing.ForwardRef)):
        wanted = _resolve(wanted, module)
    origin = typing.get_origin(wanted)
    if origin in {typing.NotRequired, typing.Required}:
        return conform(value, typing.get_args(wanted)[0], where, module)
    if origin in {typing.Union, types.UnionType}:
        inner = [one for one in typing.get_args(wanted) if one is not type(None)]
        return conform(value, inner[0], where, module)
    if typing.is_typeddict(wanted):
        return _document(value, wanted, where)
    if origin is list:
        if not isinstance(value, list):
            raise _wrong(value, "list", where)
        (inside,) = typing.get_args(wanted)
        return [conform(item, inside, where, module) for item in value if item is not None]
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(value, "map", where)
        inside = typing.get_args(wanted)[1]
        return {
            name: conform(item, inside, f"{where}.{name}", module)
            for name, item in value.items()
            if item is not None or inside is object
        } | ({name: _empty(inside, module) for name, item in value.items() if item is None}
             if inside is not object else {})  # fmt: skip
    if wanted in {object, Any}:
        return value
    return _plain(value, wanted, where)


def _empty(wanted: Any, module: str) -> Any:
    """Returns Go's zero value, which null stands for, of what a map holds."""
    if isinstance(wanted, (str, typing.ForwardRef)):
        wanted = _resolve(wanted, module)
    kind = typing.get_origin(wanted) or wanted
    return {} if typing.is_typeddict(kind) else kind()


def _document(value: object, wanted: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(value, getattr(wanted, "__name__", "object"), where)
    prefix = f"{where}." if where else ""
    kinds = wanted.__annotations__
    folded = {_folded(name): name for name in kinds}
    found: dict[str, Any] = {}
    for given, item in value.items():
        name = given if given in kinds else folded.get(_folded(given))
        if name is None or item is None:
            continue
        if name in _TEXT_OR_LIST and isinstance(item, str) and wanted.__name__ in _WITH_THEM:
            item = [item]  # noqa: PLW2901
        brought = conform(item, kinds[name], prefix + name, wanted.__module__)
        before = found.get(name)
        # An object that comes in two parts is one, as Go fills in what is there already.
        both = isinstance(before, dict) and isinstance(brought, dict)
        found[name] = {**before, **brought} if both else brought  # type: ignore[dict-item]
    return found


def _folded(name: str) -> str:
    """Returns a name as Go compares it: the long s is one, as the sign for kelvin is a k."""
    return name.lower().replace("\u017f", "s")


def _plain(value: object, wanted: Any, where: str) -> Any:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    name, check = _PLAIN[wanted]
    try:
        check(value)
    except Misfit as misfit:
        raise _wrong(value, name, where) from misfit
    return value


def _resolve(reference: "str | typing.ForwardRef", module: str) -> Any:
    name = reference if isinstance(reference, str) else reference.__forward_arg__
    name = name.strip("\"'")
    return getattr(sys.modules[module], name, None) or _ELSEWHERE[name]


def _wrong(value: object, wanted: str, where: str) -> InvalidArgumentError:
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "array",
             dict: "object", type(None): "null"}  # fmt: skip
    found = kinds.get(type(value), "value")
    return InvalidArgumentError(
        f"invalid JSON: cannot unmarshal {found} into field {where or 'body'} of type {wanted}"
    )
