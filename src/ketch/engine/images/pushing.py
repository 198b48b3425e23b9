"""Pushing: an image's layers, its configuration and its manifest into a registry, in that order.

The manifest goes as it came, so an image that was pulled keeps its digest. Layers that are stored
uncompressed, as imports of plain archives are, travel with gzip; the manifest then says so.
"""

import contextlib
import functools
import time
from typing import NamedTuple

from ketch.errors import InvalidArgumentError, KetchError, NotFoundError
from ketch.images import compression
from ketch.images.registry import push as blobs
from ketch.images.registry.progress import Progress
from ketch.images.registry.workers import AbandonedError, Workers
from ketch.linux import sparse
from ketch.spec import image as documents
from ketch.spec import platforms
from ketch.spec import reference as references
from ketch.spec.digest import short
from ketch.spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future

    from ketch.engine.images.image import Image
    from ketch.engine.images.images import Images
    from ketch.engine.records.store import Store
    from ketch.images.registry.registries import Registries
    from ketch.images.registry.repository import Repository
    from ketch.spec.image import Descriptor

_COMPRESSED = {
    documents.OCI_LAYER: f"{documents.OCI_LAYER}+gzip",
    documents.DOCKER_LAYER: f"{documents.DOCKER_LAYER}.gzip",
}
_REPORT_BYTES = 1 << 19
_THERE, _SENT = "it was there", "it was sent"


class Pushed(NamedTuple):
    """What a push came to.

    Attributes:
        tag: which was pushed.
        digest: of its manifest.
        size_bytes: the manifest's length.
    """

    tag: str
    digest: str
    size_bytes: int


