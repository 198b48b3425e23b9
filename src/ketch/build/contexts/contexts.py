"""The contexts of one build: each opened or fetched once, when it is first asked for.

Several threads ask. What they are given is read by descriptor beneath a root, and holds until the
build ends.
"""

import contextlib
import os
import posixpath
import threading
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ketch.build.contexts import archives, directories, ignoring, reading, sessions
from ketch.build.contexts.kept import Kept
from ketch.build.contexts.places import Places
from ketch.build.graph import GitSource, HttpSource
from ketch.build.request import (
    MAIN_CONTEXT,
    Archive,
    Git,
    Http,
    LayoutInput,
    LocalDirectory,
    SessionDirectory,
)
from ketch.build.trees import Tree
from ketch.engine.processes import ENDLESS, Patience
from ketch.errors import InvalidArgumentError, KetchError, NotFoundError
from ketch.linux import contested
from ketch.linux.scopes import owned
from ketch.spec.ignore_patterns import IgnorePatterns
from ketch.spec.values import boolean

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from typing import Self

    from ketch.build.contexts.downloads import Downloads
    from ketch.build.contexts.layouts import LayoutImage
    from ketch.build.contexts.repositories import Repositories, Repository
    from ketch.build.graph import ContextSource
    from ketch.build.request import Input, Request
    from ketch.build.trees import Hidden

    Tell = Callable[[str, int, int], object]

_T = TypeVar("_T")

DOCKERFILE = "Dockerfile"
IGNORE_FILE = ".dockerignore"
_DOCKERFILE_INPUT = "dockerfile"
_DOWNLOADED = "context"  # BuildKit's name for the file
_KEEP_GIT_DIR = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"


class Dockerfile(NamedTuple):
    """A Dockerfile.

    Attributes:
        text: its content.
        filename: what it is called, for messages.
    """

    text: bytes
    filename: str


class _Source(NamedTuple):
    """What an input turned out to be.

    Attributes:
        tree: its files.
        dockerfile: the Dockerfile that it is by itself, None where it is none.
        filename: where the Dockerfile is, whatever was asked for; empty where that counts.
    """

    tree: Tree
    dockerfile: bytes | None = None
    filename: str = ""


