"""What a client asks about a Dockerfile instead of building it: ``docker build --check, --call``.

Source: moby/buildkit, frontend/subrequests, solver/errdefs/subrequest.go.
"""

import json
from typing import TYPE_CHECKING, Any

from ketch.api.buildkit import schema
from ketch.api.buildkit.grpc import Code, StatusError
from ketch.build import answering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.planning.outline import Answer

DESCRIBE = "frontend.subrequests.describe"
_VERSION = "1.0.0"
_KNOWN = {
    "frontend.outline": (answering.OUTLINE, "List all parameters current build target supports"),
    "frontend.targets": (answering.TARGETS, "List all targets current build supports"),
    "frontend.lint": (answering.CHECK, "Lint a Dockerfile"),
    DESCRIBE: ("", "List available subrequest types"),
}
_FILE_NAMES = {"frontend.lint": ("result.json", "result.txt", "result.statuscode")}


def question(name: str) -> str:
    """Returns what the builder is asked, for the name that clients have for it.

    Raises:
        StatusError: there is no such question.
    """
    found, _ = _KNOWN.get(name, ("", ""))
    if not found:
        raise unsupported(name)
    return found


def described() -> dict[str, bytes]:
    """Returns what can be asked, as metadata of a result."""
    listed = [
        {
            "name": name,
            "version": _VERSION,
            "type": "rpc",
            "description": text,
            "opts": None,
            "inputs": None,
            "metadata": [
                {"name": one} for one in _FILE_NAMES.get(name, ("result.json", "result.txt"))
            ],
            "refs": None,
        }
        for name, (_, text) in _KNOWN.items()
    ]
    rows = [("NAME", "VERSION", "DESCRIPTION")]
    rows += [(n.removeprefix("frontend."), _VERSION, text) for n, (_, text) in _KNOWN.items()]
    return _metadata(listed, _table(rows))


def answered(name: str, answer: "Answer") -> dict[str, bytes]:
    """Returns an answer as metadata of a result.

    Args:
        name: what was asked.
        answer: the builder's.
    """
    found = _metadata(answer.document, answer.text)
    if name == "frontend.lint":
        found["result.statuscode"] = str(answer.status).encode()
    return found


def unsupported(name: str) -> StatusError:
    """Returns the error that says that something cannot be asked, as clients know it."""
    detail = schema.messages("control").Any(
        type_url="github.com/moby/buildkit/errdefs.Subrequest+json",
        value=json.dumps({"name": name}).encode(),
    )
    text = f"unsupported request {name}"
    return StatusError(Code.UNIMPLEMENTED, text, [detail])


def _metadata(document: Any, text: str) -> dict[str, bytes]:
    return {
        "result.json": json.dumps(document, indent=2).encode(),
        "result.txt": text.encode(),
        "version": _VERSION.encode(),
    }


def _table(rows: "Sequence[tuple[str, str, str]]") -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "".join(f"{a:{widths[0]}} {b:{widths[1]}} {c}\n" for a, b, c in rows)
