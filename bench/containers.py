"""Time what is done to containers with ketch, docker and podman: exec, stop, many at once, memory.

Run as ``python -m bench.containers``, as root. Every figure is taken of the engines in turns, in
network and mount namespaces of its own. Takes five minutes, half of them for crowds of a thousand.
"""

import argparse
import concurrent.futures
import hashlib
import io
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable

from bench.machine import engines, machine
from tests.support.commands import Engine
from tests.support.images import busybox_archive

_ENDS_AT_TERM = ("busybox", "sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait")
"""An image and a program. A bare sleep as PID 1 ends at SIGKILL alone, for which podman waits."""


def main() -> int:
    """Run the benchmarks, print a table."""
    parser = argparse.ArgumentParser(prog="bench.containers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="rounds of exec, stop and ps")
    parser.add_argument("--burst", type=int, default=50, help="containers started in a burst")
    parser.add_argument("--many", type=int, default=1000, help="containers that there are for ps")
    parser.add_argument("--alone", action="store_true", help="ketch without its peers")
    options = parser.parse_args()
    with machine("bench.containers") as (stack, scratch):
        started, notes = engines(stack, scratch, () if options.alone else ("docker", "podman"))
        _show("exec true, ms", started, lambda each: exec_ms(each, options.rounds))
        _show("stop of what ends at SIGTERM, ms", started, lambda each: stop_ms(each, 5))
        _show(f"{options.burst} run -d, 8 at a time, a second", started,
              lambda each: burst_rate(each, options.burst))  # fmt: skip
        ketch = started[0]
        silent_kb, rests_kb = idle_private_kb(ketch)
        print(f"private memory of one more idle container, kB: ketch {silent_kb}, "
              f"{rests_kb} after a first word")  # fmt: skip
        _show(f"rm -f of {options.burst} that run, ms each", started,
              lambda each: killed_ms(each, options.burst))  # fmt: skip
        _show("rmi of 249 names, ms each", started, lambda each: untagged_ms(each, 249))
        one_ms = start_ms(ketch, options.rounds)
        crowd(ketch, options.many)
        print(f"ps -a of {options.many} containers, ms: ketch {ps_ms(ketch, options.rounds):.0f}")
        many_ms = start_ms(ketch, options.rounds)
        print(f"run --rm true, ms: ketch {one_ms:.0f} with one container, "
              f"{many_ms:.0f} with {options.many}: {many_ms / one_ms:.2f} times")  # fmt: skip
        print(f"container prune of {options.many}, ms each: ketch "
              f"{pruned_ms(ketch, 'container', options.many):.1f}")  # fmt: skip
        names = crowd(ketch, options.many)
        print(f"rm -f of {options.many} that do not run, ms each: ketch "
              f"{_timed_ms(ketch, 'rm', '-f', *names) / options.many:.1f}")  # fmt: skip
        crowd_of_images(ketch, scratch, options.many)
        print(f"image prune of {options.many}, ms each: ketch "
              f"{pruned_ms(ketch, 'image', options.many):.2f}")  # fmt: skip
        for note in notes:
            print(f"({note})")
    return 0


def _show(what: str, started: list[Engine], measure: Callable[[Engine], float]) -> None:
    figures = {engine.name: measure(engine) for engine in started}
    print(f"{what}: " + ", ".join(f"{name} {value:.1f}" for name, value in figures.items()))


def _timed_ms(engine: Engine, *words: str) -> float:
    """Time of a command as a shell starts it, without pipes."""
    program, *rest = engine.prefix
    command = [shutil.which(program) or program, *rest, *words]
    environment = {**os.environ, **engine.environment}
    began = time.perf_counter_ns()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   env=environment)  # fmt: skip
    return (time.perf_counter_ns() - began) / 1e6


def exec_ms(engine: Engine, rounds: int) -> float:
    """Median time of an exec."""
    engine.ok("run", "-d", "--name", "bench-exec", *_ENDS_AT_TERM)
    times = [_timed_ms(engine, "exec", "bench-exec", "true") for _ in range(rounds + 2)][2:]
    engine.ok("rm", "-f", "bench-exec")
    return statistics.median(times)


def stop_ms(engine: Engine, rounds: int) -> float:
    """Median time of stopping a program that listens to SIGTERM."""
    times = []
    for _ in range(rounds):
        engine.ok("run", "-d", "--name", "bench-stop", *_ENDS_AT_TERM)
        time.sleep(0.3)
        times.append(_timed_ms(engine, "stop", "bench-stop"))
        engine.ok("rm", "bench-stop")
    return statistics.median(times)


