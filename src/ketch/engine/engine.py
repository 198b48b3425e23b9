"""One engine: its places, its database, and what works on them."""

from functools import cached_property

from ketch.engine.images.images import Images
from ketch.engine.processes import ENDLESS, Patience
from ketch.engine.records.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.containers.containers import Containers
    from ketch.engine.containers.execs import Execs
    from ketch.engine.containers.ledger import Keeper
    from ketch.engine.networks.endpoints import Endpoints
    from ketch.engine.networks.networks import Networks
    from ketch.engine.settings import Settings
    from ketch.engine.volumes.volumes import Volumes


class Engine:
    """What every operation on one engine's containers needs.

    What only some need is loaded and made when it is asked for: a build of steps that are cached
    wants images alone.

    Args:
        settings: the engine's places.
        keeper: in whose name containers are kept; the calling process where None.
        patience: how the caller waits for what may take long.
    """

    def __init__(
        self,
        settings: "Settings",
        keeper: "Keeper | None" = None,
        patience: Patience = ENDLESS,
    ) -> None:
        self.settings = settings
        self.patience = patience
        self._keeper = keeper
        self.store = Store(settings.root)
        self.images = Images(settings, self.store)

    @cached_property
    def containers(self) -> "Containers":
        """What can be done to containers."""
        from ketch.engine.containers.containers import Containers  # noqa: PLC0415 - see above

        return Containers(self.settings, self.store, self._keeper, self.patience)

    @cached_property
    def execs(self) -> "Execs":
        """Further programs in containers."""
        from ketch.engine.containers.execs import Execs  # noqa: PLC0415 - see above

        return Execs(self.store, self.containers)

    @cached_property
    def networks(self) -> "Networks":
        """Which networks there are."""
        from ketch.engine.networks.networks import Networks  # noqa: PLC0415 - see above

        return Networks(self.settings, self.store)

    @cached_property
    def endpoints(self) -> "Endpoints":
        """Who is on them."""
        from ketch.engine.networks.endpoints import Endpoints  # noqa: PLC0415 - see above

        return Endpoints(self.settings, self.store)

    @cached_property
    def volumes(self) -> "Volumes":
        """Which volumes there are."""
        from ketch.engine.volumes.volumes import Volumes  # noqa: PLC0415 - see above

        return Volumes(self.settings, self.store)
