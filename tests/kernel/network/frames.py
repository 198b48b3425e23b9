"""Frames as a hostile container writes them, by a packet socket and byte for byte."""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from tests.kernel.network.machines import entered

ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
EVERYBODY = "ff:ff:ff:ff:ff:ff"
# Where a bridge listens itself; it forwards none of these frames (IEEE 802.1Q, 8.6.3).
LINK_LOCAL = "01:80:c2:00:00:0e"


def send(descriptor: int, *frames: bytes, interface: str = "eth0") -> None:
    """Send frames by a machine's link."""
    with entered(descriptor), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        for frame in frames:
            raw.send(frame)


def ethernet(
    to: str, source: str, kind: int, payload: bytes, *, tags: int = 0, vlan: int = 0
) -> bytes:
    """A frame, with so many tags (IEEE 802.1Q) before what it carries."""
    tag = struct.pack("!HH", 0x8100, vlan) * tags
    return _mac(to) + _mac(source) + tag + struct.pack("!H", kind) + payload.ljust(46, b"\0")


def arp(mac: str, address: str, *, to: str = EVERYBODY, tags: int = 0) -> bytes:
    """A gratuitous reply: this address is at this hardware address."""
    packed = _mac(mac) + IPv4Address(address).packed
    payload = struct.pack("!HHBBH", 1, IPV4, 6, 4, 2) + packed * 2
    return ethernet(to, mac, ARP, payload, tags=tags)


def udp(
    to: str,
    mac: str,
    source: tuple[str, int],
    target: tuple[str, int],
    text: bytes,
    *,
    tags: int = 0,
) -> bytes:
    """A datagram, whoever says that he sends it."""
    segment = struct.pack("!HHHH", source[1], target[1], 8 + len(text), 0) + text
    one, other = ip_address(source[0]), ip_address(target[0])
    kind = IPV4 if one.version == 4 else IPV6
    total = _sum(one.packed + other.packed + struct.pack("!II", len(segment), 17) + segment)
    segment = segment[:6] + struct.pack("!H", total or 0xFFFF) + segment[8:]
    return ethernet(to, mac, kind, _packet(source[0], target[0], 17, segment), tags=tags)


def advertisement(
    mac: str, source: str, prefix: str, *, to: str = "33:33:00:00:00:01", tags: int = 0
) -> bytes:
    """A router advertisement to all nodes: a default route, and a prefix for addresses."""
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    body += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + IPv6Address(prefix).packed
    body += b"\1\1" + _mac(mac)
    return _icmpv6(mac, source, "ff02::1", body, to, tags=tags)


def neighbour(mac: str, source: str, address: str, *, to: str = "33:33:00:00:00:01") -> bytes:
    """An unsolicited neighbour advertisement that overrides: this address is at this MAC."""
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + IPv6Address(address).packed
    return _icmpv6(mac, source, "ff02::1", body + b"\2\1" + _mac(mac), to)


def solicitation(mac: str, source: str, address: str) -> bytes:
    """Who has this address? Asked from ``::`` it says: I am about to have it (RFC 4862, 5.4.2)."""
    packed = IPv6Address(address).packed
    body = struct.pack("!BBHI", 135, 0, 0, 0) + packed
    body += b"" if source == "::" else b"\1\1" + _mac(mac)
    group = str(IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + packed[13:]))
    return _icmpv6(mac, source, group, body, "33:33:ff:" + packed[13:].hex(":"))


def _icmpv6(mac: str, source: str, target: str, body: bytes, to: str, *, tags: int = 0) -> bytes:
    pseudo = IPv6Address(source).packed + IPv6Address(target).packed
    total = _sum(pseudo + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    return ethernet(to, mac, IPV6, _packet(source, target, 58, body, hops=255), tags=tags)


def _packet(source: str, target: str, protocol: int, body: bytes, *, hops: int = 64) -> bytes:
    one, other = ip_address(source), ip_address(target)
    if one.version == 6:
        head = struct.pack("!IHBB", 0x60000000, len(body), protocol, hops)
        return head + one.packed + other.packed + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, hops, protocol, 0)
    total = struct.pack("!H", _sum(head + one.packed + other.packed))
    return head[:10] + total + one.packed + other.packed + body


def _sum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    words: tuple[int, ...] = struct.unpack(
        f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)
    )
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
