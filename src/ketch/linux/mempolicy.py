"""On which memory nodes a process's pages are allocated: set_mempolicy(2), numa(7)."""

import ctypes

from ketch.linux import libc

MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
FLAGS = {
    "MPOL_F_STATIC_NODES": 1 << 15,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_NUMA_BALANCING": 1 << 13,
}
_LONG_BITS = 8 * ctypes.sizeof(ctypes.c_ulong)


def set_mempolicy(mode: str, flags: int, nodes: set[int]) -> None:
    """Set the caller's memory policy, which execve(2) keeps.

    Args:
        mode: a name of MODES.
        flags: values of FLAGS.
        nodes: the memory nodes.

    Raises:
        SyscallError: EINVAL where no given node exists, or the mode wants others, or is newer than
            this kernel; ENOSYS where the kernel knows no memory nodes.
    """
    words = max(nodes, default=0) // _LONG_BITS + 1
    mask = (ctypes.c_ulong * words)()
    for node in nodes:
        mask[node // _LONG_BITS] |= 1 << node % _LONG_BITS
    # The kernel takes one bit less than it is told: set_mempolicy(2), "BUGS" of get_nodes().
    bits = words * _LONG_BITS + 1
    libc.syscall(
        "set_mempolicy", f"{mode} {sorted(nodes)}", MODES[mode] | flags,
        ctypes.byref(mask) if nodes else None, ctypes.c_ulong(bits if nodes else 0),
    )  # fmt: skip
