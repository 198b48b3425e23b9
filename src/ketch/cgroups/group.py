"""One cgroup directory in one hierarchy: make it, read and write its files, list it, remove it.

Source: cgroups(7), cgroup-v1/cgroups.rst and cpusets.rst, cgroup-v2.rst "Core Interface Files".
"""

import errno
import os

from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    KetchError,
    PermissionDeniedError,
    SyscallError,
    UnsupportedError,
)
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.cgroups.layout import Hierarchy

_READ_BYTES = 1 << 16
_MAKE_ATTEMPTS = 20

_HINTS = {
    "memory.memsw.limit_in_bytes": "the kernel does not account swap: boot it with swapaccount=1,"
    " or set no swap limit",
    "memory.swap.max": "the kernel does not account swap: boot it with swapaccount=1,"
    " or set no swap limit",
    "blkio.bfq.weight": "weights need the BFQ scheduler: load its module, or set no weight",
    "blkio.bfq.weight_device": "a device's weight needs the BFQ scheduler for that device:"
    " write bfq to its queue/scheduler in /sys/block, or set no weight",
    "io.weight": "weights need the BFQ scheduler or CONFIG_BLK_CGROUP_IOCOST: or set no weight",
}


class Group:
    """A cgroup in one hierarchy, existing or to be made.

    Args:
        hierarchy: where it lives.
        path: absolute or relative, as ``Hierarchy.directory`` takes it.
    """

    __slots__ = ("directory", "hierarchy", "refused")

    def __init__(self, hierarchy: "Hierarchy", path: str) -> None:
        self.hierarchy = hierarchy
        self.directory = hierarchy.directory(path)
        self.refused: dict[str, OSError] = {}  # v2: controllers that could not be passed down

    def exists(self) -> bool:
        """Whether the directory is there."""
        return os.path.isdir(self.directory)

    def create(self) -> bool:
        """Make the directory and what lies above it, ready to take processes.

        Returns:
            Whether it is new.

        Raises:
            PermissionDeniedError: the hierarchy cannot be written by this process.
            SyscallError: it cannot be made.
        """
        made = False
        for attempt in range(_MAKE_ATTEMPTS):
            try:
                os.mkdir(self.directory, 0o755)
                made = True
                break
            except FileExistsError:
                break
            except OSError as error:
                # Another container's end may remove an empty parent while this one begins.
                if error.errno != errno.ENOENT or attempt == _MAKE_ATTEMPTS - 1:
                    raise self._failure(error, f"cannot make cgroup {self.directory}") from error
                self._create_parents()
        if "cpuset" in self.hierarchy.controllers and self.hierarchy.version == 1:
            _inherit_cpuset(self.directory, self.hierarchy.mountpoint)
        return made

    def _ancestors(self) -> list[str]:
        """The directories above, from the hierarchy's root to the parent."""
        found = [os.path.dirname(self.directory)]
        while found[-1] != self.hierarchy.mountpoint:
            found.append(os.path.dirname(found[-1]))
        return found[::-1]

    def _create_parents(self) -> None:
        for directory in self._ancestors()[1:]:
            try:
                os.mkdir(directory, 0o755)
            except (FileExistsError, FileNotFoundError):
                continue
            except OSError as error:
                raise self._failure(error, f"cannot make cgroup {directory}") from error

    def receive(self, wanted: "Iterable[str]") -> None:
        """Have controllers passed down to this v2 cgroup, as far as the kernel lets them through.

        What it does not let through (an ancestor with processes of its own cannot pass memory
        on) matters only when it is to be limited: ``write`` then tells. Where the hierarchy's
        root begins to pass a controller on, the write waits for an RCU grace period.
        """
        wanted = set(wanted)
        if not wanted - set((self.read("cgroup.controllers") or "").split()):
            return
        for directory in self._ancestors():
            here = set((read(f"{directory}/cgroup.controllers") or "").split())
            passed = set((read(f"{directory}/cgroup.subtree_control") or "").split())
            missing = sorted((wanted & here) - passed)
            if not missing:
                continue
            file = f"{directory}/cgroup.subtree_control"
            try:
                _write(file, " ".join(f"+{name}" for name in missing))
            except OSError:
                # One that cannot be enabled refuses the whole line.
                for name in missing:
                    try:
                        _write(file, f"+{name}")
                    except OSError as error:
                        self.refused[name] = error

    def has(self, file: str) -> bool:
        """Whether the cgroup has such a file."""
        return os.path.exists(f"{self.directory}/{file}")

    def read(self, file: str) -> str | None:
        """A file's text; None when there is no such file, or no such cgroup any more."""
        return read(f"{self.directory}/{file}")

    def write(self, file: str, value: str) -> None:
        """Write a file in one write.

        Raises:
            KetchError: of the class that fits the kernel's refusal, naming cgroup, file and value.
        """
        try:
            _write(f"{self.directory}/{file}", value)
        except OSError as error:
            what = f"cannot write {value!r} to {self.directory}/{file}"
            raise self._failure(error, what, file) from error

    def _failure(self, error: OSError, what: str, file: str = "") -> KetchError | SyscallError:
        """The error to raise for what the kernel refused to do with the directory or a file."""
        controller = file.split(".", 1)[0]
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            return PermissionDeniedError(
                f"{what}: {error.strerror}",
                "run as root, in a place where the control group file system is writable",
            )
        if error.errno == errno.ENOENT and not self.exists():
            return ConflictError(f"{what}: the cgroup is gone")
        if error.errno == errno.ENOENT and controller in self.refused:
            reason = self.refused[controller].strerror
            return ConflictError(
                f"{what}: the {controller} controller could not be enabled for it ({reason})",
                "an ancestor holds processes of its own; move them into a child of it",
            )
        if error.errno == errno.ENOENT:
            hint = _HINTS.get(file, "leave this limit out")
            return UnsupportedError(f"{what}: the kernel has no such file", hint)
        if error.errno == errno.EOPNOTSUPP:
            hint = _HINTS.get(file, "leave this limit out")
            return UnsupportedError(f"{what}: {error.strerror}", hint)
        if error.errno == errno.EBUSY and file.startswith("memory."):
            usage = (self.read("memory.usage_in_bytes") or "?").strip()
            return ConflictError(f"{what}: {usage} bytes are in use and cannot be reclaimed")
        if error.errno == errno.EBUSY:
            return ConflictError(f"{what}: {error.strerror}")
        if error.errno in {errno.EINVAL, errno.ERANGE, errno.ENODEV, errno.EOVERFLOW}:
            return InvalidArgumentError(f"{what}: {error.strerror}", self._accepted(file))
        return SyscallError(error.errno or 0, "write" if file else "mkdir or rmdir", what)

    def _accepted(self, file: str) -> str:
        """What the kernel would have taken, where its parent tells."""
        if file not in {"cpuset.cpus", "cpuset.mems"}:
            return ""
        parent = os.path.dirname(self.directory)
        allowed = read(f"{parent}/{file}.effective") or read(f"{parent}/{file}") or ""
        return f"the cgroup above allows {allowed.strip()}" if allowed.strip() else ""

    def processes(self, *, recursive: bool = True) -> list[int]:
        """Processes in it, and beneath it; those outside of the caller's pid namespace left out."""
        found: list[int] = []
        for directory in self.tree() if recursive else [self.directory]:
            text = read(f"{directory}/cgroup.procs") or ""
            found += [pid for line in text.splitlines() if (pid := int(line))]
        return found

    def tree(self) -> list[str]:
        """This directory and all cgroups beneath it, children before their parents."""
        return _tree(self.directory)

    def remove(self) -> bool:
        """Remove it with all beneath it.

        Returns:
            Whether it is gone; if not, processes still hold it.
        """
        try:
            os.rmdir(self.directory)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise self._failure(error, f"cannot remove cgroup {self.directory}") from error
        else:
            return True
        for directory in self.tree():
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
        return not self.exists()


