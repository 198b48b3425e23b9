"""What a container gets of networks when it starts: its links, its ways out, its ports."""

from contextlib import ExitStack
from ipaddress import ip_address, ip_interface

from ketch.engine.networks.members import Member
from ketch.engine.networks.records import Network
from ketch.errors import InvalidArgumentError
from ketch.network.sandbox import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ketch.network import ipam
    from ketch.network.bridge import Bridge
    from ketch.network.parent import Parent
    from ketch.network.ports import Port

_SYSCTLS = "com.docker.network.endpoint.sysctls"


class Plan:
    """What a container gets of networks at its start.

    Attributes:
        members: its memberships, in the order of its links.
        networks: the network of each.
        ports: the ports to be published.
        taken: descriptors of sockets that keep the ports from others; the caller's.
        turn: the turn to choose a subnet, where one was chosen; the caller's, until the bridges
            are there.
    """

    __slots__ = ("members", "networks", "ports", "taken", "turn")

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.networks: dict[str, Network] = {}
        self.ports: list[Port] = []
        self.taken: list[int] = []
        self.turn = ExitStack()

    def endpoints(self) -> list[Endpoint]:
        """The links that the container is to have."""
        return [endpoint(member, self.networks[member.network_id]) for member in self.members
                if member.id and self.networks[member.network_id].subnets]  # fmt: skip

    @property
    def leads_out(self) -> bool:
        """Whether any of its networks leads further than to its own containers."""
        return any(member.gateway for member in self.members)

    def links(self) -> "list[Bridge | Parent]":
        """What the links are made on."""
        return [network.link() for network in self.networks.values() if network.subnets]


def endpoint(member: Member, network: Network) -> Endpoint:
    """The link of a membership."""
    routes: dict[int, ipam.Address | None] = {}
    for version in sorted(member.gateway):
        routes[version] = _next_hop(network, version)
    options = member.settings.get("DriverOpts") or {}
    extra = (member.settings.get("IPAMConfig") or {}).get("LinkLocalIPs") or ()
    return Endpoint(
        member.id,
        network.name,
        network.link(),
        [*member.addresses, *(ip_interface(f"{text}/{_link_length(text)}") for text in extra)],
        member.mac,
        routes=routes,
        interface=member.interface,
        sysctls=_sysctls(options.get(_SYSCTLS, ""), member.interface),
    )


def choose_gateways(members: "Iterable[Member]", by_id: "Mapping[str, Network]") -> None:
    """Choose on which networks a container's ways out are: one for each IP version.

    The highest ``gw-priority`` wins, then the first name in the alphabet, as in Docker 28; an
    internal network leads nowhere.
    """
    members = list(members)
    for version in (4, 6):
        leading = [
            member for member in members
            if member.address(version) is not None
            and not by_id[member.network_id].internal
            and by_id[member.network_id].mode(version) != "isolated"
            and _leads_out(by_id[member.network_id], version)
        ]  # fmt: skip
        chosen = min(
            leading,
            key=lambda member: (-int(member.settings.get("GwPriority") or 0), member.network_name),
            default=None,
        )
        for member in members:
            member.gateway.discard(version)
            if member is chosen:
                member.gateway.add(version)


def _leads_out(network: Network, version: int) -> bool:
    if network.driver == "ipvlan" and network.link().mode.startswith("l3"):  # type: ignore[union-attr]
        return True
    return _next_hop(network, version) is not None


def _next_hop(network: Network, version: int) -> "ipam.Address | None":
    if network.driver == "ipvlan" and network.link().mode.startswith("l3"):  # type: ignore[union-attr]
        return None
    return next(
        (one.gateway for one in network.subnets
         if one.subnet.version == version and one.gateway), None,
    )  # fmt: skip


def _link_length(text: str) -> int:
    return 16 if ip_address(text).version == 4 else 64


def _sysctls(text: str, interface: str) -> dict[str, str]:
    """Reads ``net.ipv4.conf.IFNAME.log_martians=1,...`` into names below /proc/sys and values."""
    found = {}
    for entry in text.split(",") if text else ():
        name, equals, value = entry.partition("=")
        parts = name.split(".")
        if not equals or len(parts) < 5 or parts[0] != "net" or parts[3] != "IFNAME":
            raise InvalidArgumentError(
                f"{_SYSCTLS}: invalid entry {entry!r}", "as net.ipv4.conf.IFNAME.log_martians=1"
            )
        parts[3] = interface
        found["/".join(parts)] = value
    return found
