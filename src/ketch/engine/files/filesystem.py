"""A container's files as its program sees them, whether it runs or not.

Of a running container they are what its first process has for a root. A stopped one's are mounted,
volumes included, in a mount namespace that a thread of this process has for as long as they are
needed: nothing shows in the host's mount table, and nothing is left whatever dies. Meanwhile it
cannot be started.
"""

import contextlib
import os
import stat
import threading

from ketch.engine.files import at_rest, shared_root, telling
from ketch.engine.processes import open_process
from ketch.engine.volumes import mounts, sources
from ketch.errors import ConflictError, KetchError, NotFoundError, UnavailableError, in_words
from ketch.linux import beneath, libc, mount, namespaces, procfs
from ketch.linux.apart import apart
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.engine.volumes.records import Volume
    from ketch.spec.container import MountPoint


@contextlib.contextmanager
def opened(engine: "Engine", container: "Container") -> "Iterator[int]":
    """Open the root of a container's files; one that does not run is not started meanwhile.

    Args:
        engine: where it is.
        container: the container.

    Returns:
        A descriptor, from which paths lead into volumes too, for the length of the block.

    Raises:
        UnavailableError: it cannot be mounted.
        ConflictError: the container ended meanwhile.
    """
    with contextlib.ExitStack() as held:
        if not _has_process(container):
            held.enter_context(at_rest.kept(engine.settings.container_directory(container.id)))
            container = engine.containers.read(container.id)
        if not _has_process(container):
            yield held.enter_context(_Mounted(engine, container))
            return
        held.close()
        root = _root_of_process(container)
        held.callback(os.close, root)
        engine.settings.tell(telling.of_process, container)
        yield root


@contextlib.contextmanager
def own_layer(engine: "Engine", container: "Container") -> "Iterator[tuple[int, Container]]":
    """Open the root of a container's own files, without what is mounted in it.

    Of a running one it is a copy of its own root mount: another mount of the same directories would
    be one too many for the kernel, which says so in its log. It is not started again meanwhile.

    Args:
        engine: where it is.
        container: the container.

    Returns:
        For the length of the block a descriptor, and the container as it is now.

    Raises:
        UnavailableError: it cannot be mounted.
        ConflictError: the container ended meanwhile.
    """
    directory = engine.settings.container_directory(container.id)
    with at_rest.kept(directory):
        container = engine.containers.read(container.id)
        if not _has_process(container):
            with _Mounted(engine, container, bare=True) as root:
                yield root, container
            return
        with owned(_copy_of_root(container)) as root:
            engine.settings.tell(engine.images.snapshotter.describe_view, directory)
            yield root, container
            engine.settings.tell(telling.of_unmounting, directory)


def tree_of(engine: "Engine", container: "Container") -> int:
    """Returns a container's own root without what is mounted in it, detached; the caller owns it.

    The arguments and failures are those of ``own_layer``; one at rest may be started afterwards.
    """
    directory = engine.settings.container_directory(container.id)
    with at_rest.kept(directory):
        container = engine.containers.read(container.id)
        if _has_process(container):
            tree = _copy_of_root(container)
            engine.settings.tell(telling.of_copied_root, container)
            return tree
        snapshotter = engine.images.snapshotter
        tree = shared_root.copy_or_mount(snapshotter, directory)
        engine.settings.tell(snapshotter.describe, directory, f"container {container.name}'s image")
        return tree


def _copy_of_root(container: "Container") -> int:
    """Returns a detached copy of the mount that a running container has for a root.

    A mount can be copied from within its namespace alone, so a thread goes there, and ends there.
    """

    def work(pidfd: int) -> int:
        namespaces.unshare(namespaces.CLONE_FS)
        namespaces.setns(pidfd, namespaces.CLONE_NEWNS)
        return mount.open_tree(libc.AT_FDCWD, "/", mount.OPEN_TREE_CLONE)

    with open_process(container.init_pid, container.init_start_time) as pidfd:
        if pidfd is None:
            raise _ended(container)
        try:
            return apart(lambda: work(pidfd))
        except ProcessLookupError as error:
            raise _ended(container) from error
        except OSError as error:
            raise UnavailableError(
                f"cannot open the container's files: {in_words(error)}"
            ) from error


def volume_at(container: "Container", path: str) -> "dict[str, Any] | None":
    """Returns the mount of a container's that a path lies in, None where it is in its own layer.

    Args:
        container: the container.
        path: absolute, without symlinks.
    """
    best: dict[str, Any] | None = None
    for point in container.record.get("Mounts", ()):
        place = point["Destination"].rstrip("/")
        covers = path == place or path.startswith(f"{place}/")
        if covers and (best is None or len(place) > len(best["Destination"])):
            best = point
    return best


