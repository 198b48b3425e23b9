"""A container's network namespace, made and wired without a helper process.

The monitor has one thread, so it can step into a new network namespace, open a socket there, and
step back. From then on it speaks to both sides from where it stands: a netlink socket belongs to
the namespace in which it was opened. The namespace has no name in any file system; descriptors
and processes keep it alive, and when the last is gone the kernel takes the veths along. Deleting
a veth ourselves would only wait for the same grace period.

Connections may keep it alive longer than its processes: whoever closes one, or is killed, leaves
it to the kernel, which for minutes goes on sending what nobody has acknowledged. Meanwhile the
dead namespace answers for addresses that are somebody else's by now. So links are cut off first
of all when a container ends, and deleted once nobody waits, should connections have remained.
"""

import _socket
import contextlib
import errno
import os
import sys
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_network

from ketch.errors import (
    InvalidArgumentError,
    PermissionDeniedError,
    SyscallError,
    UnavailableError,
)
from ketch.linux import namespaces, process, rtnetlink
from ketch.network import bridge as bridges
from ketch.network import hardening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn, Self

    from ketch.network.parent import Parent

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface

_LOOPBACK_INDEX = 1
_EVERYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
# BR_MAX_PORTS less the one that is no port: net/bridge/br_private.h.
_PORTS_MAX = 1023
_DISABLE_IPV6 = "/proc/sys/net/ipv6/conf/{}/disable_ipv6"


class Endpoint:
    """A container's place in a network.

    Args:
        identifier: hexadecimal digits that no other has.
        network: the network's name.
        link: the network's bridge, or what its links are made on.
        addresses: the container's, with prefix length.
        mac: MAC address, ``02:42:ac:11:00:02``; empty where the link has its parent's.
        routes: IP versions of which the default route is on this network, each with its next hop,
            or None where the link itself leads everywhere.
        interface: the link's name in the container.
        sysctls: kernel parameters of the link: names below ``/proc/sys`` and values.
    """

    __slots__ = (
        "addresses", "identifier", "interface", "link", "mac", "network", "routes", "sysctls",
    )  # fmt: skip

    def __init__(
        self,
        identifier: str,
        network: str,
        link: "bridges.Bridge | Parent",
        addresses: "Sequence[Interface]",
        mac: str,
        *,
        routes: "Mapping[int, Address | None] | None" = None,
        interface: str = "eth0",
        sysctls: "Mapping[str, str] | None" = None,
    ) -> None:
        self.identifier = identifier
        self.network = network
        self.link = link
        self.addresses = tuple(addresses)
        self.mac = mac
        self.routes = dict(routes or {})
        self.interface = interface
        self.sysctls = dict(sysctls or {})

    @property
    def port(self) -> str:
        """Name of the link's end at its bridge."""
        return f"veth{self.identifier[:8]}"


