"""Who may send what from a bridge's port: a table ``bridge ketch``, which sees every frame first.

Whoever is on a link can say that he is somebody else: by the source of a frame, of a packet, of an
ARP message or a neighbour advertisement. The host and its neighbours believe it, and what was meant
for somebody else, by a published port too, goes to him; a packet with the address of a stranger
with whom another network's container speaks becomes part of that conversation.

So each port of a container is pinned: what comes from it has the container's own hardware address
and one of its addresses, on any of its networks, since it may answer by another way than it was
asked. Link-local addresses are its own affair (and how else could it find out about duplicates), as
long as they are not another's. It announces no routes and redirects nobody.

A container that may configure its network (CAP_NET_ADMIN) can give itself more addresses, take a
failed neighbour's service address, have bridges and other containers behind it: it may send from
any address that is ``taken`` by nobody, and cannot be another container or the host. What it sends
beyond its network must also be what the host would send back to it; see ``firewall``.

A port's elements are there before its link, and go when it is cut off. The port's name is drawn
anew for each run, so what a killed process left names nobody.
"""

import sys
from ipaddress import IPv6Address

from ketch.linux.nftables import Element, ifname, padded
from ketch.network.bridge import Bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.network.bridge import Address
    from ketch.network.sandbox import Endpoint

# To be raised with every change to TABLE.
REVISION = 2

_FAMILY = "bridge"

# An address in ICMPv6 is for nft 1.0.6 but 16 bytes of the transport header, which no lookup in a
# set of addresses takes. ARP messages with addresses of other lengths nobody reads (arp_rcv()).
# A tag of VLAN 0 is taken off by whoever gets the frame, but what lies behind one is not where
# rules look for it; another VLAN's frames reach only those who have links of that VLAN themselves.
TABLE = f"""\
add table bridge ketch
add set bridge ketch revision {{ type mark; }}
add set bridge ketch ports {{ type ifname; }}
add set bridge ketch free {{ type ifname; }}
add set bridge ketch macs {{ type ifname . ether_addr; }}
add set bridge ketch own4 {{ type ifname . ipv4_addr; }}
add set bridge ketch own6 {{ type ifname . ipv6_addr; }}
add set bridge ketch targets {{ typeof iifname . @th,64,128; }}
add set bridge ketch taken_macs {{ type ether_addr; }}
add set bridge ketch taken4 {{ type ipv4_addr; }}
add set bridge ketch taken6 {{ type ipv6_addr; }}
add set bridge ketch taken_targets {{ typeof @th,64,128; }}
add chain bridge ketch early {{ type filter hook prerouting priority -300; policy accept; }}
add chain bridge ketch port
add chain bridge ketch foreign
add chain bridge ketch tagged
add chain bridge ketch of-arp
add chain bridge ketch of-ipv4
add chain bridge ketch of-ipv6
add chain bridge ketch target
flush chain bridge ketch early
flush chain bridge ketch port
flush chain bridge ketch foreign
flush chain bridge ketch tagged
flush chain bridge ketch of-arp
flush chain bridge ketch of-ipv4
flush chain bridge ketch of-ipv6
flush chain bridge ketch target
flush set bridge ketch revision
add element bridge ketch revision {{ {REVISION} }}
add rule bridge ketch early iifname @ports jump port
add rule bridge ketch port iifname . ether saddr != @macs jump foreign
add rule bridge ketch port ether type {{ 8021q, 8021ad }} goto tagged
add rule bridge ketch port meta protocol arp goto of-arp
add rule bridge ketch port meta protocol ip goto of-ipv4
add rule bridge ketch port meta protocol ip6 goto of-ipv6
add rule bridge ketch foreign ether saddr @taken_macs drop
add rule bridge ketch foreign iifname != @free drop
add rule bridge ketch tagged iifname != @free drop
add rule bridge ketch tagged @ll,116,12 0 drop
add rule bridge ketch tagged accept
add rule bridge ketch of-arp iifname . arp saddr ip @own4 accept
add rule bridge ketch of-arp arp saddr ip 0.0.0.0 accept
add rule bridge ketch of-arp arp saddr ip @taken4 drop
add rule bridge ketch of-arp iifname @free accept
add rule bridge ketch of-arp drop
add rule bridge ketch of-ipv4 iifname . ip saddr @own4 accept
add rule bridge ketch of-ipv4 ip saddr @taken4 drop
add rule bridge ketch of-ipv4 iifname @free accept
add rule bridge ketch of-ipv4 ip saddr 0.0.0.0 ip daddr 255.255.255.255 accept
add rule bridge ketch of-ipv4 drop
add rule bridge ketch of-ipv6 icmpv6 type {{ nd-router-advert, nd-redirect }} drop
add rule bridge ketch of-ipv6 icmpv6 type nd-neighbor-advert jump target
add rule bridge ketch of-ipv6 ip6 saddr :: icmpv6 type nd-neighbor-solicit jump target
add rule bridge ketch of-ipv6 iifname . ip6 saddr @own6 accept
add rule bridge ketch of-ipv6 ip6 saddr @taken6 drop
add rule bridge ketch of-ipv6 ip6 saddr fe80::/10 accept
add rule bridge ketch of-ipv6 ip6 saddr :: meta l4proto 58 accept
add rule bridge ketch of-ipv6 iifname @free accept
add rule bridge ketch of-ipv6 drop
add rule bridge ketch target iifname . @th,64,128 @targets return
add rule bridge ketch target @th,64,128 @taken_targets drop
add rule bridge ketch target @th,64,10 0x3fa return
add rule bridge ketch target iifname @free return
add rule bridge ketch target drop
"""

