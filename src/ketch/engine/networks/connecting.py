"""Connecting a container to networks, and disconnecting it: where it runs, at once.

One command at a time does that to a container. Nobody keeps it from ending meanwhile: its monitor
releases what is on record then, and whoever has connected it looks afterwards whether it still
runs, and else takes that back.
"""

import os
from contextlib import ExitStack, contextmanager

from ketch.engine.networks import (
    hosts_file,
    kernel,
    linking,
    pins,
    publishing,
    reclaiming,
    resolution,
    telling,
    uplinks,
)
from ketch.engine.networks.members import Member, member_of
from ketch.engine.networks.plan import choose_gateways, endpoint
from ketch.engine.networks.records import BRIDGE, HOST
from ketch.engine.networks.releasing import withdraw
from ketch.engine.processes import await_readable, open_process
from ketch.errors import InvalidArgumentError, NotFoundError, UnavailableError
from ketch.network import telling as network_telling
from ketch.network.sandbox import Sandbox
from ketch.spec.endpoints import is_container, is_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import Any

    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container


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
        PermissionDeniedError: it runs and is connected.
        InvalidArgumentError: its own network, or another one, excludes this one.
        ConflictError: an address is taken.
        KetchError, OSError: the kernel refused a step.
    """
    container, network = engine.containers.find(reference), engine.networks.find(network_name)
    record = container.record
    mode = record["HostConfig"].get("NetworkMode", "")
    if is_private(mode):
        raise InvalidArgumentError(
            f"container {container.name} has the network {mode}, which excludes all others"
        )
    if is_container(mode) or (mode == HOST and network.driver != "host"):
        raise InvalidArgumentError(
            "container sharing network namespace with another container or host cannot be "
            "connected to any other network"
        )
    if not container.is_active or not container.init_pid:
        engine.endpoints.join(container.id, network, settings, record=record, running=False)
        return
    with _running(engine, container) as (sandbox, check):
        member = engine.endpoints.join(
            container.id, network, settings,
            record=record, running=True, interfaces=sandbox.interfaces(),
        )  # fmt: skip
        try:
            if network.subnets:
                plan = engine.endpoints.current(container.id)
                pinned = pins.of(
                    plan.members, plan.networks, free=pins.is_free(record),
                    owner=kernel.owner(engine.settings, container.id),
                )  # fmt: skip
                transaction = kernel.let_through(
                    engine.settings, engine.store, [network.link()], (), pinned
                )
                if transaction is not None:
                    transaction.wait()
                reclaiming.make(engine.settings, [network.link()])
                place = endpoint(member, network)
                engine.settings.tell(network_telling.of_link, place, container.id[:12])
                sandbox.connect(place)
            rewired = _rewire(engine, container, sandbox)
            first = member.addresses and not any(
                one.addresses for one in engine.endpoints.of(container.id) if one.id != member.id
            )
            # Without a network it was started without a name server.
            named = (first or rewired) and resolution.request(engine.settings, container.id)
            check()
        except BaseException:
            # The link first: from then on the address may be another's.
            with ExitStack() as undo:
                undo.callback(engine.endpoints.leave, member, None)
                undo.callback(_unpin, engine, container, member)
                undo.callback(_unplug, engine, sandbox, member)
            raise
        if first and named:
            _change_resolv_conf(engine, container)
        _change_hosts(engine, container, add=member)
    if network.name == BRIDGE:
        linking.tell(engine, container)


def disconnect(engine: "Engine", network_name: str, reference: str, *, force: bool = False) -> None:
    """Disconnect a container from a network.

    Args:
        engine: where they are recorded.
        network_name: the network, by name or id.
        reference: the container, by name or id.
        force: go on where the container's own end is not there any more.

    Raises:
        NotFoundError: there is no such network or container, or it is not connected.
        InvalidArgumentError: it is the host's network.
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
        raise InvalidArgumentError(
            "container cannot be disconnected from host network or connected to host network"
        )
    member = member_of(members, network.id, container.id, network.name)
    if not container.is_active or not container.init_pid:
        engine.endpoints.leave(member, network)
        return
    try:
        with _running(engine, container) as (sandbox, _):
            _unplug(engine, sandbox, member)
            _unpin(engine, container, member)
            engine.endpoints.leave(member, network)
            if _rewire(engine, container, sandbox):
                resolution.request(engine.settings, container.id)
            _change_hosts(engine, container, remove=member)
    except (UnavailableError, OSError):
        if not force:
            raise
        _unpin(engine, container, member)
        engine.endpoints.leave(member, network)


def _unplug(engine: "Engine", sandbox: Sandbox, member: Member) -> None:
    """Take a link off a running container, if the membership has one."""
    if member.interface:
        engine.settings.tell(
            network_telling.of_unplugging, member.interface, member.network_name,
            member.container_id[:12],
        )  # fmt: skip
        sandbox.disconnect(member.interface)


