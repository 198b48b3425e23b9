"""How a command reaches a process that serves it: the zygote, a resolver, or one of its own.

A zygote has everything loaded that a monitor needs and forks one in half a millisecond. What it
forks inherits its limits, privileges and namespaces, so it serves only callers who are like the one
who started it in all of these; ``zygote_name`` says what they are. Where none listens, the caller
makes the socket and starts one behind it: whoever comes in the meantime waits in its queue.
"""

import _socket
import binascii
import errno
import os
import sys

from ketch.engine.requests import wire
from ketch.engine.settings import is_closed
from ketch.errors import ConflictError, UnavailableError

# Descriptors are closed by hand here, and by ``cli.client_configuration``: no client loads
# ``linux.scopes``, which would take 0.3 ms of each command.

MONITOR = "monitor"  # name of the socket in a container's runtime directory
SOCKET = 3  # the descriptor on which a new process finds what it is to serve
ERROR_LOG = "errors.log"
_BACKLOG = 128
_ANSWER_BYTES = 4096
_STARTING_SECONDS = 30

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
# Of /proc/self/status: credentials, privileges, and where the process may run.
_INHERITED = (
    b"Uid:", b"Gid:", b"Groups:", b"Cap", b"NoNewPrivs:", b"Seccomp", b"Cpus_allowed:",
    b"Mems_allowed:",
)  # fmt: skip
_INHERITED_FILES = ("limits", "oom_score_adj", "cgroup", "personality", "attr/current")

# -I: no variable of the caller's environment and nothing in its directory counts; -S: no
# site-packages, whose .pth files could run anything. The package's directory comes by argument.
_BOOT = (
    "import sys; sys.path.append(sys.argv[3]); from ketch.engine.monitor.zygote import main; main()"
)

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
    if settings.zygote:
        name = zygote_name()
        return reach(settings.state, name, command_line(settings.state, name))
    directory = _open_directory(settings.state)
    try:
        return _start_alone(settings, directory)
    except OSError as error:
        raise _unusable(settings.state, error) from error
    finally:
        os.close(directory)


def reach(
    state: str, name: str, words: list[str], kind: int = _socket.SOCK_STREAM
) -> _socket.socket:
    """Connect to the service of a name, which is started if it does not run.

    Args:
        state: the directory in which its socket is, made if it is missing.
        name: the socket's name, without its suffix.
        words: the interpreter's command line that starts the service; it finds the listening
            socket at descriptor SOCKET.
        kind: type of the socket.

    Returns:
        A connected socket, close-on-exec, which the caller owns.

    Raises:
        UnavailableError: the directory cannot be used, or the service cannot be started.
    """
    directory = _open_directory(state)
    try:
        return _reach(directory, name, kind) or _start(state, directory, name, words, kind)
    except OSError as error:
        raise _unusable(state, error) from error
    finally:
        os.close(directory)


def exec_socket(exec_id: str) -> str:
    """Name of the socket of an exec session with a terminal, in its container's directory."""
    return f"exec-{exec_id[:32]}"


def reach_monitor(settings: "Settings", container_id: str, name: str = MONITOR) -> _socket.socket:
    """Connect to the monitor of a container that runs; see ``wire``.

    Args:
        settings: the engine's places.
        container_id: the container.
        name: another socket of it: ``exec_socket``'s.

    Raises:
        ConflictError: there is none: the container does not run, or its monitor was killed.
    """
    try:
        directory = os.open(
            settings.runtime_directory(container_id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        )
        try:
            connection = _reach(directory, name)
        finally:
            os.close(directory)
    except FileNotFoundError:
        connection = None
    if connection is None:
        raise ConflictError(f"container {container_id} has no monitor that could be reached")
    return connection


def ask_monitor(
    settings: "Settings", container_id: str, fields: "dict[str, wire.Value]"
) -> tuple[int, bytes]:
    """Ask the monitor of a container that runs something, and wait for its answer.

    Returns:
        The kind of the frame that it answered with, STARTED or EXIT, and its payload; EXIT and
        nothing where the container has ended meanwhile.

    Raises:
        ConflictError: there is no monitor.
    """
    connection = reach_monitor(settings, container_id)
    try:
        connection.sendall(wire.frame(wire.REQUEST, wire.encode(fields)))
        decoder = wire.Decoder()
        while data := connection.recv(_ANSWER_BYTES):
            for kind, payload in decoder.feed(data):
                if kind in {wire.STARTED, wire.EXIT}:
                    return kind, payload
    except OSError:
        pass
    finally:
        connection.close()
    return wire.EXIT, b""


def zygote_name() -> str:
    """Name of the zygote that serves callers like this process.

    Alike are those who share all that a process hands on to its children and that cannot, or not by
    everyone, be changed back: user and groups, capabilities, no_new_privs, seccomp, namespaces,
    root directory, resource limits, CPUs and memory nodes, scheduling, OOM score, personality,
    cgroups and security label. Directory, umask, environment, descriptors and signals the zygote
    sets by itself.

    Of seccomp that is how many filters there are: nobody without CAP_SYS_ADMIN is told what they
    say. Those of systemd's units and of containers come with a cgroup or namespaces of their own,
    and nothing depends on the rest: whoever can connect to a zygote may ask any, by its name.
    """
    root = os.stat("/")
    facts = [
        b"%d:%d" % (root.st_dev, root.st_ino),
        b"%d %d" % (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)),
    ]
    facts += [os.readlink(f"/proc/self/ns/{kind}").encode() for kind in _NAMESPACES]
    facts += [line for line in _read("status").splitlines() if line.startswith(_INHERITED)]
    facts += map(_read, _INHERITED_FILES)
    return f"zygote-{binascii.crc32(b' '.join(facts)):08x}"


