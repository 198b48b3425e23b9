"""Address pools: which subnet a network gets that asks for none."""

import os
import sqlite3
import zlib
from ipaddress import ip_network

from ketch.engine import configuration_file
from ketch.linux import rtnetlink
from ketch.network import ipam

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings


def free_subnet(connection: sqlite3.Connection, settings: "Settings", version: int) -> ipam.Network:
    """A subnet of the address pools that neither the host nor another network uses.

    Args:
        connection: of the store, in a transaction.
        settings: the engine's places.
        version: of IP.

    Raises:
        UnavailableError: the pools are used up.
    """
    rows = connection.execute("SELECT subnet FROM subnet")
    recorded = [ip_network(row["subnet"]) for row in rows]
    configured = configuration_file.read(settings).get("default-address-pools") or []
    pools = [ipam.Pool(entry["base"], int(entry["size"])) for entry in configured]
    pools = [pool for pool in pools if pool.base.version == version]
    if not pools and version == 6:
        seed = zlib.crc32(os.fsencode(settings.root)).to_bytes(4, "big")
        pools = [*ipam.pools_ipv6(_machine_id()[:1] + seed)]
    return ipam.choose_subnet(pools or ipam.DEFAULT_POOLS, [*destinations(version), *recorded])


def destinations(version: int = 4) -> list[ipam.Network]:
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
