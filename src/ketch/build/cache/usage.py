"""What the build cache holds: steps' results, cache mounts, and what was fetched.

The types are BuildKit's (client.UsageRecordType).
"""

import contextlib
import hashlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ketch.build.cache.records import Records, new_id
from ketch.build.contexts import kept
from ketch.build.steps import caches
from ketch.dataclass import dataclass

if TYPE_CHECKING:
    from ketch.engine.engine import Engine

REGULAR = "regular"
MOUNT = "exec.cachemount"
LOCAL = "source.local"
GIT = "source.git.checkout"
INTERNAL = "internal"

_KINDS = {
    kept.GIT: (GIT, "git snapshot"),
    kept.HTTP: (REGULAR, "http download"),
    kept.SESSION: (LOCAL, "local source"),
}


@dataclass(frozen=True)
class Usage:
    """One thing that is cached.

    Attributes:
        id: by which people call it.
        type: of BuildKit's.
        description: what it is.
        size_bytes: what it takes; of a step's result the content of its own files.
        created_ns: when it was made, nanoseconds since the epoch, 0 for unknown.
        used_ns: when it was used last.
        uses: how often it was used, 0 for unknown.
        in_use: whether somebody has it now.
        shared: whether an image or a container has the same layer: it takes no room of its own.
        parents: ids of what it lies on.
        mutable: whether it is changed by whoever uses it.
        remove: removes it, and says whether it is gone; None for a step's result, whose record is
            forgotten (``Records.remove``).
    """

    id: str
    type: str
    description: str
    size_bytes: int
    created_ns: int
    used_ns: int
    uses: int
    in_use: bool
    shared: bool
    parents: tuple[str, ...]
    mutable: bool
    remove: Callable[[], bool] | None = None


def listed(engine: "Engine") -> list[Usage]:
    """Returns all that is cached, what was used last first.

    Args:
        engine: whose cache.
    """
    found = [*_results(engine), *_mounts(engine), *_fetched(engine), *_hashes(engine)]
    return sorted(found, key=lambda one: (-one.used_ns, one.id))


def _results(engine: "Engine") -> list[Usage]:
    images = engine.images
    every = Records(engine.store, images.snapshotter).list()
    _, others = images.referred(images.list())
    ids = {record.chain_id: record.id for record in every}

    return [
        Usage(
            record.id, REGULAR, record.description, record.size_bytes, record.created_ns,
            record.used_ns, record.uses, False, record.chain_id in others,
            (ids[record.below],) if record.below in ids else (), False,
        )
        for record in every
    ]  # fmt: skip


def _mounts(engine: "Engine") -> list[Usage]:
    root = engine.settings.root

    def remover(name: str) -> Callable[[], bool]:
        return lambda: caches.remove(root, name)

    return [
        Usage(
            _id(MOUNT, one.name), MOUNT, f'cached mount {one.id} with id "{one.id}"',
            one.size_bytes, one.created_ns, one.used_ns, 0, one.in_use, False, (), True,
            remover(one.name),
        )
        for one in caches.listed(root)
    ]  # fmt: skip


def _fetched(engine: "Engine") -> list[Usage]:
    store = kept.Kept(f"{engine.settings.root}/build-cache")

    def remover(entry: kept.Entry) -> Callable[[], bool]:
        return lambda: store.remove(entry.kind, entry.name)

    found = []
    for entry in store.entries():
        kind, description = _KINDS[entry.kind]
        found.append(
            Usage(
                _id(entry.kind, entry.name), kind, description, entry.size_bytes, 0,
                entry.used_ns, 0, False, False, (), kind == LOCAL, remover(entry),
            )
        )  # fmt: skip
    return found


def _hashes(engine: "Engine") -> list[Usage]:
    """Returns what is known of contexts' files: a file a context, and drafts of the killed."""
    place = f"{engine.settings.root}/build-cache/hashes"

    def remover(path: str) -> Callable[[], bool]:
        def remove() -> bool:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return True

        return remove

    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(place) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            found.append(
                Usage(
                    _id(INTERNAL, entry.name), INTERNAL, "hashes of a context's files",
                    status.st_size, 0, status.st_mtime_ns, 0, False, False, (), True,
                    remover(entry.path),
                )
            )  # fmt: skip
    return found


def _id(kind: str, name: str) -> str:
    return new_id(hashlib.sha256(f"{kind}/{name}".encode()).digest()[:17])
