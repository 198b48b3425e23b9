"""The library's networks."""

from typing import TYPE_CHECKING

from ketch.engine.networks import listing, wiring
from ketch.engine.networks import settings as network_settings
from ketch.library.options import as_filters

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ketch.engine.networks.networks import Network as Record
    from ketch.library.places import Places


class Network:
    """One network.

    Attributes:
        id: 64 hexadecimal digits.
        attrs: its document, as it was when it was last read, in the Docker API's keys.
    """

    def __init__(self, places: "Places", record: "Record") -> None:
        self._places = places
        self.id = record.id
        self.attrs: dict[str, Any] = network_settings.network(places.engine, record)

    def __repr__(self) -> str:
        """Its name."""
        return f"<Network {self.name}>"

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.attrs["Name"])

    def reload(self) -> None:
        """Read it again."""
        engine = self._places.engine
        self.attrs = network_settings.network(engine, engine.networks.find(self.id))

    def connect(
        self, container: str, *, aliases: "Iterable[str]" = (), ipv4: str = "", ipv6: str = ""
    ) -> None:
        """Connect a container, by name or id.

        Args:
            container: it.
            aliases: names that it gets on this network besides its own.
            ipv4: the address that it is to have; one is leased where empty.
            ipv6: likewise.
        """
        addresses = {"IPv4Address": ipv4, "IPv6Address": ipv6}
        settings: dict[str, Any] = {
            "Aliases": list(aliases),
            "IPAMConfig": {name: value for name, value in addresses.items() if value},
        }
        wiring.connect(self._places.engine, self.id, container, settings)
        self.reload()

    def disconnect(self, container: str, *, force: bool = False) -> None:
        """Disconnect a container, by name or id."""
        wiring.disconnect(self._places.engine, self.id, container, force=force)
        self.reload()

    def remove(self) -> None:
        """Remove it."""
        self._places.engine.networks.remove(self.id)


class Networks:
    """The networks of an engine."""

    def __init__(self, places: "Places") -> None:
        self._places = places

    def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnets: "Iterable[Mapping[str, str]]" = (),
        internal: bool = False,
        ipv6: bool = False,
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
            ipv6: whether it has IPv6 addresses.
            options: the driver's.
            labels: its labels.
        """
        document: dict[str, Any] = {
            "Name": name, "Driver": driver, "Internal": internal, "EnableIPv6": ipv6,
            "Options": dict(options or {}), "Labels": dict(labels or {}),
        }  # fmt: skip
        if configuration := [dict(subnet) for subnet in subnets]:
            document["IPAM"] = {"Config": configuration}
        network, _ = self._places.engine.networks.create(document)
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
        engine = self._places.engine
        return listing.prune(engine.networks, engine.endpoints, as_filters(filters))
