"""``RUN --mount=...`` and ``RUN --device=...``.

Source: github.com/moby/buildkit, frontend/dockerfile/instructions: commands_runmount.go,
commands_rundevice.go.
"""

from typing import TYPE_CHECKING, Any

from ketch.dataclass import dataclass, replace
from ketch.errors import InvalidArgumentError
from ketch.spec import values
from ketch.spec.digits import decimal
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.suggestions import did_you_mean
from ketch.spec.values import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")

_KEYS = (
    "type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode",
    "uid", "gid", "src", "dst", "destination", "ro", "rw", "readwrite", "env",
)  # fmt: skip
_NUMBER_MAX = (1 << 32) - 1


@dataclass(frozen=True)
class Mount:
    """A mount of one step. Values are as given: what is missing is the planner's to fill in.

    Attributes:
        type: one of ``TYPES``.
        source_stage: ``from``: a stage, a context or an image.
        source: a path in there; of a secret its id.
        target: where it is mounted; a relative path goes on from the working directory.
        read_only: whether the step may not write to it.
        size_bytes: how large a tmpfs may become, 0 for any size.
        id: of a cache, a secret or an SSH agent.
        sharing: of a cache, one of ``SHARING``; empty where it is not given: ``shared``.
        required: whether a secret or an agent must be there.
        env: the variable for a secret, empty for its id's own name; None for a file.
        mode: permissions; None where they are not given, so with the owners.
        uid: owner.
        gid: group.
    """

    type: str = "bind"
    source_stage: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    size_bytes: int = 0
    id: str = ""
    sharing: str = ""
    required: bool = False
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True)
class Device:
    """A CDI device of one step."""

    name: str
    required: bool = False


def source_stage(text: str) -> str:
    """Returns the ``from`` of a mount, empty where there is none.

    It decides which stages are built, before variables have values.

    Raises:
        DockerfileError: the text is no line of comma-separated values, or ``from`` has variables.
    """
    found = ""
    for field in _fields(text, "mounts"):
        key, equals, value = field.partition("=")
        if key.lower() != "from" or not equals:
            continue
        if "$" in value[:-1]:
            raise DockerfileError(
                f"'{key.lower()}' doesn't support variable expansion, define alias stage instead"
            )
        found = value
    return found


def parse(text: str, expand: "Callable[[str], str]") -> Mount:
    """Reads a mount.

    Args:
        text: the flag's value.
        expand: puts variables into a value.

    Raises:
        DockerfileError: a field is unknown, malformed or does not go with the type.
    """
    reader = _Reader()
    for field in _fields(text, "mounts"):
        key, equals, value = field.partition("=")
        reader.take(key.lower(), expand(value) if equals else None, field)
    return reader.result()


def device(text: str) -> Device:
    """Reads a device: its name, alone or as ``name=``, and ``required``.

    Raises:
        DockerfileError: it is malformed.
    """
    name, required = "", False
    for field in _fields(text, "devices"):
        key, equals, value = field.partition("=")
        key = key.lower()
        if key == "required":
            required = _truth(key, value) if equals else True
        elif key == "name" and equals:
            if name:
                raise DockerfileError(f"device name already set to {name}")
            name = value
        elif not name:
            name = field
        elif not equals:
            raise DockerfileError(f"invalid field '{field}' must be a key=value pair")
        else:
            hint = did_you_mean(key, ("name", "required"))
            raise DockerfileError(f"unexpected key '{key}' in '{field}'{hint}")
    return Device(name, required)