class Pusher:
    """Pushes an engine's images.

    Args:
        images: where they are.
        store: the same engine's database.
        registries: where they go, and who asks.
        progress: who is told, in Docker's words.
        platform: ``os[/architecture[/variant]]`` that the images must be for; any where empty.
    """

    __slots__ = ("_images", "_platform", "_progress", "_registries", "_store")

    def __init__(
        self,
        images: "Images",
        store: "Store",
        registries: "Registries",
        progress: Progress | None = None,
        *,
        platform: str = "",
    ) -> None:
        self._images = images
        self._platform = documents.parse_platform(platform) if platform else None
        self._store = store
        self._registries = registries
        self._progress = progress or Progress()

    def push(self, text: str) -> Pushed:
        """Push one image.

        Args:
            text: its name, with the tag ``latest`` where it has none.

        Raises:
            InvalidArgumentError: the name is malformed, or has a digest.
            NotFoundError: there is no such image.
            UnauthenticatedError: the registry wants to know who asks, or does not believe it.
            PermissionDeniedError: the registry does not allow it.
            UnavailableError: the registry cannot be reached.
        """
        name = references.parse(text)
        if name.digest:
            raise InvalidArgumentError("cannot push a digest reference")
        name = name.tagged()
        self._tell_begin(name)
        try:
            return self._push(name)
        finally:
            self._images.collect_garbage()  # what others could not while this went on, and its own

    def push_all(self, text: str) -> list[Pushed]:
        """Push every tag of a repository.

        Raises:
            InvalidArgumentError: the name has a tag; and whatever ``push`` raises.
        """
        repository = references.parse(text)
        if repository.tag or repository.digest:
            raise InvalidArgumentError("tag can't be used with --all-tags/-a")
        self._tell_begin(repository)
        try:
            return [self._push(name) for name in sorted(self._tags(repository), key=str)]
        finally:
            self._images.collect_garbage()

    def _tags(self, repository: Reference) -> list[Reference]:
        """Returns the names with tags that there are of a repository.

        Raises:
            NotFoundError: there are none.
        """
        names = [
            name
            for image in self._images.list()
            for name in map(references.parse, image.names)
            if name.name == repository.name and not name.digest
        ]
        if not names:
            raise NotFoundError(
                f"An image does not exist locally with the tag: {repository.familiar_name}"
            )
        return names

    def _push(self, name: Reference) -> Pushed:
        repository = self._registries.repository(name, push=True)
        try:
            image = self._images.resolve(str(name))
        except NotFoundError as error:
            self._tags(name)
            raise NotFoundError(f"tag does not exist: {name.familiar}") from error
        self._check_platform(image, name)
        # What is read must not be deleted meanwhile.
        with self._images.adding(), contextlib.ExitStack() as stack:
            content = self._images.content.read(image.manifest_digest)
            manifest = documents.parse_manifest(content)
            media_type = manifest.get("mediaType", documents.OCI_MANIFEST)
            for layer in manifest["layers"]:
                self._images.content.size_bytes(layer["digest"])  # or say that it is missing
            layers = self._send_layers(repository, name, image, manifest["layers"], stack)
            config, began_ns = manifest["config"], time.monotonic_ns()
            sent = blobs.send_missing(
                repository, self._images.content, config["digest"],
                attempts=self._registries.configuration.attempts,
            )  # fmt: skip
            self._tell(repository, config["digest"], config, _SENT if sent else _THERE,
                       "the configuration", began_ns)  # fmt: skip
            if layers != manifest["layers"]:
                content = documents.encode({**manifest, "mediaType": media_type, "layers": layers})
            digest = repository.put_manifest(name.tag, media_type, content)
            if self._images.settings.say:
                from ketch.engine.images import telling  # noqa: PLC0415 - seldom wanted

                path = self._images.content.path(image.manifest_digest)
                self._images.settings.tell(
                    telling.of_sent_manifest, repository, name, digest, path, media_type
                )
            self._record(image, name, digest)
        self._images.publish_index()
        pushed = Pushed(name.tag, digest, len(content))
        self._progress.say("", f"{name.tag}: digest: {digest} size: {len(content)}")
        return pushed

    def _check_platform(self, image: "Image", name: Reference) -> None:
        found = documents.platform_of(image.document)
        if self._platform is not None and not platforms.matches(found, self._platform):
            raise NotFoundError(
                f"image with reference {name.familiar} was found but its platform"
                f" ({platforms.shown(found)}) does not match the specified platform"
                f" ({platforms.shown(self._platform)})"
            )

    def _send_layers(
        self,
        repository: "Repository",
        name: Reference,
        image: "Image",
        layers: "list[Descriptor]",
        stack: contextlib.ExitStack,
    ) -> "list[Descriptor]":
        """Send what the registry lacks; returns the layers' descriptors as they are there."""
        shown = [short(diff_id) for diff_id in image.document["rootfs"]["diff_ids"]]
        for layer_name in reversed(shown):
            self._progress.say(layer_name, "Preparing")
        sources = self._sources(name)
        at_once = self._registries.configuration.concurrent_uploads
        for layer_name in shown[::-1][at_once:]:
            self._progress.say(layer_name, "Waiting")
        workers = stack.enter_context(Workers(at_once))
        running: dict[str, Future[Descriptor]] = {}
        for layer, layer_name in zip(reversed(layers), reversed(shown), strict=True):
            digest = layer["digest"]
            if digest not in running:
                upload = _Upload(
                    layer, layer_name, sources.get(digest, []), self._known(layer), workers
                )
                send = functools.partial(self._send_layer, repository, upload)
                running[digest] = workers.submit(send)
        sent = {digest: future.result() for digest, future in running.items()}
        self._remember(sent)
        return [sent[layer["digest"]] for layer in layers]

    def _send_layer(self, repository: "Repository", upload: "_Upload") -> "Descriptor":
        """Send one layer, from a thread; returns its descriptor as it is there."""
        layer, began_ns = upload.layer, time.monotonic_ns()
        sent, outcome = self._sent(repository, upload)
        shown = f"layer {upload.shown}"
        self._tell(repository, layer["digest"], sent, outcome, shown, began_ns)
        return sent

    def _tell(
        self, repository: "Repository", kept: str, sent: "Descriptor", outcome: str, shown: str,
        began_ns: int,
    ) -> None:  # fmt: skip
        if self._images.settings.say:
            from ketch.engine.images import telling  # noqa: PLC0415 - seldom wanted

            self._images.settings.tell(
                telling.of_sending, self._images, repository, kept, sent, outcome, shown=shown,
                began_ns=began_ns,
            )  # fmt: skip

    def _sent(self, repository: "Repository", upload: "_Upload") -> "tuple[Descriptor, str]":
        """Send one layer; returns its descriptor as it is there, and how it came to be there."""
        content = self._images.content
        layer = upload.layer
        if layer["mediaType"] not in _COMPRESSED:
            return layer, self._send_blob(repository, layer, content.path(layer["digest"]), upload)
        known = upload.known
        if known is not None and repository.has_blob(known["digest"]):
            self._progress.say(upload.shown, "Layer already exists")
            return known, _THERE
        with content.writer() as writer:
            plain = sparse.pieces(content.path(layer["digest"]))
            for piece in compression.compressed(plain, compression.GZIP, compression.GZIP_LEVEL):
                if upload.workers.leaving:
                    raise AbandonedError("the transfer was given up")
                writer.write(piece)
            compressed = documents.descriptor(
                _COMPRESSED[layer["mediaType"]], writer.digest, writer.size_bytes
            )
            outcome = self._send_blob(repository, compressed, writer.path, upload)
        return compressed, outcome

    def _send_blob(
        self, repository: "Repository", blob: "Descriptor", path: str, upload: "_Upload"
    ) -> str:
        """Send a layer's blob, unless the registry has it or takes it from a neighbour.

        Returns:
            How it came to be there.
        """
        if repository.has_blob(blob["digest"]):
            self._progress.say(upload.shown, "Layer already exists")
            return _THERE
        if source := blobs.mount(repository, blob["digest"], upload.sources):
            self._progress.say(upload.shown, f"Mounted from {source}")
            return f"the registry has taken it from {source}"
        reported = 0

        def sent(position: int) -> None:
            nonlocal reported
            if upload.workers.leaving:
                raise AbandonedError("the transfer was given up")
            if abs(position - reported) >= _REPORT_BYTES:
                reported = position
                self._progress.advance(upload.shown, "Pushing", position, blob["size"])

        with open(path, "rb", buffering=0) as file:
            blobs.send(
                repository, blob["digest"], file.fileno(), blob["size"],
                attempts=self._registries.configuration.attempts, sent=sent,
            )  # fmt: skip
        self._progress.say(upload.shown, "Pushed")
        return _SENT

    def _sources(self, name: Reference) -> dict[str, list[str]]:
        """Returns, by blob, the repositories of the same registry that are known to have it.

        Those from which an image came, or into which one went: they gave its name a digest.
        """
        sources: dict[str, list[str]] = {}
        for image in self._images.list():
            names = map(references.parse, image.names)
            paths = sorted({
                known.path for known in names
                if known.digest and known.domain == name.domain and known.path != name.path
            })  # fmt: skip
            if not paths:
                continue
            with contextlib.suppress(KetchError):
                content = self._images.content.read(image.manifest_digest)
                for layer in documents.parse_manifest(content)["layers"]:
                    there = sources.setdefault(layer["digest"], [])
                    there += [path for path in paths if path not in there]
        return sources

    def _known(self, layer: "Descriptor") -> "Descriptor | None":
        """Returns as what a plain layer was sent before, so that it need not be made again."""
        if layer["mediaType"] not in _COMPRESSED:
            return None
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT digest, size_bytes FROM compressed_layer WHERE plain_digest = ?",
                (layer["digest"],),
            ).fetchone()
        if row is None:
            return None
        return documents.descriptor(
            _COMPRESSED[layer["mediaType"]], row["digest"], row["size_bytes"]
        )

    def _remember(self, sent: "dict[str, Descriptor]") -> None:
        made = [
            (plain, blob["digest"], blob["size"])
            for plain, blob in sent.items()
            if plain != blob["digest"]
        ]
        if not made:
            return
        with self._store.transaction() as connection:
            gone = [
                (row["plain_digest"],)
                for row in connection.execute("SELECT plain_digest FROM compressed_layer")
                if row["plain_digest"] not in self._images.content
            ]
            connection.executemany("DELETE FROM compressed_layer WHERE plain_digest = ?", gone)
            connection.executemany("REPLACE INTO compressed_layer VALUES (?, ?, ?)", made)

    def _record(self, image: "Image", name: Reference, digest: str) -> None:
        """Keep the digest that the image has at the registry."""
        self._images.record(
            image.id, image.manifest_digest, image.created_ns, image.size_bytes,
            [Reference(name.domain, name.path, digest=digest)],
            [("push", name.familiar, {**image.labels, "name": name.familiar_name})],
        )  # fmt: skip

    def _tell_begin(self, name: Reference) -> None:
        self._progress.say("", f"The push refers to repository [{name.name}]")


class _Upload(NamedTuple):
    """A layer to be sent.

    Attributes:
        layer: its descriptor, as it is stored.
        shown: its name for whoever is told.
        sources: repositories that are known to have it.
        known: as what it was sent before, where it is stored uncompressed.
        workers: who sends it.
    """

    layer: "Descriptor"
    shown: str
    sources: list[str]
    known: "Descriptor | None"
    workers: Workers
