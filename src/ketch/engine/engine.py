"""One engine: its places, its database, and what works on them."""

from ketch.engine.containers.containers import Containers
from ketch.engine.containers.execs import Execs
from ketch.engine.images.images import Images
from ketch.engine.networks.endpoints import Endpoints
from ketch.engine.networks.networks import Networks
from ketch.engine.processes import ENDLESS, Patience
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
        patience: how the caller waits for what may take long.
    """

    __slots__ = (
        "containers", "endpoints", "execs", "images", "networks", "patience", "settings", "store",
        "volumes",
    )  # fmt: skip

    def __init__(
        self,
        settings: "Settings",
        keeper: "Keeper | None" = None,
        patience: Patience = ENDLESS,
    ) -> None:
        self.settings = settings
        self.patience = patience
        self.store = Store(settings.root)
        self.containers = Containers(settings, self.store, keeper, patience)
        self.execs = Execs(self.store, self.containers)
        self.images = Images(settings, self.store)
        self.networks = Networks(settings, self.store)
        self.endpoints = Endpoints(settings, self.store)
        self.volumes = Volumes(settings, self.store)
