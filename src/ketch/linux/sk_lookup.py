"""Programs that choose which socket takes what arrives: BPF_PROG_TYPE_SK_LOOKUP (Linux 5.9).

Source: Documentation/bpf/prog_sk_lookup.rst.
"""

import ctypes
import os

from ketch.linux import bpf
from ketch.linux.scopes import owned

# Fields of ``struct bpf_sk_lookup``, <linux/bpf.h>, by their offset in bytes.
PROTOCOL = 12
LOCAL_IP4 = 40  # in the packet's byte order
LOCAL_PORT = 60  # in this machine's byte order

SK_PASS = 1

# Functions that a program may call.
MAP_LOOKUP_ELEM = 1
SK_RELEASE = 86
SK_ASSIGN = 124

_MAP_CREATE = 0
_MAP_UPDATE_ELEM = 2
_LINK_CREATE = 28

_MAP_TYPE_SOCKMAP = 15
_PROG_TYPE_SK_LOOKUP = 30
_SK_LOOKUP = 36  # the attach type


class _MapCreate(ctypes.Structure):
    _fields_ = (
        ("map_type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    )


class _MapElement(ctypes.Structure):
    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class _LinkCreate(ctypes.Structure):
    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


def socket_map(sockets: "list[int]") -> int:
    """Make an array of sockets for a program to choose from (BPF_MAP_TYPE_SOCKMAP).

    Args:
        sockets: descriptors: bound UDP sockets and listening TCP sockets.

    Returns:
        Its descriptor, close-on-exec, owned by the caller.

    Raises:
        SyscallError: EPERM without CAP_BPF and CAP_NET_ADMIN.
    """
    made = bpf.call(
        _MAP_CREATE, "MAP_CREATE, sockets",
        _MapCreate(
            map_type=_MAP_TYPE_SOCKMAP, key_size=4, value_size=8, max_entries=len(sockets)
        ),
    )  # fmt: skip
    try:
        for index, socket in enumerate(sockets):
            key, value = ctypes.c_uint32(index), ctypes.c_uint64(socket)
            bpf.call(
                _MAP_UPDATE_ELEM, f"MAP_UPDATE_ELEM, socket {index}",
                _MapElement(
                    map_fd=made, key=ctypes.addressof(key), value=ctypes.addressof(value)
                ),
            )  # fmt: skip
    except BaseException:
        os.close(made)
        raise
    return made


def attach(namespace: int, instructions: bytes) -> int:
    """Have a program choose for all that arrives in a network namespace.

    Args:
        namespace: descriptor of the namespace.
        instructions: the program; see ``ketch.spec.bpf``.

    Returns:
        Descriptor of the attachment, close-on-exec, owned by the caller; it lasts as long.

    Raises:
        SyscallError: EPERM without CAP_BPF and CAP_NET_ADMIN; EINVAL before Linux 5.9.
    """
    with owned(
        bpf.load_program(
            _PROG_TYPE_SK_LOOKUP, _SK_LOOKUP, "ketch_names", instructions, license="GPL"
        )
    ) as program:
        return bpf.call(
            _LINK_CREATE, "LINK_CREATE, socket lookup",
            _LinkCreate(prog_fd=program, target_fd=namespace, attach_type=_SK_LOOKUP),
        )  # fmt: skip
