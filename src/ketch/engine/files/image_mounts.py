"""Images that are mounted for whoever asks: ``ketch image mount``; their layers stay meanwhile."""

import contextlib
import os

from ketch.engine.files import mounting
from ketch.linux.removetree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.engine import Engine

DIRECTORY = "mounts"


def mount(engine: "Engine", text: str) -> str:
    """Mount an image, to be read only, once more if it is mounted; returns where.

    Args:
        engine: where it is.
        text: name, ID, or unique start of an ID.

    Raises:
        NotFoundError: there is no such image.
        KetchError, OSError: it cannot be mounted.
    """
    image = engine.images.resolve(text)
    directory = _directory(engine, image.id)
    if not os.path.exists(f"{directory}/{mounting.RECORD}"):
        # Whatever an interrupted one has left; nothing of it is mounted, or says so.
        with contextlib.suppress(FileNotFoundError):
            remove_tree(directory)
        os.makedirs(directory, 0o700)
        engine.images.snapshotter.prepare(directory, image.chain_ids)

    def view() -> int:
        tree = engine.images.snapshotter.view(directory)
        engine.settings.tell(engine.images.snapshotter.describe_view, directory)
        return tree

    return mounting.attach(engine.settings, directory, view)


def unmount(engine: "Engine", text: str, *, force: bool = False) -> str:
    """Undo one ``mount``; returns the image's ID.

    Args:
        engine: where it is.
        text: name or ID; of an image that is gone, its whole ID.
        force: whether all of them are undone.

    Raises:
        NotFoundError: there is no such image.
        ConflictError: it is not mounted.
    """
    gone = f"sha256:{text.removeprefix('sha256:')}"
    image_id = gone if gone in _prepared(engine) else engine.images.resolve(text).id
    directory = _directory(engine, image_id)
    mounting.detach(engine.settings, directory, f"image {text}", force=force)
    if not os.path.exists(f"{directory}/{mounting.RECORD}"):
        remove_tree(directory)
        engine.images.expect_garbage()
    return image_id


def mounted(engine: "Engine") -> dict[str, str]:
    """The images that are mounted for the caller: where, by their IDs."""
    places = {one: mounting.place_of(_directory(engine, one)) for one in _prepared(engine)}
    return {image_id: place for image_id, place in places.items() if place}


def take_away(engine: "Engine") -> None:
    """Unmount all of them, for whoever takes the engine away."""
    for image_id in _prepared(engine):
        mounting.take_away(_directory(engine, image_id))


def _prepared(engine: "Engine") -> list[str]:
    try:
        names = os.listdir(f"{engine.settings.root}/{DIRECTORY}")
    except FileNotFoundError:
        return []
    return [f"sha256:{name}" for name in sorted(names)]


def _directory(engine: "Engine", image_id: str) -> str:
    return f"{engine.settings.root}/{DIRECTORY}/{image_id.partition(':')[2]}"
