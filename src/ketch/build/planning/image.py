"""The image that a stage becomes: its configuration, as instructions change it.

The fields that are kept, and their order, are those of BuildKit's documents, so that the same
Dockerfile gives the same bytes. Source: github.com/moby/docker-image-spec, specs-go/v1/image.go.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from ketch.build.planning import platforms

if TYPE_CHECKING:
    from ketch.spec.image import ContainerConfig, ImageConfig, Platform

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")

_FIELDS = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels",
    "StopSignal", "ArgsEscaped", "Healthcheck", "OnBuild", "Shell",
)  # fmt: skip
_SETS = {"ExposedPorts", "Volumes", "Labels"}  # Go writes them sorted
_SYSTEM_FIELDS = ("os.version", "os.features")


class Image:
    """A configuration.

    Attributes:
        platform: what it is for.
        author: who made it.
        config: what containers run with.
        system: ``os.version`` and ``os.features``, where the base has them.
    """

    def __init__(
        self,
        platform: "Platform",
        config: "ContainerConfig",
        author: str = "",
        system: dict[str, Any] | None = None,
    ) -> None:
        self.platform = platform
        self.config = config
        self.author = author
        self.system = system or {}
        self._positions: dict[str, int] | None = None

    @classmethod
    def empty(cls, platform: "Platform") -> "Image":
        """Returns what ``FROM scratch`` begins with."""
        return cls(platform, {"WorkingDir": "/", "Env": [f"PATH={DEFAULT_PATH}"]})

    @classmethod
    def of(cls, document: "ImageConfig") -> "Image":
        """Returns what builds on an image begin with; fields that BuildKit does not know go."""
        whole = cast("dict[str, Any]", document)
        given = whole.get("config") or {}
        config = {field: given[field] for field in _FIELDS if given.get(field)}
        platform: Platform = {"architecture": document["architecture"], "os": document["os"]}
        if document.get("variant"):
            platform["variant"] = document["variant"]
        return cls(
            platform,
            _copied(config),
            document.get("author") or "",
            {field: whole[field] for field in _SYSTEM_FIELDS if whole.get(field)},
        )

    def clone(self) -> "Image":
        """Returns another one of the same content, for a stage that builds on this one.

        ONBUILD's triggers do not come along: they are for whoever builds on the image.
        """
        config = _copied(self.config)
        config.pop("OnBuild", None)
        return Image(self.platform, config, self.author, self.system)

    def document(self) -> "ImageConfig":
        """Returns the document, whose ``rootfs``, ``history`` and ``created`` are not known yet."""
        document: dict[str, Any] = {**platforms.normal(self.platform)}
        if self.author:
            document["author"] = self.author
        document["config"] = dict(self._fields())
        document |= self.system
        document["rootfs"] = {"type": "layers", "diff_ids": []}
        return cast("ImageConfig", document)

    def set_variable(self, name: str, value: str) -> None:
        """Sets a variable, where it stands if it is there already."""
        variables = self.config.setdefault("Env", [])
        if self._positions is None:
            self._positions = {}
            for index, variable in enumerate(variables):
                self._positions.setdefault(variable.partition("=")[0], index)
        index = self._positions.setdefault(name, len(variables))
        variables[index : index + 1] = [f"{name}={value}"]

    def table(self, field: str) -> dict[str, Any]:
        """Returns one of the tables ``Labels``, ``Volumes`` and ``ExposedPorts``, to be changed."""
        config = cast("dict[str, Any]", self.config)
        found: dict[str, Any] = config.setdefault(field, {})
        return found

    @property
    def entries(self) -> int:
        """How many entries its lists and tables have."""
        return sum(len(value) for value in self.config.values() if isinstance(value, list | dict))

    def variables(self) -> Iterator[tuple[str, str]]:
        """Yields names and values of the variables."""
        for variable in self.config.get("Env", []):
            name, _, value = variable.partition("=")
            yield name, value

    def shell_command(self, command: str) -> list[str]:
        """Returns what runs a command line: the shell before it."""
        return [*(self.config.get("Shell") or DEFAULT_SHELL), command]

    def _fields(self) -> Iterator[tuple[str, object]]:
        config = cast("dict[str, Any]", self.config)
        for field in _FIELDS:
            value = config.get(field)
            if value:
                yield field, dict(sorted(value.items())) if field in _SETS else value


def _copied(config: Mapping[str, Any]) -> "ContainerConfig":
    """Returns a configuration whose lists and tables are its own; what is in them never changes."""
    copied = {
        field: value.copy() if isinstance(value, list | dict) else value
        for field, value in config.items()
    }
    return cast("ContainerConfig", copied)