class Sandbox:
    """A network namespace; a new one has its loopback up, and nothing else until connected.

    To be made in the host's network namespace by a process with one thread.

    Args:
        ipv6: whether links other than loopback are to have IPv6. Without, they have not even
            link-local addresses, as in Docker.
        existing: a path to a namespace that is there already, such as ``/proc/7/ns/net``.
        owner: descriptor of the user namespace whose root is to be its master; None for the host's.

    Raises:
        PermissionDeniedError: the caller may not make network namespaces.
        SyscallError: the kernel refused.
        OSError: there is no such namespace.
    """

    __slots__ = ("_host", "_inside", "_ipv6", "_opened", "descriptor")

    descriptor: int
    """Of the namespace, close-on-exec; good for setns(2) as long as the sandbox is not closed."""

    def __init__(self, *, ipv6: bool = False, existing: str = "", owner: int | None = None) -> None:
        self._ipv6 = ipv6 or bool(existing)
        with contextlib.ExitStack() as opened:
            self._host = opened.enter_context(rtnetlink.Socket())
            if namespaces.in_initial_user_namespace() or namespaces.owns("net"):
                with namespaces.network_kept():
                    self._enter(existing, owner, opened)
            else:
                # There is no way back into a network of another user namespace's.
                from ketch.linux.apart import apart  # noqa: PLC0415 - it loads threads

                apart(lambda: self._enter(existing, owner, opened))
            if not existing:
                self._inside.execute(rtnetlink.set_link(_LOOPBACK_INDEX, up=True))
            self._opened = opened.pop_all()

    def _enter(self, existing: str, owner: int | None, opened: contextlib.ExitStack) -> None:
        """Go into the namespace, which is made unless it exists, and open a socket there."""
        if existing:
            self.descriptor = _open(existing, opened)
        elif owner is not None:
            self.descriptor = _owned(owner, opened)
        else:
            _unshare()
            self.descriptor = _open("/proc/thread-self/ns/net", opened)
        if existing or owner is not None:
            namespaces.setns(self.descriptor, namespaces.CLONE_NEWNET)
        self._inside = opened.enter_context(rtnetlink.Socket())
        if not existing and not self._ipv6:
            _write(_DISABLE_IPV6.format("default"), "1")

    def __enter__(self) -> "Self":
        """Own the sandbox for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sandbox."""
        self.close()

    def connect(self, endpoint: Endpoint) -> None:
        """Give the container a link in a network.

        Raises:
            ConflictError: something else has the bridge's name.
            NotFoundError: the link that the network's are made on is not there.
            PermissionDeniedError: the caller may not configure networks.
            UnavailableError: forwarding cannot be switched on.
            UnsupportedError: the kernel has no such links.
            SyscallError: the kernel refused.
        """
        if isinstance(endpoint.link, bridges.Bridge):
            self._plug(endpoint.link, endpoint)
        else:
            endpoint.link.attach(
                self._host, endpoint.interface, namespace=self.descriptor, mac=endpoint.mac
            )
        link = self._inside.link(endpoint.interface)
        if link is None:
            raise UnavailableError(f"link {endpoint.interface} has gone from a container")
        has_ipv6 = any(address.version == 6 for address in endpoint.addresses)
        if self._ipv6 or has_ipv6 or endpoint.sysctls:
            self._tune(endpoint, ipv6=has_ipv6)
        self._inside.execute(
            rtnetlink.set_link(link.index, up=True),
            *(rtnetlink.add_address(link.index, address) for address in endpoint.addresses),
        )
        self.add_routes(endpoint)

    def add_routes(self, endpoint: Endpoint) -> None:
        """Have the default routes lead to an endpoint's network."""
        link = self._inside.link(endpoint.interface)
        if link is not None and endpoint.routes:
            self._inside.execute(
                *(
                    rtnetlink.add_route(_EVERYWHERE[version], gateway, index=link.index)
                    for version, gateway in endpoint.routes.items()
                )
            )

    def remove_routes(self) -> None:
        """Take away the default routes, wherever they lead."""
        self._inside.execute(
            *(
                rtnetlink.delete_route(route.destination, route.gateway, index=route.index)
                for route in self._inside.routes()
                if not route.destination.prefixlen and route.table == rtnetlink.RT_TABLE_MAIN
            )
        )

    def disconnect(self, interface: str) -> None:
        """Take a link away; gone already will do."""
        link = self._inside.link(interface)
        if link is not None:
            self._inside.execute(rtnetlink.delete_link(link.index))

    def addresses(self) -> "list[Interface]":
        """The addresses of its links, without those that lead nowhere else: loopback, link-local.

        Raises:
            SyscallError: the kernel refused.
        """
        return [
            one for one in self._inside.addresses()
            if not one.ip.is_loopback and not one.ip.is_link_local
        ]  # fmt: skip

    def interfaces(self) -> set[str]:
        """Names of the links that are there."""
        return {link.name for link in self._inside.links()}

    def close(self) -> None:
        """Close this process's hold on the namespace; those inside keep it alive."""
        self._opened.close()

    def _plug(self, bridge: bridges.Bridge, endpoint: Endpoint) -> None:
        index = bridges.ensure(self._host, bridge)
        try:
            self._host.execute(
                rtnetlink.add_veth(
                    endpoint.port,
                    endpoint.interface,
                    namespace=self.descriptor,
                    bridge=index,
                    mac=endpoint.mac,
                    mtu_bytes=bridge.mtu_bytes,
                ),
                hardening.of_port(endpoint.port),
            )
        except SyscallError as error:
            if error.errno != errno.EXFULL:
                raise
            raise UnavailableError(
                f"network {endpoint.network} is full: its bridge {bridge.name} has"
                f" {_PORTS_MAX} ports, and Linux knows no larger one",
                "make another one with ketch network create, and start with --network NAME",
            ) from error
        # The link passes frames on, and the host has nothing to hear from it itself: without this
        # it would take router advertisements in frames that no bridge forwards.
        _write(_DISABLE_IPV6.format(endpoint.port), "1")
        # Where bridges are filtered, what a container sends to its own published port is led back
        # to it within the bridge.
        hairpin = bridges.is_filtered()
        if bridge.isolated or hairpin:
            self._host.execute(
                rtnetlink.set_bridge_port(endpoint.port, isolated=bridge.isolated, hairpin=hairpin)
            )

    def _tune(self, endpoint: Endpoint, *, ipv6: bool) -> None:
        """Set kernel parameters of a link; /proc/sys/net is the namespace's of who looks."""
        with namespaces.network_entered(self.descriptor):
            _write(_DISABLE_IPV6.format(endpoint.interface), "0" if ipv6 else "1")
            for name, value in endpoint.sysctls.items():
                _write(f"/proc/sys/{name}", value, must=True)


