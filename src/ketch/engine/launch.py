"""How a start reaches a process that can do it: the zygote, or a new process of its own.

A zygote has everything loaded that a monitor needs and forks one in half a millisecond. It belongs
to a state directory and to the caller's user and namespaces, since what it forks inherits all
of them. Where none answers, a new process is started with the connection already made: it serves
that, and becomes the zygote unless another one is.
"""

import _socket
import binascii
import errno
import os
import sys

from ketch.errors import UnavailableError

CONNECTION = 3  # the descriptor on which a new process finds its first connection
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
# -I: no variable of the caller's environment and nothing in its directory counts; -S: no
# site-packages, whose .pth files could run anything. The package's directory comes by argument.
_BOOT = "import sys; sys.path.append(sys.argv[3]); from ketch.engine.zygote import main; main()"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings


def connect(settings: "Settings") -> _socket.socket:
    """Reach a process that takes one request.

    Args:
        settings: its ``state`` says where the zygote listens; ``zygote`` whether to ask one.

    Returns:
        A connected stream socket, close-on-exec, which the caller owns.

    Raises:
        UnavailableError: the state directory cannot be used, or no process can be started.
    """
    try:
        os.makedirs(settings.state, mode=0o700, exist_ok=True)
        directory = os.open(settings.state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(
            f"state directory {settings.state}: {(error.strerror or '').lower()}",
            "name another one with --state, or run as root",
        ) from error
    try:
        name = zygote_name()
        if settings.zygote:
            connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            try:
                # By descriptor, since a socket's path may have at most 107 bytes: unix(7).
                connection.connect(f"/proc/self/fd/{directory}/{name}.socket")
            except OSError as error:
                connection.close()
                if error.errno not in {errno.ENOENT, errno.ECONNREFUSED}:
                    raise
            else:
                return connection
    finally:
        os.close(directory)
    return _start(settings, name if settings.zygote else "")


def zygote_name() -> str:
    """Name of the zygote that serves callers with this process's user, root and namespaces."""
    root = os.stat("/")
    facts = [str(os.getuid()), f"{root.st_dev}:{root.st_ino}"]
    facts += [os.readlink(f"/proc/self/ns/{kind}") for kind in _NAMESPACES]
    return f"zygote-{binascii.crc32(' '.join(facts).encode()):08x}"


def command_line(state: str, name: str, *, sealed: bool = False) -> list[str]:
    """Arguments of an interpreter that runs the zygote.

    Args:
        state: the state directory.
        name: the zygote's name there, empty for a process that serves one request only.
        sealed: whether the interpreter is already the copy that no container can write.
    """
    package_parent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    role = "ketch-zygote" if name else "ketch-monitor"
    words = [sys.executable, "-I", "-S", "-c", _BOOT, role, state, package_parent, name]
    return [*words, "sealed"] if sealed else words


def _start(settings: "Settings", name: str) -> _socket.socket:
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    arguments = command_line(settings.state, name)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_spawn(
            sys.executable,
            arguments,
            {},
            file_actions=[
                *((os.POSIX_SPAWN_DUP2, null, number) for number in range(3)),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), CONNECTION),
            ],
            setsid=True,
        )
    except OSError as error:
        ours.close()
        raise UnavailableError(f"cannot start {sys.executable}: {error.strerror}") from error
    finally:
        theirs.close()
        os.close(null)
    return ours
