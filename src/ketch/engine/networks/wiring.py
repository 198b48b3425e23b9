"""A starting container's connections: what the kernel is to have of its endpoints.

Addresses and ports are leased in one transaction of the database; nft is set to work on rules and
ports where there are any to write; meanwhile the namespace is made and wired; ``Wiring.settle``
waits for nft. ``ketch.engine.networks.releasing`` takes it all away.
"""

import errno
from contextlib import ExitStack, contextmanager

from ketch.engine.networks import kernel, linking, pins, publishing, reclaiming
from ketch.engine.networks.plan import Plan
from ketch.engine.networks.records import BRIDGE
from ketch.errors import KetchError, PermissionDeniedError, UnavailableError, in_words
from ketch.network import pinning, telling
from ketch.network.bridge import Bridge
from ketch.network.sandbox import Sandbox
from ketch.network.uplink.outside import NoWayOutError
from ketch.spec.endpoints import is_container, is_private
from ketch.spec.hosts import HOST_GATEWAY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from typing import Any, Self

    from ketch.engine.engine import Engine
    from ketch.engine.networks.uplinks import Uplink
    from ketch.engine.records.rows import Container
    from ketch.linux.nftables import Transaction
    from ketch.network.ports import Port
    from ketch.spec.told import Say


class Wiring:
    """What a starting container holds of networks.

    Attributes:
        sandbox: its network namespace; None where it has the host's or another container's.
        addresses: its own addresses, for /etc/hosts.
        gateways: the host's addresses as it reaches them, for ``host-gateway``.
        links: what it is told of containers linked by ``--link``.
        taken: descriptors of sockets that keep its published ports from others. While they are
            open nobody else of the host can have these ports; nothing else depends on them.
        servers: name servers that a program of its own brings; else the engine's answers.
        uplink: what leads out of the network that the caller is in.
        warning: what it does without, to be told; empty mostly.
    """

    __slots__ = (
        "_opened", "_ports", "_transaction", "addresses", "gateways", "links", "sandbox", "servers",
        "taken", "uplink", "warning",
    )  # fmt: skip

    def __init__(self, uplink: "Uplink") -> None:
        self.sandbox: Sandbox | None = None
        self.addresses: list[str] = []
        self.gateways: list[str] = []
        self.links: list[linking.Link] = []
        self.taken: list[int] = []
        self.warning = ""
        self.servers: list[str] = []
        self.uplink = uplink
        self._transaction: Transaction | None = None
        self._ports: Sequence[Port] = ()
        self._opened = ExitStack()

    def __enter__(self) -> "Self":
        """Own it for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @property
    def named(self) -> bool:
        """Whether the engine's name server answers there."""
        return bool(self.addresses) and not self.servers

    def own(self, sandbox: Sandbox) -> Sandbox:
        """Hold the container's namespace, until ``close``."""
        self.sandbox = self._opened.enter_context(sandbox)
        return sandbox

    def settle(self) -> None:
        """Wait until packet filter and way out are what the container needs; mostly they are.

        To be called before the process waits for just any child of its own: nft is one.

        Raises:
            PermissionDeniedError: the caller may not change the packet filter.
            UnavailableError: nft failed.
            OSError: the kernel refused.
        """
        try:
            self.uplink.await_way()
        except NoWayOutError as error:
            self.warning = f"its networks lead to other containers alone: {error}"
        if self._transaction is not None:
            transaction, self._transaction = self._transaction, None
            transaction.wait()
        publishing.settle(self._ports)
        self.uplink.publish(self._ports, self.taken)

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
    uplink: "Uplink",
    say: "Say | None" = None,
    *,
    owner: int | None = None,
) -> Wiring:
    """Lease and make all that a container gets of networks; ``release`` gives it back.

    Args:
        engine: where it is recorded.
        container: the container, which does not run.
        uplink: what leads out of the network that the caller is in.
        say: takes what is told of each step, when it begins.
        owner: descriptor of its user namespace, or None for the host's.

    Returns:
        What the start holds: to be settled before the program starts, and closed.

    Raises:
        NotFoundError: a network is no more.
        ConflictError: an address or a port is somebody else's.
        UnavailableError: no address is free; nft failed.
        KetchError, OSError: the kernel refused a step.
    """
    with ExitStack() as undo:
        wiring = connect(engine, container.id, container.record, uplink, say, owner=owner)
        undo.callback(wiring.close)
        if not is_container(_mode(container.record)):
            wiring.links = linking.links_of(engine, container)
            linking.tell(engine, container)
        undo.pop_all()
    return wiring


