"""The library's entrance: one engine."""

import os
import time
from typing import TYPE_CHECKING

from ketch.engine.home import entering, places
from ketch.engine.records import events
from ketch.engine.settings import Settings, is_ordinary
from ketch.engine.views import information
from ketch.images.registry import login as registry_login
from ketch.images.registry.credentials import Credentials
from ketch.library import given, registries
from ketch.library.containers import Containers
from ketch.library.images import Images
from ketch.library.networks import Networks
from ketch.library.options import as_filters
from ketch.library.places import Places
from ketch.library.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Any

    from ketch.library.container import Moment


class Engine:
    """One engine: its containers, images, networks and volumes.

    The same that the command line shows, and the API: there is no server in between, and none is
    needed. It can be used from several threads.

    Args:
        root: directory of what lasts; ``/var/lib/ketch``, an ordinary user's
            ``~/.local/share/ketch``, or what KETCH_ROOT says, where None.
        state: directory of what a reboot may lose; ``/run/ketch``, an ordinary user's
            ``$XDG_RUNTIME_DIR/ketch``, or KETCH_STATE, where None.
        zygote: whether starts may be asked of a warm helper process.

    Attributes:
        containers: the containers.
        images: the images.
        networks: the networks.
        volumes: the volumes.

    Raises:
        UnavailableError: an ordinary user's process cannot enter the user's namespaces, as the
            first engine of a process has it do: it has threads already, or there can be none.
    """

    def __init__(
        self, root: str | None = None, state: str | None = None, *, zygote: bool = True
    ) -> None:
        self._places = Places(_settings(root, state, zygote=zygote))
        self.images = Images(self._places)
        self.containers = Containers(self._places, self.images)
        self.networks = Networks(self._places)
        self.volumes = Volumes(self._places)

    def __enter__(self) -> "Engine":
        """Nothing more than itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:  # fmt: skip
        """Close this thread's connection."""
        self.close()

    def __reduce__(self) -> "tuple[Callable[..., Engine], tuple[str, str, bool]]":
        """How it crosses over to another process: as the same engine, with connections anew."""
        settings = self._places.settings
        return _at, (settings.root, settings.state, settings.zygote)

    def close(self) -> None:
        """Close this thread's connection to the database; the next use opens another."""
        self._places.close()

    def version(self) -> "dict[str, Any]":
        """Returns the document of ``version``, in the Docker API's keys."""
        return information.version()

    def info(self) -> "dict[str, Any]":
        """Returns the document of ``info``, in the Docker API's keys."""
        return information.info(self._places.engine)

    def disk_usage(self) -> "dict[str, Any]":
        """Returns what takes up room, in the Docker API's keys."""
        from ketch.build import disk_usage  # noqa: PLC0415 - rarely asked, and much to load

        return disk_usage.document(self._places.engine)

    def prune(
        self,
        *,
        all: bool = False,  # noqa: A002 - Docker's word
        volumes: bool = False,
        filters: "Mapping[str, Any] | None" = None,
    ) -> int:
        """Remove what nobody uses: containers that do not run, networks, images.

        Args:
            all: images that have a name as well.
            volumes: anonymous volumes as well.
            filters: as those of ``ketch system prune``; a value may be a list.

        Returns:
            How many bytes that gave back.
        """
        _, freed_bytes = self.containers.prune(filters=filters)
        self.networks.prune(filters=filters)
        if volumes:
            freed_bytes += self.volumes.prune(filters=filters)[1]
        return freed_bytes + self.images.prune(all=all, filters=filters)[1]

    def login(self, user: str, password: str, registry: str = "") -> None:
        """Show credentials to a registry and keep them where ``docker login`` does.

        Args:
            user: the user's name there.
            password: a password or an access token.
            registry: its host; Docker Hub where empty.

        Raises:
            UnauthenticatedError: the registry does not believe them.
        """
        host = registry_login.registry_host(registry)
        with registries.opened(self._places) as reached:
            kept = registry_login.log_in(reached, host, Credentials(user, password))
            reached.credential_file().set(host, kept)

    def logout(self, registry: str = "") -> None:
        """Forget the credentials for a registry; for Docker Hub where empty."""
        with registries.opened(self._places) as reached:
            reached.credential_file().erase(registry_login.registry_host(registry))

    def events(
        self,
        *,
        since: "Moment" = "",
        until: "Moment" = "",
        filters: "Mapping[str, Any] | None" = None,
    ) -> "Iterator[dict[str, Any]]":
        """Yield events as they happen, in the Docker API's keys.

        Args:
            since: replay from this time on, or for how long back, ``10m`` or a timedelta.
            until: end at this time; never where empty.
            filters: as those of ``ketch events``; a value may be a list.
        """
        now_ns = time.time_ns()
        fits = events.chooser(as_filters(filters))
        for found in events.stream(
            self._places.engine.store,
            since_ns=given.moment("since", since, now_ns),
            until_ns=given.moment("until", until, now_ns),
            patience=self._places.patience,
        ):
            yield from (event.document() for event in found if fits(event))


def _settings(root: str | None, state: str | None, *, zygote: bool) -> Settings:
    """Returns which engine is meant; an ordinary user's process has entered its namespaces then."""
    usual, home = ("/var/lib/ketch", "/run/ketch"), ""
    if ordinary := is_ordinary():
        usual, home = (places.root(), places.state()), places.configuration()
    settings = Settings(
        root or os.environ.get("KETCH_ROOT") or usual[0],
        state or os.environ.get("KETCH_STATE") or usual[1],
        zygote=zygote,
        home=home,
    )
    if ordinary:
        entering.enter(settings, network=False)
    return settings


def _at(root: str, state: str, zygote: bool) -> Engine:
    return Engine(root, state, zygote=zygote)
