"""Images: what they are called, what they are made of, and when their content may go.

An image is recorded in the database (ID, names) after all its content is in place, and its content
is deleted after its record: so a process killed at any line leaves content that nothing refers to,
which the next import or removal finds and deletes.
"""

import contextlib
import os
import re
import sqlite3
import time

from ketch.engine.images.image import Image
from ketch.engine.records import events
from ketch.errors import (
    ImageNotFoundError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    UnavailableError,
)
from ketch.images import lock
from ketch.images.content import ContentStore
from ketch.linux.scopes import owned
from ketch.spec import image as documents
from ketch.spec import reference as references

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ketch.engine.images.removal import Events, Removal
    from ketch.engine.records.store import Store
    from ketch.engine.settings import Settings
    from ketch.images.archive import TarSource
    from ketch.images.snapshots import Snapshotter
    from ketch.spec.image import Platform
    from ketch.spec.reference import Reference

_HEX = re.compile(r"[0-9a-f]{1,64}")
COLLECTED = "collected"  # a file of the engine's directory, while there should be no garbage
_CACHED_LAYERS = "SELECT chain_id FROM build_layer"


class Images:
    """The images of one engine.

    Args:
        settings: the engine's places.
        store: the engine's database.

    Attributes:
        settings: the engine's places.
        content: the blobs.
        root: the engine's directory.
    """

    __slots__ = ("_driver", "_snapshotter", "_store", "content", "root", "settings")

    def __init__(self, settings: "Settings", store: "Store") -> None:
        self.settings = settings
        self.root = settings.root
        self._store = store
        self.content = ContentStore(settings.root)
        self._driver = settings.storage_driver
        self._snapshotter: Snapshotter | None = None

    @property
    def snapshotter(self) -> "Snapshotter":
        """The unpacked layers and what is stacked on them."""
        if self._snapshotter is None:
            from ketch.images import drivers  # noqa: PLC0415 - lists have no use for them

            self._snapshotter = drivers.choose(self.root, self._driver)
        return self._snapshotter

    # What is there

    def resolve(self, text: str, platform: str = "") -> Image:
        """Returns the image with this name, ID, or unique start of an ID; names come first.

        Args:
            text: name or ID.
            platform: ``os[/architecture[/variant]]`` that it must run on; any where empty.

        Raises:
            ImageNotFoundError: there is none, or it is for another platform.
            InvalidArgumentError: the text can be neither name nor ID, or the platform is none.
        """
        with self._store.reading() as connection:
            image = self._find(connection, text)
        if platform:
            self.check_platform(image, [documents.parse_platform(platform)])
        return image

    def list(self, *patterns: str) -> "list[Image]":
        """Returns the images, newest first.

        Args:
            patterns: only names that match one, and images that have such a name: a name without
                tag, or with one, in familiar form; ``*``, ``?`` and ``[...]`` stand for other text
                without a slash.

        Raises:
            InvalidArgumentError: a pattern is malformed.
        """
        matchers = [references.matcher(pattern) for pattern in patterns]
        with self._store.reading() as connection:
            rows = connection.execute("SELECT * FROM image ORDER BY created_ns DESC, id").fetchall()
            named = connection.execute("SELECT * FROM image_name ORDER BY reference").fetchall()
        names: dict[str, list[str]] = {}
        for row in named:
            name = references.parse(row["reference"]) if matchers else None
            if name is None or any(matches(name) for matches in matchers):
                names.setdefault(row["image_id"], []).append(row["reference"])
        return [
            Image(self.content, row, names.get(row["id"], []))
            for row in rows
            if not matchers or row["id"] in names
        ]

    def parent(self, image: Image) -> Image | None:
        """Returns the image that one was committed on, if it is still there."""
        try:
            return self.resolve(image.parent_id) if image.parent_id else None
        except NotFoundError:
            return None

    def known(self, image_id: str) -> Image | None:
        """Returns the image with a whole ID, None where there is none."""
        try:
            return self.resolve(image_id)
        except NotFoundError:
            return None

    def holders(self, names: "Iterable[Reference]") -> "Sequence[tuple[str, str]]":
        """Returns which of some names images have: in familiar form, with their IDs."""
        query = "SELECT image_id FROM image_name WHERE reference = ?"
        with self._store.reading() as connection:
            found = [(name.familiar, connection.execute(query, (_key(name),)).fetchone())
                     for name in names]  # fmt: skip
        return [(name, row["image_id"]) for name, row in found if row is not None]

    @contextlib.contextmanager
    def opened_archive(self, descriptor: int) -> "Iterator[TarSource]":
        """Open an archive for ``image_archive.load``.

        Args:
            descriptor: where it comes from: a file, a pipe, a socket; plain or compressed.

        Raises:
            InvalidArgumentError: it is damaged, no archive, or more than there is room for.
            UnavailableError: the disk is full or failing.
        """
        from ketch.images import archive  # noqa: PLC0415 - not for a container's start

        os.makedirs(self.root, 0o700, exist_ok=True)
        room = os.statvfs(self.root)
        with owned(
            archive.seekable(descriptor, f"{self.root}/ingest", room.f_bavail * room.f_frsize)
        ) as opened:
            yield archive.TarSource(opened)

    def record_event(self, action: str, image: Image) -> None:
        """Tell in ``events`` what was done with an image."""
        with self._store.transaction() as connection:
            attributes = {**image.labels, "name": image.id}
            events.record(connection, "image", action, image.id, attributes)

    def check_platform(self, image: Image, wanted: "Iterable[Platform]") -> None:
        """Check that an image runs on one of some platforms.

        Raises:
            ImageNotFoundError: it runs on none.
        """
        from ketch.spec import platforms  # noqa: PLC0415 - rarely asked, and not by a plain start

        known = documents.platform_of(image.document)
        for platform in wanted:
            if platforms.matches(known, platform):
                return
        shown = references.parse(image.names[0]).familiar if image.names else image.short_id
        raise ImageNotFoundError(
            f"image with reference {shown} was found but does not provide the specified platform"
            f" ({platforms.shown(platform)})"
        )

    def pairs(self) -> set[tuple[str, str]]:
        """Returns which blobs are known to hold which layers, as digest and diff ID."""
        found: set[tuple[str, str]] = set()
        for image in self.list():
            with contextlib.suppress(KetchError):  # a damaged image tells nothing
                manifest = documents.parse_manifest(self.content.read(image.manifest_digest))
                blobs = [layer["digest"] for layer in manifest["layers"]]
                found |= set(zip(blobs, image.document["rootfs"]["diff_ids"], strict=False))
        return found

    def users(self) -> "dict[str, Sequence[str]]":
        """Returns the IDs of the containers of each image that has any, by its ID."""
        found: dict[str, Sequence[str]] = {}
        with self._store.reading() as connection:
            for row in connection.execute("SELECT id, image_id FROM container ORDER BY id"):
                found[row["image_id"]] = [*found.get(row["image_id"], ()), row["id"]]
        return found

    # What changes

    def adding(self) -> "AbstractContextManager[None]":
        """Returns the lock that whoever adds content and layers holds until they are recorded."""
        from ketch.images import drivers  # noqa: PLC0415 - as above

        drivers.record(self.snapshotter)
        return lock.shared(self.root)

    def record(
        self,
        image_id: str,
        manifest_digest: str,
        created_ns: int,
        size_bytes: int,
        names: "Sequence[Reference]" = (),
        told: "Iterable[tuple[str, str, dict[str, str]]]" = (),
        *,
        parent_id: str = "",
    ) -> None:
        """Record an image whose content and layers are all in place; ``adding`` must be held.

        Call ``publish_index`` when the lock is released.

        Args:
            image_id: digest of its configuration.
            manifest_digest: digest of its manifest.
            created_ns: when it was made, in nanoseconds since the epoch.
            size_bytes: bytes of the files in its layers.
            names: its names, with a tag or a digest; whatever had one of them loses it.
            told: the events of it: action, actor's ID, attributes.
            parent_id: the image that it was committed on, or empty.
        """
        now_ns = time.time_ns()
        document = documents.parse_config(self.content.read(image_id))
        self.snapshotter.settle(documents.chain_ids(document["rootfs"]["diff_ids"]))
        with self._store.transaction(begins=True) as connection:
            connection.execute(
                "INSERT INTO image (id, manifest_digest, created_ns, size_bytes, parent_id)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                " manifest_digest = excluded.manifest_digest, size_bytes = excluded.size_bytes",
                (image_id, manifest_digest, created_ns, size_bytes, parent_id),
            )
            for name in names:
                _name(connection, name, image_id, now_ns)
            for action, actor, attributes in told:
                events.record(connection, "image", action, actor, attributes)
        if self.settings.say:
            from ketch.engine.images import telling  # noqa: PLC0415 - seldom wanted

            self.settings.tell(telling.of_record, image_id, manifest_digest, size_bytes, names)

    def set_parent(self, image_id: str, parent_id: str) -> None:
        """Record which image another was committed on; both are whole IDs."""
        with self._store.transaction() as connection:
            connection.execute("UPDATE image SET parent_id = ? WHERE id = ?", (parent_id, image_id))

    def tag(self, source: str, target: str) -> None:
        """Give an image one more name; whatever had that name loses it.

        Args:
            source: name or ID of the image.
            target: the new name, with the tag ``latest`` where it has none.

        Raises:
            NotFoundError: there is no such image.
            InvalidArgumentError: the new name is malformed.
        """
        try:
            name = references.new_name(target, "refusing to create a tag with a digest reference")
        except InvalidArgumentError as error:
            if error.message.startswith("refusing"):
                raise
            raise InvalidArgumentError(
                f'Error parsing reference: "{target}" is not a valid repository/tag:'
                f" {error.message}",
                error.hint,
            ) from error
        former = None
        with self._store.transaction() as connection:
            image = self._find(connection, source)
            if self.settings.say:
                query = "SELECT image_id FROM image_name WHERE reference = ?"
                former = connection.execute(query, (_key(name),)).fetchone()
            _name(connection, name, image.id, time.time_ns())
            events.record(
                connection, "image", "tag", image.id, {**image.labels, "name": name.familiar}
            )
        if self.settings.say:
            from ketch.engine.images import telling  # noqa: PLC0415 - seldom wanted

            self.settings.tell(telling.of_tag, image.id, name, former["image_id"] if former else "")
        self.publish_index()

    def remove(self, text: str, *, force: bool = False, prune: bool = True) -> "Events":
        """Take away an image's name, and the image with its last one.

        The rules are Docker's. By name: the name goes; with the last name the image too. By ID:
        the image goes if all its names are one, else only with force. An image that a stopped
        container uses goes only with force, one that a running container uses does not, nor one
        that another was committed on.

        Args:
            text: name, ID, or unique start of an ID.
            force: whether to overrule what can be overruled.
            prune: whether nameless images that it was committed on go along.

        Returns:
            What happened, in order: ``("Untagged", NAME)`` and ``("Deleted", DIGEST)``, where the
            digest is an image's ID or a layer's chain ID.

        Raises:
            NotFoundError: there is no such image.
            ConflictError: it is in use.
        """
        with self.removing() as removal:
            removal.remove(text, force=force, prune=prune)
        return removal.events

    @contextlib.contextmanager
    def removing(self) -> "Iterator[Removal]":
        """Remove several images in a block, and what nobody else needs of them at its end.

        They go from the records in one transaction, so the block must use this database for
        nothing else.
        """
        from ketch.engine.images.removal import Removal  # noqa: PLC0415 - not for a start

        with self._store.transaction() as connection:
            removal = Removal(connection, self._find)
            yield removal
        if removal.events and self.settings.say:
            from ketch.engine.images import telling  # noqa: PLC0415 - seldom wanted

            self.settings.tell(telling.of_removal, list(removal.events))
        removal.tell(self.collect_garbage())
        if removal.events:
            self._publish_removal()  # where somebody adds images there was nothing collected

    def record_prune(self, reclaimed_bytes: int) -> None:
        """Tell in ``events`` that unused images were removed."""
        with self._store.transaction() as connection:
            events.record(connection, "image", "prune", "", {"reclaimed": str(reclaimed_bytes)})

    def collect_garbage(self) -> set[str]:
        """Delete content and layers that no image and no container refers to.

        While another process adds something nothing is deleted; whoever is last cleans up.

        Returns:
            The chain IDs of the layers that were deleted.
        """
        snapshotter = self.snapshotter
        with lock.exclusive(self.root) as alone:
            if not alone:
                self.expect_garbage()
                return set()
            # Before it is looked what is used: what gets unused from now on is expected anew.
            with contextlib.suppress(OSError), open(f"{self.root}/{COLLECTED}", "wb"):
                pass
            self.content.delete_unfinished()
            snapshotter.remove_unfinished()
            # Whoever recorded a change and was killed has not told of it, and what the list still
            # leads to is about to be deleted.
            self._publish_removal()
            try:
                blobs, layers = self.referred(self.list())
            except KetchError:
                # A damaged image does not tell what it needs, so all has to stay.
                return set()
            unneeded = [one for one in self.content.digests() if one not in blobs]
            for digest in unneeded:
                self.content.delete(digest)
            unused = set(self.snapshotter.chain_ids()) - layers - self.cached()
            for chain_id in unused:
                self.snapshotter.remove(chain_id)
            if (unneeded or unused) and self.settings.say:
                from ketch.engine.images import telling  # noqa: PLC0415 - seldom wanted

                self.settings.tell(telling.of_garbage, self, unneeded, sorted(unused))
            self._publish_removal()
            return unused

    def expect_garbage(self) -> None:
        """Say that there may be something to collect; it takes no room on the disk."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.root}/{COLLECTED}")

    def may_have_garbage(self) -> bool:
        """Whether somebody has said so since the last collection, or there was none.

        To ask takes no time; to collect, as long as there are images.
        """
        return not os.path.exists(f"{self.root}/{COLLECTED}")

    # How

    def _find(self, connection: sqlite3.Connection, text: str) -> Image:
        target = references.parse_any(text)
        if isinstance(target, str):
            rows = connection.execute("SELECT * FROM image WHERE id = ?", (target,)).fetchall()
        else:
            rows = connection.execute(
                "SELECT image.* FROM image_name JOIN image ON image.id = image_id"
                " WHERE reference = ?",
                (_key(target),),
            ).fetchall()
            digits = text.removeprefix("sha256:")
            if not rows and _HEX.fullmatch(digits):
                # "g" follows the last hex digit, so this is the range of all that start so.
                rows = connection.execute(
                    "SELECT * FROM image WHERE id >= ? AND id < ? LIMIT 2",
                    (f"sha256:{digits}", f"sha256:{digits}g"),
                ).fetchall()
        if len(rows) != 1:
            shown = target if isinstance(target, str) else target.tagged().familiar
            hint = "ketch images lists images, and ketch ps -a containers"
            if rows:
                hint = "several images' IDs start so: give more of it"
            raise ImageNotFoundError(f"No such image: {shown}", hint)
        names = connection.execute(
            "SELECT reference FROM image_name WHERE image_id = ? ORDER BY reference",
            (rows[0]["id"],),
        )
        return Image(self.content, rows[0], [row["reference"] for row in names])

    def referred(self, images: "Iterable[Image]") -> tuple[set[str], set[str]]:
        """Returns what some images, and all containers, refer to.

        Returns:
            The digests of blobs, and the chain IDs of layers.

        Raises:
            KetchError: an image is damaged, and does not tell.
        """
        blobs: set[str] = set()
        layers: set[str] = set()
        for image in images:
            manifest = documents.parse_manifest(self.content.read(image.manifest_digest))
            blobs |= {image.id, image.manifest_digest}
            blobs |= {layer["digest"] for layer in manifest["layers"]}
            layers.update(image.chain_ids)
        for directory in self._prepared():
            layers.update(self.snapshotter.prepared_on(directory))
        return blobs, layers

    def unused_copies(self) -> "Mapping[str, Sequence[str]]":
        """Returns layers' copies with other owners that no container has, by chain ID: paths."""
        every = []
        for directory in self._prepared():
            mounted = [name for name in os.listdir(directory) if name.startswith("image-")]
            every += [directory, *(f"{directory}/{name}" for name in mounted)]
        return self.snapshotter.unused_copies(every)

    def remove_unused_copies(self) -> int:
        """Remove these; returns the bytes of the files in them.

        While another process adds something nothing is removed.
        """
        freed = 0
        with lock.exclusive(self.root) as alone:
            if alone:
                for chain_id, paths in self.unused_copies().items():
                    for path in paths:
                        self.snapshotter.remove_copy(path)
                        freed += self.snapshotter.size_bytes(chain_id)
        return freed

    def _prepared(self) -> "Iterator[str]":
        """Yield the directories of all containers, and of images that are mounted."""
        for place in (f"{self.root}/containers", f"{self.root}/mounts"):
            for name in os.listdir(place) if os.path.isdir(place) else ():
                yield f"{place}/{name}"

    def cached(self) -> set[str]:
        """Returns the chain IDs of the layers that the build cache keeps."""
        with self._store.reading() as connection:
            return {row["chain_id"] for row in connection.execute(_CACHED_LAYERS)}

    def publish_index(self) -> None:
        """Tell tools that read OCI layouts what images there are; needed after every change."""
        from ketch.engine.images import layout  # noqa: PLC0415 - not for a container's start

        # Within a transaction, so that of two writers the later one is last.
        with self._store.transaction() as connection:
            self.content.write_index(layout.index(connection, self.content))

    def _publish_removal(self) -> None:
        """Tell tools what is left, or have the next change do so: removing must need no room."""
        with contextlib.suppress(UnavailableError):
            self.publish_index()


def _key(name: "Reference") -> str:
    """Returns what an image is recorded under; of a tag and a digest the digest counts."""
    if name.digest:
        return f"{name.name}@{name.digest}"
    return str(name.tagged())


def _name(connection: sqlite3.Connection, name: "Reference", image_id: str, now_ns: int) -> None:
    connection.execute("REPLACE INTO image_name VALUES (?, ?)", (_key(name), image_id))
    if not name.digest:
        connection.execute("UPDATE image SET tagged_ns = ? WHERE id = ?", (now_ns, image_id))
