"""Mount options: ``-v``, ``--mount`` and ``--tmpfs``, and what they ask of a runtime.

Two steps, as Docker has them: what the client reads (relative paths become absolute there, where
the working directory is known), and what the engine makes of it, which is all that an API client
gets.
"""

import os.path

from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.spec.values import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.spec.container import BindOptions, HostConfig, Mount, MountPoint

PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")

# What may follow the second colon of -v: at most one of each group.
_MODES = (
    ("ro", "rw"),
    ("z", "Z"),
    ("U",),
    PROPAGATIONS,
    ("copy", "nocopy"),
    ("consistent", "cached", "delegated", "default"),
)


def volume(text: str, directory: str) -> str:
    """Checks the outline of ``-v source:target[:mode]`` and makes a relative source absolute.

    Args:
        text: the option's value.
        directory: the caller's working directory, for sources that begin with a dot.

    Returns:
        The same, for the engine to read.
    """
    if not text:
        raise InvalidArgumentError("invalid empty volume spec")
    parts = text.split(":")
    if not all(parts):
        raise InvalidArgumentError(f"invalid spec: {text}: empty section between colons")
    if len(parts) > 3:
        raise InvalidArgumentError(
            f"invalid spec: {text}: too many colons", "it is SOURCE:TARGET[:OPTIONS]"
        )
    if len(parts) > 1 and parts[0].startswith("."):
        parts[0] = os.path.normpath(os.path.join(directory, parts[0]))
    return ":".join(parts)


def bind(text: str, driver: str = "") -> "Mount":
    """Reads an entry of the API's ``Binds``: ``source:target[:mode]``.

    A source that is an absolute path is a directory or file of the host, made where it is missing;
    any other is a volume's name.

    Args:
        text: the entry.
        driver: the driver of volumes that are made for it, or empty.

    Raises:
        InvalidArgumentError: malformed.
    """
    parts = text.split(":")
    source, target = parts[0], parts[1] if len(parts) > 1 else ""
    mode = parts[2] if len(parts) == 3 else ""
    if not source or len(parts) not in {2, 3} or (len(parts) == 2 and _valid_mode(target)):
        raise InvalidArgumentError(f"invalid volume specification: '{text}'")
    if not _valid_mode(mode):
        raise InvalidArgumentError(f"invalid mode: {mode}", "ro and rw are modes")
    words = mode.split(",")
    mount: Mount = {"Type": "bind", "Target": target, "ReadOnly": "ro" in words}
    options: BindOptions = {}
    for word in words:
        if word in PROPAGATIONS:
            options["Propagation"] = word
    if source.startswith("/"):
        mount["Source"] = os.path.normpath(source)
        mount["BindOptions"] = {"CreateMountpoint": True, **options}
        if "copy" in words or "nocopy" in words:
            mount["VolumeOptions"] = {"NoCopy": "nocopy" in words}
    else:
        mount["Type"], mount["Source"] = "volume", source
        if options:
            mount["BindOptions"] = options
        if "nocopy" in words or driver:
            mount["VolumeOptions"] = {"NoCopy": "nocopy" in words}
        if driver:
            mount["VolumeOptions"]["DriverConfig"] = {"Name": driver}
    try:
        check(mount)
    except InvalidArgumentError as error:
        message = f"invalid volume specification: '{text}': {error.message}"
        raise InvalidArgumentError(message, error.hint) from error
    return mount


def _valid_mode(mode: str) -> bool:
    words = mode.split(",") if mode else []
    counts = [sum(words.count(word) for word in group) for group in _MODES]
    return sum(counts) == len(words) and all(count <= 1 for count in counts)


def check(mount: "Mount") -> None:
    """Checks what the engine needs of a mount, wherever it came from.

    Raises:
        InvalidArgumentError: a field is missing, malformed or of another type of mount.
        UnsupportedError: a type that Docker has and ketch does not.
    """
    kind, source, target = mount["Type"], mount.get("Source", ""), mount.get("Target", "")
    if not target:
        raise _wrong(mount, "field Target must not be empty")
    if os.path.normpath(target).strip("/") in {"", "."}:
        raise _wrong(mount, "invalid specification: destination can't be '/'")
    if not target.startswith("/"):
        raise _wrong(mount, f"invalid mount path: '{target}' mount path must be absolute")
    if kind == "cluster":
        raise UnsupportedError(
            f"invalid mount config for type {quoted(kind)}: ketch has no swarm",
            "use type=bind, type=volume, type=image or type=tmpfs",
        )
    if kind not in _SECTIONS:
        raise InvalidArgumentError(
            _wrong(mount, "mount type unknown").message,
            "use type=bind, type=volume, type=image or type=tmpfs",
        )
    for owner, section in _SECTIONS.items():
        if owner != kind and section in mount:
            raise _wrong(mount, f"field {section} must not be specified")
    if kind in {"bind", "image"} and not source:
        raise _wrong(mount, "field Source must not be empty")
    if kind == "bind":
        _check_bind(mount, source)
    elif kind == "tmpfs":
        if source:
            raise _wrong(mount, "field Source must not be specified")
    elif kind == "volume":
        _check_volume(mount, source)
    _check_subpath(mount, (mount.get("ImageOptions") or {}).get("Subpath", ""), "image")


