"""The holder: one small process a user and state directory, which keeps the user's namespaces.

It is in the user and the mount namespace itself, and in the host's network namespace, where what
leads into the user's has one of its ends. It hands the namespaces to the commands that ask, and
stays as long as a command or one of the engine's processes is inside, and a minute more. Killed, it
costs no container anything: the next one finds the namespaces by who lives in them.
"""

import _socket
import os
import select
import sys

from ketch.engine.home import entering, ids, survivors
from ketch.engine.requests import launch
from ketch.errors import KetchError, UnavailableError, in_words
from ketch.linux import mount, namespaces, process, restrictions, rtnetlink
from ketch.linux.scopes import owned, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NETWORK = "network"  # where the network namespace is mounted, in the state directory
IDLE_SECONDS = 60
_REFUSAL_MS = 500
_LATECOMER_SECONDS = 0.2
_LOOPBACK_INDEX = 1


def main() -> None:
    """Run as ``entering.command_line`` says; descriptor SOCKET is where commands ask."""
    _script, _role, state, _package = sys.argv
    os.closerange(launch.SOCKET + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    os.umask(0o022)
    process.set_name("ketch-holder")
    os.set_inheritable(launch.SOCKET, False)
    listener = _socket.socket(fileno=launch.SOCKET)
    try:
        held = _take(state)
    except (KetchError, OSError) as error:
        _refuse(listener, error)
        raise
    try:
        serve(listener, f"{state}/{entering.HOLDER}.socket", held)
    finally:
        for descriptor in held:
            os.close(descriptor)


def _take(state: str) -> list[int]:
    """Be in the user's namespaces: those that others still live in, or new ones.

    Returns:
        Descriptors of the user, mount and network namespace.
    """
    path = f"{state}/{NETWORK}"
    found = survivors.find(path)
    if found is not None:
        with owned(found) as survivor:
            namespaces.setns(survivor, namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
    else:
        try:
            _make_namespaces()
        except OSError as error:
            raise restrictions.refused(error) from error
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    if found is None:
        _apart(lambda: _make_network(path))
    return [
        os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        for name in ("/proc/self/ns/user", "/proc/self/ns/mnt", path)
    ]


def _make_namespaces() -> None:
    """Enter a new user namespace with the user's ids, and a mount namespace of its own."""
    chosen = ids.choose()
    pid = os.getpid()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    told, tell = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        # Outside: from inside nobody may give the namespace more ids than one.
        os.close(writer)
        try:
            if os.read(reader, 1):
                ids.write(pid, chosen)
        except (KetchError, OSError) as error:
            message = getattr(error, "message", in_words(error))
            os.write(tell, f"{message}\0{getattr(error, 'hint', '')}".encode())
        finally:
            os._exit(0)
    os.close(tell)
    with owned(told), owned(reader):
        try:
            with owned(writer):  # whatever happens, the child waits for no more after that
                namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
                os.write(writer, b"g")
            failure = os.read(told, 4096).decode()
            if failure:
                message, _, hint = failure.partition("\0")
                raise UnavailableError(message, hint)
        finally:
            os.waitpid(child, 0)
    # The map came after, and what execve(2) does for root's programs came before it.
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # What is mounted on the machine later is seen here, and nothing of what is mounted here there.
    mount.mount("", "/", flags=mount.MS_SLAVE | mount.MS_REC)


def _make_network(path: str) -> None:
    """Make a network namespace, and give it a place from which it can be entered."""
    namespaces.unshare(namespaces.CLONE_NEWNET)
    with rtnetlink.Socket() as inside:
        inside.execute(rtnetlink.set_link(_LOOPBACK_INDEX, up=True))
    mount.mount("/proc/self/ns/net", path, flags=mount.MS_BIND)


def _apart(work: "Callable[[], None]") -> None:
    """Do something in a process of its own, and wait for its end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - no way back into the caller's frames
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise UnavailableError(
            "no network namespace can be made for this user's containers",
            f"the end of {launch.ERROR_LOG} in the state directory says why",
        )


def serve(listener: _socket.socket, path: str, held: list[int]) -> None:
    """Hand the namespaces to whoever asks, until nobody needs them.

    Args:
        listener: a listening socket.
        path: where it is bound; unlinked at the end, unless something else stands there.
        held: descriptors of the namespaces.
    """
    place = launch.place(path)
    # What ends when its process does: connections of commands, and pidfds of what stays inside.
    inside: dict[int, _socket.socket | None] = {}
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    listener.setblocking(False)
    while True:
        ready = poll.poll(None if inside else IDLE_SECONDS * 1000)
        for descriptor, _ in ready:
            if descriptor == listener.fileno():
                client = _answer(listener, held)
                if client is not None:
                    inside[client.fileno()] = client
                    poll.register(client, 0)  # its end is told anyway
                continue
            poll.unregister(descriptor)
            connection = inside.pop(descriptor)
            if connection is not None:
                connection.close()
            else:
                os.close(descriptor)
        if ready:
            continue
        resident = survivors.resident()
        if resident is None:
            break
        inside[resident] = None
        poll.register(resident, select.POLLIN)
    if place == launch.place(path):
        with suppress(FileNotFoundError):
            os.unlink(path)
    while select.select((listener,), (), (), _LATECOMER_SECONDS)[0]:
        client = _answer(listener, held)
        if client is not None:
            client.close()


def _answer(listener: _socket.socket, held: list[int]) -> _socket.socket | None:
    try:
        descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    except OSError:  # it has left again
        return None
    client = _socket.socket(fileno=descriptor)
    try:
        client.sendmsg([b"ok"], process.rights(*held))
    except OSError:
        client.close()
        return None
    return client


def _refuse(listener: _socket.socket, error: Exception) -> None:
    """Tell those who wait why they cannot have any namespaces."""
    message = in_words(error)
    hint = getattr(error, "hint", "")
    told = f"no namespaces can be made for this user: {message}\0{hint}"
    while select.select((listener,), (), (), _REFUSAL_MS / 1000)[0]:
        descriptor, _ = listener._accept()  # type: ignore[attr-defined]
        client = _socket.socket(fileno=descriptor)
        with suppress(OSError):
            client.send(told.encode("utf-8", "surrogateescape"))
        client.close()
