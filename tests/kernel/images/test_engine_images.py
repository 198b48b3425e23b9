"""Images in a whole engine: import, names, removal by Docker's rules, and sudden death."""

import gzip
import io
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType

import pytest
import zstandard

from ketch.engine.containers.containers import Containers
from ketch.engine.images import ingest
from ketch.engine.images.image import Image
from ketch.engine.images.images import Images
from ketch.engine.records import names
from ketch.engine.records.store import Store
from ketch.engine.settings import Settings
from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError
from ketch.images import lock, tar
from ketch.linux import procfs
from ketch.spec import digest
from ketch.spec import image as documents
from tests.support.archives import archive, member

pytestmark = pytest.mark.root

ARCHIVE = archive(
    member(b"bin", tar.DIRECTORY, mode=0o755),
    member(b"bin/sh", data=b"#!", mode=0o755),
    member(b"etc/passwd", data=b"root:x:0:0::/:\n"),
)


class Engine:
    """An engine in a directory of its own."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.settings = Settings(str(directory / "root"), str(directory / "state"))
        self.open()

    def open(self) -> None:
        store = Store(self.settings.root)
        self.images = Images(self.settings, store)
        self.containers = Containers(self.settings, store)

    def load(self, name: str = "", content: bytes = ARCHIVE, **options: object) -> Image:
        image_id = ingest.import_image(
            self.images,
            io.BytesIO(content),
            name,
            **options,  # type: ignore[arg-type]
        )
        image = self.images.resolve(image_id)
        assert image.document  # read while it is there
        return image

    def create(self, image: Image) -> str:
        container_id = names.new_id()
        self.containers.create_record(
            container_id, name="", image_id=image.id, image_reference="x", record={}
        )
        self.containers.mark_created(container_id, keep=True)
        self.images.snapshotter.prepare(
            self.settings.container_directory(container_id), image.chain_ids
        )
        return container_id

    def blobs(self) -> set[str]:
        return set(self.images.content.digests())

    def layers(self) -> set[str]:
        return set(self.images.snapshotter.chain_ids())

    def unfinished(self) -> list[str]:
        root = pathlib.Path(self.settings.root)
        return [*map(str, root.glob("ingest/*")), *map(str, root.glob("snapshots/ingest/*"))]


@pytest.fixture
def engine(tmp_path: pathlib.Path) -> Engine:
    return Engine(tmp_path)


def test_an_archive_becomes_an_oci_image(engine: Engine) -> None:
    image = engine.load("busybox", changes=['CMD ["sh"]', "ENV A=b"], message="how it came")
    assert engine.images.resolve("busybox").id == image.id
    assert image.config == {"Cmd": ["sh"], "Env": ["A=b"]}
    assert image.names == ["docker.io/library/busybox:latest"]
    assert image.size_bytes == 2 + 15
    manifest = documents.parse_manifest(engine.images.content.read(image.manifest_digest))
    [layer] = manifest["layers"]
    assert manifest["config"]["digest"] == image.id
    assert layer["mediaType"] == documents.OCI_LAYER
    assert layer["digest"] == digest.of(ARCHIVE) == image.chain_ids[0]
    assert layer["size"] == len(ARCHIVE)
    assert image.document["history"][0]["comment"] == "how it came"
    assert (image.document["os"], image.document["architecture"]) == (
        "linux",
        documents.host_platform()["architecture"],
    )
    assert engine.blobs() == {image.id, image.manifest_digest, layer["digest"]}
    assert engine.unfinished() == []


@pytest.mark.parametrize(
    ("compress", "media_type"),
    [
        (gzip.compress, documents.OCI_LAYER + "+gzip"),
        (zstandard.ZstdCompressor().compress, documents.OCI_LAYER + "+zstd"),
    ],
)
def test_compressed_archives_are_stored_as_they_came(
    engine: Engine, compress: Callable[[bytes], bytes], media_type: str
) -> None:
    content = compress(ARCHIVE)
    image = engine.load("x", content)
    [layer] = documents.parse_manifest(engine.images.content.read(image.manifest_digest))["layers"]
    assert (layer["digest"], layer["mediaType"]) == (digest.of(content), media_type)
    assert image.document["rootfs"]["diff_ids"] == [digest.of(ARCHIVE)]


def test_a_container_can_be_mounted_on_an_imported_image(engine: Engine) -> None:
    container_id = engine.create(engine.load("x"))
    directory = engine.settings.container_directory(container_id)
    descriptor = engine.images.snapshotter.mount(directory)
    assert pathlib.Path(f"/proc/self/fd/{descriptor}/bin/sh").read_bytes() == b"#!"
    os.close(descriptor)


def test_skopeo_reads_the_store(engine: Engine) -> None:
    image = engine.load("registry.example:5000/team/app:v1", changes=["ENV A=b"])
    done = subprocess.run(
        ["skopeo", "inspect", "--format", "{{.Digest}} {{.Env}}",
         f"oci:{engine.settings.root}:registry.example:5000/team/app:v1"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == [image.manifest_digest, "[A=b]"]


def test_names_come_first_then_identifiers_and_their_starts(engine: Engine) -> None:
    image, other = engine.load("a"), engine.load("b")
    digits = image.id.removeprefix("sha256:")
    for text in (image.id, digits, digits[:12], f"sha256:{digits[:5]}", "library/a", "a:latest"):
        assert engine.images.resolve(text).id == image.id
    engine.images.tag("b", digits[:12])
    assert engine.images.resolve(digits[:12]).id == other.id


def test_what_is_not_there_is_named_as_docker_names_it(engine: Engine) -> None:
    image = engine.load("x")
    for text, shown in [
        ("y", "y:latest"), ("y:1", "y:1"), ("sha256:" + "0" * 12, "sha256:" + "0" * 12),
        ("host:1/y", "host:1/y:latest"), ("f" * 64, "sha256:" + "f" * 64),
        ("z" * 12, "z" * 12 + ":latest"),
    ]:  # fmt: skip
        with pytest.raises(NotFoundError, match=f"^No such image: {shown}$"):
            engine.images.resolve(text)
    for text in ("", "B", "a:b:c", "a b"):
        with pytest.raises(InvalidArgumentError, match="invalid reference format"):
            engine.images.resolve(text)
    many = [engine.load() for _ in range(17)]
    digits = [other.id[7:8] for other in [image, *many]]
    double = next(digit for digit in digits if digits.count(digit) > 1)
    with pytest.raises(NotFoundError) as caught:
        engine.images.resolve(double)
    assert "several" in caught.value.hint


def test_tags_move_and_lists_match(engine: Engine) -> None:
    old, new = engine.load("app:1"), engine.load("app:2")
    engine.images.tag("app:1", "team/app")
    engine.images.tag("app:2", "app:1")
    assert engine.images.resolve("app:1").id == new.id
    assert engine.images.resolve("team/app").id == old.id
    listed = engine.images.list()
    assert [image.id for image in listed] == [new.id, old.id]
    assert [name for image in listed for name in image.names] == [
        "docker.io/library/app:1", "docker.io/library/app:2", "docker.io/team/app:latest",
    ]  # fmt: skip
    matching = engine.images.list("app:[1-9]")
    assert [image.names for image in matching] == [listed[0].names]
    assert [image.id for image in engine.images.list("*/app")] == [old.id]
    assert engine.images.list("nonsuch") == []


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("Upper", "not a valid repository/tag: invalid reference format"),
        ("x@sha256:" + "0" * 64, "refusing to create a tag with a digest reference"),
        ("sha256:latest", "refusing to create an ambiguous tag"),
    ],
)
def test_bad_new_names_are_refused(engine: Engine, target: str, reason: str) -> None:
    engine.load("a")
    with pytest.raises(InvalidArgumentError, match=reason):
        engine.images.tag("a", target)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": "BB"}, "must be lowercase"),
        ({"name": "x@sha256:" + "0" * 64}, "cannot import digest reference"),
        ({"changes": ["RUN x"]}, "run is not a valid change command"),
        ({"platform": "windows"}, "only linux"),
        ({"content": b"no archive" * 100}, "wrong checksum"),
        ({"content": ARCHIVE[:700]}, "cut short"),
        ({"content": gzip.compress(ARCHIVE)[:-20]}, "damaged gzip stream"),
        ({"content": archive(member(b"../../x"))}, "leads out of the layer"),
    ],
)
def test_a_failed_import_leaves_nothing(
    engine: Engine, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        engine.load(**options)  # type: ignore[arg-type]
    assert engine.images.list() == []
    engine.images.collect_garbage()
    assert (engine.blobs(), engine.layers(), engine.unfinished()) == (set(), set(), [])


# Removal


def test_the_last_name_takes_the_image_and_its_layers_along(engine: Engine) -> None:
    image = engine.load("a")
    engine.images.tag("a", "b:1")
    assert engine.images.remove("a") == [("Untagged", "a:latest")]
    assert engine.images.remove("b:1") == [
        ("Untagged", "b:1"), ("Deleted", image.id), ("Deleted", image.chain_ids[0]),
    ]  # fmt: skip
    assert (engine.blobs(), engine.layers(), engine.unfinished()) == (set(), set(), [])


def test_by_identifier_all_names_must_be_one(engine: Engine) -> None:
    image = engine.load("a")
    engine.images.tag("a", "b")
    with pytest.raises(
        ConflictError,
        match=rf"^conflict: unable to delete {image.short_id} \(must be forced\) -"
        " image is referenced in multiple repositories$",
    ):
        engine.images.remove(image.short_id)
    assert engine.images.remove(image.id, force=True)[:3] == [
        ("Untagged", "a:latest"), ("Untagged", "b:latest"), ("Deleted", image.id),
    ]  # fmt: skip
    single = engine.load("c")
    assert engine.images.remove(single.short_id)[:2] == [
        ("Untagged", "c:latest"), ("Deleted", single.id),
    ]  # fmt: skip


def test_layers_of_another_image_stay(engine: Engine) -> None:
    first, second = engine.load("a"), engine.load("b", message="other")
    assert first.chain_ids == second.chain_ids
    assert engine.images.remove("a") == [("Untagged", "a:latest"), ("Deleted", first.id)]
    assert engine.layers() == set(second.chain_ids)
    assert digest.of(ARCHIVE) in engine.blobs()


def test_a_stopped_container_keeps_its_image_unless_forced(engine: Engine) -> None:
    image = engine.load("a")
    engine.images.tag("a", "b")
    user = engine.create(image)
    assert engine.images.remove("b") == [("Untagged", "b:latest")]
    conflict = rf'"a" \(must force\) - container {user[:12]} is using its referenced image'
    with pytest.raises(ConflictError, match=conflict):
        engine.images.remove("a")
    with pytest.raises(ConflictError, match=f"being used by .* container {user[:12]}"):
        engine.images.remove(image.id)


def test_a_running_container_keeps_its_image_even_if_forced(engine: Engine) -> None:
    image = engine.load("a")
    user = engine.create(image)
    pid = os.getpid()
    engine.containers.mark_started(user, pid, procfs.process_start_time(pid) or 0, 1)
    conflict = rf"\(cannot be forced\) - image is being used by running container {user[:12]}"
    with pytest.raises(ConflictError, match=conflict):
        engine.images.remove(image.short_id, force=True)
    assert engine.images.remove("a", force=True) == [("Untagged", "a:latest")]
    assert engine.images.resolve(image.id).names == []


def test_layers_below_a_container_outlive_its_image(engine: Engine) -> None:
    image = engine.load("a")
    user = engine.create(image)
    directory = engine.settings.container_directory(user)
    with engine.images._store.transaction() as connection:  # its monitor, this process, has gone
        connection.execute("UPDATE container SET monitor_pid = 0, state = 'created'")
    assert engine.images.remove("a", force=True) == [
        ("Untagged", "a:latest"), ("Deleted", image.id),
    ]  # fmt: skip
    os.close(engine.images.snapshotter.mount(directory))
    engine.containers.remove(user)
    assert engine.images.collect_garbage() == set(image.chain_ids)
    assert engine.layers() == set()


def test_nothing_is_deleted_while_something_is_added(engine: Engine) -> None:
    engine.load("a")
    with lock.shared(engine.settings.root):
        engine.images.remove("a")
        assert engine.blobs()
        assert engine.layers()
    engine.images.collect_garbage()
    assert (engine.blobs(), engine.layers()) == (set(), set())


def test_a_damaged_image_lets_nothing_be_collected(engine: Engine) -> None:
    image = engine.load("a")
    engine.load("b", archive(member(b"f")))
    engine.images.content.delete(image.manifest_digest)
    before = engine.blobs()
    engine.images.remove("b")
    assert engine.blobs() == before


# Sudden death


def killed_at_line(number: int, work: Callable[[], object]) -> bool:
    """Run some work in a child that kills itself before its n-th line; whether it came so far."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = number

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal left
        name = frame.f_code.co_filename
        if not any(part in name for part in ("/ketch/images/", "/engine/image", "/removetree")):
            return None
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        work()
    finally:
        os._exit(0)


