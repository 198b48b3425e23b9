"""What packets may do: one nftables table, ``inet ketch``, whose sets name bridges and ports.

One table of the ``inet`` family serves IPv4 and IPv6: NAT in it exists since Linux 5.2. Its rules
never change while networks and containers come and go; only elements do. A bridge's elements last
as long as its network, a published port's as long as its container runs. A start asks the kernel,
in one round trip, whether the rules it needs are in place; mostly they are, and its ports, if any,
are added by netlink. That question also finds out about a reboot, an ``nft flush ruleset`` and a
table of an older ketch, which no marker file would.

Forwarded packets, neither from nor to one of our bridges, are left alone. The others pass

1. ``user-forward``, an operator's own chain: empty when it is made, and never touched again;
2. within one bridge (they come by here where br_netfilter is loaded), unless its containers are
   not to see each other; into and out of an internal network nothing else passes;
3. answers, and what a published port let in;
4. to a bridge from anywhere else (another bridge, another machine) they are dropped;
5. from a bridge to anywhere else they pass, with the host's address.

A published port is an element of a map: host address, protocol and port lead to the container's
address and port. Packets from other machines, and from containers, are led there in ``prerouting``,
those of the host's own processes in ``output``. The client's address stays what it is but for two
cases in which the answer would not find back: a client on the host's loopback, and one on the
container's own bridge. For the first the kernel must let loopback addresses out of the host
(``route_localnet`` of that bridge alone), so ``early`` drops what a container sends to one. IPv6
has no such switch: ``::1`` leads to no container.

**Other firewalls of the host.** All base chains of a hook see a packet, and one that drops it has
the last word: what is accepted here may still be dropped there (nft(8), "Verdict statement").
dockerd, ufw and many operators set the policy of ``ip filter FORWARD`` to drop. Where it is, two
rules are put at the end of that chain, as podman's netavark does (at the beginning), that let our
bridges' packets through to the verdict of our own table. At the end, because rules that somebody
wrote, Docker's isolation and its DOCKER-USER chain among them, are to decide first; and made only
of what iptables-nft can show. Rules in the legacy iptables back end, which nftables cannot see,
and firewalld, whose zones reject by themselves, are left to the operator: accept ``-i ketch+`` and
``-o ketch+`` there.
"""

import errno
import sys

from ketch.errors import SyscallError
from ketch.linux import nftables
from ketch.linux.nftables import Element, Transaction, ifname
from ketch.network.bridge import Bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ketch.network.ports import Port

# To be raised with every change to _TABLE, so that the first start after an upgrade installs it.
REVISION = 4

# Names of bridges that ketch chooses begin with this; iptables' rules name them all at once.
BRIDGE_PREFIX = "ketch"

_TABLE = f"""\
add table inet ketch
add set inet ketch revision {{ type mark; }}
add set inet ketch bridges {{ type ifname; }}
add set inet ketch pairs {{ type ifname . ifname; }}
add set inet ketch within {{ type ifname . ifname; }}
add set inet ketch internal {{ type ifname; }}
add set inet ketch masquerading {{ type nf_proto . ifname; }}
add set inet ketch unprotected {{ type nf_proto . ifname; }}
add map inet ketch sources4 {{ type ifname : ipv4_addr; }}
add map inet ketch sources6 {{ type ifname : ipv6_addr; }}
add set inet ketch open4 {{ type ipv4_addr . inet_proto . inet_service; }}
add set inet ketch open6 {{ type ipv6_addr . inet_proto . inet_service; }}
add map inet ketch at4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet ketch at6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
add set inet ketch self4 {{ type ipv4_addr . ipv4_addr; }}
add set inet ketch self6 {{ type ipv6_addr . ipv6_addr; }}
add map inet ketch any4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet ketch any6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
add chain inet ketch user-forward
add chain inet ketch published
add chain inet ketch early {{ type filter hook prerouting priority raw; policy accept; }}
add chain inet ketch prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}
add chain inet ketch output {{ type nat hook output priority -100; policy accept; }}
add chain inet ketch forward {{ type filter hook forward priority filter; policy accept; }}
add chain inet ketch postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
flush chain inet ketch published
flush chain inet ketch early
flush chain inet ketch prerouting
flush chain inet ketch output
flush chain inet ketch forward
flush chain inet ketch postrouting
flush set inet ketch revision
add element inet ketch revision {{ {REVISION} }}
add set inet ketch masqueraded {{ type ifname; }}
delete set inet ketch masqueraded
add rule inet ketch early iifname @bridges ip daddr 127.0.0.0/8 drop
add rule inet ketch prerouting iifname != "lo" ip daddr 127.0.0.0/8 return
add rule inet ketch prerouting fib daddr type local jump published
add rule inet ketch output ip6 daddr ::1 return
add rule inet ketch output fib daddr type local jump published
add rule inet ketch published dnat ip to ip daddr . meta l4proto . th dport map @at4
add rule inet ketch published dnat ip6 to ip6 daddr . meta l4proto . th dport map @at6
add rule inet ketch published meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4
add rule inet ketch published meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @any6
add rule inet ketch forward iifname != @bridges oifname != @bridges accept
add rule inet ketch forward jump user-forward
add rule inet ketch forward iifname . oifname @within accept
add rule inet ketch forward iifname @internal drop
add rule inet ketch forward oifname @internal drop
add rule inet ketch forward ct state established,related accept
add rule inet ketch forward ct status dnat accept
add rule inet ketch forward ip daddr . meta l4proto . th dport @open4 accept
add rule inet ketch forward ip6 daddr . meta l4proto . th dport @open6 accept
add rule inet ketch forward meta nfproto . oifname @unprotected accept
add rule inet ketch forward oifname @bridges drop
add rule inet ketch postrouting ct status dnat iifname . oifname @pairs masquerade
add rule inet ketch postrouting ct status dnat ip saddr . ip daddr @self4 masquerade
add rule inet ketch postrouting ct status dnat ip6 saddr . ip6 daddr @self6 masquerade
add rule inet ketch postrouting ct status dnat ip saddr 127.0.0.0/8 oifname @bridges masquerade
add rule inet ketch postrouting oifname != @bridges snat ip to iifname map @sources4
add rule inet ketch postrouting oifname != @bridges snat ip6 to iifname map @sources6
add rule inet ketch postrouting meta nfproto . iifname @masquerading oifname != @bridges masquerade
"""

