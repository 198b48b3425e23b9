"""How an ordinary user's command becomes root in the user's own namespaces.

What keeps these is the holder, which is reached by a socket as the zygote is, started if it does
not run, and hands them over as descriptors. From then on the process is user 0 there, as root is
on the machine, and the rest of the engine does not know. There is no way back.

On the way to a container's start, so nothing is imported that takes time: not even ctypes, whose
package takes longer than all the rest.
"""

import _socket
import os
import sys

from ketch.engine.home import places
from ketch.engine.requests import launch
from ketch.engine.settings import UNSHARED
from ketch.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ketch.engine.engine import Engine
    from ketch.engine.settings import Settings

    T = TypeVar("T")

HOLDER = "holder"
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
_ANSWER_BYTES = 4096
_NAMESPACES_MAX = 3
_BOOT = (
    "import sys; sys.path.append(sys.argv[3]); from ketch.engine.home.holder import main; main()"
)


def enter(settings: "Settings", *, network: bool) -> None:
    """Enter the user's namespaces: the calling process is user 0 from now on.

    Args:
        settings: the engine's places; ``home`` is set.
        network: whether to enter the network namespace as well, and so leave the host's.

    Raises:
        UnavailableError: the namespaces cannot be had; why, and what to do.
    """
    if settings.state == places.temporary(places.number()):
        places.check_temporary(settings.state, os.getuid())
    directory = _directory()
    user, mounts, net = _ask(settings)
    try:
        # By ``ketch unshare``, or an earlier call of the library's, the process is there already,
        # and may have threads now, with which it could not go there again.
        for namespace, kind, name in (
            (user, CLONE_NEWUSER, "user"), (mounts, CLONE_NEWNS, "mnt")
        ):  # fmt: skip
            if not os.path.samestat(os.fstat(namespace), os.stat(f"/proc/self/ns/{name}")):
                setns(namespace, kind)
        if network:
            setns(net, CLONE_NEWNET)
    finally:
        for descriptor in (user, mounts, net):
            os.close(descriptor)
    # For programs that this one starts, and for whoever asks again: it is user 0 from now on.
    os.environ[UNSHARED] = "1"
    # The mount namespace's root is where the kernel has put this process.
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")


def enter_network(settings: "Settings") -> None:
    """Enter the network where the engine's containers are, unless this thread is there.

    For root that is where everybody is. For a user, whose command came by ``enter``, there is no
    way back, so this is for processes and threads that have nothing else to do.

    Args:
        settings: the engine's places.

    Raises:
        UnavailableError: it is gone.
    """
    if is_there(settings):
        return
    from ketch.linux.scopes import owned  # noqa: PLC0415 - no client comes here

    try:
        namespace = os.open(settings.network, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(f"{settings.network}: {error.strerror}") from error
    with owned(namespace):
        setns(namespace, CLONE_NEWNET)


def is_there(settings: "Settings") -> bool:
    """Whether the calling thread is in the network where the engine's containers are."""
    if not settings.home:
        return True
    try:
        return os.path.samestat(os.stat(settings.network), os.stat("/proc/thread-self/ns/net"))
    except FileNotFoundError:
        return False


def in_network(settings: "Settings", work: "Callable[[], T]") -> "T":
    """Do something in the network where the engine's containers are, and be where one was after it.

    Args:
        settings: the engine's places.
        work: what is done; where the caller is elsewhere, in a thread of its own, so it may use no
            connection to the database but one that it opens.

    Returns:
        What it returns; what it raises is raised here.
    """
    if is_there(settings):
        return work()
    from ketch.linux.apart import apart  # noqa: PLC0415 - not on the way to a start

    def there() -> "T":
        enter_network(settings)
        return work()

    return apart(there)


def with_engine(engine: "Engine", work: "Callable[[Engine], T]") -> "T":
    """Do something with an engine in the network where its containers are: see ``in_network``.

    Args:
        engine: the caller's.
        work: what is done, with this engine or one like it of the thread that does it.

    Returns:
        What it returns; what it raises is raised here.
    """
    if is_there(engine.settings):
        return work(engine)

    def there() -> "T":
        other = type(engine)(engine.settings, patience=engine.patience)
        try:
            return work(other)
        finally:
            other.store.close()

    return in_network(engine.settings, there)


def setns(descriptor: int, kind: int) -> None:
    """Enter a namespace: setns(2), which Python has since 3.12.

    Args:
        descriptor: of the namespace.
        kind: CLONE_NEW* of it.

    Raises:
        UnavailableError: the kernel refused.
    """
    try:
        if sys.version_info >= (3, 12):
            os.setns(descriptor, kind)
            return
        import _ctypes  # noqa: PLC0415 - a millisecond, of which users of newer Pythons have none

        function = _ctypes.dlsym(_ctypes.dlopen(None, 0), "setns")  # type: ignore[arg-type]
        if _ctypes.call_function(function, (descriptor, kind)) == 0:
            return
    except OSError as error:
        raise _refused(kind, f": {error.strerror}") from error
    raise _refused(kind)


def _refused(kind: int, reason: str = "") -> UnavailableError:
    if kind == CLONE_NEWUSER and len(os.listdir("/proc/self/task")) > 1:
        return UnavailableError(
            "this process has threads, and none that has can enter the namespaces of its user",
            "make the first Engine before anything starts a thread, or run the program by"
            " ketch unshare PROGRAM",
        )
    return UnavailableError(
        f"cannot enter the namespaces of this user's engine{reason}",
        "a process in a sandbox of somebody else's may not",
    )


def command_line(state: str) -> list[str]:
    """Arguments of an interpreter that runs the holder."""
    return [
        sys.executable, "-I", "-S", "-c", _BOOT, "ketch-holder", state, launch.package_directory(),
    ]  # fmt: skip


def _ask(settings: "Settings") -> tuple[int, int, int]:
    """Ask the holder for the namespaces: user, mount and network."""
    for last in (False, True):
        connection = launch.reach(
            settings.state, HOLDER, command_line(settings.state), _socket.SOCK_SEQPACKET
        )
        try:
            told, rights, _, _ = connection.recvmsg(
                _ANSWER_BYTES, _socket.CMSG_SPACE(4 * _NAMESPACES_MAX), _socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            told, rights = b"", []
        if rights:
            data = rights[0][2]
            user, mounts, net = (
                int.from_bytes(data[at : at + 4], sys.byteorder) for at in (0, 4, 8)
            )
            # It tells the holder that somebody is inside, for as long as this process lives.
            connection.detach()
            return user, mounts, net
        connection.close()
        if told:
            message, _, hint = told.decode("utf-8", "surrogateescape").partition("\0")
            raise UnavailableError(message, hint)
        if last:
            break
    raise UnavailableError(
        "the process that holds this user's namespaces ended at once",
        f"{settings.state}/{launch.ERROR_LOG} says why",
    )


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # removed under the caller
        return "/"
