"""The engine's networks: which there are, and how they are made and unmade.

Facts that must be unique (names, subnets) are rows of the database, changed in transactions. What
the kernel has of a network (bridge, routes, rules) is not recorded: each start makes what is
missing, see ``ketch.network``. Who is on a network is told by ``ketch.engine.networks.endpoints``.
"""

import _socket
import contextlib
import json
import os
import sqlite3
import time
import zlib
from ipaddress import ip_address, ip_interface, ip_network

from ketch.engine import events
from ketch.engine.networks import publishing
from ketch.engine.settings import Settings
from ketch.engine.store import Store
from ketch.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)
from ketch.linux import rtnetlink
from ketch.network import bridge as bridges
from ketch.network import definition, firewall, ipam, parent, turns
from ketch.network.bridge import Bridge
from ketch.network.parent import Parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ketch.linux.nftables import Transaction
    from ketch.network.ports import Port

# Docker's names, which users know, and its drivers behind them.
BRIDGE = "bridge"
HOST = "host"
NONE = "none"
_BUILT_IN = {BRIDGE: "bridge", HOST: "host", NONE: "null"}

_DEFAULT_ROOT = "/var/lib/ketch"
_SHORT_ID_LENGTH = 12
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
        return self.name in _BUILT_IN

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

    def link(self) -> "Bridge | Parent":
        """What its containers' links are made on."""
        options = self.options
        mtu_bytes = int(options.get(definition.MTU, "0"))
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
                kept=bool(self.record.get("kept")),
                routed=[version for version, mode in modes.items() if mode == "routed"],
                unprotected=[v for v, mode in modes.items() if mode == "nat-unprotected"],
                sources=[ip_address(text) for text in sources],
                mac=ipam.mac_of(first.gateway or first.subnet.network_address),
            )
        mode = "macvlan_mode" if self.driver == "macvlan" else "ipvlan_mode"
        return Parent(
            self.driver,
            self.bridge,
            options.get(mode) or ("bridge" if self.driver == "macvlan" else "l2"),
            flag=options.get("ipvlan_flag") or "bridge",
            mtu_bytes=mtu_bytes,
            dummy="parent" not in options,
        )

    def own_address(self, version: int) -> bool:
        """Whether the host has an address of an IP version on its bridge."""
        if version == 4 and definition.truth(self.options, definition.INHIBIT_IPV4, False):
            return False
        return self.mode(version) != "isolated"


