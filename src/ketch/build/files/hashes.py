"""Hashes of files that were read before, so that the next build need not read them again.

What a file is known by is device, inode, size and its times of modification and change. A change
sets the latter, which nobody can set back; but it goes in ticks of some milliseconds, so what was
changed just before it was read might be changed once more in the same tick. Such a file is not
remembered, and read again the next time: git's racily clean files. What is remembered is a file a
context, of records of one size; who finds it damaged, or none, begins anew.
"""

import hashlib
import os
import struct

from ketch.linux.scopes import owned, suppress

_MAGIC = b"ketch file hashes 1\n"
_KEY = struct.Struct("=5Q")
_64_BITS = (1 << 64) - 1
_HASH_BYTES = 32
_RECORD_BYTES = _KEY.size + _HASH_BYTES
# 19 MB on the disk, some 60 in memory; of larger contexts the rest is read each time.
_RECORDS_MAX = 1 << 18
_SETTLED_NS = 2_000_000_000

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Hashes:
    """What is known of one context's files.

    Args:
        directory: descriptor of the directory that its file is in, which stays the caller's.
        name: the file's name: one a context.
    """

    __slots__ = ("_changed", "_directory", "_known", "_name", "_used")

    def __init__(self, directory: int, name: str) -> None:
        self._directory = directory
        self._name = name
        self._known = _records(directory, name)
        self._used: dict[bytes, bytes] = {}
        self._changed = False

    def get(self, status: os.stat_result) -> bytes | None:
        """Returns what was put for a file that is as it was then; None where nothing was."""
        key = _key(status)
        found = self._used.get(key)
        if found is None:
            found = self._known.get(key)
            if found is not None:
                self._used[key] = found
        return found

    def put(self, status: os.stat_result, value: bytes, begun_ns: int) -> None:
        """Remember something of a file, of 32 bytes.

        Args:
            status: what the file was like before and after it was read.
            value: what is remembered.
            begun_ns: when it began to be read, by ``time.time_ns``.
        """
        if begun_ns - status.st_ctime_ns < _SETTLED_NS:
            return
        if len(self._used) < _RECORDS_MAX:
            self._used[_key(status)] = value
            self._changed = True

    def save(self) -> None:
        """Keep what was made use of, and as much of the rest as there is room for.

        Raises:
            OSError: it cannot be written. What was kept before is still there.
        """
        if not self._changed:
            return
        used = dict(self._used)  # others may put more meanwhile
        room = _RECORDS_MAX - len(used)
        rest = [one for one in self._known.items() if one[0] not in used][:room]
        content = _MAGIC + b"".join([key + value for key, value in [*used.items(), *rest]])
        draft = f".{self._name}-{os.urandom(8).hex()}"
        try:
            with owned(os.open(draft, _NEW, 0o600, dir_fd=self._directory)) as file:
                left = memoryview(content + hashlib.sha256(content).digest())
                while left:
                    left = left[os.write(file, left) :]
            os.rename(draft, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=self._directory)
            raise
        self._changed = False


def _key(status: os.stat_result) -> bytes:
    return _KEY.pack(
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns & _64_BITS,  # before 1970, or after 2262, it does not fit
        status.st_ctime_ns & _64_BITS,
    )


def _records(directory: int, name: str) -> dict[bytes, bytes]:
    try:
        descriptor = os.open(name, _READ, dir_fd=directory)
    except OSError:
        return {}
    limit = len(_MAGIC) + _RECORDS_MAX * _RECORD_BYTES + _HASH_BYTES
    with owned(descriptor), suppress(OSError):
        size = os.fstat(descriptor).st_size
        if size > limit:
            return {}
        content = bytearray()
        while part := os.read(descriptor, limit + 1 - len(content)):
            content += part
        records, check = content[:-_HASH_BYTES], content[-_HASH_BYTES:]
        length = len(records) - len(_MAGIC)
        if (
            records.startswith(_MAGIC)
            and length % _RECORD_BYTES == 0
            and hashlib.sha256(records).digest() == check
        ):
            view = bytes(records)
            return {
                view[at : at + _KEY.size]: view[at + _KEY.size : at + _RECORD_BYTES]
                for at in range(len(_MAGIC), len(view), _RECORD_BYTES)
            }
    return {}
