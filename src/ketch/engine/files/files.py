"""Files into and out of containers, and what they changed: ``cp``, ``diff``, ``export``.

Source of the rules: moby, daemon/archive.go and pkg/archive/copy.go.
"""

import contextlib
import errno
import os
import posixpath
import stat
import time

from ketch.dataclass import dataclass
from ketch.engine.files import filesystem, telling
from ketch.engine.records import events
from ketch.engine.user_namespaces import of_process as ids_of_process
from ketch.errors import InvalidArgumentError, NotFoundError, UnavailableError
from ketch.images import compression, extraction, layered, shifted, tree
from ketch.images.opaque import is_opaque
from ketch.linux import fsuid
from ketch.linux.openat2 import openat2
from ketch.linux.scopes import owned, suppress_absence
from ketch.spec import passwd, user_namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.images.layered import Change
    from ketch.images.tar import Stream
    from ketch.images.tree import Owned
    from ketch.spec.told import Told
    from ketch.spec.user_namespaces import IdMap

    Describe = Callable[[Container, str, tuple[int, int] | None, int], Told]

_LINKS_MAX = 40  # as many as the kernel follows in one path: path_resolution(7)

# Go's os.FileMode: https://pkg.go.dev/io/fs#FileMode
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFIFO: 1 << 25, stat.S_IFSOCK: 1 << 24,
    stat.S_IFBLK: 1 << 26, stat.S_IFCHR: 1 << 26 | 1 << 21, stat.S_IFREG: 0,
}  # fmt: skip
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


@dataclass
class PathStat:
    """What is at a path in a container.

    Attributes:
        name: the last part of the path as it was asked for.
        status: of it; a last symlink is not followed unless the path ends with a slash.
        link_target: where a symlink leads in the end, from the root on; else empty.
    """

    name: str
    status: os.stat_result
    link_target: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def go_mode(self) -> int:
        """Its kind and permissions as Go's ``os.FileMode``, which the API tells."""
        mode = self.status.st_mode
        bits = sum(go for bit, go in _GO_BITS if mode & bit)
        return _GO_KINDS[stat.S_IFMT(mode)] | bits | (mode & 0o777)


def stat_path(engine: "Engine", reference: str, path: str) -> PathStat:
    """Look at a path in a container.

    Raises:
        NotFoundError: there is no such container, or nothing at that path.
    """
    container = engine.containers.find(reference)
    with filesystem.opened(engine, container) as root:
        return _stat(root, path, reference)


def entries(
    engine: "Engine", reference: str, path: str, count_max: int
) -> list[tuple[str, os.stat_result, str]]:
    """Look at what is in a directory of a container, and at nothing further down.

    Args:
        engine: where the container is.
        reference: the container.
        path: from its root on; symlinks are followed.
        count_max: how many entries it may have.

    Returns:
        Of each its name, what is known of it, and where it leads, if it is a symlink.

    Raises:
        NotFoundError: there is no such container, or nothing at that path.
        InvalidArgumentError: it is no directory, or has more entries.
    """
    container = engine.containers.find(reference)
    with filesystem.opened(engine, container) as root, contextlib.ExitStack() as held:
        try:
            directory = openat2(root, _absolute(path), os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _unusable(error, path, reference) from error
        held.callback(os.close, directory)
        found: list[tuple[str, os.stat_result, str]] = []
        for entry in held.enter_context(os.scandir(directory)):
            if len(found) == count_max:
                raise InvalidArgumentError(f"{path} has more than {count_max} entries")
            try:
                status = entry.stat(follow_symlinks=False)
                is_link = stat.S_ISLNK(status.st_mode)
                target = os.readlink(entry.name, dir_fd=directory) if is_link else ""
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.EINVAL}:
                    raise
                continue  # it has just gone, or become something else
            found.append((entry.name, status, target))
        return found


