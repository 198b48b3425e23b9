"""``$NOTIFY_SOCKET``: what a container's program tells its supervisor, sd_notify(3).

A supervisor such as systemd takes messages from a service's own cgroup alone, and its socket is out
of a container's sight. So the container has a socket of ours, ``/run/notify/notify.sock``, and of
what arrives there ``READY=`` is passed on, with ``MAINPID=`` of the container's init when nobody of
ours stays with it; what else it might say (``STOPPING=1``, ``WATCHDOG=1``) is not, as with runc.

Source: sd_notify(3), runc's docs/systemd.md.
"""

import _socket
import os
import select

from ketch.linux import process
from ketch.linux.scopes import owned
from ketch.runtime.state import NOTIFY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.state import Entry
    from ketch.spec.runtime import Config

_INSIDE = "/run/notify"
_SOCKET = "notify.sock"
_MESSAGE_BYTES_MAX = 4096
_BARRIER_MS = 30_000


def show(config: "Config", entry: "Entry") -> None:
    """Let a container see its socket's directory, and tell its program where that is."""
    directory = f"{entry.path}/{NOTIFY}"
    os.mkdir(directory, 0o755)
    config.setdefault("mounts", []).append({
        "destination": _INSIDE, "type": "bind", "source": directory,
        "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
    })  # fmt: skip
    environment = config["process"].setdefault("env", [])
    environment.append(f"NOTIFY_SOCKET={_INSIDE}/{_SOCKET}")


def listen(entry: "Entry") -> "Listener | None":
    """Open a container's socket; None where it was made without one."""
    try:
        return Listener(f"{entry.path}/{NOTIFY}")
    except FileNotFoundError:
        return None


class Listener:
    """A container's socket, and the way to the supervisor; a context manager that closes it."""

    __slots__ = ("_socket",)

    def __init__(self, directory: str) -> None:
        kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        # By the directory's descriptor, since a socket's path may have at most 107 bytes: unix(7).
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = _socket.socket(_socket.AF_UNIX, kind)
        with owned(place):
            self._socket.bind(f"/proc/self/fd/{place}/{_SOCKET}")
            # Whoever the program is in there.
            os.chmod(_SOCKET, 0o777, dir_fd=place)

    def __enter__(self) -> "Listener":
        """Returns the listener."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()

    def fileno(self) -> int:
        """The socket's descriptor, for polling."""
        return self._socket.fileno()

    def wait(self, pid: int, pidfd: int) -> None:
        """Wait until the program has said that it is ready, or has ended.

        Args:
            pid: the container's init, which the supervisor is told to watch.
            pidfd: its descriptor.
        """
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        while ready := poll.poll():
            if any(descriptor == self._socket.fileno() for descriptor, _ in ready):
                if self.take(pid):
                    return
            else:
                return

    def take(self, pid: int = 0) -> bool:
        """Read what has arrived, and pass it on.

        Args:
            pid: of init, where the supervisor is to watch that; else 0.

        Returns:
            Whether it was that the program is ready.
        """
        try:
            message = self._socket.recv(_MESSAGE_BYTES_MAX)
        except (BlockingIOError, ConnectionError):
            return False
        for line in message.split(b"\n"):
            if line.startswith(b"READY="):
                _tell(line, pid)
                return True
        return False


def _tell(line: bytes, pid: int) -> None:
    """Tell the supervisor, and wait until it has taken that from us, whom it knows."""
    name = os.fsencode(os.environ["NOTIFY_SOCKET"])
    address = b"\0" + name[1:] if name.startswith(b"@") else name
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        client.connect(address)
        client.send(line + b"\n")
        if pid:
            client.send(f"MAINPID={pid}\n".encode())
        client.sendmsg([b"BARRIER=1"], process.rights(writer))
        os.close(writer)
        writer = -1
        poll = select.poll()
        poll.register(reader, 0)  # its other ends are closed
        poll.poll(_BARRIER_MS)
    except OSError:
        return  # there is nobody any more who wants to know
    finally:
        client.close()
        os.close(reader)
        if writer >= 0:
            os.close(writer)
