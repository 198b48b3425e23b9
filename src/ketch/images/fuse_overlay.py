"""Snapshots stacked by fuse-overlayfs, for kernels without overlayfs.

It reads the layers as the kernel's overlayfs would. Its process serves one mount and leaves with
it, whenever the last descriptor or mount namespace lets go of it.

Source: fuse-overlayfs(1).
"""

import contextlib
import os
import shutil
from collections.abc import Sequence

from ketch.errors import UnavailableError, UnsupportedError
from ketch.images.overlay import OverlaySnapshotter
from ketch.images.snapshots import Snapshotter
from ketch.linux import libc, mount, programs
from ketch.linux.removetree import remove_tree

PROGRAM = "fuse-overlayfs"
REMEDY = f"as root: apt install {PROGRAM}"


class FuseOverlaySnapshotter(OverlaySnapshotter):
    """Layers stacked by fuse-overlayfs; its directories are those of ``OverlaySnapshotter``."""

    __slots__ = ()

    name = "fuse-overlayfs"
    markers = True
    adopts = False  # it hides with files of its own as well
    call = "fuse-overlayfs(1)"
    by_hand = PROGRAM

    def mount(
        self, directory: str, user_namespace: int | None = None, *, passing: bool = False
    ) -> int:
        """See ``Snapshotter.mount``."""
        if user_namespace is not None:
            raise UnsupportedError(
                f"{PROGRAM} cannot map ids, as --userns asks for",
                "leave --userns out, or use another storage driver: overlay2, vfs",
            )
        return super().mount(directory, passing=passing)

    def over(self, directory: str, *trees: str, redirects: bool = False) -> int:
        """See ``Snapshotter.over``: its whiteouts have a form of their own."""
        return Snapshotter.over(self, directory, *trees, redirects=redirects)

    def _mount(
        self, directory: str, lower: Sequence[str], *, writable: bool = True, passing: bool = False,
        redirects: bool = False,  # noqa: ARG002 - it is asked for none
    ) -> int:  # fmt: skip
        absent = [tree for tree in lower if not os.path.isdir(tree)]
        if absent:
            raise UnavailableError(
                f"cannot mount the root file system of {directory}: {absent[0]} is missing",
                "the image must be pulled or imported again",
            )
        program = shutil.which(PROGRAM)
        if program is None:
            raise UnsupportedError(f"{PROGRAM} is not installed", REMEDY)
        if ":" in directory:
            raise UnsupportedError(
                f"{PROGRAM} cannot use directories with a colon in their path: {directory}",
                "choose another directory with --root",
            )
        # Its options know no escapes: layers get numbers as names, in its working directory.
        names = f"{directory}/fuse-{os.urandom(6).hex()}"
        options = [f"lowerdir={':'.join(map(str, range(len(lower))))}"]
        options += ["upperdir=../upper", "workdir=../work"] if writable else ["ro"]
        options += ["allow_other", "default_permissions", *(["volatile"] if passing else [])]
        try:
            os.makedirs(f"{names}/mounted", 0o700)
            for number, tree in enumerate(lower):
                os.symlink(tree, f"{names}/{number}")
            # It answers once it serves, and then goes to the background.
            done = programs.ask([program, "-o", ",".join(options), "mounted"], directory=names)
            if done.returncode:
                raise UnsupportedError(
                    f"{PROGRAM} cannot mount the root file system of {directory}:"
                    f" {done.stderr.strip()[-300:]}"
                )
            return mount.open_tree(libc.AT_FDCWD, f"{names}/mounted", mount.OPEN_TREE_CLONE)
        finally:
            with contextlib.suppress(OSError):  # where nothing was mounted
                mount.umount2(f"{names}/mounted", mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
            remove_tree(names)


def available() -> bool:
    """Whether the program is installed and the kernel has FUSE."""
    return shutil.which(PROGRAM) is not None and os.path.exists("/dev/fuse")
