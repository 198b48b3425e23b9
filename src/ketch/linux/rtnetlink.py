"""Links, addresses and routes: rtnetlink(7), netlink(7) and the kernel's linux/rtnetlink.h.

Functions named after what they do build requests, without I/O; ``Socket`` sends them, many at
once, and reads links, addresses and routes back.
"""

import _socket
import errno
import os
import struct
import sys
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)

from ketch.errors import InvalidArgumentError
from ketch.linux import netlink
from ketch.linux.netlink import Message, Request, attribute, nested, text, u32

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

NETLINK_ROUTE = 0

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26

IFF_UP = 0x1
IFF_LOOPBACK = 0x8

IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_MASTER = 10
IFLA_OPERSTATE = 16
IFLA_LINKMODE = 17
IFLA_LINKINFO = 18
IFLA_IFALIAS = 20
IFLA_AF_SPEC = 26
IFLA_NET_NS_FD = 28
IFLA_EXT_MASK = 29
IFLA_NUM_TX_QUEUES = 31
IFLA_NUM_RX_QUEUES = 32
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_INFO_SLAVE_KIND = 4
IFLA_INFO_SLAVE_DATA = 5
VETH_INFO_PEER = 1
IFLA_BRPORT_MODE = 4
IFLA_BRPORT_ISOLATED = 33
IFLA_BR_MULTI_BOOLOPT = 46
BR_BOOLOPT_NO_LL_LEARN = 0
IFLA_MACVLAN_MODE = 1
IFLA_IPVLAN_MODE = 1
IFLA_IPVLAN_FLAGS = 2
IFLA_VLAN_ID = 1
RTEXT_FILTER_SKIP_STATS = 0x8

IF_OPER_DORMANT = 5
IF_LINK_MODE_DORMANT = 1

# linux/if_link.h and linux/ip.h, linux/ipv6.h: where a link's description has its sysctls of an IP
# version, and at which place in that row each is; IPv4's count from one.
_CONFIGURATIONS = {4: (int(_socket.AF_INET), 1), 6: (int(_socket.AF_INET6), 2)}
_PLACES = {
    4: {
        "proxy_arp": 2, "accept_redirects": 3, "secure_redirects": 4, "accept_source_route": 8,
        "arp_accept": 20, "accept_local": 22, "proxy_arp_pvlan": 24, "route_localnet": 25,
        "drop_unicast_in_l2_multicast": 29,
    },
    6: {
        "accept_ra": 3, "accept_redirects": 4, "autoconf": 5, "accept_ra_defrtr": 17,
        "accept_ra_pinfo": 18, "accept_ra_rtr_pref": 19, "proxy_ndp": 22,
        "accept_source_route": 24, "accept_ra_mtu": 35, "drop_unicast_in_l2_multicast": 40,
    },
}  # fmt: skip

# linux/if_link.h: enum macvlan_mode; enum ipvlan_mode and its flags, under their users' names.
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFA_FLAGS = 8
IFA_F_NODAD = 0x02

RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RTA_TABLE = 15

RT_TABLE_MAIN = 254
RT_TABLE_LOCAL = 255
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RT_SCOPE_HOST = 254
RTPROT_BOOT = 3
RTPROT_RA = 9
RTN_UNICAST = 1
RTN_LOCAL = 2

# linux/if.h: IFNAMSIZ counts the final zero byte.
NAME_BYTES = 15

_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, mask of changed flags
_ADDRESS = struct.Struct("=BBBBi")  # ifaddrmsg: family, prefix length, flags, scope, index
# rtmsg: family, destination and source length, tos, table, protocol, scope, type, flags
_ROUTE = struct.Struct("=BBBBBBBBI")

# Counters are half of a link's description, and nobody asks for them.
# As many as a veth uses unless told otherwise. Where it is told nothing it makes one for each
# processor first, and then waits for grace periods to be rid of them.
_ONE_QUEUE = u32(IFLA_NUM_TX_QUEUES, 1) + u32(IFLA_NUM_RX_QUEUES, 1)
_WITHOUT_STATISTICS = u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)

_FAMILIES = {4: int(_socket.AF_INET), 6: int(_socket.AF_INET6)}


