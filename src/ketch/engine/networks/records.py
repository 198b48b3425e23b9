"""A network as the engine's database has it.

Whoever asks for networks of the database asks here; made and unmade they are by
``ketch.engine.networks.networks``.
"""

import json
import sqlite3
from ipaddress import ip_address, ip_interface, ip_network

from ketch.errors import InvalidArgumentError, NotFoundError
from ketch.network import bridge as bridges
from ketch.network import definition, ipam
from ketch.network.bridge import Bridge
from ketch.network.parent import Parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Docker's names, which users know, and its drivers behind them.
BRIDGE = "bridge"
HOST = "host"
NONE = "none"
BUILT_IN = {BRIDGE: "bridge", HOST: "host", NONE: "null"}

_HEXADECIMAL = frozenset("0123456789abcdef")


class Subnet:
    """A network's addresses of one range.

    Attributes:
        subnet: the range.
        gateway: the way out, the host's own address on a bridge; None where there is none.
        ip_range: the part of it that containers get.
        auxiliary: addresses that no container gets, by name.
        chosen: whether it was chosen from the address pools.
        last: the address leased last, or None.
        position: its place among the network's subnets.
    """

    __slots__ = ("auxiliary", "chosen", "gateway", "ip_range", "last", "position", "subnet")

    def __init__(self, row: sqlite3.Row) -> None:
        self.subnet: ipam.Network = ip_network(row["subnet"])
        self.gateway = ip_address(row["gateway"]) if row["gateway"] else None
        self.ip_range = ip_network(row["ip_range"], strict=False) if row["ip_range"] else None
        self.auxiliary: dict[str, str] = json.loads(row["auxiliary"])
        self.chosen = bool(row["chosen"])
        self.last = ip_address(row["last_address"]) if row["last_address"] else None
        self.position: int = row["position"]

    @property
    def reserved(self) -> set[ipam.Address]:
        """Addresses that no container gets."""
        found = {ip_address(address) for address in self.auxiliary.values()}
        return found | ({self.gateway} if self.gateway else set())

    def document(self) -> "dict[str, Any]":
        """As ``inspect`` shows it."""
        shown: dict[str, Any] = {"Subnet": str(self.subnet)}
        if self.ip_range:
            shown["IPRange"] = str(self.ip_range)
        if self.gateway:
            shown["Gateway"] = str(self.gateway)
        if self.auxiliary:
            shown["AuxiliaryAddresses"] = self.auxiliary
        return shown


