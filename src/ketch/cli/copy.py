"""``ketch cp``."""

import contextlib
import os
import stat
import sys

from ketch.cli.archives import write
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.tables import size
from ketch.engine import files
from ketch.engine.engine import Engine
from ketch.errors import InvalidArgumentError, KetchError, NotFoundError
from ketch.images import extraction, tree
from ketch.spec import copy_paths
from ketch.spec.copy_paths import CopyInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.cli.flags import Parsed
    from ketch.engine.settings import Settings

_CP = Command(
    "ketch cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n"
    "\tketch cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem\n\n"
    "Use '-' as the source to read a tar archive from stdin\n"
    "and extract it to a directory destination in a container.\n"
    "Use '-' as the destination to stream a tar archive of a\n"
    "container source to stdout.",
    [
        Flag("archive", "a", "bool", "Archive mode (copy all uid/gid information)"),
        Flag("follow-link", "L", "bool", "Always follow symbol link in SRC_PATH"),
        Flag("quiet", "q", "bool", "Suppress progress output during copy"),
    ],
    minimum_arguments=2,
    maximum_arguments=2,
    aliases=("ketch container cp", "ketch cp"),
)
_LINKS_MAX = 10


def cp(settings: "Settings", arguments: list[str]) -> int:
    """Copy files into or out of a container."""
    parsed = parse(_CP, arguments)
    source_container, source = _split(parsed.arguments[0])
    target_container, target = _split(parsed.arguments[1])
    if source_container and target_container:
        raise InvalidArgumentError("copying between containers is not supported")
    if not source_container and not target_container:
        raise InvalidArgumentError("must specify at least one container source")
    for text in (source, target):
        if not text:
            raise InvalidArgumentError("source or destination can not be empty")
    engine = Engine(settings)
    if source_container:
        _out(engine, source_container, source, target, parsed)
    else:
        _into(engine, target_container, source, target, parsed)
    return 0


def _out(engine: Engine, container: str, source: str, target: str, parsed: "Parsed") -> None:
    rebase_name = ""
    if parsed.enabled("follow-link"):
        found = files.stat_path(engine, container, source)
        if found.link_target:
            source, rebase_name = copy_paths.followed(source, found.link_target)
    with files.reading(engine, container, source) as (found, pieces):
        if target == "-":
            for piece in pieces:
                write(1, piece)
            return
        info = CopyInfo(
            source, exists=True, is_directory=found.is_directory, rebase_name=rebase_name
        )
        target = _local(target)
        _check_output(target)
        stream = _Archive(pieces)
        renames = None
        if rebase_name:
            renames = (copy_paths.split_entry(source)[1], rebase_name)
        directory, change = copy_paths.place(info, _local_target(target))
        owner = None if parsed.enabled("archive") else (os.geteuid(), os.getegid())
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            extraction.extract(
                root, b"", stream, owner=owner,
                rename=lambda name: copy_paths.renamed(copy_paths.renamed(name, renames), change),
            )  # fmt: skip
        finally:
            os.close(root)
    _tell(parsed, stream.size_bytes, target)


