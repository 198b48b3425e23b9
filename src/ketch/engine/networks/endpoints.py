"""Who is on which network: endpoints, their addresses, and the ports published for them.

A container's memberships are recorded when it is made and last until it is removed or
disconnected. While it runs each has an id, addresses, a link and, on one of its networks for each
IP version, the way out. Addresses and ports are leased in the transaction that a start begins with,
and given back in the one that its end ends with; what a killed monitor or a reboot left is found by
the next command that looks. A container's fixed address (``--ip``) is leased anew at each start,
like Docker's.
"""

import json
import os
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from ipaddress import ip_address, ip_interface

from ketch.engine import events
from ketch.engine.networks import configuration_file, default, kernel, publishing, records
from ketch.engine.networks.records import Network
from ketch.engine.store import Store
from ketch.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from ketch.linux import procfs
from ketch.network import definition, ipam
from ketch.network.sandbox import Endpoint, Interface
from ketch.spec.endpoints import is_container, is_user_defined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ketch.engine.settings import Settings
    from ketch.network.ports import Port

_INTERFACE = "com.docker.network.endpoint.ifname"
_SYSCTLS = "com.docker.network.endpoint.sysctls"
_SHORT_ID_LENGTH = 12


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


class Endpoints:
    """Memberships of one engine's containers.

    Args:
        settings: the engine's places.
        store: its database.
    """

    __slots__ = ("_boot_id", "_settings", "_store")

    def __init__(self, settings: "Settings", store: Store) -> None:
        self._settings = settings
        self._store = store
        self._boot_id = procfs.boot_id()

    # What is recorded

    def of(self, container_id: str) -> list[Member]:
        """A container's memberships, in their order."""
        with self._store.reading() as connection:
            return _of(connection, container_id)

    def of_all(self, container_ids: Collection[str]) -> dict[str, list[Member]]:
        """Many containers' memberships, by container, in their order."""
        found: dict[str, list[Member]] = {}
        with self._store.reading() as connection:
            for row in connection.execute("SELECT * FROM endpoint ORDER BY container_id, position"):
                if row["container_id"] in container_ids:
                    found.setdefault(row["container_id"], []).append(Member(row))
        return found

    def on(self, network_id: str) -> list[Member]:
        """The memberships of running containers in a network."""
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM endpoint WHERE network_id = ? AND id != '' ORDER BY container_id",
                (network_id,),
            ).fetchall()
        return [Member(row) for row in rows]

    def ports(self, container_ids: Collection[str] | None = None) -> "dict[str, list[Port]]":
        """The published ports of running containers, by container; of all, or of some."""
        with self._store.reading() as connection:
            return publishing.recorded(connection, container_ids)

    def network_names(self) -> dict[str, list[str]]:
        """The names of the networks that each container is a member of."""
        found: dict[str, list[str]] = {}
        with self._store.reading() as connection:
            for row in connection.execute(
                "SELECT container_id, network_name FROM endpoint ORDER BY container_id, position"
            ):
                found.setdefault(row["container_id"], []).append(row["network_name"])
        return found

    def container_names(self, network_id: str) -> dict[str, str]:
        """Names of a network's containers, by their ids."""
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT container.id, name FROM endpoint JOIN container "
                "ON container.id = container_id WHERE network_id = ?",
                (network_id,),
            )
            return {row["id"]: row["name"] for row in rows}

    def used_networks(self) -> set[str]:
        """The ids of the networks that running containers are on."""
        with self._store.reading() as connection:
            rows = connection.execute("SELECT DISTINCT network_id FROM endpoint WHERE id != ''")
            return {row["network_id"] for row in rows}

    def declare(self, container_id: str, request: "Mapping[str, Any]") -> None:
        """Record the networks that a new container is to be on.

        Args:
            container_id: the container's.
            request: the API's, with ``HostConfig.NetworkMode`` and ``NetworkingConfig``.

        Raises:
            InvalidArgumentError: a network cannot give what is asked of it.
        """
        host: Mapping[str, Any] = request["HostConfig"]
        mode = host.get("NetworkMode") or records.BRIDGE
        if is_container(mode) or request["Config"].get("NetworkDisabled"):
            return
        asked = dict((request.get("NetworkingConfig") or {}).get("EndpointsConfig") or {})
        mode = records.BRIDGE if mode == "default" else mode
        settings = {
            records.BRIDGE if name == "default" else name: value or {}
            for name, value in asked.items()
        }
        ordered = {mode: settings.pop(mode, {}), **settings}
        with self._store.transaction() as connection:
            seen: set[str] = set()
            for position, (name, given) in enumerate(ordered.items()):
                network = records.select(connection, name)
                if network is None and name in {records.BRIDGE, records.HOST, records.NONE}:
                    network = default.built_in(connection, self._settings, name)
                if network is not None:
                    check_settings(network, given)
                    if network.id in seen:
                        continue
                    seen.add(network.id)
                _declare(connection, container_id, name, network, given, position)

    # Start and end

    def acquire(
        self, container_id: str, record: "Mapping[str, Any]", alive: "Iterable[str] | None" = None
    ) -> Plan:
        """Lease all that a container gets of its networks; what it had before is given back.

        Args:
            container_id: the container's.
            record: its request, completed.
            alive: containers that run, after a first attempt found no free address: what others
                hold is given back.

        Raises:
            NotFoundError: a network is no more.
            ConflictError: an address or a port is somebody else's.
            UnavailableError: no address or port is free.
        """
        plan = Plan()
        try:
            with self._store.transaction() as connection:
                self._notice_reboot(connection)
                if alive is not None:
                    _reclaim(connection, {container_id, *alive})
                _give_back(connection, container_id)
                for member in _of(connection, container_id):
                    network = self._current(connection, member, plan.turn)
                    plan.networks[network.id] = network
                    self._lease(connection, member, network, record, plan.members)
                    plan.members.append(member)
                choose_gateways(plan.members, plan.networks)
                self._publish(connection, container_id, record, plan)
                for member in plan.members:
                    _save(connection, member)
                    _event(connection, "connect", member, plan.networks[member.network_id])
        except BaseException:
            publishing.let_go(plan.taken)
            plan.turn.close()
            raise
        return plan

    def release(self, container_id: str) -> None:
        """Give back the addresses and ports that a container has; it may have none."""
        with self._store.transaction() as connection:
            for member in _of(connection, container_id):
                network = records.select(connection, member.network_id)
                if member.id and network is not None:
                    _event(connection, "disconnect", member, network)
            _give_back(connection, container_id)

    def republish(self, container_id: str, record: "Mapping[str, Any]", plan: Plan) -> None:
        """Choose ways out and published ports anew for a running container.

        Args:
            container_id: the container's.
            record: its request.
            plan: its memberships and networks; takes the ports.
        """
        with self._store.transaction() as connection:
            choose_gateways(plan.members, plan.networks)
            held = publishing.held(connection, container_id)
            connection.execute("DELETE FROM port WHERE container_id = ?", (container_id,))
            self._publish(connection, container_id, record, plan, held)
            publishing.reserve(connection, container_id, held)
            for member in plan.members:
                _save(connection, member)

    def current(self, container_id: str) -> Plan:
        """What a running container has of networks."""
        plan = Plan()
        with self._store.reading() as connection:
            for member in _of(connection, container_id):
                network = records.select(connection, member.network_id)
                if network is not None:
                    plan.networks[network.id] = network
                    plan.members.append(member)
            plan.ports = publishing.recorded(connection, [container_id]).get(container_id, [])
        return plan

    def join(
        self,
        container_id: str,
        network: Network,
        settings: "Mapping[str, Any]",
        *,
        record: "Mapping[str, Any]",
        running: bool,
        interfaces: Collection[str] = (),
    ) -> Member:
        """Make a container a member of one more network, with addresses where it runs.

        Args:
            container_id: the container's.
            network: the network.
            settings: what is asked for, in the API's ``EndpointSettings``.
            record: the container's request.
            running: whether it is to have addresses now.
            interfaces: names of the links that it has.

        Raises:
            AlreadyExistsError: it is a member.
            ConflictError: its other networks exclude this one; an address is taken.
            UnavailableError: no address is free.
        """
        check_settings(network, settings)
        with self._store.transaction() as connection:
            self._notice_reboot(connection)
            found = connection.execute(
                "SELECT name, driver FROM endpoint JOIN network ON network.id = network_id "
                "WHERE container_id = ?", (container_id,),
            ).fetchall()  # fmt: skip
            _check_company({row["driver"] for row in found}, network)
            if network.name in {row["name"] for row in found}:
                name = connection.execute(
                    "SELECT name FROM container WHERE id = ?", (container_id,)
                ).fetchone()["name"]
                raise AlreadyExistsError(
                    f"endpoint with name {name} already exists in network {network.name}"
                )
            query = "SELECT max(position) FROM endpoint WHERE container_id = ?"
            last = connection.execute(query, (container_id,)).fetchone()[0]
            position = -1 if last is None else last
            _declare(connection, container_id, network.name, network, settings, position + 1)
            members = _of(connection, container_id)
            member = next(one for one in members if one.network_id == network.id)
            if running:
                others = [one for one in members if one is not member]
                self._lease(connection, member, network, record, others, interfaces)
                _save(connection, member)
                _event(connection, "connect", member, network)
        return member

    def leave(self, member: Member, network: Network | None) -> None:
        """End a membership."""
        with self._store.transaction() as connection:
            connection.execute(
                "DELETE FROM endpoint WHERE container_id = ? AND network_id = ?",
                (member.container_id, member.network_id),
            )
            connection.execute(
                "DELETE FROM lease WHERE container_id = ? AND network_id = ?",
                (member.container_id, member.network_id),
            )
            if network is not None:
                _event(connection, "disconnect", member, network)

    # Pieces

    def _notice_reboot(self, connection: sqlite3.Connection) -> None:
        """Give back what was leased before the last reboot: its holders are no more."""
        row = connection.execute("SELECT id FROM boot").fetchone()
        if row is not None and row["id"] == self._boot_id:
            return
        _reclaim(connection, set())
        connection.execute("DELETE FROM boot")
        connection.execute("INSERT INTO boot (id) VALUES (?)", (self._boot_id,))

    def _current(self, connection: sqlite3.Connection, member: Member, turn: ExitStack) -> Network:
        """The network of a membership; one asked for by name is found now."""
        network = records.select(connection, member.network_id)
        if network is None:
            raise records.not_found(member.network_id)
        if network.record.get("ConfigOnly"):
            raise ConflictError(
                f"network {network.name} is a configuration network and cannot be used"
            )
        if member.network_id != network.id:
            check_settings(network, member.settings)
            connection.execute(
                "UPDATE OR REPLACE endpoint SET network_id = ?, network_name = ? "
                "WHERE container_id = ? AND network_id = ?",
                (network.id, network.name, member.container_id, member.network_id),
            )
            member.network_id, member.network_name = network.id, network.name
        if network.name == records.BRIDGE:
            network = default.in_place(connection, self._settings, network, turn)
        return network

    def _lease(
        self,
        connection: sqlite3.Connection,
        member: Member,
        network: Network,
        record: "Mapping[str, Any]",
        others: list[Member],
        interfaces: Collection[str] = (),
    ) -> None:
        member.id = os.urandom(32).hex()
        member.names = _names(member, record)
        if not network.subnets:
            return
        asked = member.settings.get("IPAMConfig") or {}
        member.addresses = []
        for version, key in ((4, "IPv4Address"), (6, "IPv6Address")):
            subnets = [one for one in network.subnets if one.subnet.version == version]
            if subnets:
                member.addresses.append(
                    _address(connection, member.container_id, network, subnets, asked.get(key, ""))
                )
            elif asked.get(key):
                raise InvalidArgumentError(
                    f"no configured subnet contains IP address {asked[key]}",
                    f"network {network.name} has no IPv{version}",
                )
        own = member.settings.get("MacAddress") or _legacy_mac(member, record)
        if network.driver != "ipvlan":
            member.mac = own or ipam.mac_of(member.addresses[0].ip)
        member.interface = _interface(member, network, others, interfaces)

    def _publish(
        self,
        connection: sqlite3.Connection,
        container_id: str,
        record: "Mapping[str, Any]",
        plan: Plan,
        held: "Collection[publishing.Held]" = (),
    ) -> None:
        """Choose the host's ports for those that the container publishes."""
        asked = publishing.asked(record)
        if not asked:
            return
        everywhere: str = configuration_file.read(self._settings).get("ip", "")
        ways = {}
        for version in (4, 6):
            member = next((one for one in plan.members if version in one.gateway), None)
            network = plan.networks[member.network_id] if member else None
            if member is not None and network is not None and network.driver == "bridge":
                address = member.address(version)
                assert address is not None
                ways[version] = publishing.Way(
                    address,
                    routed=network.mode(version) == "routed",
                    default=network.options.get(definition.HOST_BINDING, "") or everywhere,
                )
        owner = kernel.owner(self._settings, container_id)
        publishing.choose(
            connection, container_id, asked, ways, owner, plan.ports, plan.taken, held
        )


