"""``--mount type=...,source=...,target=...``: one mount, as the API has it."""

import os.path

from ketch.errors import InvalidArgumentError
from ketch.spec.digits import decimal
from ketch.spec.values import boolean, fields, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.container import (
        BindOptions,
        DriverConfig,
        ImageOptions,
        Mount,
        TmpfsOptions,
        VolumeOptions,
    )

# Keys that mean true where they stand alone.
_FLAGS = (
    "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src", "u", "chown",
)  # fmt: skip
_GIVEN = ("bind", "tmpfs", "volume")
_RECURSIVE = ("enabled", "disabled", "writable", "readonly")


def mount(text: str, directory: str = "") -> "Mount":
    """Reads ``--mount key=value,...``.

    The keys are Docker's; two are ketch's own: ``bind-create-src`` makes a missing source, as
    ``-v`` does, ``bind-copy-on-write`` has what is written to a directory go to so much memory.
    Two are podman's: ``idmap`` maps ids between the source and the container, see ``id_map``, and
    ``U`` or ``chown`` gives what is mounted to the container's user.

    Args:
        text: the option's value, a line of comma-separated values.
        directory: the caller's working directory, for sources that begin with a dot.
    """
    reader = _Reader(directory)
    for field in fields(text):
        reader.take(field)
    return reader.result()


class _Reader:
    """Takes the fields of one ``--mount``."""

    __slots__ = (
        "bind", "directory", "given", "id_map", "image", "is_given", "mount", "tmpfs", "volume",
    )  # fmt: skip

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.mount: Mount = {"Type": "volume"}
        self.bind: BindOptions = {}
        self.tmpfs: TmpfsOptions = {}
        self.volume: VolumeOptions = {}
        self.image: ImageOptions = {}
        self.id_map = ""
        self.is_given = False
        self.given: set[str] = set()

    def take(self, field: str) -> None:
        """Takes ``key=value``, or a key alone where that means true."""
        key, equals, value = field.partition("=")
        key = key.lower()
        if key == "idmap":
            self.id_map = {"": OWNER, "true": OWNER, "false": ""}.get(value.lower(), value)
            return
        if not equals:
            if key not in _FLAGS:
                raise InvalidArgumentError(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        if key == "type":
            self.mount["Type"] = value.lower()
        elif key in {"source", "src"}:
            relative = value == "." or value.startswith("./")
            self.mount["Source"] = (
                os.path.normpath(os.path.join(self.directory, value)) if relative else value
            )
        elif key in {"target", "dst", "destination"}:
            self.mount["Target"] = value
        elif key in {"readonly", "ro"}:
            self.mount["ReadOnly"] = _truth(key, value)
        elif key in {"u", "chown"}:
            self.is_given = _truth(field.partition("=")[0], value)
        elif key == "consistency":
            self.mount["Consistency"] = value.lower()
        else:
            kind = key.partition("-")[0]
            if kind not in _TAKERS or not _TAKERS[kind](self, key, value):
                raise InvalidArgumentError(f"unexpected key '{key}' in '{field}'")
            self.given.add(kind)

    def take_bind(self, key: str, value: str) -> bool:
        """Takes a key of bind mounts; returns whether there is such a key."""
        if key == "bind-propagation":
            self.bind["Propagation"] = value.lower()
        elif key == "bind-nonrecursive":
            self.bind["NonRecursive"] = _truth(key, value)
        elif key == "bind-create-src":
            self.bind["CreateMountpoint"] = _truth(key, value)
        elif key == "bind-copy-on-write":
            try:
                self.bind["CopyOnWrite"] = size(value)
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"invalid value for {key}: {value}") from error
        elif key == "bind-recursive":
            if value not in _RECURSIVE:
                raise InvalidArgumentError(
                    f"invalid value for {key}: {value} "
                    '(must be "enabled", "disabled", "writable", or "readonly")'
                )
            self.bind["NonRecursive"] = value == "disabled"
            self.bind["ReadOnlyNonRecursive"] = value == "writable"
            self.bind["ReadOnlyForceRecursive"] = value == "readonly"
        else:
            return False
        return True

    def take_volume(self, key: str, value: str) -> bool:
        """Takes a key of volumes; returns whether there is such a key."""
        driver: DriverConfig = self.volume.get("DriverConfig", {})
        if key == "volume-nocopy":
            self.volume["NoCopy"] = _truth(key, value)
        elif key == "volume-subpath":
            self.volume["Subpath"] = value
        elif key == "volume-label":
            _set(self.volume.setdefault("Labels", {}), value)
        elif key == "volume-driver":
            self.volume["DriverConfig"] = {**driver, "Name": value}
        elif key == "volume-opt":
            options = {**driver.get("Options", {})}
            _set(options, value)
            self.volume["DriverConfig"] = {**driver, "Options": options}
        else:
            return False
        return True

    def take_image(self, key: str, value: str) -> bool:
        """Takes a key of image mounts; returns whether there is such a key."""
        if key != "image-subpath":
            return False
        self.image["Subpath"] = value
        return True

    def take_tmpfs(self, key: str, value: str) -> bool:
        """Takes a key of tmpfs mounts; returns whether there is such a key."""
        try:
            if key == "tmpfs-size":
                self.tmpfs["SizeBytes"] = size(value)
            elif key == "tmpfs-mode":
                self.tmpfs["Mode"] = _mode(value)
            else:
                return False
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"invalid value for {key}: {value}") from error
        return True

    def result(self) -> "Mount":
        """Checks that the fields fit together."""
        mount, kind = self.mount, self.mount["Type"]
        if not kind:
            raise InvalidArgumentError("type is required")
        if not mount.get("Target"):
            raise InvalidArgumentError("target is required")
        for owner in ("volume", "image", "bind", "tmpfs"):
            if owner in self.given and kind != owner:
                raise InvalidArgumentError(
                    f"cannot mix '{owner}-*' options with mount type '{kind}'"
                )
        if self.bind.get("ReadOnlyForceRecursive"):
            needs = "option 'bind-recursive=readonly' requires '{}' to be specified in conjunction"
            if not mount.get("ReadOnly"):
                raise InvalidArgumentError(needs.format("readonly"))
            if self.bind.get("Propagation") != "rprivate":
                raise InvalidArgumentError(needs.format("bind-propagation=rprivate"))
        if self.id_map:
            if kind not in {"bind", "volume"}:
                raise InvalidArgumentError(f"cannot use 'idmap' with mount type '{kind}'")
            id_map(self.id_map)
            section = self.bind if kind == "bind" else self.volume
            section["IdMap"] = self.id_map
        if self.is_given:
            if kind not in _GIVEN:
                raise InvalidArgumentError(f"cannot use 'U' with mount type '{kind}'")
            {"bind": self.bind, "tmpfs": self.tmpfs, "volume": self.volume}[kind]["Chown"] = True
        if self.bind:
            mount["BindOptions"] = self.bind
        if self.volume:
            mount["VolumeOptions"] = self.volume
        if self.image:
            mount["ImageOptions"] = self.image
        if self.tmpfs:
            mount["TmpfsOptions"] = self.tmpfs
        return mount


