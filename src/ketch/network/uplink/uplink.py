"""The way out of a user's network: programs that are started, waited for, known to have ended.

It ends with whoever has started it, whatever ends that (PR_SET_PDEATHSIG).
"""

import os
import select
import signal
import socket
import time

from ketch.errors import UnavailableError
from ketch.linux import namespaces, process, rtnetlink, tun
from ketch.linux.apart import apart
from ketch.linux.scopes import owned, suppress
from ketch.network.uplink import programs
from ketch.network.uplink.programs import PASTA, PROGRAMS, Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

_PATH = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")
_START_SECONDS = 10
_LOOK_SECONDS = 0.005
_END_SECONDS = 2
_SAID_BYTES_MAX = 16 * 1024
_ENDED = "it has ended"


class Uplink:
    """One of those programs, which works as long as its process lives, a child of the caller's.

    Attributes:
        name: ``pasta`` or ``slirp4netns``.
    """

    __slots__ = ("_pidfd", "name")

    def __init__(self, name: str, pidfd: int) -> None:
        self.name = name
        self._pidfd = pidfd

    def fileno(self) -> int:
        """A descriptor that can be read from when the process has ended."""
        return self._pidfd

    def close(self) -> None:
        """End it; gone already will do."""
        with owned(self._pidfd):
            with suppress(OSError):
                process.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            select.select((self._pidfd,), (), (), _END_SECONDS)
            with suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)


class Way:
    """Those that lead out together: it works as long as all of them do."""

    __slots__ = ("_any", "_uplinks")

    def __init__(self) -> None:
        self._any = select.epoll()
        self._uplinks: list[Uplink] = []

    def add(self, uplink: Uplink) -> None:
        """Have another one be part of it."""
        self._uplinks.append(uplink)
        self._any.register(uplink, select.POLLIN)

    def fileno(self) -> int:
        """A descriptor that can be read from when one of them has ended."""
        return self._any.fileno()

    def close(self) -> None:
        """End them."""
        self._any.close()
        for uplink in self._uplinks:
            uplink.close()


def start(network: str, directory: str) -> Way:
    """Give a network namespace its way out.

    Args:
        network: a path to the namespace, which belongs to the caller's user namespace; the caller
            is in the machine's.
        directory: a directory of the caller's alone, for what the program says.

    Raises:
        UnavailableError: there can be none; why, and what to do.
    """
    tun.check()
    versions = reachable()
    paths = {program: path for program in PROGRAMS if (path := which(program.name))}
    problem = none_installed()
    for way in programs.ways(paths, versions):
        try:
            return _start(way, paths, network, directory)
        except UnavailableError as error:
            problem = error
    raise problem


def reachable() -> frozenset[int]:
    """The IP versions in which the caller's network namespace has a way to all others.

    Where it has none, IPv4 is tried nevertheless: newer versions of pasta can do without.
    """
    with rtnetlink.Socket() as host:
        found = {
            route.destination.version
            for route in host.routes()
            if not route.destination.prefixlen and route.kind == rtnetlink.RTN_UNICAST
        }
    return frozenset(found or {4})


def own_addresses() -> list[str]:
    """The caller's addresses in the network that it is in, on its ways to all others."""
    found = []
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        # Nothing is sent there: to connect is to look up the route (udp(7)).
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((far, 9))
            found.append(asking.getsockname()[0])
    return found


def none_installed() -> UnavailableError:
    """Returns what there is to say where there is none of the programs."""
    return UnavailableError(
        "neither pasta nor slirp4netns is installed", f"install the package {PASTA.package}"
    )


def which(name: str) -> str:
    """The path of a program; empty where there is none. The caller has no PATH."""
    paths = (f"{directory}/{name}" for directory in _PATH)
    return next((path for path in paths if os.access(path, os.X_OK)), "")


