"""What ``--explain`` tells of a container's networks, and how they are made by hand."""

import os

from ketch.network.bridge import Bridge
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.linux.nftables import Element
    from ketch.network.parent import Parent
    from ketch.network.ports import Port
    from ketch.network.sandbox import Endpoint

_FILTER_BY_HAND = (
    "nft add table inet by-hand",
    "nft 'add chain inet by-hand in { type nat hook prerouting priority dstnat; }'",
    "nft 'add chain inet by-hand here { type nat hook output priority -100; }'",
    "nft 'add chain inet by-hand out { type nat hook postrouting priority srcnat; }'",
)


def of_namespace(name: str) -> Told:
    """A new network namespace, which by hand has a name to be found by.

    Args:
        name: that name.
    """
    words = "new network namespace, loopback up · unshare(2) CLONE_NEWNET, rtnetlink(7)"
    by_hand = [f"ip netns add {name}", f"ip -n {name} link set lo up",
               f"nsenter --net=/run/netns/{name}"]  # fmt: skip
    return Told("network", words, outside=by_hand)


def of_link(endpoint: "Endpoint", namespace: str) -> Told:
    """A container's link to a network: both its ends, addresses and routes.

    Args:
        endpoint: the container's place in the network.
        namespace: by what name its network namespace is found by hand.
    """
    link, inside, port = endpoint.link, endpoint.interface, endpoint.port
    addresses = [str(address) for address in endpoint.addresses]
    kind = "bridge" if isinstance(link, Bridge) else f"{link.kind} on"
    words = (
        f"link {inside} to {kind} {link.name}, address {', '.join(addresses)}"
        " · rtnetlink(7), nft(8)"
    )
    values = [("network", endpoint.network)]
    by_hand = []
    if isinstance(link, Bridge):
        values.append(("outside", f"{port}, a port of {link.name}"))
        by_hand += [
            f"ip link show {link.name} > /dev/null 2>&1 || ip link add {link.name} type bridge",
            *(f"ip address replace {address} dev {link.name}" for address in link.addresses),
            f"ip link set {link.name} up",
            # What an ended container had goes with its network namespace, a moment later.
            f"for turn in 1 2 3 4 5 6 7 8 9; do ip link show {port} > /dev/null 2>&1 || break;"
            " sleep 1; done",
            f"ip link add {port} mtu {link.mtu_bytes} type veth peer name {inside}"
            f" mtu {link.mtu_bytes} netns {namespace}",
            *_without_ipv6(port),
            f"ip link set {port} master {link.name} up",
        ]
    else:
        by_hand.append(f"ip link add {inside} link {link.name} netns {namespace} type {link.kind}")
    if endpoint.mac:
        values.append(("mac", endpoint.mac))
        by_hand.append(f"ip -n {namespace} link set {inside} address {endpoint.mac}")
    if all(one.version == 4 for one in endpoint.addresses):
        by_hand += [
            f"ip netns exec {namespace} sh -c {quote(line)}" for line in _without_ipv6(inside)
        ]
    by_hand += [
        f"ip -n {namespace} address add {one} {'broadcast +' if one.version == 4 else 'nodad'}"
        f" dev {inside}"
        for one in endpoint.addresses
    ]
    by_hand.append(f"ip -n {namespace} link set {inside} up")
    for way in ways(endpoint):
        values.append(("route", f"default {way}"))
        by_hand.append(f"ip -n {namespace} route add default {way}")
    return Told("network", words, values, outside=by_hand)


def _without_ipv6(link: str) -> list[str]:
    """How a link is kept from IPv6, where the machine has that."""
    settings = "/proc/sys/net/ipv6/conf"
    return [f"echo 1 > {settings}/{link}/disable_ipv6"] if os.path.isdir(settings) else []


def ways(endpoint: "Endpoint") -> list[str]:
    """By where a link leads out, as ip(8) has it."""
    inside = endpoint.interface
    return [
        f"via {gateway} dev {inside}" if gateway else f"dev {inside}"
        for gateway in endpoint.routes.values()
    ]


def of_way_out(bridge: Bridge) -> Told:
    """How a network's packets leave for others: with which addresses."""
    subnets = [address.network for address in bridge.addresses]
    values = [("forwarding", " ".join(f"IPv{version}" for version in sorted(bridge.forwarded)))]
    by_hand = [*_FILTER_BY_HAND, "echo 1 > /proc/sys/net/ipv4/ip_forward"]
    for subnet in subnets:
        if not bridge.masquerade or subnet.version in bridge.routed:
            continue
        values.append(("masquerade", f"{subnet} but by {bridge.name}"))
        family = "ip" if subnet.version == 4 else "ip6"
        by_hand.append(
            f"nft add rule inet by-hand out {family} saddr {subnet}"
            f" oifname != {bridge.name} masquerade"
        )
    return Told("network", f"lead out of {bridge.name} · nft(8), proc_sys(5)", values,
                outside=by_hand)  # fmt: skip


