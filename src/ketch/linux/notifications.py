"""What a system call filter asks its supervisor: seccomp_unotify(2)."""

import errno
import fcntl
import os
import struct

FLAG_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE: the kernel goes on as if nobody had asked

_RECEIVE, _SEND, _IS_VALID = 0xC0502100, 0xC0182101, 0x40082102
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp


class Notification:
    """A system call that waits for its answer.

    Attributes:
        cookie: which it is.
        pid: who calls, as the supervisor's PID namespace has it.
        number: of the call.
        architecture: AUDIT_ARCH_* of the call.
        arguments: six.
    """

    __slots__ = ("architecture", "arguments", "cookie", "number", "pid")

    def __init__(self, data: bytes | bytearray) -> None:
        self.cookie, self.pid, _, self.number, self.architecture, _, *rest = _NOTIFICATION.unpack(
            data
        )
        self.arguments: list[int] = rest


def receive(listener: int) -> Notification | None:
    """Take the next notification; None where its caller has gone meanwhile.

    Raises:
        OSError: the listener is of no use any more.
    """
    data = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, data)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINTR}:
            return None
        raise
    return Notification(data)


def is_waiting(listener: int, notification: Notification) -> bool:
    """Whether its caller still waits: then what was found by its pid is its own."""
    try:
        fcntl.ioctl(listener, _IS_VALID, struct.pack("=Q", notification.cookie))
    except OSError:
        return False
    return True


def answer(listener: int, notification: Notification, error: int = 0, flags: int = 0) -> None:
    """Answer a call: 0 or an errno(3), or with FLAG_CONTINUE let it happen."""
    data = bytearray(_ANSWER.pack(notification.cookie, 0, -error, flags))
    try:
        fcntl.ioctl(listener, _SEND, data)
    except OSError as failure:
        if failure.errno != errno.ENOENT:  # it has been interrupted, or killed
            raise


def text_at(memory: int, address: int, bytes_max: int = 4096) -> bytes:
    """Returns a string in a process's memory.

    Args:
        memory: descriptor of its /proc/PID/mem.
        address: where it begins.
        bytes_max: how much it may be, with its end.

    Raises:
        OSError: EFAULT where there is no memory; ENAMETOOLONG.
    """
    page = 4096
    found = b""
    while len(found) < bytes_max:
        size = min(page - (address + len(found)) % page, bytes_max - len(found))
        try:
            piece = os.pread(memory, size, address + len(found))
        except (OSError, OverflowError) as error:
            raise OSError(errno.EFAULT, "no such memory") from error
        if not piece:
            raise OSError(errno.EFAULT, "no such memory")
        found += piece
        if (end := found.find(b"\0")) >= 0:
            return found[:end]
    raise OSError(errno.ENAMETOOLONG, "no end")
