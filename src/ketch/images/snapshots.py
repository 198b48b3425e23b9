"""Snapshots: unpacked layers, each once, and containers' root file systems stacked on them.

A *committed* snapshot is one layer unpacked on top of the ones below it. It is named by its chain
ID, never changes and is shared by all images and containers that have these layers. A container's
root is *prepared* once on a stack of committed snapshots, in a directory that the container owns,
and *mounted* for each start as a detached mount: it stands in nobody's mount table until the
container's init takes it along, and goes away with the last descriptor.

``Snapshotter`` is what every way to do this offers (``drivers`` knows them). Committed snapshots
are the same for all, the tree that a container writes to is not:

    ROOT/snapshots/ALGORITHM/HEX/diff    what the layer adds, whiteouts in overlayfs's form
    ROOT/snapshots/ALGORITHM/HEX/size    bytes of its files, as text
    ROOT/snapshots/ALGORITHM/HEX/unsettled  symlink to the boot's id: may not be on the disk yet
    ROOT/snapshots/ingest/               being unpacked, or being removed
    ROOT/snapshots/base/                 what every container has where its image lacks it
    ROOT/snapshots/ALGORITHM/HEX/diff-*  the same with other owners: see ``shifted``
    DIRECTORY/layers                     chain IDs below a container, the lowest first
    DIRECTORY/ids                        which ids its files have, where these are not the images'
    DIRECTORY/nothing                    an empty directory, where there is nothing of base
    DIRECTORY/upper, DIRECTORY/work      what the container changed, and overlayfs's own

A committed snapshot is on the disk, whole, before it gets its name. One that was *adopted* is not:
a build makes many, and to wait for the disk after each would take longer than its steps. It says
so itself, and in which boot it was made. Until that boot ends it is as good as any; whoever puts it
on record for good settles it first, and what a power cut has found unsettled is no snapshot at all.

Who adds holds ``lock.shared``, who removes ``lock.exclusive``: see there.
"""

import contextlib
import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from ketch.errors import NotFoundError, UnavailableError, UnsupportedError
from ketch.images import shifted
from ketch.linux import inodeflags, procfs
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned
from ketch.linux.syncfs import syncfs
from ketch.spec import digest as digests
from ketch.spec.image import LAYERS_MAX
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.images.layered import Change, Directory
    from ketch.images.shifted import Ids

BASE = "base"
"""Among the snapshots, what is below all layers."""

