"""Containers' connections: what the kernel has of their endpoints, made, changed and taken away.

The order of a start: addresses and ports are leased in one transaction of the database; nft is set
to work on rules and ports where there are any to write; meanwhile the namespace is made and wired;
``Wiring.settle`` waits for nft. The order of an end: links are cut off and ports leave the packet
filter first, addresses and ports are given back after, so that whoever gets one next finds it free.
"""

import os
from contextlib import ExitStack

from ketch.engine.networks import kernel, publishing, resolution
from ketch.engine.networks.endpoints import Endpoints
from ketch.engine.networks.members import Member, member_of
from ketch.engine.networks.plan import Plan, choose_gateways, endpoint
from ketch.engine.networks.records import BRIDGE
from ketch.engine.processes import open_process
from ketch.errors import ConflictError, KetchError, NotFoundError, UnavailableError
from ketch.linux import conntrack
from ketch.network import bridge as bridges
from ketch.network import firewall
from ketch.network.bridge import Bridge
from ketch.network.sandbox import Sandbox, cut
from ketch.spec import links
from ketch.spec.endpoints import is_container
from ketch.spec.hosts import HOST_GATEWAY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Self

    from ketch.engine.engine import Engine
    from ketch.engine.records import Container
    from ketch.engine.settings import Settings
    from ketch.engine.store import Store
    from ketch.linux.nftables import Transaction
    from ketch.network.parent import Parent
    from ketch.network.ports import Port


class Link:
    """What a container on the default network is told of another one by ``--link``.

    Attributes:
        hosts: lines of /etc/hosts.
        variables: of its environment, as ``NAME=value``.
    """

    __slots__ = ("hosts", "variables")

    def __init__(self, hosts: str, variables: list[str]) -> None:
        self.hosts = hosts
        self.variables = variables


class Wiring:
    """What a starting container holds of networks.

    Attributes:
        sandbox: its network namespace; None where it has the host's or another container's.
        addresses: its own addresses, for /etc/hosts.
        gateways: the host's addresses as it reaches them, for ``host-gateway``.
        links: what it is told of containers linked by ``--link``.
        taken: descriptors of sockets that keep its published ports from others. While they are
            open nobody else of the host can have these ports; nothing else depends on them.
    """

    __slots__ = ("_localhost", "_opened", "_transaction", "addresses", "gateways", "links",
                 "sandbox", "taken")  # fmt: skip

    def __init__(self) -> None:
        self.sandbox: Sandbox | None = None
        self.addresses: list[str] = []
        self.gateways: list[str] = []
        self.links: list[Link] = []
        self.taken: list[int] = []
        self._transaction: Transaction | None = None
        self._localhost: list[str] = []
        self._opened = ExitStack()

    def __enter__(self) -> "Self":
        """Own it for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def settle(self) -> None:
        """Wait until the packet filter has what the container needs; mostly it has.

        To be called before the process waits for just any child of its own: nft is one.

        Raises:
            PermissionDeniedError: the caller may not change the packet filter.
            UnavailableError: nft failed.
        """
        if self._transaction is not None:
            transaction, self._transaction = self._transaction, None
            transaction.wait()
        while self._localhost:
            bridges.serve_localhost(self._localhost.pop())

    def close(self) -> None:
        """Close this process's hold on namespace and ports; what runs in the namespace keeps it."""
        try:
            if self._transaction is not None:
                transaction, self._transaction = self._transaction, None
                transaction.wait()
        except KetchError:
            pass  # only a failed start leaves one, and its own failure is the one to tell
        publishing.let_go(self.taken)
        self._opened.close()


