"""Time builds against docker (BuildKit) and podman (buildah): ``python -m bench.build``.

Each scene is one command, run in turns: a rebuild of which every step is cached, steps that run,
ten thousand files, and a context of which one file is used. The engines and their images are the
bench's own.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable

from bench.images import Case
from bench.machine import engines, machine
from tests.support.commands import Engine

_STEPS = 20
_FILES = 10_000
_LARGE_BYTES = 1 << 30
_MIB = 1 << 20
_SCENES = ("20 steps, cached", "20 RUN steps", "COPY 10,000 files", "one file of 1 GiB")

# Limits that docker's and podman's defaults exceed where root may not raise them.
_LIMITED = ["--ulimit", "nofile=1024:1024"]


def main() -> int:
    """Run the rounds, print a table or JSON."""
    parser = argparse.ArgumentParser(prog="bench.build", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="scenes whose name begins so")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with machine("bench.build") as (stack, scratch):
        started, notes = engines(stack, scratch, ("docker", "podman"))
        contexts = _contexts(scratch)
        cases = [
            case
            for scene in _SCENES
            if scene.startswith(options.only)
            for engine in started
            for case in [_case(scene, engine, contexts[scene])]
        ]
        for number in range(-1, options.rounds):
            turn = number % len(cases)
            for case in [*cases[turn:], *cases[:turn]]:
                case.run(counted=number >= 0)
        if options.json:
            print(json.dumps(_facts(cases, options.rounds), indent=2))
        else:
            print(_table(cases, options.rounds, notes))
    return 0


def _contexts(scratch: pathlib.Path) -> dict[str, pathlib.Path]:
    """Write what is built; return the directories by scene."""
    steps = "FROM busybox\n" + "".join(
        f"RUN echo {number} > /file-{number}\n" for number in range(_STEPS)
    )
    files = "FROM busybox\nCOPY files /files/\n"
    one = "FROM busybox\nCOPY small /\n"
    found = {}
    for scene, text in zip(_SCENES, (steps, steps, files, one), strict=True):
        directory = scratch / "contexts" / scene.replace(" ", "-").replace(",", "")
        directory.mkdir(parents=True)
        (directory / "Dockerfile").write_text(text)
        found[scene] = directory
    many = found["COPY 10,000 files"] / "files"
    for number in range(_FILES):
        place = many / str(number // 100)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"file-{number}").write_text(f"{number}\n" * 20)
    (found["one file of 1 GiB"] / "small").write_text("small")
    with (found["one file of 1 GiB"] / "large").open("wb") as large:
        for _ in range(_LARGE_BYTES // _MIB):
            large.write(os.urandom(_MIB))
    return found


def _case(scene: str, engine: Engine, context: pathlib.Path) -> Case:
    limited = [] if engine.name == "ketch" else _LIMITED
    fresh = [] if scene.endswith("cached") else ["--no-cache"]
    if engine.name == "podman" and not fresh:
        fresh = ["--layers"]
    name = f"bench-{_SCENES.index(scene)}"
    command = ["build", "-q", *limited, *fresh, "-t", name, str(context)]
    prepare: Callable[[], object] = lambda: None  # noqa: E731
    changed = {"one file of 1 GiB": "small", "COPY 10,000 files": "files/0/file-0"}.get(scene)
    if changed is not None:
        prepare = functools.partial(_touch, context / changed)
    return Case(scene, engine, command, prepare)


def _touch(path: pathlib.Path) -> None:
    """Change the file, so that it is copied anew."""
    path.write_text(str(os.urandom(8)))


def _facts(cases: list[Case], rounds: int) -> dict[str, object]:
    return {
        "rounds": rounds,
        "cases": [
            {
                "engine": case.engine.name, "scene": case.scene, "median_ms": case.median_ms,
                "times_ms": [taken / 1e6 for taken in case.times_ns],
                "memory_mib": case.memory_bytes / _MIB,
            }
            for case in cases
        ],
    }  # fmt: skip


def _table(cases: list[Case], rounds: int, notes: list[str]) -> str:
    """Return rows of medians, and of what ketch's are of the others'."""
    lines = [f"medians of {rounds} rounds, in turns; memory is the command's own at its most", ""]
    lines.append(f"{'':20}{'engine':10}{'ms':>10}{'of it':>10}{'MiB':>8}")
    ours = {case.scene: case.median_ms for case in cases if case.engine.name == "ketch"}
    for case in cases:
        share = f"{ours[case.scene] / case.median_ms:.2f}" if case.engine.name != "ketch" else ""
        memory = f"{case.memory_bytes / _MIB:.0f}"
        lines.append(
            f"{case.scene:20}{case.engine.name:10}{case.median_ms:10.0f}{share:>10}{memory:>8}"
        )
    return "\n".join([*lines, *notes])


if __name__ == "__main__":
    sys.exit(main())
