"""Several processes at the same images at once, and sudden death amid each."""

import contextlib
import io
import os
import pathlib
import random
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ketch.engine.containers import creation
from ketch.engine.engine import Engine
from ketch.engine.files import committing
from ketch.engine.images import archive as image_archive
from ketch.engine.images import ingest, listing, saving
from ketch.engine.images.pulling import Puller
from ketch.engine.images.pushing import Pusher
from ketch.engine.settings import Settings
from ketch.errors import KetchError
from ketch.images import tar
from ketch.images.archive import TarSink
from ketch.images.registry.configuration import Configuration
from ketch.images.registry.credentials import Credentials
from ketch.images.registry.registries import Registries
from tests.kernel.images.test_engine_images import killed_at_line
from tests.support.archives import archive, member
from tests.support.evil import WIDE, Victim
from tests.support.registry import fake

pytestmark = pytest.mark.root

BASE = archive(member(b"bin", tar.DIRECTORY, mode=0o755), member(b"bin/sh", data=b"#!" * 40_000))
MIDDLE = archive(member(b"etc/passwd", data=b"root:x:0:0::/:\n"))
TOP = archive(member(b"bin/.wh.sh"), member(b"bin/ash", data=b"#!"))
STACKS = {"one": (BASE,), "two": (BASE, MIDDLE), "three": (BASE, MIDDLE, TOP), "other": (MIDDLE,)}


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """Run a registry with images that share layers, in a process of its own: this one forks."""
    reading, writing = os.pipe()
    ending, held = os.pipe()
    child = os.fork()
    if not child:
        os.close(held)
        with fake() as registry:
            for name, layers in STACKS.items():
                registry.add_image("app", name, *layers)
            os.write(writing, registry.host.encode())
            os.read(ending, 1)
        os._exit(0)
    os.close(writing)
    os.close(ending)
    try:
        yield os.read(reading, 100).decode()
    finally:
        os.close(reading)
        os.close(held)
        os.waitpid(child, 0)


@contextlib.contextmanager
def registries() -> Iterator[Registries]:
    settings = Configuration({"timeout-seconds": 10})
    with Registries({}, credentials=Credentials(), settings=settings) as opened:
        yield opened


class Work:
    """What can be done to the images of one engine, each by a process of its own."""

    def __init__(self, settings: Settings, host: str) -> None:
        self.engine = Engine(settings)
        self.host = host

    def pull(self, tag: str) -> None:
        with registries() as opened:
            Puller(self.engine.images, opened).pull(f"{self.host}/app:{tag}")

    def pulls(self, *tags: str) -> None:
        for tag in tags:
            self.pull(tag)

    def hold(self, tag: str) -> None:
        """Have a container hold an image that shares layers with others."""
        self.pulls(tag, "three", "other")
        if not self.engine.containers.list(all=True):
            request: Any = {"Config": {"Image": f"{self.host}/app:{tag}"}, "HostConfig": {}}
            request["Config"]["Cmd"] = ["x"]
            creation.create(self.engine, request)

    def push(self, tag: str) -> None:
        images = self.engine.images
        images.tag(f"{self.host}/app:{tag}", f"{self.host}/pushed:{tag}")
        with registries() as opened:
            Pusher(images, self.engine.store, opened).push(f"{self.host}/pushed:{tag}")

    def load(self, tag: str) -> None:
        name = f"{self.host}/app:{tag}"
        with tempfile.TemporaryFile() as file:
            sink = TarSink(file.write)
            saving.save(self.engine.images, [name], sink)
            self.engine.images.remove(name, force=True)
            file.seek(0)
            with self.engine.images.opened_archive(file.fileno()) as source:
                image_archive.load(self.engine.images, source)

    def import_(self, tag: str) -> None:
        ingest.import_image(self.engine.images, io.BytesIO(STACKS[tag][-1]), f"imported:{tag}")

    def remove(self, tag: str) -> None:
        self.engine.images.remove(f"{self.host}/app:{tag}", force=True)

    def prune(self, tag: str) -> None:
        listing.prune(self.engine.images, [], every=tag == "one")

    def commit(self, tag: str) -> None:
        name = f"{self.host}/app:{tag}"
        container = creation.create(
            self.engine, {"Config": {"Image": name, "Cmd": ["x"]}, "HostConfig": {}}
        )
        try:
            upper = self.engine.settings.container_directory(container.id) + "/upper"
            pathlib.Path(upper, "made").write_text(tag, encoding="ascii")
            committing.commit(self.engine, container.id, f"made:{tag}")
        finally:
            self.engine.containers.remove(container.id)


def working(settings: Settings, host: str, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    for _ in range(rounds):
        work = Work(settings, host)
        action: Callable[[str], None] = chance.choice([
            work.pull, work.pull, work.pull, work.push, work.push, work.load, work.load,
            work.import_, work.commit, work.commit, work.remove, work.prune,
        ])  # fmt: skip
        with contextlib.suppress(KetchError):  # what it needs is gone, or somebody has it
            action(chance.choice(list(STACKS)))


def test_at_once(tmp_path: pathlib.Path, host: str) -> None:
    victim = Victim(tmp_path)
    children = []
    for seed in range(4):
        if child := os.fork():
            children.append(child)
            continue
        status = 1
        try:
            working(victim.engine.settings, host, seed, 24 * WIDE)
            status = 0
        except BaseException:  # noqa: BLE001 - told by the status
            traceback.print_exc()
        finally:
            os._exit(status)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ended == [0] * 4
    victim.check()


def killed_in_any_thread(number: int, work: Callable[[], object]) -> bool:
    """As ``killed_at_line``, counting the lines of threads that the work starts as well."""

    def traced() -> None:
        threading.settrace(sys.gettrace())
        work()

    return killed_at_line(number, traced)


# Of each: what is there before, what is done, and what must be there whatever happens.
SWEPT: dict[str, tuple[Callable[[Work], None], Callable[[Work], None], str]] = {
    "pull": (lambda work: work.pulls("one"), lambda work: work.pull("three"), "one"),
    "push": (lambda work: work.pulls("three"), lambda work: work.push("three"), "three"),
    "load": (lambda work: work.pulls("three", "one"), lambda work: work.load("three"), "one"),
    "import": (lambda work: work.pulls("one"), lambda work: work.import_("two"), "one"),
    "rmi": (lambda work: work.pulls("three", "one"), lambda work: work.remove("three"), "one"),
    "prune": (lambda work: work.hold("two"), lambda work: work.prune("one"), "two"),
    "commit": (lambda work: work.pulls("two"), lambda work: work.commit("two"), "two"),
}


@pytest.mark.parametrize("what", SWEPT)
def test_killed_at_any_line(tmp_path: pathlib.Path, host: str, what: str) -> None:
    before, do, kept = SWEPT[what]
    number, kills, victim = 1, 0, Victim(tmp_path)
    settings = victim.engine.settings

    def work() -> None:
        do(Work(settings, host))

    def prepare() -> None:
        work = Work(settings, host)
        before(work)
        work.engine.store.close()

    prepare()
    while killed_in_any_thread(number, work):
        kills += 1
        # Whatever the next command is, it finds what is complete, and takes the rest away.
        victim.engine.images.collect_garbage()
        victim.check(keep=True)
        assert victim.engine.images.resolve(f"{host}/app:{kept}")
        prepare()
        number += 1 + number // (4 if WIDE == 1 else 100)
    assert kills > 15
    for container in victim.engine.containers.list(all=True):
        victim.engine.containers.remove(container.id)
    victim.check()