def prepare(
    engine: "Engine",
    container: "Container",
    say: "Callable[[str], None] | None" = None,
    *,
    owner: int | None = None,
) -> Wiring:
    """Lease and make all that a container gets of networks; ``release`` gives it back.

    Args:
        engine: where it is recorded.
        container: the container, which does not run.
        say: takes each step's description as it happens.
        owner: descriptor of its user namespace, or None for the host's.

    Returns:
        What the start holds: to be settled before the program starts, and closed.

    Raises:
        NotFoundError: a network is no more.
        ConflictError: an address or a port is somebody else's.
        UnavailableError: no address is free; nft failed.
        KetchError, OSError: the kernel refused a step.
    """
    record: Mapping[str, Any] = container.record
    wiring = Wiring()
    say = say or _keep_quiet
    mode = record["HostConfig"].get("NetworkMode") or BRIDGE
    if is_container(mode):
        return wiring
    with ExitStack() as undo:
        undo.callback(wiring.close)
        plan = _acquire(engine, container)
        undo.callback(plan.turn.close)
        wiring.taken = plan.taken
        if any(HOST_GATEWAY in one for one in record["HostConfig"].get("ExtraHosts") or ()):
            wiring.gateways = _host_gateways(engine, plan)
        if not any(network.driver == "host" for network in plan.networks.values()):
            say("new network namespace, loopback up · unshare(2) CLONE_NEWNET, rtnetlink(7)")
            wiring._transaction = kernel.let_through(
                engine.settings, engine.store, _links_of(plan), plan.ports
            )
            wiring._localhost = _localhost(plan)
            has_ipv6 = any(
                address.version == 6 for one in plan.members for address in one.addresses
            )
            wiring.sandbox = wiring._opened.enter_context(Sandbox(ipv6=has_ipv6, owner=owner))
            for one in plan.endpoints():
                _say_link(say, one)
                wiring.sandbox.connect(one)
            plan.turn.close()
            for port in plan.ports:
                say(f"publish {publishing.spoken(port)} · nft(8)")
        wiring.addresses = [
            str(address.ip) for member in plan.members for address in member.addresses
        ]
        wiring.links = links_of(engine, container)
        undo.pop_all()
        plan.turn.close()
    return wiring


def release(store: "Store", settings: "Settings", container_id: str, namespace: int = -1) -> None:
    """Give back what a container that no longer runs had of networks; nothing will do.

    Args:
        store: where it is recorded.
        settings: the engine's places.
        container_id: the container's.
        namespace: descriptor of its network namespace, if somebody has it.

    Raises:
        OSError: the kernel refused.
    """
    endpoints = Endpoints(settings, store)
    plan = endpoints.current(container_id)
    cut(plan.endpoints(), namespace)
    if plan.ports:
        withdraw(plan.ports)
    endpoints.release(container_id)


def withdraw(ports: "Sequence[Port]") -> None:
    """Stop publishing ports, for connections that have been made by them as well.

    Raises:
        OSError: the kernel refused.
    """
    firewall.withdraw(ports)
    for address in {port.address for port in ports if not port.routed}:
        conntrack.forget(address)


def connect(
    engine: "Engine", network_name: str, reference: str, settings: "Mapping[str, Any]"
) -> None:
    """Connect a container to a network, at once where it runs, else from its next start on.

    Args:
        engine: where they are recorded.
        network_name: the network, by name or id.
        reference: the container, by name or id.
        settings: what is asked for, in the API's ``EndpointSettings``.

    Raises:
        NotFoundError: there is no such network or container.
        AlreadyExistsError: it is connected.
        ConflictError: its other networks exclude this one; an address is taken.
        KetchError, OSError: the kernel refused a step.
    """
    container, network = engine.containers.find(reference), engine.networks.find(network_name)
    record = container.record
    if is_container(record["HostConfig"].get("NetworkMode", "")):
        raise ConflictError(
            "container sharing network namespace with another container or host cannot be "
            "connected to any other network"
        )
    if not container.is_active or not container.init_pid:
        engine.endpoints.join(container.id, network, settings, record=record, running=False)
        return
    with _running(container) as sandbox:
        member = engine.endpoints.join(
            container.id, network, settings,
            record=record, running=True, interfaces=sandbox.interfaces(),
        )  # fmt: skip
        try:
            if network.subnets:
                transaction = kernel.let_through(engine.settings, engine.store, [network.link()])
                if transaction is not None:
                    transaction.wait()
                sandbox.connect(endpoint(member, network))
            _rewire(engine, container, sandbox)
            first = member.addresses and not any(
                one.addresses for one in engine.endpoints.of(container.id) if one.id != member.id
            )
            # Without a network it was started without a name server.
            named = first and resolution.request(engine.settings, container.id)
        except BaseException:
            engine.endpoints.leave(member, None)
            if member.interface:
                sandbox.disconnect(member.interface)
            raise
    if named:
        _change_resolv_conf(engine, container)
    _change_hosts(engine, container, add=member)


