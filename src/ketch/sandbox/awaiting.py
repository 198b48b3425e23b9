"""What ``ketch.aio`` has of sandboxes: the same, whose methods are awaited."""

import functools
from typing import TYPE_CHECKING

from ketch.library.awaiting import Engine, Proxy, in_thread, plain, stand_in
from ketch.sandbox import files, programs, sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


@stand_in(files.Files)
class Files(Proxy):
    """The files of a sandbox."""


@stand_in(programs.Process)
class Process(Proxy):
    """A program that runs in a sandbox."""


@stand_in(sandbox.Sandbox)
class Sandbox(Proxy):
    """A sandbox; who cancels what makes or uses it ends what that has begun."""

    @classmethod
    async def create(cls, image: "Any", **create: "Any") -> "Any":
        """As ``ketch.Sandbox.create``."""
        given = {name: plain(value) for name, value in create.items()}
        return await _made(sandbox.Sandbox.create, create, plain(image), **given)

    @classmethod
    async def host(cls, project: "Any" = ".", **create: "Any") -> "Any":
        """As ``ketch.Sandbox.host``."""
        given = {name: plain(value) for name, value in create.items()}
        return await _made(sandbox.Sandbox.host, create, project, **given)

    @classmethod
    async def connect(cls, name: str, *, engine: Engine | None = None) -> "Any":
        """As ``ketch.Sandbox.connect``."""
        return await _made(sandbox.Sandbox.connect, {"engine": engine}, name)

    @classmethod
    async def list(cls, *, engine: Engine | None = None) -> "Any":
        """As ``ketch.Sandbox.list``."""
        return await _made(sandbox.Sandbox.list, {"engine": engine})


async def _made(
    make: "Callable[..., Any]", create: "Mapping[str, Any]", *given: "Any", **named: "Any"
) -> "Any":
    # An ordinary user's process enters namespaces with its first engine: before any thread.
    engine = create.get("engine") or Engine()
    call = functools.partial(make, *given, **{**named, "engine": plain(engine)})
    return await in_thread(call, engine._threads)