_TAKERS = {
    "bind": _Reader.take_bind,
    "volume": _Reader.take_volume,
    "image": _Reader.take_image,
    "tmpfs": _Reader.take_tmpfs,
}

OWNER = "owner"
"""An id map that gives the container's user the files of the source's owner."""


def id_map(text: str) -> "dict[str, list[tuple[int, int, int, bool]]] | None":
    """Reads the value of ``idmap``: ``uids=1000-0-1#@2000-2-5;gids=1000-0-1``.

    A range is the first id on the disk, the first as which it is seen, and how many there are, as
    podman has it; after ``@`` it is seen so in the container's own user namespace, if it has one.
    What is on the disk and in no range is nobody's.

    Returns:
        The ranges under ``uids`` and ``gids``, each with whether it has the ``@``, or None for
        ``owner``.
    """
    if text == OWNER:
        return None
    found: dict[str, list[tuple[int, int, int, bool]]] = {}
    for part in text.split(";"):
        kind, _, ranges = part.partition("=")
        try:
            found[kind] = [_id_range(each) for each in ranges.split("#")]
        except ValueError as error:
            raise InvalidArgumentError(f"invalid value for idmap: {text}", _ID_MAP_HINT) from error
    if set(found) != {"uids", "gids"}:
        raise InvalidArgumentError(f"invalid value for idmap: {text}", _ID_MAP_HINT)
    return found


_ID_MAP_HINT = "write idmap alone, or idmap=uids=[@]ONDISK-SEEN-COUNT;gids=[@]ONDISK-SEEN-COUNT"


def _id_range(text: str) -> tuple[int, int, int, bool]:
    on_disk, seen, count = (decimal(number) for number in text.removeprefix("@").split("-"))
    if on_disk is None or seen is None or not count:
        raise ValueError(text)
    if max(on_disk, seen) + count >= 1 << 32:  # the last of 32 bits is no id
        raise ValueError(text)
    return on_disk, seen, count, text.startswith("@")


def _set(values: dict[str, str], text: str) -> None:
    """Adds ``name=value``; nothing is nobody's name."""
    name, _, value = text.partition("=")
    if name:
        values[name] = value


def _mode(octal: str) -> int:
    if octal.strip("01234567") or not 0 < len(octal) < 12:
        raise InvalidArgumentError(octal)
    return int(octal, 8)


def _truth(key: str, value: str) -> bool:
    try:
        return boolean(value)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid value for {key}: {value}") from error
