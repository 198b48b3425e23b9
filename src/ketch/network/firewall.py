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
container's own bridge.

For the first the kernel would have to let loopback addresses out of the host (``route_localnet``),
and then nothing but a rule would keep containers and neighbours from what listens on 127.0.0.1
(CVE-2020-8558, CVE-2025-54388). So no packet ever leaves with such an address: before connection
tracking looks at it, ``near`` gives it the host's own address on the container's network, and
``back`` gives the answer 127.0.0.1 again once it has come in. Both change the packet alone, not a
route, and without them (``nft flush ruleset``) such connections end; nobody gets in. IPv6 knows no
such thing: ``::1`` leads to no container.

**Sources.** What comes to the host from a bridge, or is translated, has an address that a
container's port alone can send (``pinning``), or one to which the host's routes lead back by that
bridge (RFC 3704), whatever ``rp_filter`` says: else a stranger's answer could be forged, from
another network, in a conversation that ``ct state established`` lets pass. What only passes a
bridge is not asked for where bridges are filtered. What comes to a container's port itself, in
frames that no bridge forwards, is nobody's.

The host takes nothing from a ``shunned`` bridge but answers.

Other firewalls of the host may drop what is accepted here: see ``forward_policy``.
"""

import errno
import sys
import time
from contextlib import ExitStack

from ketch.errors import SyscallError
from ketch.linux import nftables
from ketch.linux.nftables import Element, Transaction, ifname, padded
from ketch.network import forward_policy, pinning, telling
from ketch.network.bridge import Bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from ketch.network.bridge import Address
    from ketch.network.ports import Port
    from ketch.spec.told import Say

# To be raised with every change to _TABLE, so that the first start after an upgrade installs it.
REVISION = 6

_TABLE = f"""\
add table inet ketch
add set inet ketch revision {{ type mark; }}
add set inet ketch unpinned {{ type mark; }}
add set inet ketch ports {{ type ifname; }}
add set inet ketch checked {{ type ifname; }}
add set inet ketch gates {{ type ifname . ether_addr; }}
add set inet ketch taken4 {{ type ipv4_addr; }}
add set inet ketch taken6 {{ type ipv6_addr; }}
add set inet ketch bridges {{ type ifname; }}
add set inet ketch pairs {{ type ifname . ifname; }}
add set inet ketch within {{ type ifname . ifname; }}
add set inet ketch internal {{ type ifname; }}
add set inet ketch shunned {{ type ifname; }}
add set inet ketch masquerading {{ type nf_proto . ifname; }}
add set inet ketch unprotected {{ type nf_proto . ifname; }}
add map inet ketch sources4 {{ type ifname : ipv4_addr; }}
add map inet ketch sources6 {{ type ifname : ipv6_addr; }}
add set inet ketch open4 {{ type ipv4_addr . inet_proto . inet_service; }}
add set inet ketch open6 {{ type ipv6_addr . inet_proto . inet_service; }}
add map inet ketch at4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet ketch at6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
add map inet ketch near_at4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr; }}
add map inet ketch near_any4 {{ type inet_proto . inet_service : ipv4_addr; }}
add set inet ketch self4 {{ type ipv4_addr . ipv4_addr; }}
add set inet ketch self6 {{ type ipv6_addr . ipv6_addr; }}
add map inet ketch any4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet ketch any6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
add chain inet ketch user-forward
add chain inet ketch published
add chain inet ketch early {{ type filter hook prerouting priority raw; policy accept; }}
add chain inet ketch sender
add chain inet ketch checked {{ type filter hook prerouting priority -90; policy accept; }}
add chain inet ketch near {{ type filter hook output priority raw; policy accept; }}
add chain inet ketch back {{ type filter hook input priority 101; policy accept; }}
add chain inet ketch prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}
add chain inet ketch output {{ type nat hook output priority -100; policy accept; }}
add chain inet ketch forward {{ type filter hook forward priority filter; policy accept; }}
add chain inet ketch postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
flush chain inet ketch published
flush chain inet ketch early
flush chain inet ketch sender
flush chain inet ketch checked
flush chain inet ketch near
flush chain inet ketch back
flush chain inet ketch prerouting
flush chain inet ketch output
flush chain inet ketch forward
flush chain inet ketch postrouting
flush set inet ketch revision
add element inet ketch revision {{ {REVISION} }}
add set inet ketch masqueraded {{ type ifname; }}
delete set inet ketch masqueraded
add rule inet ketch early iifname @ports drop
add rule inet ketch early iifname @bridges ip daddr 127.0.0.0/8 drop
add rule inet ketch checked iifname @shunned fib daddr type local ct state new drop
add rule inet ketch checked iifname . ether daddr @gates goto sender
add rule inet ketch checked iifname @checked ct status dnat goto sender
add rule inet ketch checked iifname @checked ct status snat goto sender
add rule inet ketch sender ip saddr @taken4 accept
add rule inet ketch sender ip6 saddr @taken6 accept
add rule inet ketch sender ip saddr {{ 0.0.0.0, 169.254.0.0/16 }} accept
add rule inet ketch sender ip6 saddr {{ ::, fe80::/10 }} accept
add rule inet ketch sender fib saddr . iif oif missing drop
add rule inet ketch near ip saddr 127.0.0.1 ip daddr 127.0.0.0/8 \
    ip saddr set ip daddr . meta l4proto . th dport map @near_at4
