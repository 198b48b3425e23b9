"""The chain ``FORWARD`` of iptables' tables, where other firewalls of the host have their say.

All base chains of a hook see a packet, and one that drops it has
the last word: what is accepted here may still be dropped there (nft(8), "Verdict statement").
dockerd, ufw and many operators set the policy of ``ip filter FORWARD`` to drop. Where it is, two
rules are put at the end of that chain, as podman's netavark does (at the beginning), that let our
bridges' packets through to the verdict of our own table. At the end, because rules that somebody
wrote, Docker's isolation and its DOCKER-USER chain among them, are to decide first; and made only
of what iptables-nft can show. Rules in the legacy iptables back end, which nftables cannot see,
and firewalld, whose zones reject by themselves, are left to the operator: accept ``-i ketch+`` and
``-o ketch+`` there.

That policy is ketch's own where it made the host forward packets; see ``ip_forward``.
"""

from ketch.linux import nftables
from ketch.linux.nftables import Transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ketch.network.bridge import Bridge

# Names of bridges that ketch chooses begin with this; iptables' rules name them all at once.
BRIDGE_PREFIX = "ketch"

# The chain that iptables-nft shows as FORWARD, by IP version.
CHAINS = {4: ("ip", "filter", "FORWARD"), 6: ("ip6", "filter", "FORWARD")}
_COMMENT = "ketch: let inet ketch decide"


def closing(versions: "Iterable[int]") -> list[str]:
    """What nft has to do that the host forwards nothing unless somebody accepts it.

    As dockerd does it, and where others look for it: by the policy of iptables' own chain. Whoever
    wants the host to be a router accepts there what he wants, or sets that policy.
    """
    return [
        line
        for version in versions
        for family, table, chain in [CHAINS[version]]
        for line in (
            f"add table {family} {table}",
            f"add chain {family} {table} {chain} "
            "{ type filter hook forward priority filter; policy drop; }",
        )
    ]


def letting_through(blocked: "Iterable[tuple[int, str]]") -> list[str]:
    """What nft has to do for what ``blocked`` has found."""
    return [
        f'add rule {" ".join(CHAINS[version])} {side} "{links}" counter accept '
        f'comment "{_comment(links)}"'
        for version, links in blocked
        for side in ("iifname", "oifname")
    ]


def blocked(
    kernel: nftables.Socket, bridges: "Sequence[Bridge]", closing: "Collection[int]"
) -> list[tuple[int, str]]:
    """Where another table drops what we accept, or is going to, and our rules there are missing.

    Returns:
        IP versions, and the links, as nft names them, that must be let through.
    """
    wanted: dict[tuple[int, str], None] = {}
    for bridge in bridges:
        ours = bridge.name.startswith(BRIDGE_PREFIX)
        for address in bridge.addresses:
            wanted[address.version, f"{BRIDGE_PREFIX}*" if ours else bridge.name] = None
    dropping = {
        version
        for version in {version for version, _ in wanted}
        if version in closing or kernel.policy(*CHAINS[version]) == nftables.NF_DROP
    }
    if not dropping:
        return []
    comments = {version: kernel.comments(*CHAINS[version]) for version in dropping}
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


def withdrawal(kernel: nftables.Socket, links: str = f"{BRIDGE_PREFIX}*") -> list[str]:
    """What nft has to do to take away our rules about links, as nft names them."""
    return [
        f"delete rule {' '.join(chain)} handle {handle}\n"
        for chain in CHAINS.values()
        for handle, userdata in kernel.rules(*chain)
        if _is_comment(userdata, _comment(links))
    ]


def forget(name: str) -> None:
    """Remove our rules about a bridge, which has a name that somebody else chose, if there are any.

    Raises:
        UnavailableError: nft is not installed, or failed.
    """
    if name.startswith(BRIDGE_PREFIX):
        return
    with nftables.Socket() as kernel:
        lines = withdrawal(kernel, name)
    if lines:
        Transaction("".join(lines), f"forget bridge {name}").wait()