def burst_rate(engine: Engine, count: int) -> float:
    """How many containers a second start with eight commands at a time."""
    engine.ok("run", "--rm", "busybox", "true")
    names = [f"burst{number}" for number in range(count)]
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(
            lambda name: engine.ok("run", "-d", "--name", name, *_ENDS_AT_TERM), names
        ))  # fmt: skip
    rate = count / (time.perf_counter() - began)
    engine.ok("rm", "-f", *names, timeout=300)
    return rate


_REST_SECONDS = 12  # in which a scribe has ended that nothing was said to


def idle_private_kb(engine: Engine) -> tuple[int, int]:
    """Private memory of all of ketch's processes that are there for one of several containers.

    Returns:
        Of one that never said a word, and of one that did.
    """
    names = [f"idle{number}" for number in range(10)]
    for number, name in enumerate(names):
        script = f"{'echo up; ' if number % 2 else ''}exec sleep 600"
        engine.ok("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    time.sleep(_REST_SECONDS)
    found = []
    for name in names[:-2]:
        pid = engine.ok("inspect", "--format", "{{.State.Pid}}", name)
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        monitor = status.partition("PPid:")[2].split()[0]
        children = pathlib.Path(f"/proc/{monitor}/task/{monitor}/children")
        helpers = [each for each in children.read_text(encoding="ascii").split() if each != pid]
        found.append(sum(_private_kb(process) for process in (monitor, *helpers)))
    engine.ok("rm", "-f", *names)
    return max(found[::2]), max(found[1::2])


def _private_kb(pid: str) -> int:
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    lines = [line.split() for line in rollup.splitlines() if line.startswith("Private_")]
    return sum(int(words[1]) for words in lines)


def crowd(engine: Engine, count: int) -> list[str]:
    """Make many containers that do not run; return their names."""
    names = [f"crowd{number}" for number in range(count)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: engine.ok("create", "--name", name, "busybox", "true"), names))
    return names


def crowd_of_images(engine: Engine, scratch: pathlib.Path, count: int) -> None:
    """Make many images without a name, which share a layer."""
    archive = scratch / "crowd.tar"
    layer = busybox_archive()
    architecture = engine.ok("image", "inspect", "-f", "{{.Architecture}}", "busybox")
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    with tarfile.open(archive, "w") as writer:
        writer.add(layer, "layer.tar")
        documents: dict[str, object] = {}
        for number in range(count):
            documents[f"{number}.json"] = {
                "architecture": architecture, "os": "linux",
                "config": {"Labels": {"number": str(number)}},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            }  # fmt: skip
        documents["manifest.json"] = [
            {"Config": name, "RepoTags": None, "Layers": ["layer.tar"]} for name in documents
        ]
        for name, document in documents.items():
            data = json.dumps(document).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            writer.addfile(entry, io.BytesIO(data))
    engine.ok("load", "-q", "-i", str(archive), timeout=300)


def killed_ms(engine: Engine, count: int) -> float:
    """Time for each of many containers that run and are removed by one command."""
    names = [f"killed{number}" for number in range(count)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(
            lambda name: engine.ok("run", "-d", "--name", name, *_ENDS_AT_TERM), names
        ))  # fmt: skip
    return _timed_ms(engine, "rm", "-f", *names) / count


def pruned_ms(engine: Engine, kind: str, count: int) -> float:
    """Time for each of many unused containers or images that are removed by one command."""
    before = len(engine.ok(kind, "ls", "-aq").splitlines())
    taken_ms = _timed_ms(engine, kind, "prune", "-f")
    removed = before - len(engine.ok(kind, "ls", "-aq").splitlines())
    if removed != count:
        raise SystemExit(f"{kind} prune removed {removed} of {count}")
    return taken_ms / count


def untagged_ms(engine: Engine, count: int) -> float:
    """Time for each of many names of an image that are taken away by one command."""
    names = [f"name{number}" for number in range(count)]
    for name in names:
        engine.ok("tag", "busybox", name)
    return _timed_ms(engine, "rmi", *names) / count


def ps_ms(engine: Engine, rounds: int) -> float:
    """Median time of listing all containers."""
    return statistics.median(_timed_ms(engine, "ps", "-a") for _ in range(rounds))


def start_ms(engine: Engine, rounds: int) -> float:
    """Median time of a start, in the command line's own process as a shell starts it."""
    words = ("run", "--rm", "busybox", "true")
    return statistics.median([_timed_ms(engine, *words) for _ in range(rounds + 2)][2:])


if __name__ == "__main__":
    sys.exit(main())