class Networks:
    """Networks of one engine.

    Args:
        settings: the engine's places.
        store: its database.
    """

    __slots__ = ("_settings", "_store")

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store

    def find(self, name: str) -> Network:
        """A network by its name, id or unique start of an id; ``default`` is ``bridge``.

        Raises:
            NotFoundError: there is none.
            InvalidArgumentError: the start fits several.
        """
        name = BRIDGE if name == "default" else name
        with self._store.reading() as connection:
            network = select(connection, name)
        if network is None and name in _BUILT_IN:
            with self._store.transaction() as connection:
                network = self.built_in(connection, name)
        if network is None:
            raise not_found(name)
        return network

    def every(self) -> list[Network]:
        """Every network, by name."""
        with self._store.reading() as connection:
            found = _every(connection)
        if len({network.name for network in found} & set(_BUILT_IN)) < len(_BUILT_IN):
            with self._store.transaction() as connection:
                for name in _BUILT_IN:
                    self.built_in(connection, name)
                found = _every(connection)
        return found

    def create(self, document: "Mapping[str, Any]") -> "tuple[Network, list[str]]":
        """Make a network, with what the kernel has of it.

        Args:
            document: the API's ``NetworkCreate`` request.

        Returns:
            The network, and warnings for the user.

        Raises:
            InvalidArgumentError: something in the request cannot be.
            AlreadyExistsError: the name is taken.
            ConflictError: a subnet or a link is in another use.
            UnavailableError: the address pools are used up.
        """
        definition.check(document)
        document = self._resolved(document)
        with rtnetlink.Socket() as host, contextlib.ExitStack() as turn:
            with self._store.transaction() as connection:
                turn.enter_context(turns.turn())  # after the database's, as in ``in_place``
                # It has the first choice of subnets, whenever it is first used.
                self.built_in(connection, BRIDGE)
                network = self._insert(connection, document, host)
            if not document.get("ConfigOnly"):
                try:
                    self._make(network, host)
                except BaseException:
                    turn.close()
                    with self._store.transaction() as connection:
                        _delete(connection, network)
                    raise
        with self._store.transaction() as connection:
            _event(connection, "create", network)
        return network, []

    def remove(self, name: str) -> Network:
        """Remove a network, with what the kernel has of it.

        Raises:
            NotFoundError: there is none.
            PermissionDeniedError: it is one of those that are always there.
            ConflictError: running containers are on it, or networks are made from it.
        """
        network = self.find(name)
        if network.is_built_in:
            raise PermissionDeniedError(
                f"{network.name} is a pre-defined network and cannot be removed"
            )
        with self._store.transaction() as connection:
            members = connection.execute(
                "SELECT endpoint.id, name FROM endpoint JOIN container "
                "ON container.id = container_id WHERE network_id = ? AND endpoint.id != ''",
                (network.id,),
            ).fetchall()
            if members:
                listed = ", ".join(f'name:"{row["name"]}" id:"{row["id"][:12]}"' for row in members)
                raise ConflictError(
                    f"error while removing network: network {network.name} has active "
                    f"endpoints ({listed})",
                    "stop these containers or disconnect them first",
                )
            users = [
                one.name for one in _every(connection)
                if one.record.get("ConfigFrom", {}).get("Network") == network.name
            ]  # fmt: skip
            if users and network.record.get("ConfigOnly"):
                raise ConflictError(
                    f"configuration network {network.name} is in use by {', '.join(users)}"
                )
            _delete(connection, network)
            _event(connection, "destroy", network)
        self._unmake(network)
        return network

    def _resolved(self, document: "Mapping[str, Any]") -> "Mapping[str, Any]":
        """A request with what another network's configuration gives to it."""
        source = document.get("ConfigFrom", {}).get("Network", "")
        if not source:
            return document
        given = self.find(source)
        if not given.record.get("ConfigOnly"):
            raise PermissionDeniedError(
                f"cannot use network {given.name} as a configuration network",
                "make it with --config-only",
            )
        if document.get("Options") or document.get("Labels") or document.get("IPAM", {}).get(
            "Config"
        ):  # fmt: skip
            raise PermissionDeniedError(
                "user supplied configurations are not supported if the network depends on "
                "a configuration network"
            )
        taken = ("Options", "Labels", "IPAM", "EnableIPv4", "EnableIPv6", "asked")
        merged = {**document, **{key: given.record[key] for key in taken if key in given.record}}
        merged["IPAM"] = {**merged.get("IPAM", {}), "Config": given.record.get("asked") or []}
        merged["ConfigFrom"] = {"Network": given.name}
        return merged

    def _insert(
        self, connection: sqlite3.Connection, document: "Mapping[str, Any]", host: rtnetlink.Socket
    ) -> Network:
        name, driver = document["Name"], document.get("Driver") or "bridge"
        if connection.execute("SELECT 1 FROM network WHERE name = ?", (name,)).fetchone():
            raise AlreadyExistsError(f"network with name {name} already exists")
        network_id = os.urandom(32).hex()
        options: dict[str, str] = dict(document.get("Options") or {})
        config_only = bool(document.get("ConfigOnly"))
        link, kept = "", False
        if driver == "bridge" and not config_only:
            link = options.get(definition.NAME) or f"{firewall.BRIDGE_PREFIX}{network_id[:10]}"
            _check_bridge(connection, link)
            kept = host.link(link) is not None
        elif not config_only:
            link = options.get("parent") or f"dm-{network_id[:12]}"
            _check_parent(connection, driver, link, options)
        ipam_asked = document.get("IPAM") or {}
        record: dict[str, Any] = {
            "created_ns": time.time_ns(),
            "kept": kept,
            "asked": ipam_asked.get("Config") or [],
            "Scope": "local",
            "EnableIPv4": document.get("EnableIPv4") is not False,
            "EnableIPv6": bool(document.get("EnableIPv6")),
            "IPAM": {"Driver": ipam_asked.get("Driver") or "default", "Options": {}},
            "Internal": bool(document.get("Internal"))
            or (driver != "bridge" and "parent" not in options),
            "Attachable": bool(document.get("Attachable")),
            "ConfigFrom": document.get("ConfigFrom") or {"Network": ""},
            "ConfigOnly": config_only,
            "Options": options,
            "Labels": dict(document.get("Labels") or {}),
        }
        connection.execute(
            "INSERT INTO network (id, name, driver, bridge, record) VALUES (?, ?, ?, ?, ?)",
            (network_id, name, driver, link, json.dumps(record)),
        )
        if not config_only:
            self._insert_subnets(connection, network_id, record, driver, host)
        network = select(connection, network_id)
        assert network is not None
        return network

    def _insert_subnets(
        self,
        connection: sqlite3.Connection,
        network_id: str,
        record: "dict[str, Any]",
        driver: str,
        host: rtnetlink.Socket,
    ) -> None:
        if record["IPAM"]["Driver"] == "null":
            return
        asked = [dict(entry) for entry in record["asked"]]
        versions = {ip_network(entry["Subnet"]).version for entry in asked}
        for version, wanted in ((4, record["EnableIPv4"]), (6, record["EnableIPv6"])):
            if wanted and version not in versions:
                chosen = self.free_subnet(connection, version)
                asked.append({"Subnet": str(chosen), "chosen": True})
        if not record["EnableIPv4"]:
            if not record["EnableIPv6"]:
                raise InvalidArgumentError("IPv4 or IPv6 must be enabled")
            asked = [entry for entry in asked if ip_network(entry["Subnet"]).version == 6]
        asked.sort(key=lambda entry: ip_network(entry["Subnet"]).version)
        every = [
            (other, subnet.subnet) for other in _every(connection) for subnet in other.subnets
            if other.driver == "bridge" or driver != "bridge"
        ]  # fmt: skip
        for position, entry in enumerate(asked):
            subnet = ip_network(entry["Subnet"])
            for other, taken in every:
                if other.id != network_id and ipam.overlap(subnet, taken):
                    raise ConflictError(
                        "invalid pool request: Pool overlaps with other one on this address space",
                        f"{subnet} overlaps {taken} of network {other.name}",
                    )
            if driver == "bridge" and not entry.get("chosen"):
                _check_routes(subnet, host, record)
            gateway = entry.get("Gateway", "")
            if not gateway and not (driver != "bridge" and record["Internal"]):
                ip_range = entry.get("IPRange")
                reserved = {
                    ip_address(one) for one in (entry.get("AuxiliaryAddresses") or {}).values()
                }
                gateway = str(
                    ipam.gateway_of(
                        subnet, ip_network(ip_range, strict=False) if ip_range else None, reserved
                    )
                )
            connection.execute(
                "INSERT INTO subnet (network_id, position, subnet, gateway, ip_range, auxiliary,"
                " chosen) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (network_id, position, str(subnet), gateway, entry.get("IPRange", ""),
                 json.dumps(entry.get("AuxiliaryAddresses") or {}), bool(entry.get("chosen"))),
            )  # fmt: skip

    def _make(self, network: Network, host: rtnetlink.Socket) -> None:
        link = network.link()
        if isinstance(link, Bridge):
            transaction = self.filter([link])
            try:
                bridges.ensure(host, link)
            except BaseException:
                if not network.record["kept"]:
                    bridges.delete(host, link.name)
                raise
            finally:
                if transaction is not None:
                    transaction.wait()
            return
        _, made = link.ensure(host)
        if made:
            network.record["made"] = True
            with self._store.transaction() as connection:
                save(connection, network)

    def filter(
        self, links: "Iterable[Bridge | Parent]", ports: "Iterable[Port]" = ()
    ) -> "Transaction | None":
        """Have the packet filter let packets of networks and published ports through.

        Args:
            links: of the networks; those that are no bridges need nothing.
            ports: the ports to be published from now on.

        Returns:
            None when all is there already, else a transaction to be waited for.

        Raises:
            UnavailableError: nft is not installed.
            UnsupportedError: the kernel has no nftables.
        """
        wanted = [link for link in links if isinstance(link, Bridge)]
        return firewall.ensure(wanted, ports, self._filtered) if wanted else None

    def _filtered(self) -> "tuple[list[Bridge], list[Port]]":
        """All that the packet filter is to have of this engine, by the database."""
        with self._store.reading() as connection:
            found = _every(connection)
            published = publishing.recorded(connection)
        links = [network.link() for network in found if network.subnets]
        ports = []
        for container_id, own in published.items():
            for port in own:
                port.owner = self.owner(container_id)
                ports.append(port)
        return [link for link in links if isinstance(link, Bridge) and _exists(link.name)], ports

    def owner(self, container_id: str) -> str:
        """What the packet filter says of a container's ports: which engine's, and whose."""
        return f"{default_bridge(self._settings.root)} {container_id[:_SHORT_ID_LENGTH]}"

    def _unmake(self, network: Network) -> None:
        if network.record.get("ConfigOnly"):
            return
        with rtnetlink.Socket() as host:
            if network.driver == "bridge":
                if not network.record.get("kept"):
                    bridges.delete(host, network.bridge)
                firewall.forget(network.bridge)
            elif network.record.get("made"):
                with self._store.reading() as connection:
                    if not _users(connection, network.bridge):
                        parent.delete(host, network.bridge)

    # What the default networks are

    def built_in(self, connection: sqlite3.Connection, name: str) -> Network:
        """A built-in network, recorded now if this is its first use."""
        network = select(connection, name)
        if network is not None:
            return network
        network_id = os.urandom(32).hex()
        bridge = default_bridge(self._settings.root) if name == BRIDGE else ""
        connection.execute(
            "INSERT INTO network (id, name, driver, bridge, record) VALUES (?, ?, ?, ?, ?)",
            (network_id, name, _BUILT_IN[name], bridge, json.dumps({"created_ns": time.time_ns()})),
        )
        if name == BRIDGE:
            self._set_default(connection, network_id)
        network = select(connection, name)
        assert network is not None
        return network

    def in_place(
        self, connection: sqlite3.Connection, network: Network, turn: contextlib.ExitStack
    ) -> Network:
        """The default network as it is configured now, and where no route of the host is.

        It stays as it is while it is in use.

        Args:
            connection: of the store, in a transaction.
            network: the network.
            turn: takes the turn to choose a subnet where there is no bridge, to be closed when
                there is.
        """
        if _in_use(connection, network):
            return network
        configured = network.record.get("configured", {})
        changed = configured != _default_options(self.configuration())
        if not changed and _exists(network.bridge):
            return network
        turn.enter_context(turns.turn())
        if changed or any(
            subnet.chosen and ipam.overlap(subnet.subnet, taken)
            for taken in _destinations()
            for subnet in network.subnets
        ):
            self._set_default(connection, network.id)
        return self.built_in(connection, network.name)

    def configuration(self) -> "dict[str, Any]":
        """What the engine's configuration file says; see docs/networking.md.

        Raises:
            InvalidArgumentError: it is not a JSON object, or has a key that nobody knows.
        """
        path = self._settings.configuration_path
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise InvalidArgumentError(f"{path}: {error}", "mend it; it is JSON") from error
        unknown = sorted(set(found) - _CONFIGURATION) if isinstance(found, dict) else ["?"]
        if unknown:
            raise InvalidArgumentError(
                f"{path}: unknown key {unknown[0]}",
                f"known are {', '.join(sorted(_CONFIGURATION))}",
            )
        settings: dict[str, Any] = found
        return settings

    def _set_default(self, connection: sqlite3.Connection, network_id: str) -> None:
        """Give the default network its options and subnets."""
        configuration = self.configuration()
        configured = _default_options(configuration)
        row = connection.execute("SELECT record FROM network WHERE id = ?", (network_id,))
        record = json.loads(row.fetchone()["record"])
        record["configured"] = configured
        record["EnableIPv6"] = bool(configuration.get("ipv6"))
        record["Options"] = {
            definition.DEFAULT_BRIDGE: "true",
            definition.ICC: _text(configuration.get("icc", True)),
            definition.MASQUERADE: _text(configuration.get("ip-masq", True)),
            definition.HOST_BINDING: configuration.get("ip", "0.0.0.0"),
            definition.MTU: str(configuration.get("mtu") or bridges.DEFAULT_MTU_BYTES),
        }
        connection.execute("DELETE FROM subnet WHERE network_id = ?", (network_id,))
        own = configuration.get("bip")
        try:
            subnets = [
                (str(ip_interface(own).network), str(ip_interface(own).ip), False)
                if own
                else self._chosen(connection, 4)
            ]
            if configuration.get("ipv6"):
                fixed = configuration.get("fixed-cidr-v6")
                subnets.append(
                    (fixed, str(ipam.gateway_of(ip_network(fixed))), False)
                    if fixed
                    else self._chosen(connection, 6)
                )
            definition.check_options("bridge", record["Options"])
        except ValueError as error:
            raise InvalidArgumentError(f"{self._settings.configuration_path}: {error}") from error
        for position, (subnet, gateway, chosen) in enumerate(subnets):
            ip_range = configuration.get("fixed-cidr", "") if position == 0 else ""
            connection.execute(
                "INSERT INTO subnet (network_id, position, subnet, gateway, ip_range, chosen)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (network_id, position, subnet, gateway, ip_range, chosen),
            )
        connection.execute(
            "UPDATE network SET record = ? WHERE id = ?", (json.dumps(record), network_id)
        )

    def _chosen(self, connection: sqlite3.Connection, version: int) -> tuple[str, str, bool]:
        subnet = self.free_subnet(connection, version)
        return str(subnet), str(ipam.gateway_of(subnet)), True

    def free_subnet(self, connection: sqlite3.Connection, version: int) -> ipam.Network:
        """A subnet of the address pools that neither the host nor another network uses."""
        rows = connection.execute("SELECT subnet FROM subnet")
        recorded = [ip_network(row["subnet"]) for row in rows]
        configured = self.configuration().get("default-address-pools") or []
        pools = [ipam.Pool(entry["base"], int(entry["size"])) for entry in configured]
        pools = [pool for pool in pools if pool.base.version == version]
        if not pools and version == 6:
            seed = zlib.crc32(os.fsencode(self._settings.root)).to_bytes(4, "big")
            pools = [*ipam.pools_ipv6(_machine_id()[:1] + seed)]
        return ipam.choose_subnet(pools or ipam.DEFAULT_POOLS, [*_destinations(version), *recorded])


