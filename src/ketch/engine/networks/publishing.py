"""Which port of the host leads to which port of a container.

The database says which ports of this engine's containers are published; that nobody else of the
host has one is found out by binding it, which also keeps it.
"""

import contextlib
import os
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from ipaddress import ip_address

from ketch.errors import ConflictError, InvalidArgumentError, UnavailableError
from ketch.linux import conntrack, rtnetlink
from ketch.network import ipam
from ketch.network.ports import NUMBERS, Port
from ketch.network.uplink.outside import RefusedError
from ketch.spec import ports as grammar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.networks.uplinks import Uplink

    Held = tuple[str, str, int, int]

_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"
_EPHEMERAL_DEFAULT = (49153, 65535)
_EVERYWHERE = {4: "0.0.0.0", 6: "::"}


class Asked:
    """A port that a container publishes, as asked for.

    Args:
        protocol: ``tcp``, ``udp`` or ``sctp``.
        port: the container's.
        address: the host's, or empty for the default.
        first: lowest of the host's ports to choose from; 0 for any.
        last: highest of them.
    """

    __slots__ = ("address", "first", "last", "port", "protocol")

    def __init__(self, protocol: str, port: int, address: str, first: int, last: int) -> None:
        self.protocol = protocol
        self.port = port
        self.address = address
        self.first = first
        self.last = last


class Way:
    """How packets from outside come to a container in one IP version.

    Args:
        address: the container's.
        routed: whether they come without address translation.
        default: the host's address where none is asked for; every one where empty.
    """

    __slots__ = ("address", "default", "routed")

    def __init__(self, address: ipam.Address, *, routed: bool, default: str) -> None:
        self.address = address
        self.routed = routed
        self.default = default


def asked(record: "Mapping[str, Any]") -> list[Asked]:
    """The ports that a container's request publishes: ``PortBindings``, ``PublishAllPorts``.

    Raises:
        InvalidArgumentError: one of them is malformed.
    """
    host: Mapping[str, Any] = record["HostConfig"]
    found = []
    bound = host.get("PortBindings") or {}
    everything = dict(bound)
    if host.get("PublishAllPorts"):
        for text in record["Config"].get("ExposedPorts") or ():
            everything.setdefault(text, [{}])
    for text in sorted(everything, key=lambda one: grammar.parse(one)[::-1]):
        port, protocol = grammar.parse(text)
        for entry in everything[text] or [{}]:
            first, last = grammar.host_range(entry.get("HostPort") or "")
            address = entry.get("HostIp") or host.get("PublishDefaultIp") or ""
            found.append(Asked(protocol, port, address, first, last))
    # Those that leave no choice come first.
    return sorted(found, key=lambda one: not one.first or one.first != one.last)


def choose(
    connection: sqlite3.Connection,
    container_id: str,
    wanted: Sequence[Asked],
    ways: Mapping[int, Way],
    owner: str,
    ports: list[Port],
    taken: list[int],
    uplink: "Uplink",
    held: "Collection[Held]" = (),
) -> None:
    """Choose and take the host's ports.

    Args:
        connection: of the store, in a transaction.
        container_id: the container's.
        wanted: what is asked for.
        ways: by IP version; without any, nothing is published.
        owner: whose the ports are, for whoever looks at the packet filter.
        ports: takes the published ports.
        taken: takes descriptors of the sockets that keep them.
        uplink: where they are taken.
        held: what the container has already, from ``held``.

    Raises:
        ConflictError: a port is somebody else's.
        InvalidArgumentError: a port cannot be published on that address.
        UnavailableError: no port is free.
    """
    for one in wanted:
        if not ways:
            return
        places = _places(one, ways)
        if all(way.routed for _, way in places):
            for text, way in places:
                port = Port(one.protocol, ip_address(text), 0, way.address, one.port,
                            owner=owner, routed=True)  # fmt: skip
                ports.append(port)
                _record(connection, container_id, port)
            continue
        addresses = [(ip_address(text), way) for text, way in places if not way.routed]
        number, sockets = _take(
            connection, one, [address for address, _ in addresses], uplink, held
        )
        taken += sockets
        for address, way in addresses:
            port = Port(one.protocol, address, number, way.address, one.port, owner=owner)
            ports.append(port)
            _record(connection, container_id, port)