_SECTIONS = {
    "bind": "BindOptions",
    "volume": "VolumeOptions",
    "tmpfs": "TmpfsOptions",
    "image": "ImageOptions",
}


def _check_bind(mount: "Mount", source: str) -> None:
    options = mount.get("BindOptions", {})
    propagation = options.get("Propagation", "")
    if propagation and propagation not in PROPAGATIONS:
        raise _wrong(mount, f"invalid propagation mode: {propagation}")
    if not source.startswith("/"):
        raise _wrong(mount, f"invalid mount path: '{source}' mount path must be absolute")
    if options.get("CopyOnWrite", 0) < 0:
        raise _wrong(mount, "CopyOnWrite wants a size")
    if options.get("CopyOnWrite") and mount.get("ReadOnly"):
        raise _wrong(mount, "CopyOnWrite conflicts with ReadOnly")
    for other in ("IdMap", "Chown"):
        if options.get("CopyOnWrite") and options.get(other):
            raise _wrong(mount, f"CopyOnWrite conflicts with {other}")
    if options.get("ReadOnlyForceRecursive") and not mount.get("ReadOnly"):
        raise _wrong(mount, "ReadOnlyForceRecursive conflicts with ReadOnly=false")


def _check_volume(mount: "Mount", source: str) -> None:
    options = mount.get("VolumeOptions", {})
    subpath = options.get("Subpath", "")
    if not source and mount.get("ReadOnly"):
        raise _wrong(mount, "must not set ReadOnly mode when using anonymous volumes")
    if not source and subpath:
        raise _wrong(mount, "must not set Subpath when using anonymous volumes")
    _check_subpath(mount, subpath, "volume")


def _check_subpath(mount: "Mount", subpath: str, kind: str) -> None:
    """A subpath must lead down, as Go's ``filepath.IsLocal`` has it."""
    normal = os.path.normpath(subpath) if subpath else ""
    if normal.startswith(("/", "../")) or normal == "..":
        raise _wrong(mount, f"subpath must be a relative path within the {kind}")


def _wrong(mount: "Mount", reason: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"invalid mount config for type {quoted(mount['Type'])}: {reason}")


