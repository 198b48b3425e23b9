"""What of a link's settings has a host learn from those behind it, or take what is not theirs."""

from collections.abc import Callable

TRUSTING = {
    6: {"accept_ra": 2, "accept_redirects": 1, "proxy_ndp": 1},
    4: {"accept_redirects": 1, "accept_source_route": 1, "arp_accept": 1, "proxy_arp": 1,
        "route_localnet": 1, "accept_local": 1},
}  # fmt: skip
"""Settings of a host that trusts its links in everything, as far as it can be told to."""

_WARY = {
    6: {"accept_ra": 0, "accept_ra_defrtr": 0, "accept_ra_pinfo": 0, "accept_redirects": 0,
        "autoconf": 0, "proxy_ndp": 0, "accept_source_route": -1,
        "drop_unicast_in_l2_multicast": 1},
    4: {"accept_redirects": 0, "secure_redirects": 0, "accept_source_route": 0, "arp_accept": 0,
        "proxy_arp": 0, "proxy_arp_pvlan": 0, "route_localnet": 0, "accept_local": 0,
        "drop_unicast_in_l2_multicast": 1},
}  # fmt: skip


def trusted(link: str, read: Callable[[list[str]], list[str]]) -> list[str]:
    """Return the settings of a link by which its host trusts those behind it.

    Args:
        link: its name.
        read: gives the texts of files in ``/proc/sys/net``.
    """
    wanted = {
        f"ipv{version}/conf/{link}/{name}": str(value)
        for version, settings in _WARY.items()
        for name, value in settings.items()
    }
    found = zip(wanted, read(list(wanted)), strict=True)
    return [path for path, text in found if text.strip() != wanted[path]]
