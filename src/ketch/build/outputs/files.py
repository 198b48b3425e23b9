"""A result's files by themselves: ``--output type=local`` and ``type=tar``.

Where there are several platforms each has a directory of its own, ``linux_arm64``. In a directory
of the caller's all files are the caller's, as BuildKit's client has it; what is there already and
has no counterpart stays. An archive keeps owners. With SOURCE_DATE_EPOCH all times are that one.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.images import extraction, tar, tar_writer, tree
from ketch.images.pieces import Pieces
from ketch.linux.scopes import owned

if TYPE_CHECKING:
    from typing import BinaryIO

Files = tuple[str, int]
"""A platform, and a descriptor of the root of its files."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MODE_DIRECTORY = 0o755


def write_archive(
    results: Sequence[Files], stream: "BinaryIO", *, split: bool, epoch_ns: int | None = None
) -> int:
    """Write files as a tar archive.

    Args:
        results: of each platform.
        stream: where to.
        split: whether each platform has a directory of its own, whatever their number.
        epoch_ns: the time that all of it has, None for its own.

    Returns:
        Bytes written.

    Raises:
        UnavailableError: something cannot be read or written.
    """
    written = 0
    try:
        for piece in _archived(results, split=split, epoch_ns=epoch_ns):
            stream.write(piece)
            written += len(piece)
        stream.flush()
    except OSError as error:
        raise UnavailableError(f"cannot write the archive: {error.strerror}") from error
    return written


def write_directory(
    results: Sequence[Files], path: str, *, split: bool, epoch_ns: int | None = None
) -> int:
    """Write files into a directory, which is made where it is missing.

    Args:
        results: of each platform.
        path: of the directory.
        split: as above.
        epoch_ns: as above.

    Returns:
        Bytes read for it.

    Raises:
        InvalidArgumentError: there is something else at the path.
        UnavailableError: something cannot be read or written.
    """
    try:
        os.makedirs(path, exist_ok=True)
        directory = os.open(path, _DIRECTORY)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidArgumentError(f"destination directory {path} is a file") from error
    except OSError as error:
        raise UnavailableError(f"cannot write to {path}: {error.strerror}") from error
    caller = (os.geteuid(), os.getegid())
    with owned(directory):
        stream = Pieces(_archived(results, split=split, epoch_ns=epoch_ns))
        try:
            extraction.extract(directory, b"", stream, keep_kinds=False, owned=lambda *_: caller)
        finally:
            stream.close()
    return stream.read_bytes


def _archived(results: Iterable[Files], *, split: bool, epoch_ns: int | None) -> Iterator[bytes]:
    """Yield one archive of all files."""
    results = list(results)
    split = split or len(results) > 1
    for platform, root in results:
        prefix = b""
        if split:
            prefix = f"{platform.replace('/', '_')}/".encode()
            entry = tar.Entry(prefix.rstrip(b"/"), tar.DIRECTORY)
            entry.mode, entry.mtime_ns = _MODE_DIRECTORY, epoch_ns or 0
            yield tar_writer.header(entry)
        archiver = tree.Archiver(mtime_ns=epoch_ns)
        yield from archiver.below(root, prefix, crosses=lambda _: False)
    yield tar_writer.END
