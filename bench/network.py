"""What networking costs, ketch's beside docker's: ``python -m bench.network``.

- What it adds to ``run --rm busybox true``: each run is paired, in turns, with one that has
  ``--network none``; another one publishes a port as well.
- What it adds that a port sends from its container's own addresses alone (``ketch.bridge.pinned``):
  starts on two networks, in turns.
- Connections a second, and throughput, between two containers of one network, and to a published
  port by the host's loopback address and by its address on the network. Both ends are sockets of
  this program's, opened in the containers' namespaces, a bounded number of bytes and connections.
"""

import argparse
import contextlib
import os
import pathlib
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from bench.machine import engines, machine
from bench.timing import Case, run_in_turns
from ketch.linux import namespaces
from tests.support.commands import Engine

_PORT = 8000  # the first of those that the server listens on
_PUBLISHED = 18000  # what the first is outside
_TURNS = 3
_PORTS = 4 * _TURNS  # for four ways
_CHUNK = bytes(1 << 18)
_SCENES = {
    "none": ("--network", "none"),
    "bridge": (),
    "published": ("-p", "127.0.0.1::80"),
}


def main() -> int:
    """Run the benchmark and print tables."""
    parser = argparse.ArgumentParser(prog="bench.network", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="starts of each kind")
    parser.add_argument("--seconds", type=float, default=120, help="for the starts altogether")
    parser.add_argument("--connections", type=int, default=3000, help="for each rate")
    parser.add_argument("--megabytes", type=int, default=1024, help="for each throughput")
    options = parser.parse_args()
    with machine("bench.network") as (stack, scratch):
        found, notes = engines(stack, scratch, ("docker",))
        _starts(found, options.rounds, options.seconds)
        _pinning(found[0], options.rounds, options.seconds)
        _traffic(found, scratch, options.connections, options.megabytes)
        print("".join(f"({note})\n" for note in notes), end="")
    return 0


def _starts(found: list[Engine], rounds: int, seconds: float) -> None:
    cases = [
        Case(
            engine.name, scene,
            _absolute([*engine.prefix, "run", "--rm", *words, "busybox", "true"]),
            {**os.environ, **engine.environment},
        )
        for engine in found
        for scene, words in _SCENES.items()
    ]  # fmt: skip
    done = run_in_turns(cases, rounds=rounds, seconds=seconds)
    print(f"run --rm busybox true, {done} rounds: median ms, and what the network adds to it")
    for engine in found:
        times = {case.scene: case.times_ns for case in cases if case.engine == engine.name}
        for scene, values in times.items():
            pairs = zip(values, times["none"], strict=True)
            added = statistics.median((one - none) / 1e6 for one, none in pairs)
            print(f"  {engine.name:8}{scene:12}{statistics.median(values) / 1e6:8.1f}{added:+8.1f}")


def _pinning(ketch: Engine, rounds: int, seconds: float) -> None:
    cases = []
    for name in ("pinned", "free"):
        ketch.ok("network", "create", "-o", f"ketch.bridge.pinned={name == 'pinned'}".lower(), name)
        run = [*ketch.prefix, "run", "--rm", "--network", name, "busybox", "true"]
        cases.append(Case(ketch.name, name, _absolute(run), {**os.environ, **ketch.environment}))
    done = run_in_turns(cases, rounds=rounds, seconds=seconds)
    pairs = zip(*(case.times_ns for case in cases), strict=True)
    added = [(pinned - free) / 1e6 for pinned, free in pairs]
    low, middle, high = statistics.quantiles(added, n=4)
    quartiles = f"quartiles {low:+.2f} {high:+.2f}"
    print(f"pinning adds {middle:+.2f} ms to a start ({done} pairs; {quartiles})")
    ketch.ok("network", "rm", "pinned", "free")


def _absolute(command: list[str]) -> list[str]:
    import shutil  # noqa: PLC0415

    return [shutil.which(command[0]) or command[0], *command[1:]]