def command_line(state: str, name: str, *, sealed: bool = False) -> list[str]:
    """Arguments of an interpreter that runs the zygote.

    Args:
        state: the state directory.
        name: the zygote's name there, empty for a process that serves one request only.
        sealed: whether the interpreter is already the copy that no container can write.
    """
    role = "ketch-zygote" if name else "ketch-monitor"
    words = [sys.executable, "-I", "-S", "-c", _BOOT, role, state, package_directory(), name]
    return [*words, "sealed"] if sealed else words


def package_directory() -> str:
    """The directory in which the package is: what an interpreter that is to load it looks in."""
    return os.path.abspath(__file__).rsplit("/", 4)[0]


def _open_directory(state: str) -> int:
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)
        directory = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(state, error) from error
    try:
        status = os.fstat(directory)
        if not is_closed(status):
            from ketch.engine import places  # noqa: PLC0415 - at most once

            places.check(state, status)
    except BaseException:
        os.close(directory)
        raise
    return directory


def _read(name: str) -> bytes:
    try:
        descriptor = os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 16 * 1024)
    except OSError:  # attr/current where no security module answers
        return b""
    finally:
        os.close(descriptor)


def _reach(directory: int, name: str, kind: int = _socket.SOCK_STREAM) -> _socket.socket | None:
    """Connect to a service; None where none listens."""
    connection = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
    try:
        # By descriptor, since a socket's path may have at most 107 bytes: unix(7).
        connection.connect(f"/proc/self/fd/{directory}/{name}.socket")
    except OSError as error:
        connection.close()
        if error.errno not in {errno.ENOENT, errno.ECONNREFUSED}:
            raise
        return None
    return connection


def _start(state: str, directory: int, name: str, words: list[str], kind: int) -> _socket.socket:
    import fcntl  # noqa: PLC0415 - for the first command alone

    from ketch.linux import locks  # noqa: PLC0415 - likewise

    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    lock = os.open("services.lock", flags, 0o600, dir_fd=directory)
    try:
        locks.take(lock, fcntl.LOCK_EX, f"{state}/services.lock", _STARTING_SECONDS, fcntl.lockf)
        connection = _reach(directory, name, kind)
        if connection is None:
            listener = listen(directory, name, kind)
            try:
                _spawn(words, directory, listener)
                connection = _reach(directory, name, kind)
            finally:
                listener.close()
    finally:
        os.close(lock)
    if connection is None:
        raise UnavailableError(
            f"the service {name} ended at once",
            f"{state}/{ERROR_LOG} says why; --no-zygote does without a zygote",
        )
    return connection


def listen(directory: int, name: str, kind: int = _socket.SOCK_STREAM) -> _socket.socket:
    """Make a socket that only its owner can reach, in place of what a killed process left.

    Args:
        directory: descriptor of where.
        name: its name there, without ``.socket``.
        kind: type of the socket.
    """
    try:  # noqa: SIM105 - contextlib's import takes longer than all the rest here
        os.unlink(f"{name}.socket", dir_fd=directory)
    except FileNotFoundError:
        pass
    listener = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
    umask = os.umask(0o177)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{name}.socket")
    finally:
        os.umask(umask)
    listener.listen(_BACKLOG)
    return listener


def _start_alone(settings: "Settings", directory: int) -> _socket.socket:
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        _spawn(command_line(settings.state, ""), directory, theirs)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours


def _spawn(words: list[str], directory: int, socket: _socket.socket) -> None:
    """Start an interpreter that shares nothing of the caller's streams, signals and session."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    # Above what dup2 is to fill, or one could close another.
    log = _above(os.open(ERROR_LOG, flags, 0o600, dir_fd=directory))
    null = _above(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    serving = _above(os.dup(socket.fileno()))
    try:
        os.posix_spawn(
            sys.executable,
            words,
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
                (os.POSIX_SPAWN_DUP2, serving, SOCKET),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=[number for number in range(1, 65) if number not in _FIXED_SIGNALS],
        )
    except OSError as error:
        raise UnavailableError(f"cannot start {sys.executable}: {error.strerror}") from error
    finally:
        for descriptor in (log, null, serving):
            os.close(descriptor)


_FIXED_SIGNALS = {9, 19, 32, 33}  # KILL, STOP, and two that glibc keeps for itself


def _above(descriptor: int) -> int:
    """Move a descriptor out of the way of standard streams and SOCKET."""
    if descriptor > SOCKET:
        return descriptor
    moved = _above(os.dup(descriptor))
    os.close(descriptor)
    return moved


def place(path: str) -> tuple[int, int] | None:
    """What stands at a path, by device and inode; None for nothing."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _unusable(state: str, error: OSError) -> UnavailableError:
    return UnavailableError(
        f"state directory {state}: {(error.strerror or '').lower()}",
        "name others with --root and --state, or KETCH_ROOT and KETCH_STATE, or run as root",
    )
