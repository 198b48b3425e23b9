"""``ketch mount``, ``ketch umount``, and the same of images: podman's commands, in its forms."""

import json

from ketch.cli.caller import explained
from ketch.cli.each import for_each
from ketch.cli.flags import Command, Flag, UsageError, parse
from ketch.engine.engine import Engine
from ketch.engine.files import filesystem, image_mounts, mounting
from ketch.errors import ENGINE_FAILED
from ketch.spec.flag import EXPLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings

_ID_LENGTH = 12
_FORMAT = Flag("format", "", "string", "Print the mounted ones in a format (json)")
_NO_TRUNC = Flag("no-trunc", "", "bool", "Do not truncate IDs")

MOUNT = Command(
    "ketch mount [OPTIONS] [CONTAINER...]",
    "Mount the root filesystems of containers, or list those mounted\n\n"
    "Prints where each one is. Mounted twice, it is unmounted by the second umount.",
    (Flag("all", "a", "bool", "Mount all containers"), EXPLAIN, _FORMAT, _NO_TRUNC),
)
UMOUNT = Command(
    "ketch umount [OPTIONS] CONTAINER [CONTAINER...]",
    "Unmount the root filesystems of containers",
    (
        Flag("all", "a", "bool", "Unmount all containers that are mounted"),
        EXPLAIN,
        Flag("force", "f", "bool", "Unmount however often it was mounted"),
    ),
)
IMAGE_MOUNT = Command(
    "ketch image mount [OPTIONS] [IMAGE...]",
    "Mount the root filesystems of images, to be read only, or list those mounted",
    (Flag("all", "a", "bool", "Mount all images"), EXPLAIN, _FORMAT),
)
IMAGE_UMOUNT = Command(
    "ketch image umount [OPTIONS] IMAGE [IMAGE...]",
    "Unmount the root filesystems of images",
    (
        Flag("all", "a", "bool", "Unmount all images that are mounted"),
        EXPLAIN,
        Flag("force", "f", "bool", "Unmount however often it was mounted"),
    ),
)


def mount(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch mount``."""
    parsed = parse(MOUNT, arguments)
    engine = Engine(settings)
    names = _chosen(
        parsed.arguments, parsed.enabled("all"), lambda: [one.id for one in _every(engine)]
    )
    if names or parsed.enabled("all"):

        def attach(name: str) -> str:
            container = engine.containers.find(name)
            directory = settings.container_directory(container.id)
            return mounting.attach(
                settings, directory, lambda: filesystem.tree_of(engine, container)
            )

        with explained(settings, parsed):
            return _each(names, attach)
    rows = []
    for container in _every(engine):
        if place := mounting.place_of(settings.container_directory(container.id)):
            shown = container.id if parsed.enabled("no-trunc") else container.id[:_ID_LENGTH]
            rows.append((shown, container.id, {"Names": [container.name]}, place))
    return _list(rows, parsed.text("format"))


def umount(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch umount``."""
    parsed = parse(UMOUNT, arguments)
    engine = Engine(settings)

    def mounted() -> list[str]:
        directory = settings.container_directory
        return [one.id for one in _every(engine) if mounting.place_of(directory(one.id))]

    names = _named(parsed.arguments, parsed.enabled("all"), mounted)

    def detach(name: str) -> str:
        container = engine.containers.find(name)
        directory = settings.container_directory(container.id)
        what, force = f"container {name}", parsed.enabled("force")
        mounting.detach(settings, directory, what, force=force)
        return container.id

    with explained(settings, parsed):
        return _each(names, detach)


def mount_images(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch image mount``."""
    parsed = parse(IMAGE_MOUNT, arguments)
    engine = Engine(settings)
    names = _chosen(
        parsed.arguments, parsed.enabled("all"), lambda: [one.id for one in engine.images.list()]
    )
    if names or parsed.enabled("all"):
        with explained(settings, parsed):
            return _each(names, lambda name: image_mounts.mount(engine, name))
    known = {image.id: list(image.names) for image in engine.images.list()}
    rows = []
    for image_id, place in image_mounts.mounted(engine).items():
        named = known.get(image_id, [])
        bare = image_id.removeprefix("sha256:")
        rows.append((named[0] if named else bare, bare, {"Repositories": named}, place))
    return _list(rows, parsed.text("format"))


def umount_images(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch image umount``."""
    parsed = parse(IMAGE_UMOUNT, arguments)
    engine = Engine(settings)
    names = _named(
        parsed.arguments, parsed.enabled("all"), lambda: list(image_mounts.mounted(engine))
    )
    force = parsed.enabled("force")
    with explained(settings, parsed):
        return _each(
            names,
            lambda name: image_mounts.unmount(engine, name, force=force).removeprefix("sha256:"),
        )


def _every(engine: Engine) -> "list[Container]":
    return engine.containers.list(all=True)


def _chosen(names: list[str], everything: bool, every: "Callable[[], list[str]]") -> list[str]:
    if names and everything:
        raise _usage("cannot use the option --all together with names")
    return every() if everything else names


def _named(names: list[str], everything: bool, every: "Callable[[], list[str]]") -> list[str]:
    if not names and not everything:
        raise _usage("you must name at least one, or say --all")
    return _chosen(names, everything, every)


def _usage(message: str, hint: str = "") -> UsageError:
    return UsageError(message, hint, exit_status=ENGINE_FAILED)  # as podman


def _each(names: "Iterable[str]", work: "Callable[[str], str]") -> int:
    """Print what comes of each; whatever fails, the others are done: podman's status is 125."""
    return ENGINE_FAILED if for_each(names, work) else 0


def _list(rows: "list[tuple[str, str, dict[str, list[str]], str]]", form: str) -> int:
    if form == "json":
        documents = [{"id": whole, **names, "mountpoint": place} for _, whole, names, place in rows]
        print(json.dumps(documents, indent=1))
        return 0
    if form:
        raise _usage(f'unknown --format argument: "{form}"', "it can be json")
    width = max((len(shown) for shown, _, _, _ in rows), default=0) + 2
    for shown, _, _, place in rows:
        print(f"{shown:<{width}}{place}")
    return 0
