"""A client's directory as a context: sent when it is asked for, and only what changed."""

import contextlib
import os
import posixpath
import threading
from typing import TYPE_CHECKING

from ketch.build.contexts import kept
from ketch.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.contexts.kept import Kept
    from ketch.build.contexts.places import Places
    from ketch.build.request import SessionDirectory

_FILES = "files"


def directory(
    given: "SessionDirectory",
    name: str,
    store: "Kept",
    places: "Places",
    scope: contextlib.ExitStack,
) -> int:
    """Returns a directory for what a client sends: the one that it sent to the last time, if any.

    Args:
        given: the client's directory.
        name: of the context that it is.
        store: where what was sent is kept.
        places: where it goes if nothing is to be kept, or another build is at it.
        scope: how long it is held.

    Raises:
        UnavailableError: it cannot be made.
    """
    if given.session.key:
        key = "\0".join((given.session.key, given.name, name))
        try:
            entry = store.alone(kept.SESSION, key, scope)
            if entry is not None:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(_FILES, 0o755, dir_fd=entry)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                return places.hold(os.open(_FILES, flags, dir_fd=entry))
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise UnavailableError(f"cannot keep what a client sends: {reason}") from error
    return places.make("session")[1]


class Sent:
    """What a client has sent of a directory; what is wanted later is sent later.

    Args:
        given: the client's directory.
        directory: descriptor of ours.
        excluded: patterns of what is not sent.
    """

    def __init__(
        self, given: "SessionDirectory", directory: int, excluded: "Sequence[str]"
    ) -> None:
        self._given = given
        self._directory = directory
        self._excluded = excluded
        self._lock = threading.Lock()
        self._wanted: set[str] = set()
        self._is_whole = False

    def bring(self, wanted: "Sequence[str]", tell: "Callable[[str, int, int], object]") -> int:
        """Have the client send what is wanted, and not here yet.

        Args:
            wanted: paths and patterns; all of it where empty.
            tell: is told how much has come.

        Returns:
            The descriptor of our directory.

        Raises:
            UnavailableError: the client has gone, or failed.
        """
        paths = _paths(wanted)
        with self._lock:
            if not self._is_whole and (not paths or not paths <= self._wanted):
                # What was sent before must stay, and so is asked for again.
                together = sorted(paths | self._wanted) if paths else ()
                fetch(self._given, self._directory, together, self._excluded, tell)
                self._wanted |= paths
                self._is_whole = not paths
        return self._directory


def fetch(
    given: "SessionDirectory",
    directory: int,
    wanted: "Sequence[str]",
    excluded: "Sequence[str]",
    tell: "Callable[[str, int, int], object]",
) -> None:
    """Have a client send what is wanted of its directory.

    Args:
        given: the client's directory.
        directory: descriptor of ours.
        wanted: paths and patterns, whose symlinks are followed; all of it where empty.
        excluded: patterns of what is not sent.
        tell: is told how much has come.

    Raises:
        UnavailableError: the client has gone, or failed.
    """
    given.session.fetch(
        given.name, directory, exclude=excluded, follow=wanted,
        tell=lambda current: tell(f"transferring {given.name}", current, 0),
    )  # fmt: skip


def _paths(wanted: "Sequence[str]") -> set[str]:
    """Returns paths as clients match them; none, which is all, where the root is among them.

    Source: moby/buildkit, frontend/dockerfile/dockerfile2llb/convert.go, normalizeContextPaths.
    """
    found = {posixpath.normpath("/" + path).lstrip("/") for path in wanted}
    return set() if "" in found else found