def check_and_clean(engine: Engine) -> None:
    """What is recorded is whole, and what is not recorded can be cleaned."""
    engine.open()
    images = engine.images.list()
    for image in images:
        assert image.config is not None
        assert all(map(engine.images.snapshotter.exists, image.chain_ids))
        manifest = documents.parse_manifest(engine.images.content.read(image.manifest_digest))
        assert all(layer["digest"] in engine.images.content for layer in manifest["layers"])
    engine.images.collect_garbage()
    assert engine.unfinished() == []
    assert len(engine.blobs()) == (2 * len(images) + 1 if images else 0)
    assert len(engine.layers()) == (1 if images else 0)


def test_an_import_killed_at_any_line_can_be_repeated(engine: Engine) -> None:
    number, kills = 1, 0
    Engine.open(engine)

    def work() -> None:
        engine.open()
        engine.load("a")

    while killed_at_line(number, work):
        kills += 1
        check_and_clean(engine)
        number += 1 + number // 12
    check_and_clean(engine)
    assert kills > 30
    engine.open()
    assert engine.images.resolve("a").id


def test_a_removal_killed_at_any_line_leaves_the_image_or_none(engine: Engine) -> None:
    number, kills = 1, 0

    def work() -> None:
        engine.open()
        engine.images.remove("a")

    while True:
        engine.open()
        if not engine.images.list():
            engine.load("a")
        engine.open()
        if not killed_at_line(number, work):
            break
        kills += 1
        check_and_clean(engine)
        number += 1 + number // 12
    check_and_clean(engine)
    assert kills > 20
