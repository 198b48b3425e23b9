"""Trees with one of every kind of file in them, and all that can be seen of a tree."""

import contextlib
import hashlib
import os
import pathlib
import socket
import stat
from collections.abc import Iterator

CAPABILITY = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"  # cap_net_bind_service=ep
NAME_BYTES_MAX = 255
SPARSE_BYTES = 1 << 24


def fill(directory: pathlib.Path, name_bytes_max: int = NAME_BYTES_MAX) -> None:
    """Make a directory with one of every kind of file."""
    long = "n" * name_bytes_max
    (directory / "deep").mkdir(parents=True)
    (directory / "deep" / "file").write_bytes(b"x" * 5000)
    os.link(directory / "deep" / "file", directory / "link")
    os.mkfifo(directory / "fifo", 0o640)
    os.mknod(directory / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(directory / "block", stat.S_IFBLK | 0o600, os.makedev(7, 300))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "socket"))  # of which no archive can tell
    os.symlink("nowhere", os.fsencode(directory) + b"/not\xffutf8" + b"x" * 200)
    raw = os.fsencode(directory) + b"/\xff\xfe"
    os.mkdir(raw)
    pathlib.Path(os.fsdecode(raw), long).write_bytes(b"long")
    below = directory / "p"
    for _ in range(6):
        below = below / ("q" * 100)
    below.mkdir(parents=True)
    (below / long).symlink_to("t" * 3000)
    with (directory / "sparse").open("wb") as file:
        file.seek(SPARSE_BYTES)
        file.write(b"end")
    (directory / "owned").write_bytes(b"program")
    os.chown(directory / "owned", 12345, 2_000_000_000)
    (directory / "owned").chmod(0o6755)
    os.setxattr(directory / "owned", "security.capability", CAPABILITY)
    os.setxattr(directory / "owned", "user.empty", b"")
    os.setxattr(directory / "deep", "user.of-directory", b"\xff\0")
    os.setxattr(directory / "null", "trusted.of-device", b"v")


def listing(root: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """Return all that can be seen of a tree, but for sockets.

    Returns:
        Facts by path: mode, owner, device, content, extended attributes, number of links (not of
        directories) and when it was modified.
    """
    found: dict[str, tuple[object, ...]] = {}
    for directory, directories, files in os.walk(root):
        for name in [*directories, *files]:
            path = pathlib.Path(directory, name)
            status = path.lstat()
            if stat.S_ISSOCK(status.st_mode):
                continue
            is_directory = stat.S_ISDIR(status.st_mode)
            what: object = None
            if stat.S_ISREG(status.st_mode):
                what = (status.st_size, content(path))
            elif path.is_symlink():
                what = os.readlink(path)
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
                if not key.startswith("trusted.overlay.")
            }
            found[str(path.relative_to(root))] = (
                status.st_mode, (status.st_uid, status.st_gid), status.st_rdev, what, attributes,
                0 if is_directory else status.st_nlink,
                status.st_mtime_ns,
            )  # fmt: skip
    return found


def content(path: pathlib.Path) -> str:
    """Return a digest of where a file has something other than zeros, and what."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        for begin, end in data(file.fileno()):
            for offset in range(begin - begin % 4096, end, 4096):
                piece = os.pread(file.fileno(), 4096, offset)
                if piece.strip(b"\0"):
                    digest.update(b"%d %d " % (offset, len(piece)) + piece)
    return digest.hexdigest()


def data(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each part of a file that is no hole."""
    end = 0
    with contextlib.suppress(OSError):  # a hole up to the end
        while True:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, begin, os.SEEK_HOLE)
            yield begin, end
