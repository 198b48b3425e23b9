"""Project quotas: a limit on what a directory tree takes, on ext4 and xfs.

Files belong to a project by a number in their inode, which new ones have from their directory.
Source: quotactl(2), ioctl FS_IOC_FSSETXATTR (linux/fs.h), xfs_quota(8); quotactl_fd, Linux 5.14.
"""

import ctypes
import fcntl
import struct

from ketch.linux import libc

_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FSXATTR = struct.Struct("=IIIII8x")  # xflags, extsize, nextents, projid, cowextsize
_XFLAG_PROJINHERIT = 0x200

_PROJECT = 2
_Q_XSETQLIM = 0x5804

_FS_DQUOT_VERSION = 1
_FS_PROJ_QUOTA = 2
_FS_DQ_BHARD = 1 << 3
_FS_DQ_BSOFT = 1 << 2

_BASIC_BLOCK_BYTES = 512


class _DiskQuota(ctypes.Structure):
    """struct fs_disk_quota: linux/dqblk_xfs.h."""

    _fields_ = (
        ("version", ctypes.c_int8),
        ("flags", ctypes.c_int8),
        ("fieldmask", ctypes.c_uint16),
        ("id", ctypes.c_uint32),
        ("blk_hardlimit", ctypes.c_uint64),
        ("blk_softlimit", ctypes.c_uint64),
        ("ino_hardlimit", ctypes.c_uint64),
        ("ino_softlimit", ctypes.c_uint64),
        ("bcount", ctypes.c_uint64),
        ("icount", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 48),
    )


def set_project(directory: int, project: int) -> None:
    """Put a directory, and what will be made in it, into a project.

    Args:
        directory: its descriptor.
        project: the project's number, not 0.

    Raises:
        OSError: the file system knows no projects (ENOTTY, EOPNOTSUPP).
    """
    xflags, extsize, nextents, _, cowextsize = _FSXATTR.unpack(
        fcntl.ioctl(directory, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size))
    )
    wanted = _FSXATTR.pack(xflags | _XFLAG_PROJINHERIT, extsize, nextents, project, cowextsize)
    fcntl.ioctl(directory, _FS_IOC_FSSETXATTR, wanted)


def limit_project(directory: int, project: int, size_bytes: int) -> None:
    """Limit how much the files of a project may take together.

    Args:
        directory: descriptor of anything on the file system.
        project: the project's number.
        size_bytes: the limit, 0 for none.

    Raises:
        SyscallError: quotas of projects are not switched on there (ESRCH), or this kernel or file
            system has none (ENOSYS).
    """
    blocks = -(-size_bytes // _BASIC_BLOCK_BYTES)
    quota = _DiskQuota(
        version=_FS_DQUOT_VERSION,
        flags=_FS_PROJ_QUOTA,
        fieldmask=_FS_DQ_BHARD | _FS_DQ_BSOFT,
        id=project,
        blk_hardlimit=blocks,
        blk_softlimit=blocks,
    )
    detail = f"project {project}, {size_bytes} bytes"
    _quotactl(directory, _Q_XSETQLIM, project, quota, detail)


def _quotactl(directory: int, command: int, project: int, quota: _DiskQuota, detail: str) -> None:
    operation = ctypes.c_uint32((command << 8) | _PROJECT)
    libc.syscall(
        "quotactl_fd", detail, directory, operation, ctypes.c_uint32(project), ctypes.byref(quota)
    )
