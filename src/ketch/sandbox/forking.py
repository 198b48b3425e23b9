"""Sandboxes like one that is there, each with its files as they are now.

What lies in memory they share, page by page, with the one that they are forked of
(``engine.volumes.branches``), and nothing is copied. Where that cannot be, because somebody is at
work in it, or the kernel is too old, its files go through an image.
"""

import contextlib
import functools
import os
import secrets as randomness
from typing import TYPE_CHECKING

from ketch.engine.volumes import branches
from ketch.errors import KetchError, UnsupportedError
from ketch.runtime.pid_one import PATH as INIT
from ketch.sandbox import project
from ketch.sandbox.egress import attachment

if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.records.rows import Container as Record
    from ketch.library.container import Container, Lifetime
    from ketch.library.engine import Engine
    from ketch.library.images import Image

_IMAGE_LABEL = "org.ketch.sandbox.fork"  # the image that its files come from, and that goes with it
_COPY_UP = ",tmpcopyup"


def new_name() -> str:
    """Returns what a sandbox is called that nobody has named."""
    return f"sandbox-{randomness.token_hex(6)}"


def snapshot(engine: "Engine", container: "Container", name: str = "") -> "Image":
    """Make an image of a sandbox's files as they are now; see ``Sandbox.snapshot``."""
    base = _root(container)
    with engine.containers.create(base, [INIT], entrypoint="") as copy:
        for place in sorted(container.attrs["HostConfig"].get("Tmpfs") or ()):
            with container.get_archive(place) as archive:
                copy.put_archive(os.path.dirname(place), archive)
        image = copy.commit(name)
    container._places.unless_delivered(functools.partial(let_go, image))
    return image


class Fork:
    """A sandbox's files at one moment, for others. A context manager, which keeps them together.

    Args:
        engine: the sandbox's.
        container: the sandbox.
        lifetime: of those that are made.
    """

    def __init__(self, engine: "Engine", container: "Container", lifetime: "Lifetime") -> None:
        self._engine = engine
        self._container = container
        self._lifetime = lifetime
        origin = _record(container)
        self._is_shared = True
        self._image: Image | None = None
        try:
            with container._places.uninterrupted():
                branches.part(container._places.engine, origin)
        except (branches.BusyError, UnsupportedError):
            self._is_shared = False
            self._image = snapshot(engine, container)
        else:
            if not container.attrs["HostConfig"]["ReadonlyRootfs"]:
                self._image = container.commit()

    def make(self) -> "Container":
        """Make a sandbox of them; nothing runs in it, and it reaches nothing yet: ``finish``."""
        origin = _record(self._container)
        config, resources = origin.record["Config"], origin.record["HostConfig"]
        tmpfs = resources.get("Tmpfs") or {}
        labels = config.get("Labels", {})
        if self._image is not None:
            labels = {**labels, _IMAGE_LABEL: self._image.id}
        if not self._is_shared:
            tmpfs = {
                place: f"{options.removesuffix(_COPY_UP)}{_COPY_UP}"
                for place, options in tmpfs.items()
            }
        image = origin.image_id if self._image is None else self._image.id
        request: Any = {
            **origin.record,
            "Config": {**config, "Image": image, "Labels": labels, "Hostname": ""},
            "HostConfig": {**resources, "Tmpfs": tmpfs},
        }
        session = self._engine.containers._start(request, new_name(), self._lifetime)
        session.close()
        return self._engine.containers.get(session.id)

    def finish(self, container: "Container") -> None:
        """Give one that was made what it has besides: what is in memory, its project, its relay."""
        if self._is_shared:
            engine = self._container._places.engine
            branches.share(engine, _record(container), _record(self._container))
        project.repeat(self._container, container)
        # Nothing of its runs before it has its relay.
        attachment.attach_like(container, self._container)

    def let_go(self) -> None:
        """Remove what was made for this."""
        if self._image is not None:
            let_go(self._image)


def image_of(container: "Container") -> str:
    """Returns the image that was made for a sandbox and its like; empty where there is none."""
    return container.labels.get(_IMAGE_LABEL, "")


def let_go(image: "Image") -> None:
    """Remove an image, unless it is used."""
    with image._places.uninterrupted(), contextlib.suppress(KetchError):
        image.remove()


def _root(container: "Container") -> str:
    """The image of what is not in memory."""
    if container.attrs["HostConfig"]["ReadonlyRootfs"]:
        return str(container.attrs["Image"])
    return container.commit().id


def _record(container: "Container") -> "Record":
    return container._places.engine.containers.find(container.id)