def private_ways(versions: "Collection[int]", default: str) -> dict[int, Way]:
    """How packets come to a container by a program that is its alone.

    Args:
        versions: the IP versions that the program leads out by.
        default: the host's address where none is asked for; every one where empty.
    """
    return {
        version: Way(ip_address(_EVERYWHERE[version]), routed=False, default=default)
        for version in sorted(versions)
    }


def recorded(
    connection: sqlite3.Connection, container_ids: Collection[str] | None = None
) -> dict[str, list[Port]]:
    """The published ports of containers, by container; of all, or of some."""
    where = "WHERE address != ''"
    values: tuple[str, ...] = ()
    if container_ids is not None:
        where += f" AND container_id IN ({', '.join('?' * len(container_ids))})"
        values = tuple(container_ids)
    rows = connection.execute(
        f"SELECT * FROM port {where} ORDER BY container_port, protocol, host_port, "
        "length(host_address) DESC, host_address",
        values,
    )
    found: dict[str, list[Port]] = {}
    for row in rows:
        port = Port(
            row["protocol"], ip_address(row["host_address"]), row["host_port"],
            ip_address(row["address"]), row["container_port"], routed=bool(row["routed"]),
        )  # fmt: skip
        found.setdefault(row["container_id"], []).append(port)
    return found


def held(connection: sqlite3.Connection, container_id: str) -> "set[Held]":
    """What a container has: protocol, the host's address and port, the container's port."""
    query = (
        "SELECT protocol, host_address, host_port, container_port FROM port "
        "WHERE container_id = ? AND NOT routed"
    )
    return {tuple(row) for row in connection.execute(query, (container_id,))}


def reserve(connection: sqlite3.Connection, container_id: str, kept: "Collection[Held]") -> None:
    """Keep what a running container had and now leads nowhere: its monitor goes on holding it."""
    connection.executemany(
        "INSERT OR IGNORE INTO port (protocol, host_address, host_port, container_id, address, "
        "container_port) VALUES (?, ?, ?, ?, '', ?)",
        [
            (protocol, address, number, container_id, port)
            for protocol, address, number, port in kept
        ],
    )


def settle(ports: "Sequence[Port]") -> None:
    """Have ports that are published from now on lead to their containers for everybody.

    Who has sent datagrams to one before is known as a connection to the host, or to whoever had
    the port then, and would be for as long as it goes on sending.

    Raises:
        OSError: the kernel refused.
    """
    stale: dict[tuple[str, int], dict[int, set[ipam.Address]]] = {}
    for port in ports:
        if not port.routed and port.protocol != "tcp":  # there, a new beginning shows as one
            places = stale.setdefault((port.protocol, port.host_address.version), {})
            places.setdefault(port.host_port, set()).add(port.host_address)
    for (protocol, version), places in stale.items():
        with rtnetlink.Socket() as host:
            every = host.routes(version)
        own = [route.destination for route in every if route.kind == rtnetlink.RTN_LOCAL]
        conntrack.forget_ports(
            NUMBERS[protocol], places.keys(), version, partial(_is_meant, places, own)
        )


def _is_meant(
    places: "Mapping[int, set[ipam.Address]]",
    own: "Sequence[ipam.Network]",
    address: ipam.Address,
    number: int,
) -> bool:
    """Whether an address and a port of a packet are among those that are published."""
    asked = places.get(number, set())
    everywhere = any(one.is_unspecified for one in asked)
    return address in asked or (everywhere and any(address in network for network in own))


def let_go(taken: list[int]) -> None:
    """Close the sockets that keep ports."""
    while taken:
        with contextlib.suppress(OSError):
            os.close(taken.pop())


def _places(one: Asked, ways: Mapping[int, Way]) -> list[tuple[str, Way]]:
    """The host's addresses on which a port is published, each with the way in."""
    if one.address:
        version = ip_address(one.address).version
        if version not in ways:
            raise InvalidArgumentError(
                f"port {one.port}/{one.protocol} cannot be published on {one.address}: the "
                f"container has no IPv{version} address",
                "make its network with --ipv6" if version == 6 else "publish it on an IPv6 address",
            )
        return [(one.address, ways[version])]
    default = ways[4].default if 4 in ways else ""
    if default and not ip_address(default).is_unspecified:
        return [(default, ways[4])]
    return [(_EVERYWHERE[version], way) for version, way in ways.items()]


