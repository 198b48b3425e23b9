"""What ``--explain`` tells of a container's networks, and how they are made by hand."""

from ketch.network.bridge import Bridge
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
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
            f"ip link add {port} mtu {link.mtu_bytes} type veth peer name {inside}"
            f" mtu {link.mtu_bytes} netns {namespace}",
            f"ip link set {port} master {link.name} up",
        ]
    else:
        by_hand.append(f"ip link add {inside} link {link.name} netns {namespace} type {link.kind}")
    if endpoint.mac:
        values.append(("mac", endpoint.mac))
        by_hand.append(f"ip -n {namespace} link set {inside} address {endpoint.mac}")
    by_hand += [
        f"ip -n {namespace} address add {one} dev {inside}{' nodad' if one.version == 6 else ''}"
        for one in endpoint.addresses
    ]
    by_hand.append(f"ip -n {namespace} link set {inside} up")
    for gateway in endpoint.routes.values():
        way = f"via {gateway} dev {inside}" if gateway else f"dev {inside}"
        values.append(("route", f"default {way}"))
        by_hand.append(f"ip -n {namespace} route add default {way}")
    return Told("network", words, values, outside=by_hand)


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