def _unpin(engine: "Engine", container: "Container", member: Member) -> None:
    """Forget what pinned a link that has been cut off, while it is still on record."""
    plan = engine.endpoints.current(container.id)
    every = pins.of(plan.members, plan.networks, free=True)
    rest = [one for one in plan.members if one.id != member.id]
    kept = {one.place for one in pins.of(rest, plan.networks, free=True)}
    gone = [one for one in every if one.place not in kept]
    withdraw((), gone, say=engine.settings.say)


def _rewire(engine: "Engine", container: "Container", sandbox: Sandbox) -> bool:
    """Have a running container's ways out, and its published ports, where they belong now.

    Ports leave the packet filter before the database says where they lead now, and come back after,
    so that whatever happens in between the filter has nothing that the database does not know.
    Where no others can be had they come back as they were.

    Returns:
        Whether the container's monitor has to register it anew, since its ways have changed and
        another process leads to them.
    """
    plan = engine.endpoints.current(container.id)
    before = {member.network_id: set(member.gateway) for member in plan.members}
    choose_gateways(plan.members, plan.networks)
    ways = {member.network_id: member.gateway for member in plan.members}
    if ways == before and (plan.ports == [] or any(ways.values())):
        return False
    former, plan.ports = plan.ports, []
    withdraw(former, say=engine.settings.say)
    try:
        engine.endpoints.republish(
            container.id, container.record, plan, uplinks.within(engine.settings)
        )
    except BaseException:
        publishing.let_go(plan.taken)
        for port in former:
            port.owner = kernel.owner(engine.settings, container.id)
        transaction = kernel.let_through(engine.settings, engine.store, plan.links(), former)
        if transaction is not None:
            transaction.wait()
        raise
    try:
        leading = [
            endpoint(member, plan.networks[member.network_id])
            for member in plan.members
            if member.gateway
        ]
        led = [way for one in leading for way in network_telling.ways(one)]
        engine.settings.tell(network_telling.of_routes, led, container.id[:12])
        sandbox.remove_routes()
        for one in leading:
            sandbox.add_routes(one)
        if plan.ports:
            transaction = kernel.let_through(
                engine.settings, engine.store, plan.links(), plan.ports
            )
            if transaction is not None:
                transaction.wait()
            publishing.settle(plan.ports)
    finally:
        publishing.let_go(plan.taken)
    return bool(engine.settings.home)


@contextmanager
def _running(
    engine: "Engine", container: "Container"
) -> "Generator[tuple[Sandbox, Callable[[], None]]]":
    """The namespace of a container that runs, which nobody else connects or disconnects meanwhile.

    Yields:
        The namespace, and a check that the container still runs.

    Raises:
        UnavailableError: it does not run any more.
    """

    def check() -> None:
        if pidfd is None or await_readable(pidfd, 0):
            raise UnavailableError(f"container {container.name} is not running any more")

    with ExitStack() as held:
        pidfd = held.enter_context(open_process(container.init_pid, container.init_start_time))
        check()
        held.enter_context(hosts_file.locked(engine.settings, container.id))
        path = f"/proc/{container.init_pid}/ns/net"
        sandbox = held.enter_context(Sandbox(existing=path))
        name = container.id[:12]
        engine.settings.tell(network_telling.of_entrance, container.init_pid, name)
        held.callback(engine.settings.tell, network_telling.of_exit, name)
        check()  # else the pid may have been another process's by the time
        yield sandbox, check


def _change_hosts(
    engine: "Engine",
    container: "Container",
    *,
    add: Member | None = None,
    remove: Member | None = None,
) -> None:
    """Change a running container's own lines of /etc/hosts."""
    gone = {str(one.ip) for one in remove.addresses} if remove else set()
    added = ""
    if add:
        config = container.record["Config"]
        names = hostnames(config.get("Hostname", ""), config.get("Domainname", ""))
        added = "".join(f"{one.ip}\t{names}\n" for one in add.addresses)
    if gone or added:
        path = f"{engine.settings.container_directory(container.id)}/hosts"
        engine.settings.tell(telling.of_hosts, path, sorted(gone), added)
    hosts_file.change(engine.settings, container.id, lambda address, _: address in gone, added)


def _change_resolv_conf(engine: "Engine", container: "Container") -> None:
    """Name a running container's new name server in its /etc/resolv.conf, in place."""
    path = f"{engine.settings.container_directory(container.id)}/resolv.conf"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # the container has ended meanwhile
    text = resolution.resolv_conf(container.record["HostConfig"], named=True)
    engine.settings.tell(telling.of_resolv_conf, path, text)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.truncate()


def hostnames(hostname: str, domain: str) -> str:
    """What /etc/hosts calls a container."""
    names = f"{hostname}.{domain}" if domain else hostname
    return f"{names} {names.split('.', 1)[0]}" if "." in names else names
