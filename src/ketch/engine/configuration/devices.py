"""Devices of the host, as a container gets them: nodes to make and rules that allow them."""

import os
import stat

from ketch.errors import InvalidArgumentError
from ketch.spec import devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.spec.container import HostConfig
    from ketch.spec.runtime import BlockIo, Device, DeviceRule, Hooks, Mount

# Directories of /dev that hold no devices of the host's, and the console, which each container
# has its own of (containerd's HostDevices).
_SKIPPED = (
    "pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx", "null",
    "zero", "full", "random", "urandom", "tty",
)  # fmt: skip

_CONTROLLING_TERMINAL = (5, 0)


class Devices:
    """What a container gets beyond the devices that every container has.

    Args:
        nodes: the device nodes to make.
        rules: what to allow on them.

    Attributes:
        renamed: what is at another path than on the host: its path there, by its node's.
        block: weights and throttles of block devices; empty for none.
        variables: environment variables that devices come with, as CDI has it.
        mounts: likewise mounts.
        groups: likewise groups of the program.
        hooks: likewise hooks of the runtime.
    """

    __slots__ = ("block", "groups", "hooks", "mounts", "nodes", "renamed", "rules", "variables")

    def __init__(self, nodes: "list[Device]", rules: "list[DeviceRule]") -> None:
        self.nodes = nodes
        self.rules = rules
        self.renamed: dict[str, str] = {}
        self.block: BlockIo = {}
        self.variables: list[str] = []
        self.mounts: list[Mount] = []
        self.groups: list[int] = []
        self.hooks: Hooks = {}

    def add(self, node: "Device", source: str, access: str) -> None:
        """Adds a device.

        Args:
            node: how it is to appear.
            source: where it is on the host.
            access: what is allowed, some of r, w and m.
        """
        self.nodes.append(node)
        self.rules.append(rule(node, access))
        if source != node["path"]:
            self.renamed[node["path"]] = source

    def bind_renamed(self) -> None:
        """Has what is at another path than on the host bound there instead of made.

        In a user namespace nobody may make devices: those at the same path the runtime binds, which
        is told of no other.
        """
        for node in self.nodes:
            if source := self.renamed.get(node["path"]):
                self.mounts.append({
                    "destination": node["path"], "source": source, "type": "bind",
                    "options": ["bind", "nosuid", "noexec", "rprivate"],
                })  # fmt: skip
        self.nodes = [node for node in self.nodes if node["path"] not in self.renamed]


def gather(resources: "HostConfig") -> Devices:
    """Looks up the devices that a container asks for.

    Raises:
        InvalidArgumentError: one does not exist or is not a device.
    """
    found = Devices([], [])
    privileged = resources.get("Privileged", False)
    if privileged:
        found.nodes += of_host("/dev")
    for mapping in resources.get("Devices", ()):
        source, target = mapping["PathOnHost"], mapping["PathInContainer"] or mapping["PathOnHost"]
        if privileged and source == target:
            continue
        for path, node in _from_path(source, target):
            found.add(node, path, mapping["CgroupPermissions"] or "rwm")
    found.rules += [devices.cgroup_rule(text) for text in resources.get("DeviceCgroupRules", ())]
    if wanted := resources.get("DeviceRequests"):
        from ketch.engine.configuration import cdi  # noqa: PLC0415 - hardly any container asks for such devices

        for edits in cdi.edits(cdi.names(wanted)):
            apply(found, edits)
    if privileged:
        found.rules = [{"allow": True, "access": "rwm"}]
    found.block = block_limits(resources)
    return found


def apply(found: Devices, edits: "dict[str, Any]") -> None:
    """Adds what a device comes with by the Container Device Interface.

    Args:
        found: what it is added to.
        edits: ``containerEdits``, of a specification or of one of its devices.

    Raises:
        InvalidArgumentError: a device node is not there, or the edits are malformed.
    """
    try:
        _apply(found, edits)
    except KeyError as error:
        raise InvalidArgumentError(
            f"CDI device injection failed: malformed containerEdits: no {error}",
            "mend the specification",
        ) from error


