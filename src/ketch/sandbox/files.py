"""A sandbox's files, in the hands of whoever made it.

Whatever the guest does meanwhile to names and links, what is read and written is the sandbox's:
the engine resolves each path beneath its root. What comes out is foreign: it is taken apart here
in bounded memory, and written to the caller's disk by the engine's own copying, which follows no
link of the guest's.
"""

import contextlib
import io
import os
import posixpath
import stat
import tarfile
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ketch.engine.files import files
from ketch.engine.volumes import branches
from ketch.errors import InvalidArgumentError, NotFoundError
from ketch.sandbox import watching
from ketch.spec.digits import decimal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from ketch.library.archives import Archive
    from ketch.library.container import Container
    from ketch.sandbox.watching import FileEvent

    Path = str | os.PathLike[str]

READ_BYTES_MAX = 64 << 20
_LISTED_MAX = 100_000


class Entry(NamedTuple):
    """A file, a directory, or something else.

    Attributes:
        path: where it is, absolute.
        kind: ``file``, ``directory``, ``link`` or ``other``.
        size: in bytes.
        mode: its permissions.
        modified: when, in seconds since the epoch.
        target: where a link leads.
    """

    path: str
    kind: str
    size: int
    mode: int
    modified: float
    target: str = ""


class Files:
    """The files of a sandbox. Paths are absolute, or relative to the directory it starts in."""

    def __init__(self, container: "Container") -> None:
        self._container = container

    def _absolute(self, path: "Path") -> str:
        directory = str(self._container.attrs["Config"]["WorkingDir"]) or "/"
        return posixpath.normpath(posixpath.join(directory, os.fspath(path)))

    def read(self, path: "Path", *, max_bytes: int = READ_BYTES_MAX) -> bytes:
        """Returns a file's content; of a link, that of what it leads to in the sandbox.

        Args:
            path: the file.
            max_bytes: how many bytes it may have.

        Raises:
            NotFoundError: there is none.
            InvalidArgumentError: it is no file, or larger.
        """
        where = self._absolute(path)
        for _ in range(_LINKS_MAX):
            with self._found(where) as (members, member):
                if member.issym():
                    where = posixpath.normpath(
                        posixpath.join(posixpath.dirname(where), member.linkname)
                    )
                    continue
                if not member.isreg():
                    raise InvalidArgumentError(f"{where} is no file")
                if member.size > max_bytes:
                    raise InvalidArgumentError(
                        f"{where} has {member.size} bytes, more than {max_bytes}",
                        "max_bytes=... says how many are wanted; download() copies any number",
                    )
                content = members.extractfile(member)
                assert content is not None
                return content.read()
        raise InvalidArgumentError(f"{where}: too many links")

    def write(self, path: "Path", content: bytes | str, *, mode: int = 0o644) -> None:
        """Write a file; directories above it are made.

        Args:
            path: the file.
            content: what is to be in it; text in UTF-8.
            mode: its permissions.
        """
        data = content.encode() if isinstance(content, str) else content
        where = self._absolute(path)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            directory = posixpath.dirname(where)
            base = self._existing(directory)
            inside = posixpath.relpath(directory, base)
            parts = [] if inside == "." else inside.split("/")
            for count in range(1, len(parts) + 1):
                archive.addfile(self._member("/".join(parts[:count]), tarfile.DIRTYPE, 0o755))
            member = self._member("/".join([*parts, posixpath.basename(where)]), mode=mode)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        with self._undisturbed():
            self._container.put_archive(base, packed.getvalue())

    def list(self, path: "Path" = ".", *, recursive: bool = False) -> "list[Entry]":
        """Returns what is in a directory, by path.

        Args:
            path: the directory.
            recursive: whether what is in its directories is told as well.

        Raises:
            NotFoundError: there is none.
            InvalidArgumentError: it has too many entries to be told.
        """
        where = self._absolute(path)
        if not recursive:
            places, identifier = self._container._places, self._container.id
            seen = files.entries(places.engine, identifier, where, _LISTED_MAX)
            return sorted(_seen(posixpath.join(where, one[0]), one[1], one[2]) for one in seen)
        found: list[Entry] = []
        with (
            self._container.get_archive(f"{where}/.") as archive,
            _opened(archive) as members,
        ):
            for member in members:
                name = posixpath.normpath(member.name)
                if name == ".":
                    continue
                found.append(_entry(posixpath.join(where, name), member))
                if len(found) > _LISTED_MAX:
                    raise InvalidArgumentError(f"{where} has more than {_LISTED_MAX} entries")
        return sorted(found)

    def watch(self, path: "Path" = ".", *, recursive: bool = False) -> "Iterator[FileEvent]":
        """Yield what happens in a directory from the first wait for it on, until the sandbox ends.

        Args:
            path: the directory.
            recursive: whether what happens in its directories is told as well.

        Raises:
            NotFoundError: there is no such directory.
            InvalidArgumentError: there are too many directories.
        """
        return watching.watch(self._container, self._absolute(path), recursive=recursive)

    def stat(self, path: "Path") -> Entry:
        """Returns what is at a path; of a link, the link.

        Raises:
            NotFoundError: there is nothing.
        """
        where = self._absolute(path)
        with self._found(where) as (_, member):
            return _entry(where, member)

    def upload(self, source: "Path", target: "Path" = ".") -> None:
        """Copy a file or a tree of this machine's into the sandbox, to belong to its user.

        Args:
            source: a path here; a directory's content alone is meant by ``/.`` at the end.
            target: a directory to copy into, or what the copy is called.
        """
        with self._undisturbed():
            self._container.copy_to(source, self._absolute(target), archive=True)

    def download(self, source: "Path", target: "Path") -> None:
        """Copy a file or a tree out of the sandbox, to belong to the caller.

        Links come as links and lead where they say: look before following one. No program comes as
        one that runs as the caller whoever starts it (set-user-id).

        Args:
            source: a path in the sandbox; a directory's content alone is meant by ``/.``.
            target: a path here: a directory to copy into, or what the copy is called.
        """
        content = posixpath.basename(os.fspath(source)) == "."
        self._container.copy_from(self._absolute(source) + "/." * content, target, set_ids=False)

    def remove(self, path: "Path") -> None:
        """Remove a file, or a directory with all that is in it; it may have gone already."""
        self._do("rm", "-rf", "--", self._absolute(path))

    def move(self, source: "Path", target: "Path") -> None:
        """Rename something, or move it into a directory."""
        self._do("mv", "--", self._absolute(source), self._absolute(target))

    def make_directory(self, path: "Path") -> None:
        """Make a directory, and those above it; it may be there already."""
        self._do("mkdir", "-p", "--", self._absolute(path))

    @contextlib.contextmanager
    def _found(self, where: str) -> "Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]":
        """Give what is at a path, and the archive that it is in, for a block."""
        with self._container.get_archive(where) as archive, _opened(archive) as members:
            member = members.next()
            if member is None:
                raise NotFoundError(f"{where} has just gone")
            yield members, member

    def _do(self, *command: str) -> None:
        """Have the image's own program do it, with no more rights than the guest has."""
        with self._undisturbed():
            status, _, stderr = self._container.exec_run(command, timeout=_DOING_SECONDS)
        if status:
            said = stderr.decode(errors="replace").strip()
            kind = NotFoundError if "No such file" in said else InvalidArgumentError
            raise kind(f"{' '.join(command)}: {said or f'status {status}'}")

    def _undisturbed(self) -> "AbstractContextManager[None]":
        """Have what is written to stay what programs find there, for a block."""
        return branches.undisturbed(self._container._places.settings, self._container.id)

    def _existing(self, directory: str) -> str:
        """Returns the nearest directory above that is there."""
        while directory != "/":
            try:
                if self.stat(directory).kind in {"directory", "link"}:
                    return directory
            except NotFoundError:
                pass
            directory = posixpath.dirname(directory)
        return directory

    def _member(
        self, name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644
    ) -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.mtime = kind, mode, int(time.time())
        user, _, group = str(self._container.attrs["Config"]["User"]).partition(":")
        uid = decimal(user)
        if uid is not None:
            gid = decimal(group)
            member.uid, member.gid = uid, uid if gid is None else gid
        return member


_LINKS_MAX = 40  # path_resolution(7)
_DOING_SECONDS = 60.0


def _opened(archive: "Archive") -> tarfile.TarFile:
    """What comes out of the sandbox, to be read once, a member at a time."""
    stream: Any = archive
    return tarfile.open(fileobj=stream, mode="r|")


def _seen(path: str, status: os.stat_result, target: str) -> Entry:
    mode = status.st_mode
    kind = (
        "file" if stat.S_ISREG(mode)
        else "directory" if stat.S_ISDIR(mode)
        else "link" if stat.S_ISLNK(mode)
        else "other"
    )  # fmt: skip
    size = status.st_size if kind == "file" else 0
    return Entry(path, kind, size, stat.S_IMODE(mode), float(int(status.st_mtime)), target)


def _entry(path: str, member: tarfile.TarInfo) -> Entry:
    kind = (
        "file" if member.isreg() or member.islnk()
        else "directory" if member.isdir()
        else "link" if member.issym()
        else "other"
    )  # fmt: skip
    mode = stat.S_IMODE(member.mode)
    target = member.linkname if member.issym() else ""
    return Entry(path, kind, member.size, mode, float(member.mtime), target)
