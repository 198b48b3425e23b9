"""The engine's networks: which there are, and which container has which address.

Facts that must be unique (names, subnets, addresses) are rows of the database, changed in
transactions. What the kernel has of them (bridge, routes, rules) is not recorded: each start makes
what is missing, see ``ketch.network``.
"""

import _socket
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address

from ketch.engine.settings import Settings
from ketch.engine.store import Store
from ketch.errors import NotFoundError
from ketch.linux import procfs, rtnetlink
from ketch.network import firewall, ipam
from ketch.network.bridge import Bridge
from ketch.network.sandbox import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Docker's names, which users know, and its drivers behind them.
BRIDGE = "bridge"
HOST = "host"
NONE = "none"
_BUILT_IN = {BRIDGE: "bridge", HOST: "host", NONE: "null"}

_DEFAULT_ROOT = "/var/lib/ketch"


class Network:
    """A network as it is recorded.

    Attributes:
        id: 64 hexadecimal digits.
        name: unique.
        driver: ``bridge``, ``host`` or ``null``.
        subnet: its addresses, or None where the driver gives none.
        gateway: the host's own address among them.
        bridge: name of its link in the host.
        record: what else is known of it.
    """

    __slots__ = ("bridge", "driver", "gateway", "id", "name", "record", "subnet")

    def __init__(self, row: sqlite3.Row) -> None:
        self.id: str = row["id"]
        self.name: str = row["name"]
        self.driver: str = row["driver"]
        self.subnet = IPv4Network(row["subnet"]) if row["subnet"] else None
        self.gateway = IPv4Address(row["gateway"]) if row["gateway"] else None
        self.bridge: str = row["bridge"]
        self.record: dict[str, Any] = json.loads(row["record"])


class Networks:
    """Networks and leases of one engine.

    Args:
        settings: the engine's places.
        store: its database.
    """

    __slots__ = ("_boot_id", "_settings", "_store")

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._boot_id = procfs.boot_id()

    def find(self, name: str) -> Network:
        """A network by its name or id; ``default`` is another name of ``bridge``.

        Raises:
            NotFoundError: there is none.
        """
        name = BRIDGE if name == "default" else name
        with self._store.reading() as connection:
            network = _select(connection, name)
        if network is None and name in _BUILT_IN:
            with self._store.transaction() as connection:
                network = self._built_in(connection, name)
        if network is None:
            raise NotFoundError(f"network {name} not found", "there are: bridge, host, none")
        return network

    def networks(self) -> list[Network]:
        """Every network, by name."""
        with self._store.transaction() as connection:
            for name in _BUILT_IN:
                self._built_in(connection, name)
            rows = connection.execute("SELECT * FROM network ORDER BY name").fetchall()
        return [Network(row) for row in rows]

    def lease(self, container_id: str) -> Endpoint:
        """Give a container an address in the default network, the one it has if it has one.

        The first lease after a reboot moves the network to another subnet if a route of the host
        is now in its place.

        Raises:
            UnavailableError: no address is free; ``reclaim`` may free some.
        """
        with self._store.transaction() as connection:
            network = self._built_in(connection, BRIDGE)
            if network.record.get("boot_id") != self._boot_id:
                # What held addresses before the reboot holds none now.
                connection.execute("DELETE FROM lease WHERE network_id = ?", (network.id,))
                network.record["boot_id"] = self._boot_id
            held = connection.execute(
                "SELECT address FROM lease WHERE network_id = ? AND container_id = ?",
                (network.id, container_id),
            ).fetchone()
            if held is not None:
                return _endpoint(network, IPv4Address(held["address"]))
            network = self._in_free_subnet(connection, network)
            address = _next_address(connection, network)
            connection.execute(
                "INSERT INTO lease (network_id, address, container_id) VALUES (?, ?, ?)",
                (network.id, str(address), container_id),
            )
            network.record["last_address"] = str(address)
            connection.execute(
                "UPDATE network SET record = ? WHERE id = ?",
                (json.dumps(network.record), network.id),
            )
        return _endpoint(network, address)

    def release(self, container_id: str) -> None:
        """Take back the addresses that a container has; it may have none."""
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM lease WHERE container_id = ?", (container_id,))

    def reclaim(self, alive: Collection[str]) -> None:
        """Take back the addresses of all containers but those that run, by their ids."""
        with self._store.transaction() as connection:
            holders = connection.execute("SELECT DISTINCT container_id FROM lease").fetchall()
            connection.executemany(
                "DELETE FROM lease WHERE container_id = ?",
                [row for row in holders if row["container_id"] not in alive],
            )

    def addresses(self, container_id: str) -> dict[str, str]:
        """Addresses that a container has, by network name."""
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT name, address FROM lease JOIN network ON network.id = network_id "
                "WHERE container_id = ?",
                (container_id,),
            ).fetchall()
        return {row["name"]: row["address"] for row in rows}

    def _built_in(self, connection: sqlite3.Connection, name: str) -> Network:
        """A built-in network, recorded now if this is its first use."""
        network = _select(connection, name)
        if network is not None:
            return network
        subnet = gateway = bridge = ""
        if name == BRIDGE:
            chosen = _free_subnet(connection)
            subnet, gateway = str(chosen), str(ipam.gateway_of(chosen))
            bridge = default_bridge(self._settings.root)
        connection.execute(
            "INSERT INTO network (id, name, driver, subnet, gateway, bridge, record) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                os.urandom(32).hex(),
                name,
                _BUILT_IN[name],
                subnet,
                gateway,
                bridge,
                json.dumps({"created_ns": time.time_ns()}),
            ),
        )
        network = _select(connection, name)
        assert network is not None
        return network

    def _in_free_subnet(self, connection: sqlite3.Connection, network: Network) -> Network:
        """The default network, elsewhere if a route of the host is where it was."""
        if _exists(network.bridge) or _in_use(connection, network):
            return network
        assert network.subnet is not None
        if not any(ipam.overlap(network.subnet, taken) for taken in _destinations()):
            return network
        chosen = _free_subnet(connection, without=network.id)
        network.record.pop("last_address", None)
        connection.execute(
            "UPDATE network SET subnet = ?, gateway = ?, record = ? WHERE id = ?",
            (str(chosen), str(ipam.gateway_of(chosen)), json.dumps(network.record), network.id),
        )
        return self._built_in(connection, network.name)