def default_bridge(root: str) -> str:
    """Name of the default network's bridge: ``ketch0``, or another for each other ``--root``.

    Engines with other roots, of tests or CI runs, know nothing of each other's networks and so
    must not share a link.
    """
    if root == _DEFAULT_ROOT:
        return f"{firewall.BRIDGE_PREFIX}0"
    return f"{firewall.BRIDGE_PREFIX}{zlib.crc32(os.fsencode(root)):08x}"


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


def save(connection: sqlite3.Connection, network: Network) -> None:
    """Record what has changed of a network's record."""
    connection.execute(
        "UPDATE network SET record = ? WHERE id = ?", (json.dumps(network.record), network.id)
    )


def not_found(name: str) -> NotFoundError:
    """The error that there is no such network."""
    return NotFoundError(f"network {name} not found", "`ketch network ls` lists those there are")


# What the configuration file may say, under the names that Docker's daemon has for it.
_CONFIGURATION = frozenset(
    {"bip", "default-address-pools", "fixed-cidr", "fixed-cidr-v6", "icc", "ip", "ip-masq",
     "ipv6", "mtu"}
)  # fmt: skip


def _default_options(configuration: "dict[str, Any]") -> "dict[str, Any]":
    return {key: value for key, value in configuration.items() if key != "default-address-pools"}


