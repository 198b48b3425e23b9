"""Pulling: from an image's name to a recorded image, every byte of it checked.

Layers arrive several at once and are unpacked in their order, each while it arrives. Nothing
refers to any of it before all is there: a pull that fails, or is killed, leaves what the next
collection of garbage deletes.
"""

import time
from contextlib import suppress

from ketch.engine.images import telling
from ketch.engine.images.ingest import check_held
from ketch.engine.images.layer import Layer
from ketch.errors import DigestMismatchError, InvalidArgumentError, KetchError, NotFoundError
from ketch.images import compression, unpacking
from ketch.images.registry import resolve
from ketch.images.registry.download import Downloads
from ketch.images.registry.progress import Progress, Watched
from ketch.spec import image as documents
from ketch.spec import platforms, timestamps
from ketch.spec import reference as references
from ketch.spec.digest import short
from ketch.spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.images.image import Image
    from ketch.engine.images.images import Images
    from ketch.images.registry.download import Download
    from ketch.images.registry.registries import Registries
    from ketch.images.registry.repository import Repository
    from ketch.images.registry.resolve import Target
    from ketch.spec.image import Platform


class Puller:
    """Pulls images into an engine.

    Args:
        images: where they go.
        registries: where they come from, and who asks.
        progress: who is told, in Docker's words.
        platform: ``os[/architecture[/variant]]``; this machine's where empty.
    """

    __slots__ = ("_images", "_is_chosen", "_platform", "_progress", "_registries")

    def __init__(
        self,
        images: "Images",
        registries: "Registries",
        progress: Progress | None = None,
        *,
        platform: str = "",
    ) -> None:
        self._images = images
        self._registries = registries
        self._progress = progress or Progress()
        self._is_chosen = bool(platform)
        self._platform: Platform = (
            documents.parse_platform(platform) if platform else documents.host_platform()
        )

    def pull(self, text: str) -> Reference:
        """Pull one image.

        Args:
            text: its name; with the tag ``latest`` where it has neither tag nor digest.

        Returns:
            The name, complete and in normal form.

        Raises:
            InvalidArgumentError: the name, or a document of the image, is malformed.
            NotFoundError: the registry does not have it, or not for the platform.
            UnauthenticatedError: the registry wants to know who asks, or does not believe it.
            DigestMismatchError: something is not what was promised.
            UnavailableError: the registry cannot be reached, or the disk is full.
            RegistryError: the registry answers against its protocol.
        """
        name = references.parse(text).tagged()
        if name.familiar_name == "scratch":
            raise InvalidArgumentError("'scratch' is a reserved name")
        # Of a tag and a digest the digest says which image it is.
        known = Reference(name.domain, name.path, digest=name.digest) if name.digest else name
        downloaded = self._pull(self._repository(known), known)
        self._tell_status(known, downloaded=downloaded)
        return name

    def pull_all(self, text: str) -> Reference:
        """Pull every tag of a repository.

        Returns:
            Its name in normal form.

        Raises:
            InvalidArgumentError: the name has a tag or a digest; and whatever ``pull`` raises.
        """
        name = references.parse(text)
        if name.tag or name.digest:
            raise InvalidArgumentError("tag can't be used with --all-tags/-a")
        repository = self._repository(name)
        downloaded = False
        for tag in repository.tags():
            tagged = references.parse(f"{name}:{tag}")
            downloaded = self._pull(repository, tagged) or downloaded
        self._tell_status(name, downloaded=downloaded)
        return name

    def _repository(self, name: Reference) -> "Repository":
        return self._registries.repository(name)

    def _pull(self, repository: "Repository", name: Reference) -> bool:
        """Pull one tag or digest, after a mirror's failure from the registry itself.

        Returns:
            Whether there was anything new.
        """
        home = repository.without_mirrors()
        if home is not repository:
            with suppress(KetchError):
                return self._pull_from(repository, name)
        return self._pull_from(home, name)

    def _pull_from(self, repository: "Repository", name: Reference) -> bool:
        known = self._known(name)
        if known is not None and not name.digest and (digest := self._unchanged(repository, name)):
            self._images.settings.tell(telling.of_unchanged, repository, name, digest)
            digested = Reference(name.domain, name.path, digest=digest)
            if self._record_again(known, [digested, name]):
                self._tell_begin(name)
                self._progress.say("", f"Digest: {digest}")
                return False
            known = None
        target = resolve.resolve(repository, name.digest or name.tag, self._platform)
        self._images.settings.tell(telling.of_target, repository, name.familiar, target)
        self._tell_begin(name)
        digested = Reference(name.domain, name.path, digest=target.digest)
        names = [digested] if name.digest else [digested, name]
        event = ("pull", name.familiar, _attributes(target, name))
        try:
            with self._images.adding():
                self._store(repository, target, names, event)
        finally:
            # After a failure this takes away what had arrived.
            self._images.collect_garbage()
        self._images.publish_index()
        self._warn_of_platform(name, target)
        return known is None or known.id != target.image_id

    def _store(
        self,
        repository: "Repository",
        target: "Target",
        names: list[Reference],
        event: tuple[str, str, dict[str, str]],
    ) -> None:
        """Have all of an image here, then record it."""
        manifest_digest = target.manifest_digest
        there = self._complete(target)
        if there is not None:
            manifest_digest = there.manifest_digest
        else:
            self._fetch(repository, target)
            self._images.content.write(target.config_content)
            self._images.content.write(target.manifest_content)
        self._progress.say("", f"Digest: {target.digest}")
        chain_ids = documents.chain_ids(target.config["rootfs"]["diff_ids"])
        self._images.record(
            target.image_id,
            manifest_digest,
            timestamps.created_ns(target.config.get("created") or ""),
            sum(map(self._images.snapshotter.size_bytes, chain_ids)),
            names,
            [event],
        )

    def _known(self, name: Reference) -> "Image | None":
        with suppress(NotFoundError):
            return self._images.resolve(str(name))
        return None

    def _unchanged(self, repository: "Repository", name: Reference) -> str:
        """Returns the digest that a tag has here and there; empty where they differ.

        One request without a body is all that an image costs which has not changed, and registries
        that count downloads do not count it.
        """
        digest = repository.manifest_digest(name.tag)
        if not digest:
            return ""
        image = self._known(Reference(name.domain, name.path, digest=digest))
        if image is None or str(name) not in image.names:
            return ""
        with suppress(KetchError):
            if self._is_whole(image) and platforms.matches(
                documents.platform_of(image.document), self._platform
            ):
                return digest
        return ""

    def _record_again(self, image: "Image", names: list[Reference]) -> bool:
        """Record an image that is here; False where somebody has deleted it meanwhile."""
        told = ("pull", names[-1].familiar, {**image.labels, "name": names[-1].familiar_name})
        try:
            with self._images.adding():
                if not self._is_whole(image):
                    return False
                self._images.record(
                    image.id, image.manifest_digest, image.created_ns, image.size_bytes, names,
                    [told],
                )  # fmt: skip
        except KetchError:
            return False
        finally:
            self._images.collect_garbage()
        return True

    def _complete(self, target: "Target") -> "Image | None":
        """Returns the image that a registry has where it is here already, whole."""
        with suppress(KetchError):
            image = self._images.resolve(target.image_id)
            if self._is_whole(image):
                return image
        return None

    def _is_whole(self, image: "Image") -> bool:
        content = self._images.content
        manifest = documents.parse_manifest(content.read(image.manifest_digest))
        return all(layer["digest"] in content for layer in manifest["layers"]) and all(
            map(self._images.snapshotter.exists, image.chain_ids)
        )

    def _fetch(self, repository: "Repository", target: "Target") -> None:
        """Download and unpack an image's layers."""
        settings = self._registries.configuration
        layers = target.manifest["layers"]
        diff_ids = target.config["rootfs"]["diff_ids"]
        chain_ids = documents.chain_ids(diff_ids)
        snapshotter, content = self._images.snapshotter, self._images.content
        names = [short(layer["digest"]) for layer in layers]
        missing = [
            layer["digest"] not in content or not snapshotter.exists(chain_id)
            for layer, chain_id in zip(layers, chain_ids, strict=True)
        ]
        known = self._images.pairs()
        for layer, diff_id, is_missing in zip(layers, diff_ids, missing, strict=True):
            if not is_missing:
                check_held(self._images, layer, diff_id, known)
        for name, is_missing in zip(names, missing, strict=True):
            self._progress.say(name, "Pulling fs layer" if is_missing else "Already exists")
        for name in [name for name, wanted in zip(names, missing, strict=True) if wanted][
            settings.concurrent_downloads :
        ]:
            self._progress.say(name, "Waiting")
        with Downloads(repository, content, self._progress, at_once=settings.concurrent_downloads,
                       attempts=settings.attempts) as downloads:  # fmt: skip
            downloads.start(
                (layer, name)
                for layer, name, wanted in zip(layers, names, missing, strict=True)
                if wanted
            )
            for number, layer in enumerate(layers):
                if not missing[number]:
                    continue
                began_ns, hidden = time.monotonic_ns(), None
                download = downloads.of(layer["digest"])
                kind = resolve.layer_format(layer)
                if snapshotter.exists(chain_ids[number]):
                    download.wait()  # unpacked for another image, from another blob
                    check_held(self._images, layer, diff_ids[number], known)
                else:
                    hidden = self._unpack(download, kind, chain_ids[: number + 1], diff_ids[number])
                if self._images.settings.say:
                    size_bytes = snapshotter.size_bytes(chain_ids[number])
                    arrived = Layer(layer, diff_ids[number], chain_ids[number], size_bytes)
                    self._images.settings.tell(
                        telling.of_download, repository, number + 1, arrived, images=self._images,
                        kind=kind, began_ns=began_ns, hidden=hidden or (),
                    )  # fmt: skip
                self._progress.say(names[number], "Pull complete")

    def _unpack(
        self, download: "Download", kind: str, chain_ids: list[str], diff_id: str
    ) -> list[bytes] | None:
        """Unpack a layer while it arrives; its snapshot gets its name once all of it is right.

        Returns:
            The paths that its whiteouts hide, where somebody asks what is done.
        """
        total_bytes = download.descriptor["size"]

        def tell(done_bytes: int) -> None:
            if download.is_complete:  # what still arrives is told of as that
                self._progress.advance(download.name, "Extracting", done_bytes, total_bytes)

        with (
            download.follow() as follower,
            self._images.snapshotter.ingest(chain_ids[:-1]) as ingest,
        ):
            ingest.hidden = [] if self._images.settings.say else None
            watched = Watched(follower, total_bytes, tell)
            found_kind, stream = compression.sniffed(watched)
            if found_kind != kind:
                raise InvalidArgumentError(
                    f"layer {download.descriptor['digest']} is said to be {kind}, and is"
                    f" {found_kind}"
                )
            digest = download.descriptor["digest"]  # verified when the stream has ended
            found, size_bytes = unpacking.unpack(
                stream, kind, ingest, (lambda: digest) if digest.startswith("sha256:") else None
            )
            if found != diff_id:
                raise DigestMismatchError(
                    f"layer {download.descriptor['digest']} holds {found}, where the image's"
                    f" configuration promises {diff_id}"
                )
            ingest.commit(chain_ids[-1], size_bytes)
            return ingest.hidden

    def _warn_of_platform(self, name: Reference, target: "Target") -> None:
        found = documents.platform_of(target.config)
        if self._is_chosen and not platforms.matches(found, self._platform):
            self._progress.say(
                "",
                f"WARNING: image with reference {name.familiar} was found but its platform"
                f" ({platforms.shown(found)}) does not match the specified platform"
                f" ({platforms.shown(self._platform)})",
            )

    def _tell_begin(self, name: Reference) -> None:
        self._progress.begin(str(name) if name.digest else name.tag, f"Pulling from {name.path}")

    def _tell_status(self, name: Reference, *, downloaded: bool) -> None:
        what = "Downloaded newer image for" if downloaded else "Image is up to date for"
        self._progress.say("", f"Status: {what} {name.familiar}")


def _attributes(target: "Target", name: Reference) -> dict[str, str]:
    labels = (target.config.get("config") or {}).get("Labels") or {}
    return {**labels, "name": name.familiar_name}
