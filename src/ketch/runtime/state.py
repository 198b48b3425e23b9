"""What ``ketch-oci`` keeps of a container between two commands, and its status.

::

    ROOT/ID/state.json   the record; written to a temporary name and renamed
    ROOT/ID/config.json  the configuration as it was at the creation, and as ``update`` changed it
    ROOT/ID/exec.fifo    from ``create`` to ``start``: what init waits on
    ROOT/ID/.lock        locked by whoever changes the container
    ROOT/ID/notify/      with $NOTIFY_SOCKET: the container's own socket for it
    ROOT/ID/criu/        during a restore: what criu's mounts cover

Status is derived from facts and never stored: whether init lives (pid, start time and boot),
whether the fifo is there, whether the cgroup is frozen. Only that a container is being created is
remembered, as the absence of a pid: its maker holds the lock, so a record without pid and lock is
what a killed maker left behind, and whoever comes next takes it away.
"""

import errno
import fcntl
import os
import time

from ketch import cgroups
from ketch.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    UnavailableError,
)
from ketch.linux import procfs
from ketch.linux.scopes import owned
from ketch.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.runtime import Config

CREATING, CREATED, RUNNING = "creating", "created", "running"
PAUSED, STOPPED = "paused", "stopped"

_RECORD = "state.json"
_CONFIG = "config.json"
_FIFO = "exec.fifo"
_LOCK = ".lock"
CRIU = "criu"
"""A directory that is there while the container is restored."""
NOTIFY = "notify"
"""A directory with the socket to which the container says that it is ready."""
_OWN = frozenset({_LOCK, _FIFO, _RECORD, _CONFIG, CRIU, NOTIFY, f".{_RECORD}", f".{_CONFIG}"})
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.")


