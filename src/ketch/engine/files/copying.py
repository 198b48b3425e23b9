"""``cp``: files between a container and the caller's own file system, by Docker's rules.

Where a copy goes and what it is called there says ``spec.copy_paths``; here the places are looked
at, on both sides, and the archive goes from one to the other.
"""

import contextlib
import os
import stat
import time

from ketch.engine.files import files, telling
from ketch.errors import InvalidArgumentError, KetchError, NotFoundError
from ketch.images import extraction, tree
from ketch.images.pieces import Pieces
from ketch.linux.scopes import owned
from ketch.spec import copy_paths
from ketch.spec.copy_paths import CopyInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.spec.told import Told

_LINKS_MAX = 10


def out_of(
    engine: "Engine",
    container: str,
    source: str,
    target: str,
    *,
    follow_link: bool = False,
    archive: bool = False,
    set_ids: bool = True,
) -> int:
    """Copy a file or a directory out of a container; returns how many bytes its archive had.

    Args:
        engine: where the container is.
        container: the container, running or not.
        source: a path in it. A directory's content alone is meant by ``/.`` at the end.
        target: a path here: a directory to copy into, or what the copy is called.
        follow_link: whether, where the source is a symlink, what it leads to is copied.
        archive: whether owners are kept; else all belongs to the caller.
        set_ids: whether programs stay that run as whom they belong to, as Docker has it.

    Raises:
        NotFoundError: there is no such container, source, or directory of the target.
        InvalidArgumentError: the copy cannot be there.
        UnavailableError: something cannot be read or written.
    """
    rebase_name, asked, began_ns = "", source, time.monotonic_ns()
    if follow_link:
        found = files.stat_path(engine, container, source)
        if found.link_target:
            source, rebase_name = copy_paths.followed(source, found.link_target)
    with files.reading(engine, container, source) as (found, pieces):
        info = CopyInfo(
            source, exists=True, is_directory=found.is_directory, rebase_name=rebase_name
        )
        target = absolute(target)
        _check_output(target)
        stream = Pieces(pieces)
        renames = None
        if rebase_name:
            renames = (copy_paths.split_entry(source)[1], rebase_name)
        directory, change = copy_paths.place(info, _local_target(target))
        owner = (os.geteuid(), os.getegid())
        with owned(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            extraction.extract(
                root, b"", stream, owned=None if archive else lambda *_: owner,
                rename=lambda name: copy_paths.renamed(copy_paths.renamed(name, renames), change),
                set_ids=set_ids,
            )  # fmt: skip
        if engine.settings.say:
            known = engine.containers.find(container)
            engine.settings.tell(
                telling.of_copying_out, known, engine.settings.container_directory(known.id), asked,
                target, size_bytes=stream.read_bytes, owner=None if archive else owner,
                follow=follow_link, began_ns=began_ns,
            )  # fmt: skip
    return stream.read_bytes


def into(
    engine: "Engine",
    container: str,
    source: str,
    target: str,
    *,
    follow_link: bool = False,
    archive: bool = False,
) -> int:
    """Copy a file or a directory into a container; returns how many bytes its archive had.

    Args:
        engine: where the container is.
        container: the container, running or not.
        source: as ``out_of`` takes it, but here.
        target: as ``out_of`` takes it, but in the container.
        follow_link: as ``out_of`` takes it.
        archive: whether all belongs to the container's user, where that is a number; else owners
            are kept.

    Raises:
        NotFoundError: there is no such container, source, or directory of the target.
        InvalidArgumentError: the copy cannot be there, or the place is read-only.
        UnavailableError: something cannot be read or written.
    """
    info = target_in(engine, container, target)
    local = _local_source(absolute(source), follow=follow_link)
    directory, change = copy_paths.place(local, info)
    head, last = copy_paths.split_entry(local.path)
    try:
        parent = os.open(head, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _missing(local.path, error) from error
    with contextlib.ExitStack() as held:
        held.callback(os.close, parent)
        shown = os.fsencode(local.rebase_name or last)
        pieces = tree.archive(
            parent, os.fsencode(last), copy_paths.renamed(shown, change), whole_seconds=True
        )
        stream = Pieces(pieces)

        def describe(
            known: "Container", place: str, owner: tuple[int, int] | None, began_ns: int
        ) -> "Told":
            return telling.of_copying_in(
                known, place, absolute(source), info.path, size_bytes=stream.read_bytes,
                owner=owner, follow=follow_link, began_ns=began_ns,
            )  # fmt: skip

        files.write_archive(
            engine, container, directory, stream, keep_kinds=True, chown=archive, describe=describe
        )
    return stream.read_bytes


def absolute(path: str) -> str:
    """Returns a local path from the root on; what it ends with, which has meaning, stays."""
    return copy_paths.preserve_end(os.path.abspath(path), path)


def target_in(engine: "Engine", container: str, path: str) -> CopyInfo:
    """Look at a destination in a container, through a symlink at its end.

    Raises:
        NotFoundError: there is no such container.
        InvalidArgumentError: it is neither a directory nor a file.
    """
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