def read(path: str) -> str | None:
    """A control file's whole text; None when it, or its cgroup, is not there."""
    try:
        with owned(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
            text = part = os.read(descriptor, _READ_BYTES)
            while len(part) == _READ_BYTES:
                part = os.read(descriptor, _READ_BYTES)
                text += part
    except OSError as error:
        # ENODEV: the cgroup was removed after its file was opened. EOPNOTSUPP: a v2 file that
        # this type of cgroup has not (cgroup.procs of a threaded one).
        if error.errno in {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP}:
            return None
        raise
    return text.decode("ascii", "replace")


def _write(path: str, value: str) -> None:
    with owned(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as descriptor:
        os.write(descriptor, value.encode())


def _tree(directory: str) -> list[str]:
    found: list[str] = []
    waiting = [directory]
    while waiting:  # a container may have nested them deeper than Python calls itself
        group = waiting.pop()
        try:
            with os.scandir(group) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue
        found.append(group)
    found.reverse()
    return found


def _inherit_cpuset(directory: str, mountpoint: str) -> None:
    """Give a new v1 cpuset its parent's processors and memory nodes.

    Without any it takes no process (ENOSPC), and it starts without any.
    """
    parent = os.path.dirname(directory)
    for file in ("cpuset.cpus", "cpuset.mems"):
        if (read(f"{directory}/{file}") or "").strip():
            continue
        value = (read(f"{parent}/{file}") or "").strip()
        if not value and parent != mountpoint:
            _inherit_cpuset(parent, mountpoint)
            value = (read(f"{parent}/{file}") or "").strip()
        _write(f"{directory}/{file}", value)