# The chain that iptables-nft shows as FORWARD, by IP version.
_FOREIGN = {4: ("ip", "filter", "FORWARD"), 6: ("ip6", "filter", "FORWARD")}
_COMMENT = "ketch: let inet ketch decide"

_NFPROTO = {4: 2, 6: 10}
_NFPROTO_NAMES = {4: "ipv4", 6: "ipv6"}


def ensure(
    bridges: "Sequence[Bridge]",
    ports: "Iterable[Port]" = (),
    others: "Callable[[], tuple[Iterable[Bridge], Iterable[Port]]] | None" = None,
) -> Transaction | None:
    """Have bridges' rules and published ports in the network namespace of the caller.

    Args:
        bridges: the networks' bridges.
        ports: the ports to be published from now on.
        others: tells what else there is to be, for a table that has to be made anew.

    Returns:
        None, in a fraction of a millisecond, when all is there; else the transaction that
        installs it, to be waited for before the first packet.

    Raises:
        UnavailableError: nft is not installed.
        UnsupportedError: the kernel has no nftables.
    """
    ports = list(ports)
    with nftables.Socket() as kernel:
        current, *there = kernel.present(
            "inet",
            "ketch",
            [
                ("revision", REVISION.to_bytes(4, sys.byteorder)),
                *((name, key) for bridge in bridges for name, key in _keys(bridge)),
            ],
        )
        stale = [
            port
            for port, present in zip(
                ports, kernel.present("inet", "ketch", [port.key() for port in ports]), strict=True
            )
            if present
        ]
        blocked = _blocked(kernel, bridges)
        if current and all(there) and not blocked:
            if ports:
                # No rule is to change, so nft is not needed, which takes 5 ms and more.
                kernel.change(
                    "inet",
                    "ketch",
                    add=[*(port.element() for port in ports), *_selves(ports)],
                    delete=[port.element() for port in stale],
                )
            return None
    # An element that is there although nobody holds its port was left by an engine that is gone.
    lines = [f"delete element inet ketch {port.place()}" for port in stale]
    every = list(bridges)
    if not current and others is not None:
        more_bridges, more_ports = others()
        every += [one for one in more_bridges if one.name not in {own.name for own in bridges}]
        ports += [port for port in more_ports if not any(port.same(one) for one in ports)]
    lines += [f"add element inet ketch {port.words()}" for port in ports]
    lines += [
        f"add element inet ketch self{port.address.version} {{ {port.address} . {port.address} }}"
        for port in ports
        if not port.routed
    ]
    purpose = ", ".join(bridge.name for bridge in bridges)
    return Transaction(script(every, blocked, lines), f"rules for bridge {purpose}")


def script(
    bridges: "Sequence[Bridge]",
    blocked: "Sequence[tuple[int, str]]" = (),
    more: "Sequence[str]" = (),
) -> str:
    """What nft has to do for more bridges, whatever is there already.

    Args:
        bridges: the bridges.
        blocked: IP versions of which another table's policy drops forwarded packets, and the
            links, as nft names them, that must be let through.
        more: what else.
    """
    lines = [
        f"add element inet ketch {element}" for bridge in bridges for element in _elements(bridge)
    ]
    for version, links in blocked:
        chain = " ".join(_FOREIGN[version])
        lines += [
            f'add rule {chain} {side} "{links}" counter accept comment "{_comment(links)}"'
            for side in ("iifname", "oifname")
        ]
    return _TABLE + "\n".join([*lines, *more]) + "\n"


