"""The library's networks."""

from typing import TYPE_CHECKING

from ketch.engine.home import entering
from ketch.engine.networks import connecting, listing
from ketch.engine.networks import settings as network_settings
from ketch.library.docker_names import paired, texts
from ketch.library.options import as_filters
from ketch.library.resources import Collection, Resource

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ketch.engine.networks.records import Network as Record
    from ketch.library.container import Container
    from ketch.library.places import Places


class Network(Resource):
    """One network. As a context manager, it is removed at the end, its containers let go of.

    Attributes:
        id: 64 hexadecimal digits.
        attrs: its document, as it was when it was last read, in the Docker API's keys.
    """

    def __init__(self, places: "Places", record: "Record") -> None:
        super().__init__(places, record.id)
        self._show(network_settings.network(places.engine, record))

    def _leave(self) -> None:
        self.reload()
        for container_id in self.containers:
            self.disconnect(container_id, force=True)
        self.remove()

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.attrs["Name"])

    @property
    def containers(self) -> "builtins.list[str]":
        """The identifiers of the running containers on it, when it was last read."""
        return list(self.attrs.get("Containers") or {})

    def reload(self) -> None:
        """Read it again."""
        engine = self._places.engine
        self._show(network_settings.network(engine, engine.networks.find(self.id)))

    def connect(
        self,
        container: "str | Container",
        *,
        aliases: "str | Iterable[str]" = (),
        ipv4: str = "",
        ipv6: str = "",
        links: "str | Iterable[str] | Mapping[str, str | None]" = (),
        link_local: "str | Iterable[str]" = (),
        options: "Mapping[str, str] | None" = None,
        gateway_priority: int = 0,
    ) -> None:
        """Connect a container, running or not.

        Args:
            container: it, or its name or ID.
            aliases: names that it gets on this network besides its own.
            ipv4: the address that it is to have; one is leased where empty.
            ipv6: likewise.
            links: ``NAME[:ALIAS]`` of containers that it gets to know by these names, or a mapping
                of the one to the other.
            link_local: link-local addresses that it gets as well.
            options: the driver's, for this connection.
            gateway_priority: the network with the highest one leads it elsewhere.
        """
        addresses = {
            "IPv4Address": ipv4, "IPv6Address": ipv6, "LinkLocalIPs": texts(link_local),
        }  # fmt: skip
        asked: dict[str, Any] = {
            "Aliases": texts(aliases),
            "Links": paired(links, ":"),
            "DriverOpts": dict(options or {}),
            "GwPriority": gateway_priority,
            "IPAMConfig": {name: value for name, value in addresses.items() if value},
        }
        settings = {name: value for name, value in asked.items() if value}
        reference = _reference(container)
        entering.with_engine(
            self._places.engine,
            lambda engine: connecting.connect(engine, self.id, reference, settings),
        )
        self.reload()

    def disconnect(self, container: "str | Container", *, force: bool = False) -> None:
        """Disconnect a container: it, or its name or ID."""
        reference = _reference(container)
        entering.with_engine(
            self._places.engine,
            lambda engine: connecting.disconnect(engine, self.id, reference, force=force),
        )
        self.reload()

    def remove(self) -> None:
        """Remove it."""
        entering.with_engine(self._places.engine, lambda engine: engine.networks.remove(self.id))


def _reference(container: "str | Container") -> str:
    return container if isinstance(container, str) else container.id


class Networks(Collection):
    """The networks of an engine."""

    def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnets: "Iterable[Mapping[str, str]]" = (),
        internal: bool = False,
        attachable: bool = False,
        ipv4: bool = True,
        ipv6: bool = False,
        config_only: bool = False,
        config_from: str = "",
        options: "Mapping[str, str] | None" = None,
        labels: "Mapping[str, str] | None" = None,
    ) -> Network:
        """Make a network.

        Args:
            name: its name.
            driver: ``bridge``, ``macvlan`` or ``ipvlan``.
            subnets: ``{"Subnet": ..., "Gateway": ..., "IPRange": ...}`` each; one is chosen where
                there is none.
            internal: whether it leads nowhere else.
            attachable: for swarms; kept and shown.
            ipv4: whether it has IPv4 addresses.
            ipv6: whether it has IPv6 addresses.
            config_only: whether it is only the settings of others that are made from it.
            config_from: the name of a network that is only settings, to make it from.
            options: the driver's.
            labels: its labels.
        """
        document: dict[str, Any] = {
            "Name": name, "Driver": driver, "Internal": internal, "EnableIPv6": ipv6,
            "EnableIPv4": ipv4, "Attachable": attachable, "ConfigOnly": config_only,
            "Options": dict(options or {}), "Labels": dict(labels or {}),
        }  # fmt: skip
        if configuration := [dict(subnet) for subnet in subnets]:
            document["IPAM"] = {"Config": configuration}
        if config_from:
            document["ConfigFrom"] = {"Network": config_from}
        network, _ = entering.with_engine(
            self._places.engine, lambda engine: engine.networks.create(document)
        )
        return Network(self._places, network)

    def get(self, name: str) -> Network:
        """Returns the network with this name, id, or unique start of an id."""
        return Network(self._places, self._places.engine.networks.find(name))

    def list(self, *, filters: "Mapping[str, Any] | None" = None) -> "builtins.list[Network]":
        """Returns the networks, by name; filters as those of ``ketch network ls``."""
        engine = self._places.engine
        found = listing.select(engine.networks, engine.endpoints, as_filters(filters))
        return [Network(self._places, record) for record in found]

    def prune(self, *, filters: "Mapping[str, Any] | None" = None) -> "builtins.list[str]":
        """Remove those that nobody is on; returns their names."""
        pairs = as_filters(filters)
        return entering.with_engine(
            self._places.engine,
            lambda engine: listing.prune(engine.networks, engine.endpoints, pairs),
        )