# What a kernel understands that can look at what passes a bridge.
PROBE = """\
add table bridge ketch
add chain bridge ketch early { type filter hook prerouting priority -300; policy accept; }
"""

REVISED = Element("revision", REVISION.to_bytes(4, sys.byteorder), family=_FAMILY)


def of_bridge(bridge: Bridge) -> list[Element]:
    """What a bridge's host has, and nobody else may say of himself."""
    macs = [] if bridge.kept else [bridge.mac]
    found = [_element("taken_macs", bytes.fromhex(mac.replace(":", "")), mac) for mac in macs]
    addresses = [one.ip for one in bridge.addresses]
    for address in [*addresses, *(link_local(mac) for mac in macs)]:
        found += _taken(address)
    return found


def of_container(endpoints: "Sequence[Endpoint]", *, free: bool, owner: str = "") -> list[Element]:
    """What pins a container's ports.

    Args:
        endpoints: its places in networks.
        free: whether it may have addresses of its own choice beside those it was given.
        owner: whose the ports are, for whoever looks at the packet filter.
    """
    addresses = [address.ip for one in endpoints for address in one.addresses]
    found: dict[tuple[str, str, bytes], Element] = {}
    for one in endpoints:
        if not isinstance(one.link, Bridge) or not one.link.pinned:
            continue
        port, name = ifname(one.port), f'"{one.port}"'
        mac = bytes.fromhex(one.mac.replace(":", ""))
        elements = [
            _element("ports", port, name, owner),
            # The port's own packets, which a bridge passes to nobody, are the host's to refuse.
            Element("ports", port, comment=owner, words=name),
            _element("macs", port + padded(mac), f"{name} . {one.mac}"),
            _element("taken_macs", mac, one.mac),
        ]
        if free:
            elements.append(_element("free", port, name))
        for address in dict.fromkeys([*addresses, link_local(one.mac)]):
            elements += _own(port, name, address)
        for address in [*(each.ip for each in one.addresses), link_local(one.mac)]:
            elements += _taken(address)
        found.update((element.place, element) for element in elements)
    return list(found.values())


def free(endpoints: "Sequence[Endpoint]") -> list[Element]:
    """What lets a container have addresses of its own choice from now on."""
    return [one for one in of_container(endpoints, free=True) if one.name == "free"]


def link_local(mac: str) -> "Address":
    """The link-local address that a link makes of its hardware address (RFC 4291, appendix A)."""
    packed = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([packed[0] ^ 2]) + packed[1:3] + b"\xff\xfe" + packed[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)


def _own(port: bytes, name: str, address: "Address") -> list[Element]:
    """That a port may have an address."""
    words = f"{name} . {address}"
    found = [_element(f"own{address.version}", port + address.packed, words)]
    if address.version == 6:
        found.append(_element("targets", port + address.packed, f"{name} . {_number(address)}"))
    return found


def _taken(address: "Address") -> list[Element]:
    """That nobody else may have an address."""
    kind = f"taken{address.version}"
    found = [_element(kind, address.packed, str(address))]
    if address.version == 6:
        found.append(_element("taken_targets", address.packed, _number(address)))
    if not address.is_link_local:
        # What its owner's port alone can send need not be asked for the way back.
        found.append(Element(kind, address.packed, words=str(address)))
    return found


def _number(address: "Address") -> str:
    return f"0x{address.packed.hex()}"


def _element(name: str, key: bytes, words: str, comment: str = "") -> Element:
    return Element(name, key, comment=comment, family=_FAMILY, words=words)
