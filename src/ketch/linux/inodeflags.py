"""The flags that chattr(1) sets: ioctl_iflags(2)."""

import errno
import fcntl
import struct

_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602

IMMUTABLE = 0x10
APPEND_ONLY = 0x20
TOPDIR = 0x20000  # "the top of directory hierarchies": ext4 spreads its subdirectories

# What file systems without such flags answer, and those that do not know the one.
_UNKNOWN = {errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


def change(descriptor: int, *, add: int = 0, remove: int = 0) -> None:
    """Add and remove flags of an open file or directory, where its file system knows any.

    Raises:
        OSError: the file system knows them, and the caller may not.
    """
    try:
        flags = struct.unpack("l", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8)))[0]
        wanted = flags & ~remove | add
        if wanted != flags:
            fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("l", wanted))
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
