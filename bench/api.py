"""Time docker's command line on ``ketch serve`` and on dockerd, in turns: ``python -m bench.api``.

``run --rm`` and ``exec``; ``ps`` with many containers; starts by 20 clients at a time; the memory
that the server, and dockerd with its containerd, have resident with 50 containers.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from bench.machine import machine
from tests.support import leftovers, peers, serving
from tests.support.commands import Engine
from tests.support.images import busybox_archive

CLIENTS = 20


def main() -> int:
    """Run the scenes, print a table or JSON."""
    parser = argparse.ArgumentParser(prog="bench.api", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--listed", type=int, default=200, help="containers for ps")
    parser.add_argument("--running", type=int, default=50, help="containers for memory and starts")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with machine("bench.api") as (stack, scratch):
        engines = {"ketch": stack.enter_context(_ketch(scratch / "ketch"))}
        try:
            (scratch / "docker").mkdir()
            engines["docker"] = stack.enter_context(peers.docker(scratch / "docker"))
        except peers.PeerUnavailableError as error:
            print(f"bench.api: {error}", file=sys.stderr)
        figures = _measure(engines, scratch, options)
    if options.json:
        print(json.dumps(figures, indent=2))
        return 0
    print(f"{'':22}" + "".join(f"{name:>12}" for name in engines) + f"{'ratio':>9}")
    for scene, found in figures.items():
        ratio = found["ketch"] / found["docker"] if "docker" in found else float("nan")
        print(f"{scene:22}" + "".join(f"{found[name]:12.1f}" for name in engines) + f"{ratio:9.2f}")
    return 0


@contextlib.contextmanager
def _ketch(directory: pathlib.Path) -> Iterator[Engine]:
    directory.mkdir()
    program = pathlib.Path(sys.executable).with_name("ketch")
    command = [str(program), "--root", f"{directory}/root", "--state", f"{directory}/state"]
    ketch = Engine("ketch", command)
    ketch.ok("import", str(busybox_archive()), "busybox")
    socket = directory / "api.sock"
    try:
        with serving.served(command, socket, directory / "log", "--log-level", "error"):
            yield Engine(
                "served",
                ["docker", "--host", f"unix://{socket}"],
                {"DOCKER_CONFIG": str(directory), "DOCKER_CLI_HINTS": "false"},
            )
    finally:
        if identifiers := ketch.ok("ps", "-aq").split():
            ketch("rm", "-f", *identifiers)
        for pid in leftovers.processes(str(directory)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _measure(
    engines: dict[str, Engine], scratch: pathlib.Path, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    for engine in engines.values():
        engine.ok("run", "-d", "--name", "kept", "busybox", "sleep", "100000")
    scenes: dict[str, list[str]] = {
        "run --rm, ms": ["run", "--rm", "busybox", "true"],
        "exec, ms": ["exec", "kept", "true"],
    }
    for scene, words in scenes.items():
        figures[scene] = _in_turns(engines, words, options.rounds)
    figures["starts in a second"] = {
        name: _starts(engine, options.running) for name, engine in engines.items()
    }
    figures["resident, MB"] = {name: _resident_mb(str(scratch / name)) for name in engines}
    for engine in engines.values():
        _at_once(lambda _, engine=engine: engine.ok("create", "busybox", "true"),  # type: ignore[misc]
                 options.listed - options.running)  # fmt: skip
    figures[f"ps -a of {options.listed}, ms"] = _in_turns(engines, ["ps", "-a"], options.rounds)
    return figures


def _in_turns(engines: dict[str, Engine], words: list[str], rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(-2, rounds):
        for name, engine in engines.items():
            began = time.perf_counter()
            engine.ok(*words)
            if number >= 0:
                taken[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(times) for name, times in taken.items()}


def _at_once(work: Callable[[int], object], count: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as crowd:
        list(crowd.map(work, range(count)))


def _starts(engine: Engine, count: int) -> float:
    began = time.perf_counter()
    _at_once(lambda _: engine.ok("run", "-d", "busybox", "sleep", "100000"), count)
    return count / (time.perf_counter() - began)


def _resident_mb(directory: str) -> float:
    """What the processes of a server have resident: ketch's own, or dockerd's and containerd's."""
    total_kib = 0
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            name = os.path.basename(words[0].decode()) if words else ""
            ours = any(directory.encode() in word for word in words)
            if ours and (name in {"dockerd", "containerd"} or b"serve" in words):
                status = (entry / "status").read_text(encoding="ascii")
                total_kib += int(status.partition("VmRSS:")[2].split()[0])
    return total_kib / 1024


if __name__ == "__main__":
    if not shutil.which("docker"):
        sys.exit("bench.api: needs docker's command line")
    sys.exit(main())
