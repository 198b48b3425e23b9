"""The end of a container's connections: nothing of it may reach whoever gets its addresses next.

So links are cut off and ports leave the packet filter first, addresses and ports are given back
after.
"""

import errno

from ketch.engine.home import entering
from ketch.engine.networks import pins
from ketch.engine.networks.endpoints import Endpoints
from ketch.errors import UnsupportedError
from ketch.linux import conntrack, rtnetlink
from ketch.network import firewall, telling
from ketch.network.bridge import Bridge
from ketch.network.sandbox import cut, delete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from ketch.engine.records.store import Store
    from ketch.engine.settings import Settings
    from ketch.linux.nftables import Element
    from ketch.network.ports import Port
    from ketch.network.sandbox import Endpoint
    from ketch.spec.told import Say


def release(
    store: "Store",
    settings: "Settings",
    container_id: str,
    namespace: int = -1,
    *,
    left_behind: bool = False,
    late: "ExitStack | None" = None,
    told: bool = True,
) -> None:
    """Give back what a container that no longer runs had of networks; nothing will do.

    Args:
        store: where it is recorded.
        settings: the engine's places.
        container_id: the container's.
        namespace: descriptor of its network namespace, if somebody has it.
        left_behind: whether nobody is left who could delete its links later, see ``sandbox.bury``.
        late: takes what may wait for a while, to be closed when nobody waits any more.
        told: whether there are events of it.

    Raises:
        OSError: the kernel refused.
    """
    endpoints = Endpoints(settings, store)
    plan = endpoints.current(container_id)
    freed = pins.of(plan.members, plan.networks, free=True)
    ends = plan.endpoints()

    def cut_off() -> None:
        try:
            cut(ends, namespace)
            public = [one for one in plan.ports if not one.is_private]
            withdraw(public, freed, late, settings.say)
        except (UnsupportedError, OSError) as error:
            if not _was_never_there(ends, error):
                raise

    for one in ends:
        settings.tell(telling.of_cut, one)
    for port in plan.ports:
        settings.tell(telling.of_withdrawal, port)
    entering.in_network(settings, cut_off)
    endpoints.release(container_id, told=told)
    if left_behind:
        entering.in_network(settings, lambda: delete(ends))


def _was_never_there(endpoints: "Sequence[Endpoint]", error: Exception) -> bool:
    """Whether nothing was withdrawn since nothing of it has come about.

    So it is after a start that failed for the very reason for which this failed: a kernel without
    nftables, which then holds nothing; a caller who may change nothing, so that there are neither
    links nor the bridges that come before everything else.
    """
    if isinstance(error, UnsupportedError):
        return True
    if not isinstance(error, OSError) or error.errno != errno.EPERM:
        return False
    with rtnetlink.Socket() as host:
        return all(
            isinstance(one.link, Bridge)
            and host.link(one.port) is None
            and host.link(one.link.name) is None
            for one in endpoints
        )


def withdraw(
    ports: "Sequence[Port]",
    pinned: "Sequence[Element]" = (),
    late: "ExitStack | None" = None,
    say: "Say | None" = None,
) -> None:
    """Stop publishing ports, for connections that have been made by them as well.

    Args:
        ports: the ports.
        pinned: what pinned links that have been cut off, and is to go as well.
        late: takes what may wait for a while, to be closed when nobody waits any more.
        say: takes what is told of each step.

    Raises:
        OSError: the kernel refused.
    """
    if ports or pinned:
        firewall.withdraw(ports, pinned, late=late, say=say)
    for address in {port.address for port in ports if not port.routed}:
        conntrack.forget(address)
