"""How steps' files become layers: a root on top of others, and what was written to it.

Where the driver can, the very tree that a step wrote to is its layer; its archive is read once, for
its digest, and written only where an image is to have it. That is right where the tree is what its
archive unpacks to. Where it is not, since it has sockets or names that no archive can hold, the
layer is unpacked from the archive like any other: everybody who has the image has the same files.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ketch.build.files import paths
from ketch.build.states import Layer, State
from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.images import layered
from ketch.images.pieces import Pieces
from ketch.linux.scopes import owned
from ketch.spec import image as documents

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.blobs import Blobs
    from ketch.build.place import Place
    from ketch.engine.images.images import Images
    from ketch.engine.images.layer import Layer as Stored

_PIECE_BYTES = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class ChangedError(UnavailableError):
    """The files of a layer are others than they were.

    Args:
        message: which layer.
        hint: what to do.
        chain_id: what its record names.
    """

    def __init__(self, message: str, hint: str = "", *, chain_id: str) -> None:
        super().__init__(message, hint)
        self.chain_id = chain_id


class Root:
    """A root that is mounted, to be written to; a context manager that unmounts it.

    Args:
        descriptor: of the mount, owned from here on.
        upper: where what is written lies, empty where that is nobody else's to write to.

    Attributes:
        descriptor: of the mount, as long as that is there.
    """

    def __init__(self, descriptor: int, upper: str) -> None:
        self.descriptor = descriptor
        self._upper = upper

    def __enter__(self) -> "Root":
        """Returns this one."""
        return self

    def __exit__(self, *_: object) -> None:
        """Unmount it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    @property
    def beneath(self) -> "Callable[[Sequence[str]], int] | None":
        """Unmounts it, and opens a directory where it lies; None where that cannot be.

        The directory, by its names, was made in this root and is in no layer below. Linux allows
        no writing beneath an overlay that is mounted.
        """
        return self._open if self._upper else None

    def _open(self, names: "Sequence[str]") -> int:
        self.__exit__()
        with owned(os.open(self._upper, _DIRECTORY)) as top:
            return paths.open_below(top, names, os.O_RDONLY | os.O_DIRECTORY)