def choose_gateways(members: Iterable[Member], by_id: "Mapping[str, Network]") -> None:
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


def check_settings(network: Network, settings: "Mapping[str, Any]") -> None:
    """Check what a container asks of a network.

    Raises:
        InvalidArgumentError: in Docker's words.
    """
    ipam_asked = settings.get("IPAMConfig") or {}
    errors = []
    if not is_user_defined(network.name):
        if settings.get("Aliases"):
            errors.append("network-scoped aliases are only supported for user-defined networks")
        if ipam_asked.get("IPv4Address") or ipam_asked.get("IPv6Address"):
            errors.append("user specified IP address is supported on user defined networks only")
    for key in ("IPv4Address", "IPv6Address"):
        text = ipam_asked.get(key)
        if not text or not is_user_defined(network.name):
            continue
        try:
            address = ip_address(text)
        except ValueError:
            errors.append(f"invalid {key[:4]} address: {text}")
            continue
        if address.version != int(key[3]):
            errors.append(f"invalid {key[:4]} address: {text}")
        elif not any(address in subnet.subnet for subnet in network.subnets):
            errors.append(f"no configured subnet contains IP address {text}")
        elif all(one.chosen for one in network.subnets if address in one.subnet):
            errors.append(
                "user specified IP address is supported only when connecting to networks with "
                "user configured subnets"
            )
    if errors:
        raise InvalidArgumentError(
            f"invalid config for network {network.name}: invalid endpoint settings:\n"
            + "\n".join(errors)
        )


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