class Link:
    """A network interface as the kernel describes it.

    Attributes:
        index: its number in its namespace.
        name: its name.
        flags: IFF_* of netdevice(7).
        kind: ``bridge``, ``veth``..., empty for hardware and loopback.
        mac: link-layer address, ``02:42:...``, empty where it has none.
        alias: what somebody has written to it, see ``set_alias``.
        mtu_bytes: largest packet.
        master: index of the bridge it is a port of, or 0.
        peer: index of the other end or lower link, maybe in another namespace, or 0.
        learns_from_link_local: of a bridge, whether frames that no bridge forwards teach it who is
            behind a port.
    """

    __slots__ = (
        "_configurations", "alias", "flags", "index", "kind", "learns_from_link_local", "mac",
        "master", "mtu_bytes", "name", "peer",
    )  # fmt: skip

    index: int
    flags: int

    def __init__(self, message: Message) -> None:
        _, _, self.index, self.flags, _ = _LINK.unpack_from(message.payload)
        values = dict(netlink.attributes(message.payload, _LINK.size))
        self.name = netlink.string(values[IFLA_IFNAME])
        self.mac = values.get(IFLA_ADDRESS, b"").hex(":")
        self.alias = os.fsdecode(values.get(IFLA_IFALIAS, b"").rstrip(b"\0"))
        self.mtu_bytes = netlink.number(values.get(IFLA_MTU, b""))
        self.master = netlink.number(values.get(IFLA_MASTER, b""))
        self.peer = netlink.number(values.get(IFLA_LINK, b""))
        information = dict(netlink.attributes(values.get(IFLA_LINKINFO, b"")))
        self.kind = netlink.string(information.get(IFLA_INFO_KIND, b""))
        data = dict(netlink.attributes(information.get(IFLA_INFO_DATA, b"")))
        switches = netlink.number(data.get(IFLA_BR_MULTI_BOOLOPT, b"")[:4])
        self.learns_from_link_local = not switches & 1 << BR_BOOLOPT_NO_LL_LEARN
        self._configurations = values.get(IFLA_AF_SPEC, b"")

    def sysctls(self, version: int) -> dict[str, int]:
        """What is set for the link below ``net/ipv4/conf`` or ``net/ipv6/conf``, as far as we ask.

        A kernel that is older than a sysctl, or has no such IP version, does not have it.
        """
        family, kind = _CONFIGURATIONS[version]
        families = dict(netlink.attributes(self._configurations))
        row = dict(netlink.attributes(families.get(family, b""))).get(kind, b"")
        return {
            name: struct.unpack_from("=i", row, place * 4)[0]
            for name, place in _PLACES[version].items()
            if len(row) >= (place + 1) * 4
        }

    @property
    def up(self) -> bool:
        """Whether it is switched on."""
        return bool(self.flags & IFF_UP)


class Route:
    """A route as the kernel describes it.

    Attributes:
        destination: the network it leads to.
        gateway: next hop, or None where the destination is on the link.
        index: the link it leaves by, or 0.
        table: RT_TABLE_MAIN, RT_TABLE_LOCAL...
        kind: RTN_UNICAST...
        protocol: who made it: RTPROT_BOOT, RTPROT_RA...
        priority: metric; the smallest wins.
    """

    __slots__ = ("destination", "gateway", "index", "kind", "priority", "protocol", "table")

    def __init__(self, message: Message) -> None:
        family, length, _, _, table, self.protocol, _, self.kind, _ = _ROUTE.unpack_from(
            message.payload
        )
        values = dict(netlink.attributes(message.payload, _ROUTE.size))
        empty = bytes(4 if family == _socket.AF_INET else 16)
        self.destination: Network = ip_network((values.get(RTA_DST, empty), length))
        gateway = values.get(RTA_GATEWAY)
        self.gateway: Address | None = ip_address(gateway) if gateway else None
        self.index = netlink.number(values.get(RTA_OIF, b""))
        self.table = netlink.number(values[RTA_TABLE]) if RTA_TABLE in values else table
        self.priority = netlink.number(values.get(RTA_PRIORITY, b""))


def add_bridge(name: str, mac: str, mtu_bytes: int, *, up: bool = True) -> Request:
    """Make a bridge in the socket's namespace; EEXIST when the name is taken.

    Args:
        name: at most NAME_BYTES bytes.
        mac: its address. A bridge that was given none takes the lowest of its ports' and changes
            it as they come and go, which its neighbours' caches do not forgive.
        mtu_bytes: largest packet.
        up: whether it is switched on.
    """
    return Request(
        "RTM_NEWLINK",
        RTM_NEWLINK,
        netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
        _LINK.pack(0, 0, 0, up, IFF_UP)
        + _name(name)
        + _mac(mac)
        + u32(IFLA_MTU, mtu_bytes)
        + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge")),
        f"make bridge {name}",
    )