def _start(
    way: "Sequence[tuple[Program, frozenset[int]]]",
    paths: "Mapping[Program, str]",
    network: str,
    directory: str,
) -> Way:
    # Those of a process that was killed a moment ago end with it, but not at once.
    if found := apart(lambda: _await_none(network)):
        raise UnavailableError(f"another program has the link {found} in {network}")
    with suppress(FileNotFoundError):
        os.unlink(f"{directory}/log")
    begun = Way()
    try:
        # All begin at once: they take their time.
        awaited = []
        for program, versions in way:
            link = programs.link(program, way)
            words = programs.words(program, paths[program], network, versions, directory, link)
            uplink = _run(program.name, words, directory)
            begun.add(uplink)
            awaited.append((uplink, link, len(versions)))
        for uplink, link, count in awaited:
            _expect(uplink, network, link, count, directory)
    except BaseException:
        begun.close()
        raise
    return begun


def _run(name: str, words: list[str], directory: str) -> Uplink:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    with owned(os.open(f"{directory}/{name}.said", flags, 0o600)) as said:
        pid = os.fork()
        if pid == 0:
            become(words, said)
    return Uplink(name, process.pidfd_open(pid))


def _expect(uplink: Uplink, network: str, link: str, count: int, directory: str) -> None:
    """Wait until one of them leads out by so many IP versions."""
    why = apart(lambda: _await(uplink, network, link, count))
    if not why:
        return
    text = ""
    for said in (f"{uplink.name}.said", *(("log",) if uplink.name == PASTA.name else ())):
        with suppress(FileNotFoundError), open(f"{directory}/{said}", errors="replace") as file:
            text += file.read(_SAID_BYTES_MAX)
    if why == _ENDED:
        why = programs.reason(text)
    raise UnavailableError(
        f"{uplink.name} does not start: {why}", f"{directory}/{uplink.name}.said tells more"
    )


def become(
    words: list[str], said: int, prepare: "Callable[[], object] | None" = None, kept: int = -1
) -> "NoReturn":
    """Execute a program, in a session of its own, to which nothing of the caller's is open.

    In a child of the caller's, which ends with it.

    Args:
        words: its command line.
        said: descriptor of what it writes to.
        prepare: what is done before.
        kept: a descriptor that it has as 3; none where negative.
    """
    try:
        os.setsid()
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        if prepare is not None:
            prepare()
        # pasta takes an ignored SIGPIPE, as Python has it, for a failure to ignore it.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for place, descriptor in enumerate((null, null, said)):
            os.dup2(descriptor, place)
        if kept >= 0:
            os.set_inheritable(os.dup2(kept, 3), True)
        process.close_on_exec_from(3 if kept < 0 else 4)
        os.execve(words[0], words, {"PATH": ":".join(_PATH)})
    except OSError as error:
        os.write(said, str(error).encode("utf-8", "replace"))
    finally:
        os._exit(127)


def _await(uplink: Uplink, network: str, name: str, versions: int) -> str:
    """Wait until a namespace has its default routes, in a thread that ends with that.

    Returns:
        Empty, or why that does not come about.
    """
    deadline = time.monotonic() + _START_SECONDS
    _enter(network)
    with rtnetlink.Socket() as inside:
        while not select.select((uplink,), (), (), _LOOK_SECONDS)[0]:
            link = inside.link(name)
            index = 0 if link is None else link.index
            ways = {
                route.destination.version
                for route in inside.routes()
                if index and route.index == index and not route.destination.prefixlen
            }
            if len(ways) >= versions:
                return ""
            if time.monotonic() > deadline:
                return f"it is not ready after {_START_SECONDS} seconds"
    return _ENDED


def _await_none(network: str) -> str:
    """Wait for a namespace to be without a way out, in a thread that ends with that.

    Returns:
        Empty, or the link that stays.
    """
    deadline = time.monotonic() + _END_SECONDS
    _enter(network)
    with rtnetlink.Socket() as inside:
        for link in programs.LINKS:
            while inside.link(link) is not None:
                if time.monotonic() > deadline:
                    return link
                time.sleep(_LOOK_SECONDS)
    return ""


def _enter(network: str) -> None:
    """Have the calling thread be in a namespace."""
    with owned(os.open(network, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
        namespaces.setns(descriptor, namespaces.CLONE_NEWNET)
