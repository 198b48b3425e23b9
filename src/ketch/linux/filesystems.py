"""Which file system holds a path: proc_pid_mounts(5)."""

import os

from ketch.linux.procfs import unescape

# Whose servers keep the files: overlayfs takes none of them for its upper layer, and what is
# locked here is locked on this machine alone, or slowly.
_NETWORKED = {
    "nfs", "nfs4", "cifs", "smb3", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs",
    "fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "9p", "pvfs2", "panfs",
}  # fmt: skip


def is_networked(path: str) -> bool:
    """Whether another machine keeps the files of a path, and may show them to others still."""
    return kind(path) in _NETWORKED


def kind(path: str) -> str:
    """The type of the file system that holds a path, as the kernel calls it; empty if unknown.

    Args:
        path: what is there, or is to be made.
    """
    real = os.path.realpath(path)
    best, found = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                place, kind_here = (unescape(field) for field in line.split()[1:3])
                if len(place) >= len(best) and f"{real}/".startswith(f"{place.rstrip('/')}/"):
                    best, found = place, kind_here
    except OSError:
        return ""
    return found