# In the directory of a bare root: what it lies on where it has no layers, since overlayfs wants
# something.
_NOTHING = "nothing"
_UNSETTLED = "unsettled"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Ingest:
    """A snapshot that is being unpacked.

    Attributes:
        directory: descriptor of the empty directory to unpack into; it lives as long as the block.
        lower: paths of the trees below it, topmost first.
        hidden: takes the paths that its whiteouts hide, where somebody asks for them.
    """

    __slots__ = ("_path", "_snapshotter", "directory", "hidden", "lower")

    def __init__(
        self, snapshotter: "Snapshotter", path: str, directory: int, lower: Sequence[str]
    ) -> None:
        self._snapshotter = snapshotter
        self._path = path
        self.directory = directory
        self.lower = lower
        self.hidden: list[bytes] | None = None

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
        markers: see ``layered.changes``.
        adopts: whether the tree that a container writes to can become a snapshot as it is.
    """

    __slots__ = ("root",)

    name = ""
    markers = False
    adopts = False

    def __init__(self, root: str) -> None:
        self.root = root

    @contextlib.contextmanager
    def ingest(self, below: Sequence[str]) -> Iterator[Ingest]:
        """Begin a snapshot; without ``Ingest.commit`` the block leaves nothing.

        Args:
            below: chain IDs of the committed snapshots below it, the lowest first.

        Raises:
            NotFoundError: one of those is missing.
            UnavailableError: the disk is full or failing.
        """
        lower = [self._tree(chain_id) for chain_id in reversed(below)]
        path = self._new_path()
        try:
            os.makedirs(f"{path}/diff", 0o755)
            with owned(os.open(f"{path}/diff", _DIRECTORY)) as directory:
                yield Ingest(self, path, directory, lower)
        finally:
            remove_tree(path)

    def commit(self, path: str, chain_id: str, size_bytes: int) -> None:
        """Called by ``Ingest.commit``."""
        target = self.path(chain_id)
        try:
            with open(f"{path}/size", "x", encoding="utf-8") as file:
                file.write(f"{size_bytes}\n")
            os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
            with owned(os.open(os.path.dirname(target), _DIRECTORY)) as descriptor:
                syncfs(descriptor)
                is_named = self._give_name(path, chain_id)
                os.fsync(descriptor)
        except OSError as error:
            raise unwritable(self.root, error) from error
        if not is_named:
            self.settle([chain_id])

    def adopt(self, directory: str, chain_id: str, size_bytes: int) -> None:
        """Make a snapshot of what was written to a prepared root, which is no root any more.

        Nothing is copied, and nothing waits for the disk: see ``settle``. Where one of that name
        exists already, that one stays. Only where ``adopts``.

        Args:
            directory: as given to ``prepare``; it is mounted nowhere.
            chain_id: of this layer and those that it was prepared on.
            size_bytes: bytes of the layer's files.

        Raises:
            UnavailableError: the disk is full or failing.
        """
        path = self._new_path()
        try:
            try:
                os.mkdir(path, 0o700)
                os.rename(f"{directory}/upper", f"{path}/diff")
                self._commit_unsettled(path, chain_id, size_bytes)
            finally:
                remove_tree(path)
        except OSError as error:
            raise unwritable(self.root, error) from error

    def link(self, source: str, chain_id: str, below: str = "") -> None:
        """Make a snapshot of another's layer, on a stack of its own; not settled either.

        The files are those of the other one, by hard links: neither ever changes. The root is like
        that of what it lies on.

        Args:
            source: chain ID of a committed snapshot.
            chain_id: of the same layer on another stack.
            below: chain ID of that stack, empty for none.

        Raises:
            NotFoundError: there is no such snapshot.
            UnavailableError: the disk is full or failing.
        """
        tree = self._tree(source)
        path = self._new_path()
        try:
            try:
                os.mkdir(path, 0o700)
                link_tree(tree, f"{path}/diff")
                if below:
                    make_like(f"{path}/diff", self._tree(below))
                self._commit_unsettled(path, chain_id, self.size_bytes(source))
            finally:
                remove_tree(path)
        except OSError as error:
            raise unwritable(self.root, error) from error

    def settle(self, chain_ids: Iterable[str]) -> None:
        """Have snapshots on the disk, whole: to be called before they are on record for good.

        It waits for the disk once, and only where one of them is not settled.

        Raises:
            UnavailableError: the disk is failing.
        """
        marks = [f"{self.path(chain_id)}/{_UNSETTLED}" for chain_id in chain_ids]
        waiting = [mark for mark in marks if os.path.lexists(mark)]
        if not waiting:
            return
        try:
            with owned(os.open(f"{self.root}/snapshots", _DIRECTORY)) as descriptor:
                syncfs(descriptor)
                for mark in waiting:
                    with contextlib.suppress(FileNotFoundError):  # somebody else's settling
                        os.unlink(mark)
        except OSError as error:
            raise unwritable(self.root, error) from error

    def _commit_unsettled(self, path: str, chain_id: str, size_bytes: int) -> None:
        with open(f"{path}/size", "x", encoding="utf-8") as file:
            file.write(f"{size_bytes}\n")
        # A link's text is part of its inode: it is there whenever the name is.
        os.symlink(procfs.boot_id(), f"{path}/{_UNSETTLED}")
        os.makedirs(os.path.dirname(self.path(chain_id)), 0o700, exist_ok=True)
        self._give_name(path, chain_id)

    def _give_name(self, path: str, chain_id: str) -> bool:
        """Name a whole snapshot; returns False where there is one of that name."""
        target = self.path(chain_id)
        try:
            os.rename(path, target)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            if self.exists(chain_id):
                return False
            # A power cut's: it gives way.
            aside = self._new_path()
            with contextlib.suppress(FileNotFoundError):
                os.rename(target, aside)
            os.rename(path, target)
            remove_tree(aside)
        return True

    @abstractmethod
    def prepare(
        self,
        directory: str,
        chain_ids: Sequence[str],
        *,
        bare: bool = False,
        ids: "Ids | None" = None,
    ) -> None:
        """Make the writable root of a container, on top of some layers.

        Args:
            directory: the container's own directory, which exists.
            chain_ids: of each layer, the lowest first; those snapshots are kept from now on as
                long as the directory is there.
            bare: whether it has these layers alone, and nothing of ``BASE``: a build's.
            ids: the user and group ids that its files are to have for the images'; None for these.

        Raises:
            NotFoundError: a snapshot is missing.
            UnavailableError: the disk is full or failing.
        """

    def describe_root(self, directory: str, chain_ids: Sequence[str]) -> Told:
        """What ``prepare`` has done, to be told; the arguments are its own."""
        words = f"copy {len(chain_ids)} layers of the image, the lowest first · copy_file_range(2)"
        values = [("layer", self.path(chain_id)) for chain_id in chain_ids]
        return Told("files", words, [*values, ("directory", f"{directory}/merged")])

    def describe(self, directory: str, image: str) -> Told:
        """What ``mount`` does with a prepared root, to be told.

        Args:
            directory: as given to ``prepare``.
            image: the image's name.
        """
        words = f"take the copy that was made of {image} · open_tree(2)"
        return Told("files", words, [("directory", f"{directory}/merged")])

    @abstractmethod
    def mount(
        self, directory: str, user_namespace: int | None = None, *, passing: bool = False
    ) -> int:
        """Mount a prepared root.

        Args:
            directory: as given to ``prepare``.
            user_namespace: descriptor of a user namespace whose ids stand for those on the disk,
                or None where they are the host's.
            passing: whether what is written there will be removed after this mount, and may be
                lost in a power cut: then nothing waits for the disk where that can be avoided.

        Returns:
            A descriptor of the detached mount, which the caller owns.

        Raises:
            UnsupportedError: the kernel or the file system below cannot do it.
            PermissionDeniedError: the caller may not mount.
            UnavailableError: a layer is missing.
        """

    def over(self, directory: str, *trees: str, redirects: bool = False) -> int:  # noqa: ARG002
        """Mount directories of the host's, to be changed in ``upper`` of another.

        Args:
            directory: has empty directories ``upper`` and ``work``.
            trees: what is changed, the topmost first.
            redirects: whether a directory of theirs can be renamed without being copied, by a note
                in ``upper`` of where it was: only where nobody else writes to any of them.

        Returns and raises what ``mount`` does.
        """
        raise UnsupportedError(
            f"{trees[0]} cannot be changed in {directory} alone by storage driver {self.name}",
            "the kernel's overlayfs can: storage driver overlay2",
        )

    @abstractmethod
    def view(self, directory: str) -> int:
        """Mount a prepared root as it is now, to be read only, whether the container runs or not.

        Returns and raises what ``mount`` does.
        """

    @abstractmethod
    @contextlib.contextmanager
    def writable(self, directory: str) -> "Iterator[tuple[int, Directory, bool]]":
        """Open what a container has of its own, for ``layered``'s functions.

        The block gets a descriptor of its tree, the stack below it, and whether the tree is a
        whole one.
        """

    def describe_view(self, directory: str) -> Told:
        """What ``view`` does, to be told; by hand it is mounted at ``rootfs`` there."""
        words = "take the container's own files, without what is mounted in them · open_tree(2)"
        return Told("files", words, [("directory", f"{directory}/merged")])

    @abstractmethod
    def trees_of(self, directory: str) -> tuple[str, list[str]]:
        """Returns the tree that a container writes to, and those below it, topmost first."""

    def is_added(self, directory: str, name: str) -> bool:
        """Whether a directory at the root is there for what ``BASE`` adds, and in no layer."""
        layers = (self.path(chain) for chain in self.prepared_on(directory))
        return not any(os.path.lexists(f"{layer}/diff/{name}") for layer in layers)

    def prepared_on(self, directory: str) -> list[str]:
        """Returns the chain IDs that a container's root was prepared on; none if it never was."""
        try:
            with open(f"{directory}/layers", encoding="utf-8") as file:
                return file.read().split()
        except FileNotFoundError:
            return []

    def changes(self, directory: str) -> "Iterator[Change]":
        """Yield what a container changed; see ``layered.changes``."""
        from ketch.images import layered  # noqa: PLC0415 - not for a container's start

        with self.writable(directory) as (upper, lower, complete):
            yield from layered.changes(upper, lower, complete=complete, markers=self.markers)

    def diff(self, directory: str) -> Iterator[bytes]:
        """Yield what a container changed as a layer's archive."""
        from ketch.images import layered  # noqa: PLC0415 - not for a container's start

        ids = shifted.recorded(directory)
        with self.writable(directory) as (upper, lower, complete):
            yield from layered.diff(
                upper,
                lower,
                complete=complete,
                markers=self.markers,
                owned=None if ids is None else lambda u, g: (ids[0].inside(u), ids[1].inside(g)),
            )

    def description(
        self, chain_ids: Sequence[str], directory: str = ""
    ) -> "dict[str, str | dict[str, str] | None]":
        """Returns what ``inspect`` shows of where an image's or a container's files are.

        Args:
            chain_ids: of its layers, the lowest first.
            directory: the container's, as given to ``prepare``, or empty for an image.
        """
        trees = [f"{self.path(chain)}/diff" for chain in reversed(chain_ids)]
        if directory:
            data = {"LowerDir": ":".join(self._trees(directory)), "UpperDir": f"{directory}/upper",
                    "WorkDir": f"{directory}/work"}  # fmt: skip
        elif trees:
            data = {"LowerDir": ":".join(trees[1:]), "UpperDir": trees[0]}
        else:
            data = {}
        return {"Data": {key: value for key, value in data.items() if value}, "Name": self.name}

    def exists(self, chain_id: str) -> bool:
        """Whether a snapshot is committed."""
        path = self.path(chain_id)
        try:
            boot_id = os.readlink(f"{path}/{_UNSETTLED}")
        except FileNotFoundError:
            return os.path.exists(path)
        return boot_id == procfs.boot_id()

    def size_bytes(self, chain_id: str) -> int:
        """Returns bytes of the files in one committed layer, without those below it.

        Raises:
            NotFoundError: there is no such snapshot.
        """
        try:
            with open(f"{self.path(chain_id)}/size", encoding="utf-8") as file:
                return int(file.read())
        except FileNotFoundError as error:
            raise _missing(chain_id) from error

    def chain_ids(self) -> Iterator[str]:
        """Yield the chain ID of every committed snapshot."""
        for algorithm in _names(f"{self.root}/snapshots"):
            for digits in _names(f"{self.root}/snapshots/{algorithm}"):
                if digests.valid(f"{algorithm}:{digits}"):
                    yield f"{algorithm}:{digits}"

    def copies(self, chain_id: str) -> list[str]:
        """Returns where a committed layer is with other owners: see ``shifted``."""
        directory = self.path(chain_id)
        return [f"{directory}/{name}" for name in _names(directory) if name.startswith("diff-")]

    def unused_copies(self, directories: Iterable[str]) -> dict[str, list[str]]:
        """Returns such copies that no root lies on, by chain ID.

        Args:
            directories: of all that was prepared, as given to ``prepare``.
        """
        used = {tree for directory in directories for tree in self._trees(directory)}
        found: dict[str, list[str]] = {}
        for chain_id in self.chain_ids():
            if unused := [path for path in self.copies(chain_id) if path not in used]:
                found[chain_id] = unused
        return found

    def remove_copy(self, path: str) -> None:
        """Remove one of ``unused_copies``; ``lock.exclusive`` must be held."""
        aside = self._new_path()
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, aside)
            remove_tree(aside)

    def remove(self, chain_id: str) -> None:
        """Remove a committed snapshot, if it is there; ``lock.exclusive`` must be held.

        It loses its name first, so that half a snapshot is never taken for a whole one.
        """
        aside = self._new_path()
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path(chain_id), aside)
            remove_tree(aside)

    def remove_unfinished(self) -> None:
        """Remove what dead processes were unpacking or removing; needs ``lock.exclusive``."""
        for name in _names(f"{self.root}/snapshots/ingest"):
            remove_tree(f"{self.root}/snapshots/ingest/{name}")

    def path(self, chain_id: str) -> str:
        """Returns where all that is kept of a snapshot is, whether it exists or not."""
        algorithm, digits = digests.split(chain_id)
        return f"{self.root}/snapshots/{algorithm}/{digits}"

    def _new_path(self) -> str:
        directory = f"{self.root}/snapshots/ingest"
        if not os.path.exists(directory):
            os.makedirs(os.path.dirname(directory), 0o700, exist_ok=True)
            os.makedirs(directory, 0o700, exist_ok=True)
            spread(directory)
        return f"{directory}/{os.urandom(12).hex()}"

    def _tree(self, chain_id: str) -> str:
        if not self.exists(chain_id):
            raise _missing(chain_id)
        return f"{self.path(chain_id)}/diff"

    def _trees(self, directory: str) -> list[str]:
        """Returns the trees below a container's, topmost first."""
        trees = [f"{self.path(chain)}/diff" for chain in reversed(self.prepared_on(directory))]
        base = f"{self.root}/snapshots/{BASE}"
        if os.path.exists(f"{directory}/{_NOTHING}"):
            return trees or [f"{directory}/{_NOTHING}"]
        # One is left for what a view puts on top.
        if len(trees) < LAYERS_MAX - 1 and os.path.exists(base):
            trees.append(base)
        ids = shifted.recorded(directory)
        return trees if ids is None else [shifted.path(tree, ids) for tree in trees]

    def _begin(
        self, directory: str, chain_ids: Sequence[str], *, bare: bool, ids: "Ids | None"
    ) -> str:
        """Write down what a root is prepared on, and have it; returns the topmost tree."""
        trees = [self._tree(chain_id) for chain_id in chain_ids]
        record_layers(directory, chain_ids)
        trees.insert(0, self._make_lowest(directory, bare=bare))
        if ids is None:
            return trees[-1]
        from ketch.images import lock  # noqa: PLC0415 - few starts want it

        with lock.shared(self.root):  # what nobody has yet must not be taken for unused
            shifted.make(trees, ids)
            shifted.record(directory, ids)
        return shifted.path(trees[-1], ids)

    def _make_lowest(self, directory: str, *, bare: bool) -> str:
        """Make what lies below all layers of a root that is prepared; returns where it is."""
        if not bare:
            return self._make_base()
        path = f"{directory}/{_NOTHING}"
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)
        return path

    def _make_base(self) -> str:
        """Make the tree below all layers, if it is missing; returns where it is.

        Docker and podman make these in each container. Here an image's own are above them, and what
        a container changed is told and committed without them.
        """
        path = f"{self.root}/snapshots/{BASE}"
        if not os.path.exists(path):
            aside = self._new_path()
            try:
                for name in ("", "/etc", "/run"):
                    os.mkdir(f"{aside}{name}", 0o755)
                    os.chmod(f"{aside}{name}", 0o755)
                for name, mode in (("/.dockerenv", 0o755), ("/run/.containerenv", 0o644)):
                    with open(f"{aside}{name}", "x", encoding="ascii") as file:
                        os.fchmod(file.fileno(), mode)
                os.symlink("/proc/mounts", f"{aside}/etc/mtab")
                os.rename(aside, path)
            except OSError:
                if not os.path.exists(path):  # else somebody else has made it meanwhile
                    raise
            finally:
                remove_tree(aside)
        return path

    def _stack(self, directory: str) -> "Directory":
        from ketch.images import layered, opaque  # noqa: PLC0415 - not for a container's start

        parts: list[bytes] = []
        for tree in map(os.fsencode, self._trees(directory)):
            parts.append(tree)
            if opaque.is_opaque(tree):
                break
        return layered.Directory(parts)


