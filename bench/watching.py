"""Logs written and read, and lists of many containers, beside others: ``-m bench.watching``.

A program writes as fast as it is let, with nobody attached; what is timed is its whole run, so that
a log that is behind counts. Lists are of ketch alone: a thousand containers that run, of which only
records are made.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

from bench.machine import engines, machine
from ketch.engine.engine import Engine as Library
from ketch.engine.records.names import new_id
from ketch.engine.settings import Settings
from ketch.linux import procfs
from tests.support.commands import Engine

_LINE = "x" * 99
_SCENES = {
    "lines of 100 bytes": f"yes {_LINE} | head -c {{size}}",
    "lines of 2 bytes": "yes | head -c {size}",
    "random bytes": "head -c {size} /dev/urandom",
}
_SIZES_MB = {"lines of 100 bytes": 400, "lines of 2 bytes": 20, "random bytes": 60}


def main() -> int:
    """Run the benchmark and print tables."""
    parser = argparse.ArgumentParser(prog="bench.watching", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--containers", type=int, default=1000)
    options = parser.parse_args()
    with machine("bench.watching") as (stack, scratch):
        found, notes = engines(stack, scratch, ("docker", "podman"))
        print(f"MB a second that a program writes, median of {options.rounds} rounds")
        for scene, script in _SCENES.items():
            _compare(found, scene, script, options.rounds)
        print("MB a second of a log that is read")
        for engine in found:
            engine.ok("run", "-d", "--name", "read", "busybox", "sh", "-c",
                      f"yes {_LINE} | head -c 10000000")  # fmt: skip
            engine.ok("wait", "read")
            taken = statistics.median(_timed(engine, "logs", "read") for _ in range(options.rounds))
            engine.ok("rm", "-f", "read")
            print(f"  {engine.name:10}{10 / taken:8.1f}")
        print("".join(f"({note})\n" for note in notes), end="")
        _lists(found[0], scratch, options.containers, options.rounds)
    return 0


def _compare(found: list[Engine], scene: str, script: str, rounds: int) -> None:
    size = _SIZES_MB[scene] * 10**6
    rates: dict[str, list[float]] = {engine.name: [] for engine in found}
    for _ in range(rounds):
        for engine in found:
            begun = time.perf_counter()
            engine.ok("run", "-d", "--name", "talk", "busybox", "sh", "-c",
                      script.format(size=size), timeout=600)  # fmt: skip
            engine.ok("wait", "talk", timeout=600)
            rates[engine.name].append(size / 1e6 / (time.perf_counter() - begun))
            engine.ok("rm", "-f", "talk")
    print(scene)
    for name, values in rates.items():
        print(f"  {name:10}{statistics.median(values):8.1f}")


def _timed(engine: Engine, *arguments: str) -> float:
    begun = time.perf_counter()
    subprocess.run(
        [*engine.prefix, *arguments], env={**os.environ, **engine.environment}, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - begun


def _lists(ketch: Engine, scratch: pathlib.Path, count: int, rounds: int) -> None:
    settings = Settings(str(scratch / "many"), str(scratch / "state"))
    library = Library(settings)
    start_time = procfs.process_start_time(os.getpid())
    assert start_time is not None
    for number in range(count):
        record = {
            "Path": "sleep",
            "Args": ["1000"],
            "Config": {"Labels": {"number": str(number)}, "Env": ["PATH=/bin"] * 10},
            "HostConfig": {"NetworkMode": "none"},
        }
        made = library.containers.create_record(
            new_id(), name=f"c{number}", image_id="sha256:" + "1" * 64, image_reference="busybox",
            record=record,
        )  # fmt: skip
        library.containers.mark_created(made.id)
        library.containers.claim(made.id)
        library.containers.mark_started(made.id, os.getpid(), start_time, time.time_ns())
    library.store.close()
    places = ["--root", settings.root, "--state", settings.state]
    lister = Engine("ketch", [ketch.prefix[0], *places])
    for arguments in (["ps"], ["ps", "-q"], ["ps", "--format", "json"]):
        taken = statistics.median(_timed(lister, *arguments) for _ in range(rounds))
        print(f"{' '.join(arguments)} of {count} containers: {taken * 1000:.0f} ms")


if __name__ == "__main__":
    sys.exit(main())
