"""How a process is scheduled, on the processors and on the disks: sched(7), ioprio_set(2)."""

import ctypes

from ketch.linux import libc

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,  # reserved by the kernel, which refuses it
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}

_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def sched_setattr(
    pid: int,
    policy: str,
    *,
    flags: int = 0,
    nice: int = 0,
    priority: int = 0,
    runtime_ns: int = 0,
    deadline_ns: int = 0,
    period_ns: int = 0,
) -> None:
    """Set a process's scheduling policy and its attributes: sched_setattr(2).

    Args:
        pid: the process, 0 for the caller.
        policy: a name of POLICIES.
        flags: values of FLAGS.
        nice: -20 to 19, under SCHED_OTHER and SCHED_BATCH.
        priority: 1 to 99, under SCHED_FIFO and SCHED_RR.
        runtime_ns: of SCHED_DEADLINE: how long it runs in each period.
        deadline_ns: when it must have run.
        period_ns: the period.

    Raises:
        SyscallError: EPERM without CAP_SYS_NICE; EINVAL for values that do not go together; EBUSY
            where the processors are promised to other deadline tasks.
    """
    attributes = _Attributes(
        ctypes.sizeof(_Attributes),
        POLICIES[policy],
        flags,
        nice,
        priority,
        runtime_ns,
        deadline_ns,
        period_ns,
    )
    libc.syscall("sched_setattr", policy, pid, ctypes.byref(attributes), 0)


def ioprio_set(pid: int, io_class: str, priority: int) -> None:
    """Set a process's input and output priority: ioprio_set(2).

    Args:
        pid: the process, 0 for the caller.
        io_class: a name of IO_CLASSES.
        priority: 0, the highest, to 7.

    Raises:
        SyscallError: EPERM for IOPRIO_CLASS_RT without CAP_SYS_NICE.
    """
    value = IO_CLASSES[io_class] << _IOPRIO_CLASS_SHIFT | priority
    libc.syscall("ioprio_set", f"{io_class} {priority}", _IOPRIO_WHO_PROCESS, pid, value)
