"""Time each command that callers of an OCI runtime give for one container: ``python -m bench.oci``.

podman, containerd and dockerd call create, start, state, exec, kill and delete apart, so what a
container costs them is the sum. Every round goes through all of them with every runtime, as root,
in network and mount namespaces of its own. Takes half a minute.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from bench.machine import machine
from tests.support import oci
from tests.support.images import busybox_archive

_STEPS = {
    "run": ["run", "--bundle", "{true}", "r"],
    "create": ["create", "--bundle", "{sleep}", "c"],
    "start": ["start", "c"],
    "state": ["state", "c"],
    "exec": ["exec", "c", "true"],
    "kill": ["kill", "c", "KILL"],
    "delete": ["delete", "--force", "c"],
}


def main() -> int:
    """Run the rounds, print a table of medians in milliseconds."""
    parser = argparse.ArgumentParser(prog="bench.oci", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with machine("bench.oci") as (_, scratch):
        times = _measure(scratch, options.rounds)
    medians = {
        name: {step: statistics.median(taken) / 1e6 for step, taken in steps.items()}
        for name, steps in times.items()
    }
    if options.json:
        print(json.dumps({"rounds": options.rounds, "medians_ms": medians}, indent=2))
        return 0
    print(f"{'':10}" + "".join(f"{step:>9}" for step in _STEPS) + "   milliseconds, medians")
    for name, steps in medians.items():
        print(f"{name:10}" + "".join(f"{steps[step]:9.1f}" for step in _STEPS))
    return 0


def _measure(scratch: pathlib.Path, rounds: int) -> dict[str, dict[str, list[int]]]:
    rootfs = scratch / "rootfs"
    rootfs.mkdir()
    subprocess.run(["tar", "-C", rootfs, "-xf", busybox_archive()], check=True)
    beside = pathlib.Path(sys.executable).with_name("ketch-oci")
    programs = {"ketch-oci": str(beside)} | {
        name: path for name in ("runc", "crun") if (path := shutil.which(name))
    }
    times: dict[str, dict[str, list[int]]] = {}
    for name, program in programs.items():
        bundles = {}
        for command, words in (("true", ["true"]), ("sleep", ["sleep", "1000"])):
            config = oci.configuration(rootfs, *words)
            config["linux"]["cgroupsPath"] = f"/ketch-bench-{name}-{command}"
            bundles[command] = oci.write_bundle(scratch / f"{name}-{command}", config)
        prefix = [program, "--root", str(scratch / f"{name}-state")]
        steps = {
            step: [*prefix, *(word.format(**bundles) for word in words)]
            for step, words in _STEPS.items()
        }
        if complaint := _round(steps, {}):
            print(f"bench.oci: {name} does not work here: {complaint}", file=sys.stderr)
            continue
        times[name] = {step: [] for step in steps}
        programs[name] = json.dumps(steps)
    for _ in range(rounds):
        for name, taken in times.items():
            _round(json.loads(programs[name]), taken)
    return times


def _round(steps: dict[str, list[str]], taken: dict[str, list[int]]) -> str:
    """Go once through a runtime's commands; return what those that failed said of it."""
    null = subprocess.DEVNULL
    complaints = []
    for step, words in steps.items():
        # Not a pipe: the container's program has it for as long as it runs.
        with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
            started = time.monotonic_ns()
            done = subprocess.run(words, check=False, stdin=null, stdout=null, stderr=errors)
            elapsed = time.monotonic_ns() - started
            if done.returncode:
                errors.seek(0)
                complaints.append(f"{step}: {errors.read().strip() or done.returncode}")
        if taken:
            taken[step].append(elapsed)
    return "; ".join(complaints)


if __name__ == "__main__":
    sys.exit(main())