class Contexts:
    """Where the files of a build come from; a context manager, open while the build goes on.

    Args:
        request: what is built.
        place: directory of this build, closed to others and removed with it.
        cache: directory in which what was fetched is kept for other builds.
        patience: how the caller waits for others.
    """

    def __init__(
        self, request: "Request", place: str, cache: str, *, patience: Patience = ENDLESS
    ) -> None:
        self._request = request
        self._patience = patience
        self._scope = contextlib.ExitStack()
        self._places = Places(place, self._scope)
        self._kept = Kept(cache)
        self._once = _Once()

    def __enter__(self) -> "Self":
        """Returns the contexts themselves."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close all that was opened; whoever reads has ended."""
        self._scope.close()

    def dockerfile(self, tell: "Tell | None" = None) -> Dockerfile:
        """Returns the Dockerfile.

        Args:
            tell: is given what is being fetched, how many bytes of it are there, and of how many
                (0 where nobody knows).

        Raises:
            NotFoundError: there is none.
            InvalidArgumentError: it is no file, or too large; a context is damaged.
            KetchError: its context cannot be opened or fetched.
        """
        return self._once.get("dockerfile", lambda: self._find_dockerfile(tell or _silent))

    def tree(self, name: str, wanted: "Sequence[str]" = (), tell: "Tell | None" = None) -> Tree:
        """Returns the files of a context.

        Args:
            name: of the context in the request.
            wanted: paths and patterns of what will be read, so that a client need not send more;
                all of it where empty.
            tell: as for ``dockerfile``.

        Raises:
            NotFoundError: there is no such context.
            InvalidArgumentError: it is damaged; or an image, whose files are the store's.
            KetchError: it cannot be opened or fetched.
        """
        given = self._input(name)
        if isinstance(given, SessionDirectory):
            sent = self._once.get(("session", name), lambda: self._sent(name, given, tell))
            return Tree(sent.bring(wanted, tell or _silent))
        tree = self._source(name, given, tell or _silent).tree
        if not isinstance(given, LocalDirectory):
            return tree  # as BuildKit has it, nothing is left out of what comes from elsewhere
        hidden = self._once.get(("hidden", name), lambda: self._find_hidden(name, tree, tell))
        return Tree(tree.directory, hidden, tree.identity, tree.owned)

    def time_s(self, source: "ContextSource | GitSource | HttpSource") -> int | None:
        """Returns since when a source is as it is, where it comes from a server.

        That is a commit's time; Last-Modified, or where the server does not say it, the time of
        the latest file of an archive.

        Raises:
            KetchError: it cannot be fetched.
        """
        if isinstance(source, GitSource):
            return self.git(source).time_s
        if isinstance(source, HttpSource):
            return self._time_of_download(self.http(source), source.filename)
        given = self._input(source.context)
        if isinstance(given, Git):
            return self._source(source.context, given, _silent).tree.time_s
        if isinstance(given, Http):
            downloaded = self._download(given.url, "", _DOWNLOADED, _silent)
            return self._time_of_download(downloaded, _DOWNLOADED)
        return None

    def _time_of_download(self, tree: Tree, name: str) -> int | None:
        if tree.time_s is not None:
            return tree.time_s
        with owned(contested.open_file(name, tree.directory)) as file:
            stream = open(file, "rb", buffering=0, closefd=False)
            return archives.newest_s(stream, self._places.room_bytes)

    def layout(self, name: str, platform: str) -> "LayoutImage":
        """Returns the image that a context is which names an OCI image layout.

        Args:
            name: of the context in the request.
            platform: ``os/architecture[/variant]`` that is wanted.

        Raises:
            NotFoundError: there is no such context, layout or image.
            KetchError: as ``LayoutImage`` raises.
        """
        given = self._input(name)
        if not isinstance(given, LayoutInput):
            raise InvalidArgumentError(f"build context {name!r} is no OCI image layout")
        from ketch.build.contexts.layouts import LayoutImage  # noqa: PLC0415 - few have one

        return self._once.get(("layout", name, platform), lambda: LayoutImage(given, platform))

    def git(self, source: GitSource, tell: "Tell | None" = None) -> Tree:
        """Returns a repository's files, for ADD.

        Args:
            source: which.
            tell: as for ``dockerfile``.

        Raises:
            InvalidArgumentError: the URL is malformed.
            NotFoundError: there is no such branch, tag, commit or directory.
            DigestMismatchError: it is another commit than it must be.
            UnavailableError: the server cannot be reached, or fails.
            UnsupportedError: there is no git here.
        """
        return self._repository(
            source.url, source.checksum, tell or _silent, keep_git_dir=source.keep_git_dir
        )

    def http(self, source: HttpSource, tell: "Tell | None" = None) -> Tree:
        """Returns what a URL answers: a directory that holds it alone, for ADD.

        Args:
            source: which.
            tell: as for ``dockerfile``.

        Raises:
            InvalidArgumentError: the URL or the checksum is malformed, or the server refuses.
            DigestMismatchError: it is not what the checksum promised.
            NotFoundError: the server has nothing there.
            UnavailableError: the server cannot be reached, or fails.
        """
        return self._download(source.url, source.checksum, source.filename, tell or _silent)

    def identity(self, source: "GitSource | HttpSource", tell: "Tell | None" = None) -> str:
        """Returns what identifies the files of a source: as ``Tree.identity``, for cache keys.

        Nothing is fetched but what cannot be known otherwise: the name of a Git repository's
        commit, or a download that has neither checksum nor name.

        Raises:
            KetchError: as ``git`` and ``http`` raise.
        """
        if isinstance(source, HttpSource):
            if source.checksum.startswith("sha256:") and source.filename:
                return f"http:{source.checksum}:{source.filename}"
            return self.http(source, tell).identity
        return self._resolved(source.url, source.checksum).identity(source.keep_git_dir)

    def _repository(self, url: str, checksum: str, tell: "Tell", *, keep_git_dir: bool) -> Tree:
        repository = self._resolved(url, checksum)
        return self._once.get(
            ("git", url, checksum, keep_git_dir),
            lambda: self._repositories().checkout(repository, keep_git_dir=keep_git_dir, tell=tell),
        )

    def _resolved(self, url: str, checksum: str) -> "Repository":
        return self._once.get(
            ("commit", url, checksum), lambda: self._repositories().resolve(url, checksum)
        )

    def _download(self, url: str, checksum: str, filename: str, tell: "Tell") -> Tree:
        def download() -> Tree:
            found = self._downloads().fetch(url, checksum, filename, tell)
            # By Last-Modified; of 1970 where a server does not say it.
            time_s = int(os.stat(found.filename, dir_fd=found.directory).st_mtime) or None
            identity = f"http:{found.digest}:{found.filename}"
            return Tree(found.directory, identity=identity, time_s=time_s)

        return self._once.get(("http", url, checksum, filename), download)

    # Who speaks to servers is loaded by those who ask for one: that takes longer than many a build.

    def _downloads(self) -> "Downloads":
        from ketch.build.contexts.downloads import Downloads  # noqa: PLC0415

        request = self._request
        return self._once.get(
            "downloads",
            lambda: Downloads(
                self._kept, self._places, self._patience, request.environment, request.secrets
            ),
        )

    def _repositories(self) -> "Repositories":
        from ketch.build.contexts.repositories import Repositories  # noqa: PLC0415

        request = self._request
        return self._once.get(
            "repositories",
            lambda: Repositories(
                self._kept, self._places, self._scope, self._patience, request.environment,
                request.secrets, request.agents,
            ),
        )  # fmt: skip

    def _input(self, name: str) -> "Input":
        try:
            return self._request.contexts[name]
        except KeyError as error:
            raise NotFoundError(f"there is no build context {name!r}") from error

    def _source(self, name: str, given: "Input", tell: "Tell") -> _Source:
        return self._once.get(("source", name), lambda: self._open(name, given, tell))

    def _open(self, name: str, given: "Input", tell: "Tell") -> _Source:
        if isinstance(given, LocalDirectory):
            directory = self._places.hold(directories.open_directory(given.path))
            return _Source(Tree(directory, owned=False))
        if isinstance(given, Archive):
            return self._unpack(given, tell)
        if isinstance(given, Git):
            keeps = name == MAIN_CONTEXT and _is_set(self._request.build_args.get(_KEEP_GIT_DIR))
            return _Source(self._repository(given.url, "", tell, keep_git_dir=keeps))
        if isinstance(given, Http):
            return self._open_download(name, given, tell)
        raise InvalidArgumentError(f"build context {name!r} is an image, and has no files to read")

    def _open_download(self, name: str, given: Http, tell: "Tell") -> _Source:
        """Open what a URL answers: the main context is an archive, or else a Dockerfile."""
        tree = self._download(given.url, "", _DOWNLOADED, tell)
        if name != MAIN_CONTEXT and not name.startswith(":"):
            return _Source(tree)  # as BuildKit has it, one file
        with owned(contested.open_file(_DOWNLOADED, tree.directory)) as file:
            stream = open(file, "rb", buffering=0, closefd=False)
            content, _ = archives.open_archive(stream, self._places.room_bytes)
            if content is None:
                return _Source(tree, filename=_DOWNLOADED)
            _, directory = self._places.make("archive")
            archives.unpack(content, directory, owned=True)
        return _Source(Tree(directory, identity=f"{tree.identity}:unpacked"))

    def _unpack(self, given: Archive, tell: "Tell") -> _Source:
        _, directory = self._places.make("archive")
        tree = Tree(directory, owned=given.owned)
        stream = archives.Counted(
            archives.Patient(given.stream, self._patience),
            lambda position: tell("transferring context", position, 0),
        )
        content, text = archives.open_archive(stream, self._places.room_bytes)
        if content is None:
            return _Source(tree, dockerfile=text)
        archives.unpack(content, directory, owned=given.owned)
        return _Source(tree)

    def _sent(self, name: str, given: SessionDirectory, tell: "Tell | None") -> sessions.Sent:
        """Prepare a directory for what a client sends of one of its."""
        patterns = ignoring.patterns(*self._ignored(name, tell or _silent))
        directory = sessions.directory(given, name, self._kept, self._places, self._scope)
        return sessions.Sent(given, directory, patterns)

    def _small_files(self, name: str, given: "Input", paths: "Sequence[str]", tell: "Tell") -> Tree:
        """Returns a tree that has some files of a context, of which a client sends these alone."""
        if not isinstance(given, SessionDirectory):
            return self._source(name, given, tell).tree

        def fetch() -> Tree:
            _, directory = self._places.make("files")
            sessions.fetch(given, directory, paths, (), tell)
            return Tree(directory)

        return self._once.get(("files", name, tuple(paths)), fetch)

    # The Dockerfile

    def _find_dockerfile(self, tell: "Tell") -> Dockerfile:
        request = self._request
        path = request.dockerfile or DOCKERFILE
        if request.dockerfile_text is not None:
            return Dockerfile(request.dockerfile_text, path)
        name, given = self._dockerfile_input()
        if not isinstance(given, SessionDirectory):
            source = self._source(name, given, tell)
            if source.dockerfile is not None:
                return Dockerfile(source.dockerfile, DOCKERFILE)
            path = source.filename or path
        tree = self._small_files(name, given, _names(path), tell)
        for candidate in _names(path):
            if candidate.endswith(IGNORE_FILE):
                continue
            try:
                text = reading.read(tree.directory, candidate)
            except KetchError as error:
                raise type(error)(f"failed to read dockerfile: {error.message}") from error
            if text is not None:
                return Dockerfile(text, candidate)
        raise NotFoundError(
            f"failed to read dockerfile: open {path}: no such file or directory",
            "it is looked for in the context; -f names another",
        )

    def _dockerfile_input(self) -> "tuple[str, Input]":
        """Returns the input that the Dockerfile is in, and a name for it."""
        if self._request.dockerfile_input is not None:
            # No context can be called this: their names are those of images.
            return f":{_DOCKERFILE_INPUT}", self._request.dockerfile_input
        return MAIN_CONTEXT, self._input(MAIN_CONTEXT)

    # What is left out

    def ignored(self, tell: "Tell | None" = None) -> IgnorePatterns | None:
        """Read what says what is left out of the main context, where anything can.

        Args:
            tell: as for ``dockerfile``.

        Returns:
            What it says; None where nothing can be left out.

        Raises:
            InvalidArgumentError: it is malformed.
            KetchError: it cannot be read or fetched.
        """
        given = self._request.contexts.get(MAIN_CONTEXT)
        if isinstance(given, LocalDirectory | SessionDirectory):
            found = ignoring.patterns(*self._ignored(MAIN_CONTEXT, tell or _silent))
            return IgnorePatterns(found)
        return None

    def _find_hidden(self, name: str, tree: Tree, tell: "Tell | None") -> "Hidden | None":
        return ignoring.hidden(*self._ignored(name, tell or _silent, tree))

    def _ignored(self, name: str, tell: "Tell", tree: Tree | None = None) -> tuple[bytes, str]:
        """Returns what says what is left out of a context, and its file's name."""
        if name == MAIN_CONTEXT and self._request.dockerfile_text is None:
            path = f"{self._request.dockerfile or DOCKERFILE}{IGNORE_FILE}"
            where, given = self._dockerfile_input()
            beside = self._small_files(where, given, _names(path.removesuffix(IGNORE_FILE)), tell)
            text = reading.read(beside.directory, path)
            if text is not None:
                return text, path
        if tree is None:
            tree = self._small_files(name, self._input(name), (IGNORE_FILE,), tell)
        return reading.read(tree.directory, IGNORE_FILE) or b"", IGNORE_FILE


