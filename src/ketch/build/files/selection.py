"""Which files of a tree a COPY or ADD means.

The rules are BuildKit's. A path's symlinks are followed beneath the tree's root, the last one too,
while those inside a directory that is copied stay links. A directory stands for what is in it.
Patterns stand for what they match, and for nothing where that is nothing. What is hidden
(``.dockerignore``) is not there, whichever way leads to it. Sources: moby/buildkit,
frontend/dockerfile/dockerfile2llb/convert_copy.go; tonistiigi/fsutil, copy/copy.go.
"""

import os
import stat
from collections.abc import Callable, Generator, Sequence

from ketch.build.files import paths
from ketch.build.files.failures import failure
from ketch.build.files.walking import Entry, Event, Sight, walk
from ketch.build.graph import CopyItem, GitSource, HttpSource, InlineSource
from ketch.build.trees import Hidden, Tree
from ketch.dataclass import dataclass
from ketch.errors import KetchError, NotFoundError
from ketch.linux import contested
from ketch.linux.scopes import owned
from ketch.spec.path_match import Pattern, has_wildcards

# Of these a path is the name of something, never a pattern.
_LITERAL = (GitSource, HttpSource, InlineSource)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def _is_wanted() -> None:
    """What is read is wanted to the end."""


@dataclass(frozen=True)
class Source:
    """One thing that is copied: a directory's contents, or a file.

    Attributes:
        names: where it is in its tree, without symlinks; the root where empty.
        name: what it was called, which a link's target goes by too; empty for the root.
        is_directory: whether it is a directory.
        sight: what is wanted of a directory; everything if None.
    """

    names: tuple[str, ...]
    name: str
    is_directory: bool
    sight: Sight | None = None


@dataclass(frozen=True)
class Selection:
    """What one item of a COPY or ADD means.

    Attributes:
        tree: where it is.
        sources: what of it, in the order in which it is copied.
        check: is called while it is read, and raises where nobody wants it any more.
    """

    tree: Tree
    sources: tuple[Source, ...]
    check: Callable[[], object] = _is_wanted

    def entries(self, source: Source) -> Generator[Entry, None, None]:
        """Yield a directory's contents, or a file alone.

        Raises:
            KetchError: something cannot be read, or was changed meanwhile.
        """
        try:
            if source.is_directory:
                with owned(paths.open_below(self.tree.directory, source.names, _DIRECTORY)) as top:
                    yield from walk(top, source.sight)
                return
            *above, name = source.names
            with owned(paths.open_below(self.tree.directory, above, _DIRECTORY)) as parent:
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                is_regular = stat.S_ISREG(status.st_mode)
                yield Entry(Event.FILE if is_regular else Event.OTHER, parent, name, status)
        except OSError as error:
            raise failure(error, "read", paths.shown(source.names)) from error


def select(
    tree: Tree,
    item: CopyItem,
    *,
    parents: bool = False,
    exclude: Hidden | None = None,
    reference: str = "source",
    check: Callable[[], object] = _is_wanted,
) -> Selection:
    """Returns what an item's paths mean.

    Args:
        tree: where ``item.source`` has its files.
        item: what is copied.
        parents: whether the directories on the way are kept (``--parents``).
        exclude: what is left out (``--exclude``), by paths relative to each source.
        reference: what errors call the tree.
        check: see ``Selection``.

    Raises:
        NotFoundError: there is nothing at a path that is no pattern.
        InvalidArgumentError: a pattern is malformed, or symlinks go in a circle.
        KetchError: something cannot be read.
    """
    chooser = _Chooser(tree, exclude, reference)
    sources: list[Source] = []
    literal = isinstance(item.source, _LITERAL)
    for path in item.paths:
        if parents and not literal:
            sources += chooser.with_parents(path)
        else:
            sources += chooser.named(path, literal=literal, required=item.required)
    return Selection(tree, tuple(sources), check)


