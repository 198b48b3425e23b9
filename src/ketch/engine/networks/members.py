"""A container's membership in a network, as the engine's database has it."""

import json
import sqlite3
from ipaddress import ip_address, ip_interface

from ketch.engine.networks.records import HOST, Network
from ketch.engine.records import events
from ketch.errors import InvalidArgumentError, NotFoundError
from ketch.spec import links
from ketch.spec.endpoints import is_user_defined, mac_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from ketch.engine.networks.records import Subnet
    from ketch.network import ipam


class Member:
    """A container's membership in a network.

    Attributes:
        container_id: the container's.
        network_id: the network's, or the name that was asked for until the first start.
        network_name: the network's, as it was then.
        settings: what was asked for, in the API's ``EndpointSettings``.
        id: 64 hexadecimal digits while the container runs, else empty.
        addresses: with prefix length, while it runs.
        mac: the link's MAC address, while it runs.
        interface: the link's name in the container, while it runs.
        gateway: IP versions of which its way out is on this network.
        names: what it is called on the network beside its own name: aliases, short id, host name.
    """

    __slots__ = (
        "addresses", "container_id", "gateway", "id", "interface", "mac", "names", "network_id",
        "network_name", "settings",
    )  # fmt: skip

    def __init__(self, row: sqlite3.Row) -> None:
        self.container_id: str = row["container_id"]
        self.network_id: str = row["network_id"]
        self.network_name: str = row["network_name"]
        self.settings: dict[str, Any] = json.loads(row["settings"])
        self.id: str = row["id"]
        self.addresses = [ip_interface(row[key]) for key in ("ipv4", "ipv6") if row[key]]
        self.mac: str = row["mac"]
        self.interface: str = row["interface"]
        self.gateway = {version for version in (4, 6) if row["gateway"] & version}
        self.names: list[str] = json.loads(row["names"])

    def address(self, version: int) -> "ipam.Address | None":
        """Its address of an IP version."""
        return next((one.ip for one in self.addresses if one.version == version), None)


def of(connection: sqlite3.Connection, container_id: str) -> list[Member]:
    """A container's memberships, in the order of its links."""
    query = "SELECT * FROM endpoint WHERE container_id = ? ORDER BY position"
    return [Member(row) for row in connection.execute(query, (container_id,))]


def member_of(
    members: "Iterable[Member]", network: str, container: str, called: str = ""
) -> Member:
    """One of a container's memberships, by the network's name or id; ``called`` is for messages.

    Raises:
        NotFoundError: it is not on that network.
    """
    for member in members:
        if network in {member.network_name, member.network_id}:
            return member
    name = called or network
    raise NotFoundError(f"container {container} is not connected to the network {name}")


def declare(
    connection: sqlite3.Connection,
    container_id: str,
    name: str,
    network: Network | None,
    settings: "Mapping[str, Any]",
    position: int,
) -> None:
    """Record that a container is to be on a network, which may not be there yet."""
    connection.execute(
        "INSERT OR IGNORE INTO endpoint (container_id, network_id, network_name, position, "
        "settings, names) VALUES (?, ?, ?, ?, ?, ?)",
        (container_id, network.id if network else name, network.name if network else name,
         position, json.dumps(settings), json.dumps(settings.get("Aliases") or [])),
    )  # fmt: skip


def save(connection: sqlite3.Connection, member: Member) -> None:
    """Record what a membership has while its container runs."""
    texts = {address.version: str(address) for address in member.addresses}
    connection.execute(
        "UPDATE endpoint SET id = ?, ipv4 = ?, ipv6 = ?, mac = ?, interface = ?, gateway = ?, "
        "names = ? WHERE container_id = ? AND network_id = ?",
        (member.id, texts.get(4, ""), texts.get(6, ""), member.mac, member.interface,
         sum(member.gateway), json.dumps(member.names), member.container_id, member.network_id),
    )  # fmt: skip


def record_event(
    connection: sqlite3.Connection, action: str, member: Member, network: Network
) -> None:
    """Record that a container has come to a network, or left it."""
    attributes = {"container": member.container_id, "name": network.name, "type": network.driver}
    events.record(connection, "network", action, network.id, attributes)


def check_settings(
    name: str, settings: "Mapping[str, Any]", subnets: "Sequence[Subnet]" = ()
) -> None:
    """Check what a container asks of a network.

    Args:
        name: the network's, or the mode that stands in its place.
        settings: what is asked for.
        subnets: what the network has.

    Raises:
        InvalidArgumentError: in Docker's words.
    """
    ipam_asked = settings.get("IPAMConfig") or {}
    errors = []
    for text in settings.get("Links") or ():
        try:
            links.split(text)
        except InvalidArgumentError as error:
            errors.append(error.message)
    if address := settings.get("MacAddress"):
        try:
            mac_address(address)
        except InvalidArgumentError:
            errors.append(f"invalid MAC address {address}")
    if not is_user_defined(name):
        if settings.get("Aliases"):
            errors.append("network-scoped aliases are only supported for user-defined networks")
        if ipam_asked.get("IPv4Address") or ipam_asked.get("IPv6Address"):
            errors.append("user specified IP address is supported on user defined networks only")
    for key in ("IPv4Address", "IPv6Address"):
        text = ipam_asked.get(key)
        if not text or not is_user_defined(name):
            continue
        try:
            asked = ip_address(text)
        except ValueError:
            errors.append(f"invalid {key[:4]} address: {text}")
            continue
        if asked.version != int(key[3]):
            errors.append(f"invalid {key[:4]} address: {text}")
        elif not any(asked in subnet.subnet for subnet in subnets):
            errors.append(f"no configured subnet contains IP address {text}")
        elif all(one.chosen for one in subnets if asked in one.subnet):
            errors.append(
                "user specified IP address is supported only when connecting to networks with "
                "user configured subnets"
            )
    if errors:
        raise InvalidArgumentError(
            f"invalid config for network {name}: invalid endpoint settings:\n" + "\n".join(errors)
        )


def check_company(drivers: set[str], network: Network) -> None:
    """Refuse networks that a container cannot be on together."""
    if "host" in drivers or network.driver == "host":
        raise InvalidArgumentError(
            "container cannot be disconnected from host network or connected to host network"
        )
    if "null" in drivers or (network.driver == "null" and drivers):
        raise InvalidArgumentError(
            "container cannot be connected to multiple networks with one of the networks in "
            "private (none) mode"
        )


def check_together(mode: str, networks: "Sequence[Network]") -> None:
    """Refuse a new container's networks that it cannot be on together, or not in its mode."""
    for network in networks:
        others = {other.driver for other in networks if other is not network}
        if mode == HOST and network.driver != "host":
            others.add("host")
        if others or (mode != HOST and network.driver == "host"):
            check_company(others, network)