class Network:
    """A network as it is recorded.

    Attributes:
        id: 64 hexadecimal digits.
        name: unique.
        driver: ``bridge``, ``macvlan``, ``ipvlan``, ``host`` or ``null``.
        bridge: name of its link in the host: its bridge, or its parent.
        subnets: its addresses; none where the driver gives none.
        record: what was asked for, in the API's keys.
    """

    __slots__ = ("bridge", "driver", "id", "name", "record", "subnets")

    def __init__(self, row: sqlite3.Row, subnets: "Iterable[sqlite3.Row]" = ()) -> None:
        self.id: str = row["id"]
        self.name: str = row["name"]
        self.driver: str = row["driver"]
        self.bridge: str = row["bridge"]
        self.record: dict[str, Any] = json.loads(row["record"])
        self.subnets = [Subnet(subnet) for subnet in subnets]

    @property
    def is_built_in(self) -> bool:
        """Whether it is always there."""
        return self.name in BUILT_IN

    @property
    def internal(self) -> bool:
        """Whether nothing leaves it for other networks."""
        return bool(self.record.get("Internal"))

    @property
    def options(self) -> "dict[str, str]":
        """The driver's options."""
        found: dict[str, str] = self.record.get("Options") or {}
        return found

    @property
    def labels(self) -> "dict[str, str]":
        """Its labels."""
        found: dict[str, str] = self.record.get("Labels") or {}
        return found

    @property
    def gateway(self) -> "ipam.Address | None":
        """The host's IPv4 address on it, or the IPv6 one where there is no IPv4."""
        return next((subnet.gateway for subnet in self.subnets if subnet.gateway), None)

    def has(self, version: int) -> bool:
        """Whether its containers get addresses of an IP version."""
        return any(subnet.subnet.version == version for subnet in self.subnets)

    def mode(self, version: int) -> str:
        """How its containers are reached in an IP version: ``nat``, ``routed``, ..."""
        return self.options.get(definition.GATEWAY_MODE[version], "") or "nat"

    @property
    def publishes(self) -> bool:
        """Whether ports lead to its containers though nothing leads out."""
        return self.internal and definition.truth(self.options, definition.PUBLISHED, False)

    def link(self) -> "Bridge | Parent":
        """What its containers' links are made on."""
        options = self.options
        mtu_bytes = int(options.get(definition.MTU, "0")) or self.record.get("mtu_bytes", 0)
        if self.driver == "bridge":
            modes = {version: self.mode(version) for version in (4, 6)}
            sources = [options[key] for key in definition.SOURCE.values() if key in options]
            first = self.subnets[0]
            return Bridge(
                self.bridge,
                [
                    ip_interface((str(subnet.gateway), subnet.subnet.prefixlen))
                    for subnet in self.subnets
                    if subnet.gateway and self.own_address(subnet.subnet.version)
                ],
                mtu_bytes=mtu_bytes or bridges.DEFAULT_MTU_BYTES,
                masquerade=definition.truth(options, definition.MASQUERADE, True),
                internal=self.internal,
                isolated=not definition.truth(options, definition.ICC, True),
                shunned=not definition.truth(options, definition.HOST_ACCESS, True),
                kept=bool(self.record.get("kept")),
                routed=[version for version, mode in modes.items() if mode == "routed"],
                unprotected=[v for v, mode in modes.items() if mode == "nat-unprotected"],
                sources=[ip_address(text) for text in sources],
                mac=ipam.mac_of(first.gateway or first.subnet.network_address),
                pinned=definition.truth(options, definition.PINNED, True),
            )
        mode = "macvlan_mode" if self.driver == "macvlan" else "ipvlan_mode"
        return Parent(
            self.driver,
            self.bridge,
            options.get(mode) or ("bridge" if self.driver == "macvlan" else "l2"),
            flag=options.get("ipvlan_flag") or "bridge",
            mtu_bytes=mtu_bytes,
            dummy="parent" not in options,
            made=bool(self.record.get("made")),
        )

    def own_address(self, version: int) -> bool:
        """Whether the host has an address of an IP version on its bridge."""
        if version == 4 and definition.truth(self.options, definition.INHIBIT_IPV4, False):
            return False
        return self.mode(version) != "isolated"


def select(connection: sqlite3.Connection, name: str) -> Network | None:
    """A network by its name, id or unique start of its id, or None.

    Raises:
        InvalidArgumentError: the start fits several.
    """
    row = connection.execute(
        "SELECT * FROM network WHERE name = ? OR id = ? ORDER BY id = ? DESC", (name, name, name)
    ).fetchone()
    if row is None and name and _HEXADECIMAL.issuperset(name):
        rows = connection.execute(
            "SELECT * FROM network WHERE id >= ? AND id < ? LIMIT 2", (name, name + "g")
        ).fetchall()
        if len(rows) > 1:
            raise InvalidArgumentError(
                f"network {name} is ambiguous ({len(rows)} matches found on ID prefix)"
            )
        row = rows[0] if rows else None
    if row is None:
        return None
    return Network(
        row,
        connection.execute(
            "SELECT * FROM subnet WHERE network_id = ? ORDER BY position", (row["id"],)
        ),
    )


def every(connection: sqlite3.Connection) -> list[Network]:
    """Every network, by name."""
    subnets: dict[str, list[sqlite3.Row]] = {}
    for row in connection.execute("SELECT * FROM subnet ORDER BY network_id, position"):
        subnets.setdefault(row["network_id"], []).append(row)
    rows = connection.execute("SELECT * FROM network ORDER BY name").fetchall()
    return [Network(row, subnets.get(row["id"], ())) for row in rows]


def users(connection: sqlite3.Connection, link: str) -> list[str]:
    """Names of the networks on a link of the host."""
    query = "SELECT name FROM network WHERE bridge = ?"
    return [row["name"] for row in connection.execute(query, (link,))]


def save(connection: sqlite3.Connection, network: Network) -> None:
    """Record what has changed of a network's record."""
    connection.execute(
        "UPDATE network SET record = ? WHERE id = ?", (json.dumps(network.record), network.id)
    )


def delete(connection: sqlite3.Connection, network: Network) -> None:
    """Forget a network, with its subnets and leases."""
    connection.execute("DELETE FROM network WHERE id = ?", (network.id,))
    connection.execute("DELETE FROM subnet WHERE network_id = ?", (network.id,))
    connection.execute("DELETE FROM lease WHERE network_id = ?", (network.id,))


def not_found(name: str) -> NotFoundError:
    """The error that there is no such network."""
    return NotFoundError(f"network {name} not found", "`ketch network ls` lists those there are")
