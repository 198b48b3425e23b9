"""The networks that are always there, and the default one's bridge, options and subnets.

They are recorded when they are first used. What the default network is like is said by the engine's
configuration file, and takes effect when no container is on it.
"""

import contextlib
import json
import os
import sqlite3
import time
import zlib
from ipaddress import ip_interface, ip_network

from ketch.engine import configuration_file
from ketch.engine.networks import pools, reclaiming
from ketch.engine.networks.records import BRIDGE, BUILT_IN, Network, select
from ketch.errors import InvalidArgumentError
from ketch.network import bridge as bridges
from ketch.network import definition, firewall, forward_policy, ipam, turns
from ketch.network.bridge import Bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.settings import Settings

_DEFAULT_ROOT = "/var/lib/ketch"


def default_bridge(root: str) -> str:
    """Name of the default network's bridge: ``ketch0``, or another for each other ``--root``.

    Engines with other roots, of tests or CI runs, know nothing of each other's networks and so
    must not share a link.
    """
    if root == _DEFAULT_ROOT:
        return f"{forward_policy.BRIDGE_PREFIX}0"
    return f"{forward_policy.BRIDGE_PREFIX}{zlib.crc32(os.fsencode(root)):08x}"


def built_in(connection: sqlite3.Connection, settings: "Settings", name: str) -> Network:
    """A built-in network, recorded now if this is its first use."""
    network = select(connection, name)
    if network is not None:
        return network
    network_id = os.urandom(32).hex()
    bridge = default_bridge(settings.root) if name == BRIDGE else ""
    connection.execute(
        "INSERT INTO network (id, name, driver, bridge, record) VALUES (?, ?, ?, ?, ?)",
        (network_id, name, BUILT_IN[name], bridge, json.dumps({"created_ns": time.time_ns()})),
    )
    if name == BRIDGE:
        _set_default(connection, settings, network_id)
    network = select(connection, name)
    assert network is not None
    return network


def in_place(
    connection: sqlite3.Connection,
    settings: "Settings",
    network: Network,
    turn: contextlib.ExitStack,
) -> Network:
    """The default network as it is configured now, and where no route of the host is.

    It stays as it is while it is in use.

    Args:
        connection: of the store, in a transaction.
        settings: the engine's places.
        network: the network.
        turn: takes the turn to choose a subnet where there is no bridge, to be closed when
            there is.
    """
    if _in_use(connection, network):
        return network
    configured = network.record.get("configured", {})
    changed = configured != _default_options(configuration_file.read(settings))
    if not changed and bridges.exists(network.bridge):
        return network
    turn.enter_context(turns.turn())
    if changed or any(
        subnet.chosen and ipam.overlap(subnet.subnet, taken)
        for taken in pools.destinations()
        for subnet in network.subnets
    ):
        link = network.link() if network.subnets else None
        if isinstance(link, Bridge):  # of which the packet filter would keep the addresses
            firewall.forget(link.name, link)
        _set_default(connection, settings, network.id)
    return built_in(connection, settings, network.name)


def mtu_bytes(settings: "Settings") -> int:
    """The largest packet of a bridge network that nobody says it of.

    A user's are as large as what leads out of them takes: cut smaller, they come faster than that
    reads them, what is lost is sent again, and pasta of 2023 gives such a connection up.
    """
    if not settings.home:
        return bridges.DEFAULT_MTU_BYTES
    from ketch.network.uplink.programs import MTU_BYTES  # noqa: PLC0415 - a user's alone

    return MTU_BYTES


def _set_default(connection: sqlite3.Connection, settings: "Settings", network_id: str) -> None:
    """Give the default network its options and subnets."""
    configuration = configuration_file.read(settings)
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
        definition.MTU: str(configuration.get("mtu") or mtu_bytes(settings)),
    }
    connection.execute("DELETE FROM subnet WHERE network_id = ?", (network_id,))
    own = configuration.get("bip")
    try:
        subnets = [
            (str(ip_interface(own).network), str(ip_interface(own).ip), False)
            if own
            else _chosen(connection, settings, 4)
        ]
        if configuration.get("ipv6"):
            fixed = configuration.get("fixed-cidr-v6")
            subnets.append(
                (fixed, str(ipam.gateway_of(ip_network(fixed))), False)
                if fixed
                else _chosen(connection, settings, 6)
            )
        definition.check_options("bridge", record["Options"])
    except ValueError as error:
        raise InvalidArgumentError(f"{settings.configuration_path}: {error}") from error
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


def _chosen(
    connection: sqlite3.Connection, settings: "Settings", version: int
) -> tuple[str, str, bool]:
    reclaiming.reclaim()
    subnet = pools.free_subnet(connection, settings, version)
    return str(subnet), str(ipam.gateway_of(subnet)), True


def _default_options(configuration: "dict[str, Any]") -> "dict[str, Any]":
    others = {"default-address-pools", "ip-forward-no-drop", "userns"}
    return {key: value for key, value in configuration.items() if key not in others}


def _in_use(connection: sqlite3.Connection, network: Network) -> bool:
    query = "SELECT 1 FROM lease WHERE network_id = ? LIMIT 1"
    return connection.execute(query, (network.id,)).fetchone() is not None


def _text(value: object) -> str:
    return "true" if value else "false"
