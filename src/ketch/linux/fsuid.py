"""Dealing with files as another user, with all capabilities: setfsuid(2), setfsgid(2).

What a thread makes belongs to its file system ids. They count for that thread alone, and so do its
capabilities.
"""

import ctypes

from ketch.linux import capabilities, libc

_setfsuid = libc.function("setfsuid", ctypes.c_uint)
_setfsgid = libc.function("setfsgid", ctypes.c_uint)


class acting_as:  # noqa: N801 - a block, not a kind of thing
    """Make files as another user for the length of a block.

    Args:
        uid: the user.
        gid: the group.
    """

    __slots__ = ("_before", "_ids")

    def __init__(self, uid: int, gid: int) -> None:
        self._ids = (uid, gid)

    def __enter__(self) -> None:
        """Change the calling thread's ids."""
        self._before = _set(*self._ids)

    def __exit__(self, *_: object) -> None:
        """Change them back."""
        _set(*self._before)


def _set(uid: int, gid: int) -> tuple[int, int]:
    """Change the ids and return those before; the capabilities stay."""
    sets = capabilities.get()
    old_gid = _setfsgid(f"gid {gid}", gid)
    old_uid = _setfsuid(f"uid {uid}", uid)
    # With root's id the capabilities that concern files leave the effective set.
    capabilities.set_(*sets)
    return old_uid, old_gid