def withdraw(ports: "Iterable[Port]") -> None:
    """Stop publishing ports; those that are not published will do.

    Raises:
        SyscallError: the kernel refused.
    """
    ports = list(ports)
    elements = [*(port.element() for port in ports), *_selves(ports)]
    with nftables.Socket() as kernel:
        while True:
            present = kernel.present("inet", "ketch", [(one.name, one.key) for one in elements])
            there = [one for one, is_there in zip(elements, present, strict=True) if is_there]
            try:
                kernel.change("inet", "ketch", delete=there)
            except SyscallError as error:
                # Somebody else has removed one meanwhile, with the whole table perhaps.
                if error.errno != errno.ENOENT:
                    raise
            else:
                return


def forget(name: str) -> None:
    """Remove what the table has of a bridge whose network is no more; nothing will do.

    Raises:
        UnavailableError: nft is not installed, or failed.
    """
    kinds = _every_key(name)
    with nftables.Socket() as kernel:
        present = kernel.present("inet", "ketch", [(kind, key) for kind, key, _ in kinds])
        rules = [
            (chain, handle)
            for chain in _FOREIGN.values()
            for handle, userdata in kernel.rules(*chain)
            if not name.startswith(BRIDGE_PREFIX) and _comment(name).encode() in userdata
        ]
    lines = [
        f"delete element inet ketch {kind} {{ {words} }}\n"
        for (kind, _, words), there in zip(kinds, present, strict=True)
        if there
    ]
    lines += [f"delete rule {' '.join(chain)} handle {handle}\n" for chain, handle in rules]
    if lines:
        Transaction("".join(lines), f"forget bridge {name}").wait()


def _selves(ports: "Iterable[Port]") -> list[Element]:
    """Addresses of containers that may come to themselves by a published port of theirs.

    Where bridges are filtered, such a packet is led back within the bridge, and only its addresses
    tell that it is one.
    """
    found = {port.address for port in ports if not port.routed}
    return [Element(f"self{address.version}", address.packed * 2) for address in found]


def _elements(bridge: Bridge) -> list[str]:
    sources: dict[int, object] = {address.version: address for address in bridge.sources}
    elements = []
    for kind, _, words in _every_key(bridge.name):
        if not _wanted(bridge, kind, words):
            continue
        value = f" : {sources[int(kind[-1])]}" if kind.startswith("sources") else ""
        elements.append(f"{kind} {{ {words}{value} }}")
    return elements


def _keys(bridge: Bridge) -> list[tuple[str, bytes]]:
    return [
        (kind, key) for kind, key, words in _every_key(bridge.name) if _wanted(bridge, kind, words)
    ]


def _wanted(bridge: Bridge, kind: str, words: str) -> bool:
    """Whether a bridge is in a set."""
    if kind == "within":
        return not bridge.isolated
    if kind == "internal":
        return bridge.internal
    version = 6 if "ipv6" in words or kind[-1] == "6" else 4
    if kind == "masquerading":
        return bridge.masquerade and not bridge.internal and version not in bridge.routed
    if kind == "unprotected":
        return version in bridge.unprotected
    if kind.startswith("sources"):
        return any(address.version == version for address in bridge.sources)
    return True


def _every_key(name: str) -> list[tuple[str, bytes, str]]:
    """Sets in which a bridge may be, with its key there, for the kernel and for nft."""
    key = ifname(name)
    found = [
        ("bridges", key, f'"{name}"'),
        ("pairs", key + key, f'"{name}" . "{name}"'),
        ("within", key + key, f'"{name}" . "{name}"'),
        ("internal", key, f'"{name}"'),
        ("sources4", key, f'"{name}"'),
        ("sources6", key, f'"{name}"'),
    ]
    for version, number in _NFPROTO.items():
        both = nftables.padded(bytes([number])) + key
        words = f'{_NFPROTO_NAMES[version]} . "{name}"'
        found += [("masquerading", both, words), ("unprotected", both, words)]
    return found


def _blocked(kernel: nftables.Socket, bridges: "Sequence[Bridge]") -> list[tuple[int, str]]:
    """Where another table drops what we accept, and our rules there are missing."""
    wanted: dict[tuple[int, str], None] = {}
    for bridge in bridges:
        ours = bridge.name.startswith(BRIDGE_PREFIX)
        for address in bridge.addresses:
            wanted[address.version, f"{BRIDGE_PREFIX}*" if ours else bridge.name] = None
    dropping = {
        version
        for version in {version for version, _ in wanted}
        if kernel.policy(*_FOREIGN[version]) == nftables.NF_DROP
    }
    if not dropping:
        return []
    comments = {version: kernel.comments(*_FOREIGN[version]) for version in dropping}
    return [
        (version, links)
        for version, links in sorted(wanted)
        if version in dropping
        and not any(_is_comment(userdata, _comment(links)) for userdata in comments[version])
    ]


def _comment(links: str) -> str:
    return _COMMENT if links == f"{BRIDGE_PREFIX}*" else f"{_COMMENT} about {links}"


def _is_comment(userdata: bytes, comment: str) -> bool:
    """Whether a rule's userdata holds exactly this comment: a string with its zero byte."""
    return comment.encode() + b"\0" in userdata
