"""What the kernel has of the engine's networks: bridges, parents' links, the packet filter's sets.

It is not recorded: each start makes what is missing.
"""

from ketch.engine import configuration_file
from ketch.engine.networks import pins, publishing, reclaiming, records
from ketch.engine.networks.default import default_bridge
from ketch.linux import rtnetlink
from ketch.network import bridge as bridges
from ketch.network import firewall, ip_forward, parent, telling
from ketch.network.bridge import Bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.networks.records import Network
    from ketch.engine.records.store import Store
    from ketch.engine.settings import Settings
    from ketch.linux.nftables import Element, Transaction
    from ketch.network.parent import Parent
    from ketch.network.ports import Port

_SHORT_ID_LENGTH = 12


def make(settings: "Settings", store: "Store", network: "Network", host: rtnetlink.Socket) -> None:
    """Make what the kernel is to have of a new network.

    Args:
        settings: the engine's places.
        store: its database.
        network: as it is recorded.
        host: a socket in the host's network namespace.

    Raises:
        KetchError, OSError: the kernel refused, or nft did.
    """
    link = network.link()
    if isinstance(link, Bridge):
        transaction = let_through(settings, store, [link])
        alias = "" if link.kept else reclaiming.alias(settings)
        settings.tell(telling.of_bridge, link, alias)
        try:
            bridges.ensure(host, link, alias)
        except BaseException:
            if not network.record["kept"]:
                bridges.delete(host, link.name)
            raise
        finally:
            if transaction is not None:
                transaction.wait()
        if link.forwarded:
            settings.tell(telling.of_way_out, link)
        return
    _, made = link.ensure(host)
    settings.tell(telling.of_parent, link, made=made)
    if made:
        network.record["made"] = True
        with store.transaction() as connection:
            records.save(connection, network)


def unmake(settings: "Settings", store: "Store", network: "Network") -> None:
    """Take away what the kernel has of a network that is no longer recorded.

    Args:
        settings: the engine's places.
        store: its database.
        network: as it was recorded.

    Raises:
        OSError: the kernel refused.
    """
    if network.record.get("ConfigOnly"):
        return
    with rtnetlink.Socket() as host:
        if network.driver == "bridge":
            if not network.record.get("kept"):
                settings.tell(telling.of_bridge_removal, network.bridge)
                bridges.delete(host, network.bridge)
            link = network.link() if network.subnets else None
            known = link if isinstance(link, Bridge) else None
            firewall.forget(network.bridge, known, settings.say)
        elif network.record.get("made"):
            with store.reading() as connection:
                if not records.users(connection, network.bridge):
                    parent.delete(host, network.bridge)


def let_through(
    settings: "Settings",
    store: "Store",
    links: "Iterable[Bridge | Parent]",
    ports: "Iterable[Port]" = (),
    pinned: "Iterable[Element]" = (),
) -> "Transaction | None":
    """Have the packet filter let packets of networks and published ports through, and no others.

    Where the host does not forward packets yet, it is closed to all that is not a container's
    before somebody switches that on, which is when the first bridge is there.

    Args:
        settings: the engine's places.
        store: its database.
        links: of the networks; those that are no bridges need nothing.
        ports: the ports to be published from now on.
        pinned: what pins a container's ports from now on, see ``pins``.

    Returns:
        None when all is there already, else a transaction to be waited for.

    Raises:
        UnavailableError: nft is not installed.
        UnsupportedError: the kernel has no nftables.
    """
    wanted = firewall.Wanted([link for link in links if isinstance(link, Bridge)], ports, pinned)
    if not wanted.bridges:
        return None
    versions = {version for bridge in wanted.bridges for version in bridge.forwarded}
    closing = {version for version in versions if not ip_forward.is_on(version)}
    if closing and configuration_file.read(settings).get("ip-forward-no-drop"):
        closing.clear()
    transaction = firewall.ensure(
        wanted,
        lambda: _passing(settings, store),
        closing=closing,
        closed=ip_forward.remembered(settings.state) & versions,
        say=settings.say,
    )
    if closing:
        if transaction is not None:
            transaction.wait()
        ip_forward.remember(settings.state, closing)
        return None
    return transaction


def _passing(settings: "Settings", store: "Store") -> firewall.Wanted:
    """All that the packet filter is to have of this engine, by the database."""
    with store.reading() as connection:
        found = {network.id: network for network in records.every(connection)}
        published = publishing.recorded(connection)
        pinned = pins.recorded(connection, found, lambda one: owner(settings, one))
    links = [network.link() for network in found.values() if network.subnets]
    ports = []
    for container_id, own in published.items():
        for port in (one for one in own if not one.is_private):
            port.owner = owner(settings, container_id)
            ports.append(port)
    return firewall.Wanted(
        [link for link in links if isinstance(link, Bridge) and bridges.exists(link.name)],
        ports,
        pinned,
    )


def owner(settings: "Settings", container_id: str) -> str:
    """What the packet filter says of a container's ports: which engine's, and whose."""
    return f"{default_bridge(settings.root)} {container_id[:_SHORT_ID_LENGTH]}"
