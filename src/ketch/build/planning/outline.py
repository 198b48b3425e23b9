"""What can be asked about a Dockerfile instead of building it: ``--check`` and ``--call``.

Documents and texts are BuildKit's. Source: github.com/moby/buildkit, frontend/subrequests: lint,
outline, targets.
"""

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from ketch.build.planning.arguments import Declared
from ketch.build.planning.planner import Ignored, Planner
from ketch.build.planning.resolver import Resolver
from ketch.build.planning.stages import Stage, reachable
from ketch.build.request import Request
from ketch.dataclass import dataclass
from ketch.spec.dockerfile import parsing
from ketch.spec.dockerfile import stages as language
from ketch.spec.dockerfile.errors import DockerfileError, Place, Source, excerpt
from ketch.spec.dockerfile.lint import Finding


@dataclass(frozen=True)
class Answer:
    """What is answered.

    Attributes:
        document: for programs.
        text: for people.
        findings: what breaks rules, of ``check`` alone.
        error: why the Dockerfile cannot be built, of ``check`` alone.
    """

    document: dict[str, Any]
    text: str
    findings: Sequence[Finding] = ()
    error: DockerfileError | None = None

    @property
    def status(self) -> int:
        """What a program ends with that was asked to look: 1 where something is wrong."""
        return 1 if self.findings or self.error is not None else 0


def targets(text: bytes, filename: str) -> Answer:
    """Returns the stages of a Dockerfile, each of which can be a target.

    Raises:
        DockerfileError: it is malformed.
    """
    program = language.read(parsing.parse(text, filename))
    listed, rows = [], [("TARGET", "DESCRIPTION")]
    for stage in program.stages:
        default = stage.index == len(program.stages) - 1
        facts = {
            "name": stage.name,
            "default": default,
            "description": stage.description,
            "base": stage.begin.base,
            "platform": stage.begin.platform,
            "location": _location(stage.begin.place),
        }
        listed.append(_given(facts))
        words = [stage.name, "(default)" if default else ""]
        rows.append((" ".join(filter(None, words)), stage.description))
    return Answer({"targets": listed, "sources": [_encoded(text)]}, _table(rows, 1))


def outline(text: bytes, filename: str, request: Request, resolver: Resolver) -> Answer:
    """Returns the arguments, secrets and ssh agents that a target takes.

    Raises:
        DockerfileError: it cannot be planned.
    """
    dockerfile = parsing.parse(text, filename)
    try:
        planner = Planner(language.read(dockerfile), request, resolver)
        wanted = planner.conversions()[0].wanted()
    except DockerfileError as error:
        raise error.at(source=dockerfile.source) from error.__cause__
    needed = reachable(wanted)
    arguments = _arguments(needed)
    secrets = _asked_for(stage.secrets for stage in needed)
    agents = _asked_for(stage.agents for stage in needed)
    document = {
        "name": wanted.name,
        "description": wanted.description,
        "args": [
            _given(
                {
                    "name": each.variable.name,
                    "description": each.variable.description,
                    "value": each.value,
                    "location": _location(each.place),
                }
            )
            for each in arguments
        ],
        "secrets": [_required(*each) for each in secrets],
        "ssh": [_required(*each) for each in agents],
        "sources": [_encoded(text)],
    }
    return Answer(_given(document), _outline_text(wanted, arguments, secrets, agents))


