"""Unpacking an archive into a tree that is in use: what ``cp`` does, in a container or beside one.

It differs from applying a layer in what it finds: the tree is there already, may have mounts in it,
and belongs to a container that may change it meanwhile. Names are looked up as for layers, beneath
the tree's root by the kernel; nothing is followed out of it. What is replaced, and what is refused,
are Docker's rules: moby, pkg/archive, ``Unpack``.
"""

import os
import stat
import time

from ketch.errors import InvalidArgumentError, KetchError
from ketch.images import tar
from ketch.images.filling import GONE, Tree
from ketch.linux.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    openat2,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.images.tar import Stream
    from ketch.images.tree import Owned


def extract(
    root: int,
    base: bytes,
    stream: "Stream",
    *,
    keep_kinds: bool = True,
    owned: "Owned | None" = None,
    rename: "Callable[[bytes], bytes]" = lambda name: name,
    set_ids: bool = True,
) -> None:
    """Unpack an archive.

    Args:
        root: descriptor of the root that names cannot leave.
        base: path of the directory to unpack into, from the root on, without symlinks.
        stream: the archive, uncompressed.
        keep_kinds: whether a directory may not be replaced by anything else, nor the reverse.
        owned: says whom a member is to belong to, given the ids that the archive has; to whom the
            archive says, if None.
        rename: gives members, and those that hard links name, other names.
        set_ids: whether programs stay that run as whom they belong to (S_ISUID, S_ISGID).

    Raises:
        InvalidArgumentError: the archive is malformed, or wants what cannot be.
        UnavailableError: the disk is full or failing.
        PermissionDeniedError: the caller may not make what the archive has.
    """
    _Extractor(
        root, base.strip(b"/"), keep_kinds=keep_kinds, owned=owned, rename=rename, set_ids=set_ids
    ).fill(stream)


class _Extractor(Tree):
    __slots__ = ("_base", "_keep_kinds", "_owned", "_rename", "_set_ids")

    # A container's volumes are mounts.
    resolve = RESOLVE_IN_ROOT
    resolve_step = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS

    def __init__(
        self,
        root: int,
        base: bytes,
        *,
        keep_kinds: bool,
        owned: "Owned | None",
        rename: "Callable[[bytes], bytes]",
        set_ids: bool,
    ) -> None:
        super().__init__(root)
        self._base = base
        self._keep_kinds = keep_kinds
        self._owned = owned
        self._rename = rename
        self._set_ids = set_ids

    def _add(self, entry: tar.Entry, reader: tar.Reader) -> None:
        """Make one member of the archive; whiteouts are names as any other."""
        entry.name = self._rename(entry.name)
        parts = self._clean(entry.name)
        if not parts:
            return  # the directory itself, which stays as it is
        if self._owned is not None:
            entry.uid, entry.gid = self._owned(entry.uid, entry.gid)
        if not self._set_ids:
            entry.mode &= ~(stat.S_ISUID | stat.S_ISGID)
        if entry.kind == tar.HARD_LINK:
            entry.link = self._from_root(self._clean(self._rename(entry.link)))
        path = self._from_root(parts)
        if self._keep_kinds:
            self._check_kind(path, parts, entry)
        self._place(path, parts[-1], entry, reader)

    def _clean(self, name: bytes) -> list[bytes]:
        """Returns a member's path as names from the directory on.

        As Docker has it: what counts is where a name leads from the directory's own place, where
        ``..`` of the root is the root; it may go up as long as it comes back.
        """
        base = self._base.split(b"/") if self._base else []
        parts: list[bytes] = []
        for part in (*base, *name.split(b"/")):
            if part == b"..":
                del parts[-1:]
            elif part not in {b"", b"."}:
                parts.append(part)
        if parts[: len(base)] != base:
            raise self._leads_out(name)
        self._check_length(name, parts[len(base) :])
        return parts[len(base) :]

    def _from_root(self, parts: list[bytes]) -> bytes:
        return b"/".join([self._base, *parts] if self._base else parts)

    def _check_kind(self, path: bytes, parts: list[bytes], entry: tar.Entry) -> None:
        try:
            status = os.stat(parts[-1], dir_fd=self._parent(path), follow_symlinks=False)
        except FileNotFoundError:
            return
        shown = os.fsdecode(b"/" + path)
        if stat.S_ISDIR(status.st_mode) and entry.kind != tar.DIRECTORY:
            raise InvalidArgumentError(
                f'cannot overwrite directory "{shown}" with non-directory "{shown}"'
            )
        if not stat.S_ISDIR(status.st_mode) and entry.kind == tar.DIRECTORY:
            raise InvalidArgumentError(
                f'cannot overwrite non-directory "{shown}" with directory "{shown}"'
            )

    def _lose(self, path: bytes, entry: tar.Entry) -> None:
        """Say so, as Docker does; whatever else is at the path now is as good as it."""
        try:
            os.close(openat2(self._directory, path, os.O_PATH, resolve=self.resolve))
        except OSError as error:
            if error.errno not in GONE:
                raise
            raise KetchError(
                f"archive entry {os.fsdecode(entry.name)!r}: no such file or directory: a later "
                "entry has replaced what led to it",
                "leave one of the two out of the archive",
            ) from error

    def _inherited(self, path: bytes) -> tar.Entry:
        """Describe a directory that the archive does not."""
        entry = super()._inherited(path)
        entry.mtime_ns = time.time_ns()
        if self._owned is not None:
            entry.uid, entry.gid = self._owned(entry.uid, entry.gid)
        return entry
