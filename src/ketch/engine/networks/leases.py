"""Addresses on lease: which container has which, and since when it no longer has.

Leases are rows of the database, taken and given back in transactions. They end with the container's
run, or with the host's: a reboot ends them all.
"""

import sqlite3
from collections.abc import Collection
from ipaddress import ip_address, ip_interface

from ketch.engine.networks.records import Network, Subnet
from ketch.errors import ConflictError, UnavailableError
from ketch.network import ipam
from ketch.network.sandbox import Interface


def lease(
    connection: sqlite3.Connection,
    container_id: str,
    network: Network,
    subnets: list[Subnet],
    wanted: str,
) -> Interface:
    """Lease an address: the one that is wanted, or the next that is free."""

    def leased(address: ipam.Address) -> bool:
        query = "SELECT 1 FROM lease WHERE network_id = ? AND address = ?"
        return connection.execute(query, (network.id, str(address))).fetchone() is not None

    chosen, home = None, subnets[0]
    if wanted:
        home = next((one for one in subnets if ip_address(wanted) in one.subnet), subnets[0])
        try:
            chosen = ipam.check_address(wanted, home.subnet, leased=leased, reserved=home.reserved)
        except ConflictError as error:
            raise ConflictError(
                f"Address already in use: {wanted}", _holder(connection, network, wanted)
            ) from error
    else:
        for home in subnets:
            try:
                chosen = ipam.choose_address(
                    home.subnet, leased=leased, reserved=home.reserved, ip_range=home.ip_range,
                    last=home.last,
                )  # fmt: skip
                break
            except UnavailableError:
                if home is subnets[-1]:
                    raise
    assert chosen is not None
    connection.execute(
        "INSERT INTO lease (network_id, address, container_id) VALUES (?, ?, ?)",
        (network.id, str(chosen), container_id),
    )
    if not wanted:
        connection.execute(
            "UPDATE subnet SET last_address = ? WHERE network_id = ? AND position = ?",
            (str(chosen), network.id, home.position),
        )
    return ip_interface((int(chosen), home.subnet.prefixlen)) if chosen.version == 4 else (
        ip_interface(f"{chosen}/{home.subnet.prefixlen}")
    )  # fmt: skip


def _holder(connection: sqlite3.Connection, network: Network, address: str) -> str:
    row = connection.execute(
        "SELECT name FROM lease JOIN container ON container.id = container_id "
        "WHERE network_id = ? AND address = ?",
        (network.id, address),
    ).fetchone()
    return f"container {row['name']} has it" if row else "it is the network's own"


def give_back(connection: sqlite3.Connection, container_id: str) -> None:
    """End all that a container has of networks while it runs: addresses, ports, links."""
    connection.execute("DELETE FROM lease WHERE container_id = ?", (container_id,))
    connection.execute("DELETE FROM port WHERE container_id = ?", (container_id,))
    connection.execute(
        "UPDATE endpoint SET id = '', ipv4 = '', ipv6 = '', mac = '', interface = '', gateway = 0 "
        "WHERE container_id = ?",
        (container_id,),
    )


def reclaim(connection: sqlite3.Connection, alive: Collection[str]) -> None:
    """Give back what all containers but these hold; sandboxes on record keep what they have."""
    holders = {
        row[0] for table in ("lease", "port")
        for row in connection.execute(f"SELECT DISTINCT container_id FROM {table}")
    }  # fmt: skip
    query = "SELECT DISTINCT container_id FROM endpoint WHERE id != ''"
    holders |= {row[0] for row in connection.execute(query)}
    sandboxes = {row[0] for row in connection.execute("SELECT id FROM sandbox")}
    for container_id in holders - sandboxes - set(alive):
        give_back(connection, container_id)


def notice_reboot(connection: sqlite3.Connection, boot_id: str) -> None:
    """Give back what was leased before the last reboot: its holders are no more."""
    row = connection.execute("SELECT id FROM boot").fetchone()
    if row is not None and row["id"] == boot_id:
        return
    connection.execute("DELETE FROM endpoint WHERE container_id IN (SELECT id FROM sandbox)")
    connection.execute("DELETE FROM sandbox")
    reclaim(connection, ())
    connection.execute("DELETE FROM boot")
    connection.execute("INSERT INTO boot (id) VALUES (?)", (boot_id,))