# tmpfs(5) and mount(8): what --tmpfs takes without a value, and with one; and podman's word for
# one that begins with the files that it covers.
_TMPFS_FLAGS = (
    "defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async",
    "dirsync", "remount", "mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "bind",
    "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared", "slave",
    "rslave", "relatime", "norelatime", "strictatime", "nostrictatime", "tmpcopyup", "notmpcopyup",
)  # fmt: skip
_TMPFS_VALUES = ("mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "size")
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev", "rprivate")


def tmpfs_options(options: str) -> list[str]:
    """Returns the mount options of a ``--tmpfs path:options``, Docker's defaults merged in.

    Of options that contradict each other, such as ``exec`` and ``noexec``, the last one counts.
    """
    chosen: dict[str, str] = {}
    for option in (*_TMPFS_DEFAULTS, *(options.split(",") if options else ())):
        name, equals, value = option.partition("=")
        known = _TMPFS_VALUES if equals and value else _TMPFS_FLAGS
        if name not in known:
            pair = f"{quoted(name)} {quoted(value)}" if equals else quoted(name)
            raise InvalidArgumentError(f"invalid tmpfs option [{pair}]")
        key = _tmpfs_subject(name)
        chosen.pop(key, None)  # so that the later one also takes the later place
        chosen[key] = option
    return [option for option in chosen.values() if option not in {"defaults", "notmpcopyup"}]


def _tmpfs_subject(name: str) -> str:
    """What an option is about: the same for options of which only one can hold."""
    if name in PROPAGATIONS or name.endswith("bindable"):
        return "propagation"
    if name in {"ro", "rw"}:
        return "writable"
    if name in {"sync", "async"}:
        return "sync"
    return name.removeprefix("no") if name in _TMPFS_FLAGS else name


def of_container(
    host: "HostConfig", volumes: "Iterable[str]" = (), inherited: "Iterable[MountPoint]" = ()
) -> "list[MountPoint]":
    """Returns every mount that a container asks for, in the order in which they must be made.

    What ``--tmpfs`` asks for is checked and left out: it stays in ``HostConfig.Tmpfs``.

    Args:
        host: what it asks of the host.
        volumes: where it wants volumes of its own, unless something else is mounted there.
        inherited: what it takes over from other containers, unless it asks for its own there.

    Raises:
        InvalidArgumentError: one is malformed, or two have the same target.
        UnsupportedError: one is of a type that Docker has and ketch does not.
    """
    driver = host.get("VolumeDriver", "")
    found: dict[str, MountPoint] = {}
    for text in host.get("Binds", ()):
        entry = bind(text, driver)
        mode = text.split(":")[2] if text.count(":") == 2 else ""
        _add(found, _point(entry, mode or ("z" if entry["Type"] == "volume" else "")))
    for entry in host.get("Mounts", ()):
        check(entry)
        _add(found, _point(entry, "z" if entry["Type"] == "volume" else ""))
    for path, options in host.get("Tmpfs", {}).items():
        _check_tmpfs_target(path)
        tmpfs_options(options)
        if os.path.normpath(path) in found:
            raise InvalidArgumentError(f"Duplicate mount point: {os.path.normpath(path)}")
    for point in inherited:
        found.setdefault(point["Destination"], point)
    for path in volumes:
        entry = {"Type": "volume", "Target": path}
        if driver:
            entry["VolumeOptions"] = {"DriverConfig": {"Name": driver}}
        check(entry)
        target = os.path.normpath(path)
        if target not in map(os.path.normpath, host.get("Tmpfs", {})):
            found.setdefault(target, _point(entry, ""))
    return sorted(found.values(), key=lambda point: point["Destination"].count("/"))


def _add(found: "dict[str, MountPoint]", point: "MountPoint") -> None:
    if point["Destination"] in found:
        raise InvalidArgumentError(f"Duplicate mount point: {point['Destination']}")
    found[point["Destination"]] = point


def _point(mount: "Mount", mode: str) -> "MountPoint":
    kind = mount["Type"]
    point: MountPoint = {
        "Type": kind,
        "Source": mount.get("Source", "") if kind in {"bind", "image"} else "",
        "Destination": os.path.normpath(mount["Target"]),
        "Mode": mode,
        "RW": not mount.get("ReadOnly", False),
        "Propagation": "",
        "Spec": mount,
    }
    if kind == "bind":
        point["Propagation"] = mount.get("BindOptions", {}).get("Propagation") or "rprivate"
    if kind == "volume":
        driver = mount.get("VolumeOptions", {}).get("DriverConfig", {})
        point["Name"] = mount.get("Source", "")
        point["Driver"] = driver.get("Name") or "local"
    return point


def volumes_from(text: str) -> tuple[str, bool]:
    """Reads ``--volumes-from container[:mode]``; returns the container and whether it is ``ro``.

    Raises:
        InvalidArgumentError: malformed.
    """
    if not text:
        raise InvalidArgumentError("volumes-from specification cannot be an empty string")
    container, _, mode = text.partition(":")
    words = set(mode.split(",")) if mode else set()
    if not _valid_mode(mode) or words & {*PROPAGATIONS, "copy", "nocopy"}:
        raise InvalidArgumentError(f"invalid mode: {mode}", "ro and rw are modes")
    return container, "ro" in words


def inherit(point: "MountPoint", *, read_only: bool) -> "MountPoint":
    """Returns a mount of another container as one of those that take it over."""
    writable = point["RW"] and not read_only
    specification: Mount = {**point["Spec"], "ReadOnly": not writable}
    if point["Type"] == "volume":
        specification["Source"] = point.get("Name", "")
    # What has been given to one container's user is not given to the next one's.
    if (bind := specification.get("BindOptions", {})).get("Chown"):
        specification["BindOptions"] = {**bind, "Chown": False}
    if (volume := specification.get("VolumeOptions", {})).get("Chown"):
        specification["VolumeOptions"] = {**volume, "Chown": False}
    return {**point, "RW": writable, "Mode": "", "Spec": specification}


def _check_tmpfs_target(path: str) -> None:
    if os.path.normpath(path).strip("/") in {"", "."}:
        raise InvalidArgumentError("invalid specification: destination can't be '/'")
    if not path.startswith("/"):
        raise InvalidArgumentError(f"invalid mount path: '{path}' mount path must be absolute")