def _text(value: object) -> str:
    return "true" if value else "false"


def _every(connection: sqlite3.Connection) -> list[Network]:
    subnets: dict[str, list[sqlite3.Row]] = {}
    for row in connection.execute("SELECT * FROM subnet ORDER BY network_id, position"):
        subnets.setdefault(row["network_id"], []).append(row)
    rows = connection.execute("SELECT * FROM network ORDER BY name").fetchall()
    return [Network(row, subnets.get(row["id"], ())) for row in rows]


def _delete(connection: sqlite3.Connection, network: Network) -> None:
    connection.execute("DELETE FROM network WHERE id = ?", (network.id,))
    connection.execute("DELETE FROM subnet WHERE network_id = ?", (network.id,))
    connection.execute("DELETE FROM lease WHERE network_id = ?", (network.id,))


def _event(connection: sqlite3.Connection, action: str, network: Network) -> None:
    attributes = {"name": network.name, "type": network.driver}
    events.record(connection, "network", action, network.id, attributes)


def _users(connection: sqlite3.Connection, link: str) -> list[str]:
    query = "SELECT name FROM network WHERE bridge = ?"
    return [row["name"] for row in connection.execute(query, (link,))]


def _check_bridge(connection: sqlite3.Connection, link: str) -> None:
    users = _users(connection, link)
    if users:
        raise ConflictError(f"bridge {link} is already used by network {users[0]}")


