"""How all that a sandbox sends comes to the relay: routes and rules in its own network namespace.

A default route says that every address is the namespace's own, so nothing leaves by another link
than loopback, and TPROXY hands what arrives there to the relay's sockets, whatever address and port
it is for; getsockname(2) then tells these. These are means of transport and no means of protection:
there is no link that leads out, and who changed the rules would reach the same relay, or nobody.

Source: Documentation/networking/tproxy.rst; ip-route(8), type ``local``.
"""

import contextlib
import os
import select
import socket
from ipaddress import ip_network
from typing import NamedTuple, NoReturn

from ketch.errors import KetchError, SyscallError, UnavailableError, in_words
from ketch.linux import namespaces, netlink, nftables, rtnetlink

NAME_SERVER = "127.0.0.12"
"""Where a sandbox asks for names. Not 127.0.0.11, which is the engine's own, where it has one."""

_NAME_PORT = 53
_BACKLOG = 1024
_METRIC = 4096  # any other route is better
_LOOPBACK = 1  # its index, in every namespace
_SOL_IP, _IP_TRANSPARENT, _IP_RECVORIGDSTADDR = 0, 19, 20
_SOL_IPV6, _IPV6_TRANSPARENT, _IPV6_RECVORIGDSTADDR = 41, 75, 74
_WORDS_BYTES_MAX = 4096
_QUEUE_BYTES = 64 << 10  # of datagrams that lead nowhere

_TABLE = """\
add table inet ketch-egress
add chain inet ketch-egress sent {{ type filter hook prerouting priority mangle; policy accept; }}
flush chain inet ketch-egress sent
add rule inet ketch-egress sent iif != lo accept
add rule inet ketch-egress sent ip daddr 127.0.0.0/8 accept
add rule inet ketch-egress sent ip6 daddr ::1 accept
add rule inet ketch-egress sent meta nfproto ipv4 meta l4proto tcp tproxy ip to :{streams} accept
add rule inet ketch-egress sent meta nfproto ipv4 meta l4proto udp tproxy ip to :{datagrams} accept
{six}add rule inet ketch-egress sent meta l4proto != {{ tcp, udp }} drop
"""
_SIX = """\
add rule inet ketch-egress sent meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :{streams} accept
add rule inet ketch-egress sent meta nfproto ipv6 meta l4proto udp tproxy ip6 to :{datagrams} accept
"""


class Sockets(NamedTuple):
    """What the relay has in a sandbox's network namespace.

    Attributes:
        streams: listens for all connections.
        datagrams: takes all datagrams, and is told where they were to go.
        names: takes questions for names, by datagram.
        name_streams: listens for such.
    """

    streams: socket.socket
    datagrams: socket.socket
    names: socket.socket
    name_streams: socket.socket


def steer(namespace: int) -> Sockets:
    """Have all that is sent in a network namespace come to sockets of the caller's.

    To be called by a process with one thread. A child of its enters the namespace: for an ordinary
    user's process there would be no way back to the machine's.

    Args:
        namespace: descriptor of the namespace, whose loopback is up.

    Raises:
        UnavailableError: the kernel refused, or nft is not installed, or cannot.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = os.fork()
        if child == 0:
            _send(namespace, theirs)
        theirs.close()
        said, descriptors, _, _ = socket.recv_fds(ours, _WORDS_BYTES_MAX, len(Sockets._fields))
        os.waitpid(child, 0)
    if len(descriptors) != len(Sockets._fields):
        for descriptor in descriptors:
            os.close(descriptor)
        raise UnavailableError(said.decode(errors="replace") or "its end was not expected")
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return Sockets(*(socket.socket(fileno=descriptor) for descriptor in descriptors))


def _send(namespace: int, channel: socket.socket) -> NoReturn:
    """Make the sockets and hand them over, or say why that cannot be; the process ends."""
    try:
        namespaces.setns(namespace, namespaces.CLONE_NEWNET)
        made = _made()
        socket.send_fds(channel, [b"."], [one.fileno() for one in made])
    except (KetchError, OSError) as error:
        channel.sendall(in_words(error).encode(errors="replace")[:_WORDS_BYTES_MAX])
    finally:
        os._exit(0)


def _made() -> Sockets:
    streams, six = _transparent(socket.SOCK_STREAM)
    streams.listen(_BACKLOG)
    datagrams, _ = _transparent(socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
    datagrams.setsockopt(_SOL_IP, _IP_RECVORIGDSTADDR, 1)
    if six:
        datagrams.setsockopt(_SOL_IPV6, _IPV6_RECVORIGDSTADDR, 1)
    ports = {
        "streams": streams.getsockname()[1], "datagrams": datagrams.getsockname()[1],
    }  # fmt: skip
    script = _TABLE.format(six=_SIX.format(**ports) if six else "", **ports)
    rules = nftables.Transaction(script, "what leads out of a sandbox")
    names = _bound(socket.SOCK_DGRAM)
    name_streams = _bound(socket.SOCK_STREAM)
    name_streams.listen(_BACKLOG)
    rules.wait()
    # The routes last: until they are there nothing can be sent at all.
    with rtnetlink.Socket() as kernel:
        kernel.execute(_everything("0.0.0.0/0"))
        if six:
            with contextlib.suppress(SyscallError):  # IPv6 is switched off there
                kernel.execute(_everything("::/0"))
    return Sockets(streams, datagrams, names, name_streams)


def _everything(network: str) -> netlink.Request:
    return rtnetlink.add_route(ip_network(network), index=_LOOPBACK, priority=_METRIC, local=True)


def _transparent(kind: int) -> tuple[socket.socket, bool]:
    """A socket for any address of both versions, where there are both."""
    try:
        made = socket.socket(socket.AF_INET6, kind)
        made.setsockopt(_SOL_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(_SOL_IPV6, _IPV6_TRANSPARENT, 1)
    except OSError:
        made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(_SOL_IP, _IP_TRANSPARENT, 1)
    six = made.family == socket.AF_INET6
    made.bind(("::" if six else "0.0.0.0", 0))
    return made, six


def _bound(kind: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.bind((NAME_SERVER, _NAME_PORT))
    return made


def namespace_of(pidfd: int, pid: int) -> int:
    """Returns a descriptor of a process's network namespace, the caller's to close.

    Raises:
        OSError: the process has ended.
    """
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if select.select((pidfd,), (), (), 0)[0]:  # the number may be another one's by now
        os.close(namespace)
        raise ProcessLookupError
    return namespace
