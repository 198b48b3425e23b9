"""Applying a layer's tar archive to a directory, in the form that overlayfs stacks.

How hostile archives are held in bounds says ``filling``. Whiteouts (OCI image specification,
layer.md) become what overlayfs knows: a character device 0/0, or the attribute of
``images.opaque`` on a directory. They speak of lower layers only: what the same archive has put at
that place stays, in whichever order the two come.
"""

import errno
import os
import stat

from ketch.errors import InvalidArgumentError
from ketch.images import attributes, tar
from ketch.images.filling import Tree, proc_path
from ketch.images.layered import OPAQUE_MARKER, WHITEOUT_PREFIX, is_whiteout
from ketch.images.opaque import make_opaque
from ketch.linux.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_METADATA = b".wh..wh."  # of aufs, which no reader of layers wants
_HIDDEN_MAX = 1000  # paths that are told of
_BELOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


def apply(
    directory: int,
    stream: "tar.Stream",
    lower: "Sequence[str]" = (),
    hidden: "list[bytes] | None" = None,
) -> int:
    """Unpack a layer into an empty directory.

    Args:
        directory: descriptor of that directory, on a file system where the caller may make devices.
        stream: the uncompressed archive; it is read to its very end, as its digest needs.
        lower: paths of the trees below this layer, topmost first. A directory that the archive
            needs and does not describe takes its owner, mode and times from there.
        hidden: takes the paths that its whiteouts hide, a slash behind directories of which
            all that is below is hidden; the first thousand. None where nobody asks.

    Returns:
        Bytes of all files' content.

    Raises:
        InvalidArgumentError: the archive is malformed, or wants what cannot be.
        UnavailableError: the disk is full or failing.
        PermissionDeniedError: the caller may not make what the archive has.
    """
    tree = _Layer(directory, lower, hidden)
    tree.fill(stream)
    return tree.size_bytes


class _Layer(Tree):
    __slots__ = ("_hidden", "_hides_root", "_lower")

    what = "layer"

    def __init__(
        self, directory: int, lower: "Sequence[str]", hidden: "list[bytes] | None"
    ) -> None:
        super().__init__(directory)
        self._hidden = hidden
        self._lower = lower
        self._hides_root = False

    def _add(self, entry: tar.Entry, reader: tar.Reader) -> None:
        """Make one member of the archive, or hide what it is a whiteout of."""
        parts = self._clean(entry.name)
        if not parts:
            if entry.kind != tar.DIRECTORY:
                raise InvalidArgumentError("the layer's root is not a directory")
            self._describe(b"", self._directory, b".", entry)
        elif parts[-1].startswith(WHITEOUT_PREFIX):
            self._add_whiteout(b"/".join(parts), parts[-1])
        else:
            self._place(b"/".join(parts), parts[-1], entry, reader)

    def _finish(self) -> None:
        """Hide what the archive's root hides, and finish the directories."""
        if self._hides_root:
            for name in {name for tree in self._lower for name in os.listdir(os.fsencode(tree))}:
                self._hide(self._directory, name)
        if b"" not in self._described:
            self._describe(b"", self._directory, b".", self._inherited(b"."))
        super()._finish()

    def _make_directory(self, parent: int, name: bytes) -> os.stat_result | None:
        """Make a directory; in place of a whiteout one that hides what is below as well."""
        replaced = super()._make_directory(parent, name)
        if replaced is not None and is_whiteout(replaced):
            make_opaque(proc_path(parent, name))
        return replaced

    def _make_missing(self, parent: int, name: bytes) -> None:
        try:
            super()._make_missing(parent, name)
        except FileExistsError:
            if not is_whiteout(os.stat(name, dir_fd=parent, follow_symlinks=False)):
                raise
            self._make_directory(parent, name)

    def _add_whiteout(self, path: bytes, name: bytes) -> None:
        if self._hidden is not None and len(self._hidden) < _HIDDEN_MAX:
            shown = path[: -len(name)]
            if not name.startswith(_METADATA):
                shown += name[len(WHITEOUT_PREFIX) :]
            self._hidden.append(shown)
        if name == OPAQUE_MARKER:
            if b"/" in path:
                make_opaque(proc_path(self._parent(path)))
            else:
                self._hides_root = True  # overlayfs takes no notice of a root's attribute
            return
        if name.startswith(_METADATA):
            return
        hidden = name[len(WHITEOUT_PREFIX) :]
        if hidden in {b"", b".", b".."}:
            raise self._refused(path, "a whiteout of nothing")
        self._hide(self._parent(path), hidden)

    def _hide(self, parent: int, name: bytes) -> None:
        """Hide what lower layers have at a place, and keep what this one has."""
        try:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                make_opaque(proc_path(parent, name))

    def _inherited(self, path: bytes) -> tar.Entry:
        """Describe a directory that the archive does not: as the layers below have it."""
        entry = super()._inherited(path)
        for tree in self._lower:
            with owned(os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
                try:
                    found = openat2(root, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_BELOW)
                except OSError as error:
                    if error.errno == errno.ENOENT:
                        continue
                    break  # hidden, or not a directory there
            with owned(found):
                status = os.fstat(found)
                entry.mode = stat.S_IMODE(status.st_mode)
                entry.uid, entry.gid = status.st_uid, status.st_gid
                entry.mtime_ns = status.st_mtime_ns
                entry.xattrs = attributes.read(found)
            break
        return entry
