"""Sparse files: holes are found, not read, and what is copied keeps them.

To read a hole costs the kernel more than to read data that it has in memory, since it makes pages
of zeros first. So files are asked where their data is (lseek(2), SEEK_DATA), and a hole is handed
on as slices of one constant, ``ZEROS``, which whoever writes knows without a look.
"""

import errno
import itertools
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES = 1 << 18
ZEROS = bytes(PIECE_BYTES)
HOLE_BYTES_MIN = 1 << 16  # shorter ones are read and written as data

_COPY_BYTES_MAX = 1 << 30
# Whatever copy_file_range(2) cannot do between two files, sendfile(2) may: not the same file
# system, a pipe, a file opened to be appended to.
_ONLY_SENDFILE = {errno.EXDEV, errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS}


def pread(descriptor: int, size_bytes: int, offset: int) -> bytes:
    """Read part of a file as pread(2) does, but no holes: where one is, ``ZEROS`` or its start.

    Args:
        descriptor: the file; its position may change.
        size_bytes: how much to return at most; it is never more than PIECE_BYTES.
        offset: where to begin.
    """
    size_bytes = min(size_bytes, PIECE_BYTES)
    if size_bytes >= HOLE_BYTES_MIN:
        hole_bytes = _hole_bytes(descriptor, offset)
        if hole_bytes >= HOLE_BYTES_MIN:
            return ZEROS[: min(size_bytes, hole_bytes)]  # all of it is the very same object
    return os.pread(descriptor, size_bytes, offset)


def pieces(path: str) -> "Iterator[bytes]":
    """Yield a file's content, holes as ``pread`` has them."""
    offset = 0
    with open(path, "rb", buffering=0) as file:
        while piece := pread(file.fileno(), PIECE_BYTES, offset):
            offset += len(piece)
            yield piece


def read(descriptor: int, size_bytes: int) -> bytes:
    """Read on from where a descriptor is: of a file as ``pread`` does, else as read(2)."""
    try:
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:  # a pipe
        return os.read(descriptor, size_bytes)
    content = pread(descriptor, size_bytes, position)
    os.lseek(descriptor, position + len(content), os.SEEK_SET)
    return content


def append(descriptor: int, content: bytes | memoryview) -> None:
    """Write all of some content where a new file ends; many zeros become a hole.

    The file has its whole length at once, for those who read it meanwhile.
    """
    if len(content) >= HOLE_BYTES_MIN and is_zeros(content):
        os.ftruncate(descriptor, os.lseek(descriptor, len(content), os.SEEK_CUR))
        return
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def is_zeros(content: bytes | memoryview) -> bool:
    """Whether a piece of content, of PIECE_BYTES at most, is all zeros."""
    # A view's object is not copied where the view shows all of it, as it mostly does.
    whole = content.obj if isinstance(content, memoryview) else content
    if whole is ZEROS:
        return True
    if content[0] or content[-1]:
        return False
    if not isinstance(whole, bytes) or len(whole) != len(content):
        whole = bytes(content)
    return whole == ZEROS[: len(whole)]


def copy(
    source: int, target: int, size_bytes: int, data_bytes_max: int | None = None
) -> "Iterator[int]":
    """Have the kernel copy a file, from its start, to where another one's position is.

    Holes become holes at the end of a regular file, and zeros elsewhere. So does what is missing
    where the file is shorter.

    Args:
        source: the file, which can be read anywhere.
        target: a file, a pipe, a socket.
        size_bytes: how much to copy.
        data_bytes_max: how much of that may be data: who writes to the file meanwhile could have
            any hole be data when it is come to.

    Yields:
        How much has been copied so far.

    Raises:
        OSError: it cannot be read or written, or the kernel cannot copy between these two; with
            EFBIG, there is more data.
    """
    keeps_holes = is_at_end(target)
    position = data_bytes = 0
    for begin, end in itertools.chain(_extents(source, size_bytes), [(size_bytes, size_bytes)]):
        while position < begin:
            if keeps_holes:
                os.ftruncate(target, os.lseek(target, begin - position, os.SEEK_CUR))
                position = begin
            else:
                position += os.write(target, ZEROS[: begin - position])
            yield position
        data_bytes += end - begin
        if data_bytes_max is not None and data_bytes > data_bytes_max:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        while position < end and (copied := _copy_some(source, target, end - position, position)):
            position += copied
            yield position


def next_data(descriptor: int, offset: int) -> int | None:
    """Where a file has data from a place on; None where all the rest is a hole.

    Raises:
        OSError: the file cannot be asked.
    """
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def is_at_end(descriptor: int) -> bool:
    """Whether a descriptor's position is where a regular file ends, so that holes can be there."""
    status = os.fstat(descriptor)
    return stat.S_ISREG(status.st_mode) and os.lseek(descriptor, 0, os.SEEK_CUR) >= status.st_size


def _copy_some(source: int, target: int, size_bytes: int, offset: int) -> int:
    size_bytes = min(size_bytes, _COPY_BYTES_MAX)
    try:
        return os.copy_file_range(source, target, size_bytes, offset)
    except OSError as error:
        if error.errno not in _ONLY_SENDFILE:
            raise
    return os.sendfile(target, source, offset, size_bytes)


def _hole_bytes(descriptor: int, offset: int) -> int:
    """Returns how long the hole at a place is, 0 where there is data."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA) - offset
    except OSError as error:
        if error.errno != errno.ENXIO:
            return 0  # no file to seek in
        return max(os.fstat(descriptor).st_size - offset, 0)  # up to the file's end


def _extents(descriptor: int, size_bytes: int) -> "Iterator[tuple[int, int]]":
    """Yield where a file has data, as begin and end, within its first bytes."""
    end = 0
    while end < size_bytes:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
            end = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size_bytes)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        if begin < end:
            yield begin, end
