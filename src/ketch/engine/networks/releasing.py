"""The end of a container's connections: nothing of it may reach whoever gets its addresses next.

So links are cut off and ports leave the packet filter first, addresses and ports are given back
after.
"""

from ketch.engine.networks import pins
from ketch.engine.networks.endpoints import Endpoints
from ketch.linux import conntrack
from ketch.network import firewall
from ketch.network.sandbox import cut, delete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from ketch.engine.records.store import Store
    from ketch.engine.settings import Settings
    from ketch.linux.nftables import Element
    from ketch.network.ports import Port


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
    cut(plan.endpoints(), namespace)
    withdraw(plan.ports, pins.of(plan.members, plan.networks, free=True), late)
    endpoints.release(container_id, told=told)
    if left_behind:
        delete(plan.endpoints())


def withdraw(
    ports: "Sequence[Port]",
    pinned: "Sequence[Element]" = (),
    late: "ExitStack | None" = None,
) -> None:
    """Stop publishing ports, for connections that have been made by them as well.

    Args:
        ports: the ports.
        pinned: what pinned links that have been cut off, and is to go as well.
        late: takes what may wait for a while, to be closed when nobody waits any more.

    Raises:
        OSError: the kernel refused.
    """
    if ports or pinned:
        firewall.withdraw(ports, pinned, late=late)
    for address in {port.address for port in ports if not port.routed}:
        conntrack.forget(address)
