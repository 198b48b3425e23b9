"""What a sandbox did to the project that ``Sandbox.host`` was given."""

import contextlib
import os
from typing import TYPE_CHECKING

from ketch.engine.volumes import copy_on_write
from ketch.errors import ConflictError, InvalidArgumentError, KetchError, NotFoundError
from ketch.linux import openat2
from ketch.linux.scopes import owned
from ketch.sandbox import changes, host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.library.container import Container
    from ketch.sandbox.changes import ProjectChange

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def directory(container: "Container") -> str:
    """Returns the project of a sandbox; empty where it has none."""
    return container.labels.get(host.PROJECT_LABEL, "")


def changed(container: "Container") -> "list[ProjectChange]":
    """Returns what a sandbox did to its project; see ``Sandbox.changes``."""
    with _both(container) as (upper, project):
        return sorted(changes.found(upper, project), key=lambda change: change.path)


def apply(container: "Container", paths: tuple[str, ...]) -> "list[ProjectChange]":
    """Take over what a sandbox did to its project; see ``Sandbox.apply``."""
    named = [os.path.normpath(path) for path in paths]
    taken = []
    with _both(container) as (upper, project):
        found = sorted(changes.found(upper, project), key=lambda change: change.path)
        for path in named:
            if not any(_lies(change.path, path) for change in found):
                raise NotFoundError(f"nothing was changed at {path}")
        for change in found:
            if named and not any(_lies(change.path, path) for path in named):
                continue
            if not named and (change.refused or changes.is_of_git(change.path)):
                continue
            changes.apply(upper, project, change)
            taken.append(change)
    return taken


def repeat(origin: "Container", container: "Container") -> None:
    """Do in a sandbox what another one, that it is made like, did to its project.

    What ``apply`` would refuse is left.
    """
    if not directory(origin):
        return
    pid = container._places.engine.containers.find(container.id).init_pid
    with _both(origin) as (upper, project):
        found = sorted(changes.found(upper, project), key=lambda change: change.path)
        if not found:
            return
        with (
            owned(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)) as root,
            owned(openat2.openat2(root, directory(origin), _DIRECTORY)) as target,
        ):
            for change in found:
                with contextlib.suppress(KetchError):
                    changes.apply(upper, target, change)


@contextlib.contextmanager
def _both(container: "Container") -> "Iterator[tuple[int, int]]":
    """Open the tree of what was changed, and the project, for a block."""
    place = directory(container)
    if not place:
        raise InvalidArgumentError(
            f"sandbox {container.name} has no project", "one that Sandbox.host makes has"
        )
    try:
        record = container._places.engine.containers.find(container.id)
    except NotFoundError as error:
        raise ConflictError(f"sandbox {container.name} has ended, and its changes") from error
    number = next(
        number for number, point in enumerate(record.record.get("Mounts", []))
        if point["Spec"].get("BindOptions", {}).get("CopyOnWrite")
    )  # fmt: skip
    with (
        owned(copy_on_write.upper(record, number)) as upper,
        owned(os.open(place, _DIRECTORY)) as project,
    ):
        yield upper, project


def _lies(path: str, at: str) -> bool:
    return at in {".", path} or path.startswith(f"{at}/")