def _into(engine: Engine, container: str, source: str, target: str, parsed: "Parsed") -> None:
    info = _container_target(engine, container, target)
    with contextlib.ExitStack() as held:
        if source == "-":
            if not info.is_directory:
                raise InvalidArgumentError(
                    f'destination "{container}:{target}" must be a directory'
                )
            files.write_archive(
                engine, container, info.path, _Input(), keep_kinds=True,
                chown=parsed.enabled("archive"),
            )  # fmt: skip
            return
        local = _local_source(_local(source), follow=parsed.enabled("follow-link"))
        directory, change = copy_paths.place(local, info)
        head, last = copy_paths.split_entry(local.path)
        try:
            parent = os.open(head, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _missing(local.path, error) from error
        held.callback(os.close, parent)
        shown = os.fsencode(local.rebase_name or last)
        pieces = tree.archive(
            parent, os.fsencode(last), copy_paths.renamed(shown, change), whole_seconds=True
        )
        stream = _Archive(pieces)
        files.write_archive(
            engine, container, directory, stream, keep_kinds=True,
            chown=parsed.enabled("archive"),
        )  # fmt: skip
    _tell(parsed, stream.size_bytes, f"{container}:{info.path}")


def _split(text: str) -> tuple[str, str]:
    """Returns an argument's container, empty for a local path, and its path."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith("/") or container.startswith("."):
        return "", text
    return container, path


def _local(path: str) -> str:
    return copy_paths.preserve_end(os.path.abspath(path), path)


def _container_target(engine: Engine, container: str, path: str) -> CopyInfo:
    """Look at a destination in a container, through a symlink at its end."""
    engine.containers.find(container)  # whose absence is no destination that is yet to be made
    try:
        found = files.stat_path(engine, container, path)
        if found.link_target:
            path = found.link_target
            found = files.stat_path(engine, container, path)
    except NotFoundError:
        return CopyInfo(path)
    kind = stat.S_IFMT(found.status.st_mode)
    if kind in {stat.S_IFCHR, stat.S_IFBLK}:
        raise InvalidArgumentError(f'destination "{container}:{path}" must be a directory or a '
                                   "regular file: got a device")  # fmt: skip
    if kind in {stat.S_IFIFO, stat.S_IFSOCK}:
        raise InvalidArgumentError(f'destination "{container}:{path}" must be a directory or a '
                                   "regular file: got an irregular file")  # fmt: skip
    return CopyInfo(path, exists=True, is_directory=found.is_directory)


def _local_source(path: str, *, follow: bool) -> CopyInfo:
    try:
        if follow:
            resolved, name = copy_paths.followed(path, os.path.realpath(path, strict=True))
        else:
            head, last = os.path.split(path)
            resolved = os.path.join(os.path.realpath(head, strict=True), last)
            name = copy_paths.split_entry(path)[1]
            if not path.endswith("/") or name == copy_paths.split_entry(resolved)[1]:
                name = ""
        status = os.lstat(resolved)
    except OSError as error:
        raise _missing(path, error) from error
    return CopyInfo(
        resolved, exists=True, is_directory=stat.S_ISDIR(status.st_mode), rebase_name=name
    )


def _local_target(path: str) -> CopyInfo:
    """Look at a local destination, through symlinks, of which the last may lead nowhere yet."""
    given = path
    for _ in range(_LINKS_MAX):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            head = copy_paths.split_entry(path)[0]
            if not os.path.isdir(head):
                raise NotFoundError(f"lstat {head}: no such file or directory") from None
            return CopyInfo(path)
        except OSError as error:
            raise _missing(path, error) from error
        if not stat.S_ISLNK(status.st_mode):
            return CopyInfo(path, exists=True, is_directory=stat.S_ISDIR(status.st_mode))
        path = os.path.join(copy_paths.split_entry(path)[0], os.readlink(path))
    raise InvalidArgumentError(f"too many symlinks in {given}")


def _check_output(path: str) -> None:
    """Refuse a destination in a directory that is not there, or that is a device."""
    directory = os.path.dirname(copy_paths.clean_path(path))
    if directory not in {"", "."} and not os.path.isdir(directory):
        raise NotFoundError(f'invalid output path: directory "{directory}" does not exist')
    if os.path.exists(path) and stat.S_IFMT(os.stat(path).st_mode) in {
        stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK,
    }:  # fmt: skip
        raise InvalidArgumentError(
            f'invalid output path: "{path}" must be a directory or a regular file'
        )


def _missing(path: str, error: OSError) -> KetchError:
    reason = (error.strerror or "").lower()
    return NotFoundError(f"lstat {path}: {reason}")


def _tell(parsed: "Parsed", size_bytes: int, place: str) -> None:
    quiet = parsed.enabled("quiet") if "quiet" in parsed.given else not sys.stdout.isatty()
    if not quiet:
        print(f"Successfully copied {size(size_bytes)} to {place}", file=sys.stderr)


class _Archive:
    """An archive's pieces as a stream that is counted."""

    __slots__ = ("_left", "_pieces", "size_bytes")

    def __init__(self, pieces: "Iterator[bytes]") -> None:
        self._pieces = pieces
        self._left = b""
        self.size_bytes = 0

    def read(self, amount: int, /) -> bytes:
        if not self._left:
            self._left = next(self._pieces, b"")
        content, self._left = self._left[:amount], self._left[amount:]
        self.size_bytes += len(content)
        return content


class _Input:
    """Standard input as a stream."""

    def read(self, amount: int, /) -> bytes:
        return os.read(0, amount)
