"""Which way of stacking layers an engine uses: chosen once, with its first layer, then kept.

``ROOT/storage-driver`` names it. Where nothing was chosen, the first that works here is taken:
the kernel's overlayfs, fuse-overlayfs, plain copies.
"""

import contextlib
import os

from ketch.errors import ConflictError, InvalidArgumentError, KetchError
from ketch.images.overlay import OverlaySnapshotter
from ketch.linux.removetree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.images.snapshots import Snapshotter

# By the names that users may give, Docker's and podman's.
NAMES = {
    "overlay": "overlay2",
    "overlay2": "overlay2",
    "fuse-overlayfs": "fuse-overlayfs",
    "vfs": "vfs",
}


def check_name(text: str) -> str:
    """Returns a driver's own name, empty for an empty text.

    Raises:
        InvalidArgumentError: there is no such driver.
    """
    if text and text not in NAMES:
        raise InvalidArgumentError(
            f"unknown storage driver {text!r}", f"there are {', '.join(NAMES)}"
        )
    return NAMES.get(text, "")


def choose(root: str, wanted: str = "") -> "Snapshotter":
    """Returns the snapshotter of an engine.

    Args:
        root: the engine's directory.
        wanted: the driver's name, empty for whichever it uses or works best.

    Raises:
        InvalidArgumentError: there is no such driver.
        ConflictError: the engine has layers of another.
    """
    wanted = check_name(wanted)
    chosen = _recorded(root)
    if chosen and wanted and chosen != wanted:
        raise ConflictError(
            f"{root} uses the storage driver {chosen}, not {wanted}",
            "choose another directory with --root",
        )
    return _make(chosen or wanted or _detected(root), root)


def record(snapshotter: "Snapshotter") -> None:
    """Write down which driver an engine uses, if it is not yet."""
    root = snapshotter.root
    if _recorded(root):
        return
    os.makedirs(root, 0o700, exist_ok=True)
    temporary = f"{root}/storage-driver.{os.urandom(6).hex()}"
    with open(temporary, "x", encoding="ascii") as file:
        file.write(f"{snapshotter.name}\n")
    try:
        os.link(temporary, f"{root}/storage-driver")  # the first one stays
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)


def _recorded(root: str) -> str:
    try:
        with open(f"{root}/storage-driver", encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        # Before there was a choice, there was one driver.
        return "overlay2" if os.path.exists(f"{root}/snapshots") else ""


def _detected(root: str) -> str:
    if os.geteuid() != 0 or overlay_failure(existing(root)) is None:
        return "overlay2"
    from ketch.images import fuse_overlay  # noqa: PLC0415 - rarely needed

    return "fuse-overlayfs" if fuse_overlay.available() else "vfs"


def overlay_failure(place: str) -> str | None:
    """Why the kernel's overlayfs cannot be used; None where it can.

    It is tried where the layers will be: that depends on the file system below as well.

    Args:
        place: a directory there.
    """
    directory = f"{place}/trial-{os.urandom(6).hex()}"
    try:
        os.mkdir(directory, 0o700)  # closed to others: it holds setuid programs
        try:
            snapshotter = OverlaySnapshotter(directory)  # whose lock is its own
            snapshotter.prepare(directory, [])
            os.close(snapshotter.mount(directory))
        finally:
            with contextlib.suppress(OSError):
                remove_tree(directory)
    except KetchError as error:
        return error.message
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def existing(path: str) -> str:
    """The directory itself, or the nearest above it that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _make(name: str, root: str) -> "Snapshotter":
    if name == "vfs":
        from ketch.images.vfs import CopySnapshotter  # noqa: PLC0415 - rarely needed

        return CopySnapshotter(root)
    if name == "fuse-overlayfs":
        from ketch.images.fuse_overlay import FuseOverlaySnapshotter  # noqa: PLC0415 - as above

        return FuseOverlaySnapshotter(root)
    return OverlaySnapshotter(root)