def learn_by_forwarding(index: int) -> Request:
    """Have a bridge learn who is behind a port by frames that it forwards alone (Linux 5.0).

    No packet filter sees the others: by a frame to 01:80:c2:00:00:0e anybody could take over
    anybody's address. An older kernel refuses by EOPNOTSUPP or ignores it.
    """
    switch = 1 << BR_BOOLOPT_NO_LL_LEARN
    value = attribute(IFLA_BR_MULTI_BOOLOPT, struct.pack("=II", switch, switch))
    return Request(
        "RTM_NEWLINK",
        RTM_NEWLINK,
        0,
        _LINK.pack(0, 0, index, 0, 0)
        + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), nested(IFLA_INFO_DATA, value)),
        f"no learning by link-local frames on bridge {index}",
        accept=(errno.EOPNOTSUPP,),
    )


def add_veth(
    name: str, peer: str, *, namespace: int, bridge: int, mac: str, mtu_bytes: int
) -> Request:
    """Make a pair of veths: one, up, a port of a bridge; its peer, down, in another namespace.

    Args:
        name: of the bridge's end, in the socket's namespace.
        peer: name of the other end.
        namespace: descriptor of the network namespace in which the peer is to be.
        bridge: the bridge's index.
        mac: the peer's address.
        mtu_bytes: largest packet, of both.

    Source: veth(4); veth_newlink() in drivers/net/veth.c.
    """
    other = (
        _LINK.pack(0, 0, 0, 0, 0)
        + _name(peer)
        + _mac(mac)
        + _ONE_QUEUE
        + u32(IFLA_MTU, mtu_bytes)
        + u32(IFLA_NET_NS_FD, namespace)
    )
    return Request(
        "RTM_NEWLINK",
        RTM_NEWLINK,
        netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
        _LINK.pack(0, 0, 0, IFF_UP, IFF_UP)
        + _ONE_QUEUE
        + _name(name)
        + u32(IFLA_MTU, mtu_bytes)
        + u32(IFLA_MASTER, bridge)
        + nested(
            IFLA_LINKINFO,
            text(IFLA_INFO_KIND, "veth"),
            nested(IFLA_INFO_DATA, nested(VETH_INFO_PEER, other)),
        ),
        f"make veth {name}, a port of link {bridge}, with peer {peer} in a container",
    )


def set_bridge_port(name: str, *, isolated: bool = False, hairpin: bool = False) -> Request:
    """Set how a bridge treats one of its ports.

    Args:
        name: the port's.
        isolated: it exchanges no frames with other isolated ports (Linux 4.18).
        hairpin: what came from it may go back to it.
    """
    data = [
        attribute(kind, b"\1")
        for kind, wanted in ((IFLA_BRPORT_MODE, hairpin), (IFLA_BRPORT_ISOLATED, isolated))
        if wanted
    ]
    return Request(
        "RTM_NEWLINK",
        RTM_NEWLINK,
        0,
        _LINK.pack(0, 0, 0, 0, 0)
        + _name(name)
        + nested(
            IFLA_LINKINFO,
            text(IFLA_INFO_SLAVE_KIND, "bridge"),
            nested(IFLA_INFO_SLAVE_DATA, *data),
        ),
        f"set bridge port {name}: isolated {isolated}, hairpin {hairpin}",
    )


def set_ipv4_sysctls(name: str, values: "dict[str, int]") -> Request:
    """Set what a link has below ``net/ipv4/conf``, without a file for each.

    Args:
        name: the link's.
        values: of those that ``Link.sysctls`` tells.

    Source: inet_set_link_af() in net/ipv4/devinet.c; it takes no more of IPv6's than two.
    """
    family, kind = _CONFIGURATIONS[4]
    numbers = [u32(_PLACES[4][one] + 1, value) for one, value in values.items()]
    return Request(
        "RTM_NEWLINK",
        RTM_NEWLINK,
        0,
        _LINK.pack(0, 0, 0, 0, 0)
        + _name(name)
        + nested(IFLA_AF_SPEC, nested(family, nested(kind, *numbers))),
        f"set sysctls net.ipv4.conf of link {name}: {', '.join(values)}",
    )


