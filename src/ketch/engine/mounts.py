"""The host's side of a container's mounts: sources that must exist, be made, or be shared."""

import os

from ketch.errors import InvalidArgumentError
from ketch.linux import procfs
from ketch.spec.values import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.spec.container import Mount


def check_sources(mounts: "Iterable[Mount]") -> None:
    """Checks, before anything is made, that the sources exist which are not made when missing.

    Raises:
        InvalidArgumentError: one does not.
    """
    for mount in mounts:
        made = mount.get("BindOptions", {}).get("CreateMountpoint", False)
        if mount["Type"] == "bind" and not made and not os.path.lexists(mount["Source"]):
            raise InvalidArgumentError(
                f"invalid mount config for type {quoted('bind')}: "
                f"bind source path does not exist: {mount['Source']}",
                "make it, or use -v, which makes a missing directory",
            )


def prepare_sources(mounts: "Iterable[Mount]") -> None:
    """Makes missing directories, and checks that the propagation asked for is possible.

    Raises:
        InvalidArgumentError: a source cannot be made, or lies on a mount whose propagation does
            not allow what was asked for.
    """
    for mount in mounts:
        if mount["Type"] != "bind":
            continue
        options = mount.get("BindOptions", {})
        if options.get("CreateMountpoint"):
            try:
                if not os.path.lexists(mount["Source"]):
                    os.makedirs(mount["Source"], 0o755, exist_ok=True)
            except OSError as error:
                raise InvalidArgumentError(
                    f"error while creating mount source path '{mount['Source']}': "
                    f"mkdir {error.filename}: {(error.strerror or '').lower()}"
                ) from error
        propagation = options.get("Propagation", "").removeprefix("r")
        if propagation in {"shared", "slave"}:
            _check_propagation(mount["Source"], propagation)


def _check_propagation(source: str, propagation: str) -> None:
    point, tags = _mount_of(os.path.realpath(source))
    allowed = ("shared:",) if propagation == "shared" else ("shared:", "master:")
    if not any(tag.startswith(allowed) for tag in tags):
        wanted = "a shared mount" if propagation == "shared" else "a shared or slave mount"
        raise InvalidArgumentError(
            f"path {source} is mounted on {point} but it is not {wanted}",
            f"mount --make-shared {point}",
        )


def _mount_of(path: str) -> tuple[str, list[str]]:
    """The mount point that a path lies on, and its optional fields: proc_pid_mountinfo(5)."""
    best, tags = "", []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mountinfo:
        for line in mountinfo:
            fields = line.split()
            point = procfs.unescape(fields[4])
            covers = path == point or path.startswith(f"{point.rstrip('/')}/")
            # A later mount at the same place lies on top of the earlier one.
            if covers and len(point) >= len(best):
                best, tags = point, fields[6 : fields.index("-")]
    return best, tags
