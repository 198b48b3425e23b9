"""The engine's networks: which there are, and how they are made and unmade.

Facts that must be unique (names, subnets) are rows of the database, changed in transactions. What
the kernel has of a network is the matter of ``ketch.engine.networks.kernel``; who is on it, of
``ketch.engine.networks.endpoints``.
"""

import contextlib
import json
import os
import sqlite3
import time
from ipaddress import ip_address, ip_network

from ketch.engine.networks import kernel, pools, reclaiming, records, telling
from ketch.engine.networks.default import built_in, mtu_bytes
from ketch.engine.networks.records import BRIDGE, BUILT_IN, Network, not_found, select
from ketch.engine.records import events
from ketch.engine.records.store import Store
from ketch.engine.settings import Settings
from ketch.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    PermissionDeniedError,
)
from ketch.linux import rtnetlink
from ketch.network import definition, forward_policy, ipam, turns
from ketch.network import telling as network_telling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


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
        if network is None and name in BUILT_IN:
            with self._store.transaction() as connection:
                network = built_in(connection, self._settings, name)
        if network is None:
            raise not_found(name)
        return network

    def every(self) -> list[Network]:
        """Every network, by name."""
        with self._store.reading() as connection:
            found = records.every(connection)
        if len({network.name for network in found} & set(BUILT_IN)) < len(BUILT_IN):
            with self._store.transaction() as connection:
                for name in BUILT_IN:
                    built_in(connection, self._settings, name)
                found = records.every(connection)
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
            with self._store.transaction(begins=True) as connection:
                turn.enter_context(turns.turn())  # after the database's, as in ``in_place``
                gone = reclaiming.reclaim()
                # It has the first choice of subnets, whenever it is first used.
                built_in(connection, self._settings, BRIDGE)
                network = self._insert(connection, document, host)
            for name in gone:
                self._settings.tell(network_telling.of_bridge_removal, name)
            self._settings.tell(telling.of_record, network)
            if not document.get("ConfigOnly"):
                try:
                    kernel.make(self._settings, self._store, network, host)
                except BaseException:
                    turn.close()
                    with self._store.transaction() as connection:
                        records.delete(connection, network)
                    raise
        with self._store.transaction() as connection:
            _event(connection, "create", network)
        return network, []

    def remove(self, name: str) -> Network:
        """Remove a network, with what the kernel has of it.

        Raises:
            NotFoundError: there is none.
            PermissionDeniedError: it is one of those that are always there.
            ConflictError: running containers or a build are on it, or networks are made from it.
        """
        network = self.find(name)
        if network.is_built_in:
            raise PermissionDeniedError(
                f"{network.name} is a pre-defined network and cannot be removed"
            )
        from ketch.engine.networks import sandboxes  # noqa: PLC0415 not for a container's start

        sandboxes.clean(self._settings, self._store)
        with self._store.transaction() as connection:
            members = connection.execute(
                "SELECT endpoint.id, coalesce(name, 'build') AS name FROM endpoint "
                "LEFT JOIN container "
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
                one.name for one in records.every(connection)
                if one.record.get("ConfigFrom", {}).get("Network") == network.name
            ]  # fmt: skip
            if users and network.record.get("ConfigOnly"):
                raise ConflictError(
                    f"configuration network {network.name} is in use by {', '.join(users)}"
                )
            records.delete(connection, network)
            _event(connection, "destroy", network)
        self._settings.tell(telling.of_removal, network)
        kernel.unmake(self._settings, self._store, network)
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
            own = f"{forward_policy.BRIDGE_PREFIX}{network_id[:10]}"
            link = options.get(definition.NAME) or own
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
        if driver == "bridge":
            record["mtu_bytes"] = mtu_bytes(self._settings)
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
        every = [
            (other, subnet.subnet)
            for other in records.every(connection)
            for subnet in other.subnets
            if other.driver == "bridge" or driver != "bridge"
        ]
        for position, entry in enumerate(self._completed(connection, record)):
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
            if not gateway and (driver == "bridge" or not record["Internal"]):
                gateway = str(_gateway(entry))
            connection.execute(
                "INSERT INTO subnet (network_id, position, subnet, gateway, ip_range, auxiliary,"
                " chosen) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (network_id, position, str(subnet), gateway, entry.get("IPRange", ""),
                 json.dumps(entry.get("AuxiliaryAddresses") or {}), bool(entry.get("chosen"))),
            )  # fmt: skip

    def _completed(
        self, connection: sqlite3.Connection, record: "dict[str, Any]"
    ) -> "list[dict[str, Any]]":
        """The subnets that are asked for, and one of the pools for each IP version without any."""
        asked = [dict(entry) for entry in record["asked"]]
        versions = {ip_network(entry["Subnet"]).version for entry in asked}
        for version, wanted in ((4, record["EnableIPv4"]), (6, record["EnableIPv6"])):
            if wanted and version not in versions:
                chosen = pools.free_subnet(connection, self._settings, version)
                asked.append({"Subnet": str(chosen), "chosen": True})
        if not record["EnableIPv4"]:
            if not record["EnableIPv6"]:
                raise InvalidArgumentError("IPv4 or IPv6 must be enabled")
            asked = [entry for entry in asked if ip_network(entry["Subnet"]).version == 6]
        return sorted(asked, key=lambda entry: ip_network(entry["Subnet"]).version)


def _gateway(entry: "Mapping[str, Any]") -> ipam.Address:
    """The gateway of a subnet that is asked for without one."""
    ip_range = entry.get("IPRange")
    return ipam.gateway_of(
        ip_network(entry["Subnet"]),
        ip_network(ip_range, strict=False) if ip_range else None,
        {ip_address(one) for one in (entry.get("AuxiliaryAddresses") or {}).values()},
    )


def _event(connection: sqlite3.Connection, action: str, network: Network) -> None:
    attributes = {"name": network.name, "type": network.driver}
    events.record(connection, "network", action, network.id, attributes)


def _check_bridge(connection: sqlite3.Connection, link: str) -> None:
    users = records.users(connection, link)
    if users:
        raise ConflictError(f"bridge {link} is already used by network {users[0]}")


def _check_parent(
    connection: sqlite3.Connection, driver: str, link: str, options: "dict[str, str]"
) -> None:
    mode = f"{driver}_mode"
    for other in records.every(connection):
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