class Layering:
    """Makes layers for one build.

    Args:
        images: the store.
        place: the build's.
        blobs: where archives go.
        check: raises where the build is not wanted any more.
    """

    def __init__(
        self,
        images: "Images",
        place: "Place",
        blobs: "Blobs",
        check: "Callable[[], object]" = lambda: None,
    ) -> None:
        self._check = check
        self._images = images
        self._snapshotter = images.snapshotter
        self._place = place
        self._blobs = blobs
        self._views = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        # A build's trees are named by all that they lie on.
        self._known = layered.Known()

    @contextlib.contextmanager
    def root(self, base: State) -> Iterator[str]:
        """Prepare a root to write to, for a block; gives its directory.

        Raises:
            InvalidArgumentError: it would have one layer too many.
            NotFoundError: a layer is missing.
            UnavailableError: the disk is full or failing.
        """
        if len(base.layers) >= documents.LAYERS_MAX:
            raise InvalidArgumentError(
                f"max depth exceeded: an image has at most {documents.LAYERS_MAX} layers",
                "do more in one instruction, or begin another stage and copy from this one",
            )
        with self._place.root() as directory:
            self._snapshotter.prepare(directory, base.chain_ids, bare=True)
            yield directory

    @contextlib.contextmanager
    def mounted(self, directory: str) -> Iterator["Root"]:
        """Mount a prepared root, for a block."""
        # What is lost in a power cut is a step that is done again.
        descriptor = self._snapshotter.mount(directory, passing=True)
        with Root(descriptor, f"{directory}/upper" if self._snapshotter.adopts else "") as root:
            yield root

    def view(self, state: State) -> int:
        """Returns a descriptor of some files, to be read only, until the build ends."""
        with self._lock:
            if state.chain_id not in self._seen:
                self._seen[state.chain_id] = self._view(state)
            return self._seen[state.chain_id]

    def close(self) -> None:
        """Let go of all views."""
        self._views.close()

    def commit(
        self, directory: str, base: State, description: str, *, alone: bool = False,
        created_ns: int, kept: bool,
    ) -> Layer:  # fmt: skip
        """Make a layer of what was written to a root, which is no root any more.

        Args:
            directory: the root's, mounted nowhere.
            base: what the layer lies on.
            description: what made it.
            alone: whether the root was prepared on nothing, and the layer has no part in its base.
            created_ns: when it was made.
            kept: whether its archive will be wanted.

        Raises:
            UnavailableError: the disk is full or failing.
        """
        below = State() if alone else base
        if self._snapshotter.adopts:
            diff_id, size_bytes = self._adopt(directory, below, kept=kept, alone=alone)
        else:
            diff_id, size_bytes = self._unpack(directory, below, alone=alone)
        layer = Layer(diff_id, base.over(diff_id), size_bytes, created_ns, description, alone=alone)
        self.place_on(base, layer)
        return layer

    def place_on(self, base: State, layer: Layer) -> None:
        """See that a layer that was made alone is there on top of others as well.

        Raises:
            NotFoundError: it is not there at all.
            UnavailableError: the disk is full or failing.
        """
        if layer.alone and not self._snapshotter.exists(base.over(layer.diff_id)):
            self._snapshotter.link(layer.diff_id, base.over(layer.diff_id), base.chain_id)

    def archive(self, state: State, number: int, latest_ns: int | None = None) -> Iterator[bytes]:
        """Yield the archive of one of some layers, made of its files again.

        Args:
            state: the layers.
            number: which.
            latest_ns: the time that younger files have instead of their own, None for any.
        """
        layer = state.layers[number]
        below = () if layer.alone else state.chain_ids[:number]
        # As it was compared when it was made: see ``Snapshotter.prepare``.
        parts = self._parts(below) or [os.fsencode(self._place.nothing)]
        lower = layered.Directory(parts, self._known)
        tree = os.open(f"{self._snapshotter.path(layer.chain_id)}/diff", _DIRECTORY)
        with owned(tree):
            yield from layered.diff(
                tree, lower, complete=False, tells_root=not layer.alone,
                latest_ns=latest_ns, at_rest=True,
            )  # fmt: skip

    def write_archive(self, state: State, number: int) -> None:
        """Write the archive of a layer that an image needs, unless there is one.

        Raises:
            ChangedError: it cannot be made of the files any more.
            UnavailableError: the disk is full or failing.
        """
        layer = state.layers[number]
        if layer.diff_id in self._blobs:
            return
        with self._blobs.writer() as blob:
            pieces = Pieces(self.archive(state, number))
            while piece := pieces.read(_PIECE_BYTES):
                self._check()
                blob.write(piece)
            if blob.digest != layer.diff_id:
                raise ChangedError(
                    f"layer {layer.diff_id} has changed on the disk: it is {blob.digest} now",
                    "build again: its step will be executed",
                    chain_id=layer.diff_id if layer.alone else layer.chain_id,
                )
            blob.keep()

    def rewritten(self, state: State, base: State, latest_ns: int) -> State:
        """Returns files of which those that are new are no younger than a moment.

        Args:
            state: the files.
            base: those that are not new, and stay as they are.
            latest_ns: that moment, nanoseconds since the epoch.
        """
        found = base
        for number in range(len(base.layers), len(state.layers)):
            before = state.layers[number]
            pieces = Pieces(self.archive(state, number, latest_ns))
            made = self._add(pieces, found.chain_ids)
            found = found.plus(
                Layer(
                    made.diff_id, made.chain_id, made.size_bytes, before.created_ns,
                    before.description,
                )
            )  # fmt: skip
        return found

    def squash(self, state: State, base: State, description: str, created_ns: int) -> State:
        """Returns files of which all that lies on a base is one layer."""
        parts = self._parts(base.chain_ids)
        pieces = Pieces(layered.diff(self.view(state), layered.Directory(parts), complete=True))
        made = self._add(pieces, base.chain_ids)
        return base.plus(
            Layer(made.diff_id, made.chain_id, made.size_bytes, created_ns, description)
        )

    def _view(self, state: State) -> int:
        if not state.layers:
            with contextlib.ExitStack() as made:
                directory = made.enter_context(self._place.root())
                descriptor = os.open(directory, _DIRECTORY)
                self._views.push(made.pop_all())
        else:
            # The snapshots of a build stay while it goes on, and nobody writes to what is prepared.
            with contextlib.ExitStack() as made:
                directory = made.enter_context(self.root(state))
                descriptor = self._snapshotter.view(directory)
                self._views.push(made.pop_all())
        self._views.callback(os.close, descriptor)
        return descriptor

    def _parts(self, chain_ids: "Sequence[str]") -> list[bytes]:
        """Returns the trees of some layers, topmost first."""
        return [
            os.fsencode(f"{self._snapshotter.path(chain_id)}/diff")
            for chain_id in reversed(chain_ids)
        ]

    def _adopt(self, directory: str, below: State, *, kept: bool, alone: bool) -> tuple[str, int]:
        account = layered.Account()
        with self._blobs.writer(written=kept) as blob:
            pieces = Pieces(self._changes(directory, account, alone=alone))
            while piece := pieces.read(_PIECE_BYTES):
                self._check()
                blob.write(piece)
            if not account.is_exact:
                return self._unpack(directory, below, alone=alone)
            if kept:
                blob.keep()
            self._snapshotter.adopt(directory, below.over(blob.digest), account.size_bytes)
            return blob.digest, account.size_bytes

    def _unpack(self, directory: str, below: State, *, alone: bool) -> tuple[str, int]:
        stream = Pieces(self._changes(directory, layered.Account(), alone=alone))
        made = self._add(stream, below.chain_ids)
        return made.diff_id, made.size_bytes

    def _add(self, stream: Pieces, below: "Sequence[str]") -> "Stored":
        from ketch.engine.images import ingest  # noqa: PLC0415 - for few layers

        return ingest.add_layer(self._images, stream, below)

    def _changes(self, directory: str, account: layered.Account, *, alone: bool) -> Iterator[bytes]:
        """Yield the archive of what was written to a root, which nobody writes to any more."""
        with self._snapshotter.writable(directory) as (upper, below, complete):
            lower = layered.Directory(below.parts, self._known)
            yield from layered.diff(
                upper, lower, complete=complete, markers=self._snapshotter.markers,
                account=account, tells_root=not alone, at_rest=True,
            )  # fmt: skip
