"""Snapshots: unpacked layers, each once, and containers' root file systems stacked on them.

A *committed* snapshot is one layer unpacked on top of the ones below it. It is named by its chain
ID, never changes and is shared by all images and containers that have these layers. A container's
root is *prepared* once on a stack of committed snapshots, in a directory that the container owns,
and *mounted* for each start as a detached mount: it stands in nobody's mount table until the
container's init takes it along, and goes away with the last descriptor.

``Snapshotter`` is what every way to do this offers. ``OverlaySnapshotter`` stacks with overlayfs:

    ROOT/snapshots/ALGORITHM/HEX/diff    what the layer adds, whiteouts in overlayfs's form
    ROOT/snapshots/ALGORITHM/HEX/size    bytes of its files, as text
    ROOT/snapshots/ingest/               being unpacked, or being removed
    DIRECTORY/layers                     chain IDs below a container, the lowest first
    DIRECTORY/upper, DIRECTORY/work      what the container changed, and overlayfs's own

Who adds holds ``lock.shared``, who removes ``lock.exclusive``: see there.
"""

import contextlib
import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from ketch.errors import (
    KetchError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
    UnsupportedError,
)
from ketch.images import lock
from ketch.linux import libc, mount
from ketch.linux.removetree import remove_tree
from ketch.linux.syncfs import syncfs
from ketch.spec import digest as digests

# "lowerdir+", one layer a call: Linux 6.8. (Before 6.5 overlayfs would swallow it and complain
# only when the file system is created, so the release is asked and not the kernel.)
_APPENDS_SINCE = (6, 8)
_FSCONFIG_STRING_MAX = 255  # fsconfig(2)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Ingest:
    """A snapshot that is being unpacked.

    Attributes:
        directory: descriptor of the empty directory to unpack into; it lives as long as the block.
        lower: paths of the trees below it, topmost first.
    """

    __slots__ = ("_path", "_snapshotter", "directory", "lower")

    def __init__(
        self, snapshotter: "Snapshotter", path: str, directory: int, lower: Sequence[str]
    ) -> None:
        self._snapshotter = snapshotter
        self._path = path
        self.directory = directory
        self.lower = lower

    def commit(self, chain_id: str, size_bytes: int) -> None:
        """Give the snapshot its name; where one of that name exists already, that one stays.

        Args:
            chain_id: of this layer and those below it.
            size_bytes: bytes of the layer's files.
        """
        self._snapshotter.commit(self._path, chain_id, size_bytes)


class Snapshotter(ABC):
    """A way to keep unpacked layers and to stack them.

    Args:
        root: the engine's directory.

    Attributes:
        name: what Docker calls it.
    """

    __slots__ = ("root",)

    name = ""

    def __init__(self, root: str) -> None:
        self.root = root

    @abstractmethod
    @contextlib.contextmanager
    def ingest(self, below: Sequence[str]) -> Iterator[Ingest]:
        """Begin a snapshot; without ``Ingest.commit`` the block leaves nothing.

        Args:
            below: chain IDs of the committed snapshots below it, the lowest first.

        Raises:
            NotFoundError: one of those is missing.
            UnavailableError: the disk is full or failing.
        """

    @abstractmethod
    def commit(self, path: str, chain_id: str, size_bytes: int) -> None:
        """Called by ``Ingest.commit``."""

    @abstractmethod
    def prepare(self, directory: str, chain_ids: Sequence[str]) -> None:
        """Make the writable root of a container, on top of some layers.

        Args:
            directory: the container's own directory, which exists.
            chain_ids: of each layer, the lowest first; those snapshots are kept from now on as
                long as the directory is there.

        Raises:
            NotFoundError: a snapshot is missing.
            UnavailableError: the disk is full or failing.
        """

    @abstractmethod
    def mount(self, directory: str) -> int:
        """Mount a prepared root.

        Args:
            directory: as given to ``prepare``.

        Returns:
            A descriptor of the detached mount, which the caller owns.

        Raises:
            UnsupportedError: the kernel or the file system below cannot do it.
            PermissionDeniedError: the caller may not mount.
            UnavailableError: a layer is missing.
        """

    @abstractmethod
    def prepared_on(self, directory: str) -> list[str]:
        """Returns the chain IDs that a container's root was prepared on; none if it never was."""

    def description(
        self, chain_ids: Sequence[str], directory: str = ""
    ) -> "dict[str, str | dict[str, str] | None]":
        """Returns what ``inspect`` shows of where an image's or a container's files are.

        Args:
            chain_ids: of its layers, the lowest first.
            directory: the container's, as given to ``prepare``, or empty for an image.
        """
        trees = [f"{self._path(chain)}/diff" for chain in reversed(chain_ids)]
        if directory:
            data = {"LowerDir": ":".join(trees), "UpperDir": f"{directory}/upper",
                    "WorkDir": f"{directory}/work"}  # fmt: skip
        elif trees:
            data = {"LowerDir": ":".join(trees[1:]), "UpperDir": trees[0]}
        else:
            data = {}
        return {"Data": {key: value for key, value in data.items() if value}, "Name": self.name}

    def exists(self, chain_id: str) -> bool:
        """Whether a snapshot is committed."""
        return os.path.exists(self._path(chain_id))

    def size_bytes(self, chain_id: str) -> int:
        """Returns bytes of the files in one committed layer, without those below it.

        Raises:
            NotFoundError: there is no such snapshot.
        """
        try:
            with open(f"{self._path(chain_id)}/size", encoding="utf-8") as file:
                return int(file.read())
        except FileNotFoundError as error:
            raise _missing(chain_id) from error

    def chain_ids(self) -> Iterator[str]:
        """Yield the chain ID of every committed snapshot."""
        for algorithm in _names(f"{self.root}/snapshots"):
            for digits in _names(f"{self.root}/snapshots/{algorithm}"):
                if digests.valid(f"{algorithm}:{digits}"):
                    yield f"{algorithm}:{digits}"

    def remove(self, chain_id: str) -> None:
        """Remove a committed snapshot, if it is there; ``lock.exclusive`` must be held.

        It loses its name first, so that half a snapshot is never taken for a whole one.
        """
        aside = self._new_path()
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path(chain_id), aside)
            remove_tree(aside)

    def remove_unfinished(self) -> None:
        """Remove what dead processes were unpacking or removing; needs ``lock.exclusive``."""
        for name in _names(f"{self.root}/snapshots/ingest"):
            remove_tree(f"{self.root}/snapshots/ingest/{name}")

    def _path(self, chain_id: str) -> str:
        algorithm, digits = digests.split(chain_id)
        return f"{self.root}/snapshots/{algorithm}/{digits}"

    def _new_path(self) -> str:
        os.makedirs(f"{self.root}/snapshots/ingest", 0o700, exist_ok=True)
        return f"{self.root}/snapshots/ingest/{os.urandom(12).hex()}"