def of_port(port: "Port", spoken: str) -> Told:
    """A published port: what the packet filter has of it, and which way a packet takes.

    Args:
        port: the port.
        spoken: how it is said.
    """
    element = port.element()
    values = [("element", f"{element.words} : {element.leads}" if element.leads else element.words)]
    by_hand = []
    if not port.routed:
        at, family = port.host_address, "ip" if port.address.version == 4 else "ip6"
        where = "" if at.is_unspecified else f"{family} daddr {at} "
        to = f"[{port.address}]" if port.address.version == 6 else str(port.address)
        values.append((
            "way",
            f"{port.protocol} to port {port.host_port} of the host, by the filter's map to"
            f" {to}:{port.port}, by route and bridge to the container",
        ))  # fmt: skip
        here = "" if where else "fib daddr type local "
        by_hand += [
            f"nft add rule inet by-hand {chain} {where or here}{port.protocol} dport"
            f" {port.host_port} dnat {family} to {to}:{port.port}"
            for chain in ("in", "here")
        ]
    return Told("network", f"publish {spoken} · nft(8)", values, outside=by_hand)


def of_cut(endpoint: "Endpoint") -> Told:
    """An ended container's link is taken off its network, and its addresses given back."""
    addresses = ", ".join(str(address.ip) for address in endpoint.addresses)
    words = f"take {endpoint.interface} off network {endpoint.network} · rtnetlink(7)"
    by_hand = [
        f"ip link delete {endpoint.port} 2> /dev/null || true",
        "nft delete table inet by-hand 2> /dev/null || true",
    ]
    return Told("network", words, [("given-back", addresses)], outside=by_hand)


def of_withdrawal(port: "Port") -> Told:
    """A port is published no longer, and its connections are forgotten."""
    element = port.element()
    words = f"publish {port.protocol} port {port.host_port} no longer · nft(8), conntrack(8)"
    return Told("network", words, [("element", element.words)])


def of_elements(
    add: "Sequence[Element]" = (), remove: "Sequence[Element]" = (), *, anew: bool = False
) -> Told:
    """What changes in the packet filter's sets and maps.

    Args:
        add: elements that it gets.
        remove: elements that it loses.
        anew: whether its tables are made as well, with all their rules.
    """
    values = [("add", one.spoken("ketch")) for one in add]
    values += [("delete", f"{one.family} ketch {one.name} {{ {one.words} }}") for one in remove]
    words = "change sets and maps of the packet filter"
    if anew:
        words = "make the packet filter's tables, and fill their sets and maps"
    by_hand = ["# by hand rules of the table by-hand stand for what leads to ports and out"]
    return Told("network", f"{words} · nft(8)", values, outside=by_hand)


def of_bridge(bridge: Bridge, alias: str) -> Told:
    """A network's bridge, which the host has the gateway's address on."""
    values = [("address", str(address)) for address in bridge.addresses]
    values += [("mac", bridge.mac), ("mtu", str(bridge.mtu_bytes))]
    name = bridge.name
    by_hand = []
    if bridge.kept:
        words = f"use the bridge {name}, which is there"
    else:
        words = f"make the bridge {name}"
        values.append(("alias", alias))
        by_hand = [f"ip link add {name} address {bridge.mac} mtu {bridge.mtu_bytes} type bridge"]
    by_hand += [f"ip address add {address} dev {name}" for address in bridge.addresses]
    by_hand.append(f"ip link set {name} up")
    return Told("network", f"{words} · rtnetlink(7)", values, outside=by_hand)


def of_bridge_removal(name: str) -> Told:
    """A network's bridge goes with it."""
    words = f"delete the bridge {name} · rtnetlink(7)"
    by_hand = [f"ip link delete {name}", "nft delete table inet by-hand 2> /dev/null || true"]
    return Told("network", words, outside=by_hand)


def of_parent(parent: "Parent", *, made: bool) -> Told:
    """The link that a network's links are made on."""
    what = "make" if made else "use"
    return Told("network", f"{what} the link {parent.name}, for links of kind {parent.kind}")


def of_entrance(pid: int, name: str) -> Told:
    """A container's network namespace is entered.

    Args:
        pid: its first process.
        name: by what name it is found by hand.
    """
    words = f"enter the network namespace of process {pid} · setns(2)"
    return Told("namespaces", words, outside=[f"ip netns attach {name} {pid}"])


def of_exit(name: str) -> Told:
    """It is left again."""
    by_hand = [f"ip netns delete {name}"]
    return Told("namespaces", "leave the network namespace · setns(2)", outside=by_hand)


def of_unplugging(interface: str, network: str, name: str) -> Told:
    """A running container's link goes, and the end at the bridge with it."""
    words = f"delete link {interface}, by which the container is on {network} · rtnetlink(7)"
    return Told("network", words, outside=[f"ip -n {name} link delete {interface}"])


def of_routes(ways: "Sequence[str]", name: str) -> Told:
    """A container's ways out are on other networks now.

    Args:
        ways: by where, as ip(8) has it.
        name: by what name the namespace is found by hand.
    """
    by_hand = [f"ip -n {name} route flush default"]
    by_hand += [f"ip -n {name} route add default {way}" for way in ways]
    words = "change the container's default routes · rtnetlink(7)"
    return Told("network", words, [("route", f"default {way}") for way in ways], outside=by_hand)