def set_dormant(name: str) -> Request:
    """Have a link wait for something outside; one that is gone will do.

    A bridge passes nothing to or from such a port, and forgets who was behind it. Unlike deleting
    the link, or switching it off, this waits for no grace period. The port's own state would not
    do: the bridge enables it again when it learns of the link's carrier, up to a second late.

    Source: Documentation/networking/operstates.rst.
    """
    return Request(
        "RTM_NEWLINK",
        RTM_NEWLINK,
        0,
        _LINK.pack(0, 0, 0, 0, 0)
        + _name(name)
        + attribute(IFLA_OPERSTATE, bytes([IF_OPER_DORMANT]))
        + attribute(IFLA_LINKMODE, bytes([IF_LINK_MODE_DORMANT])),
        f"make link {name} dormant",
        accept=(errno.ENODEV,),
    )


def add_macvlan(
    name: str, parent: int, mode: str, *, namespace: int, mac: str, mtu_bytes: int = 0
) -> Request:
    """Make a link with a MAC address of its own on another link, down, in another namespace.

    Args:
        name: its name there.
        parent: index of the other link, in the socket's namespace.
        mode: one of MACVLAN_MODES.
        namespace: descriptor of the network namespace in which it is to be.
        mac: its address.
        mtu_bytes: largest packet; the parent's where 0.
    """
    data = u32(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode])
    return _add_child(name, parent, "macvlan", data, namespace, mac, mtu_bytes)


def add_ipvlan(
    name: str, parent: int, mode: str, flag: str, *, namespace: int, mtu_bytes: int = 0
) -> Request:
    """Make a link that shares another link's MAC address, down, in another namespace.

    Args:
        name: its name there.
        parent: index of the other link, in the socket's namespace.
        mode: one of IPVLAN_MODES.
        flag: one of IPVLAN_FLAGS.
        namespace: descriptor of the network namespace in which it is to be.
        mtu_bytes: largest packet; the parent's where 0.
    """
    data = attribute(IFLA_IPVLAN_MODE, IPVLAN_MODES[mode].to_bytes(2, sys.byteorder))
    data += attribute(IFLA_IPVLAN_FLAGS, IPVLAN_FLAGS[flag].to_bytes(2, sys.byteorder))
    return _add_child(name, parent, "ipvlan", data, namespace, "", mtu_bytes)


def add_vlan(name: str, parent: int, tag: int) -> Request:
    """Make a VLAN's link, down, on another link of the namespace; there already will do."""
    return Request(
        "RTM_NEWLINK",
        RTM_NEWLINK,
        netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
        _LINK.pack(0, 0, 0, 0, 0)
        + _name(name)
        + u32(IFLA_LINK, parent)
        + nested(
            IFLA_LINKINFO,
            text(IFLA_INFO_KIND, "vlan"),
            nested(IFLA_INFO_DATA, attribute(IFLA_VLAN_ID, tag.to_bytes(2, sys.byteorder))),
        ),
        f"make VLAN link {name}, tag {tag} on link {parent}",
        accept=(errno.EEXIST,),
    )


def add_dummy(name: str) -> Request:
    """Make a link that leads nowhere, down; there already will do."""
    return Request(
        "RTM_NEWLINK",
        RTM_NEWLINK,
        netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
        _LINK.pack(0, 0, 0, 0, 0)
        + _name(name)
        + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "dummy")),
        f"make dummy link {name}",
        accept=(errno.EEXIST,),
    )


def _add_child(
    name: str, parent: int, kind: str, data: bytes, namespace: int, mac: str, mtu_bytes: int
) -> Request:
    return Request(
        "RTM_NEWLINK",
        RTM_NEWLINK,
        netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
        _LINK.pack(0, 0, 0, 0, 0)
        + _name(name)
        + u32(IFLA_LINK, parent)
        + u32(IFLA_NET_NS_FD, namespace)
        + (_mac(mac) if mac else b"")
        + (u32(IFLA_MTU, mtu_bytes) if mtu_bytes else b"")
        + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind), nested(IFLA_INFO_DATA, data)),
        f"make {kind} {name} on link {parent}, in a container",
    )