def disconnect(engine: "Engine", network_name: str, reference: str, *, force: bool = False) -> None:
    """Disconnect a container from a network.

    Args:
        engine: where they are recorded.
        network_name: the network, by name or id.
        reference: the container, by name or id.
        force: go on where the container's own end is not there any more.

    Raises:
        NotFoundError: there is no such network or container, or it is not connected.
        ConflictError: it is the host's network.
        KetchError, OSError: the kernel refused a step.
    """
    container = engine.containers.find(reference)
    members = engine.endpoints.of(container.id)
    try:
        network = engine.networks.find(network_name)
    except NotFoundError:
        # A stopped container may be a member of a network that is no more.
        member = member_of(members, network_name, container.id)
        engine.endpoints.leave(member, None)
        return
    if network.driver == "host":
        raise ConflictError(
            "container cannot be disconnected from host network or connected to host network"
        )
    member = member_of(members, network.id, container.id)
    if not container.is_active or not container.init_pid:
        engine.endpoints.leave(member, network)
        return
    try:
        with _running(container) as sandbox:
            if member.interface:
                sandbox.disconnect(member.interface)
            engine.endpoints.leave(member, network)
            _rewire(engine, container, sandbox)
    except (UnavailableError, OSError):
        if not force:
            raise
        engine.endpoints.leave(member, network)
    _change_hosts(engine, container, remove=member)


def _acquire(engine: "Engine", container: "Container") -> Plan:
    """Lease, if need be what containers no longer use whose end nobody saw."""
    try:
        return engine.endpoints.acquire(container.id, container.record)
    except UnavailableError:
        alive = [one.id for one in engine.containers.list()]
        return engine.endpoints.acquire(container.id, container.record, alive)


def _localhost(plan: Plan) -> list[str]:
    """Bridges of which the host's loopback addresses are to reach containers."""
    if not any(
        not port.routed
        and port.address.version == 4
        and (port.host_address.is_unspecified or port.host_address.is_loopback)
        for port in plan.ports
    ):
        return []
    return [
        plan.networks[member.network_id].bridge for member in plan.members if 4 in member.gateway
    ]


def _links_of(plan: Plan) -> "list[Bridge | Parent]":
    return [network.link() for network in plan.networks.values() if network.subnets]


def _rewire(engine: "Engine", container: "Container", sandbox: Sandbox) -> None:
    """Have a running container's ways out, and its published ports, where they belong now.

    Ports leave the packet filter before the database says where they lead now, and come back after,
    so that whatever happens in between the filter has nothing that the database does not know.
    """
    plan = engine.endpoints.current(container.id)
    before = {member.network_id: set(member.gateway) for member in plan.members}
    choose_gateways(plan.members, plan.networks)
    ways = {member.network_id: member.gateway for member in plan.members}
    if ways == before and (plan.ports == [] or any(ways.values())):
        return
    withdraw(plan.ports)
    plan.ports = []
    engine.endpoints.republish(container.id, container.record, plan)
    try:
        sandbox.remove_routes()
        for member in plan.members:
            if member.gateway:
                sandbox.add_routes(endpoint(member, plan.networks[member.network_id]))
        if plan.ports:
            transaction = kernel.let_through(
                engine.settings, engine.store, _links_of(plan), plan.ports
            )
            if transaction is not None:
                transaction.wait()
            for name in _localhost(plan):
                bridges.serve_localhost(name)
    finally:
        publishing.let_go(plan.taken)


class _running:  # noqa: N801 - a block, not a kind of thing
    """The namespace of a container that runs, as long as it does."""

    def __init__(self, container: "Container") -> None:
        self._container = container
        self._stack = ExitStack()

    def __enter__(self) -> Sandbox:
        container = self._container
        with ExitStack() as stack:
            process = open_process(container.init_pid, container.init_start_time)
            if stack.enter_context(process) is None:
                raise UnavailableError(f"container {container.name} is not running any more")
            path = f"/proc/{container.init_pid}/ns/net"
            sandbox = stack.enter_context(Sandbox(existing=path))
            self._stack = stack.pop_all()
        return sandbox

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _host_gateways(engine: "Engine", plan: Plan) -> list[str]:
    """The host's addresses as a container reaches them: on its way out, else the default bridge."""
    for member in plan.members:
        network = plan.networks[member.network_id]
        if member.gateway and network.driver == "bridge":
            return [str(one.gateway) for one in network.subnets
                    if one.gateway and one.subnet.version in member.gateway]  # fmt: skip
    gateway = engine.networks.find(BRIDGE).gateway
    return [str(gateway)] if gateway else []


