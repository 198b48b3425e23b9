"""Sandboxes, beside a plain ``run --rm`` and docker-py: ``python -m bench.sandbox``.

In turns, medians: create, run ``true``, remove; the same by ``ketch run --rm`` and, where dockerd
is installed, by docker-py with like limits; a program in a living sandbox; from a warm pool until
a program runs, and until it has ended; a fork. Then the memory of many at once, each with a
sleeping program.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import docker  # type: ignore[import-untyped]

from bench.machine import engines, machine
from ketch import Engine, Pool, Sandbox
from tests.support.commands import Engine as Command

_LIMITS = {
    "cap_drop": ["ALL"], "mem_limit": "512m", "nano_cpus": 10**9, "network_mode": "none",
    "pids_limit": 128, "read_only": True, "security_opt": ["no-new-privileges"], "user": "65534",
    "tmpfs": {"/workspace": "size=256m", "/tmp": "size=256m"}, "working_dir": "/workspace",
}  # fmt: skip

_REST_SECONDS = 3  # in which those who watch over the last programs have come to rest


def main() -> int:
    """Run the benchmark and print tables."""
    parser = argparse.ArgumentParser(prog="bench.sandbox", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--many", type=int, default=200, help="sandboxes at once")
    parser.add_argument("--megabytes", type=int, default=200, help="that a forked one has written")
    options = parser.parse_args()
    with machine("bench.sandbox") as (stack, scratch):
        found, notes = engines(stack, scratch, ("docker",))
        ketch, *others = found
        words = list(ketch.prefix)
        root, state = (words[words.index(name) + 1] for name in ("--root", "--state"))
        library = Engine(root, state)
        _times(library, ketch, others, options.rounds)
        _forks(library, options.megabytes, max(3, options.rounds // 4))
        _memory(library, options.many)
        print("".join(f"({note})\n" for note in notes), end="")
    return 0


def _times(library: Engine, ketch: Command, others: list[Command], rounds: int) -> None:
    pool = Pool(4, "busybox", engine=library)
    living = Sandbox.create("busybox", engine=library, timeout=None)
    waited: list[tuple[float, float]] = []

    def create() -> None:
        with Sandbox.create("busybox", engine=library) as sandbox:
            sandbox.run(["true"])

    def run() -> None:
        command = [*ketch.prefix, "run", "--rm", "busybox", "true"]
        subprocess.run(command, check=True, env={**os.environ, **ketch.environment})

    def pooled() -> None:
        time.sleep(0.5)  # until the pool is full again
        begun = time.time()
        sandbox = pool.acquire()
        acquired = time.time()
        # The first thing that the program does is to look at the clock, which is the machine's.
        ran = float(sandbox.run(["sh", "-c", "echo $EPOCHREALTIME"]).text)
        waited.append((ran - begun, time.time() - begun))
        took.setdefault("acquired from a pool", []).append(acquired - begun)
        sandbox.kill()

    took: dict[str, list[float]] = {}
    scenes: dict[str, Callable[[], object]] = {
        "create, run true, remove": create, "ketch run --rm true": run,
        "run in a living one": lambda: living.run(["true"]), "from a pool": pooled,
    }  # fmt: skip
    for other in others:
        scenes[f"docker-py, {other.name}"] = _by_docker_py(other)
    for number in range(-2, rounds):
        for name, scene in scenes.items():
            begun = time.perf_counter()
            scene()
            if number >= 0 and name != "from a pool":
                took.setdefault(name, []).append(time.perf_counter() - begun)
    took["from a pool until a program runs"] = [ran for ran, _ in waited[2:]]
    took["from a pool until it has ended"] = [ended for _, ended in waited[2:]]
    pool.close()
    living.kill()
    for name, times in took.items():
        first, _, third = statistics.quantiles(times, n=4)
        median = statistics.median(times) * 1e3
        print(f"{name:40} {median:8.1f} ms   ({first * 1e3:.1f} to {third * 1e3:.1f})")


def _by_docker_py(engine: Command) -> Callable[[], object]:
    client = docker.DockerClient(base_url=engine.prefix[engine.prefix.index("--host") + 1])

    def create() -> None:
        container = client.containers.run("busybox", ["sleep", "60"], detach=True, **_LIMITS)
        container.exec_run(["true"])
        container.remove(force=True)

    return create


def _forks(library: Engine, megabytes: int, rounds: int) -> None:
    made, forked = [], []
    with Sandbox.create("busybox", engine=library, memory="4g", disk="1g") as sandbox:
        sandbox.run(f"dd if=/dev/zero of=/workspace/layer bs=1M count={megabytes}")
        for _ in range(rounds):
            begun = time.perf_counter()
            with Sandbox.create("busybox", engine=library):
                made.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            (fork,) = sandbox.fork()
            forked.append(time.perf_counter() - begun)
            fork.kill()
    for name, times in (("create", made), (f"fork of {megabytes} MB", forked)):
        print(f"{name:40} {statistics.median(times) * 1e3:8.1f} ms")


def _memory(library: Engine, many: int) -> None:
    sandboxes = []
    begun = time.perf_counter()
    for _ in range(many):
        sandboxes.append(Sandbox.create("busybox", engine=library, timeout=None))
        sandboxes[-1].start(["sleep", "1000"]).close()
    took = time.perf_counter() - begun
    time.sleep(_REST_SECONDS)
    engine = library._places.engine
    parts: dict[str, set[int]] = {}
    for sandbox in sandboxes:
        record = engine.containers.find(sandbox.id)
        inside = {*engine.containers.cgroup(record).processes()}
        parts.setdefault("its monitor", set()).add(record.monitor_pid)
        parts.setdefault("its programs", set()).update(inside)
        parents = {*map(_parent, inside)} - {record.monitor_pid, *inside}
        parts.setdefault("what watches a program of its own", set()).update(parents)
        parts.setdefault("the zygote, one for all", set()).add(_parent(record.monitor_pid))
    parts["the zygote, one for all"].discard(1)
    used = {name: sum(map(_proportional_kib, found)) / many for name, found in parts.items()}
    for sandbox in sandboxes:
        sandbox.kill()
    print(f"{many} at once: {sum(used.values()):.0f} KiB each, made in {took:.1f} s")
    print("".join(f"    {name:36} {kib:8.0f} KiB\n" for name, kib in used.items()), end="")


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _proportional_kib(pid: int) -> int:
    """A process's memory, with its share of what others have as well: proc_pid_smaps(5)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


if __name__ == "__main__":
    sys.exit(main())
