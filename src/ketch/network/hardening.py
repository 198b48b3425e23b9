"""What the host takes from those behind a link: nothing but packets.

A link that the kernel makes learns from whoever sends to it: by a router advertisement a default
route, addresses and name servers' prefixes (CVE-2020-13401), by a redirect another way, by a source
route the way itself. Where containers are behind it, or strangers of a VLAN that the host is not
on, all of that is switched off before the link is up, whatever the host's ``default`` has for new
links; see Documentation/networking/ip-sysctl.rst.
"""

from ketch.errors import UnavailableError
from ketch.linux import rtnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.linux.netlink import Request

_WANTED = {
    4: {
        "accept_redirects": 0,
        "secure_redirects": 0,
        "accept_source_route": 0,
        "arp_accept": 0,
        "proxy_arp": 0,
        "proxy_arp_pvlan": 0,
        # Else packets from there could have the host's own addresses as their source,
        "accept_local": 0,
        # or come to what listens on its loopback (CVE-2020-8558).
        "route_localnet": 0,
        # To everybody's hardware address but one host's IP address (RFC 1122, 3.3.6): what is
        # checked of packets for the host's hardware address would be passed by.
        "drop_unicast_in_l2_multicast": 1,
    },
    6: {
        "accept_ra": 0,
        "accept_ra_defrtr": 0,
        "accept_ra_pinfo": 0,
        "accept_ra_rtr_pref": 0,
        "accept_ra_mtu": 0,
        "autoconf": 0,
        "accept_redirects": 0,
        "accept_source_route": -1,
        "proxy_ndp": 0,
        "drop_unicast_in_l2_multicast": 1,
    },
}


def harden(link: rtnetlink.Link) -> None:
    """Have the host learn nothing from those behind a link; costs nothing where that is so.

    The caller must be in the link's namespace.

    Raises:
        UnavailableError: a sysctl cannot be set.
    """
    for version, wanted in _WANTED.items():
        present = link.sysctls(version)
        for name, value in wanted.items():
            if present.get(name, value) != value:
                _write(f"/proc/sys/net/ipv{version}/conf/{link.name}/{name}", value)


def of_port(name: str) -> "Request":
    """What hardens a bridge's port, whose IPv6 is off: one request, whatever is so already.

    A port passes on what it gets, but for frames to addresses that no bridge forwards (IEEE 802.1D,
    7.12.6): these the host takes as come by the port itself, not by the bridge.
    """
    return rtnetlink.set_ipv4_sysctls(name, _WANTED[4])


def _write(path: str, value: int) -> None:
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(str(value).encode())
    except FileNotFoundError:
        pass  # the link has gone; the next start makes it anew
    except OSError as error:
        raise UnavailableError(
            f"the host would learn routes from containers: {path}: {error.strerror}",
            f"set this sysctl to {value}",
        ) from error