def links_of(engine: "Engine", container: "Container", *, running: bool = False) -> list[Link]:
    """What a container is told of others by ``--link`` on the default network.

    On networks that somebody made, links are names for the resolver alone.

    Args:
        engine: where they are recorded.
        container: the container, its addresses leased.
        running: whether it runs, and has to do without those that do not run any more.

    Raises:
        NotFoundError: another container is no more.
        ConflictError: it does not run.
    """
    found: list[Link] = []
    asked = container.record["HostConfig"].get("Links") or ()
    if not asked or not _on_default(engine, container.id):
        return found
    for text in asked:
        reference, alias = links.split(text)
        try:
            other = engine.containers.find(reference)
        except NotFoundError as error:
            if running:
                continue
            raise NotFoundError(f"could not get container for {reference}: {error}") from error
        alias = alias or other.name
        if not other.is_active:
            if running:
                continue
            raise ConflictError(
                f"Cannot link to a non running container: /{other.name} "
                f"AS /{container.name}/{alias}"
            )
        config = other.record["Config"]
        for member in _on_default(engine, other.id):
            names = " ".join(dict.fromkeys([alias, config["Hostname"], other.name]))
            address = next((one.ip for one in member.addresses if one.version == 4), None)
            variables = links.variables(
                container.name, alias, str(address), config.get("ExposedPorts") or (),
                config.get("Env") or (),
            ) if address else []  # fmt: skip
            hosts = "".join(f"{one.ip}\t{names}\n" for one in member.addresses)
            found.append(Link(hosts, variables))
    return found


def _on_default(engine: "Engine", container_id: str) -> list[Member]:
    """A container's membership in the default network: one or none."""
    members = engine.endpoints.of(container_id)
    return [member for member in members if member.network_name == BRIDGE]


def _change_hosts(
    engine: "Engine",
    container: "Container",
    *,
    add: Member | None = None,
    remove: Member | None = None,
) -> None:
    """Change a running container's /etc/hosts, in place: it is mounted there."""
    path = f"{engine.settings.container_directory(container.id)}/hosts"
    gone = {str(one.ip) for one in remove.addresses} if remove else set()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # the container has ended meanwhile
    with open(descriptor, "r+", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line for line in file if line.split(None, 1)[:1] not in [[one] for one in gone]]
        if add:
            config = container.record["Config"]
            names = hostnames(config.get("Hostname", ""), config.get("Domainname", ""))
            lines += [f"{one.ip}\t{names}\n" for one in add.addresses]
        text = "".join(lines)
        file.seek(0)
        file.write(text)
        file.truncate()


def _change_resolv_conf(engine: "Engine", container: "Container") -> None:
    """Name a running container's new name server in its /etc/resolv.conf, in place."""
    path = f"{engine.settings.container_directory(container.id)}/resolv.conf"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # the container has ended meanwhile
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(resolution.resolv_conf(container.record["HostConfig"], named=True))
        file.truncate()


def hostnames(hostname: str, domain: str) -> str:
    """What /etc/hosts calls a container."""
    names = f"{hostname}.{domain}" if domain else hostname
    return f"{names} {names.split('.', 1)[0]}" if "." in names else names


def _say_link(say: "Callable[[str], None]", one: "Any") -> None:
    addresses = ", ".join(str(address) for address in one.addresses)
    kind = "bridge" if isinstance(one.link, Bridge) else f"{one.link.kind} on"
    say(
        f"link {one.interface} to {kind} {one.link.name}, "
        f"address {addresses} · rtnetlink(7), nft(8)"
    )


def _keep_quiet(_words: str) -> None:
    """Nobody asked for an explanation."""
