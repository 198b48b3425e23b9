"""Time ``run --rm busybox true`` with ketch and with the engines installed beside it."""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

from bench.machine import engines, machine
from bench.timing import Case, FailedError, run_in_turns, works
from tests.support.images import busybox_archive


def main() -> int:
    """Run the benchmark, print a table or JSON."""
    options = _parse()
    with machine("bench") as (stack, scratch):
        cases, notes = _cases(stack, scratch)
        try:
            rounds = run_in_turns(cases, rounds=options.rounds, seconds=options.seconds)
        except FailedError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        if options.json:
            print(json.dumps(_facts(cases, rounds), indent=2))
        else:
            print(_table(cases, rounds, notes))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25, help="rounds to count at most")
    parser.add_argument("--seconds", type=float, default=90, help="begin no round after this time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def _cases(stack: contextlib.ExitStack, scratch: pathlib.Path) -> tuple[list[Case], list[str]]:
    """Start what is installed; tell what is not."""
    started, notes = engines(stack, scratch, ("docker", "podman"))
    cases = []
    for scene, flags in (("default network", []), ("--network none", ["--network", "none"])):
        for engine in started:
            program, *prefix = engine.prefix
            command = [shutil.which(program) or program, *prefix, "run", "--rm", *flags, "busybox",
                       "true"]  # fmt: skip
            cases.append(Case(engine.name, scene, command, {**os.environ, **engine.environment}))
    beside = str(pathlib.Path(sys.executable).parent)
    for name in ("ketch-oci", "runc", "crun"):
        runtime = shutil.which(name, path=f"{beside}:{os.environ['PATH']}")
        if runtime is None:
            notes.append(f"{name} is not installed")
            continue
        case = _bare(name, runtime, scratch)
        if complaint := works(case):
            notes.append(f"{name} does not work here: {complaint}")
        else:
            cases.append(case)
    return cases, notes


def _bare(name: str, program: str, scratch: pathlib.Path) -> Case:
    """Make a bundle of the same root filesystem for an OCI runtime: no image, no network."""
    bundle = scratch / name
    (bundle / "rootfs").mkdir(parents=True)
    subprocess.run(["tar", "-C", bundle / "rootfs", "-xf", busybox_archive()], check=True)
    subprocess.run([program, "spec"], cwd=bundle, check=True)
    path = bundle / "config.json"
    configuration = json.loads(path.read_text(encoding="utf-8"))
    configuration["process"] |= {"args": ["true"], "terminal": False}
    # Root may not have all that the template asks for.
    del configuration["process"]["rlimits"]
    configuration["linux"]["cgroupsPath"] = f"/ketch-bench-{name}"
    path.write_text(json.dumps(configuration), encoding="utf-8")
    state = bundle / "state"
    return Case(
        name, "a bundle, no image, no network",
        [program, "--root", str(state), "run", "--bundle", str(bundle), f"bench-{name}"],
        dict(os.environ),
    )  # fmt: skip


def _facts(cases: list[Case], rounds: int) -> dict[str, object]:
    return {
        "rounds": rounds,
        "kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version(),
        "cases": [
            {
                "engine": case.engine, "scene": case.scene, "median_ms": case.median_ms,
                "quartiles_ms": case.quartiles_ms, "times_ms": [t / 1e6 for t in case.times_ns],
            }
            for case in cases
        ],
    }  # fmt: skip


def _table(cases: list[Case], rounds: int, notes: list[str]) -> str:
    lines = [
        f"run --rm busybox true, median of {rounds} rounds in turns, on {os.cpu_count()} CPUs,"
        f" Linux {platform.release()}, Python {platform.python_version()}",
        "",
        f"{'':10}{'median ms':>10}{'quartiles ms':>16}    ketch takes",
    ]
    ours = {case.scene: case for case in cases if case.engine.startswith("ketch")}
    scene = ""
    for case in cases:
        if case.scene != scene:
            scene = case.scene
            lines.append(scene)
        first, third = case.quartiles_ms
        row = f"  {case.engine:10}{case.median_ms:8.1f}{f'{first:.1f} to {third:.1f}':>16}"
        if (our := ours.get(scene)) and case is not our:
            row += f"{our.median_ms / case.median_ms:8.2f} of {case.engine}'s time"
        lines.append(row)
    return "\n".join([*lines, *(f"({note})" for note in notes)])


if __name__ == "__main__":
    sys.exit(main())