class OverlaySnapshotter(Snapshotter):
    """Layers stacked by the kernel's overlayfs.

    Args:
        root: the engine's directory.
        appends: whether overlayfs takes its layers one at a time; asked of the kernel when None.
    """

    __slots__ = ("_appends",)

    name = "overlay2"

    def __init__(self, root: str, *, appends: bool | None = None) -> None:
        super().__init__(root)
        self._appends = _release() >= _APPENDS_SINCE if appends is None else appends

    @contextlib.contextmanager
    def ingest(self, below: Sequence[str]) -> Iterator[Ingest]:
        """See ``Snapshotter.ingest``."""
        lower = [self._tree(chain_id) for chain_id in reversed(below)]
        path = self._new_path()
        try:
            os.makedirs(f"{path}/diff", 0o755)
            directory = os.open(f"{path}/diff", _DIRECTORY)
            try:
                yield Ingest(self, path, directory, lower)
            finally:
                os.close(directory)
        finally:
            remove_tree(path)

    def commit(self, path: str, chain_id: str, size_bytes: int) -> None:
        """See ``Ingest.commit``."""
        target = self._path(chain_id)
        try:
            with open(f"{path}/size", "x", encoding="utf-8") as file:
                file.write(f"{size_bytes}\n")
            os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
            descriptor = os.open(os.path.dirname(target), _DIRECTORY)
            try:
                syncfs(descriptor)
                try:
                    os.rename(path, target)
                except OSError as error:
                    if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                        raise
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unwritable(self.root, error) from error

    def prepare(self, directory: str, chain_ids: Sequence[str]) -> None:
        """See ``Snapshotter.prepare``."""
        with lock.shared(self.root):
            trees = [self._tree(chain_id) for chain_id in chain_ids]
            try:
                with open(f"{directory}/layers", "x", encoding="utf-8") as file:
                    file.write("".join(f"{chain_id}\n" for chain_id in chain_ids))
                os.mkdir(f"{directory}/work", 0o700)
                upper = f"{directory}/upper"
                os.mkdir(upper, 0o755)
                if trees:
                    # The topmost root is the one that shows.
                    status = os.stat(trees[-1])
                    os.chown(upper, status.st_uid, status.st_gid)
                    os.chmod(upper, stat.S_IMODE(status.st_mode))
                    os.utime(upper, ns=(status.st_atime_ns, status.st_mtime_ns))
                else:
                    os.mkdir(f"{directory}/empty", 0o755)  # overlayfs wants a layer below
            except OSError as error:
                raise _unwritable(directory, error) from error

    def prepared_on(self, directory: str) -> list[str]:
        """See ``Snapshotter.prepared_on``."""
        try:
            with open(f"{directory}/layers", encoding="utf-8") as file:
                return file.read().split()
        except FileNotFoundError:
            return []

    def mount(self, directory: str) -> int:
        """See ``Snapshotter.mount``."""
        lower = [f"{self._path(chain)}/diff" for chain in reversed(self.prepared_on(directory))]
        lower = lower or [f"{directory}/empty"]
        longest = max(map(len, map(os.fsencode, [*lower, _escaped(f"{directory}/upper")])))
        try:
            if self._appends and longest <= _FSCONFIG_STRING_MAX:
                return _mount_appending(directory, lower)
            return _mount_by_short_names(directory, lower)
        except OSError as error:
            raise _unmountable(directory, lower, error) from error

    def _tree(self, chain_id: str) -> str:
        if not self.exists(chain_id):
            raise _missing(chain_id)
        return f"{self._path(chain_id)}/diff"


