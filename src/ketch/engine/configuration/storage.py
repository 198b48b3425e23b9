"""``--storage-opt size``: a limit on what a container may write into its own layer."""

import errno
import os

from ketch.errors import SyscallError, UnsupportedError
from ketch.linux import quota
from ketch.linux.scopes import owned
from ketch.spec.told import Told, quote
from ketch.spec.values import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.container import HostConfig

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

# overlayfs moves files between these two, which must therefore be of one project.
_WRITABLE = ("upper", "work")

_LACKING = {errno.ENOSYS, errno.ESRCH, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL}


def limit(directory: str, container_id: str, resources: "HostConfig") -> bool:
    """Limit a new container's writable layer, if that was asked for.

    Args:
        directory: the container's own, with its root prepared.
        container_id: the container; names the quota's project.
        resources: what was asked for.

    Returns:
        Whether it was.

    Raises:
        UnsupportedError: the file system, or this kernel, has no quotas of projects.
    """
    limit_bytes = _asked(resources)
    if limit_bytes is None:
        return False
    try:
        _limit(directory, project(container_id), limit_bytes)
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        raise UnsupportedError(
            "--storage-opt size is supported only where the file system below has project quotas: "
            "xfs mounted with 'pquota', or ext4 with the features project and quota mounted with "
            f"'prjquota' ({os.path.dirname(directory)}: {os.strerror(error.errno or 0).lower()})",
            "keep ketch's --root on such a file system, or limit what is written to a tmpfs",
        ) from error
    return True


def describe(directory: str, container_id: str, resources: "HostConfig") -> Told:
    """What ``limit`` has done, to be told; the arguments are its own."""
    limit_bytes, number = _asked(resources) or 0, project(container_id)
    places = " ".join(quote(f"{directory}/{name}") for name in _WRITABLE)
    by_hand = [
        f"chattr -R +P -p {number} {places}",
        f"setquota -P {number} 0 {limit_bytes // 1024} 0 0"
        f" $(findmnt -n -o TARGET -T {quote(directory)})",
    ]
    words = "limit what the container may write into its layer · quotactl_fd(2)"
    values = [("project", number), ("bytes", limit_bytes)]
    return Told("limits", words, values, outside=by_hand)


def _asked(resources: "HostConfig") -> int | None:
    """The limit in bytes, None where none was asked for."""
    wanted = {name.lower(): value for name, value in resources.get("StorageOpt", {}).items()}
    return size(wanted["size"]) if "size" in wanted else None


def _limit(directory: str, number: int, size_bytes: int) -> None:
    for name in _WRITABLE:
        path = f"{directory}/{name}"
        if not os.path.isdir(path):
            raise SyscallError(errno.EOPNOTSUPP, "quotactl_fd", path)
        with owned(os.open(path, _DIRECTORY)) as descriptor:
            quota.set_project(descriptor, number)
            quota.limit_project(descriptor, number, size_bytes)


def project(container_id: str) -> int:
    """The project of a container: no other program is likely to have numbers as high."""
    return (1 << 30) | int(container_id[:7], 16)
