"""The library's images."""

import contextlib
import os
import tempfile
from typing import IO, TYPE_CHECKING

from ketch.engine.images import archive as image_archive
from ketch.engine.images import ingest, inspection, listing, saving
from ketch.errors import InvalidArgumentError, NotFoundError, UnavailableError
from ketch.images.archive import TarSink
from ketch.images.registry import search as registry_search
from ketch.images.registry.credentials import Credentials
from ketch.images.registry.progress import Progress
from ketch.library import given, registries
from ketch.library.docker_names import lines
from ketch.library.options import as_filters
from ketch.library.registries import WhileWanted
from ketch.library.resources import Collection, Resource
from ketch.spec.filters import Filters

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, Unpack

    from ketch.build.progress import Event
    from ketch.engine.images.image import Image as Record
    from ketch.engine.images.removal import Events
    from ketch.images.registry.search import Found
    from ketch.images.tar import Stream
    from ketch.library.building import BuildEvent, Secret
    from ketch.library.keywords import BuildOptions
    from ketch.library.places import Places


class Image(Resource):
    """One image, as it was when it was last read. A ``with`` block takes its names away at the end.

    Attributes:
        id: digest of its configuration.
        attrs: its document, in the Docker API's keys.
    """

    def __init__(self, places: "Places", record: "Record") -> None:
        super().__init__(places, record.id)
        self._show(inspection.document(places.engine.images, record))

    def _leave(self) -> None:
        self.remove(force=True)

    @property
    def name(self) -> str:
        """Its first name with a tag, or the start of its ID where it has none."""
        return self.tags[0] if self.tags else self.short_id

    @property
    def short_id(self) -> str:
        """The start of its ID that people are shown."""
        return self.id.partition(":")[2][:12]

    @property
    def tags(self) -> list[str]:
        """Its names with a tag."""
        return list(self.attrs["RepoTags"])

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict((self.attrs.get("Config") or {}).get("Labels") or {})

    def reload(self) -> None:
        """Read it again."""
        images = self._places.engine.images
        self._show(inspection.document(images, images.resolve(self.id)))

    def tag(self, name: str) -> None:
        """Give it one more name; whatever had that name loses it."""
        self._places.engine.images.tag(self.id, name)
        self.reload()

    def history(self) -> "list[dict[str, Any]]":
        """Returns the steps by which it came about, the newest first."""
        images = self._places.engine.images
        return [
            {
                "Id": step.image_id, "CreatedBy": step.created_by, "Tags": step.tags,
                "Size": step.size_bytes, "Comment": step.comment, "CreatedNs": step.created_ns,
            }
            for step in inspection.history(images, images.resolve(self.id))
        ]  # fmt: skip

    def save(self, output: "str | os.PathLike[str] | IO[bytes]", *, platform: str = "") -> None:
        """Write it, with all its names, to an archive. Arguments as for ``Images.save``."""
        Images(self._places).save(self.tags or [self.id], output, platform=platform)

    def push(
        self, *, credentials: Credentials | None = None, progress: Progress | None = None
    ) -> "builtins.list[str]":
        """Push each of its names to its registry; returns the manifests' digests."""
        images = Images(self._places)
        return [images.push(name, credentials=credentials, progress=progress) for name in self.tags]

    def remove(self, *, force: bool = False) -> "Events":
        """Remove it; returns what happened: ``("Untagged", NAME)``, ``("Deleted", DIGEST)``."""
        return self._places.engine.images.remove(self.id, force=force)


