"""Snapshots stacked by the kernel's overlayfs: Linux, Documentation/filesystems/overlayfs.rst."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence

from ketch.errors import (
    KetchError,
    PermissionDeniedError,
    UnavailableError,
    UnsupportedError,
)
from ketch.images import lock
from ketch.images.snapshots import Snapshotter, make_upper, unwritable
from ketch.linux import libc, mount, namespaces
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ketch.images.layered import Directory
    from ketch.images.shifted import Ids

    Options = Mapping[str, str | None]

# "lowerdir+", one layer a call: Linux 6.8. (Before 6.5 overlayfs would swallow it and complain
# only when the file system is created, so the release is asked and not the kernel.)
_APPENDS_SINCE = (6, 8)
_FSCONFIG_STRING_MAX = 255  # fsconfig(2)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class OverlaySnapshotter(Snapshotter):
    """Layers stacked by the kernel's overlayfs.

    Args:
        root: the engine's directory.
        appends: whether overlayfs takes its layers one at a time; asked of the kernel when None.
    """

    __slots__ = ("_appends",)

    name = "overlay2"
    adopts = True
    call = "fsopen(2) overlay"  # for who asks what is done, and by which program a person does it
    by_hand = "mount -t overlay overlay"

    def __init__(self, root: str, *, appends: bool | None = None) -> None:
        super().__init__(root)
        self._appends = _release() >= _APPENDS_SINCE if appends is None else appends

    def prepare(
        self,
        directory: str,
        chain_ids: Sequence[str],
        *,
        bare: bool = False,
        ids: "Ids | None" = None,
    ) -> None:
        """See ``Snapshotter.prepare``."""
        with lock.shared(self.root):
            try:
                topmost = self._begin(directory, chain_ids, bare=bare, ids=ids)
                os.mkdir(f"{directory}/work", 0o700)
                make_upper(f"{directory}/upper", topmost)
            except OSError as error:
                raise unwritable(directory, error) from error

    def mount(
        self, directory: str, user_namespace: int | None = None, *, passing: bool = False
    ) -> int:
        """See ``Snapshotter.mount``."""
        lower = self._trees(directory)
        if user_namespace is None:
            return self._mount(directory, lower, passing=passing)
        from ketch.images import idmapped  # noqa: PLC0415 - wanted by few, and it loads threads

        covered = [f"{self.root}/snapshots", directory]
        return idmapped.seen(
            covered, user_namespace, lambda: self._mount(directory, lower, passing=passing)
        )

    def over(self, directory: str, *trees: str, redirects: bool = False) -> int:
        """See ``Snapshotter.over``."""
        return self._mount(directory, trees, redirects=redirects)

    def describe_root(self, directory: str, chain_ids: Sequence[str]) -> Told:
        """See ``Snapshotter.describe_root``."""
        trees, place = self._trees(directory), quote(directory)
        values = [("layer", tree) for tree in reversed(trees)]
        values += [("upperdir", f"{directory}/upper"), ("workdir", f"{directory}/work")]
        likeness = [
            f"{program} --reference={quote(trees[0])} {place}/upper"
            for program in ("chown", "chmod", "touch")
        ]
        words = f"make the layer that the container writes to, on {len(chain_ids)} of the image"
        by_hand = [f"mkdir -p {place}/upper {place}/work", *likeness]
        return Told("files", f"{words} · mkdir(2)", values, outside=by_hand)

    def describe(self, directory: str, image: str) -> Told:
        """See ``Snapshotter.describe``."""
        places = [
            ("lowerdir", ":".join(self._trees(directory))),
            ("upperdir", f"{directory}/upper"),
            ("workdir", f"{directory}/work"),
        ]
        options = ",".join(f"{name}={place}" for name, place in places)
        by_hand = [
            f"mkdir -p {quote(directory)}/upper {quote(directory)}/work {quote(directory)}/rootfs",
            f"{self.by_hand} -o {quote(options)} {quote(directory)}/rootfs",
        ]
        words = f"stack a writable layer on those of {image} · {self.call}"
        return Told("files", words, places, outside=by_hand)

    def describe_view(self, directory: str) -> Told:
        """See ``Snapshotter.describe_view``."""
        lower = ":".join([f"{directory}/upper", *self._trees(directory)])
        place = f"{quote(directory)}/rootfs"
        by_hand = [
            f"mkdir -p {place}",
            f"{self.by_hand} -o ro,{quote(f'lowerdir={lower}')} {place}",
        ]
        told = super().describe_view(directory)
        return Told("files", told.words, [("lowerdir", lower)], outside=by_hand)

    def trees_of(self, directory: str) -> tuple[str, list[str]]:
        """See ``Snapshotter.trees_of``."""
        return f"{directory}/upper", self._trees(directory)

    def view(self, directory: str) -> int:
        """See ``Snapshotter.view``."""
        # As a layer of its own, the tree that the container writes to is not "in use" twice.
        lower = self._trees(directory)
        return self._mount(directory, [f"{directory}/upper", *lower], writable=False)

    @contextlib.contextmanager
    def writable(self, directory: str) -> "Iterator[tuple[int, Directory, bool]]":
        """See ``Snapshotter.writable``."""
        try:
            upper = os.open(f"{directory}/upper", _DIRECTORY)
        except OSError as error:
            raise unwritable(directory, error) from error
        with owned(upper):
            yield upper, self._stack(directory), False

    def _mount(
        self, directory: str, lower: Sequence[str], *, writable: bool = True, passing: bool = False,
        redirects: bool = False,
    ) -> int:  # fmt: skip
        options = {**_OPTIONS, "volatile": None} if passing else _OPTIONS
        if not namespaces.in_initial_user_namespace():
            options = {**options, **_USER_OPTIONS}
        elif redirects:  # which a user's overlay cannot have
            options = {**options, "redirect_dir": "on"}
        longest = max(map(len, map(os.fsencode, [*lower, _escaped(f"{directory}/upper")])))
        try:
            if writable:
                # What a volatile mount leaves, lest anybody trusts files that a power cut may have
                # damaged. Here they do not outlive the boot.
                remove_tree(f"{directory}/work/work/incompat")
            if self._appends and longest <= _FSCONFIG_STRING_MAX:
                return _mount_appending(directory, lower, writable, options)
            return _apart(lambda: _mount_by_short_names(directory, lower, writable, options))
        except OSError as error:
            raise _unmountable(directory, lower, error) from error


# Whatever the kernel's defaults are: no redirects between directories, which a layer could forge
# and a diff would have to follow, and no files whose content is in another layer.
_OPTIONS: "Options" = {"redirect_dir": "nofollow", "metacopy": "off", "index": "off"}
# Linux 5.11: see images.opaque.
_USER_OPTIONS: "Options" = {"userxattr": None}


def _mount_appending(
    directory: str, lower: Sequence[str], writable: bool, options: "Options"
) -> int:
    with owned(mount.fsopen("overlay")) as context:
        mount.fsconfig(context, "source", "overlay")
        for tree in lower:
            mount.fsconfig(context, "lowerdir+", tree)
        if writable:
            mount.fsconfig(context, "upperdir", _escaped(f"{directory}/upper"))
            mount.fsconfig(context, "workdir", _escaped(f"{directory}/work"))
        for key, value in options.items():
            mount.fsconfig(context, key, value)
        return mount.fsmount(context)


def _escaped(path: str) -> str:
    """Returns a path as overlayfs reads upperdir and workdir; lowerdir+ it takes as it is."""
    return path.replace("\\", "\\\\")


def _apart(make: "Callable[[], int]") -> int:
    """Do what changes the working directory, which all threads of a process share, beside them."""
    threading = sys.modules.get("threading")  # a start has but one, and has not loaded this
    if threading is None or threading.active_count() == 1:
        return make()
    from ketch.linux.apart import apart  # noqa: PLC0415 - not for a container's start

    def work() -> int:
        namespaces.unshare(namespaces.CLONE_FS)
        return make()

    return apart(work)


def _mount_by_short_names(
    directory: str, lower: Sequence[str], writable: bool, options: "Options"
) -> int:
    """Mount with one option for all layers, which older kernels want.

    fsconfig(2) takes 255 bytes, mount(2) a page for all options. So the layers get numbers as
    names, symlinks in a directory that is the working one for the moment. Above some 80 layers
    the mount cannot be built detached: it is made, cloned, and its visible half detached.
    """
    names = f"{directory}/lower" if writable else f"{directory}/view-{os.urandom(6).hex()}"
    _remove_short_names(names)  # of a process that was killed between the lines below
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.mkdir(names, 0o700)
        for number, tree in enumerate(lower):
            os.symlink(tree, f"{names}/{number}")
        os.chdir(names)
        layers = ":".join(map(str, range(len(lower))))
        options = {
            "lowerdir": layers,
            **({"upperdir": "../upper", "workdir": "../work"} if writable else {}),
            **options,
        }
        if len(layers) > _FSCONFIG_STRING_MAX:
            os.mkdir("mounted", 0o700)
            data = ",".join(
                key if value is None else f"{key}={value}" for key, value in options.items()
            )
            mount.mount("overlay", "mounted", "overlay", data=data)
            return mount.open_tree(libc.AT_FDCWD, "mounted", mount.OPEN_TREE_CLONE)
        with owned(mount.fsopen("overlay")) as context:
            mount.fsconfig(context, "source", "overlay")
            for key, value in options.items():
                mount.fsconfig(context, key, value)
            return mount.fsmount(context)
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
