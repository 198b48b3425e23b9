"""What packets may do: one nftables table, ``inet ketch``, whose sets name our bridges.

One table of the ``inet`` family serves IPv4 and IPv6: NAT in it exists since Linux 5.2. Its rules
never change while networks come and go; only elements do. A bridge's elements last as long as its
network, not as long as a container, so a start has nothing to write and asks the kernel, in one
round trip, whether its bridge is in place. That question also finds out about a reboot, an
``nft flush ruleset`` and a table of an older ketch, which no marker file would.

Forwarded packets, neither from nor to one of our bridges, are left alone. The others:

- answers, and what a published port let in, pass;
- within one bridge they pass (they come by here where br_netfilter is loaded);
- to a bridge from anywhere else (another bridge, another machine) they are dropped;
- from a bridge to anywhere else they pass, with the host's address, unless it is internal.

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

import sys

from ketch.linux import nftables
from ketch.linux.nftables import Transaction, ifname
from ketch.network.bridge import Bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# To be raised with every change to _TABLE, so that the first start after an upgrade installs it.
REVISION = 1

# Names of bridges that ketch chooses begin with this; iptables' rules name them all at once.
BRIDGE_PREFIX = "ketch"

_TABLE = f"""\
add table inet ketch
add set inet ketch revision {{ type mark; }}
add set inet ketch bridges {{ type ifname; }}
add set inet ketch within {{ type ifname . ifname; }}
add set inet ketch masqueraded {{ type ifname; }}
add set inet ketch internal {{ type ifname; }}
add chain inet ketch forward {{ type filter hook forward priority filter; policy accept; }}
add chain inet ketch postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
flush chain inet ketch forward
flush chain inet ketch postrouting
flush set inet ketch revision
add element inet ketch revision {{ {REVISION} }}
add rule inet ketch forward iifname != @bridges oifname != @bridges accept
add rule inet ketch forward ct state established,related accept
add rule inet ketch forward ct status dnat accept
add rule inet ketch forward iifname . oifname @within accept
add rule inet ketch forward oifname @bridges drop
add rule inet ketch forward iifname @internal drop
add rule inet ketch postrouting iifname @masqueraded oifname != @bridges masquerade
"""

# The chain that iptables-nft shows as FORWARD, by IP version.
_FOREIGN = {4: ("ip", "filter", "FORWARD"), 6: ("ip6", "filter", "FORWARD")}
_COMMENT = "ketch: let inet ketch decide"


def ensure(bridge: Bridge) -> Transaction | None:
    """Have a bridge's rules in the network namespace of the caller.

    Returns:
        None, in a fraction of a millisecond, when they are there; else the transaction that
        installs them, to be waited for before the first packet.

    Raises:
        UnavailableError: nft is not installed.
        UnsupportedError: the kernel has no nftables.
    """
    with nftables.Socket() as kernel:
        there = all(
            kernel.present(
                "inet",
                "ketch",
                [
                    ("revision", REVISION.to_bytes(4, sys.byteorder)),
                    ("bridges", ifname(bridge.name)),
                ],
            )
        )
        blocked = [
            version
            for version in sorted({address.version for address in bridge.addresses})
            if _blocked(kernel, version)
        ]
    if there and not blocked:
        return None
    return Transaction(script(bridge, blocked), f"rules for bridge {bridge.name}")


def script(bridge: Bridge, blocked: "Sequence[int]" = ()) -> str:
    """What nft has to do for one more bridge, whatever is there already.

    Args:
        bridge: the bridge.
        blocked: IP versions of which another table's policy drops forwarded packets.
    """
    lines = [f"add element inet ketch {element}" for element in _elements(bridge)]
    for version in blocked:
        chain = " ".join(_FOREIGN[version])
        lines += [
            f'add rule {chain} {side} "{BRIDGE_PREFIX}*" counter accept comment "{_COMMENT}"'
            for side in ("iifname", "oifname")
        ]
    return _TABLE + "\n".join(lines) + "\n"


def forget(name: str) -> None:
    """Remove what the table has of a bridge whose network is no more; nothing will do.

    Raises:
        UnavailableError: nft is not installed, or failed.
    """
    lines = []
    for element in _every_element(name):
        # Added first, so that its removal cannot fail.
        lines += [f"add element inet ketch {element}", f"delete element inet ketch {element}"]
    Transaction(_TABLE + "\n".join(lines) + "\n", f"forget bridge {name}").wait()


def _elements(bridge: Bridge) -> list[str]:
    member, within, masqueraded, internal = _every_element(bridge.name)
    elements = [member, within]
    if bridge.internal:
        elements.append(internal)
    elif bridge.masquerade:
        elements.append(masqueraded)
    return elements


def _every_element(name: str) -> tuple[str, str, str, str]:
    return (
        f'bridges {{ "{name}" }}',
        f'within {{ "{name}" . "{name}" }}',
        f'masqueraded {{ "{name}" }}',
        f'internal {{ "{name}" }}',
    )


def _blocked(kernel: nftables.Socket, version: int) -> bool:
    """Whether another table drops what we accept, and our rules there are missing."""
    chain = _FOREIGN[version]
    if kernel.policy(*chain) != nftables.NF_DROP:
        return False
    comment = _COMMENT.encode()
    return not any(comment in userdata for userdata in kernel.comments(*chain))