class _Reader:
    """Takes the fields of one mount."""

    def __init__(self) -> None:
        self.mount = Mount()
        self.access_given = False

    def take(self, key: str, value: str | None, field: str) -> None:
        """Takes a field, whose value is None where a key stands alone."""
        if key in {"readonly", "ro", "readwrite", "rw"}:
            truth = value is None or _truth(key, value)
            self.mount = replace(self.mount, read_only=truth == (key in {"readonly", "ro"}))
            self.access_given = True
        elif key == "required":
            self._only_for(key, ("secret", "ssh"))
            self.mount = replace(self.mount, required=value is None or _truth(key, value))
        elif value is None:
            raise DockerfileError(f"invalid field '{field}' must be a key=value pair")
        elif key == "size":
            self._only_for(key, ("tmpfs",))
            self.mount = replace(self.mount, size_bytes=_size(value))
        elif key in _VALUES:
            name, read = _VALUES[key]
            self.mount = replace(self.mount, **{name: read(value)})
        else:
            raise DockerfileError(f"unexpected key '{key}' in '{field}'{did_you_mean(key, _KEYS)}")

    def _only_for(self, key: str, types: tuple[str, ...]) -> None:
        if self.mount.type not in types:
            raise DockerfileError(f"unexpected key '{key}' for mount type '{self.mount.type}'")

    def result(self) -> Mount:
        """Returns the mount.

        Raises:
            DockerfileError: its fields do not go together.
        """
        mount = self.mount
        if mount.type not in {"secret", "ssh", "cache"}:
            for key, value in (("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)):
                if value is not None:
                    raise DockerfileError(f"{key} not allowed for {quoted(mount.type)} type mounts")
        if mount.type == "secret":
            _check_secret(mount)
        if mount.sharing and mount.type != "cache":
            raise DockerfileError(f"invalid cache sharing set for {mount.type} mount")
        if not self.access_given:
            mount = replace(mount, read_only=mount.type not in {"cache", "tmpfs"})
        return mount


def _check_secret(mount: Mount) -> None:
    if mount.source_stage:
        raise DockerfileError("secret mount should not have a from")
    if mount.sharing:
        raise DockerfileError("secret mount should not define sharing")
    if not (mount.source or mount.target or mount.id):
        raise DockerfileError("invalid secret mount. one of source, target required")
    if mount.source and mount.id:
        raise DockerfileError("both source and id can't be set")


def _fields(text: str, kind: str) -> list[str]:
    try:
        return values.fields(text)
    except InvalidArgumentError as error:
        raise DockerfileError(f"failed to parse csv {kind}: {error.message}") from error


def _type(value: str) -> str:
    return _one_of(value, TYPES, "mount type")


def _sharing(value: str) -> str:
    return _one_of(value, SHARING, "sharing value")


def _one_of(value: str, options: tuple[str, ...], kind: str) -> str:
    if value.lower() not in options:
        hint = did_you_mean(value, options)
        raise DockerfileError(f"unsupported {kind} {quoted(value)}{hint}")
    return value.lower()


def _truth(key: str, value: str) -> bool:
    try:
        return values.boolean(value)
    except InvalidArgumentError as error:
        raise DockerfileError(f"invalid value for {key}: {value}") from error


def _size(value: str) -> int:
    try:
        return values.size(value)
    except InvalidArgumentError as error:
        raise DockerfileError(f"invalid value for size: {value}") from error


def _mode(value: str) -> int:
    if not value or len(value) > 11 or value.strip("01234567") or int(value, 8) > _NUMBER_MAX:
        raise DockerfileError(f"invalid value {value} for mode")
    return int(value, 8)


def _uid(value: str) -> int:
    return _number("uid", value)


def _gid(value: str) -> int:
    return _number("gid", value)


def _number(key: str, value: str) -> int:
    number = decimal(value, 10)
    if number is None or number > _NUMBER_MAX:
        raise DockerfileError(f"invalid value {value} for {key}")
    return number


_VALUES: "dict[str, tuple[str, Callable[[str], Any]]]" = {
    "type": ("type", _type),
    "from": ("source_stage", str),
    "source": ("source", str),
    "src": ("source", str),
    "target": ("target", str),
    "dst": ("target", str),
    "destination": ("target", str),
    "id": ("id", str),
    "sharing": ("sharing", _sharing),
    "mode": ("mode", _mode),
    "uid": ("uid", _uid),
    "gid": ("gid", _gid),
    "env": ("env", str),
}