def record_layers(directory: str, chain_ids: Sequence[str]) -> None:
    """Write down what a container's root is prepared on; its layers are kept from then on."""
    with open(f"{directory}/layers", "x", encoding="utf-8") as file:
        file.write("".join(f"{chain_id}\n" for chain_id in chain_ids))


def link_tree(source: str, target: str) -> None:
    """Make a second tree of the same files; directories, which cannot be linked, are made anew.

    Args:
        source: a tree that nobody changes.
        target: where, in the same file system; it does not exist.

    Raises:
        OSError: the disk is full or failing.
    """
    from ketch.images.mirrors import mirror  # noqa: PLC0415 - not for a container's start

    mirror(
        source,
        target,
        lambda entry, path: os.link(entry.path, path, follow_symlinks=False),
        lambda status: (status.st_uid, status.st_gid),
    )


def make_upper(path: str, topmost: str) -> None:
    """Make the directory that a container writes to, with the metadata of the root that shows."""
    os.mkdir(path, 0o755)
    make_like(path, topmost)


def make_like(path: str, other: str) -> None:
    """Give a directory the metadata of another."""
    status = os.stat(other)
    os.chown(path, status.st_uid, status.st_gid)
    os.chmod(path, stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def spread(directory: str) -> None:
    """Have each layer that is made in a directory get a part of the disk of its own, on ext4.

    Which part that is follows from the layer's name there, so no two should have the same.

    Else a new layer comes where the last one was removed, and ext4, which does not use a file's
    number again within a minute, passes over all of those for each file: a pull right after an
    ``rmi`` takes twice as long, and more with each round (Linux, fs/ext4/ialloc.c,
    ``recently_deleted``).
    """
    with owned(os.open(directory, _DIRECTORY)) as descriptor:
        inodeflags.change(descriptor, add=inodeflags.TOPDIR)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _missing(chain_id: str) -> NotFoundError:
    return NotFoundError(f"layer {chain_id} is not unpacked", "pull or import the image again")


def unwritable(place: str, error: OSError) -> UnavailableError:
    """Returns what an error while writing means."""
    hint = "free some space" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
    return UnavailableError(f"cannot write to {place}: {os.strerror(error.errno or 0)}", hint)
