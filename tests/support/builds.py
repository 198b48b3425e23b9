"""Builds of the engine that an end-to-end test has, in this process or in one of their own."""

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from ketch.build import builder
from ketch.build.progress import Event, Log, Status, VertexState
from ketch.build.request import LocalDirectory, Request, Result
from ketch.engine.engine import Engine
from ketch.engine.home.places import configuration
from ketch.engine.processes import ENDLESS, Patience
from ketch.engine.settings import Settings, is_ordinary
from tests.support.commands import Engine as Command

_SCRIPT = """
import sys
from ketch.build import builder
from ketch.build.progress import Log
from ketch.build.request import LocalDirectory, Request
from ketch.engine.engine import Engine
from ketch.engine.settings import Settings

def tell(event):
    if isinstance(event, Log):
        sys.stdout.buffer.write(event.data)
        sys.stdout.buffer.flush()

root, state, context, tag = sys.argv[1:]
request = Request(contexts={"context": LocalDirectory(context)}, tags=[tag])
print(builder.build(Engine(Settings(root, state)), request, tell).image_id)
"""


class Built:
    """What a build came to, and what it said.

    Attributes:
        result: what it returned.
        events: all of them.
    """

    def __init__(self, result: Result, events: list[Event]) -> None:
        self.result = result
        self.events = events

    @property
    def id(self) -> str:
        """The image's ID."""
        return self.result.image_id

    @property
    def output(self) -> str:
        """What programs wrote."""
        return b"".join(one.data for one in self.events if isinstance(one, Log)).decode()

    @property
    def statuses(self) -> list[str]:
        """What was told within vertices, once each."""
        return list(dict.fromkeys(one.id for one in self.events if isinstance(one, Status)))

    def names(self, *, cached: bool) -> list[str]:
        """Names of the vertices that were, or were not, taken from the cache."""
        return [
            one.name
            for one in self.events
            if isinstance(one, VertexState) and one.completed_ns and one.cached is cached
        ]

    def executed(self) -> list[str]:
        """Steps that were executed, as they stand in the Dockerfile."""
        return [
            name.partition("] ")[2]
            for name in self.names(cached=False)
            if not name.startswith("[internal]") and "] " in name
        ]


class Builder:
    """Builds on one engine.

    Attributes:
        engine: the library's.
        settings: its places.
        context: a directory to build from.
    """

    def __init__(self, settings: Settings, context: pathlib.Path) -> None:
        self.settings = settings
        self.engine = Engine(settings)
        self.context = context

    def write(self, dockerfile: str, **files: str) -> None:
        """Write a Dockerfile and other files; ``__`` in a name is a dot."""
        (self.context / "Dockerfile").write_text(dockerfile)
        for name, content in files.items():
            (self.context / name.replace("__", ".")).write_text(content)

    def build(self, *, patience: Patience = ENDLESS, **asked: Any) -> Built:
        """Build in this process."""
        events: list[Event] = []
        fields = {"contexts": {"context": LocalDirectory(str(self.context))}, **asked}
        result = builder.build(self.engine, Request(**fields), events.append, patience)
        return Built(result, events)

    def start(self, tag: str) -> subprocess.Popen[str]:
        """Start a build in a process of its own, whose output is the programs' and the ID."""
        places = [self.settings.root, self.settings.state]
        return subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, *places, str(self.context), tag],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def left_behind(self) -> list[str]:
        """Tell what builds have left in their places."""
        try:
            return os.listdir(f"{self.settings.root}/builds")
        except FileNotFoundError:
            return []  # there were none


@contextlib.contextmanager
def on(command: Command, context: pathlib.Path) -> Iterator[Builder]:
    """Give a builder on the engine of a command line; what it has made goes at the end."""
    places = dict(zip(command.prefix[1::2], command.prefix[2::2], strict=False))
    home = configuration() if is_ordinary() else ""
    made = Builder(Settings(places["--root"], places["--state"], home=home), context)
    before = {image.id for image in made.engine.images.list()}
    try:
        yield made
    finally:
        for image in made.engine.images.list():
            if image.id not in before:
                made.engine.images.remove(image.id, force=True)
        made.engine.store.close()