def _traffic(found: list[Engine], scratch: pathlib.Path, connections: int, megabytes: int) -> None:
    print(f"connections a second (of {connections}) and MB/s (of {megabytes} MB)")
    measured: dict[str, dict[str, list[tuple[float, float]]]] = {}
    ways = {engine.name: _ways(engine, scratch) for engine in found}
    for turn in range(_TURNS):
        for name, several in ways.items():
            for number, (way, (client, server, address, first)) in enumerate(several.items()):
                # A port that no way and no turn has had: who meets a connection's last minute in
                # the server waits for it, by whichever address he came.
                offset = number * _TURNS + turn
                with _serving(server, _PORT + offset, _accept):
                    rate = _connect(client, address, first + offset, connections)
                with _serving(server, _PORT + offset, _drain):
                    speed = _pour(client, address, first + offset, megabytes)
                measured.setdefault(way, {}).setdefault(name, []).append((rate, speed))
    for engine in found:
        engine("rm", "-f", "one", "two")
    for name, turns in measured.items():
        values = {
            engine: tuple(statistics.median(kind) for kind in zip(*several, strict=True))
            for engine, several in turns.items()
        }
        words = [f"{engine} {rate:8.0f}/s{speed:8.0f} MB/s" for engine, (rate, speed) in
                 values.items()]  # fmt: skip
        if "docker" in values:
            ratio = [ours / theirs for ours, theirs in
                     zip(values["ketch"], values["docker"], strict=True)]  # fmt: skip
            words.append(f"ratio {ratio[0]:.2f} {ratio[1]:.2f}")
        print(f"  {name:34}{'   '.join(words)}")


def _ways(engine: Engine, scratch: pathlib.Path) -> dict[str, tuple[int, int, str, int]]:
    """Start two containers; return ways between: the ends' pids, address and first port."""
    engine.ok("network", "create", "bench")
    engine.ok("run", "-d", "--name", "one", "--network", "bench", "busybox", "sleep", "1000")
    engine.ok("run", "-d", "--name", "two", "--network", "bench", "-p",
              f"{_PUBLISHED}-{_PUBLISHED + _PORTS - 1}:{_PORT}-{_PORT + _PORTS - 1}",
              "busybox", "sleep", "1000")  # fmt: skip
    one, two = (int(engine.ok("inspect", "-f", "{{.State.Pid}}", name)) for name in ("one", "two"))
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}"
    address, gateway = engine.ok("inspect", "-f", form, "two").split()
    host = _host(engine, scratch)
    return {
        "container to container": (one, two, address, _PORT),
        "host by loopback to published": (host, two, "127.0.0.1", _PUBLISHED),
        "host by its address to published": (host, two, gateway, _PUBLISHED),
        "container to published": (one, two, gateway, _PUBLISHED),
    }


def _host(engine: Engine, scratch: pathlib.Path) -> int:
    """A process in the engine's host network."""
    if engine.name == "ketch":
        return os.getpid()
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                command = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                if command[0] == b"dockerd" and str(scratch).encode() in b" ".join(command):
                    return int(entry)
    raise SystemExit("bench: no dockerd to be seen")


@contextlib.contextmanager
def _within(pid: int) -> Iterator[None]:
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        with namespaces.network_entered(there):
            yield
    finally:
        os.close(there)


@contextlib.contextmanager
def _serving(pid: int, port: int, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Have a child serve in a container for the length of a block."""
    with _within(pid):
        listening = socket.create_server(("0.0.0.0", port), backlog=512)
    child = os.fork()
    if not child:
        try:
            serve(listening)
        finally:
            os._exit(0)
    listening.close()
    try:
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def _accept(listening: socket.socket) -> None:
    while True:
        accepted, _ = listening.accept()
        accepted.recv(1)
        accepted.send(b"!")
        accepted.close()


def _drain(listening: socket.socket) -> None:
    while True:
        accepted, _ = listening.accept()
        buffer = bytearray(1 << 18)
        while accepted.recv_into(buffer):
            pass
        accepted.send(b"!")
        accepted.close()


def _connect(pid: int, address: str, port: int, count: int) -> float:
    with _within(pid):
        begun = time.perf_counter()
        for _ in range(count):
            with socket.create_connection((address, port), timeout=10) as talking:
                talking.send(b"?")
                talking.recv(1)
        return count / (time.perf_counter() - begun)


def _pour(pid: int, address: str, port: int, megabytes: int) -> float:
    with _within(pid), socket.create_connection((address, port), timeout=30) as talking:
        begun = time.perf_counter()
        for _ in range((megabytes << 20) // len(_CHUNK)):
            talking.sendall(_CHUNK)
        talking.shutdown(socket.SHUT_WR)
        talking.recv(1)
        return megabytes / (time.perf_counter() - begun)


if __name__ == "__main__":
    sys.exit(main())
