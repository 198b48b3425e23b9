"""Directories of the host that a container changes for itself: ``bind-copy-on-write=SIZE``.

An overlay lies on the directory, and what is written goes to memory of bounded size: a tmpfs that
is mounted nowhere but in the container, read-only, at ``place``. There ``upper`` finds what was
changed for as long as the container runs. However that ends, nothing is left.

Source: Linux, Documentation/filesystems/overlayfs.rst. Mounts below the directory are not seen. Who
changes the directory while it is in use may see the container see something else.
"""

import os
from contextlib import suppress

from ketch.errors import ConflictError, InvalidArgumentError, SyscallError, UnsupportedError
from ketch.images import idmapped
from ketch.images.snapshots import make_like
from ketch.linux import libc, mount, namespaces, openat2, procfs
from ketch.linux.apart import apart
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.records.rows import Container
    from ketch.images.snapshots import Snapshotter

_FILE_BYTES_LEAST = 4 << 10  # of the size for each file that there may be
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def over(
    snapshotter: "Snapshotter", directory: str, number: int, source: str, size_bytes: int,
    user_namespace: int | None,
) -> tuple[int, int]:  # fmt: skip
    """Mount an overlay on a directory of the host.

    Args:
        snapshotter: the engine's.
        directory: the container's own.
        number: of this mount among the container's.
        source: the directory that is read.
        size_bytes: how much may be written.
        user_namespace: descriptor of the one whose ids the container has, if it has its own.

    Returns:
        The overlay, and what is to be mounted at ``place``, as detached trees that the caller owns.

    Raises:
        InvalidArgumentError: the source is no directory.
        UnsupportedError: the kernel cannot do that here.
    """
    if not os.path.isdir(source):
        raise InvalidArgumentError(f"{source} is no directory, as copy-on-write asks for")
    aside = f"{directory}/changes-{number}"
    os.makedirs(aside, 0o700, exist_ok=True)
    files_max = max(16, size_bytes // _FILE_BYTES_LEAST)

    def work() -> tuple[int, int]:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.mount("", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
        data = f"mode=0700,size={size_bytes},nr_inodes={files_max}"
        mount.mount("tmpfs", aside, "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, data)
        os.mkdir(f"{aside}/work", 0o700)
        os.mkdir(f"{aside}/upper", 0o755)
        if user_namespace is not None:
            with owned(idmapped.clone(source, user_namespace)) as tree:
                mount.move_mount(tree, libc.AT_FDCWD, source)
        make_like(f"{aside}/upper", source)
        kept = mount.open_tree(libc.AT_FDCWD, aside, mount.OPEN_TREE_CLONE)
        try:
            return snapshotter.over(aside, source), kept
        except BaseException:
            os.close(kept)
            raise

    try:
        return apart(work)
    except SyscallError as error:
        raise UnsupportedError(
            f"cannot show {source} copy-on-write: {os.strerror(error.errno or 0).lower()}",
            "overlayfs wants a directory on a file system such as ext4, xfs, btrfs or tmpfs",
        ) from error


def place(number: int) -> str:
    """Returns where in the container the changes to its mount of this number lie."""
    return f"/run/.ketch-changes-{number}"


def upper(container: "Container", number: int) -> int:
    """Returns a descriptor, the caller's, of the directory with what a running container changed.

    It is an upper directory of overlayfs, in a stranger's hands.

    Args:
        container: the container.
        number: of the mount among the container's.

    Raises:
        ConflictError: it does not run.
    """
    pid = container.init_pid
    with suppress(OSError), owned(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)) as root:
        if pid and procfs.is_running(pid, container.init_start_time):
            inside = f"{place(number)}/upper".removeprefix("/")
            return openat2.openat2(root, inside, _DIRECTORY, resolve=openat2.RESOLVE_NO_SYMLINKS)
    raise ConflictError(f"container {container.name} does not run, and its changes are gone")
