"""What a running container has in memory, had by others like it without being copied.

``part`` makes what lies in a container's tmpfs a layer: an overlay is mounted over it, there as in
whatever container ``share`` gives it to, and from then on each of them writes to a tmpfs of its
own. Parted again, what was written since becomes one more layer. Memory goes when the last one does
that has it.

Nobody may write to a layer any more, whoever is in the container. The kernel sees to that once its
mount is read-only, which it refuses to make it while a file there is open for writing
(mount_setattr(2): EBUSY). But a mapping of a file outlives its descriptor, and a working directory
would stay where nothing can be written. So a container is parted only while nobody is in it but its
init, which runs nothing of the image's and touches no file; and that is looked at once more when
the mount has become read-only: whoever comes later finds the new one.

A container's layers are its mount namespace's, at ``PLACE``, closed to all but the host's root, and
in nobody else's mount table: however it ends, they go with it.

    PLACE/NUMBER-DEPTH      a layer of the NUMBERth of its tmpfs by path, the lowest first; the last
                            one is being written to
    PLACE/NUMBER-0-own      the same, mounted by the container's init, with its ids

Source: Linux, Documentation/filesystems/overlayfs.rst; ids: ``images.idmapped``.
"""

import contextlib
import errno
import fcntl
import os
from contextlib import ExitStack
from typing import NamedTuple

from ketch.engine import user_namespaces
from ketch.errors import ConflictError, SyscallError, UnsupportedError
from ketch.images.snapshots import make_like
from ketch.linux import fsuid, libc, locks, mount, namespaces, openat2, procfs, statfs
from ketch.linux.apart import apart
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings

    T = TypeVar("T")

PLACE = "/dev/.ketch-layers"

_LAYERS_MAX = 32
_BESIDE = openat2.RESOLVE_BENEATH | openat2.RESOLVE_NO_SYMLINKS
_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
_OWN = "own"
_LOCK_SECONDS = 30.0
# What overlayfs and this module have in a tmpfs besides the container's files.
_FILES_BESIDES = 16
_SMALL = "mode=0700,size=64k,nr_inodes=1024"


class BusyError(ConflictError):
    """Somebody is at work in the container, who would lose what he has in hand."""


class _Place(NamedTuple):
    """One of a container's tmpfs.

    Attributes:
        number: among them, by path.
        path: where it is.
        data: how large it may become, as its own file system's options.
    """

    number: int
    path: str
    data: str


class _Part(NamedTuple):
    """A place whose content is about to become a layer.

    Attributes:
        place: which.
        top: descriptor of what is mounted there.
        layers: the names of its layers, the lowest first; none where it is a tmpfs yet.
        first: the tmpfs as a tree of its own, where there are none.
        below: what else is mounted within it.
        overlay: what is going to be mounted over it.
        writing: where that is written to.
    """

    place: _Place
    top: int
    layers: list[str]
    first: int
    below: list[str]
    overlay: int
    writing: int


def part(engine: "Engine", container: "Container") -> None:
    """Have what a running container has in memory as layers, which others can have as well.

    What is a layer already, or empty, stays as it is.

    Raises:
        BusyError: somebody else than its init is in it.
        ConflictError: it does not run.
        UnsupportedError: it has too many layers, or other mounts within them, or the kernel cannot.
    """
    with _supported(), _Inside(container) as inside, _locked(engine.settings, container.id):
        below = _mounts_below(container)
        parts: list[_Part] = []
        with ExitStack() as held:
            for place in _places(container):
                top, layers = inside.opened(place, held), inside.layers(place)
                if inside.is_empty(place, layers):
                    continue
                if len(layers) >= _LAYERS_MAX:
                    raise UnsupportedError(f"{place.path} has {len(layers)} layers already")
                _check_alone(engine, container)
                trees, kept = inside.cloned_twice(place, layers, held)
                first = -1 if layers else kept[0]
                own = not layers or layers[0].endswith(_OWN)
                overlay, writing = _stacked(engine, container, inside, place, trees, held, own=own)
                parts.append(_Part(place, top, layers, first, below[place.path], overlay, writing))
            if parts:
                inside.within(lambda: _lay(engine, container, inside, parts))