@contextlib.contextmanager
def reading(
    engine: "Engine", reference: str, path: str
) -> "Iterator[tuple[PathStat, Iterator[bytes]]]":
    """Read a file, or a directory and all that is in it, as a tar archive.

    Args:
        engine: where the container is.
        reference: the container.
        path: from its root on. A last symlink is not followed unless a slash follows it.

    Returns:
        For the length of the block: what is at the path, and the archive's pieces. Members' names
        begin with the last part of the path as it was asked for.

    Raises:
        NotFoundError: there is no such container, or nothing at that path.
        UnavailableError: something cannot be read.
    """
    container = engine.containers.find(reference)
    with filesystem.opened(engine, container) as root, contextlib.ExitStack() as held:
        found = _stat(root, path, reference)
        absolute = _absolute(path)
        shown = os.fsencode(found.name)
        inside = evaluated(root, absolute)
        if found.is_directory:
            flags = os.O_RDONLY | os.O_DIRECTORY
            parent, name = openat2(root, absolute, flags), b"."
        else:
            head, last = posixpath.split(absolute)
            parent, name = openat2(root, head, os.O_RDONLY | os.O_DIRECTORY), os.fsencode(last)
        held.callback(os.close, parent)
        _record(engine, container, "archive-path")

        def crosses(member: bytes) -> bool:
            """Whether a mount is one of the container's volumes, and not /proc or the like."""
            below = os.fsdecode(member[len(shown) :]).strip("/")
            return _is_volume(container, posixpath.join(inside, below))

        yield (
            found,
            tree.archive(
                parent,
                name,
                shown,
                whole_seconds=True,
                crosses=crosses,
                owned=_owned_inside(engine, container),
            ),
        )


def told_archive(
    engine: "Engine", reference: str, path: str, pieces: "Iterator[bytes]"
) -> "Iterator[bytes]":
    """Yield the pieces of an archive of ``reading``, and tell of it to who asks what is done."""
    began_ns, size_bytes = time.monotonic_ns(), 0
    for piece in pieces:
        size_bytes += len(piece)
        yield piece
    if engine.settings.say:
        container = engine.containers.find(reference)
        directory = engine.settings.container_directory(container.id)
        engine.settings.tell(
            telling.of_archive, container, directory, path, size_bytes=size_bytes,
            began_ns=began_ns,
        )  # fmt: skip


