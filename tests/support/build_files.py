"""Copying files of a build in tests: from one directory into another, by path."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ketch.build.files import copying, digests, selection
from ketch.build.graph import ContextSource, CopyItem, Vertex
from ketch.build.trees import Hidden, Tree
from ketch.spec import modes

_CONTEXT = ContextSource(name="context", context="context")


class Left:
    """What a list of paths hides, and all that is below them, but for some others."""

    def __init__(self, *paths: str, but: tuple[str, ...] = ()) -> None:
        self._paths = paths
        self._but = but

    def hides(self, path: str) -> bool:
        return _within(path, self._paths) and not _within(path, self._but)

    def may_show_below(self, path: str) -> bool:
        return any(one.startswith(f"{path}/") for one in self._but)


def _within(path: str, places: tuple[str, ...]) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in places)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Hold a descriptor of a directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def selected(
    source: Path,
    *paths: str,
    vertex: Vertex = _CONTEXT,
    owned: bool = False,
    hidden: Hidden | None = None,
    parents: bool = False,
    exclude: Hidden | None = None,
    required: bool = True,
) -> Iterator[selection.Selection]:
    """Give what paths mean in a directory."""
    item = CopyItem(vertex, paths, required=required)
    with opened(source) as directory:
        tree = Tree(directory, hidden, owned=owned)
        yield selection.select(tree, item, parents=parents, exclude=exclude, reference="x")


def copy(
    chosen: selection.Selection,
    root: Path,
    target: str,
    owner: tuple[int, int] | None = None,
    mode: str = "",
) -> None:
    """Copy what is selected, and check that digest and copy agree on what was there."""
    version = digests.Version()
    digest = digests.digest([chosen])
    with opened(root) as directory:
        change = modes.parse(mode) if mode else None
        copying.copy(chosen, copying.Destination(directory, target, owner, change), version)
    assert version.digest() == digest.version
