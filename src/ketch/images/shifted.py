"""Layers whose files have other owners, for containers with ids of their own.

Root mounts layers with mapped ids (``images.idmapped``). An ordinary user may not: that takes
privileges over the namespace that the file system was mounted in. So a layer is copied beside
itself, once for each map, with the owners as a container of that map is to see them, and goes with
the layer. Whoever has the same map, as all of one user's ``--userns keep-id``, shares it.
"""

import os
import stat

from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.spec.user_namespaces import IdMap

    Ids = tuple[IdMap, IdMap]

_FILE = "ids"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def record(directory: str, ids: "Ids") -> None:
    """Write down, beside a container's root, which ids its files have."""
    with open(f"{directory}/{_FILE}", "x", encoding="ascii") as file:
        file.write("\n".join(one.text for one in ids))


def recorded(directory: str) -> "Ids | None":
    """Returns which ids a container's files have; None where these are the images'."""
    try:
        with open(f"{directory}/{_FILE}", encoding="ascii") as file:
            uids, _, gids = file.read().partition("\n\n")
    except FileNotFoundError:
        return None
    from ketch.spec.user_namespaces import IdMap  # noqa: PLC0415 - few starts want it

    return IdMap(uids), IdMap(gids)


def path(tree: str, ids: "Ids") -> str:
    """Returns where a tree is with other owners: beside it."""
    from hashlib import sha256  # noqa: PLC0415 - as above

    words = "\n".join(one.text for one in ids).encode()
    return f"{tree}-{sha256(words).hexdigest()[:16]}"


def make(trees: "Iterable[str]", ids: "Ids") -> None:
    """Make those of some trees with other owners that are not there yet.

    Args:
        trees: which nobody changes.
        ids: users and groups; who has no name inside is the user's own.

    Raises:
        OSError: the disk is full or failing.
    """
    for tree in trees:
        target = path(tree, ids)
        if os.path.exists(target):
            continue
        aside = f"{target}.{os.urandom(6).hex()}"
        try:
            _copy(tree, aside, ids)
            os.rename(aside, target)
        except OSError:
            if not os.path.exists(target):  # else somebody else has made it meanwhile
                raise
        finally:
            remove_tree(aside)


def owner(status: os.stat_result, ids: "Ids") -> tuple[int, int]:
    """Returns the owners that a file of an image has for a container."""
    uids, gids = ids
    return uids.outside_or(status.st_uid, 0), gids.outside_or(status.st_gid, 0)


def _copy(source: str, target: str, ids: "Ids") -> None:
    from ketch.images.mirrors import copy_metadata, mirror  # noqa: PLC0415 - not for a start

    links: dict[tuple[int, int], bytes] = {}

    def own(status: os.stat_result) -> tuple[int, int]:
        return owner(status, ids)

    def place(entry: "os.DirEntry[bytes]", path: bytes) -> None:
        status = entry.stat(follow_symlinks=False)
        first = links.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            os.link(first, path, follow_symlinks=False)
            return
        _make(entry.path, path, status)
        if not _is_whiteout(status):
            copy_metadata(entry.path, path, status, own)

    mirror(source, target, place, own)


def _make(source: bytes, target: bytes, status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        from ketch.linux import sparse  # noqa: PLC0415 - not for a container's start

        with (
            owned(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as read,
            owned(os.open(target, _NEW, 0o600)) as write,
        ):
            for _ in sparse.copy(read, write, status.st_size):
                pass
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(source), target)
    else:
        os.mknod(target, kind | 0o600, status.st_rdev)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
