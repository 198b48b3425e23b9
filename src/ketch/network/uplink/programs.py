"""The programs that lead out of a user's network, as they are to be called. Pure.

Both give the namespace the same link, addresses and name server. The addresses are none of the
machine's, so that a container reaches what listens on the machine's own; what listens on its
loopback alone it does not reach. How they are called for one container alone, as it asks for it, is
in ``private``. Sources: passt(1) of March 2023 and of May 2025, slirp4netns(1).
"""

from ipaddress import ip_address, ip_interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

LINK = "uplink"
LINK_BESIDE = "uplink6"  # pasta's, where slirp4netns has the other
LINKS = (LINK, LINK_BESIDE)
# As large as a packet can be; the fewer there are, the more both programs get through.
MTU_BYTES = 65520

# Of the block that RFC 6890 keeps for protocols between a host and what translates addresses for
# it; an RFC 4193 prefix, drawn once. No LAN has either.
ADDRESS = ip_interface("192.0.0.100/24")
GATEWAY = ip_address("192.0.0.2")
NAMESERVER = ip_address("192.0.0.3")  # leads to the machine's own resolver
ADDRESS_6 = ip_interface("fd6b:6574:6368:1::100/64")
GATEWAY_6 = ip_address("fd6b:6574:6368:1::2")

_LOG_BYTES = 256 * 1024


class Program:
    """One of the programs.

    Args:
        name: what it is called.
        package: in which distributions have it.
        versions: the IP versions that it can speak for.
    """

    __slots__ = ("name", "package", "versions")

    def __init__(self, name: str, package: str, versions: "Collection[int]") -> None:
        self.name = name
        self.package = package
        self.versions = frozenset(versions)


PASTA = Program("pasta", "passt", (4, 6))
SLIRP = Program("slirp4netns", "slirp4netns", (4,))
PROGRAMS = (SLIRP, PASTA)
"""The better one first, where both can speak for an IP version. What a burst has more of than the
machine's socket takes pasta drops without a word: the sender is silent until a timer has run out,
200 ms, and again, and pasta of 2023 resets connections to who reads slowly. slirp4netns keeps it.
"""


def ways(
    installed: "Collection[Program]", versions: "Collection[int]"
) -> "list[list[tuple[Program, frozenset[int]]]]":
    """What can lead out, the best first.

    Args:
        installed: the programs that are there.
        versions: the IP versions in which the machine reaches others.

    Returns:
        Each way: programs, and the versions that each speaks for there.
    """
    found = []
    left = frozenset(versions)
    each = []
    for program in PROGRAMS:
        if program in installed and left & program.versions:
            each.append((program, left & program.versions))
            left -= program.versions
    if each:
        found.append(each)
    for program in PROGRAMS:
        alone = [(program, frozenset(versions) & program.versions)]
        if program in installed and alone[0][1] and alone not in found:
            found.append(alone)
    return found


def link(program: Program, way: "Sequence[tuple[Program, frozenset[int]]]") -> str:
    """The link that a program makes, where it leads out with those of its way."""
    return LINK if program is way[0][0] else LINK_BESIDE


def words(
    program: Program,
    path: str,
    network: str,
    versions: "Collection[int]",
    directory: str,
    link: str = LINK,
) -> list[str]:
    """The words that start a program, which stays in the foreground.

    Args:
        program: which.
        path: where it is.
        network: a path to the network namespace, which belongs to the caller's user namespace.
        versions: the IP versions that it is to speak for; 4, 6, or both.
        directory: where it may write a log.
        link: what its link is called.
    """
    if program is SLIRP:
        return _slirp(path, network, link)
    return _pasta(path, network, versions, directory, link)


def _pasta(
    path: str, network: str, versions: "Collection[int]", directory: str, link: str
) -> list[str]:
    """Nothing of the machine's leads in by it: published ports are the relay's.

    What it is not told to leave alone it would forward by itself (``-t auto``), and the machine's
    loopback by its gateway's address.
    """
    found = [
        path, "--foreground", "--netns", network, "--netns-only", "--no-netns-quit",
        "--config-net", "--ns-ifname", link, "--mtu", str(MTU_BYTES),
        "--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none",
        "--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ra",
        "--log-file", f"{directory}/log", "--log-size", str(_LOG_BYTES),
    ]  # fmt: skip
    if 4 in versions:
        found += [
            "--address", str(ADDRESS.ip), "--netmask", str(ADDRESS.network.prefixlen),
            "--gateway", str(GATEWAY), "--dns-forward", str(NAMESERVER),
        ]  # fmt: skip
    else:
        found.append("--ipv6-only")
    if 6 in versions:
        found += ["--address", str(ADDRESS_6.ip), "--gateway", str(GATEWAY_6)]
    else:
        found.append("--ipv4-only")
    return found


def _slirp(path: str, network: str, link: str) -> list[str]:
    """It gives the namespace IPv4 alone.

    Its IPv6 has one prefix for everybody, ``fd00::/64``, which is some machines' own, and the
    namespace, which forwards packets, would not take its advertisement.
    """
    return [
        path, "--configure", "--mtu", str(MTU_BYTES), "--cidr", str(ADDRESS.network),
        "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp",
        "--netns-type", "path", network, link,
    ]  # fmt: skip


def reason(said: str) -> str:
    """What one of them says of why it does not start: its last words, without the time.

    Args:
        said: what it has written to its standard error, or its log.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it says nothing"
    head, mark, rest = last.partition(": ")
    if mark and not head.strip(" .0123456789"):  # the time
        last = rest
    return last.removeprefix("ERROR:").strip()[:400]
