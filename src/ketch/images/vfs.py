"""Snapshots without any mount: a container's root is a plain copy of all its layers.

For where overlayfs is missing or the file system below cannot carry it. Layers are kept unpacked
once, as ever; each container costs a whole copy, in time and in space.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

from ketch.errors import PermissionDeniedError, UnavailableError, UnsupportedError
from ketch.images import lock
from ketch.images.snapshots import Snapshotter, make_upper, unwritable
from ketch.linux import libc, mount, sparse
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.images.layered import Directory
    from ketch.images.shifted import Ids

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class CopySnapshotter(Snapshotter):
    """A whole copy for each container, in ``DIRECTORY/merged``."""

    __slots__ = ()

    name = "vfs"

    def prepare(
        self,
        directory: str,
        chain_ids: Sequence[str],
        *,
        bare: bool = False,
        ids: "Ids | None" = None,
    ) -> None:
        """See ``Snapshotter.prepare``."""
        with lock.shared(self.root):
            try:
                topmost = self._begin(directory, chain_ids, bare=bare, ids=ids)
                make_upper(f"{directory}/merged", topmost)
                _copy_stack(self._stack(directory), f"{directory}/merged")
            except OSError as error:
                raise unwritable(directory, error) from error

    def mount(
        self,
        directory: str,
        user_namespace: int | None = None,
        *,
        passing: bool = False,  # noqa: ARG002 - these files are on the disk like any
    ) -> int:
        """See ``Snapshotter.mount``."""
        merged = f"{directory}/merged"
        try:
            if user_namespace is not None:
                from ketch.images import idmapped  # noqa: PLC0415 - wanted by few

                return idmapped.clone(merged, user_namespace)
            return mount.open_tree(libc.AT_FDCWD, merged, mount.OPEN_TREE_CLONE)
        except FileNotFoundError as error:
            raise UnavailableError(f"{merged} is missing", "make the container again") from error
        except PermissionError as error:
            raise PermissionDeniedError(
                f"cannot mount {merged}: {error.strerror}", "mounting needs root"
            ) from error
        except OSError as error:
            raise UnsupportedError(f"cannot mount {merged}: {error.strerror}") from error

    def trees_of(self, directory: str) -> tuple[str, list[str]]:
        """See ``Snapshotter.trees_of``."""
        return f"{directory}/merged", self._trees(directory)

    def view(self, directory: str) -> int:
        """See ``Snapshotter.view``."""
        descriptor = self.mount(directory)
        mount.mount_setattr(descriptor, set_attributes=mount.MOUNT_ATTR_RDONLY)
        return descriptor

    @contextlib.contextmanager
    def writable(self, directory: str) -> "Iterator[tuple[int, Directory, bool]]":
        """See ``Snapshotter.writable``."""
        try:
            upper = os.open(f"{directory}/merged", _DIRECTORY)
        except OSError as error:
            raise unwritable(directory, error) from error
        with owned(upper):
            yield upper, self._stack(directory), True

    def description(
        self, chain_ids: Sequence[str], directory: str = ""
    ) -> "dict[str, str | dict[str, str] | None]":
        """See ``Snapshotter.description``."""
        del chain_ids, directory
        return {"Data": None, "Name": self.name}


def _copy_stack(stack: "Directory", target: str) -> None:
    """Copy what a stack of layers shows into an empty directory."""
    links: dict[tuple[int, int], bytes] = {}
    waiting = [(stack, os.fsencode(target))]
    made: list[tuple[bytes, bytes, os.stat_result]] = [
        (stack.parts[0], waiting[0][1], os.lstat(stack.parts[0]))
    ]
    while waiting:
        directory, into = waiting.pop()
        for name in directory.names():
            found = directory.find(name)
            assert found is not None
            source, status = found
            path = into + b"/" + name
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(path, 0o700)
                made.append((source, path, status))
                waiting.append((directory.child(name), path))
                continue
            first = links.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
            if first is not None:
                os.link(first, path, follow_symlinks=False)
                continue
            if status.st_nlink > 1:
                links[status.st_dev, status.st_ino] = path
            _copy(source, path, status)
    # Directories last: what is made in them changes their times.
    for source, path, status in reversed(made):
        _copy_metadata(source, path, status)


def _copy(source: bytes, path: bytes, status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        _copy_content(source, path, status.st_size)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(source), path)
    else:
        os.mknod(path, kind | 0o600, status.st_rdev)
    _copy_metadata(source, path, status)


def _copy_content(source: bytes, path: bytes, size_bytes: int) -> None:
    """Copy a file within the kernel, holes as holes."""
    with (
        owned(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as read,
        owned(os.open(path, _NEW, 0o600)) as write,
    ):
        for _ in sparse.copy(read, write, size_bytes):
            pass


def _copy_metadata(source: bytes, path: bytes, status: os.stat_result) -> None:
    from ketch.images import attributes  # noqa: PLC0415 - not for a container's start

    os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(path, stat.S_IMODE(status.st_mode))
    attributes.write(path, attributes.read(source))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
