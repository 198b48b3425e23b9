"""What a client asks about a Dockerfile instead of building it: ``docker build --check, --call``.

Source: moby/buildkit, frontend/subrequests, solver/errdefs/subrequest.go.
"""

import base64
import json
from typing import TYPE_CHECKING, Any

from ketch.api.buildkit import schema
from ketch.api.buildkit.grpc import Code, StatusError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.progress import Warned

DESCRIBE, LINT = "frontend.subrequests.describe", "frontend.lint"
_VERSION = "1.0.0"
_KNOWN = {LINT: "Lint a Dockerfile", DESCRIBE: "List available subrequest types"}


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
            "metadata": [{"name": "result.json"}, {"name": "result.txt"}],
            "refs": None,
        }
        for name, text in _KNOWN.items()
    ]
    rows = [("NAME", "VERSION", "DESCRIPTION")]
    rows += [(name.removeprefix("frontend."), _VERSION, text) for name, text in _KNOWN.items()]
    return _metadata(listed, _table(rows))


def linted(found: "Sequence[Warned]") -> dict[str, bytes]:
    """Returns what lint rules have found, as metadata of a result."""
    sources: dict[tuple[str, bytes], int] = {}
    warnings = []
    for one in found:
        source = sources.setdefault((one.filename, one.text), len(sources))
        place = one.warning.place
        lines = [] if place is None else [
            {"start": {"line": place.first}, "end": {"line": place.last}}
        ]  # fmt: skip
        warnings.append({
            "ruleName": one.warning.rule,
            "description": one.warning.description,
            "url": one.warning.url,
            "detail": one.warning.message,
            "location": {"sourceIndex": source, "ranges": lines},
        })  # fmt: skip
    listed = [
        {"fileName": name, "filename": name, "language": "Dockerfile",
         "data": base64.b64encode(text).decode()}
        for name, text in sources
    ]  # fmt: skip
    metadata = _metadata({"warnings": warnings, "sources": listed}, _shown(found))
    return {**metadata, "result.statuscode": b"1" if found else b"0"}


def unsupported(name: str) -> StatusError:
    """Returns the error that says that something cannot be asked, as clients know it."""
    detail = schema.messages("control").Any(
        type_url="github.com/moby/buildkit/errdefs.Subrequest+json",
        value=json.dumps({"name": name}).encode(),
    )
    text = f"unsupported request {name}"
    return StatusError(Code.UNIMPLEMENTED, text, [detail])


def _shown(found: "Sequence[Warned]") -> str:
    """What rules have found, for people: lint.go, PrintLintViolations."""
    text = ""
    for one in sorted(found, key=lambda one: one.warning.rule):
        finding = one.warning
        text += f"\nWARNING: {finding.rule}"
        text += f" - {finding.url}\n" if finding.url else "\n"
        text += f"{finding.message}\n"
        if finding.place is None:
            continue
        lines = one.text.decode(errors="replace").split("\n")
        text += f"\n{one.filename}:{finding.place.first}\n{'-' * 20}\n"
        first, last = max(1, finding.place.first - 2), min(len(lines), finding.place.last + 2)
        for number in range(first, last + 1):
            blamed = finding.place.first <= number <= finding.place.last
            text += f" {number:3} | {'>>>' if blamed else '   '} {lines[number - 1]}\n"
        text += f"{'-' * 20}\n"
    return text


def _metadata(document: Any, text: str) -> dict[str, bytes]:
    return {
        "result.json": json.dumps(document, indent=2).encode(),
        "result.txt": text.encode(),
        "version": _VERSION.encode(),
    }


def _table(rows: "Sequence[tuple[str, str, str]]") -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "".join(f"{a:{widths[0]}} {b:{widths[1]}} {c}\n" for a, b, c in rows)