def _apply(found: Devices, edits: "dict[str, Any]") -> None:
    found.variables += edits.get("env") or ()
    found.groups += [gid for gid in edits.get("additionalGids") or () if gid]
    for entry in edits.get("deviceNodes") or ():
        path = entry["path"]
        source = entry.get("hostPath") or path
        try:
            node = describe(source, path)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise InvalidArgumentError(
                f"CDI device injection failed: device node {source}: {reason}"
            ) from error
        if node is None:
            raise InvalidArgumentError(f"CDI device injection failed: {source} is not a device")
        for key in ("fileMode", "uid", "gid"):
            if entry.get(key) is not None:
                node[key] = entry[key]
        found.add(node, source, entry.get("permissions") or "rwm")
    for entry in edits.get("mounts") or ():
        options = list(entry.get("options") or ("ro", "nosuid", "nodev", "rbind"))
        found.mounts.append(
            {
                "destination": entry["containerPath"],
                "source": entry["hostPath"],
                "type": entry.get("type") or "bind",
                "options": options,
            }
        )
    for entry in edits.get("hooks") or ():
        hook = {key: entry[key] for key in ("path", "args", "env", "timeout") if key in entry}
        found.hooks.setdefault(entry["hookName"], []).append(hook)  # type: ignore[misc]


_THROTTLES: "dict[str, tuple[str, str]]" = {
    "BlkioDeviceReadBps": ("throttleReadBpsDevice", "Rate"),
    "BlkioDeviceWriteBps": ("throttleWriteBpsDevice", "Rate"),
    "BlkioDeviceReadIOps": ("throttleReadIOPSDevice", "Rate"),
    "BlkioDeviceWriteIOps": ("throttleWriteIOPSDevice", "Rate"),
    "BlkioWeightDevice": ("weightDevice", "Weight"),
}


def block_limits(resources: "HostConfig") -> "BlockIo":
    """Returns the runtime's ``blockIO``: weights and throttles, devices by number.

    Raises:
        InvalidArgumentError: a device does not exist.
    """
    found: dict[str, object] = {}
    if resources.get("BlkioWeight"):
        found["weight"] = resources["BlkioWeight"]
    for field, (name, key) in _THROTTLES.items():
        entries: list[dict[str, object]] = resources.get(field) or []  # type: ignore[assignment]
        numbered = [{**_numbers(str(entry["Path"])), key.lower(): entry[key]} for entry in entries]
        if numbered:
            found[name] = numbered
    return found  # type: ignore[return-value]


def _numbers(path: str) -> dict[str, int]:
    try:
        number = os.stat(path).st_rdev
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise InvalidArgumentError(f"stat {path}: {reason}") from error
    return {"major": os.major(number), "minor": os.minor(number)}


def _from_path(source: str, target: str) -> "list[tuple[str, Device]]":
    """The device at a path, or all below a directory, each with its path on the host."""
    try:
        # /dev/disk/by-id and its like are links.
        path = os.path.realpath(source, strict=True)
        node = describe(path, target)
        if node is not None:
            return [(path, node)]
        if os.path.isdir(source):
            found: list[tuple[str, Device]] = [
                (below["path"], {**below, "path": target + below["path"][len(source) :]})
                for below in of_host(source, ())
            ]
            if found:
                return found
        reason = "not a device node"
    except OSError as error:
        reason = (error.strerror or "").lower()
    raise InvalidArgumentError(
        f'error gathering device information while adding custom device "{source}": {reason}'
    )


def of_host(directory: str, skipped: tuple[str, ...] = _SKIPPED) -> "list[Device]":
    """Returns the device nodes below a directory; those that vanish meanwhile are left out."""
    found: list[Device] = []
    waiting = _entries(directory)
    while waiting:
        path = waiting.pop()
        if os.path.basename(path) in skipped:
            continue
        try:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                waiting += _entries(path)
                continue
            node = describe(path, path, follow=False)
        except OSError:
            continue
        if node is not None and (node["major"], node["minor"]) != _CONTROLLING_TERMINAL:
            found.append(node)
    return found


def _entries(directory: str) -> list[str]:
    """Returns the paths of what is in a directory, the last one first."""
    return [os.path.join(directory, name) for name in sorted(os.listdir(directory), reverse=True)]


def describe(source: str, target: str, *, follow: bool = True) -> "Device | None":
    """Returns the device node at a path, as it is to appear at another; None for what is none."""
    status = os.stat(source, follow_symlinks=follow)
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        return None
    return {
        "type": "c" if stat.S_ISCHR(status.st_mode) else "b",
        "path": target,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def rule(node: "Device", access: str) -> "DeviceRule":
    """Returns the rule that allows a device, for some of r, w and m."""
    return {
        "allow": True,
        "type": node["type"],
        "major": node["major"],
        "minor": node["minor"],
        "access": access,
    }
