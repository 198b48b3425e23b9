"""Tar archives made byte by byte, so that tests can make any, also those no tool would write."""

import io
from collections.abc import Mapping

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = "0123456"


def member(
    name: bytes,
    kind: str = REGULAR,
    data: bytes = b"",
    *,
    link: bytes = b"",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 1_000_000_000,
    device: tuple[int, int] = (0, 0),
    pax: Mapping[bytes, bytes] | None = None,
    size: int | None = None,
) -> bytes:
    """Return one member: extended headers where they are needed, header, content, padding."""
    records = dict(pax or {})
    if len(name) > 100:
        records[b"path"] = name
    if len(link) > 100:
        records[b"linkpath"] = link
    before = b""
    if records:
        content = b"".join(record(key, value) for key, value in records.items())
        before = member(b"PaxHeaders/x", "x", content, mtime=0)
    header = b"".join(
        [
            name[:100].ljust(100, b"\0"),
            b"%07o\0%07o\0%07o\0" % (mode, uid, gid),
            b"%011o\0%011o\0" % (len(data) if size is None else size, mtime),
            b" " * 8,
            kind.encode("latin-1"),
            link[:100].ljust(100, b"\0"),
            b"ustar\x0000".ljust(72, b"\0"),
            b"%07o\0%07o\0" % device,
        ]
    ).ljust(512, b"\0")
    checksum = b"%06o\0 " % sum(header)
    return before + header[:148] + checksum + header[156:] + data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """Return one record of an extended header."""
    length = len(key) + len(value) + 3
    while len(str(length)) + len(key) + len(value) + 3 != length:
        length = len(str(length)) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def archive(*members: bytes) -> bytes:
    """Return a whole archive of some members."""
    return b"".join(members) + bytes(1024)


def stream(*members: bytes) -> io.BytesIO:
    """Return an archive of some members, to be read."""
    return io.BytesIO(archive(*members))