def set_link(
    link: int | str,
    *,
    up: bool | None = None,
    name: str = "",
    mac: str = "",
    mtu_bytes: int = 0,
    master: int | None = None,
    namespace: int | None = None,
) -> Request:
    """Change a link: what is not given stays.

    Args:
        link: index, or name.
        up: on or off.
        name: its new name; the link must be down before Linux 6.2.
        mac: its new address.
        mtu_bytes: largest packet.
        master: index of the bridge it becomes a port of, 0 for none.
        namespace: descriptor of the network namespace it moves to.
    """
    payload = _LINK.pack(0, 0, 0 if isinstance(link, str) else link, bool(up), up is not None)
    changes = []
    if isinstance(link, str):
        if name:
            raise InvalidArgumentError("a link is renamed by its index")
        payload += _name(link)
    if up is not None:
        changes.append("up" if up else "down")
    if name:
        payload += _name(name)
        changes.append(f"name {name}")
    if mac:
        payload += _mac(mac)
        changes.append(f"address {mac}")
    if mtu_bytes:
        payload += u32(IFLA_MTU, mtu_bytes)
        changes.append(f"mtu {mtu_bytes}")
    if master is not None:
        payload += u32(IFLA_MASTER, master)
        changes.append(f"master {master}")
    if namespace is not None:
        payload += u32(IFLA_NET_NS_FD, namespace)
        changes.append("another namespace")
    detail = f"set link {link}: {', '.join(changes)}"
    # RTM_NEWLINK without NLM_F_CREATE changes; RTM_SETLINK takes no flags by name.
    return Request("RTM_NEWLINK", RTM_NEWLINK, 0, payload, detail)


def set_alias(index: int, alias: str) -> Request:
    """Write something to a link for others to read: ip-link(8), ``alias``; at most 255 bytes."""
    payload = _LINK.pack(0, 0, index, 0, 0) + attribute(IFLA_IFALIAS, os.fsencode(alias))
    return Request("RTM_SETLINK", RTM_SETLINK, 0, payload, f"write to link {index}")


def delete_link(index: int) -> Request:
    """Delete a link; already gone will do.

    For a veth this waits for grace periods: rather leave it to its dying namespace.
    """
    payload = _LINK.pack(0, 0, index, 0, 0)
    return Request(
        "RTM_DELLINK", RTM_DELLINK, 0, payload, f"delete link {index}", accept=(errno.ENODEV,)
    )


def add_address(index: int, address: Interface) -> Request:
    """Give a link an address, with the route to its network; already there will do.

    An IPv6 address is used at once: engines give each address to one link only, so the second of
    waiting for duplicates (RFC 4862, 5.4) would find none.
    """
    extra = b""
    if address.version == 6:
        extra = u32(IFA_FLAGS, IFA_F_NODAD)
    elif address.network.prefixlen < 31:  # RFC 3021: a link of two has no broadcast address
        extra = attribute(IFA_BROADCAST, address.network.broadcast_address.packed)
    return Request(
        "RTM_NEWADDR",
        RTM_NEWADDR,
        netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
        _address_payload(index, address) + extra,
        f"give link {index} address {address}",
        accept=(errno.EEXIST,),
    )


def delete_address(index: int, address: Interface) -> Request:
    """Take an address from a link; already gone will do."""
    return Request(
        "RTM_DELADDR",
        RTM_DELADDR,
        0,
        _address_payload(index, address),
        f"take address {address} from link {index}",
        accept=(errno.EADDRNOTAVAIL,),
    )


def add_route(
    destination: Network,
    gateway: Address | None = None,
    *,
    index: int = 0,
    priority: int = 0,
    local: bool = False,
    table: int = RT_TABLE_MAIN,
) -> Request:
    """Add a route; already there will do.

    Args:
        destination: the network it leads to; of prefix length 0 for the default route.
        gateway: next hop, or None where the destination is on the link.
        index: the link it leaves by; needed without a gateway.
        priority: metric; the smallest wins.
        local: whether what is sent there is this machine's own to take; the link is loopback.
        table: which routing table it is for, up to 255.
    """
    kind = RTN_LOCAL if local else RTN_UNICAST
    return Request(
        "RTM_NEWROUTE",
        RTM_NEWROUTE,
        netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
        _route_payload(destination, gateway, index, priority, kind, table),
        f"route {destination} by {gateway or 'the link'}",
        accept=(errno.EEXIST,),
    )


def delete_route(
    destination: Network, gateway: Address | None = None, *, index: int = 0
) -> Request:
    """Take a route out of the main table; already gone will do. For the arguments see add_route."""
    return Request(
        "RTM_DELROUTE",
        RTM_DELROUTE,
        0,
        _route_payload(destination, gateway, index, 0),
        f"no route {destination} by {gateway or 'the link'}",
        accept=(errno.ESRCH,),
    )