def check(
    text: bytes,
    filename: str,
    request: Request,
    resolver: Resolver,
    ignored: Ignored | None = None,
) -> Answer:
    """Returns what rules a Dockerfile breaks, in all its stages where there is no target.

    Args:
        text: the Dockerfile.
        filename: what it is called.
        request: what was asked for.
        resolver: who knows images.
        ignored: for the rule that what is copied is not left out.
    """
    source = Source(filename, text)
    findings: list[Finding] = []
    error: DockerfileError | None = None
    try:
        planner = Planner(language.read(parsing.parse(text, filename)), request, resolver, ignored)
        findings = planner.linter.findings
        planner.conversions(everything=not request.target)[0].wanted()
        error = planner.linter.error()
    except DockerfileError as caught:
        error = caught.at(source=source)
    findings = sorted(findings, key=lambda finding: finding.place.first)
    document: dict[str, Any] = {
        "warnings": [
            _given(
                {
                    "ruleName": finding.rule.name,
                    "description": finding.rule.description,
                    "url": finding.rule.url,
                    "detail": finding.message,
                    "location": _location(finding.place),
                }
            )
            for finding in findings
        ],
        "sources": [{"filename": filename, "data": _encoded(text), "language": "Dockerfile"}],
    }
    if error is not None:
        document["buildError"] = {"message": error.message, "location": _location(*error.places)}
    return Answer(document, _warnings_text(findings, source), findings, error)


def _warnings_text(findings: Iterable[Finding], source: Source) -> str:
    shown = []
    for finding in findings:
        url = f" - {finding.rule.url}" if finding.rule.url else ""
        lines = excerpt(source, [finding.place])
        shown.append(f"\nWARNING: {finding.rule.name}{url}\n{finding.message}\n{lines}")
    return "".join(shown)


def _arguments(stages: Iterable[Stage]) -> list[Declared]:
    """Returns the arguments that have a part in some stages, those of which they are made too."""
    found: dict[str, Declared] = {}
    for stage in stages:
        pending, used = [*stage.used], set[str]()
        while pending:
            name = pending.pop()
            if name not in used:
                used.add(name)
                if name in stage.declared:
                    found.setdefault(name, stage.declared[name])
                    pending += stage.declared[name].needs
    return sorted(found.values(), key=lambda each: (each.place.first, each.variable.name))


def _asked_for(given: Iterable[dict[str, tuple[Place, bool]]]) -> list[tuple[str, Place, bool]]:
    """Returns ids, where each is asked for first, and whether it must be there."""
    found: dict[str, tuple[Place, bool]] = {}
    for each in given:
        found = {**each, **found}
    listed = [(name, place, required) for name, (place, required) in found.items()]
    return sorted(listed, key=lambda each: (each[1].first, each[0]))


def _required(name: str, place: Place, required: bool) -> dict[str, Any]:
    return _given({"name": name, "required": required, "location": _location(place)})


def _outline_text(
    wanted: Stage,
    arguments: Sequence[Declared],
    secrets: Sequence[tuple[str, Place, bool]],
    agents: Sequence[tuple[str, Place, bool]],
) -> str:
    parts = []
    if wanted.name or wanted.description:
        rows = [("TARGET:", wanted.name or "(default)")]
        if wanted.description:
            rows.append(("DESCRIPTION:", wanted.description))
        parts.append(_table(rows, 1))
    if arguments:
        values = [(each.variable.name, each.value, each.variable.description) for each in arguments]
        parts.append(_table([("BUILD ARG", "VALUE", "DESCRIPTION"), *values], 3))
    for title, asked in (("SECRET", secrets), ("SSH", agents)):
        if asked:
            named = [(name, "true" if required else "") for name, _, required in asked]
            parts.append(_table([(title, "REQUIRED"), *named], 3))
    return "".join(f"{part}\n" for part in parts)


def _table(rows: Sequence[Sequence[str]], gap: int) -> str:
    """Returns rows in columns; the last one is as wide as it is."""
    widths = [max(map(len, column)) + gap for column in zip(*rows, strict=True)]
    lines = []
    for *cells, last in rows:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=False))
        lines.append("".join([*padded, last, "\n"]))
    return "".join(lines)


def _given(facts: dict[str, Any]) -> dict[str, Any]:
    """Returns a document without what is empty in it, as Go leaves it out."""
    return {name: value for name, value in facts.items() if value}


def _location(*places: Place) -> dict[str, Any]:
    """Returns places as BuildKit has them: line by line."""
    lines = [line for place in places for line in range(place.first, place.last + 1)]
    return {"ranges": [{"start": {"line": line}, "end": {"line": line}} for line in lines]}


def _encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()
