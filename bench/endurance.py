"""Use an engine for long, and count what is left of it: ``-m bench.endurance``.

Ten thousand starts, a thousand containers at once, a thousand images, a hundred networks, an hour
of logs at ten thousand lines a second, storms of starts and stops: each a part of that, unless all
of it is asked for, and none longer than its share of the time. What is there afterwards beyond what
was there before (mounts, links, elements of the packet filter's sets, cgroups, records, files,
processes, descriptors, memory) is printed, and is a failure.
"""

import argparse
import contextlib
import io
import os
import pathlib
import socket
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bench.machine import engines, machine
from tests.support.commands import Engine

_AT_ONCE = 4
_LINES_A_SECOND = 10_000
_LOG_SCRIPT = (
    "while :; do yes 0123456789012345678901234567890123456789 | head -n 1000; sleep 0.1; done"
)
# More than a long life may take of a process, or of the database's file, without that it leaks.
_SLACK = {"zygote's private memory, kB": 512, "database, kB": 1024, "database's log, kB": 4096}
_SETTLING_SECONDS = 30
_RECORDS = ("container", "endpoint", "lease", "port", "network", "image", "image_name", "exec",
            "volume")  # fmt: skip


@dataclass
class Phase:
    """One kind of use.

    Attributes:
        name: of what is counted.
        whole: how many there are when all of it is asked for.
        work: does so many, no longer than a number of seconds; returns how many it did.
        done: how many that were.
        seconds: how long they took.
    """

    name: str
    whole: int
    work: Callable[[int, float], int]
    done: int = 0
    seconds: float = field(default=0.0)


def main() -> int:
    """Use the engine; print what that took, and what is left. 1 where anything is."""
    parser = argparse.ArgumentParser(prog="bench.endurance", description=__doc__)
    parser.add_argument("--part", type=float, default=0.05, help="how much of each; 1 for all")
    parser.add_argument("--minutes", type=float, default=10, help="for all phases together")
    options = parser.parse_args()
    with machine("bench.endurance") as (stack, scratch):
        (engine, *_), _notes = engines(stack, scratch, ())
        user = _User(engine, scratch)
        stack.callback(user.leave)
        list(_use(user, 0.0))
        before = user.facts()
        for phase in _use(user, options.part, options.minutes * 60):
            each_ms = 1000 * phase.seconds / max(phase.done, 1)
            took = f"{phase.seconds:8.1f} s{each_ms:9.1f} ms each"
            print(f"{phase.done:7} of {phase.whole:6} {phase.name:38}{took}", flush=True)
        return _tell(before, user.settled(before))


