"""The end of a container's connections: nothing of it may reach whoever gets its addresses next.

So links are cut off and ports leave the packet filter first, addresses and ports are given back
after.
"""

from ketch.engine.networks.endpoints import Endpoints
from ketch.linux import conntrack
from ketch.network import firewall
from ketch.network.sandbox import cut, delete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.records.store import Store
    from ketch.engine.settings import Settings
    from ketch.network.ports import Port


def release(
    store: "Store",
    settings: "Settings",
    container_id: str,
    namespace: int = -1,
    *,
    left_behind: bool = False,
) -> None:
    """Give back what a container that no longer runs had of networks; nothing will do.

    Args:
        store: where it is recorded.
        settings: the engine's places.
        container_id: the container's.
        namespace: descriptor of its network namespace, if somebody has it.
        left_behind: whether nobody is left who could delete its links later, see ``sandbox.bury``.

    Raises:
        OSError: the kernel refused.
    """
    endpoints = Endpoints(settings, store)
    plan = endpoints.current(container_id)
    cut(plan.endpoints(), namespace)
    if plan.ports:
        withdraw(plan.ports)
    endpoints.release(container_id)
    if left_behind:
        delete(plan.endpoints())


def withdraw(ports: "Sequence[Port]") -> None:
    """Stop publishing ports, for connections that have been made by them as well.

    Raises:
        OSError: the kernel refused.
    """
    firewall.withdraw(ports)
    for address in {port.address for port in ports if not port.routed}:
        conntrack.forget(address)