def _route_payload(
    destination: Network,
    gateway: Address | None,
    index: int,
    priority: int,
    kind: int = RTN_UNICAST,
    table: int = RT_TABLE_MAIN,
) -> bytes:
    scope = RT_SCOPE_UNIVERSE if gateway or destination.version == 6 else RT_SCOPE_LINK
    if kind == RTN_LOCAL and destination.version == 4:
        scope = RT_SCOPE_HOST
    payload = _ROUTE.pack(
        _FAMILIES[destination.version],
        destination.prefixlen,
        0,
        0,
        table,
        RTPROT_BOOT,
        scope,
        kind,
        0,
    )
    if destination.prefixlen:
        payload += attribute(RTA_DST, destination.network_address.packed)
    if gateway:
        payload += attribute(RTA_GATEWAY, gateway.packed)
    if index:
        payload += u32(RTA_OIF, index)
    if priority:
        payload += u32(RTA_PRIORITY, priority)
    return payload


class Socket(netlink.Socket):
    """A rtnetlink socket of the network namespace in which it is made."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE)

    def link(self, link: int | str) -> Link | None:
        """One link by its index or name, or None."""
        payload = _LINK.pack(0, 0, 0 if isinstance(link, str) else link, 0, 0)
        if isinstance(link, str):
            payload += _name(link)
        payload += _WITHOUT_STATISTICS
        request = Request(
            "RTM_GETLINK", RTM_GETLINK, 0, payload, f"look up link {link}", accept=(errno.ENODEV,)
        )
        answer = self.query(request)[0]
        return Link(answer) if answer else None

    def links(self) -> list[Link]:
        """Every link of the namespace."""
        payload = _LINK.pack(0, 0, 0, 0, 0) + _WITHOUT_STATISTICS
        request = Request("RTM_GETLINK", RTM_GETLINK, 0, payload, "list links")
        return [Link(message) for message in self.dump(request)]

    def addresses(self, index: int = 0, version: int = 0) -> list[Interface]:
        """Addresses with their prefix lengths.

        Args:
            index: of one link, or 0 for all.
            version: 4 or 6, or 0 for both.
        """
        family = _FAMILIES.get(version, 0)
        payload = _ADDRESS.pack(family, 0, 0, 0, index)
        found = []
        for message in self.dump(Request("RTM_GETADDR", RTM_GETADDR, 0, payload, "list addresses")):
            family, length, _, _, owner = _ADDRESS.unpack_from(message.payload)
            values = dict(netlink.attributes(message.payload, _ADDRESS.size))
            # On a point-to-point link IFA_ADDRESS is the other end; IPv6 has no IFA_LOCAL there.
            packed = values.get(IFA_LOCAL) or values[IFA_ADDRESS]
            if index in {0, owner}:
                found.append(
                    IPv4Interface((packed, length))
                    if family == _socket.AF_INET
                    else IPv6Interface((packed, length))
                )
        return found

    def route_to(self, address: Address) -> Route | None:
        """How the kernel would send something to an address; None where it could not."""
        family, bits = _FAMILIES[address.version], address.max_prefixlen
        payload = _ROUTE.pack(family, bits, 0, 0, 0, 0, 0, 0, 0)
        payload += attribute(RTA_DST, address.packed)
        request = Request(
            "RTM_GETROUTE", RTM_GETROUTE, 0, payload, f"look up the route to {address}",
            accept=(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL),
        )  # fmt: skip
        answer = self.query(request)[0]
        return Route(answer) if answer else None

    def routes(self, version: int = 0) -> list[Route]:
        """Routes of all tables.

        Args:
            version: 4 or 6, or 0 for both.
        """
        family = _FAMILIES.get(version, 0)
        payload = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        request = Request("RTM_GETROUTE", RTM_GETROUTE, 0, payload, "list routes")
        return [Route(message) for message in self.dump(request)]


def _name(name: str) -> bytes:
    if not 0 < len(name.encode()) <= NAME_BYTES or "/" in name or name in {".", ".."}:
        raise InvalidArgumentError(
            f"{name!r} cannot be a link's name", f"use 1 to {NAME_BYTES} characters, none of them /"
        )
    return text(IFLA_IFNAME, name)


def _mac(mac: str) -> bytes:
    try:
        packed = bytes.fromhex(mac.replace(":", ""))
    except ValueError:
        packed = b""
    if len(packed) != 6:
        raise InvalidArgumentError(f"{mac!r} is no MAC address", "write it as 02:42:ac:11:00:02")
    return attribute(IFLA_ADDRESS, packed)


def _address_payload(index: int, address: Interface) -> bytes:
    payload = _ADDRESS.pack(
        _FAMILIES[address.version], address.network.prefixlen, 0, RT_SCOPE_UNIVERSE, index
    )
    packed = address.ip.packed
    return payload + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