@dataclass(frozen=True)
class _Sight:
    """What is wanted of a directory.

    Attributes:
        hidden: what of the whole tree is not to be seen.
        base: of its paths, that of the directory, with a slash.
        exclude: what of the directory is not wanted.
        include: what of it alone is wanted; None for everything.
    """

    hidden: Hidden | None
    base: str
    exclude: Hidden | None
    include: "_Included | None" = None

    def shows(self, path: str) -> bool:
        """See ``Sight``."""
        return not (
            (self.hidden is not None and self.hidden.hides(self.base + path))
            or (self.exclude is not None and self.exclude.hides(path))
            or (self.include is not None and not self.include.has(path))
        )

    def may_show_below(self, path: str) -> bool:
        """See ``Sight``."""
        return (
            _may_show_below(self.hidden, self.base + path)
            and _may_show_below(self.exclude, path)
            and (self.include is None or self.include.may_have_below(path))
        )


class _Included:
    """What ``--parents`` names: a pattern in which ``**`` stands for any number of directories.

    Args:
        names: of the path.
    """

    __slots__ = ("_names",)

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [None if name == "**" else Pattern(name) for name in names]

    def has(self, path: str) -> bool:
        """Whether a path is matched, or a directory above it."""
        return bool(self._reached(path) >> len(self._names) & 1)

    def may_have_below(self, path: str) -> bool:
        """Whether something below a path may be."""
        return self._reached(path) != 0

    def _reached(self, path: str) -> int:
        """Returns the places in the pattern that a path's names may have got to, as bits.

        Who has got to its end stays there: what is below is matched too.
        """
        end = len(self._names)
        reached = self._skipped(1)
        for name in path.split("/"):
            following = reached & (1 << end)
            for place, pattern in enumerate(self._names):
                if not reached >> place & 1:
                    continue
                if pattern is None:
                    following |= 1 << place | (place + 1 == end) << end
                elif pattern.matches(name):
                    following |= 1 << (place + 1)
            reached = self._skipped(following)
        return reached

    def _skipped(self, reached: int) -> int:
        """Returns the same with ``**`` standing for nothing, which it may but at the end."""
        for place, pattern in enumerate(self._names[:-1]):
            if pattern is None and reached >> place & 1:
                reached |= 1 << (place + 1)
        return reached


