"""The library's volumes."""

from typing import TYPE_CHECKING

from ketch.engine.volumes import listing
from ketch.library.options import as_filters
from ketch.library.resources import Collection, Resource

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping
    from typing import Any

    from ketch.engine.volumes.records import Volume as Record
    from ketch.library.places import Places


class Volume(Resource):
    """One volume. As a context manager, it is removed at the end.

    Attributes:
        id: its name.
        attrs: its document, as it was when it was last read, in the Docker API's keys.
    """

    def __init__(self, places: "Places", record: "Record") -> None:
        super().__init__(places, record.name)
        self._show(listing.document(record))

    def _leave(self) -> None:
        self.remove(force=True)

    @property
    def name(self) -> str:
        """Its name."""
        return self.id

    def reload(self) -> None:
        """Read it again."""
        self._show(listing.document(self._places.engine.volumes.find(self.id)))

    @property
    def mountpoint(self) -> str:
        """Where its data is."""
        return str(self.attrs["Mountpoint"])

    def remove(self, *, force: bool = False) -> None:
        """Remove it, and its data."""
        self._places.engine.volumes.remove(self.name, force=force)


class Volumes(Collection):
    """The volumes of an engine."""

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: "Mapping[str, str] | None" = None,
        labels: "Mapping[str, str] | None" = None,
    ) -> Volume:
        """Make a volume; one of that name that exists already is returned as it is.

        Args:
            name: its name; one is made up where this is empty.
            driver: ``local`` is the only one.
            options: ``type``, ``device`` and ``o`` as mount(8) has them.
            labels: its labels.
        """
        made = self._places.engine.volumes.create(
            name, driver=driver, options=dict(options or {}), labels=dict(labels or {})
        )
        return Volume(self._places, made)

    def get(self, name: str) -> Volume:
        """Returns the volume with this name."""
        return Volume(self._places, self._places.engine.volumes.find(name))

    def list(self, *, filters: "Mapping[str, Any] | None" = None) -> "builtins.list[Volume]":
        """Returns the volumes, by name; filters as those of ``ketch volume ls``."""
        found = listing.select(self._places.engine.volumes, as_filters(filters))
        return [Volume(self._places, record) for record in found]

    def prune(
        self,
        *,
        all: bool = False,  # noqa: A002 - Docker's word
        filters: "Mapping[str, Any] | None" = None,
    ) -> "tuple[builtins.list[str], int]":
        """Remove anonymous ones, or all, that no container has; returns names and bytes."""
        pruned = listing.prune(self._places.engine, as_filters(filters), everything=all)
        return pruned.names, pruned.freed_bytes