def _of(connection: sqlite3.Connection, container_id: str) -> list[Member]:
    query = "SELECT * FROM endpoint WHERE container_id = ? ORDER BY position"
    return [Member(row) for row in connection.execute(query, (container_id,))]


def _declare(
    connection: sqlite3.Connection,
    container_id: str,
    name: str,
    network: Network | None,
    settings: "Mapping[str, Any]",
    position: int,
) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO endpoint (container_id, network_id, network_name, position, "
        "settings, names) VALUES (?, ?, ?, ?, ?, ?)",
        (container_id, network.id if network else name, network.name if network else name,
         position, json.dumps(settings), json.dumps(settings.get("Aliases") or [])),
    )  # fmt: skip


def _save(connection: sqlite3.Connection, member: Member) -> None:
    texts = {address.version: str(address) for address in member.addresses}
    connection.execute(
        "UPDATE endpoint SET id = ?, ipv4 = ?, ipv6 = ?, mac = ?, interface = ?, gateway = ?, "
        "names = ? WHERE container_id = ? AND network_id = ?",
        (member.id, texts.get(4, ""), texts.get(6, ""), member.mac, member.interface,
         sum(member.gateway), json.dumps(member.names), member.container_id, member.network_id),
    )  # fmt: skip


def _give_back(connection: sqlite3.Connection, container_id: str) -> None:
    connection.execute("DELETE FROM lease WHERE container_id = ?", (container_id,))
    connection.execute("DELETE FROM port WHERE container_id = ?", (container_id,))
    connection.execute(
        "UPDATE endpoint SET id = '', ipv4 = '', ipv6 = '', mac = '', interface = '', gateway = 0 "
        "WHERE container_id = ?",
        (container_id,),
    )