class Images(Collection):
    """The images of an engine."""

    def get(self, name: str) -> Image:
        """Returns the image with this name, ID, or unique start of an ID.

        Raises:
            NotFoundError: there is none.
        """
        return Image(self._places, self._places.engine.images.resolve(name))

    def exists(self, name: str) -> bool:
        """Whether there is such an image."""
        try:
            self._places.engine.images.resolve(name)
        except (NotFoundError, InvalidArgumentError):
            return False
        return True

    def list(
        self,
        name: str = "",
        *,
        all: bool = False,  # noqa: A002 - Docker's word
        filters: "Mapping[str, Any] | None" = None,
    ) -> "list[Image]":
        """Returns the images, newest first.

        Args:
            name: only those with a name that fits, ``*`` and ``?`` included.
            all: those without a name that others were committed on as well.
            filters: as those of ``ketch images``; a value may be a list.
        """
        found = listing.select(
            self._places.engine.images, as_filters(filters), every=all, pattern=name
        )
        return [Image(self._places, record) for record in found]

    def import_(
        self,
        source: "str | os.PathLike[str] | bytes | Stream | IO[bytes]",
        name: str = "",
        *,
        changes: "str | Iterable[str]" = (),
        message: str = "",
        platform: str = "",
    ) -> Image:
        """Make an image of one layer from a root file system's tar archive.

        Args:
            source: a file's path, the archive itself, or what has a ``read`` method.
            name: its name, or empty for an image without one.
            changes: Dockerfile instructions that change its configuration.
            message: a comment, kept in its history.
            platform: ``os[/architecture[/variant]]``; this machine's where empty.
        """
        with contextlib.ExitStack() as held:
            path = given.path(source)
            stream = (
                given.file("source", source, "read") if path is None
                else held.enter_context(open(path, "rb"))
            )  # fmt: skip
            image_id = ingest.import_image(
                self._places.engine.images,
                stream,
                name,
                changes=lines(changes),
                message=message,
                platform=platform,
            )
        return self.get(image_id)

    def build(
        self,
        path: "str | os.PathLike[str] | IO[bytes]" = ".",
        *,
        dockerfile: str = "",
        dockerfile_text: "str | bytes | None" = None,
        secrets: "Mapping[str, Secret] | None" = None,
        ssh: "Mapping[str, str | os.PathLike[str]] | None" = None,
        credentials: Credentials | None = None,
        progress: "Callable[[Event], object] | None" = None,
        **options: "Unpack[BuildOptions]",
    ) -> Image:
        """Build an image from a Dockerfile.

        Args:
            path: the context: a directory, an address, or an archive to read.
            dockerfile: where the Dockerfile is in the context.
            dockerfile_text: the Dockerfile itself, in place of a file.
            secrets: what ``RUN --mount=type=secret`` finds, by id: contents, or path objects that
                lead to files.
            ssh: sockets of agents, or private keys, for ``RUN --mount=type=ssh``.
            credentials: who asks registries; Docker's ``config.json`` says it where None.
            progress: is given each event (``ketch.build.progress``), from any thread, one at a
                time.
            options: those of ``ketch build``, with ``_`` for ``-``.

        Raises:
            UnavailableError: the result goes elsewhere than into the store: see ``follow_build``.
            KetchError: it cannot be built.
        """
        from ketch.library import building  # noqa: PLC0415 - whoever builds pays for it

        asked = building.Asked(
            path, dockerfile, dockerfile_text, secrets or {}, ssh or {}, credentials, options
        )
        result = building.build(self._places, asked, progress)
        if not result.image_id:
            raise UnavailableError(
                "the result is in no store: what is asked for has gone elsewhere",
                "follow_build gives its digest",
            )
        return self.get(result.image_id)

    def follow_build(
        self,
        path: "str | os.PathLike[str] | IO[bytes]" = ".",
        *,
        dockerfile: str = "",
        dockerfile_text: "str | bytes | None" = None,
        secrets: "Mapping[str, Secret] | None" = None,
        ssh: "Mapping[str, str | os.PathLike[str]] | None" = None,
        credentials: Credentials | None = None,
        **options: "Unpack[BuildOptions]",
    ) -> "Iterator[BuildEvent]":
        """Build an image, and yield what is told of that; ``Built`` at last. Arguments as above.

        Who closes the iterator before its end calls the build off.
        """
        from ketch.build.request import Result  # noqa: PLC0415 - whoever builds pays for it
        from ketch.library import building  # noqa: PLC0415

        asked = building.Asked(
            path, dockerfile, dockerfile_text, secrets or {}, ssh or {}, credentials, options
        )
        for told in building.follow(self._places, asked):
            if not isinstance(told, Result):
                yield told
                continue
            image = self.get(told.image_id) if told.image_id else None
            yield building.Built(image, told.digest, told.metadata)

    def remove(self, name: str, *, force: bool = False) -> "Events":
        """Take away a name, and the image with its last one; returns what happened."""
        return self._places.engine.images.remove(name, force=force)

    def prune(
        self,
        *,
        all: bool = False,  # noqa: A002 - Docker's word
        filters: "Mapping[str, Any] | None" = None,
    ) -> "tuple[Events, int]":
        """Remove images that nobody uses; returns what happened, and the bytes reclaimed."""
        return listing.prune(self._places.engine.images, as_filters(filters), every=all)

    def pull(
        self,
        name: str,
        *,
        platform: str = "",
        credentials: Credentials | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Pull an image from a registry.

        Args:
            name: its name; with the tag ``latest`` where it has neither tag nor digest.
            platform: ``os[/architecture[/variant]]``; this machine's where empty.
            credentials: who asks; Docker's ``config.json`` says it where None.
            progress: who is told how far it is.
        """
        from ketch.engine.images.pulling import Puller  # noqa: PLC0415 - urllib3 and all

        with registries.opened(self._places, credentials) as reached:
            images = self._places.engine.images
            told = WhileWanted(self._places, progress)
            pulled = Puller(images, reached, told, platform=platform).pull(name)
        return self.get(str(pulled))

    def push(
        self,
        name: str,
        *,
        credentials: Credentials | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Push an image to its registry; returns its manifest's digest. Arguments as for pull."""
        from ketch.engine.images.pushing import Pusher  # noqa: PLC0415 - urllib3 and all

        engine = self._places.engine
        with registries.opened(self._places, credentials) as reached:
            told = WhileWanted(self._places, progress)
            return Pusher(engine.images, engine.store, reached, told).push(name).digest

    def save(
        self,
        names: "str | Iterable[str]",
        output: "str | os.PathLike[str] | IO[bytes]",
        *,
        platform: str = "",
    ) -> None:
        """Write images to an archive, which ``load`` and ``docker load`` take.

        Args:
            names: names and IDs.
            output: where it is written: a file's path, or what has a ``write`` method.
            platform: the platform they must be of, or empty.
        """
        texts = [names] if isinstance(names, str) else list(names)
        with contextlib.ExitStack() as held:
            path = given.path(output)
            file = (
                given.file("output", output, "write") if path is None
                else held.enter_context(open(path, "wb"))
            )  # fmt: skip
            sink = TarSink(file.write)
            saving.save(self._places.engine.images, texts, sink, platform=platform)

    def load(
        self,
        source: "str | os.PathLike[str] | bytes | IO[bytes]",
        *,
        platform: str = "",
        progress: Progress | None = None,
    ) -> "builtins.list[Image]":
        """Take images from an archive.

        Args:
            source: a file's path, the archive itself, or an open file, pipe or socket.
            platform: which of an image's platforms is taken; this machine's where empty.
            progress: who is told how far it is.
        """
        images = self._places.engine.images
        with contextlib.ExitStack() as held:
            if isinstance(source, (bytes, bytearray, memoryview)):
                file: IO[bytes] = held.enter_context(tempfile.TemporaryFile())
                file.write(source)
                file.seek(0)
            elif (path := given.path(source)) is not None:
                file = held.enter_context(open(path, "rb"))
            else:
                file = given.file("source", source, "fileno")
            told = WhileWanted(self._places, progress)
            archive = held.enter_context(images.opened_archive(file.fileno()))
            loaded = image_archive.load(images, archive, platform=platform, progress=told)
        return [self.get(one.id) for one in loaded]

    def search(
        self, term: str, *, limit: int = 0, filters: "Mapping[str, Any] | None" = None
    ) -> "builtins.list[Found]":
        """Ask Docker Hub, or the registry that the term begins with, for images.

        Args:
            term: what to look for.
            limit: no more than so many; 0 for the registry's own limit.
            filters: as those of ``ketch search``; a value may be a list.
        """
        chosen = Filters(as_filters(filters), registry_search.FILTERS)
        with registries.opened(self._places) as reached:
            return registry_search.search(reached, term, limit, chosen)
