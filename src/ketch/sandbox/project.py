"""What a sandbox did to the project that ``Sandbox.host`` was given."""

import contextlib
import os
from typing import TYPE_CHECKING

from ketch.engine.volumes import copy_on_write
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    PermissionDeniedError,
)
from ketch.linux import openat2
from ketch.linux.scopes import owned
from ketch.sandbox import applying, changes, host

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
        return _found(upper, project, _base(container, upper))


def apply(
    container: "Container", paths: tuple[str, ...], *, overwrite: bool
) -> "list[ProjectChange]":
    """Take over what a sandbox did to its project; see ``Sandbox.apply``."""
    named = [os.path.normpath(path) for path in paths]
    taken = []
    with _both(container) as (upper, project):
        base = _base(container, upper)
        found = _found(upper, project, base)
        for path in named:
            if not any(_lies(change.path, path) for change in found):
                raise NotFoundError(f"nothing was changed at {path}")
        if named:
            chosen = [one for one in found if any(_lies(one.path, path) for path in named)]
            _check(chosen, overwrite=overwrite)
        else:
            chosen = [
                one for one in found
                if not (one.refused or changes.is_of_git(one.path))
                and (overwrite or not one.conflict)
            ]  # fmt: skip
        for change in chosen:
            kept = [path for path in _above(change.path) if _is_known(project, path, base)]
            applying.apply(upper, project, change, None if overwrite else base)
            for path in (change.path, *kept):
                base.remember(path, changes.status_of(project, path))
            base.save()
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
        _base(origin, upper).save(_remembered(container))
        found = sorted(changes.found(upper, project), key=lambda change: change.path)
        if not found:
            return
        with (
            owned(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)) as root,
            owned(openat2.openat2(root, directory(origin), _DIRECTORY)) as target,
        ):
            for change in found:
                with contextlib.suppress(KetchError):
                    applying.apply(upper, target, change)


def _found(upper: int, project: int, base: applying.Base) -> "list[ProjectChange]":
    found = sorted(changes.found(upper, project), key=lambda change: change.path)
    return [
        change._replace(conflict=applying.conflict(upper, project, change, base))
        for change in found
    ]


def _check(chosen: "list[ProjectChange]", *, overwrite: bool) -> None:
    """See that what was named can be taken over, before any of it is."""
    for change in chosen:
        if change.refused:
            raise PermissionDeniedError(f"{change.path}: {change.refused}")
        if change.conflict and not overwrite:
            raise applying.refusal(change.path, change.conflict)


def _above(path: str) -> "list[str]":
    """The directories that a path is in, but for the project."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _is_known(project: int, path: str, base: applying.Base) -> bool:
    status = changes.status_of(project, path)
    return status is None or base.has(path, status)


def _base(container: "Container", upper: int) -> applying.Base:
    # What holds the changes was made when the sandbox began, and nobody has written to it since.
    began = os.stat("..", dir_fd=upper).st_ctime_ns
    return applying.Base(began, _remembered(container))


def _remembered(container: "Container") -> str:
    places = container._places
    return f"{places.settings.container_directory(container.id)}/applied.json"


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
