"""A volume as the engine's database has it, and where its data is."""

import json
import os
from contextlib import suppress

from ketch.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from ketch.engine.settings import Settings

ANONYMOUS_LABEL = "com.docker.volume.anonymous"


class Volume:
    """One volume at the moment it was read.

    Attributes:
        name: its name.
        options: those of the local driver: ``type``, ``device``, ``o``.
        labels: its labels.
        created_ns: when it was made, in nanoseconds since the epoch.
        mountpoint: the path of its data.
        users: identifiers of the containers that have it.
    """

    __slots__ = ("created_ns", "labels", "mountpoint", "name", "options", "users")

    def __init__(self, row: "sqlite3.Row", settings: "Settings", users: "Iterable[str]") -> None:
        self.name: str = row["name"]
        self.options: dict[str, str] = json.loads(row["options"])
        self.labels: dict[str, str] = json.loads(row["labels"])
        self.created_ns: int = row["created_ns"]
        self.mountpoint = data_directory(settings, self.name)
        self.users = list(users)

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody gave it a name."""
        return ANONYMOUS_LABEL in self.labels


def users(connection: "sqlite3.Connection", name: str) -> list[str]:
    """Identifiers of the containers that have a volume."""
    # Whoever was killed while it made a container may have left its name here.
    query = (
        "SELECT container_id FROM volume_use JOIN container ON container.id = container_id"
        " WHERE volume = ? ORDER BY container_id"
    )
    return [row["container_id"] for row in connection.execute(query, (name,))]


def data_directory(settings: "Settings", name: str) -> str:
    """Path of a volume's data."""
    return f"{settings.root}/volumes/{name}/_data"


def make_data_directory(settings: "Settings", name: str) -> str:
    """Make sure that a volume has a place for its data; returns the place."""
    path = data_directory(settings, name)
    try:
        while True:
            os.makedirs(f"{settings.root}/volumes", 0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(os.path.dirname(path), 0o700)
            try:
                os.mkdir(path, 0o755)
                os.chmod(path, 0o755)
            except FileExistsError:
                return path
            except FileNotFoundError:
                continue  # removed since the lines above
            return path
    except OSError as error:
        raise UnavailableError(
            f"error while creating volume root path '{path}': {(error.strerror or '').lower()}"
        ) from error
