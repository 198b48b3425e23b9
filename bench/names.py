"""Answers a second of a container's name server, ketch's beside docker's: ``-m bench.names``.

The questions come from the container's own network namespace, over one socket, a fixed number of
them under way at a time, about the name of another container.
"""

import argparse
import os
import socket
import statistics
import sys
import time

import dnslib

from bench.machine import engines, machine
from ketch.linux import namespaces
from ketch.network.nameserver import ADDRESS, PORT
from tests.support.commands import Engine

_UNDER_WAY = 16
_TIMEOUT_SECONDS = 5.0
_ONE_RECORD = b"\0\1"


def main() -> int:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(prog="bench.names", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=5000, help="in each round")
    options = parser.parse_args()
    with machine("bench.names") as (stack, scratch):
        found, notes = engines(stack, scratch, ("docker",))
        askers = {engine.name: _asker(engine) for engine in found}
        rates: dict[str, list[float]] = {name: [] for name in askers}
        for _ in range(options.rounds):
            for name, asker in askers.items():
                rates[name].append(_rate(asker, options.questions))
        for engine in found:
            engine("rm", "-f", "asker", "asked")
        ours = statistics.median(rates["ketch"])
        print(f"answers a second, median of {options.rounds} rounds of {options.questions}")
        for name, values in rates.items():
            rate = statistics.median(values)
            print(f"  {name:10}{rate:8.0f}" + ("" if name == "ketch" else f"  {ours / rate:.2f}"))
        print("".join(f"({note})\n" for note in notes), end="")
    return 0


def _asker(engine: Engine) -> int:
    """Start two containers on a network of their own; return the first one's first process."""
    engine.ok("network", "create", "asking")
    for name in ("asker", "asked"):
        engine.ok("run", "-d", "--name", name, "--network", "asking", "busybox", "sleep", "1000")
    return int(engine.ok("inspect", "--format", "{{.State.Pid}}", "asker"))


def _rate(pid: int, questions: int) -> float:
    message = dnslib.DNSRecord.question("asked").pack()
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    namespaces.setns(there)
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    namespaces.setns(home)
    os.close(home)
    os.close(there)
    with asking:
        asking.settimeout(_TIMEOUT_SECONDS)
        asking.connect((ADDRESS, PORT))
        begun = time.perf_counter()
        for number in range(questions + _UNDER_WAY):
            if number < questions:
                asking.send(message)
            if number >= _UNDER_WAY and asking.recv(512)[6:8] != _ONE_RECORD:
                raise SystemExit(f"process {pid} was not told the name")
        return questions / (time.perf_counter() - begun)


if __name__ == "__main__":
    sys.exit(main())