def share(engine: "Engine", container: "Container", origin: "Container") -> None:
    """Give a running container the layers of another one, which ``part`` has made.

    Args:
        engine: the engine of both.
        container: has the same tmpfs, all empty, and nobody in it but its init.
        origin: the other one.

    Raises:
        ConflictError: one of them does not run.
        UnsupportedError: the kernel cannot.
    """
    with _supported(), _Inside(container) as inside, _Inside(origin) as other, ExitStack() as held:
        below = _mounts_below(container)
        for place in _places(origin):
            layers = other.layers(place)[:-1]
            if not layers:
                continue
            trees, kept = other.cloned_twice(place, layers, held)
            overlay, writing = _stacked(engine, container, inside, place, trees, held)
            top = inside.opened(place, held)
            kept = [*kept, writing]

            def lay(place: _Place = place, top: int = top, overlay: int = overlay,
                    kept: list[int] = kept) -> None:  # fmt: skip
                inside.cover(top, overlay, below[place.path])
                with owned(inside.holder(make=True)) as holder:
                    for depth, tree in enumerate(kept):
                        _keep(holder, f"{place.number}-{depth}", tree)

            inside.within(lay)


@contextlib.contextmanager
def undisturbed(settings: "Settings", container_id: str) -> "Iterator[None]":
    """Have a container not parted during a block, in which somebody comes into it.

    Any number may be in such a block at once.
    """
    with _locked(settings, container_id, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def _locked(settings: "Settings", container_id: str, how: int = fcntl.LOCK_EX) -> "Iterator[None]":
    path = f"{settings.runtime_directory(container_id)}/layers.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise ConflictError(f"container {container_id} is not running") from error
    with owned(lock):
        locks.take(lock, how, path, _LOCK_SECONDS)
        yield


@contextlib.contextmanager
def _supported() -> "Iterator[None]":
    """Say of what the kernel refuses that it cannot be done here."""
    try:
        yield
    except OSError as error:
        raise UnsupportedError(
            f"what is in memory cannot be shared: {os.strerror(error.errno or 0).lower()}"
        ) from error


class _Inside:
    """A running container's mounts, as they are reached from outside. A context manager."""

    def __init__(self, container: "Container") -> None:
        self._container = container
        self._held = ExitStack()

    def __enter__(self) -> "_Inside":
        pid, held = self._container.init_pid, self._held
        gone = ConflictError(f"container {self._container.name} is not running")
        if not pid:
            raise gone
        try:
            self.root = held.enter_context(
                owned(os.open(f"/proc/{pid}/root", _LOOK ^ os.O_NOFOLLOW))
            )
            self._mounts = held.enter_context(owned(_namespace(pid, "mnt")))
            users = held.enter_context(owned(_namespace(pid, "user")))
            ids = user_namespaces.of_process(pid)
        except (FileNotFoundError, ProcessLookupError) as error:
            held.close()
            raise gone from error
        if not procfs.is_running(pid, self._container.init_start_time):
            held.close()
            raise gone
        apart_ = not os.path.samestat(os.fstat(users), os.stat("/proc/self/ns/user"))
        self.users = users if apart_ else None
        self.owner = (ids[0].outside(0), ids[1].outside(0)) if apart_ else (0, 0)
        return self

    def __exit__(self, *_error: object) -> None:
        self._held.close()

    def within(self, work: "Callable[[], T]") -> "T":
        """Do something where the mounts are the container's; paths lead where they always do."""

        def entered() -> "T":
            namespaces.unshare(namespaces.CLONE_FS)
            with owned(os.open("/", _LOOK)) as home:
                namespaces.setns(self._mounts, namespaces.CLONE_NEWNS)
                os.fchdir(home)
                os.chroot(".")
            return work()

        return apart(entered)

    def opened(self, place: _Place, held: ExitStack) -> int:
        """Open what is mounted at a place."""
        return held.enter_context(owned(self._open(place)))

    def _open(self, place: _Place) -> int:
        return openat2.openat2(self.root, place.path.lstrip("/"), _LOOK, resolve=_BESIDE)

    def holder(self, *, make: bool = False) -> int:
        """Open the directory of its layers; only to be made where the mounts are the container's.

        Raises:
            FileNotFoundError: it has none yet.
            UnsupportedError: somebody else has something there.
        """
        name = os.path.basename(PLACE)
        with owned(openat2.openat2(self.root, "dev", _LIST, resolve=_BESIDE)) as devices:
            if make and statfs.kind(devices) != statfs.TMPFS_MAGIC:
                raise UnsupportedError("/dev is not the engine's own")
            try:
                found = os.open(name, _LIST, dir_fd=devices)
            except FileNotFoundError:
                if not make:
                    raise
            else:
                status = os.fstat(found)
                # What the guest makes there is on /dev itself: it mounts nothing.
                if status.st_dev != os.fstat(devices).st_dev and status.st_uid == os.geteuid():
                    return found
                os.close(found)
                raise UnsupportedError(f"{PLACE} is somebody else's")
            with fsuid.acting_as(*self.owner):
                os.mkdir(name, 0o700, dir_fd=devices)
            with (
                owned(os.open(name, _LOOK, dir_fd=devices)) as point,
                owned(_tmpfs(_SMALL)) as made,
            ):
                mount.move_mount(made, point)
            return os.open(name, _LIST, dir_fd=devices)

    def layers(self, place: _Place) -> list[str]:
        """Returns the names of a place's layers, the lowest first; none where it is a tmpfs yet.

        Raises:
            UnsupportedError: what is there is nothing that was made here.
        """
        found: dict[int, str] = {}
        with contextlib.suppress(FileNotFoundError), owned(self.holder()) as holder:
            for name in os.listdir(holder):
                number, depth, *_ = name.split("-")
                if int(number) == place.number:
                    found[int(depth)] = name
        wanted = statfs.OVERLAYFS_SUPER_MAGIC if found else statfs.TMPFS_MAGIC
        with owned(self._open(place)) as top:
            if statfs.kind(top) != wanted or sorted(found) != [*range(len(found))]:
                raise UnsupportedError(f"{place.path} is no directory in memory of the engine's")
        return [found[depth] for depth in sorted(found)]

    def cover(self, top: int, overlay: int, below: "Sequence[str]") -> None:
        """Mount an overlay over a place; what else is mounted within it stays where it is.

        To be called where the mounts are the container's.
        """
        points = [path.lstrip("/") for path in below]
        with ExitStack() as held:
            trees = []
            for path in points:
                with owned(openat2.openat2(self.root, path, os.O_PATH, resolve=_BESIDE)) as there:
                    flags = mount.OPEN_TREE_CLONE | libc.AT_RECURSIVE
                    trees.append(held.enter_context(owned(mount.open_tree(there, "", flags))))
            mount.move_mount(overlay, top)
            for path, tree in zip(points, trees, strict=True):
                with owned(openat2.openat2(self.root, path, os.O_PATH, resolve=_BESIDE)) as there:
                    mount.move_mount(tree, there)

    def is_empty(self, place: _Place, layers: "Sequence[str]") -> bool:
        """Whether nothing was written to a place since it was parted, or ever."""
        if not layers:
            with owned(
                openat2.openat2(self.root, place.path.lstrip("/"), _LIST, resolve=_BESIDE)
            ) as directory:
                return not os.listdir(directory)
        with (
            owned(self.holder()) as holder,
            owned(os.open(layers[-1], _LIST, dir_fd=holder)) as directory,
        ):
            return not os.listdir(directory)

    def cloned_twice(
        self, place: _Place, layers: list[str], held: ExitStack
    ) -> tuple[list[int], list[int]]:
        """Clone a place's layers, or what is mounted there where it has none yet."""

        def clone() -> list[int]:
            if not layers:
                with owned(self._open(place)) as top:
                    return [mount.open_tree(top, "", mount.OPEN_TREE_CLONE) for _ in range(2)]
            with owned(self.holder()) as holder:
                return [mount.open_tree(holder, name, mount.OPEN_TREE_CLONE) for name in layers * 2]

        trees = [held.enter_context(owned(tree)) for tree in self.within(clone)]
        half = len(trees) // 2
        return trees[:half], trees[half:]


def _places(container: "Container") -> "list[_Place]":
    wanted = container.record["HostConfig"].get("Tmpfs") or {}
    return [
        _Place(number, os.path.normpath(path), _room(wanted[path]))
        for number, path in enumerate(sorted(wanted))
    ]


def _room(options: str) -> str:
    """How large a tmpfs may become, as the file system's options, of those of ``--tmpfs``."""
    said = [option.partition("=") for option in options.split(",")]
    room = [f"{key}={value}" for key, _, value in said if key in {"size", "nr_blocks", "mpol"}]
    files = [value for key, _, value in said if key == "nr_inodes"]
    if files and files[-1].isdecimal() and int(files[-1]):
        files = [str(int(files[-1]) + _FILES_BESIDES)]
    return ",".join(["mode=0700", *room, *(f"nr_inodes={value}" for value in files[-1:])])


def _mounts_below(container: "Container") -> dict[str, list[str]]:
    """Returns what else is mounted within each place, without what is within that."""
    with open(
        f"/proc/{container.init_pid}/mountinfo", encoding="utf-8", errors="surrogateescape"
    ) as file:
        points = sorted({procfs.unescape(line.split()[4]) for line in file})
    places = [place.path for place in _places(container)]
    found: dict[str, list[str]] = {path: [] for path in places}
    for path in places:
        for point in points:
            if not point.startswith(f"{path}/"):
                continue
            if point in found:
                raise UnsupportedError(f"{point} lies within {path}")
            if not any(point.startswith(f"{other}/") for other in found[path]):
                found[path].append(point)
    return found


def _check_alone(engine: "Engine", container: "Container") -> None:
    others = {*engine.containers.cgroup(container).processes()} - {container.init_pid}
    if others:
        raise BusyError(
            f"{len(others)} processes are in container {container.name}", "wait until they end"
        )


def _stacked(
    engine: "Engine", container: "Container", inside: _Inside, place: _Place,
    trees: "Sequence[int]", held: ExitStack, *, own: bool = False,
) -> tuple[int, int]:  # fmt: skip
    """Stack an empty tmpfs on layers, as a container sees them.

    Args:
        engine: the engine.
        container: whose it is going to be.
        inside: of it.
        place: where it is going to be.
        trees: the layers, the lowest first, which are used up.
        held: closes what is returned.
        own: whether the lowest has the container's ids as it is.

    Returns:
        The overlay, and where it is written to, as detached trees.
    """
    snapshotter = engine.images.snapshotter
    aside = f"{engine.settings.container_directory(container.id)}/branches"
    os.makedirs(aside, 0o700, exist_ok=True)
    attributes = os.fstatvfs(inside.opened(place, held)).f_flag & _KEPT

    def work() -> tuple[int, int]:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.mount("", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
        for where, data in ((aside, _SMALL), (f"{aside}/true", place.data)):
            os.makedirs(where, 0o700, exist_ok=True)
            mount.mount("tmpfs", where, "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, data)
        os.mkdir(f"{aside}/true/upper", 0o755)
        os.mkdir(f"{aside}/true/work", 0o700)
        lower: list[str] = []
        for depth, tree in enumerate(trees):
            _attach(tree, f"{aside}/{depth}", None if own and not depth else inside.users)
            lower.insert(0, f"{aside}/{depth}")
        with owned(mount.open_tree(libc.AT_FDCWD, f"{aside}/true", mount.OPEN_TREE_CLONE)) as seen:
            _attach(seen, f"{aside}/seen", inside.users)
        make_like(f"{aside}/seen/upper", lower[0])
        writing = mount.open_tree(libc.AT_FDCWD, f"{aside}/true/upper", mount.OPEN_TREE_CLONE)
        try:
            with fsuid.acting_as(*inside.owner):
                return snapshotter.over(f"{aside}/seen", *lower, redirects=True), writing
        except BaseException:
            os.close(writing)
            raise

    overlay, writing = (held.enter_context(owned(tree)) for tree in apart(work))
    mount.mount_setattr(overlay, set_attributes=attributes)
    return overlay, writing


def _attach(tree: int, where: str, users: int | None) -> None:
    """Mount a tree somewhere, with ids as a user namespace has them."""
    if users is not None:
        mount.mount_setattr(tree, set_attributes=mount.MOUNT_ATTR_IDMAP, user_namespace=users)
    os.mkdir(where, 0o700)
    mount.move_mount(tree, libc.AT_FDCWD, where)


def _lay(
    engine: "Engine", container: "Container", inside: _Inside, parts: "Sequence[_Part]"
) -> None:
    """Mount overlays over what becomes layers; to be called where the mounts are the container's.

    Raises:
        BusyError: somebody is in the container, and all is as before.
    """
    done: list[int] = []
    with owned(inside.holder(make=True)) as holder:
        try:
            for one in parts:
                mount.mount_setattr(one.top, set_attributes=mount.MOUNT_ATTR_RDONLY)
                done.append(one.top)
            _check_alone(engine, container)
        except BaseException as error:
            for top in done:
                mount.mount_setattr(top, clear_attributes=mount.MOUNT_ATTR_RDONLY)
            if isinstance(error, SyscallError) and error.errno == errno.EBUSY:
                raise BusyError(f"a file of {container.name} is being written") from error
            raise
        # Who is killed from here on leaves a container that cannot be parted again, and no worse.
        for one in parts:
            inside.cover(one.top, one.overlay, one.below)
            depth = len(one.layers)
            if not one.layers:
                _keep(holder, f"{one.place.number}-0-{_OWN}", one.first)
                depth = 1
            _keep(holder, f"{one.place.number}-{depth}", one.writing)


def _keep(holder: int, name: str, tree: int) -> None:
    """Have a tree among the layers."""
    mount.mount_setattr(tree, set_attributes=mount.MOUNT_ATTR_RDONLY)
    os.mkdir(name, 0o700, dir_fd=holder)
    with owned(os.open(name, _LOOK, dir_fd=holder)) as point:
        mount.move_mount(tree, point)


def _tmpfs(data: str) -> int:
    """Make a tmpfs; returns it as a detached tree."""
    with owned(mount.fsopen("tmpfs")) as context:
        for option in data.split(","):
            key, _, value = option.partition("=")
            mount.fsconfig(context, key, value)
        return mount.fsmount(context, _KEPT)


def _namespace(pid: int, kind: str) -> int:
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