class _Chooser:
    """Finds what paths mean in one tree."""

    __slots__ = ("_exclude", "_reference", "_resolver", "_tree")

    def __init__(self, tree: Tree, exclude: Hidden | None, reference: str) -> None:
        self._tree = tree
        self._exclude = exclude
        self._reference = reference
        self._resolver = paths.Resolver(tree.directory)

    def named(self, path: str, *, literal: bool, required: bool) -> list[Source]:
        """Returns what a path, or a pattern, names."""
        names = paths.names_of(path)
        if literal or not has_wildcards("/".join(names)):
            return [self._source(names)]
        found = [source for match in self._matches(names) if (source := self._wanted(match))]
        if not found and required:
            raise self._missing(names)
        return found

    def with_parents(self, path: str) -> list[Source]:
        """Returns the directories from which on a path's own are kept."""
        above, pivot, below = path.partition("/./")
        top = paths.names_of(above if pivot else "/")
        wanted = paths.names_of(below if pivot else path)
        if not has_wildcards("/".join([*top, *wanted])):
            self._source([*top, *wanted])  # it has to be there
        tops = self._matches(top) if has_wildcards("/".join(top)) else [top]
        include = _Included(wanted) if wanted else None
        sources = (self._source(match, include) for match in tops)
        return [source for source in sources if source.is_directory]

    def _wanted(self, names: Sequence[str]) -> Source | None:
        """Returns what a pattern has matched, None where it is left out."""
        if self._hides(names) and not self._shows_something(names):
            return None
        source = self._source(names)
        if self._exclude is None or source.is_directory or not self._exclude.hides(source.name):
            return source
        return None

    def _source(self, names: Sequence[str], include: _Included | None = None) -> Source:
        passed: list[list[str]] = []
        try:
            real = self._resolver.resolve(names, must_exist=True, passed=passed)
            found = paths.open_below(self._tree.directory, real, os.O_PATH | os.O_NOFOLLOW)
            with owned(found):
                kind = stat.S_IFMT(os.fstat(found).st_mode)
            if kind == stat.S_IFLNK:
                raise contested.exchanged(names[-1])
            is_directory = kind == stat.S_IFDIR
            if any(map(self._hides, passed)) or (
                self._hides(real) and not (is_directory and self._shows_something(real))
            ):
                raise self._missing(names, is_hidden=True)
        except paths.Missing as missing:
            raise self._missing(missing.names) from None
        except OSError as error:
            raise failure(error, "read", paths.shown(names)) from error
        sight = None
        if is_directory and (self._tree.hidden or self._exclude or include):
            sight = _Sight(self._tree.hidden, "/".join([*real, ""]), self._exclude, include)
        return Source(tuple(real), names[-1] if names else "", is_directory, sight)

    def _hides(self, names: Sequence[str]) -> bool:
        hidden = self._tree.hidden
        return hidden is not None and bool(names) and hidden.hides("/".join(names))

    def _shows_something(self, names: Sequence[str]) -> bool:
        """Whether anything is to be seen below a directory that is hidden itself."""
        hidden = self._tree.hidden
        if hidden is None or not hidden.may_show_below("/".join(names)):
            return False
        try:
            top = paths.open_below(self._tree.directory, names, _DIRECTORY)
        except NotADirectoryError:
            return False
        with owned(top):
            sight = _Sight(hidden, "/".join([*names, ""]), None)
            return next(walk(top, sight)).event is not Event.LEAVE

    def _matches(self, names: Sequence[str]) -> list[list[str]]:
        """Returns the paths that a pattern matches, in the order of their names.

        Symlinks are followed in what goes before the first wildcard, and nowhere else.
        """
        count = next(place for place, name in enumerate(names) if has_wildcards(name))
        patterns = [Pattern(name) for name in names[count:]]
        try:
            found = [self._resolver.resolve(names[:count], must_exist=True)]
            for place, pattern in enumerate(patterns):
                below = place + 1 < len(patterns)
                found = [
                    [*above, name]
                    for above in found
                    for name in self._matching(above, pattern, only_directories=below)
                ]
            return sorted(found)
        except paths.Missing:
            return []
        except OSError as error:
            raise failure(error, "read", paths.shown(names)) from error

    def _matching(
        self, above: Sequence[str], pattern: Pattern, *, only_directories: bool
    ) -> list[str]:
        hidden = self._tree.hidden
        try:
            top = paths.open_below(self._tree.directory, above, _DIRECTORY)
        except NotADirectoryError:
            return []
        matched = []
        with owned(top), os.scandir(top) as entries:
            for entry in entries:
                is_directory = entry.is_dir(follow_symlinks=False)
                if not pattern.matches(entry.name) or (only_directories and not is_directory):
                    continue
                path = "/".join([*above, entry.name])
                # A directory may be there for what it has, though it is hidden itself.
                if hidden is None or not hidden.hides(path) or hidden.may_show_below(path):
                    matched.append(entry.name)
        return matched

    def _missing(self, names: Sequence[str], *, is_hidden: bool = False) -> KetchError:
        return NotFoundError(
            "failed to compute cache key: failed to calculate checksum of ref"
            f' {self._reference}: "{paths.shown(names)}": not found',
            "it is there, but .dockerignore leaves it out" if is_hidden else "",
        )


def _may_show_below(hidden: Hidden | None, path: str) -> bool:
    return hidden is None or not hidden.hides(path) or hidden.may_show_below(path)
