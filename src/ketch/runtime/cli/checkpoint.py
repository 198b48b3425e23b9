"""``checkpoint`` and ``restore``, by criu(8) where it is installed."""

import os

from ketch.errors import UnavailableError, UnsupportedError
from ketch.runtime.state import States

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cli.grammar import Parsed
    from ketch.runtime.cli.main import Settings


def checkpoint(settings: "Settings", options: "Parsed") -> int:
    """Save a running container's processes."""
    States(settings.root).find(options.arguments[0])
    _refuse(settings)
    return 1


def restore(settings: "Settings", _options: "Parsed") -> int:
    """Run a container again from what was saved."""
    _refuse(settings)
    return 1


def _refuse(settings: "Settings") -> None:
    name = settings.criu
    directories = [""] if "/" in name else os.environ.get("PATH", "").split(":")
    if not any(os.access(os.path.join(each, name), os.X_OK) for each in directories):
        raise UnavailableError(
            f"{name} is not installed, and it is what saves and restores processes",
            "install criu, or name it with --criu",
        )
    raise UnsupportedError("this build does not drive criu yet")
