"""The loopback interface of a new network namespace: netdevice(7)."""

import _socket
import fcntl
import struct

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFF_RUNNING = 0x40


def switch_on() -> None:
    """Switch the caller's ``lo`` on, which gives it 127.0.0.1 and ::1.

    Two system calls where rtnetlink, of which this needs nothing, takes modules to load.
    """
    request = struct.pack("16sH22x", b"lo", _IFF_UP | _IFF_RUNNING)
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, request)
    finally:
        control.close()