class Record:
    """What is known of a container.

    Attributes:
        id: its name.
        bundle: absolute path of its bundle.
        rootfs: absolute path of its root filesystem on the host.
        annotations: of its configuration.
        version: of the specification that its configuration follows.
        created_ns: when it was created, since the epoch.
        owner: uid of who created it.
        pid: its init, 0 while it is being created.
        start_time: init's, in clock ticks since boot.
        boot: the boot that init belongs to.
        cgroup: path of its cgroup, empty where it has none.
        bases: for a relative path the cgroup of the maker, by the hierarchy's mount point.
        owns_cgroup: whether what is in the cgroup is the container's.
        unit: the systemd unit that the cgroup is of, empty where it was made without systemd.
        by_user_manager: whether the unit is the user's own systemd's.
    """

    __slots__ = (
        "annotations", "bases", "boot", "bundle", "by_user_manager", "cgroup", "created_ns", "id",
        "owner", "owns_cgroup", "pid", "rootfs", "start_time", "unit", "version",
    )  # fmt: skip

    def __init__(self, container_id: str, bundle: str, config: "Config") -> None:
        self.id = container_id
        self.bundle = bundle
        self.rootfs = os.path.normpath(os.path.join(bundle, config["root"]["path"]))
        self.annotations = config.get("annotations", {})
        self.version = config["ociVersion"]
        self.created_ns = time.time_ns()
        self.owner = os.geteuid()
        self.pid = 0
        self.start_time = 0
        self.boot = ""
        self.cgroup = ""
        self.bases: dict[str, str] = {}
        self.owns_cgroup = False
        self.unit = ""
        self.by_user_manager = False

    def born(self, pid: int) -> None:
        """Note who init is.

        Raises:
            UnavailableError: it has already ended.
        """
        start_time = procfs.process_start_time(pid)
        if start_time is None:
            raise UnavailableError("the container's init ended before it could be recorded")
        self.pid, self.start_time, self.boot = pid, start_time, procfs.boot_id()

    def is_alive(self) -> bool:
        """Whether init, and no later process of that pid, lives."""
        return procfs.is_running(self.pid, self.start_time) and self.boot == procfs.boot_id()

    def place(self, path: str) -> "cgroups.Manager":
        """Choose the cgroup, and give its manager."""
        layout = cgroups.detect()
        self.cgroup = path
        if not path.startswith("/"):
            self.bases = {each.mountpoint: each.own for each in layout.hierarchies}
        return cgroups.manager(path, layout)

    def place_in_unit(self, path: str, *, user: bool) -> "cgroups.Manager":
        """Choose a systemd unit, and give the manager of its cgroup.

        Args:
            path: ``slice:prefix:name``, or empty.
            user: whether the user's own systemd is to make it.
        """
        from ketch.cgroups import systemd  # noqa: PLC0415 wanted by few

        found = systemd.place(path, self.id, self.annotations, cgroups.detect(), user=user)
        self.cgroup, self.unit, self.by_user_manager = found.path, found.name, user
        return found

    def manager(self) -> "cgroups.Manager | None":
        """The manager of its cgroup, from whichever cgroup it is asked; None where it has none."""
        if not self.cgroup:
            return None
        layout = cgroups.detect()
        if self.unit:
            from ketch.cgroups import systemd  # noqa: PLC0415 wanted by few

            return systemd.UnitManager(self.unit, self.cgroup, layout, user=self.by_user_manager)
        for hierarchy in layout.hierarchies:
            hierarchy.own = self.bases.get(hierarchy.mountpoint, hierarchy.own)
        return cgroups.manager(self.cgroup, layout)

    def text(self) -> str:
        """The record as it is stored."""
        return json_text.dumps({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def read(cls, text: bytes) -> "Record":
        """Make a record of what is stored.

        Raises:
            ConflictError: another runtime stored it.
        """
        record = cls.__new__(cls)
        record.unit, record.by_user_manager = "", False  # of one that an earlier version made
        stored = json_text.loads(text)
        if not set(cls.__slots__).issuperset(stored):
            raise ConflictError(
                "the state under --root is another runtime's", "give each runtime a root of its own"
            )
        for name, value in stored.items():
            setattr(record, name, value)
        return record


class Entry:
    """A container's directory, locked until ``close``.

    Args:
        path: of the directory.
        descriptor: of its lock.
    """

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def __enter__(self) -> "Entry":
        """Returns the entry itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self.close()

    def close(self) -> None:
        """Release the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def is_current(self) -> bool:
        """Whether the locked directory still is the one of its name."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(f"{self.path}/{_LOCK}"))
        except FileNotFoundError:
            return False

    def record(self) -> Record:
        """Read the record anew, now that nobody else changes it."""
        return Record.read(_read(f"{self.path}/{_RECORD}"))

    def write(self, record: Record) -> None:
        """Store a record."""
        self._replace(_RECORD, record.text().encode())

    def write_config(self, text: bytes) -> None:
        """Store the configuration."""
        self._replace(_CONFIG, text)

    def _replace(self, name: str, content: bytes) -> None:
        temporary = f"{self.path}/.{name}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
        os.rename(temporary, f"{self.path}/{name}")

    def make_fifo(self) -> int:
        """Make the exec fifo.

        Returns:
            A descriptor of its reading end that does not block, owned by the caller.
        """
        path = f"{self.path}/{_FIFO}"
        os.mkfifo(path, 0o600)
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def release_fifo(self) -> None:
        """Let init become the program.

        Raises:
            UnavailableError: init does not wait any more.
        """
        path = f"{self.path}/{_FIFO}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            raise UnavailableError("the container's init has ended") from error
        with owned(descriptor):
            os.write(descriptor, b"0")
        os.unlink(path)

    def remove_own(self) -> bool:
        """Remove the directory if nothing else than a container's files is in it."""
        if not _OWN.issuperset(os.listdir(self.path)):
            return False
        self.remove()
        return True

    def remove(self) -> None:
        """Remove the directory, the record last, so that what is left of a crash is found."""
        for name in sorted(os.listdir(self.path), key=_RECORD.__eq__):
            path = f"{self.path}/{name}"
            if name in {CRIU, NOTIFY}:
                for inner in os.listdir(path):
                    os.unlink(f"{path}/{inner}")
                os.rmdir(path)
            else:
                os.unlink(path)
        os.rmdir(self.path)


class States:
    """All containers of one ``--root``.

    Args:
        root: the directory; made when the first container is.
    """

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = root

    def create(self, container_id: str) -> Entry:
        """Take an identifier, and lock its directory.

        Raises:
            InvalidArgumentError: it cannot be one.
            AlreadyExistsError: it is taken.
        """
        path = self._path(container_id)
        os.makedirs(self.root, 0o711, exist_ok=True)
        self._sweep(path)
        # The root's lock, since a directory without record is open to be swept until it is locked.
        with owned(_lock(self.root)):
            try:
                os.mkdir(path, 0o711)
                descriptor = _lock(path)
            except FileExistsError:
                raise AlreadyExistsError("container with given ID already exists") from None
        return Entry(path, descriptor)

    def lock(self, container_id: str) -> Entry:
        """Lock a container's directory, once whoever has it now is done.

        Raises:
            NotFoundError: there is no such container.
        """
        path = self._path(container_id)
        self._sweep(path)
        while True:
            try:
                entry = Entry(path, _lock(path))
            except FileNotFoundError:
                raise _no_container() from None
            if entry.is_current():
                return entry
            # It was removed, and perhaps made anew, while it was waited for.
            entry.close()

    def find(self, container_id: str) -> Record:
        """Read what is known of a container.

        Raises:
            NotFoundError: there is none of this name.
        """
        path = self._path(container_id)
        try:
            record = Record.read(_read(f"{path}/{_RECORD}"))
        except FileNotFoundError:
            self._sweep(path)
            raise _no_container() from None
        if not record.pid and self._sweep(path):
            raise _no_container()
        return record

    def all(self) -> list[Record]:
        """Read what is known of every container, by identifier."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            try:
                found.append(self.find(name))
            except (KetchError, NotADirectoryError):
                continue
        return found

    def config(self, record: Record) -> "Config":
        """Read a container's configuration."""
        config: Config = json_text.loads(_read(f"{self._path(record.id)}/{_CONFIG}"))
        return config

    def status(self, record: Record) -> str:
        """What a container does now.

        Returns:
            CREATING, CREATED, RUNNING, PAUSED or STOPPED.
        """
        if not record.pid:
            return CREATING
        if not record.is_alive():
            return STOPPED
        cgroup = record.manager()
        if cgroup is not None:
            try:
                if cgroup.frozen():
                    return PAUSED
            except UnavailableError:
                pass  # no freezer, so nothing can be frozen
        return CREATED if os.path.exists(f"{self._path(record.id)}/{_FIFO}") else RUNNING

    def _path(self, container_id: str) -> str:
        # A leading dot is for what is no container: "..", and the directory of compiled filters.
        if not container_id or container_id[0] == "." or not set(container_id) <= _PLAIN:
            raise InvalidArgumentError("invalid container ID format")
        return f"{self.root}/{container_id}"

    def _sweep(self, path: str) -> bool:
        """Take away what a killed ``create`` left; whether there was something of the kind."""
        try:
            with owned(_lock(self.root)):
                descriptor = _lock(path, wait=False)
        except (FileNotFoundError, NotADirectoryError, BlockingIOError):
            return False
        with Entry(path, descriptor) as entry:
            try:
                record = entry.record()
            except FileNotFoundError:
                return entry.remove_own()
            if record.pid:
                return False
            remove_cgroup(record)
            entry.remove()
            return True


def remove_cgroup(record: Record) -> None:
    """Kill what is in a container's cgroup and remove it."""
    cgroup = record.manager()
    if cgroup is None or not cgroup.exists():
        return
    if record.owns_cgroup:
        cgroup.kill()
        cgroup.delete()
    elif not cgroup.processes():
        cgroup.delete()


def _lock(directory: str, *, wait: bool = True) -> int:
    """Lock a directory by a file in it: fcntl(2) F_SETLK; the lock goes with the descriptor.

    Not flock(2): init, a copy of its maker, would share that lock until it becomes the program.

    Raises:
        BlockingIOError: somebody has it, and we are not to wait.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(f"{directory}/{_LOCK}", flags, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _no_container() -> NotFoundError:
    return NotFoundError("container does not exist")