def in_tmpfs(container: "Container", path: str) -> bool:
    """Whether a path lies in a tmpfs that a container was given, and that is there.

    Args:
        container: the container.
        path: absolute, without symlinks.
    """
    if not _has_process(container):
        return False
    places = [place.rstrip("/") for place in container.record["HostConfig"].get("Tmpfs") or ()]
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _has_process(container: "Container") -> bool:
    return container.is_active and bool(container.init_pid)


def _root_of_process(container: "Container") -> int:
    try:
        root = os.open(
            f"/proc/{container.init_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        )
    except OSError as error:
        raise _ended(container) from error
    # The process that was opened is the container's only if that still lives.
    if not procfs.is_running(container.init_pid, container.init_start_time):
        os.close(root)
        raise _ended(container)
    return root


def _ended(container: "Container") -> ConflictError:
    return ConflictError(f"container {container.id} ended meanwhile", "try again")


class _Mounted:
    """A stopped container's files, mounted for a ``with`` block.

    Args:
        engine: where it is.
        container: the container.
        bare: without what is mounted in them, and with no mount points made for that.
    """

    def __init__(self, engine: "Engine", container: "Container", *, bare: bool = False) -> None:
        self._engine = engine
        self._container = container
        self._points = [] if bare else container.record.get("Mounts", [])
        self._images: dict[int, str] = {}
        self._volumes: dict[int, Volume] = {}
        self._bound: list[int] = []
        self._root = -1
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> int:
        # The database is this thread's.
        for number, point in enumerate(self._points):
            if point["Type"] == "image":
                directory = sources.image_directory(self._engine, self._container, number, point)
                self._images[number] = directory
            elif point["Type"] == "volume":
                with contextlib.suppress(NotFoundError):  # a start makes it anew
                    self._volumes[number] = self._engine.volumes.find(point["Name"])
        try:
            self._thread.start()
        except RuntimeError as error:
            raise UnavailableError(f"cannot start a thread: {error}") from error
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        self._tell()
        return self._root

    def _tell(self) -> None:
        """Tell what has been mounted, to who asks for that."""
        settings, container = self._engine.settings, self._container
        directory = settings.container_directory(container.id)
        snapshotter = self._engine.images.snapshotter
        settings.tell(snapshotter.describe, directory, container.image_reference)
        for number in self._bound:
            settings.tell(telling.of_mount, self._points[number], directory)

    def __exit__(self, *_: object) -> None:
        os.close(self._root)
        self._done.set()
        self._thread.join()
        settings = self._engine.settings
        settings.tell(telling.of_unmounting, settings.container_directory(self._container.id))

    def _run(self) -> None:
        try:
            with contextlib.ExitStack() as held:
                self._root = self._mount(held)
                self._ready.set()
                self._done.wait()
        except KetchError as error:
            self._error = error
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._error = UnavailableError(f"cannot mount the container's files: {in_words(error)}")
            self._error.__cause__ = error
        self._ready.set()

    def _mount(self, held: contextlib.ExitStack) -> int:
        """Mount it all in a namespace of this thread's own, which goes with the thread."""
        directory = self._engine.settings.container_directory(self._container.id)
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.mount("", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
        place = held.enter_context(shared_root.mounted(self._engine.images.snapshotter, directory))
        root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for number, point in sorted(
                enumerate(self._points), key=lambda pair: pair[1]["Destination"].count("/")
            ):
                self._bind(root, number, point)
        except BaseException:
            os.close(root)
            raise
        return root

    def _bind(self, root: int, number: int, point: "MountPoint") -> None:
        """Mount a volume, an image or a file of the host's at its place, as a start would."""
        tree = self._source(number, point)
        if tree is None:
            return  # it is made, or missed, at the next start
        with owned(tree):
            is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
            make = beneath.make_directories if is_directory else beneath.make_file
            with owned(make(root, point["Destination"])) as target:
                if not point.get("RW", True):
                    mount.mount_setattr(
                        tree, set_attributes=mount.MOUNT_ATTR_RDONLY, recursive=True
                    )
                mount.move_mount(tree, target)
        self._bound.append(number)

    def _source(self, number: int, point: "MountPoint") -> int | None:
        """Returns a detached tree of what is mounted, None where there is no such thing."""
        if point["Type"] == "image":
            return sources.of_image(self._engine.images.snapshotter, self._images[number], point)
        if point["Type"] == "volume":
            if number in self._volumes:
                mounts.mount_(self._engine.settings, self._volumes[number])
            if sources.subpath(point):
                return sources.part_of_volume(point)
        elif point["Type"] != "bind":
            return None
        flags = mount.OPEN_TREE_CLONE
        if not point["Spec"].get("BindOptions", {}).get("NonRecursive"):
            flags |= libc.AT_RECURSIVE
        try:
            return mount.open_tree(libc.AT_FDCWD, point.get("Source", ""), flags)
        except (FileNotFoundError, NotADirectoryError):
            return None