def _reclaim(connection: sqlite3.Connection, alive: Collection[str]) -> None:
    """Give back what all containers but these hold."""
    holders = {
        row[0] for table in ("lease", "port")
        for row in connection.execute(f"SELECT DISTINCT container_id FROM {table}")
    }  # fmt: skip
    query = "SELECT DISTINCT container_id FROM endpoint WHERE id != ''"
    holders |= {row[0] for row in connection.execute(query)}
    for container_id in holders - set(alive):
        _give_back(connection, container_id)


def _event(connection: sqlite3.Connection, action: str, member: Member, network: Network) -> None:
    attributes = {"container": member.container_id, "name": network.name, "type": network.driver}
    events.record(connection, "network", action, network.id, attributes)


def _address(
    connection: sqlite3.Connection,
    container_id: str,
    network: Network,
    subnets: "list[records.Subnet]",
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


def _names(member: Member, record: "Mapping[str, Any]") -> list[str]:
    """What a container is called on a network, beside its name; Docker's ``DNSNames``."""
    hostname = record.get("Config", {}).get("Hostname", "")
    names = [*(member.settings.get("Aliases") or ()), member.container_id[:_SHORT_ID_LENGTH]]
    if hostname and hostname not in names:
        names.append(hostname)
    return list(dict.fromkeys(names))


def _legacy_mac(member: Member, record: "Mapping[str, Any]") -> str:
    """The address that a request of an older API gave in ``Config``, for the first network."""
    mode = record.get("HostConfig", {}).get("NetworkMode", "")
    mac: str = record.get("Config", {}).get("MacAddress", "")
    return mac if mode in {member.network_name, member.network_id} else ""


def _interface(
    member: Member, network: Network, others: list[Member], interfaces: Collection[str]
) -> str:
    taken = {one.interface for one in others} | set(interfaces)
    wanted: str = (member.settings.get("DriverOpts") or {}).get(_INTERFACE, "")
    if wanted:
        if wanted in taken or wanted == "lo":
            raise ConflictError(f"interface name {wanted} is already in use in this container")
        return wanted
    prefix = network.options.get(definition.PREFIX) or "eth"
    number = 0
    while f"{prefix}{number}" in taken:
        number += 1
    return f"{prefix}{number}"


def _check_company(drivers: set[str], network: Network) -> None:
    """Refuse networks that a container cannot be on together."""
    if "host" in drivers or network.driver == "host":
        raise ConflictError(
            "container cannot be disconnected from host network or connected to host network"
        )
    if "null" in drivers or (network.driver == "null" and drivers):
        raise ConflictError(
            "container cannot be connected to multiple networks with one of the networks in "
            "private (none) mode"
        )


def member_of(members: Iterable[Member], network: str, container: str) -> Member:
    """One of a container's memberships, by the network's name or id.

    Raises:
        NotFoundError: it is not on that network.
    """
    for member in members:
        if network in {member.network_name, member.network_id}:
            return member
    raise NotFoundError(f"container {container} is not connected to network {network}")