def connect(
    engine: "Engine",
    container_id: str,
    record: "Mapping[str, Any]",
    uplink: "Uplink",
    say: "Say | None" = None,
    *,
    owner: int | None = None,
    told: bool = True,
) -> Wiring:
    """Lease and make what a container gets of networks, or whoever stands in its place.

    Args:
        engine: where it is recorded.
        container_id: its id, or the sandbox's.
        record: its request, completed.
        uplink: what leads out of the network that the caller is in.
        say: takes what is told of each step, when it begins.
        owner: descriptor of its user namespace, or None for the host's.
        told: whether there are events of it.

    Returns and raises what ``prepare`` does.
    """
    wiring = Wiring(uplink)
    if is_container(_mode(record)):
        return wiring
    if is_private(_mode(record)):
        with _refusals_explained():
            from ketch.engine.networks import private  # noqa: PLC0415 - few ask for that

            private.connect(engine, container_id, record, wiring, say, owner)
        return wiring
    with _refusals_explained(), ExitStack() as undo:
        undo.callback(wiring.close)
        plan = _acquire(engine, container_id, record, uplink, told=told)
        undo.callback(plan.turn.close)
        wiring.taken = plan.taken
        if plan.leads_out:
            uplink.ask_way()
        if any(HOST_GATEWAY in one for one in record["HostConfig"].get("ExtraHosts") or ()):
            wiring.gateways = uplink.own_addresses() or _host_gateways(engine, plan)
        if not any(network.driver == "host" for network in plan.networks.values()):
            if say:
                say(telling.of_namespace(container_id[:12]))
            wiring._transaction = kernel.let_through(
                engine.settings, engine.store, plan.links(), plan.ports,
                pins.of(
                    plan.members, plan.networks,
                    free=pins.is_free(record), owner=kernel.owner(engine.settings, container_id),
                ),
            )  # fmt: skip
            wiring._ports = plan.ports
            has_ipv6 = any(
                address.version == 6 for one in plan.members for address in one.addresses
            )
            sandbox = wiring.own(Sandbox(ipv6=has_ipv6, owner=owner))
            reclaiming.make(engine.settings, plan.links())
            for one in plan.endpoints():
                if say:
                    say(telling.of_link(one, container_id[:12]))
                sandbox.connect(one)
            plan.turn.close()
            if say:
                _tell_ways(plan, say)
        wiring.addresses = [
            str(address.ip) for member in plan.members for address in member.addresses
        ]
        undo.pop_all()
        plan.turn.close()
    return wiring


def free(engine: "Engine", home: "Container") -> None:
    """Let a container have addresses of its own choice: who shares its network may give it some.

    Args:
        engine: where it is recorded.
        home: the container, which runs.
    """
    plan = engine.endpoints.current(home.id)
    wanted = pinning.free(plan.endpoints())
    if wanted:
        transaction = kernel.let_through(engine.settings, engine.store, plan.links(), (), wanted)
        if transaction is not None:
            transaction.wait()


def _mode(record: "Mapping[str, Any]") -> str:
    mode: str = record["HostConfig"].get("NetworkMode") or BRIDGE
    return mode


def _acquire(
    engine: "Engine",
    container_id: str,
    record: "Mapping[str, Any]",
    uplink: "Uplink",
    *,
    told: bool,
) -> Plan:
    """Lease, if need be what containers no longer use whose end nobody saw."""
    try:
        return engine.endpoints.acquire(container_id, record, uplink, told=told)
    except UnavailableError:
        from ketch.engine.networks import sandboxes  # noqa: PLC0415 wanted by few

        sandboxes.clean(engine.settings, engine.store)
        alive = [one.id for one in engine.containers.list()]
        return engine.endpoints.acquire(container_id, record, uplink, alive, told=told)


def _host_gateways(engine: "Engine", plan: Plan) -> list[str]:
    """The host's addresses as a container reaches them: on its way out, else the default bridge."""
    for member in plan.members:
        network = plan.networks[member.network_id]
        if member.gateway and network.driver == "bridge":
            return [str(one.gateway) for one in network.subnets
                    if one.gateway and one.subnet.version in member.gateway]  # fmt: skip
    gateway = engine.networks.find(BRIDGE).gateway
    return [str(gateway)] if gateway else []


def _tell_ways(plan: Plan, say: "Say") -> None:
    """Tell how packets get out of the networks, and in by the published ports."""
    for link in plan.links():
        if isinstance(link, Bridge) and link.forwarded:
            say(telling.of_way_out(link))
    for port in plan.ports:
        say(telling.of_port(port, publishing.spoken(port)))


@contextmanager
def _refusals_explained() -> "Generator[None, None, None]":
    try:
        yield
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        raise PermissionDeniedError(
            f"its network cannot be set up: {in_words(error)}",
            "that takes CAP_NET_ADMIN and CAP_SYS_ADMIN there, as unshare --net gives them; "
            "--network none and --network host need neither",
        ) from error