def write_archive(
    engine: "Engine",
    reference: str,
    path: str,
    stream: "Stream",
    *,
    keep_kinds: bool = False,
    chown: bool = False,
    describe: "Describe | None" = None,
) -> None:
    """Unpack a tar archive in a container.

    Args:
        engine: where the container is.
        reference: the container.
        path: an existing directory in it; symlinks to it are followed.
        stream: the archive, plain or compressed.
        keep_kinds: whether a directory may not replace, or be replaced by, something else.
        chown: whether all of it is to belong to the container's user, where that is a number.
        describe: tells what was done, given the container, its directory, whose all of it is now,
            and when that was begun; as for somebody else's archive where None.

    Raises:
        NotFoundError: there is no such container or path.
        InvalidArgumentError: the path is no directory or read-only, or the archive is malformed.
        UnavailableError: the disk is full or failing.
    """
    began_ns = time.monotonic_ns()
    container = engine.containers.find(reference)
    with filesystem.opened(engine, container) as root:
        absolute = _absolute(path)
        try:
            place = openat2(root, absolute, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise _unusable(error, path, reference) from error
        room = os.fstatvfs(place)
        os.close(place)
        inside = evaluated(root, absolute)
        volume = filesystem.volume_at(container, inside)
        resources = container.record.get("HostConfig", {})
        if (
            volume is None
            and resources.get("ReadonlyRootfs")
            and not filesystem.in_tmpfs(container, inside)
        ):
            raise InvalidArgumentError("container rootfs is marked read-only")
        if volume is not None and not volume.get("RW", True):
            raise InvalidArgumentError("mounted volume is marked read-only")
        kind, stream = compression.sniffed(stream)
        limit_bytes = room.f_bavail * room.f_frsize
        content = compression.decompressed(stream, kind, limit_bytes)
        owner = _owner(container) if chown else None
        owned = _owned_outside(engine, container, owner)
        with contextlib.ExitStack() as acting:
            if ids := _ids(engine, container):
                # Where ids are mapped, who has none there can make no files.
                acting.enter_context(fsuid.acting_as(*(each.first_outside() for each in ids)))
            extraction.extract(
                root, os.fsencode(inside), content, keep_kinds=keep_kinds, owned=owned
            )
        _record(engine, container, "extract-to-dir")
        directory = engine.settings.container_directory(container.id)
        if describe is not None:
            engine.settings.tell(describe, container, directory, owner, began_ns)
        else:
            engine.settings.tell(
                telling.of_unpacking, container, directory, inside, began_ns=began_ns
            )


@contextlib.contextmanager
def exported(engine: "Engine", reference: str) -> "Iterator[Iterator[bytes]]":
    """Read all of a container's files as a tar archive, without what its volumes hold.

    Returns:
        For the length of the block: the archive's pieces.

    Raises:
        NotFoundError: there is no such container.
        UnavailableError: it cannot be mounted or read.
    """
    container = engine.containers.find(reference)
    with filesystem.own_layer(engine, container) as (root, container):
        _record(engine, container, "export")
        owned_inside = _owned_inside(engine, container)
        pieces = tree.archive(root, b".", b"", crosses=lambda _: False, owned=owned_inside)
        yield _told_export(engine, container, pieces)


def _told_export(
    engine: "Engine", container: "Container", pieces: "Iterator[bytes]"
) -> "Iterator[bytes]":
    began_ns, size_bytes = time.monotonic_ns(), 0
    for piece in pieces:
        size_bytes += len(piece)
        yield piece
    engine.settings.tell(
        telling.of_export, engine.settings.container_directory(container.id),
        size_bytes=size_bytes, began_ns=began_ns,
    )  # fmt: skip


def changes(engine: "Engine", reference: str) -> "Iterator[Change]":
    """Yield what a container changed of its image's files.

    Raises:
        NotFoundError: there is no such container.
        UnavailableError: something cannot be read.
    """
    container = engine.containers.find(reference)
    directory = engine.settings.container_directory(container.id)
    found = engine.images.snapshotter.changes(directory)
    return _told_changes(engine, directory, found) if engine.settings.say else found


def _told_changes(
    engine: "Engine", directory: str, found: "Iterator[Change]"
) -> "Iterator[Change]":
    """Yield changes, and tell in the end what they come to."""
    began_ns = time.monotonic_ns()
    counts = [0, 0, 0]
    hidden, opaque = [], []
    for change in found:
        counts[change.kind] += 1
        if change.kind == layered.DELETED:
            hidden.append(change.path)
        elif _is_opaque(change):
            opaque.append(change.path)
        yield change
    upper, lower = engine.images.snapshotter.trees_of(directory)
    engine.settings.tell(
        telling.of_changes, upper, lower, counts=counts, hidden=hidden, opaque=opaque,
        began_ns=began_ns,
    )  # fmt: skip


def _is_opaque(change: "Change") -> bool:
    """Whether this is a directory that hides all that lower layers have in it."""
    if change.status is None or not stat.S_ISDIR(change.status.st_mode):
        return False
    return is_opaque(b"/proc/self/fd/%d/%s" % (change.parent, change.name))


def evaluated(root: int, path: str) -> str:
    """Returns a path without symlinks, as far as it exists; what is missing stays as it is.

    Args:
        root: descriptor of the root that the path begins at.
        path: absolute.

    Raises:
        InvalidArgumentError: its symlinks go in a circle.
    """
    done, rest, links = "/", [part for part in path.split("/") if part], 0
    while rest:
        part = rest.pop(0)
        if part == ".":
            continue
        if part == "..":
            done = posixpath.dirname(done)
            continue
        following = posixpath.join(done, part)
        target = _link(root, following)
        if target is None:
            done = following
            continue
        links += 1
        if links > _LINKS_MAX:
            raise InvalidArgumentError(f"{path}: too many levels of symbolic links")
        if target.startswith("/"):
            done = "/"
        rest = [*(piece for piece in target.split("/") if piece), *rest]
    return done


def _link(root: int, path: str) -> str | None:
    """Returns a symlink's target, None where there is no symlink."""
    found = None
    with suppress_absence():
        found = openat2(root, path, os.O_PATH | os.O_NOFOLLOW)
    if found is None:
        return None
    with owned(found):
        if not stat.S_ISLNK(os.fstat(found).st_mode):
            return None
        try:
            return os.readlink("", dir_fd=found)
        except FileNotFoundError:  # /proc/self, to who is not inside
            return None


def _stat(root: int, path: str, reference: str) -> PathStat:
    absolute = _absolute(path)
    try:
        found = openat2(root, absolute, os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        raise _unusable(error, path, reference) from error
    with owned(found):
        status = os.fstat(found)
    target = evaluated(root, absolute) if stat.S_ISLNK(status.st_mode) else ""
    return PathStat(_base(absolute), status, target)


def _absolute(path: str) -> str:
    """Returns a path from the root on; a slash or a dot at its end, which have meaning, stay."""
    clean = posixpath.normpath(f"/{path}")
    clean = "/" + clean.lstrip("/")
    if path.endswith("/.") or path == ".":
        return posixpath.join(clean, ".")
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def _base(absolute: str) -> str:
    return posixpath.basename(absolute.rstrip("/")) or "/"


def _is_volume(container: "Container", path: str) -> bool:
    return any(
        point["Destination"].rstrip("/") == path.rstrip("/")
        for point in container.record.get("Mounts", ())
    )


def _owner(container: "Container") -> tuple[int, int] | None:
    user, _, group = container.record.get("Config", {}).get("User", "").partition(":")
    uid, gid = passwd.id_of(user), passwd.id_of(group)
    return None if uid is None else (uid, uid if gid is None else gid)


def _ids(engine: "Engine", container: "Container") -> "tuple[IdMap, IdMap] | None":
    """The ids that a container's files have here where those inside are others.

    A stopped container's files are seen as they are on the disk, where most have those inside.
    """
    mode = container.record.get("HostConfig", {}).get("UsernsMode", "")
    if not user_namespaces.is_apart(mode):
        return None
    if not container.is_active:
        return shifted.recorded(engine.settings.container_directory(container.id))
    return ids_of_process(container.init_pid)


def _owned_inside(engine: "Engine", container: "Container") -> "Owned | None":
    """Says for a file's owners here who they are inside; None where they are the same."""
    ids = _ids(engine, container)
    if ids is None:
        return None
    uids, gids = ids
    return lambda uid, gid: (uids.inside(uid), gids.inside(gid))


def _owned_outside(
    engine: "Engine", container: "Container", owner: tuple[int, int] | None
) -> "Owned | None":
    """Says for a file's owners inside, or the one that all are to have, who they are here."""
    ids = _ids(engine, container)
    if ids is None:
        return None if owner is None else lambda *_: owner
    uids, gids = ids

    def owned(uid: int, gid: int) -> tuple[int, int]:
        uid, gid = owner or (uid, gid)
        return uids.outside(uid), gids.outside(gid)

    return owned


def _unusable(error: OSError, path: str, reference: str) -> Exception:
    if error.errno == errno.ENOENT:
        return NotFoundError(f"Could not find the file {path} in container {reference}")
    if error.errno == errno.ENOTDIR:
        return InvalidArgumentError(f"{path} in container {reference}: not a directory")
    if error.errno == errno.ELOOP:
        return InvalidArgumentError(f"{path}: too many levels of symbolic links")
    return UnavailableError(f"{path} in container {reference}: {os.strerror(error.errno or 0)}")


def _record(engine: "Engine", container: "Container", action: str) -> None:
    attributes = {"image": container.image_reference, "name": container.name}
    with engine.store.transaction() as connection:
        events.record(connection, "container", action, container.id, attributes)