class _Once:
    """Results by name, each made once, by whichever thread asks first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[Hashable, _Slot] = {}

    def get(self, name: "Hashable", make: "Callable[[], _T]") -> "_T":
        """Returns a result, or raises the error that came of making it."""
        with self._lock:
            slot = self._slots.setdefault(name, _Slot())
        with slot.lock:
            if slot.error is not None:
                raise slot.error
            if not slot.is_made:
                try:
                    slot.result = make()
                except KetchError as error:
                    slot.error = error
                    raise
                slot.is_made = True
            return slot.result  # type: ignore[return-value] # what this very name's maker made


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_made = False
        self.result: object = None
        self.error: KetchError | None = None


def _names(path: str) -> tuple[str, ...]:
    """Returns the files that are looked for, in this order: Dockerfile's name in small letters is
    one as well, and beside it is what it ignores.

    Source: moby/buildkit, frontend/dockerui/config.go, ReadEntrypoint.
    """
    names = [path]
    folder, name = posixpath.split(path)
    if name == DOCKERFILE:
        names.append(posixpath.join(folder, name.lower()))
    return (*names, f"{path}{IGNORE_FILE}")


def _is_set(value: str | None) -> bool:
    """Whether a build argument says yes; what is no truth value says nothing, as for BuildKit."""
    try:
        return value is not None and boolean(value)
    except InvalidArgumentError:
        return False


def _silent(what: str, current: int, total: int) -> None:
    """Say nothing."""
