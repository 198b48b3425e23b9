"""COPY, ADD and WORKDIR on files of the store and of contexts, by ``ketch.build.files``."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ketch.build.files import copying, digests, directories, unpacking, users
from ketch.build.files.selection import Selection, select
from ketch.build.graph import CopyItem
from ketch.spec import modes
from ketch.spec.ignore_patterns import IgnorePatterns

if TYPE_CHECKING:
    from ketch.build.graph import Copy, MakeDirectory, Mount, Vertex
    from ketch.build.layering import Root
    from ketch.build.trees import Tree


class Chosen:
    """Which files a step means.

    Args:
        selections: one an item.
    """

    def __init__(self, selections: Sequence[Selection]) -> None:
        self.selections = selections
        self._version: bytes | None = None

    def digest(self, known: "digests.Known | None") -> str:
        """Returns what they are worth to the cache.

        Args:
            known: what is known of files that were read before.

        Raises:
            KetchError: something cannot be read, or was changed meanwhile.
        """
        found = digests.digest(self.selections, known)
        self._version = found.version
        return found.value

    def is_of(self, version: digests.Version) -> bool:
        """Whether what was copied is what the digest was of, and not changed since."""
        return self._version is None or version.digest() == self._version


def choose(
    vertex: "Copy", tree: "Callable[[Vertex], Tree]", check: "Callable[[], object]"
) -> Chosen:
    """Returns which files a COPY or ADD means.

    Args:
        vertex: what is copied.
        tree: gives a source's files.
        check: is called while they are read, and raises where nobody wants them any more.

    Raises:
        KetchError: there is nothing where something must be.
    """
    exclude = Excluded(vertex.exclude) if vertex.exclude else None
    return Chosen(
        [
            select(tree(item.source), item, parents=vertex.parents, exclude=exclude, check=check)
            for item in vertex.items
        ]
    )


def write(vertex: "Copy", chosen: Chosen, root: "Root") -> tuple[list[str], bool]:
    """Copy.

    Args:
        vertex: what is copied.
        chosen: which files.
        root: what they are put on; it may be mounted no more in the end.

    Returns:
        What people should be told of it, and whether it is what the files' digest was of: somebody
        may write to a context while it is built.

    Raises:
        KetchError: something cannot be read or made.
    """
    mode = modes.parse(vertex.mode) if vertex.mode else None
    owner = users.owner(root.descriptor, vertex.owner) if vertex.owner else None
    remarks = users.unknown(root.descriptor, vertex.owner) if vertex.owner else []
    version = digests.Version()
    beneath = root.beneath if sum(len(one.sources) for one in chosen.selections) == 1 else None
    destination = copying.Destination(
        root.descriptor, vertex.target, owner, mode, _time_ns(vertex.time_s), beneath
    )
    for selection, item in zip(chosen.selections, vertex.items, strict=True):
        unpacking.add(selection, destination, version, unpack=unpacking.unpacks(item))
    return remarks, chosen.is_of(version)


def make_directory(vertex: "MakeDirectory", root: int) -> list[str]:
    """Make a directory and its parents where they are missing; returns what is to be told."""
    owner = users.owner(root, vertex.owner) if vertex.owner else (0, 0)
    directories.make(root, vertex.path, owner, _time_ns(vertex.time_s))
    return users.unknown(root, vertex.owner) if vertex.owner else []


def _time_ns(time_s: int | None) -> int | None:
    return None if time_s is None else time_s * 1_000_000_000


def description(vertex: "Copy") -> "list[Any]":
    """Returns which files a COPY means of sources that never change."""
    items = [[item.paths, item.unpack, item.required] for item in vertex.items]
    return ["copy", items, vertex.parents, vertex.exclude]


def choose_mount(mount: "Mount", tree: "Tree", check: "Callable[[], object]") -> Chosen:
    """Returns which files a mount shows; ``check`` is as for ``choose``."""
    assert mount.source is not None
    return Chosen([select(tree, CopyItem(mount.source, (mount.source_path,)), check=check)])


def write_mount(chosen: Chosen, root: int) -> bool:
    """Copy what a mount shows, to the same place beneath a root.

    Returns:
        Whether it is what the files' digest was of.
    """
    version = digests.Version()
    for selection in chosen.selections:
        for source in selection.sources:
            target = f"/{'/'.join(source.names)}"
            copying.copy_source(selection, source, copying.Destination(root, target), version)
    return chosen.is_of(version)


class Excluded:
    """What ``--exclude`` leaves out, for ``ketch.build.files``.

    Args:
        patterns: as they are written.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = IgnorePatterns(patterns)

    def hides(self, path: str) -> bool:
        """See ``ketch.build.trees.Hidden``."""
        return self._patterns.matches(path)

    def may_show_below(self, path: str) -> bool:
        """See ``ketch.build.trees.Hidden``."""
        return self._patterns.may_except_beneath(path)