def _check_parent(
    connection: sqlite3.Connection, driver: str, link: str, options: "dict[str, str]"
) -> None:
    mode = f"{driver}_mode"
    for other in _every(connection):
        if other.bridge != link:
            continue
        same = other.driver == driver and other.options.get(mode) == options.get(mode)
        if not same or driver == "macvlan":
            raise ConflictError(
                f"network {other.name} is already using parent interface {link}",
                "make a VLAN's link for each network: -o parent=LINK.NUMBER",
            )


def _check_routes(subnet: ipam.Network, host: rtnetlink.Socket, record: "dict[str, Any]") -> None:
    """Refuse a subnet that the host itself is on, which would cut it off from there."""
    if record["kept"]:
        return
    for route in host.routes(subnet.version):
        on_link = route.gateway is None and route.kind == rtnetlink.RTN_UNICAST
        if (
            on_link
            and route.table == rtnetlink.RT_TABLE_MAIN
            and route.destination.prefixlen
            and not route.destination.is_link_local
            and ipam.overlap(subnet, route.destination)
        ):
            raise ConflictError(
                f"cannot create network: subnet {subnet} overlaps {route.destination}, "
                "which a link of this host is on",
                "choose another --subnet",
            )


def _in_use(connection: sqlite3.Connection, network: Network) -> bool:
    query = "SELECT 1 FROM lease WHERE network_id = ? LIMIT 1"
    return connection.execute(query, (network.id,)).fetchone() is not None


def _destinations(version: int = 4) -> list[ipam.Network]:
    """Where the host's routes lead, but for the default ones, which lead everywhere."""
    with rtnetlink.Socket() as host:
        return [
            route.destination for route in host.routes(version) if route.destination.prefixlen > 8
            or (route.destination.prefixlen and version == 4)
        ]  # fmt: skip


def _machine_id() -> bytes:
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            return zlib.crc32(file.read().strip().encode()).to_bytes(4, "big")
    except OSError:
        return b"\0\0\0\0"


def _exists(link: str) -> bool:
    try:
        _socket.if_nametoindex(link)
    except OSError:
        return False
    return True
