"""Two answers compared in form: status, fields, types, what is null and what is missing."""

import re
from collections.abc import Iterator

_IDENTIFIER = re.compile(r"[0-9a-f]{64}")


def differences(ours: object, theirs: object, where: str = "") -> Iterator[str]:
    """Yield where two documents differ in form, ``PLACE: how`` each.

    Of lists only the first items are compared, by name where they have one, and of maps whose
    keys are identifiers one.

    Args:
        ours: a document.
        theirs: what it is to be like.
        where: the place of both in their documents.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        ours, theirs = _by_kind(ours), _by_kind(theirs)
        for name in sorted({*ours, *theirs}):
            place = f"{where}.{name}"
            if name not in ours:
                yield f"{place}: missing, there it is {theirs[name]!r}"
            elif name not in theirs:
                yield f"{place}: is {ours[name]!r}, there it is missing"
            else:
                yield from differences(ours[name], theirs[name], place)
    elif isinstance(ours, list) and isinstance(theirs, list):
        if bool(ours) != bool(theirs):
            yield f"{where}: {ours!r}, there {theirs!r}"
        elif ours:
            yield from differences(min(ours, key=_name), min(theirs, key=_name), f"{where}[]")
    elif _kind(ours) is not _kind(theirs):
        yield f"{where}: {ours!r}, there {theirs!r}"


def _by_kind(document: dict[str, object]) -> dict[str, object]:
    return {"ID" if _IDENTIFIER.fullmatch(name) else name: document[name] for name in document}


def _kind(value: object) -> type:
    return float if type(value) is int else type(value)


def _name(item: object) -> str:
    return str(item.get("Name", "")) if isinstance(item, dict) else ""
