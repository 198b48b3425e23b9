"""BPF programs: bpf(2). Those that decide on device access in a cgroup v2 directory are here."""

import ctypes
import errno
import os

from ketch.errors import SyscallError
from ketch.linux import libc

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_DETACH = 9
_PROG_GET_FD_BY_ID = 13
_PROG_QUERY = 16

_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6  # the attach type

_ALLOW_MULTI = 2
_REPLACE = 4

_INSTRUCTION_BYTES = 8
_MAXIMUM_PROGRAMS = 64  # BPF_CGROUP_MAX_PROGS


class _Load(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", ctypes.c_uint32),
        ("expected_attach_type", ctypes.c_uint32),
    )


class _Attach(ctypes.Structure):
    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("replace_bpf_fd", ctypes.c_uint32),
    )


class _Query(ctypes.Structure):
    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64),
        ("prog_cnt", ctypes.c_uint32),
    )


class _ById(ctypes.Structure):
    _fields_ = (
        ("prog_id", ctypes.c_uint32),
        ("next_id", ctypes.c_uint32),
        ("open_flags", ctypes.c_uint32),
    )


def call(command: int, detail: str, attributes: ctypes.Structure) -> int:
    """Make the system call.

    Args:
        command: BPF_MAP_CREATE and its like.
        detail: what it is to do, for errors.
        attributes: the command's part of ``union bpf_attr``.
    """
    return libc.syscall("bpf", detail, command, ctypes.byref(attributes), ctypes.sizeof(attributes))


def load_program(
    kind: int,
    attach_type: int,
    name: str,
    instructions: bytes,
    *,
    license: str,  # noqa: A002
) -> int:
    """Verify and load a program (BPF_PROG_LOAD).

    Args:
        kind: BPF_PROG_TYPE_*.
        attach_type: what it will be attached to.
        name: what tools show it as, at most 15 bytes.
        instructions: see ``ketch.spec.bpf``.
        license: ``GPL`` where it calls functions that the kernel keeps for such programs.

    Returns:
        Its descriptor, close-on-exec, owned by the caller.

    Raises:
        SyscallError: EPERM without CAP_BPF (CAP_SYS_ADMIN before Linux 5.8); EINVAL or EACCES
            when the verifier refused it.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_text = ctypes.create_string_buffer(license.encode())
    attributes = _Load(
        prog_type=kind,
        insn_cnt=len(instructions) // _INSTRUCTION_BYTES,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(license_text),
        prog_name=name.encode(),
        expected_attach_type=attach_type,
    )
    while True:
        try:
            return call(_PROG_LOAD, f"PROG_LOAD, {name}", attributes)
        except SyscallError as error:
            # The verifier gives up with EAGAIN when a signal is pending.
            if error.errno != errno.EAGAIN:
                raise


def load_device_program(instructions: bytes) -> int:
    """Load a program of type BPF_PROG_TYPE_CGROUP_DEVICE (Linux 4.15): see ``load_program``."""
    return load_program(
        _PROG_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE, "ketch_devices", instructions,
        license="Apache-2.0",
    )  # fmt: skip


def device_programs(cgroup: int) -> tuple[list[int], int]:
    """The device programs attached to a cgroup v2 directory itself (Linux 4.17).

    Returns:
        Their ids, and the flags they are attached with.
    """
    ids = (ctypes.c_uint32 * _MAXIMUM_PROGRAMS)()
    attributes = _Query(
        target_fd=cgroup,
        attach_type=_CGROUP_DEVICE,
        prog_ids=ctypes.addressof(ids),
        prog_cnt=_MAXIMUM_PROGRAMS,
    )
    call(_PROG_QUERY, "PROG_QUERY, device programs", attributes)
    return list(ids[: attributes.prog_cnt]), attributes.attach_flags


def attach_device_program(cgroup: int, instructions: bytes) -> None:
    """Load a device program and make it the only one attached to a cgroup v2 directory.

    An earlier program is replaced in one step (BPF_F_REPLACE, Linux 5.6), so at no moment does
    the cgroup run without one. Programs of its ancestors hold as well: all must allow.

    Args:
        cgroup: descriptor of the directory.
        instructions: see ``load_device_program``.

    Raises:
        SyscallError: see ``load_device_program``; EPERM also when an ancestor's program was
            attached so that descendants cannot add theirs.
    """
    program = load_device_program(instructions)
    earlier: list[int] = []
    try:
        ids, flags = device_programs(cgroup)
        earlier.extend(call(_PROG_GET_FD_BY_ID, f"id {id_}", _ById(prog_id=id_)) for id_ in ids)
        attributes = _Attach(
            target_fd=cgroup,
            attach_bpf_fd=program,
            attach_type=_CGROUP_DEVICE,
            # Without ALLOW_MULTI there is room for one program, which a new one replaces anyway.
            attach_flags=flags if ids else _ALLOW_MULTI,
        )
        if attributes.attach_flags & _ALLOW_MULTI and ids:
            attributes.attach_flags |= _REPLACE
            attributes.replace_bpf_fd = earlier[0]
        call(_PROG_ATTACH, "PROG_ATTACH, device program", attributes)
        for other in earlier[1:]:
            call(
                _PROG_DETACH,
                "PROG_DETACH, earlier device program",
                _Attach(target_fd=cgroup, attach_bpf_fd=other, attach_type=_CGROUP_DEVICE),
            )
    finally:
        for descriptor in (program, *earlier):
            os.close(descriptor)
