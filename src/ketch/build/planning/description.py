"""A plan as text, for people who ask what a build is going to do."""

import json
from collections.abc import Iterator

from ketch.build.graph import (
    ContextSource,
    Copy,
    GitSource,
    HttpSource,
    ImageSource,
    InlineSource,
    MakeDirectory,
    Mount,
    MountKind,
    Network,
    Plan,
    Run,
    Scratch,
    Target,
    Vertex,
)
from ketch.spec.values import quoted


def describe(plan: Plan) -> str:
    """Returns a plan's vertices, each after those that it needs, then its images.

    A vertex has a number, by which others refer to it; what differs from the usual is told.
    """
    numbers = {vertex: number for number, vertex in enumerate(vertices(plan), 1)}
    lines: list[str] = []
    for vertex in numbers:
        lines += _vertex(vertex, numbers)
    for target in plan.targets:
        lines += _target(target, numbers)
    if plan.epoch_s is not None:
        lines.append(f"made at {plan.epoch_s} seconds since 1970")
    if plan.unused_arguments:
        lines.append(f"arguments that nothing declares: {', '.join(plan.unused_arguments)}")
    for finding in plan.warnings:
        where = f"line {finding.place.first}: " if finding.place else ""
        lines.append(f"warning: {where}{finding.rule}: {finding.message}")
    return "\n".join([*lines, ""])


def vertices(plan: Plan) -> list[Vertex]:
    """Returns all vertices of a plan, each after its inputs."""
    found: dict[Vertex, None] = {}
    wanted = [
        vertex for target in plan.targets for vertex in (target.root, *target.scanned.values())
    ]
    for root in wanted:
        pending = [root]
        while pending:
            vertex = pending[-1]
            missing = [each for each in vertex.inputs if each not in found]
            if missing:
                pending += reversed(missing)
            else:
                found.setdefault(pending.pop())
    return [*found]


def _vertex(vertex: Vertex, numbers: dict[Vertex, int]) -> Iterator[str]:
    platform = f" ({vertex.platform})" if isinstance(vertex, ImageSource | Run) else ""
    ignore = ", never from the cache" if vertex.ignore_cache else ""
    yield f"#{numbers[vertex]} {_line(vertex.name) or 'nothing'}{platform}{ignore}"
    for fact in _facts(vertex, numbers):
        yield f"   {fact}"


def _facts(vertex: Vertex, numbers: dict[Vertex, int]) -> Iterator[str]:
    if isinstance(vertex, ImageSource):
        kept = f" in the layout {vertex.layout}" if vertex.layout else ""
        yield f"image {vertex.reference}{kept}"
    elif isinstance(vertex, ContextSource):
        yield f"context {vertex.context}"
    elif isinstance(vertex, GitSource):
        keep = ", with .git" if vertex.keep_git_dir else ""
        yield f"repository {vertex.url}{_checked(vertex.checksum)}{keep}"
    elif isinstance(vertex, HttpSource):
        yield f"download {vertex.url} as {vertex.filename}{_checked(vertex.checksum)}"
    elif isinstance(vertex, InlineSource):
        for name, content in vertex.files.items():
            yield f"file {_word(name)}: {len(content)} bytes"
    elif isinstance(vertex, Copy):
        yield from _copy(vertex, numbers)
    elif isinstance(vertex, MakeDirectory):
        owner = f", owned by {vertex.owner}" if vertex.owner else ""
        yield f"on #{numbers[vertex.base]}, directory {_word(vertex.path)}{owner}"
    elif isinstance(vertex, Run):
        yield from _run(vertex, numbers)
    elif isinstance(vertex, Scratch):
        yield "no files"


def _checked(checksum: str) -> str:
    return f", checked to be {checksum}" if checksum else ""


def _copy(vertex: Copy, numbers: dict[Vertex, int]) -> Iterator[str]:
    yield f"on #{numbers[vertex.base]}, to {_word(vertex.target)}"
    for item in vertex.items:
        what = "unpacked " if item.unpack else ""
        optional = "" if item.required else ", if there is any"
        paths = " ".join(map(_word, item.paths))
        yield f"{what}{paths} of #{numbers[item.source]}{optional}"
    said = [f"owner {vertex.owner}"] if vertex.owner else []
    said += [f"mode {vertex.mode}"] if vertex.mode else []
    said += ["with the directories above"] if vertex.parents else []
    said += [f"without {' '.join(map(_word, vertex.exclude))}"] if vertex.exclude else []
    said += ["as a layer of its own"] if vertex.link else []
    if said:
        yield ", ".join(said)


def _run(vertex: Run, numbers: dict[Vertex, int]) -> Iterator[str]:
    user = f", as {vertex.user}" if vertex.user else ""
    yield f"on #{numbers[vertex.base]}, in {_word(vertex.directory)}{user}"
    yield f"runs {' '.join(map(_word, vertex.arguments))}"
    for variable in vertex.environment:
        yield f"with {_line(variable)}"
    for name, content in vertex.files.items():
        yield f"file {_word(name)}: {len(content)} bytes"
    for mount in vertex.mounts:
        yield _mount(mount, numbers)
    if vertex.network != Network.DEFAULT:
        yield f"network {vertex.network}"
    if vertex.insecure:
        yield "with all privileges"
    for name, required in vertex.devices:
        yield f"device {name}{'' if required else ', if it is there'}"
    if vertex.hidden:
        yield "with proxies, which the cache does not know"
    if vertex.hostname:
        yield f"hostname {vertex.hostname}"
    for host in vertex.hosts:
        yield f"host {host}"


def _mount(mount: Mount, numbers: dict[Vertex, int]) -> str:
    said = [f"mount {mount.kind}"]
    if mount.id:
        said.append(f"{quoted(mount.id)}")
    if mount.target:
        said.append(f"at {_word(mount.target)}")
    if mount.variable:
        said.append(f"as ${mount.variable}")
    if mount.source is not None:
        said.append(f"from {_word(mount.source_path)} of #{numbers[mount.source]}")
    if mount.kind == MountKind.CACHE:
        said.append(str(mount.sharing))
    if mount.read_only and mount.kind != MountKind.SECRET:
        said.append("read-only")
    if mount.size_bytes:
        said.append(f"of {mount.size_bytes} bytes")
    if mount.mode is not None or mount.uid or mount.gid:
        mode = "" if mount.mode is None else f" mode {mount.mode:o}"
        said.append(f"of {mount.uid}:{mount.gid}{mode}")
    if mount.required:
        said.append("required")
    return " ".join(said)


def _target(target: Target, numbers: dict[Vertex, int]) -> Iterator[str]:
    yield f"image for {target.platform}: #{numbers[target.root]}"
    if target.base is not None:
        yield f"   history of {target.base.reference}"
    for step in target.steps:
        layer = f" = #{numbers[step.vertex]}" if step.vertex is not None else ""
        yield f"   {_line(step.created_by)}{layer}"
    if target.config.get("author"):
        yield f"   author {_line(target.config['author'])}"
    for name, value in target.config.get("config", {}).items():
        yield f"   {name} {json.dumps(value, ensure_ascii=False)}"
    for name, vertex in target.scanned.items():
        yield f"   scanned too: {name}, #{numbers[vertex]}"


def _word(text: str) -> str:
    plain = text and all(each not in " \t\n\"'\\" for each in text)
    return text if plain else quoted(text)


def _line(text: str) -> str:
    return text.replace("\n", "\\n")