# Whatever the kernel's defaults are: no redirects between directories, which a layer could forge
# and a diff would have to follow, and no files whose content is in another layer.
_OPTIONS = {"redirect_dir": "nofollow", "metacopy": "off", "index": "off"}


def _mount_appending(directory: str, lower: Sequence[str]) -> int:
    context = mount.fsopen("overlay")
    try:
        mount.fsconfig(context, "source", "overlay")
        for tree in lower:
            mount.fsconfig(context, "lowerdir+", tree)
        mount.fsconfig(context, "upperdir", _escaped(f"{directory}/upper"))
        mount.fsconfig(context, "workdir", _escaped(f"{directory}/work"))
        for key, value in _OPTIONS.items():
            mount.fsconfig(context, key, value)
        return mount.fsmount(context)
    finally:
        os.close(context)


def _escaped(path: str) -> str:
    """Returns a path as overlayfs reads upperdir and workdir; lowerdir+ it takes as it is."""
    return path.replace("\\", "\\\\")


def _mount_by_short_names(directory: str, lower: Sequence[str]) -> int:
    """Mount with one option for all layers, which older kernels want.

    fsconfig(2) takes 255 bytes, mount(2) a page for all options. So the layers get numbers as
    names, symlinks in a directory that is the working one for the moment. Above some 80 layers
    the mount cannot be built detached: it is made, cloned, and its visible half detached.
    """
    names = f"{directory}/lower"
    _remove_short_names(names)  # of a process that was killed between the lines below
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.mkdir(names, 0o700)
        for number, tree in enumerate(lower):
            os.symlink(tree, f"{names}/{number}")
        os.chdir(names)
        options = {
            "lowerdir": ":".join(map(str, range(len(lower)))),
            "upperdir": "../upper",
            "workdir": "../work",
            **_OPTIONS,
        }
        if len(options["lowerdir"]) > _FSCONFIG_STRING_MAX:
            os.mkdir("mounted", 0o700)
            data = ",".join(f"{key}={value}" for key, value in options.items())
            mount.mount("overlay", "mounted", "overlay", data=data)
            return mount.open_tree(libc.AT_FDCWD, "mounted", mount.OPEN_TREE_CLONE)
        context = mount.fsopen("overlay")
        try:
            mount.fsconfig(context, "source", "overlay")
            for key, value in options.items():
                mount.fsconfig(context, key, value)
            return mount.fsmount(context)
        finally:
            os.close(context)
    finally:
        os.fchdir(here)
        os.close(here)
        _remove_short_names(names)


def _remove_short_names(names: str) -> None:
    if os.path.lexists(names):
        with contextlib.suppress(OSError):  # mostly nothing is mounted there
            mount.umount2(f"{names}/mounted", mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
        remove_tree(names)


def _release() -> tuple[int, ...]:
    major, minor = os.uname().release.split(".", 2)[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _missing(chain_id: str) -> NotFoundError:
    return NotFoundError(f"layer {chain_id} is not unpacked", "pull or import the image again")


def _unwritable(place: str, error: OSError) -> UnavailableError:
    hint = "free some space" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
    return UnavailableError(f"cannot write to {place}: {os.strerror(error.errno or 0)}", hint)


def _unmountable(directory: str, lower: Sequence[str], error: OSError) -> KetchError:
    message = f"cannot mount the root file system of {directory}: {error.strerror}"
    if error.errno == errno.ENODEV:
        return UnsupportedError(
            "this kernel has no overlay file system", "load it with: modprobe overlay"
        )
    if error.errno == errno.EPERM:
        return PermissionDeniedError(message, "mounting needs root")
    absent = [tree for tree in [*lower, f"{directory}/upper"] if not os.path.isdir(tree)]
    if absent:
        return UnavailableError(
            f"cannot mount the root file system of {directory}: {absent[0]} is missing",
            "the image must be pulled or imported again",
        )
    return UnsupportedError(
        message, "overlayfs needs its directories on a file system such as ext4, xfs or tmpfs"
    )
