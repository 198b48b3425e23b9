"""A network's bridge in the host: made when missing, mended when wrong.

Nothing is remembered about it. Every start looks at the kernel and does what is lacking, so a
process killed between two steps, a reboot, an ``ip link del`` and eight starts at once all end in
the same state: the bridge exists, is up, has exactly its network's addresses, and packets are
forwarded. Each step is one request that another process may have been quicker with.
"""

import _socket
import errno
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from ketch.errors import ConflictError, PermissionDeniedError, SyscallError, UnavailableError
from ketch.linux import rtnetlink
from ketch.linux.netlink import Request
from ketch.network import hardening, ip_forward, ipam

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface

DEFAULT_MTU_BYTES = 1500


class Bridge:
    """A bridge network as the host sees it.

    Args:
        name: the link's name, at most 15 bytes.
        addresses: the host's own in the network, with prefix length: the containers' gateways.
        mtu_bytes: largest packet.
        masquerade: packets that leave for other networks get the host's address.
        internal: nothing leaves for other networks.
        isolated: its containers exchange no packets among themselves.
        kept: somebody else made the link, so what it has besides stays.
        routed: IP versions whose packets keep their addresses on the way out and in.
        unprotected: IP versions in which others may speak to its containers unasked.
        sources: addresses of the host for packets that leave, instead of the way out's own.
        mac: the link's MAC address; made from the first address where empty.
        pinned: whether its containers' ports send from their own addresses alone.
        shunned: whether its containers may begin no conversation with the host.
    """

    __slots__ = (
        "addresses", "internal", "isolated", "kept", "mac", "masquerade", "mtu_bytes", "name",
        "pinned", "routed", "shunned", "sources", "unprotected",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        addresses: "Sequence[Interface]",
        *,
        mtu_bytes: int = DEFAULT_MTU_BYTES,
        masquerade: bool = True,
        internal: bool = False,
        isolated: bool = False,
        kept: bool = False,
        routed: "Sequence[int]" = (),
        unprotected: "Sequence[int]" = (),
        sources: "Sequence[Address]" = (),
        mac: str = "",
        pinned: bool = True,
        shunned: bool = False,
    ) -> None:
        self.name = name
        self.addresses = tuple(addresses)
        self.mtu_bytes = mtu_bytes
        self.masquerade = masquerade
        self.internal = internal
        self.isolated = isolated
        self.kept = kept
        self.routed = tuple(routed)
        self.unprotected = tuple(unprotected)
        self.sources = tuple(sources)
        self.pinned = pinned
        self.shunned = shunned
        # The same whoever makes it.
        self.mac = mac or ipam.mac_of(self.addresses[0].ip)

    @property
    def forwarded(self) -> set[int]:
        """IP versions in which the host passes packets on to other networks."""
        return set() if self.internal else {address.version for address in self.addresses}


def ensure(host: rtnetlink.Socket, bridge: Bridge, alias: str = "") -> int:
    """Have a bridge as it should be; cheap when it is.

    Who is killed meanwhile leaves one that says whose it is, or one without an address: it gets
    both in one message, which the kernel reads before anybody can be killed.

    Args:
        host: rtnetlink socket of the namespace where the bridge is; the caller must be in that
            namespace, because forwarding is a sysctl of the caller's.
        bridge: what there should be.
        alias: what it is to say of itself where it says nothing yet.

    Returns:
        The bridge's index.

    Raises:
        ConflictError: something else has the bridge's name.
        PermissionDeniedError: the caller may not configure this namespace.
        UnavailableError: forwarding cannot be switched on.
        SyscallError: the kernel refused.
    """
    try:
        link = host.link(bridge.name) or _make(host, bridge)
        if link.kind != "bridge":
            raise ConflictError(
                f"network interface {bridge.name} is in the way: "
                f"it is {link.kind or 'hardware'}, not a bridge",
                f"rename or delete it (ip link set {bridge.name} name ...)",
            )
        requests = []
        if alias and not link.alias:
            requests.append(rtnetlink.set_alias(link.index, alias))
        if not bridge.kept:
            if link.mac != bridge.mac:  # its network had another subnet
                requests.append(rtnetlink.set_link(link.index, mac=bridge.mac))
            hardening.harden(link)
            if link.learns_from_link_local:
                requests.append(rtnetlink.learn_by_forwarding(link.index))
        if not link.up:
            requests.append(rtnetlink.set_link(link.index, up=True))
        requests += _addresses(host, link.index, bridge)
        if requests:
            host.execute(*requests)
    except SyscallError as error:
        if error.errno != errno.EPERM:
            raise
        raise PermissionDeniedError(
            f"bridge {bridge.name} cannot be configured: {error}", "run as root"
        ) from error
    for version in bridge.forwarded:
        ip_forward.switch_on(host, version)
    return link.index


def _make(host: rtnetlink.Socket, bridge: Bridge) -> rtnetlink.Link:
    failure = host.attempt(
        rtnetlink.add_bridge(bridge.name, bridge.mac, bridge.mtu_bytes, up=False)
    )[0]
    if failure is not None and failure.errno != errno.EEXIST:
        raise failure
    link = host.link(bridge.name)
    if link is None:
        raise UnavailableError(f"bridge {bridge.name} was deleted while it was being set up")
    return link


def _addresses(host: rtnetlink.Socket, index: int, bridge: Bridge) -> "list[Request]":
    """What gives the bridge its addresses.

    One that lacks an address of its own was left by a network with another subnet: what it has
    instead goes, and with it the route that would lead replies astray. One that lacks nothing
    may keep what an operator added to it.
    """
    present = host.addresses(index)
    missing = [address for address in bridge.addresses if address not in present]
    if not missing or bridge.kept:
        return [rtnetlink.add_address(index, address) for address in missing]
    versions = {address.version for address in missing}
    stale = [
        address
        for address in present
        if address.version in versions
        and address not in bridge.addresses
        and not address.is_link_local
    ]
    return [rtnetlink.delete_address(index, address) for address in stale] + [
        rtnetlink.add_address(index, address) for address in missing
    ]


def delete(host: rtnetlink.Socket, name: str) -> None:
    """Delete a bridge; already gone, or something else by now, will do.

    Raises:
        SyscallError: the kernel refused.
    """
    link = host.link(name)
    if link is not None and link.kind == "bridge":
        host.execute(rtnetlink.delete_link(link.index))


def read(host: rtnetlink.Socket, name: str) -> Bridge | None:
    """A bridge as the kernel has it, where nobody remembers what it was for; None where none is."""
    link = host.link(name)
    if link is None or link.kind != "bridge":
        return None
    addresses = [one for one in host.addresses(link.index) if not one.is_link_local]
    return Bridge(name, addresses, mac=link.mac)


def is_filtered() -> bool:
    """Whether what passes a bridge is seen by the packet filter (br_netfilter)."""
    try:
        with open("/proc/sys/net/bridge/bridge-nf-call-iptables", "rb", buffering=0) as file:
            return file.read(1) == b"1"
    except OSError:
        return False


def exists(name: str) -> bool:
    """Whether the caller's network namespace has a link of this name."""
    try:
        _socket.if_nametoindex(name)
    except OSError:
        return False
    return True
