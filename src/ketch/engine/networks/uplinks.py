"""How the network of an engine's containers is left for the machine's.

For root's engine they are one, so there is nothing to leave: ``Direct``. An ordinary user's is a
namespace of its own, and what leads out of it and into it is one process a state directory, for
which ``main`` is run: see ``ketch.network.uplink``. Which of the two it is, is decided once at a
start's beginning, and handed down.
"""

import _socket
import errno
import fcntl
import os
import select
import sys

from ketch.engine.home import entering
from ketch.engine.requests import launch
from ketch.errors import UnavailableError
from ketch.linux import locks, process
from ketch.linux.scopes import owned, suppress
from ketch.network import ports
from ketch.network.uplink.outside import Outside, RefusedError
from ketch.spec.endpoints import is_container, is_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ketch.engine.settings import Settings

_TRIES = 5
_LOCK_SECONDS = 60  # in which whoever starts services has started one
_SERVICE = "uplink"  # its socket in the state directory, and a directory for what it writes there
_BOOT = (
    "import sys; sys.path.append(sys.argv[3]); from ketch.engine.networks.uplinks import main; "
    "main()"
)


class Direct:
    """The network that the caller is in is the machine's, or leads nowhere."""

    __slots__ = ()

    connection: None = None

    def close(self) -> None:
        """Nothing is held."""

    def bind(self, protocol: str, address: "ports.Address", port: int) -> int | None:
        """Take a port: see ``ports.bind``."""
        try:
            return ports.bind(protocol, address, port)
        except OSError as error:
            number = error.errno or errno.EIO
            raise RefusedError(number, ports.advice(protocol, port, error)) from error

    def publish(self, published: "Iterable[ports.Port]", taken: "Iterable[int]") -> None:
        """The packet filter leads to containers."""

    def restore(self, published: "Sequence[ports.Port]", taken: "Sequence[int]") -> None:
        """Nothing was lost."""

    def own_addresses(self) -> list[str]:
        """The machine is the gateway of its containers' networks."""
        return []

    def ask_way(self) -> None:
        """Nobody is needed."""

    def await_way(self) -> None:
        """Nothing is waited for."""


class Later(Direct):
    """For whoever has left a user's machine's network, and changes a container that runs.

    Its monitor, which has not, takes the ports when it is asked to register the container anew.
    """

    __slots__ = ()

    def bind(self, protocol: str, address: "ports.Address", port: int) -> int | None:
        """Take nothing yet."""


Uplink = Direct | Outside


def within(settings: "Settings") -> Uplink:
    """For whoever is where the engine's containers are."""
    return Later() if settings.home else Direct()


def leave_for(settings: "Settings", mode: str, *, joined: bool = False) -> Uplink:
    """Enter the network where a new container's is to be made: see ``leave``.

    Args:
        settings: the engine's places.
        mode: what the container is to have, as ``NetworkMode`` has it: ``host`` is here.
        joined: whether another one has that, whose network it shares.
    """
    if mode == "host":
        return Direct()
    if is_private(mode):
        return leave(settings, outward=False) if joined else leave_privately(settings)
    return leave(settings, outward=mode != "none" and not is_container(mode))


def leave(settings: "Settings", *, outward: bool = True) -> Uplink:
    """Enter the network where the engine's containers are; there is no way back, see ``home``.

    Args:
        settings: the engine's places.
        outward: whether anything there may have to do with the machine's network.

    Returns:
        What leads there and back, the caller's to close.

    Raises:
        UnavailableError: the process that does cannot be started.
    """
    if entering.is_there(settings):
        return Direct()
    uplink = reach(settings) if outward else Direct()
    try:
        entering.enter_network(settings)
    except BaseException:
        uplink.close()
        raise
    return uplink


def leave_privately(settings: "Settings") -> Outside:
    """Likewise for a container that has a program of its own, for which root's is asked as well.

    Raises:
        UnavailableError: the process that keeps such programs cannot be started.
    """
    uplink = reach(settings)
    try:
        entering.enter_network(settings)
    except BaseException:
        uplink.close()
        raise
    return uplink


def reach(settings: "Settings") -> Outside:
    """Connect to the process, which is started if it is not there; for who is where the machine is.

    Raises:
        UnavailableError: it cannot be started.
    """
    state = settings.state
    words = [sys.executable, "-I", "-S", "-c", _BOOT, "ketch-uplink", state,
             launch.package_directory(), settings.network]  # fmt: skip
    for _ in range(_TRIES):
        uplink = Outside(launch.reach(state, _SERVICE, words, _socket.SOCK_SEQPACKET))
        if uplink.is_served():
            return uplink
        uplink.close()  # it was about to end, or has been killed just now
    raise UnavailableError(
        "the process that leads out of this user's network ends at once",
        f"the end of {state}/{launch.ERROR_LOG} tells more",
    )


def main() -> None:
    """Run as ``reach`` says; descriptor SOCKET is where those connect who need it."""
    from ketch.network.uplink.service import Service  # noqa: PLC0415 - this process's alone

    _script, _role, state, _package, network = sys.argv
    os.closerange(launch.SOCKET + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    os.umask(0o077)
    process.set_name("ketch-uplink")
    os.set_inheritable(launch.SOCKET, False)
    directory = f"{state}/{_SERVICE}"
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    listener = _socket.socket(fileno=launch.SOCKET)
    service = Service(listener, network, directory)
    path = f"{state}/{_SERVICE}.socket"
    place = launch.place(path)
    try:
        service.serve()
        # There is to be one, since there can be one way out: who wants to start another one waits
        # for this lock, and who has come in the meantime is served.
        with owned(os.open(f"{state}/services.lock", os.O_RDWR | os.O_CLOEXEC)) as lock:
            while True:
                locks.take(lock, fcntl.LOCK_EX, "services.lock", _LOCK_SECONDS, fcntl.lockf)
                if place != launch.place(path):
                    break
                os.rename(path, f"{path}.ended")
                if not select.select((listener,), (), (), 0)[0]:
                    os.unlink(f"{path}.ended")
                    break
                os.rename(f"{path}.ended", path)
                fcntl.lockf(lock, fcntl.LOCK_UN)
                service.serve()
            service.close()
    finally:
        service.close()
