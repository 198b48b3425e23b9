"""RUN's programs: on an image's files, with the runtime of containers, and nothing left of them."""

import os
import pathlib
import threading
import time
from collections.abc import Iterator

import pytest

from ketch.build import graph
from ketch.build.request import Request
from ketch.build.steps import Outcome, Steps
from ketch.engine.engine import Engine as Library
from ketch.engine.processes import Patience
from ketch.engine.settings import Settings
from ketch.errors import InvalidArgumentError, StartError
from tests.support.commands import Engine

BASE = graph.Scratch(name="base")


class CalledOffError(Exception):
    """A test does not want to wait any more."""


class Limited(Patience):
    """Waits until an event, and then no more."""

    def __init__(self, ended: threading.Event) -> None:
        self._ended = ended

    def poll(self, milliseconds: int | None, *watched: tuple[int, int]) -> list[tuple[int, int]]:
        while True:
            if self._ended.is_set():
                raise CalledOffError
            if found := super().poll(20, *watched):
                return found


class Bench:
    """Runs steps on busybox, each on a root of its own."""

    def __init__(self, engine: Library, directory: pathlib.Path) -> None:
        self.engine = engine
        self.directory = directory
        self.root = ""
        self.errors = b""

    def prepare(self) -> str:
        directory = self.directory / os.urandom(6).hex()
        directory.mkdir()
        image = self.engine.images.resolve("busybox", "")
        self.engine.images.snapshotter.prepare(str(directory), image.chain_ids, bare=True)
        return str(directory)

    def run(self, steps: Steps, *words: str, **fields: object) -> tuple[Outcome, str]:
        self.root = self.prepare()
        written = {1: b"", 2: b""}

        def output(stream: int, data: bytes) -> None:
            written[stream] += data

        step = graph.Run(name="RUN", base=BASE, arguments=words, **fields)  # type: ignore[arg-type]
        outcome = steps.run(step, self.root, output)
        self.errors = written[2]
        return outcome, written[1].decode()

    def changes(self) -> list[tuple[int, bytes]]:
        return [(one.kind, one.path) for one in self.engine.images.snapshotter.changes(self.root)]


@pytest.fixture
def bench(ketch: Engine, tmp_path: pathlib.Path) -> Iterator[Bench]:
    places = dict(zip(ketch.prefix[1::2], ketch.prefix[2::2], strict=False))
    engine = Library(Settings(places["--root"], places["--state"]))
    yield Bench(engine, tmp_path)
    engine.store.close()


@pytest.fixture
def steps(bench: Bench) -> Iterator[Steps]:
    with Steps(bench.engine, Request(contexts={})) as steps:
        yield steps


def test_a_step_has_its_image_user_directory_and_environment(bench: Bench, steps: Steps) -> None:
    script = "id -u; pwd; hostname; env | sort; cat /etc/hosts; echo wrong >&2; exit 7"
    outcome, told = bench.run(
        steps, "sh", "-c", script, user="7", directory="/made", environment=("A=b",),
        hidden=("http_proxy=there",),
    )  # fmt: skip
    assert outcome == Outcome(7)
    assert bench.errors == b"wrong\n"
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert told.splitlines() == [
        "7", "/made", "buildkitsandbox", "A=b", "HOME=/", f"PATH={path}", "PWD=/made", "SHLVL=1",
        "http_proxy=there", "127.0.0.1\tlocalhost buildkitsandbox",
        "::1\tlocalhost ip6-localhost ip6-loopback",
    ]  # fmt: skip


def test_what_is_mounted_for_a_step_is_no_part_of_its_result(bench: Bench, steps: Steps) -> None:
    outcome, _ = bench.run(steps, "sh", "-c", "mkdir /new && echo x >/new/file && rm /bin/wc")
    assert outcome == Outcome(0)
    paths = sorted(path for _, path in bench.changes())
    assert paths == [b"bin", b"bin/wc", b"new", b"new/file"]


def test_a_step_is_in_a_network_of_its_own_that_the_next_one_has(
    bench: Bench, steps: Steps
) -> None:
    show = ("sh", "-c", "readlink /proc/self/ns/net; ip -4 -o address show eth0; ip route")
    _, first = bench.run(steps, *show)
    _, second = bench.run(steps, *show)
    _, none = bench.run(steps, *show, network=graph.Network.NONE)
    _, host = bench.run(steps, *show, network=graph.Network.HOST)
    assert first == second
    assert "default via" in first
    assert none.splitlines()[1:] == []
    assert host.splitlines()[0] == os.readlink("/proc/self/ns/net")


def test_how_a_program_ends_is_told(bench: Bench, steps: Steps) -> None:
    outcome, _ = bench.run(steps, "sh", "-c", "sh -c 'kill -9 $$'; exit $?")
    assert outcome == Outcome(137)
    with pytest.raises(StartError) as raised:
        bench.run(steps, "nothing-like-it")
    assert raised.value.exit_status == 127
    with pytest.raises(InvalidArgumentError, match="unable to find user nobody-here"):
        bench.run(steps, "true", user="nobody-here")


def test_what_a_step_leaves_behind_dies_with_it(bench: Bench, steps: Steps) -> None:
    began = time.monotonic()
    outcome, told = bench.run(steps, "sh", "-c", "sleep 100 & echo begun")
    assert (outcome, told) == (Outcome(0), "begun\n")
    assert time.monotonic() - began < 20


def test_a_step_that_is_called_off_ends(bench: Bench, steps: Steps) -> None:
    begun = threading.Event()
    step = graph.Run(name="RUN", base=BASE, arguments=("sh", "-c", "echo begun; sleep 100"))
    with pytest.raises(CalledOffError):
        steps.run(step, bench.prepare(), lambda *_: begun.set(), patience=Limited(begun))
    deadline = time.monotonic() + 10
    while os.listdir(f"{bench.engine.settings.state}/steps"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_flood_of_output_is_bounded_by_its_reader(bench: Bench, steps: Steps) -> None:
    seen = 0

    def output(_stream: int, data: bytes) -> None:
        nonlocal seen
        assert len(data) <= 64 * 1024
        seen += len(data)

    words = ("sh", "-c", "head -c 20000000 /dev/zero")
    step = graph.Run(name="RUN", base=BASE, arguments=words)
    assert steps.run(step, bench.prepare(), output) == Outcome(0)
    assert seen == 20_000_000