def default_bridge(root: str) -> str:
    """Name of the default network's bridge: ``ketch0``, or another for each other ``--root``.

    Engines with other roots, of tests or CI runs, know nothing of each other's networks and so
    must not share a link.
    """
    if root == _DEFAULT_ROOT:
        return f"{firewall.BRIDGE_PREFIX}0"
    return f"{firewall.BRIDGE_PREFIX}{zlib.crc32(os.fsencode(root)):08x}"


def _select(connection: sqlite3.Connection, name: str) -> Network | None:
    row = connection.execute(
        "SELECT * FROM network WHERE name = ? OR id = ? ORDER BY name = ? DESC", (name, name, name)
    ).fetchone()
    return None if row is None else Network(row)


def _in_use(connection: sqlite3.Connection, network: Network) -> bool:
    query = "SELECT 1 FROM lease WHERE network_id = ? LIMIT 1"
    return connection.execute(query, (network.id,)).fetchone() is not None


def _free_subnet(connection: sqlite3.Connection, without: str = "") -> ipam.Network:
    """A subnet that neither the host nor another network uses; ``without`` is one to leave out."""
    query = "SELECT subnet FROM network WHERE subnet != '' AND id != ?"
    recorded = [IPv4Network(row["subnet"]) for row in connection.execute(query, (without,))]
    return ipam.choose_subnet(ipam.DEFAULT_POOLS, [*_destinations(), *recorded])


def _destinations() -> list[ipam.Network]:
    """Where the host's routes lead, but for the default ones, which lead everywhere."""
    with rtnetlink.Socket() as host:
        return [route.destination for route in host.routes(4) if route.destination.prefixlen]


def _next_address(connection: sqlite3.Connection, network: Network) -> ipam.Address:
    assert network.subnet is not None
    assert network.gateway is not None
    last = network.record.get("last_address")

    def leased(address: ipam.Address) -> bool:
        query = "SELECT 1 FROM lease WHERE network_id = ? AND address = ?"
        return connection.execute(query, (network.id, str(address))).fetchone() is not None

    return ipam.choose_address(
        network.subnet,
        leased=leased,
        reserved={network.gateway},
        last=ip_address(last) if last else None,
    )


def _endpoint(network: Network, address: ipam.Address) -> Endpoint:
    assert network.subnet is not None
    assert network.gateway is not None
    length = network.subnet.prefixlen
    bridge = Bridge(network.bridge, [IPv4Interface((network.gateway, length))])
    return Endpoint(
        network.name,
        bridge,
        [IPv4Interface((int(address), length))],
        ipam.mac_of(address),
        gateways=[network.gateway],
    )


def _exists(link: str) -> bool:
    try:
        _socket.if_nametoindex(link)
    except OSError:
        return False
    return True
