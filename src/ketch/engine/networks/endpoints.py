"""Who is on which network: endpoints, their addresses, and the ports published for them.

A container's memberships are recorded when it is made and last until it is removed or
disconnected. While it runs each has an id, addresses, a link and, on one of its networks for each
IP version, the way out. Addresses and ports are leased in the transaction that a start begins with,
and given back in the one that its end ends with; what a killed monitor or a reboot left is found by
the next command that looks. A container's fixed address (``--ip``) is leased anew at each start,
like Docker's.
"""

import os
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import ExitStack

from ketch.engine import configuration_file
from ketch.engine.networks import (
    default,
    kernel,
    leases,
    members,
    membership,
    publishing,
    records,
    telling,
)
from ketch.engine.networks.members import Member
from ketch.engine.networks.plan import Plan, choose_gateways
from ketch.engine.networks.records import Network
from ketch.engine.records import links
from ketch.engine.records.store import Store
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    PermissionDeniedError,
)
from ketch.linux import procfs
from ketch.network import definition, ipam
from ketch.spec.endpoints import is_container, is_private, is_user_defined, mac_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ketch.engine.networks.uplinks import Uplink
    from ketch.engine.settings import Settings
    from ketch.network.ports import Port
    from ketch.network.uplink.outside import Outside

_INTERFACE = "com.docker.network.endpoint.ifname"
_SHORT_ID_LENGTH = 12


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
            return members.of(connection, container_id)

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
        with self._store.reading() as connection:
            return membership.names(connection)

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

    def declare(
        self,
        container_id: str,
        request: "Mapping[str, Any]",
        linked: "Iterable[tuple[str, str]]" = (),
    ) -> None:
        """Record the networks that a new container is to be on, and its links there.

        Args:
            container_id: the container's.
            request: the API's, with ``HostConfig.NetworkMode`` and ``NetworkingConfig``.
            linked: others' ids, and what it calls them on the default network.

        Raises:
            InvalidArgumentError: a network cannot give what is asked of it.
        """
        host: Mapping[str, Any] = request["HostConfig"]
        mode = host.get("NetworkMode") or records.BRIDGE
        asked: Mapping[str, Any] = (request.get("NetworkingConfig") or {}).get(
            "EndpointsConfig"
        ) or {}
        if is_container(mode) or request["Config"].get("NetworkDisabled"):
            for name, settings in asked.items():
                if not is_user_defined(name):
                    members.check_settings(name, settings or {})
            return
        if is_private(mode):
            if any(any((one or {}).values()) for one in asked.values()) or set(asked) - {mode}:
                raise InvalidArgumentError(
                    f"conflicting options: a container with the network {mode} is on no other, and "
                    "has no address or name there"
                )
            return
        with self._store.transaction() as connection:
            links.declare(connection, container_id, linked)
            # A network may be named here by its name, there by its id or the start of that.
            found: dict[str, tuple[str, Network | None, dict[str, Any]]] = {}
            listed = set()
            for name, given in ((mode, None), *asked.items()):
                name = records.BRIDGE if name == "default" else name  # noqa: PLW2901
                network = records.select(connection, name)
                if network is None and name in {records.BRIDGE, records.HOST, records.NONE}:
                    network = default.built_in(connection, self._settings, name)
                key = network.id if network else name
                if found:
                    listed.add(key)
                _merge(found.setdefault(key, (name, network, {}))[2], given or {})
            # Where endpoints are listed they are all that there are, as in Docker: who asks for an
            # internal network alone, and says nothing of a mode, is on no network with a way out.
            places = [one for key, one in found.items() if key in listed or not asked]
            networks = [network for _, network, _ in places if network is not None]
            members.check_together(mode, networks)
            for position, (name, network, settings) in enumerate(places):
                if network is not None:
                    members.check_settings(network.name, settings, network.subnets)
                members.declare(connection, container_id, name, network, settings, position)

    # Start and end

    def acquire(
        self,
        container_id: str,
        record: "Mapping[str, Any]",
        uplink: "Uplink",
        alive: "Iterable[str] | None" = None,
        *,
        told: bool = True,
    ) -> Plan:
        """Lease all that a container gets of its networks; what it had before is given back.

        Args:
            container_id: the container's.
            record: its request, completed.
            uplink: where its ports are taken.
            alive: containers that run, after a first attempt found no free address: what others
                hold is given back.
            told: whether there are events of it.

        Raises:
            NotFoundError: a network is no more.
            ConflictError: an address or a port is somebody else's.
            UnavailableError: no address or port is free.
        """
        plan = Plan()
        try:
            with self._store.transaction() as connection:
                leases.notice_reboot(connection, self._boot_id)
                if alive is not None:
                    leases.reclaim(connection, {container_id, *alive})
                leases.give_back(connection, container_id)
                for member in members.of(connection, container_id):
                    network = self._current(connection, member, plan.turn)
                    plan.networks[network.id] = network
                    self._lease(connection, member, network, record, plan.members)
                    plan.members.append(member)
                choose_gateways(plan.members, plan.networks)
                self._publish(connection, container_id, record, plan, uplink)
                for member in plan.members:
                    members.save(connection, member)
                    if told:
                        network = plan.networks[member.network_id]
                        members.record_event(connection, "connect", member, network)
        except BaseException:
            publishing.let_go(plan.taken)
            plan.turn.close()
            raise
        return plan

    def acquire_private(
        self, container_id: str, record: "Mapping[str, Any]", uplink: "Outside"
    ) -> Plan:
        """Take the ports of a container that has a way out of its own; it is on no network.

        Args, returns and raises what ``acquire`` does. The ports are free again as soon as
        ``taken`` is closed, and are then for the program that leads to the container.
        """
        asked = publishing.asked(record)
        plan = Plan()
        ways = {}
        if asked:
            from ketch.network.uplink.private import Asked  # noqa: PLC0415 - few ask for that

            versions = Asked(record["HostConfig"]["NetworkMode"]).versions & uplink.versions()
            ways = publishing.private_ways(
                versions, configuration_file.read(self._settings).get("ip", "")
            )
        try:
            with self._store.transaction() as connection:
                leases.notice_reboot(connection, self._boot_id)
                leases.give_back(connection, container_id)
                publishing.choose(
                    connection, container_id, asked, ways, "", plan.ports, plan.taken, uplink
                )
        except BaseException:
            publishing.let_go(plan.taken)
            raise
        return plan

    def release(self, container_id: str, *, told: bool = True) -> None:
        """Give back the addresses and ports that a container has; it may have none.

        Args:
            container_id: the container's.
            told: whether there are events of it.
        """
        with self._store.transaction() as connection:
            for member in members.of(connection, container_id) if told else ():
                network = records.select(connection, member.network_id)
                if member.id and network is not None:
                    members.record_event(connection, "disconnect", member, network)
            leases.give_back(connection, container_id)

    def republish(
        self, container_id: str, record: "Mapping[str, Any]", plan: Plan, uplink: "Uplink"
    ) -> None:
        """Choose ways out and published ports anew for a running container.

        Args:
            container_id: the container's.
            record: its request.
            plan: its memberships and networks; takes the ports.
            uplink: where ports are taken.
        """
        with self._store.transaction() as connection:
            choose_gateways(plan.members, plan.networks)
            held = publishing.held(connection, container_id)
            connection.execute("DELETE FROM port WHERE container_id = ?", (container_id,))
            self._publish(connection, container_id, record, plan, uplink, held)
            publishing.reserve(connection, container_id, held)
            for member in plan.members:
                members.save(connection, member)

    def current(self, container_id: str) -> Plan:
        """What a running container has of networks."""
        plan = Plan()
        with self._store.reading() as connection:
            for member in members.of(connection, container_id):
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

        For one that does not run and is a member already nothing changes, as in Docker.

        Args:
            container_id: the container's.
            network: the network.
            settings: what is asked for, in the API's ``EndpointSettings``.
            record: the container's request.
            running: whether it is to have addresses now.
            interfaces: names of the links that it has.

        Raises:
            PermissionDeniedError: it is a member, and runs.
            InvalidArgumentError: its other networks exclude this one.
            ConflictError: an address is taken.
            UnavailableError: no address is free.
        """
        members.check_settings(network.name, settings, network.subnets)
        with self._store.transaction() as connection:
            leases.notice_reboot(connection, self._boot_id)
            found = connection.execute(
                "SELECT driver FROM endpoint JOIN network ON network.id = network_id "
                "WHERE container_id = ?", (container_id,),
            ).fetchall()  # fmt: skip
            members.check_company({row["driver"] for row in found}, network)
            before = next(
                (one for one in members.of(connection, container_id)
                 if network.id == one.network_id or network.name == one.network_name), None,
            )  # fmt: skip
            if before is not None and running:
                name = connection.execute(
                    "SELECT name FROM container WHERE id = ?", (container_id,)
                ).fetchone()["name"]
                raise PermissionDeniedError(
                    f"endpoint with name {name} already exists in network {network.name}",
                    "disconnect it first",
                )
            if before is not None:
                return before
            query = "SELECT max(position) FROM endpoint WHERE container_id = ?"
            last = connection.execute(query, (container_id,)).fetchone()[0]
            position = -1 if last is None else last
            members.declare(connection, container_id, network.name, network, settings, position + 1)
            own = members.of(connection, container_id)
            member = next(one for one in own if one.network_id == network.id)
            if running:
                others = [one for one in own if one is not member]
                self._lease(connection, member, network, record, others, interfaces)
                members.save(connection, member)
                members.record_event(connection, "connect", member, network)
        self._settings.tell(telling.of_joining, member, network, running=running)
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
                members.record_event(connection, "disconnect", member, network)
        self._settings.tell(telling.of_leaving, member)

    # Pieces

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
            members.check_settings(network.name, member.settings, network.subnets)
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
                    leases.lease(
                        connection, member.container_id, network, subnets, asked.get(key, "")
                    )
                )
            elif asked.get(key):
                raise InvalidArgumentError(
                    f"no configured subnet contains IP address {asked[key]}",
                    f"network {network.name} has no IPv{version}",
                )
        own = member.settings.get("MacAddress") or _legacy_mac(member, record)
        if network.driver != "ipvlan":
            member.mac = mac_address(own) if own else ipam.mac_of(member.addresses[0].ip)
        member.interface = _interface(member, network, others, interfaces)

    def _publish(
        self,
        connection: sqlite3.Connection,
        container_id: str,
        record: "Mapping[str, Any]",
        plan: Plan,
        uplink: "Uplink",
        held: "Collection[publishing.Held]" = (),
    ) -> None:
        """Choose the host's ports for those that the container publishes."""
        asked = publishing.asked(record)
        if not asked:
            return
        everywhere: str = configuration_file.read(self._settings).get("ip", "")
        ways = {}
        for version in (4, 6):
            member = _led_to(plan, version)
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
            connection, container_id, asked, ways, owner, plan.ports, plan.taken, uplink, held
        )


def _led_to(plan: Plan, version: int) -> Member | None:
    """On which network ports lead to a container: its way out, else one that says so."""
    for member in plan.members:
        if version in member.gateway:
            return member
    for member in plan.members:
        if plan.networks[member.network_id].publishes and member.address(version) is not None:
            return member
    return None


def _merge(settings: "dict[str, Any]", more: "Mapping[str, Any]") -> None:
    """Adds what is said of a network under another of its names."""
    for key, value in more.items():
        if settings.get(key) and value and settings[key] != value:
            raise InvalidArgumentError(
                f"conflicting options: {key} is given twice for one network, by several names of it"
            )
        settings[key] = value or settings.get(key)


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
