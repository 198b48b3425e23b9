"""One engine: its places, its database, and what works on them."""

from ketch.engine.containers.containers import Containers
from ketch.engine.containers.execs import Execs
from ketch.engine.images.images import Images
from ketch.engine.networks.endpoints import Endpoints
from ketch.engine.networks.networks import Networks
from ketch.engine.records.store import Store
from ketch.engine.volumes.volumes import Volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.containers.ledger import Keeper
    from ketch.engine.settings import Settings


class Engine:
    """What every operation on one engine's containers needs.

    Args:
        settings: the engine's places.
        keeper: in whose name containers are kept; the calling process where None.
    """

    __slots__ = (
        "containers", "endpoints", "execs", "images", "networks", "settings", "store", "volumes",
    )  # fmt: skip

    def __init__(self, settings: "Settings", keeper: "Keeper | None" = None) -> None:
        self.settings = settings
        self.store = Store(settings.root)
        self.containers = Containers(settings, self.store, keeper)
        self.execs = Execs(self.store, self.containers)
        self.images = Images(settings, self.store)
        self.networks = Networks(settings, self.store)
        self.endpoints = Endpoints(settings, self.store)
        self.volumes = Volumes(settings, self.store)