add rule inet ketch near ip saddr 127.0.0.1 ip daddr 127.0.0.0/8 \
    ip saddr set meta l4proto . th dport map @near_any4
add rule inet ketch back iifname @bridges ct status dnat ct direction reply \
    ct original ip daddr 127.0.0.0/8 ip daddr set 127.0.0.1
add rule inet ketch prerouting iifname != "lo" ip daddr 127.0.0.0/8 return
add rule inet ketch prerouting fib daddr type local jump published
add rule inet ketch output ip6 daddr ::1 return
add rule inet ketch output ip saddr 127.0.0.0/8 return
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
add rule inet ketch postrouting oifname != @bridges snat ip to iifname map @sources4
add rule inet ketch postrouting oifname != @bridges snat ip6 to iifname map @sources6
add rule inet ketch postrouting meta nfproto . iifname @masquerading oifname != @bridges masquerade
"""

# Longer than a grace period takes on a busy machine.
_GRACE_SECONDS = 0.1

_TOLD_AT_ONCE = 100  # elements in a step

_NFPROTO = {4: 2, 6: 10}
_NFPROTO_NAMES = {4: "ipv4", 6: "ipv6"}

_REVISED = Element("revision", REVISION.to_bytes(4, sys.byteorder))
_UNPINNED = Element("unpinned", (1).to_bytes(4, sys.byteorder), words="1")


class Wanted:
    """What the packet filter is to have.

    Args:
        bridges: networks' bridges.
        ports: published ports.
        pins: what pins containers' ports, see ``pinning``.
    """

    __slots__ = ("bridges", "pins", "ports")

    def __init__(
        self,
        bridges: "Iterable[Bridge]" = (),
        ports: "Iterable[Port]" = (),
        pins: "Iterable[Element]" = (),
    ) -> None:
        self.bridges = list(bridges)
        self.ports = list(ports)
        self.pins = list(pins)

    def lasting(self) -> list[Element]:
        """What stays as long as the networks."""
        return [one for bridge in self.bridges for one in _of_bridge(bridge)]

    def passing(self) -> list[Element]:
        """What stays as long as containers run."""
        found = list(self.pins)
        for port in self.ports:
            found.append(port.element())
            if not port.routed:
                found.append(port.itself())
            gateway = self._gateway(port)
            if gateway is not None:
                found.append(port.near(gateway))
        return found

    def add(self, other: "Wanted") -> None:
        """Want what another one wants as well; where they differ, this one is right."""
        names = {bridge.name for bridge in self.bridges}
        keys = {port.key() for port in self.ports}
        places = {pin.place for pin in self.pins}
        self.bridges += [one for one in other.bridges if one.name not in names]
        self.ports += [one for one in other.ports if one.key() not in keys]
        self.pins += [one for one in other.pins if one.place not in places]

    def _gateway(self, port: "Port") -> "Address | None":
        """The host's own address on a container's network, for clients on its loopback."""
        if not port.is_near:
            return None
        return next(
            (
                address.ip
                for bridge in self.bridges
                for address in bridge.addresses
                if port.address in address.network
            ),
            None,
        )


def ensure(
    wanted: Wanted,
    others: "Callable[[], Wanted] | None" = None,
    *,
    closing: "Collection[int]" = (),
    closed: "Collection[int]" = (),
    say: "Say | None" = None,
) -> Transaction | None:
    """Have rules, published ports and pins in the network namespace of the caller.

    Args:
        wanted: what there is to be from now on.
        others: tells what else there is to be, for a table that has to be made anew.
        closing: IP versions in which the host is not to forward what is not a container's.
        closed: those in which that was so before, and is to be again where the chain has gone.
        say: takes what is told of each step.

    Returns:
        None, in a fraction of a millisecond, when all is there; else the transaction that
        installs it, to be waited for before the first packet.

    Raises:
        UnavailableError: nft is not installed.
        UnsupportedError: the kernel has no nftables.
    """
    with nftables.Socket() as kernel:
        asked = [_REVISED, _UNPINNED, pinning.REVISED, *wanted.lasting()]
        answers = kernel.there("ketch", asked)
        current, unpinned, pinned = answers[:3]
        missing = [one for one, there in zip(asked[3:], answers[3:], strict=True) if not there]
        current = current and (pinned or unpinned)
        closing = {
            version
            for version in {*closing, *closed}
            if (policy := kernel.policy(*forward_policy.CHAINS[version])) != nftables.NF_DROP
            and (policy is None or version in closing)
        }
        if not current or closing:
            unpinned = not (pinned or nftables.check(pinning.PROBE))
            wanted.add(others() if others is not None else Wanted())
            missing = wanted.lasting()
        blocked = forward_policy.blocked(kernel, wanted.bridges, closing)
        passing = wanted.passing()
        if unpinned:
            missing, passing = _without_pins(missing), _without_pins(passing)
        # An element that is there although nobody holds its port was left by an engine that is
        # gone. In a map it has to go first; in a set it may as well stay.
        maps = [one for one in passing if one.data]
        stale = [one for one, there in zip(maps, kernel.there("ketch", maps), strict=True) if there]
        if say:
            there = kernel.there("ketch", passing)
            new = [one for one, is_there in zip(passing, there, strict=True) if not is_there]
            if missing or new or stale:
                say(telling.of_elements([*missing, *stale, *new], stale, anew=not current))
        if current and not missing and not blocked and not closing:
            # No rule is to change, so nft is not needed, which takes 5 ms and more.
            kernel.change("ketch", add=passing, delete=stale)
            return None
    lines = [f"delete element {one.spoken('ketch')}" for one in stale]
    lines += [f"add element {one.spoken('ketch')}" for one in (*missing, *passing)]
    if unpinned:
        lines.append(f"add element {_UNPINNED.spoken('ketch')}")
    purpose = ", ".join(bridge.name for bridge in wanted.bridges)
    return Transaction(
        script(
            forward_policy.closing(closing),
            forward_policy.letting_through(blocked),
            lines,
            pinned=not unpinned,
        ),
        f"rules for bridge {purpose}",
    )


def script(*lines: "Iterable[str]", pinned: bool = True) -> str:
    """What nft has to do, whatever is there already.

    Args:
        lines: what else beside the tables.
        pinned: whether the kernel can look at what passes bridges.
    """
    tables = _TABLE + pinning.TABLE if pinned else _TABLE
    return tables + "".join(f"{line}\n" for group in lines for line in group)


def withdraw(
    ports: "Iterable[Port]" = (),
    pins: "Iterable[Element]" = (),
    *,
    late: "ExitStack | None" = None,
    say: "Say | None" = None,
) -> None:
    """Stop publishing ports, forget pins; those that are not there will do.

    Args:
        ports: the ports.
        pins: the pins.
        late: takes what may wait for a while, to be closed when nobody waits any more.
        say: takes what is told of each step.

    Raises:
        SyscallError: the kernel refused.
    """
    elements = list(pins)
    for port in ports:
        elements.append(port.element())
        if not port.routed:
            elements.append(port.itself())
        if port.is_near:
            elements.append(port.near(port.host_address))
    _remove(elements, late, say)


def forget(name: str, bridge: Bridge | None = None, say: "Say | None" = None) -> None:
    """Remove what the tables have of a bridge whose network is no more; nothing will do.

    Args:
        name: the bridge's.
        bridge: what it was, as far as that is known.
        say: takes what is told of each step.

    Raises:
        UnavailableError: nft is not installed, or failed.
    """
    known = _of_bridge(bridge) if bridge is not None else ()
    _remove([*_every_element(name), *known], say=say)
    forward_policy.forget(name)


def leave() -> None:
    """Take the tables away, with the last engine of the host; an operator's rules keep them.

    So is what lets bridges through elsewhere. A host that was closed stays so, since it forwards.

    Raises:
        UnavailableError: nft failed.
    """
    with nftables.Socket() as kernel:
        if kernel.rules("inet", "ketch", "user-forward"):
            return
        lines = forward_policy.withdrawal(kernel)
    # Deleting is no failure where there is none.
    lines += [f"add table {family} ketch\ndelete table {family} ketch\n"
              for family in ("inet", "bridge")]  # fmt: skip
    Transaction("".join(lines), "leave").wait()


def _remove(
    elements: "Iterable[Element]", late: "ExitStack | None" = None, say: "Say | None" = None
) -> None:
    """Remove elements; those that are not there will do.

    Nobody sees them from then on. What they took up the kernel frees after a grace period, and
    whoever closes such a socket before waits for that, and others with him.
    """
    every = list({element.place: element for element in elements}.values())
    # Mostly all are there but for what few containers have. Where one is missing, nothing changes,
    # and then all are asked for.
    doubtful = [*every[:1], *(one for one in every[1:] if one.name == "free")]
    with ExitStack() as now:
        kernel = (late or now).enter_context(nftables.Socket())
        if late is not None:
            late.callback(time.sleep, _GRACE_SECONDS)
        while True:
            missing = {
                one.place for one, is_there in
                zip(doubtful, kernel.there("ketch", doubtful), strict=True) if not is_there
            }  # fmt: skip
            there = [one for one in every if one.place not in missing]
            try:
                kernel.change("ketch", delete=there)
            except SyscallError as error:
                # Somebody else has removed one, with the whole table perhaps.
                if error.errno != errno.ENOENT:
                    raise
                doubtful = every
            else:
                break
    for first in range(0, len(there) if say else 0, _TOLD_AT_ONCE):
        assert say is not None
        say(telling.of_elements(remove=there[first : first + _TOLD_AT_ONCE]))


def _without_pins(elements: list[Element]) -> list[Element]:
    """What is left where the kernel cannot look at what passes bridges.

    Nobody's address is then taken, so that the way back is asked for all.
    """
    return [
        one for one in elements
        if one.family == "inet" and one.name not in {"taken4", "taken6"}
    ]  # fmt: skip


def _of_bridge(bridge: Bridge) -> list[Element]:
    """What the tables have of a bridge."""
    found = [one for one in _every_element(bridge.name) if _wants(bridge, one)]
    found += [
        Element(
            f"sources{address.version}", ifname(bridge.name), address.packed,
            words=f'"{bridge.name}"', leads=str(address),
        )
        for address in bridge.sources
    ]  # fmt: skip
    if not bridge.kept:
        mac = bytes.fromhex(bridge.mac.replace(":", ""))
        words = f'"{bridge.name}" . {bridge.mac}'
        found.append(Element("gates", ifname(bridge.name) + padded(mac), words=words))
    return found + (pinning.of_bridge(bridge) if bridge.pinned else [])


def _wants(bridge: Bridge, element: Element) -> bool:
    """Whether a bridge is in a set."""
    kind = element.name
    version = 6 if "ipv6" in element.words else 4
    if kind == "within":
        return not bridge.isolated
    if kind == "internal":
        return bridge.internal
    if kind == "shunned":
        return bridge.shunned
    if kind == "checked":
        return not bridge.kept
    if kind == "masquerading":
        return bridge.masquerade and not bridge.internal and version not in bridge.routed
    if kind == "unprotected":
        return version in bridge.unprotected
    return not kind.startswith("sources")


def _every_element(name: str) -> list[Element]:
    """All that may be in sets by a bridge's name alone."""
    key, words = ifname(name), f'"{name}"'
    found = [
        Element(kind, key, words=words)
        for kind in ("bridges", "checked", "internal", "shunned", "sources4", "sources6")
    ]
    found += [Element(kind, key + key, words=f"{words} . {words}") for kind in ("pairs", "within")]
    for version, number in _NFPROTO.items():
        both = padded(bytes([number])) + key
        found += [
            Element(kind, both, words=f"{_NFPROTO_NAMES[version]} . {words}")
            for kind in ("masquerading", "unprotected")
        ]
    return found
