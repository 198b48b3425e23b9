"""A container's network namespace, made and wired without a helper process.

The monitor has one thread, so it can step into a new network namespace, open a socket there, and
step back. From then on it speaks to both sides from where it stands: a netlink socket belongs to
the namespace in which it was opened. The namespace has no name in any file system; descriptors
and processes keep it alive, and when the last is gone the kernel takes the veths along. Deleting
a veth ourselves would only wait for the same grace period.
"""

import contextlib
import errno
import os
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_network

from ketch.errors import KetchError, PermissionDeniedError, SyscallError, UnavailableError
from ketch.linux import namespaces, nftables, rtnetlink
from ketch.network import bridge as bridges
from ketch.network import firewall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface

_LOOPBACK_INDEX = 1
_EVERYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_DISABLE_IPV6 = "/proc/sys/net/ipv6/conf/default/disable_ipv6"


class Endpoint:
    """A container's place in a network.

    Args:
        network: the network's name.
        bridge: the network's bridge.
        addresses: the container's, with prefix length; one of each IP version at most.
        mac: MAC address, ``02:42:ac:11:00:02``.
        gateways: next hops of the default routes; empty where this network is not the way out.
        interface: the link's name in the container.
    """

    __slots__ = ("addresses", "bridge", "gateways", "interface", "mac", "network")

    def __init__(
        self,
        network: str,
        bridge: bridges.Bridge,
        addresses: "Sequence[Interface]",
        mac: str,
        *,
        gateways: "Sequence[Address]" = (),
        interface: str = "eth0",
    ) -> None:
        self.network = network
        self.bridge = bridge
        self.addresses = tuple(addresses)
        self.mac = mac
        self.gateways = tuple(gateways)
        self.interface = interface


class Sandbox:
    """A network namespace with its loopback up, and nothing else until it is connected.

    To be made in the host's network namespace by a process with one thread.

    Args:
        ipv6: whether links other than loopback are to have IPv6. Without, they have not even
            link-local addresses, as in Docker.

    Raises:
        PermissionDeniedError: the caller may not make network namespaces.
        SyscallError: the kernel refused.
    """

    __slots__ = ("_host", "_inside", "_opened", "_pending", "descriptor")

    descriptor: int
    """Of the namespace, close-on-exec; good for setns(2) as long as the sandbox is not closed."""

    def __init__(self, *, ipv6: bool = False) -> None:
        self._pending: list[nftables.Transaction] = []
        with contextlib.ExitStack() as opened:
            self._host = opened.enter_context(rtnetlink.Socket())
            with contextlib.ExitStack() as way_back:
                home = _namespace(way_back)
                _unshare()
                way_back.callback(namespaces.setns, home, namespaces.CLONE_NEWNET)
                self.descriptor = _namespace(opened)
                self._inside = opened.enter_context(rtnetlink.Socket())
                if not ipv6:
                    _disable_ipv6()
            self._inside.execute(rtnetlink.set_link(_LOOPBACK_INDEX, up=True))
            self._opened = opened.pop_all()

    def __enter__(self) -> "Self":
        """Own the sandbox for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sandbox."""
        self.close()

    def connect(self, endpoint: Endpoint) -> None:
        """Give the container a link in a network, ready for packets once ``settle`` returns.

        Raises:
            ConflictError: something else has the bridge's name.
            PermissionDeniedError: the caller may not configure networks.
            UnavailableError: nft is missing, or forwarding cannot be switched on.
            UnsupportedError: the kernel has no nftables.
            SyscallError: the kernel refused.
        """
        transaction = firewall.ensure(endpoint.bridge)
        if transaction is not None:
            self._pending.append(transaction)
        bridge = bridges.ensure(self._host, endpoint.bridge)
        self._host.execute(
            rtnetlink.add_veth(
                f"veth{os.urandom(4).hex()}",
                endpoint.interface,
                namespace=self.descriptor,
                bridge=bridge,
                mac=endpoint.mac,
                mtu_bytes=endpoint.bridge.mtu_bytes,
            )
        )
        link = self._inside.link(endpoint.interface)
        if link is None:
            raise UnavailableError(f"link {endpoint.interface} has gone from a new container")
        self._inside.execute(
            rtnetlink.set_link(link.index, up=True),
            *(rtnetlink.add_address(link.index, address) for address in endpoint.addresses),
            *(
                rtnetlink.add_route(_EVERYWHERE[gateway.version], gateway, index=link.index)
                for gateway in endpoint.gateways
            ),
        )

    def settle(self) -> None:
        """Wait until the packet filter has what the connections need; mostly it has.

        To be called before the process waits for just any child of its own: nft is one.

        Raises:
            PermissionDeniedError: the caller may not change the packet filter.
            UnavailableError: nft failed.
        """
        while self._pending:
            self._pending.pop().wait()

    def close(self) -> None:
        """Close this process's hold on the namespace; those inside keep it alive."""
        with contextlib.suppress(KetchError):
            # Only a failed start leaves any, and its own failure is the one to tell.
            self.settle()
        self._opened.close()


def _unshare() -> None:
    try:
        namespaces.unshare(namespaces.CLONE_NEWNET)
    except SyscallError as error:
        if error.errno != errno.EPERM:
            raise
        raise PermissionDeniedError(
            "a network namespace cannot be made: not permitted", "run as root"
        ) from error


def _namespace(owner: contextlib.ExitStack) -> int:
    """A descriptor of the network namespace that the process is in."""
    descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    owner.callback(os.close, descriptor)
    return descriptor


def _disable_ipv6() -> None:
    """Keep IPv6 from links that are yet to come; ::1 stays, as in Docker since 26."""
    try:
        with open(_DISABLE_IPV6, "wb", buffering=0) as file:
            file.write(b"1")
    except OSError as error:
        # A kernel without IPv6; or /proc/sys is read-only, and links get a link-local address.
        if error.errno not in {errno.ENOENT, errno.EROFS}:
            raise
