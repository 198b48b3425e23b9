"""Between a caller and a new process: what it passes in, and what it gets and is told."""

import _socket
import os

from ketch.errors import InvalidArgumentError, StartError, UnavailableError
from ketch.linux import process
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cli.grammar import Parsed
    from ketch.runtime.cli.main import Settings
    from ketch.runtime.cli.notify import Listener
    from ketch.runtime.create import Container
    from ketch.runtime.seccomp import Filter
    from ketch.runtime.state import Entry, Record
    from ketch.spec.runtime import Config, Seccomp
    from ketch.spec.told import Say, Told

_FIRST_PRESERVED = 3


def check_terminal(options: "Parsed", *, terminal: bool, detached: bool) -> None:
    """Refuse a terminal that nobody would have, and a socket that nobody would use.

    Raises:
        InvalidArgumentError: in runc's words.
    """
    socket = options.text("console-socket")
    if detached and terminal and not socket:
        raise InvalidArgumentError(
            "cannot allocate tty if ketch-oci will detach without setting console socket",
            "give --console-socket, or set process.terminal to false",
        )
    if socket and not (detached and terminal):
        raise InvalidArgumentError(
            "cannot use console socket if ketch-oci will not detach or allocate tty",
            "leave --console-socket out",
        )


def preserved(options: "Parsed", environment: list[str]) -> int:
    """How many descriptors from 3 on the process inherits.

    Those of socket activation ($LISTEN_FDS, sd_listen_fds(3)) come first; the process is told of
    them in its environment.

    Args:
        options: with ``preserve-fds``.
        environment: the process's, added to.

    Raises:
        InvalidArgumentError: one of them is not open.
    """
    activated = int(os.environ.get("LISTEN_FDS") or 0)
    if activated:
        environment += [f"LISTEN_FDS={activated}", "LISTEN_PID=1"]
    count = options.number("preserve-fds") + activated
    for descriptor in range(_FIRST_PRESERVED, _FIRST_PRESERVED + count):
        # What this process has opened itself is not inheritable, and not the caller's to pass.
        try:
            given = os.get_inheritable(descriptor)
        except OSError:
            given = False
        if not given:
            raise InvalidArgumentError(
                f"please check that preserved-fd {descriptor - _FIRST_PRESERVED} (of {count}) is"
                " present",
                f"descriptor {descriptor} is not open in the caller",
            )
    return count


def hand_over(options: "Parsed", container: "Container") -> None:
    """Write the pid file, and send the terminal and the pidfd, as far as they are asked for.

    Raises:
        UnavailableError: a socket does not answer.
        OSError: the pid file cannot be written.
    """
    if (path := options.text("console-socket")) and container.console is not None:
        name = os.readlink(f"/proc/self/fd/{container.console}")
        _send(path, name.encode(), container.console, "--console-socket")
    if path := options.text("pidfd-socket"):
        _send(path, b"pidfd", container.pidfd, "--pidfd-socket")
    if path := options.text("pid-file"):
        write_pid_file(path, container.pid)


def write_pid_file(path: str, pid: int) -> None:
    """Write a pid file, whole from the moment it can be seen."""
    # A name that nobody has prepared: the directory may be /tmp.
    temporary = os.path.join(os.path.dirname(path), f".pid-{os.urandom(8).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with owned(os.open(temporary, flags, 0o666)) as descriptor:
        try:
            os.write(descriptor, str(pid).encode())
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _send(path: str, name: bytes, descriptor: int, flag: str) -> None:
    """Connect to a stream socket and send one descriptor under a name."""
    place, flags = os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        # By the directory's descriptor, since a socket's path may have at most 107 bytes: unix(7).
        with owned(os.open(place, flags)) as directory:
            connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
            connection.sendmsg([name], process.rights(descriptor))
    except OSError as error:
        raise UnavailableError(f"{flag} {path}: {(error.strerror or '').lower()}") from error
    finally:
        connection.close()


def prepare_filter(settings: "Settings", section: "Seccomp") -> "Filter":
    """Make a container's system call filter ready; compiled ones are kept in the root."""
    from ketch.runtime import seccomp  # noqa: PLC0415 not every container has one

    return seccomp.prepare(section, f"{settings.root}/.seccomp")


def explainer(settings: "Settings", options: "Parsed") -> "Say | None":
    """Who is told of each step, if anyone: standard error with ``--explain``, else the log."""
    if options.enabled("explain"):
        return _say
    return log(settings) if settings.log.debugging else None


def log(settings: "Settings") -> "Say":
    """Who writes what is told of steps to the log, where it takes that much."""
    return lambda told: settings.log.debug(str(told))


def _say(told: "Told") -> None:
    os.write(2, f"{told}\n".encode(errors="surrogateescape"))


def in_callers_words(error: StartError) -> StartError:
    """Add the words by which callers tell what was missing, and choose their exit status."""
    return StartError(
        f"unable to start container process: exec: {error.message}",
        error.hint,
        exit_status=error.exit_status,
    )


def listen(entry: "Entry") -> "Listener | None":
    """Begin to hear what a container's program has to tell this process's supervisor, if any."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    from ketch.runtime.cli import notify  # noqa: PLC0415 wanted by few

    return notify.listen(entry)


def run_poststart(settings: "Settings", config: "Config", record: "Record") -> None:
    """Run the hooks that follow the program's start."""
    if not config.get("hooks"):
        return
    from ketch.runtime import hooks  # noqa: PLC0415 wanted by few

    told = hooks.state(config, record.id, record.bundle, "running", record.pid)
    hooks.run(config, "poststart", told, log(settings))
