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

    from ketch.spec.container import BindOptions, HostConfig, Mount

PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")

# What may follow the second colon of -v: at most one of each group.
_MODES = (
    ("ro", "rw"),
    ("z", "Z"),
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
        raise InvalidArgumentError(f"invalid spec: {text}: too many colons")
    if len(parts) > 1 and parts[0].startswith("."):
        parts[0] = os.path.normpath(os.path.join(directory, parts[0]))
    return ":".join(parts)


def bind(text: str) -> "Mount":
    """Reads an entry of the API's ``Binds``: ``source:target[:mode]``; a missing source is made.

    Raises:
        InvalidArgumentError: malformed.
        UnsupportedError: a volume, named or anonymous.
    """
    parts = text.split(":")
    source, target = parts[0], parts[1] if len(parts) > 1 else ""
    mode = parts[2] if len(parts) == 3 else ""
    if not source or len(parts) > 3 or (len(parts) == 2 and _valid_mode(target)):
        raise InvalidArgumentError(f"invalid volume specification: '{text}'")
    if not _valid_mode(mode):
        raise InvalidArgumentError(f"invalid mode: {mode}")
    if len(parts) == 1 or not source.startswith("/"):
        raise UnsupportedError(
            f"invalid volume specification: '{text}': ketch has no named or anonymous volumes yet",
            "give the absolute path of a host directory: -v /path:/path",
        )
    words = mode.split(",")
    options: BindOptions = {"CreateMountpoint": True}
    for word in words:
        if word in PROPAGATIONS:
            options["Propagation"] = word
    mount: Mount = {
        "Type": "bind",
        "Source": os.path.normpath(source),
        "Target": target,
        "ReadOnly": "ro" in words,
        "BindOptions": options,
    }
    try:
        if "copy" in words or "nocopy" in words:
            raise _wrong(mount, "field VolumeOptions must not be specified")
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
    if kind == "bind":
        if not source:
            raise _wrong(mount, "field Source must not be empty")
        propagation = mount.get("BindOptions", {}).get("Propagation", "")
        if propagation and propagation not in PROPAGATIONS:
            raise _wrong(mount, f"invalid propagation mode: {propagation}")
        if not source.startswith("/"):
            raise _wrong(mount, f"invalid mount path: '{source}' mount path must be absolute")
    elif kind == "tmpfs":
        if source:
            raise _wrong(mount, "field Source must not be specified")
    elif kind in {"volume", "image", "cluster"}:
        raise UnsupportedError(
            f"invalid mount config for type {quoted(kind)}: ketch has no such mounts yet",
            "use type=bind or type=tmpfs",
        )
    else:
        raise _wrong(mount, "mount type unknown")


def _wrong(mount: "Mount", reason: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"invalid mount config for type {quoted(mount['Type'])}: {reason}")


# tmpfs(5) and mount(8): what --tmpfs takes without a value, and with one.
_TMPFS_FLAGS = (
    "defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async",
    "dirsync", "remount", "mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "bind",
    "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared", "slave",
    "rslave", "relatime", "norelatime", "strictatime", "nostrictatime",
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
    return [option for option in chosen.values() if option != "defaults"]


def _tmpfs_subject(name: str) -> str:
    """What an option is about: the same for options of which only one can hold."""
    if name in PROPAGATIONS or name.endswith("bindable"):
        return "propagation"
    if name in {"ro", "rw"}:
        return "writable"
    if name in {"sync", "async"}:
        return "sync"
    return name.removeprefix("no") if name in _TMPFS_FLAGS else name


def of_container(host: "HostConfig") -> "list[Mount]":
    """Returns every mount that a container asks for, in the order in which they must be made.

    ``--tmpfs`` entries appear as tmpfs mounts whose options stay in ``HostConfig.Tmpfs``.

    Raises:
        InvalidArgumentError: one is malformed, or two have the same target.
        UnsupportedError: one is a volume.
    """
    mounts = [bind(entry) for entry in host.get("Binds", ())]
    for entry in host.get("Mounts", ()):
        check(entry)
        mounts.append(entry)
    for path, options in host.get("Tmpfs", {}).items():
        _check_tmpfs_target(path)
        tmpfs_options(options)
        mounts.append({"Type": "tmpfs", "Target": path})
    seen: set[str] = set()
    for target in (os.path.normpath(entry["Target"]) for entry in mounts):
        if target in seen:
            raise InvalidArgumentError(f"Duplicate mount point: {target}")
        seen.add(target)
    return sorted(mounts, key=lambda entry: os.path.normpath(entry["Target"]).count("/"))


def _check_tmpfs_target(path: str) -> None:
    if os.path.normpath(path).strip("/") in {"", "."}:
        raise InvalidArgumentError("invalid specification: destination can't be '/'")
    if not path.startswith("/"):
        raise InvalidArgumentError(f"invalid mount path: '{path}' mount path must be absolute")


def targets(mounts: "Iterable[Mount]") -> set[str]:
    """Returns the mounts' targets as normal paths."""
    return {os.path.normpath(mount["Target"]) for mount in mounts}
