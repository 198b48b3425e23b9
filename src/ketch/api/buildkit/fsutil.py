"""The words of fsutil's protocol, by which BuildKit's clients and servers send each other files.

The sender tells of every file, in order, a directory before what is in it (STAT; an empty one at
the end); the receiver asks for the content of those it wants (REQ, by the number in that order) and
gets it in pieces (DATA, an empty one at the end). FIN from the receiver, and back, ends it; ERR
does at any time. Source: tonistiigi/fsutil, receive.go, send.go, types/*.proto; Go's io/fs.
"""

import os
import stat
from enum import IntEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from ketch.api.buildkit import schema
from ketch.api.buildkit.grpc import framed
from ketch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH_BYTES_MAX = 4095
_NAME_BYTES_MAX = 255


class Kind(IntEnum):
    """Packets."""

    STAT = 0
    REQ = 1
    DATA = 2
    FIN = 3
    ERR = 4


_GO_KINDS = (
    (1 << 31, stat.S_IFDIR),
    (1 << 27, stat.S_IFLNK),
    (1 << 25, stat.S_IFIFO),
    (1 << 24, stat.S_IFSOCK),
)
_GO_DEVICE, _GO_CHARACTER, _GO_IRREGULAR = 1 << 26, 1 << 21, 1 << 19
_GO_BITS = ((1 << 23, stat.S_ISUID), (1 << 22, stat.S_ISGID), (1 << 20, stat.S_ISVTX))


def posix_mode(mode: int) -> int:
    """Returns what stat(2) calls a mode of Go's; 0 for a kind of file that nothing else has."""
    if mode & _GO_IRREGULAR:
        return 0
    kind = stat.S_IFREG
    if mode & _GO_DEVICE:
        kind = stat.S_IFCHR if mode & _GO_CHARACTER else stat.S_IFBLK
    else:
        for bit, name in _GO_KINDS:
            if mode & bit:
                kind = name
                break
    bits = sum(bit for go, bit in _GO_BITS if mode & go)
    return kind | bits | mode & 0o777


def go_mode(mode: int) -> int:
    """Returns what Go calls a mode of stat(2)'s."""
    kind = stat.S_IFMT(mode)
    found = sum(go for go, name in _GO_KINDS if kind == name)
    if kind in {stat.S_IFCHR, stat.S_IFBLK}:
        found = _GO_DEVICE | (_GO_CHARACTER if kind == stat.S_IFCHR else 0)
    return found | sum(go for go, bit in _GO_BITS if mode & bit) | mode & 0o777


def parts(path: bytes) -> list[bytes]:
    """Returns the names of a path that a peer sent.

    Raises:
        InvalidArgumentError: it is none below a directory: absolute, ``..``, not clean, too long.
    """
    names = path.split(b"/")
    if len(path) > PATH_BYTES_MAX or b"\0" in path:
        raise refused(path, "is no path")
    for name in names:
        if name in {b"", b".", b".."} or len(name) > _NAME_BYTES_MAX:
            raise refused(path, "is no path below a directory")
    return names


def refused(path: bytes, reason: str) -> InvalidArgumentError:
    """Returns the error that says what is wrong with a file that a peer told of."""
    shown = os.fsdecode(path[:200])
    return InvalidArgumentError(f"the client's file {shown!a}: {reason}")


def packet(kind: Kind, number: int = 0, data: bytes = b"", told: Any = None) -> bytes:
    """Returns a packet as it stands in a stream."""
    message = schema.messages("session").Packet(type=kind, ID=number, data=data, stat=told)
    return framed(schema.encode(message))


def metadata(values: "Mapping[str, list[str]]") -> list[tuple[str, str]]:
    """Returns names and values as a call's metadata has them: what is not ASCII is encoded.

    Source: moby/buildkit, session/filesync/filesync.go, encodeOpts.
    """
    found = []
    for name, several in values.items():
        plain = all(one.isascii() and one.isprintable() and one == one.strip() for one in several)
        if not plain:
            found.append((f"{name}-encoded", "1"))
        found += [(name, one if plain else quote_plus(one)) for one in several]
    return found
