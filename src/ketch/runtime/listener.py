"""Handing a system call filter's notifications to the supervisor that the configuration names.

Source: runtime-spec config-linux.md "seccomp", "The Container Process State"; seccomp_unotify(2).
"""

import _socket
import os

from ketch.errors import UnavailableError
from ketch.linux import process
from ketch.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.runtime import ContainerProcessState, Seccomp, State

_NAME = "seccompFd"


def hand_over(section: "Seccomp", descriptor: int, pid: int, told: "State") -> None:
    """Send a filter's listener to ``listenerPath``.

    Args:
        section: ``linux.seccomp``.
        descriptor: the listener; stays the caller's.
        pid: the filtered process, as the runtime sees it.
        told: the container's state.

    Raises:
        UnavailableError: nobody listens there.
    """
    message: ContainerProcessState = {
        "ociVersion": told["ociVersion"],
        "fds": [_NAME],
        "pid": pid,
        "state": told,
    }
    if metadata := section.get("listenerMetadata"):
        message["metadata"] = metadata
    path = section.get("listenerPath", "")
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(path)
        data = json_text.dumps(message).encode()
        sent = connection.sendmsg([data], process.rights(descriptor), _socket.MSG_NOSIGNAL)
        while sent < len(data):
            sent += connection.send(data[sent:], _socket.MSG_NOSIGNAL)
    except OSError as error:
        raise UnavailableError(
            f"linux.seccomp.listenerPath: {path}: {os.strerror(error.errno or 0).lower()}",
            "start the supervisor of the notifications first",
        ) from error
    finally:
        connection.close()