def _take(
    connection: sqlite3.Connection,
    one: Asked,
    addresses: "list[ipam.Address]",
    uplink: "Uplink",
    kept: "Collection[Held]",
) -> tuple[int, list[int]]:
    """Take a port on all of some addresses."""
    if one.first:
        candidates = range(one.first, one.last + 1)
    else:
        first, last = _ephemeral()
        start = first + int.from_bytes(os.urandom(4), "big") % (last - first + 1)
        candidates = [*range(start, last + 1), *range(first, start)]  # type: ignore[assignment]
    for protocol, _, number, port in kept:
        # What the container has already it keeps.
        if (protocol, port) == (one.protocol, one.port) and number in candidates:
            candidates = [number]  # type: ignore[assignment]
    has = {(protocol, address, number) for protocol, address, number, _ in kept}
    problem: ConflictError | None = None
    for number in candidates:
        sockets: list[int] = []
        try:
            for address in addresses:
                if (one.protocol, str(address), number) in has:
                    continue
                _check_free(connection, one.protocol, address, number)
                descriptor = uplink.bind(one.protocol, address, number)
                if descriptor is not None:
                    sockets.append(descriptor)
        except ConflictError as error:
            let_go(sockets)
            problem = error
        except RefusedError as error:
            let_go(sockets)
            problem = _refused(one, address, number, error)
        except BaseException:
            let_go(sockets)
            raise
        else:
            return number, sockets
    assert problem is not None
    if one.first == one.last and one.first:
        raise problem
    raise UnavailableError(
        f"no port is free in {candidates[0]}-{candidates[-1]} for {one.port}/{one.protocol}: "
        f"{problem.message}" if one.first else "all ports are allocated",
        "publish on other ports",
    )  # fmt: skip


def _check_free(
    connection: sqlite3.Connection, protocol: str, address: "ipam.Address", number: int
) -> None:
    """Refuse a port that another container has on that address, or on every one."""
    rows = connection.execute(
        "SELECT host_address, container_id, name FROM port LEFT JOIN container "
        "ON container.id = container_id WHERE protocol = ? AND host_port = ? AND NOT routed",
        (protocol, number),
    )
    for row in rows:
        other = ip_address(row["host_address"])
        if other.version == address.version and (
            other == address or other.is_unspecified or address.is_unspecified
        ):
            place = f"{bracketed(address)}:{number}"
            raise ConflictError(
                f"Bind for {place} failed: port is already allocated",
                f"container {row['name'] or row['container_id'][:12]} has it",
            )


def _refused(
    one: Asked, address: "ipam.Address", number: int, error: RefusedError
) -> ConflictError:
    place = f"{bracketed(address)}:{number}/{one.protocol}"
    reason = (error.strerror or "").lower()
    return ConflictError(f"failed to bind host port for {place}: {reason}", error.hint)


def spoken(port: Port) -> str:
    """A published port as ``ps`` shows it: ``0.0.0.0:8080->80/tcp``."""
    if port.routed:
        return f"{bracketed(port.address)}:{port.port}/{port.protocol}"
    place = f"{bracketed(port.host_address)}:{port.host_port}"
    return f"{place}->{port.port}/{port.protocol}"


def bracketed(address: "ipam.Address | str") -> str:
    """An address as it stands before a port: IPv6 in brackets."""
    return f"[{address}]" if ":" in str(address) else str(address)


def _record(connection: sqlite3.Connection, container_id: str, port: Port) -> None:
    connection.execute(
        "INSERT INTO port (protocol, host_address, host_port, container_id, address, "
        "container_port, routed) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (port.protocol, str(port.host_address), port.host_port, container_id, str(port.address),
         port.port, port.routed),
    )  # fmt: skip


def _ephemeral() -> tuple[int, int]:
    """Ports for those who do not care which."""
    try:
        with open(_EPHEMERAL, encoding="ascii") as file:
            first, last = (int(word) for word in file.read().split())
    except (OSError, ValueError):
        return _EPHEMERAL_DEFAULT
    return first, last
