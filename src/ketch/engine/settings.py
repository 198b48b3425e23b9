"""Where an engine keeps its state: passed in, never global."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import ParamSpec

    from ketch.spec.told import Say, Told

    P = ParamSpec("P")


UNSHARED = "KETCH_UNSHARED"
"""The variable that says of a process, user 0 as it is, that it is in a user's namespaces."""


def is_ordinary() -> bool:
    """Whether the engine of this process is an ordinary user's."""
    return bool(os.geteuid()) or UNSHARED in os.environ


class Settings:
    """The places and manners that every command of one engine shares.

    Args:
        root: directory of what lasts: database, blobs, snapshots, containers.
        state: directory of what a reboot may lose: sockets and pids.
        zygote: whether starts may be asked of a warm zygote process.
        storage_driver: how layers are stacked; empty for what the engine uses, or works best.
        home: directory of an ordinary user's configuration; empty for root's engine.

    Attributes:
        say: takes what is told of each step; None where nobody asks what is done.
    """

    __slots__ = ("home", "root", "say", "state", "storage_driver", "zygote")

    def __init__(
        self,
        root: str = "/var/lib/ketch",
        state: str = "/run/ketch",
        *,
        zygote: bool = True,
        storage_driver: str = "",
        home: str = "",
    ) -> None:
        self.root = os.path.abspath(root)
        self.state = os.path.abspath(state)
        self.zygote = zygote
        self.storage_driver = storage_driver
        self.home = home
        self.say: Say | None = None

    def tell(self, describe: "Callable[P, Told]", *args: "P.args", **kwargs: "P.kwargs") -> None:
        """Tell of a step, where somebody asks what is done.

        Args:
            describe: returns the step, in the words of who takes it; it is called only then.
            args: what it is called with.
            kwargs: likewise.
        """
        if self.say is not None:
            self.say(describe(*args, **kwargs))

    @classmethod
    def told(cls, fields: "Mapping[str, object]") -> "Settings":
        """Returns the settings that a request tells of, see ``fields``."""
        return cls(str(fields["root"]), str(fields["state"]), home=str(fields["home"]))

    @property
    def fields(self) -> dict[str, str]:
        """What a request tells of the engine: what whoever works on its behalf must know."""
        return {"root": self.root, "state": self.state, "home": self.home}

    @property
    def network(self) -> str:
        """The network namespace where an ordinary user's containers are; empty for one's own."""
        return f"{self.state}/network" if self.home else ""

    @property
    def configuration_path(self) -> str:
        """The configuration file: a user's; the machine's in /etc; another engine's in its root."""
        if self.home:
            return f"{self.home}/config.json"
        default = self.root == "/var/lib/ketch"
        return "/etc/ketch/config.json" if default else f"{self.root}/config.json"

    def container_directory(self, container_id: str) -> str:
        """Directory of one container: its bundle, its log, its writable layer."""
        return f"{self.root}/containers/{container_id}"

    def runtime_directory(self, container_id: str) -> str:
        """Directory of one running container: its attach socket and pids."""
        return f"{self.state}/containers/{container_id}"


def is_closed(status: os.stat_result) -> bool:
    """Whether a directory of the engine's is this user's own and closed to others.

    The group may pass through, as Docker has it.
    """
    return not status.st_mode & 0o067 and status.st_uid == os.geteuid()