def _use(user: "_User", part: float, seconds: float = 3600) -> Iterator[Phase]:
    """Go through all phases; with no part at all, one of each, so that what stays is there."""
    phases = [
        Phase("run --rm", 10_000, user.runs),
        Phase("running at once, removed by one rm -f", 1000, user.crowd),
        Phase("images, removed by one rmi", 1000, user.images),
        Phase("networks, with a container on each", 100, user.networks),
        Phase("thousand lines of a log", 3600 * _LINES_A_SECOND // 1000, user.logs),
        Phase("starts and stops, twenty at a time", 5000, user.storms),
    ]
    for phase in phases:
        began = time.monotonic()
        phase.done = phase.work(max(1, round(phase.whole * part)), seconds / len(phases))
        phase.seconds = time.monotonic() - began
        yield phase


def _tell(before: dict[str, int], after: dict[str, int]) -> int:
    leaks = 0
    print(f"\n{'':38}{'before':>9}{'after':>9}{'left':>9}")
    for name, count in after.items():
        left = max(0, count - before[name] - _SLACK.get(name, 0))
        leaks += left > 0
        print(f"{name:38}{before[name]:9}{count:9}{left:9}")
    return 1 if leaks else 0


class _User:
    """Whoever uses the engine.

    Args:
        engine: the engine.
        scratch: a directory for files.
    """

    def __init__(self, engine: Engine, scratch: pathlib.Path) -> None:
        self._engine = engine
        self._scratch = scratch
        self._root = pathlib.Path(engine.prefix[engine.prefix.index("--root") + 1])
        self._state = pathlib.Path(engine.prefix[engine.prefix.index("--state") + 1])
        # Of its own, since other engines of the machine make theirs in the usual one meanwhile.
        self._parent = f"ketch-endurance-{os.getpid()}"
        self._run = ("run", "--cgroup-parent", f"/{self._parent}")
        self._images = 0

    def leave(self) -> None:
        """Take away the cgroup in which the containers' were, and the helper processes."""
        self._engine("system", "reset", "-f", timeout=300)
        for directory in _cgroups(self._parent):
            with contextlib.suppress(OSError):
                directory.rmdir()

    # What is done

    def runs(self, count: int, seconds: float) -> int:
        """Run programs that end at once."""
        return _each(
            lambda _: self._engine.ok(*self._run, "--rm", "busybox", "true"), range(count), seconds
        )

    def crowd(self, count: int, seconds: float) -> int:
        """Have many run at once, and remove all by one command."""
        names = [f"crowd{number}" for number in range(count)]
        done = _each(self._start, names, 0.8 * seconds)
        self._engine.ok("ps")
        self._engine.ok("rm", "-f", *names[:done], timeout=3600)
        return done

    def _start(self, name: str) -> None:
        self._engine.ok(*self._run, "-d", "--name", name, "busybox", "sleep", "100000")

    def images(self, count: int, seconds: float) -> int:
        """Import many images, list them, and remove all by one command."""
        names = [f"made:{number}" for number in range(count)]
        done = _each(self._import, names, 0.8 * seconds)
        self._engine.ok("images")
        self._engine.ok("rmi", *names[:done], timeout=3600)
        return done

    def _import(self, name: str) -> None:
        self._images += 1
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            member = tarfile.TarInfo("number")
            member.size = len(content := str(self._images).encode())
            archive.addfile(member, io.BytesIO(content))
        self._engine.ok("import", "-", name, stdin=packed.getvalue())

    def networks(self, count: int, seconds: float) -> int:
        """Make many networks, run a program on each, and remove them."""
        names = [f"net{number}" for number in range(count)]

        def use(name: str) -> None:
            # The address pools have subnets for some thirty alone, as Docker's do.
            subnet = f"10.213.{name.removeprefix('net')}.0/24"
            self._engine.ok("network", "create", "--subnet", subnet, name)
            self._engine.ok(*self._run, "--rm", "--network", name, "busybox", "true")

        done = _each(use, names, 0.8 * seconds)
        self._engine.ok("network", "rm", *names[:done], timeout=600)
        return done

    def logs(self, count: int, seconds: float) -> int:
        """Have a program say so many thousand lines, ten thousand a second at the most."""
        self._engine.ok(*self._run, "-d", "--name", "talks", "--log-opt", "max-size=5m",
                        "--log-opt", "max-file=2", "busybox", "sh", "-c", _LOG_SCRIPT)  # fmt: skip
        count = min(count, int(seconds * _LINES_A_SECOND / 1000) or 1)
        time.sleep(count * 1000 / _LINES_A_SECOND)
        written_by = self._engine.ok("top", "talks", "-o", "pid,args")
        assert "yes" in written_by or "sleep" in written_by
        held = sum(path.stat().st_size for path in self._root.glob("containers/*/*-json.log*"))
        assert held <= 11 << 20, f"the log has {held} bytes"
        self._engine.ok("rm", "-f", "talks")
        return count

    def storms(self, count: int, seconds: float) -> int:
        """Start and stop twenty containers at the same time, again and again."""
        names = [f"storm{number}" for number in range(20)]
        for name in names:
            self._engine.ok("create", "--cgroup-parent", f"/{self._parent}", "--name", name,
                            "busybox", "sleep", "100000")  # fmt: skip

        def begin_and_end(number: int) -> None:
            name = names[number % len(names)]
            # Another's stop may be what ends it: all that counts is what is left.
            self._engine("start", name)
            self._engine("stop", "-t", "0", name)

        done = _each(begin_and_end, range(count), 0.8 * seconds, at_once=20)
        self._engine.ok("rm", "-f", *names, timeout=600)
        return done

    # What is left

    def settled(self, before: dict[str, int]) -> dict[str, int]:
        """Count once the kernel has taken down what is dying, or has had time for it."""
        deadline = time.monotonic() + _SETTLING_SECONDS
        while True:
            found = self.facts()
            if time.monotonic() > deadline or all(
                count <= before[name] + _SLACK.get(name, 0) for name, count in found.items()
            ):
                return found
            time.sleep(0.5)

    def facts(self) -> dict[str, int]:
        """Count what an engine may leave behind."""
        self._engine.ok(*self._run, "--rm", "busybox", "true")  # so that there is a zygote
        time.sleep(1)  # a finisher that has told its client may still be tidying up
        mine = list(self._processes())
        (zygote,) = [pid for pid, name in mine if name == "ketch-zygote"]
        found = {
            "mounts": len(pathlib.Path("/proc/self/mountinfo").read_text().splitlines()),
            "links": len(socket.if_nameindex()),
            "elements of sets": _elements(),
            "cgroups": len(_cgroups(self._parent)),
            "processes of containers": sum(
                name.startswith("ketch-") and name not in {"ketch-zygote", "ketch-resolver"}
                for _, name in mine
            ),
            "zygote's descriptors": len(os.listdir(f"/proc/{zygote}/fd")),
            "zygote's private memory, kB": _private_kb(zygote),
            "files in containers/": len(list(self._root.glob("containers/*"))),
            "files in the state directory": len(list(self._state.glob("containers/*"))),
            "layers and blobs": len(list(self._root.glob("*/sha256/*"))),
            "unfinished files": len(list(self._root.glob("**/ingest/*"))),
            "lines of errors.log": _lines(self._state / "errors.log"),
            "database, kB": (self._root / "ketch.db").stat().st_size // 1024,
            "database's log, kB": (self._root / "ketch.db-wal").stat().st_size // 1024,
        }
        with contextlib.closing(sqlite3.connect(self._root / "ketch.db")) as connection:
            for table in _RECORDS:
                (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
                found[f"records: {table}"] = count
        return found

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Pids and names of this engine's processes: those that its state directory was told."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if os.fsencode(self._state) in words:
                    yield int(pid), pathlib.Path(f"/proc/{pid}/comm").read_text().strip()


def _each(
    do: Callable[..., object], items: Iterable[object], seconds: float, at_once: int = _AT_ONCE
) -> int:
    """Do something with each, a few at a time, until the time is up; returns with how many."""
    deadline = time.monotonic() + seconds

    def one(item: object) -> bool:
        if time.monotonic() > deadline:
            return False
        do(item)
        return True

    with ThreadPoolExecutor(at_once) as pool:
        return sum(pool.map(one, items))


def _elements() -> int:
    """How many elements the packet filter's sets and maps have, in this network namespace."""
    done = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True)
    return sum(
        part.count(",") + 1 for part in done.stdout.split("elements = {")[1:]
        for part in [part.partition("}")[0]]
    )  # fmt: skip


def _cgroups(name: str) -> list[pathlib.Path]:
    """A cgroup and all in it, in every hierarchy, the innermost first."""
    parents = [*pathlib.Path("/sys/fs/cgroup").glob(f"*/{name}"),
               *pathlib.Path("/sys/fs/cgroup").glob(name)]  # fmt: skip
    found = [path for parent in parents for path in (parent, *parent.rglob("*/"))]
    return sorted((path for path in found if path.is_dir()), reverse=True)


def _private_kb(pid: int) -> int:
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    lines = [line.split() for line in rollup.splitlines() if line.startswith("Private_Dirty")]
    return sum(int(words[1]) for words in lines)


def _lines(path: pathlib.Path) -> int:
    try:
        return len(path.read_text(errors="replace").splitlines())
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