def cut(endpoints: "Sequence[Endpoint]", namespace: int = -1) -> None:
    """Take an ended container's links off their networks; links that are gone will do.

    Args:
        endpoints: where they are connected.
        namespace: descriptor of the container's network namespace. Without it links that have no
            bridge stay until the namespace is gone.

    Raises:
        SyscallError: the kernel refused.
    """
    ports = [one.port for one in endpoints if isinstance(one.link, bridges.Bridge)]
    if ports:
        with rtnetlink.Socket() as host:
            host.execute(*(rtnetlink.set_dormant(port) for port in ports))
    others = [one for one in endpoints if not isinstance(one.link, bridges.Bridge)]
    if others and namespace >= 0:
        with Sandbox(existing=f"/proc/self/fd/{namespace}") as sandbox:
            for one in others:
                sandbox.disconnect(one.interface)


def delete(endpoints: "Sequence[Endpoint]") -> None:
    """Delete links whose namespace nobody has any more, but that its connections may keep alive.

    Those that are gone will do; each that is not waits for a grace period.

    Raises:
        SyscallError: the kernel refused.
    """
    with rtnetlink.Socket() as host:
        for one in endpoints:
            link = host.link(one.port)
            if link is not None:
                host.execute(rtnetlink.delete_link(link.index))


def bury(namespace: int) -> None:
    """Delete an ended container's links where connections keep its network namespace alive.

    Without any, nothing is done: links die with the namespace, which keeps nobody waiting.

    Args:
        namespace: the namespace's descriptor.

    Raises:
        SyscallError: the kernel refused.
    """
    with namespaces.network_entered(namespace):
        if not _connections()[0]:
            return
        inside = rtnetlink.Socket()
    with inside:
        inside.execute(*(rtnetlink.delete_link(link.index) for link in inside.links() if link.kind))


def connections(namespace: int) -> int:
    """How many TCP sockets a network namespace has, with those that only wait for late packets.

    Args:
        namespace: its descriptor.
    """
    with namespaces.network_entered(namespace):
        return sum(_connections())


def _connections() -> tuple[int, int]:
    """The TCP sockets of the network namespace that the thread is in, anybody's or nobody's.

    Reading them one by one would pass through those of all namespaces.

    Returns:
        How many there are, and how many more are in TIME-WAIT.
    """
    found = [0, 0]
    for path in ("/proc/thread-self/net/sockstat", "/proc/thread-self/net/sockstat6"):
        with contextlib.suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:
            for line in file.read().splitlines():
                kind, _, figures = line.partition(b": inuse ")
                if kind in {b"TCP", b"TCP6"}:
                    words = figures.split()
                    found[0] += int(words[0])
                    if b"tw" in words:
                        found[1] += int(words[words.index(b"tw") + 1])
    return found[0], found[1]


def _owned(owner: int, opened: contextlib.ExitStack) -> int:
    """Make a network namespace in a user namespace, by a process that goes there for it."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        pid, pidfd = process.clone3(0)
        if pid == 0:
            ours.close()
            _hold(owner, theirs)
        theirs.close()
        try:
            if number := int.from_bytes(ours.recv(4), sys.byteorder):
                raise SyscallError(number, "unshare", "a network namespace in a user namespace")
            return _open(f"/proc/{pid}/ns/net", opened)
        finally:
            ours.close()
            os.waitpid(pid, 0)
            os.close(pidfd)
    finally:
        ours.close()
        theirs.close()


def _hold(owner: int, channel: _socket.socket) -> "NoReturn":
    """In the child: make the namespace, and be its process until the parent has it, or is gone."""
    number = 0
    try:
        namespaces.setns(owner, namespaces.CLONE_NEWUSER)
        namespaces.unshare(namespaces.CLONE_NEWNET)
    except OSError as error:
        number = error.errno or errno.EPERM
    channel.send(number.to_bytes(4, sys.byteorder))
    channel.recv(1)
    os._exit(0)


def _unshare() -> None:
    try:
        namespaces.unshare(namespaces.CLONE_NEWNET)
    except SyscallError as error:
        if error.errno != errno.EPERM:
            raise
        raise PermissionDeniedError(
            "a network namespace cannot be made: not permitted", "run as root"
        ) from error


def _open(path: str, owner: contextlib.ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    owner.callback(os.close, descriptor)
    return descriptor


def _write(path: str, value: str, *, must: bool = False) -> None:
    """Set a kernel parameter of the namespace that the thread is in."""
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(value.encode())
    except OSError as error:
        if must:
            raise InvalidArgumentError(
                f"cannot set {path.removeprefix('/proc/sys/')} to {value!r}: {error.strerror}"
            ) from error
        # A kernel without IPv6; or /proc/sys is read-only, and links get a link-local address.
        if error.errno not in {errno.ENOENT, errno.EROFS}:
            raise
