"""Whether the host forwards packets, which makes it a router between all its links.

Containers need that, and a host that was none before is not to become one for its other networks.
So before ketch switches forwarding on, what is not a container's is dropped by the policy of the
chain FORWARD (``firewall.ensure``), and it remembers to have done that, by namespace and boot, to
do it again where the chain has gone (``nft flush ruleset``). A host that forwards already is left
alone, and so is a policy that somebody has set since.
"""

import _socket
import os
from contextlib import closing

from ketch.errors import UnavailableError
from ketch.linux import procfs, rtnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

SWITCHES = {4: "/proc/sys/net/ipv4/ip_forward", 6: "/proc/sys/net/ipv6/conf/all/forwarding"}
_ACCEPT_RA = "/proc/sys/net/ipv6/conf/{}/accept_ra"
_EVEN_A_ROUTER = 2
_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h


def is_on(version: int) -> bool:
    """Whether the host forwards packets of an IP version; one that it does not have it need not.

    Raises:
        UnavailableError: that cannot be read.
    """
    try:
        with open(SWITCHES[version], "rb", buffering=0) as file:
            return file.read(1) != b"0"
    except OSError as error:
        raise _refused(SWITCHES[version], error) from error


def switch_on(host: rtnetlink.Socket, version: int) -> None:
    """Have the host forward packets (Documentation/networking/ip-sysctl.rst).

    A host that has its own way out by IPv6 from router advertisements would lose it at once: a
    router takes none, unless it is told to.

    Raises:
        UnavailableError: forwarding cannot be switched on.
    """
    if is_on(version):
        return
    if version == 6:
        _keep_advertised(host)
    _write(SWITCHES[version], b"1")


def _keep_advertised(host: rtnetlink.Socket) -> None:
    """Have links that the host has a default route from by advertisements go on taking them."""
    indices = {
        route.index
        for route in host.routes(6)
        if not route.destination.prefixlen and route.protocol == rtnetlink.RTPROT_RA
    }
    for index in indices:
        link = host.link(index)
        if link is not None and link.sysctls(6).get("accept_ra") == 1:
            _write(_ACCEPT_RA.format(link.name), str(_EVEN_A_ROUTER).encode())


def remembered(state: str) -> set[int]:
    """The IP versions in which ketch has closed this host, by what ``remember`` wrote.

    Args:
        state: directory of what a reboot may lose.
    """
    try:
        with open(_path(state), encoding="ascii") as file:
            where, _, versions = file.read().partition("\n")
    except (OSError, ValueError):
        return set()
    return {int(one) for one in versions.split()} if where == _here() else set()


def remember(state: str, versions: "Collection[int]") -> None:
    """Write down that ketch has closed this host."""
    os.makedirs(state, mode=0o700, exist_ok=True)
    every = sorted(remembered(state) | set(versions))
    path = f"{_path(state)}.{os.getpid()}"
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{_here()}\n{' '.join(map(str, every))}")
    os.replace(path, _path(state))


def _path(state: str) -> str:
    return f"{state}/forwarding"


def _here() -> str:
    """This network namespace, in this boot.

    The number of one that has gone is the next one's that is made; a cookie is nobody else's, ever
    (SO_NETNS_COOKIE, since Linux 5.14).
    """
    with closing(_socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)) as anywhere:
        try:
            cookie = anywhere.getsockopt(_socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8).hex()
        except OSError:
            cookie = str(os.stat("/proc/thread-self/ns/net").st_ino)
    return f"{cookie} {procfs.boot_id()}"


def _write(path: str, value: bytes) -> None:
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(value)
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: str, error: OSError) -> UnavailableError:
    return UnavailableError(
        f"packets of containers cannot be forwarded: {path}: {error.strerror}",
        "set this sysctl to 1, or start containers with --network host or none",
    )
