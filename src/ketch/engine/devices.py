"""Devices of the host, as a container gets them: nodes to make and rules that allow them."""

import os
import stat

from ketch.errors import InvalidArgumentError
from ketch.spec import devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.container import HostConfig
    from ketch.spec.runtime import Device, DeviceRule

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
    """

    __slots__ = ("nodes", "rules")

    def __init__(self, nodes: "list[Device]", rules: "list[DeviceRule]") -> None:
        self.nodes = nodes
        self.rules = rules


def gather(resources: "HostConfig") -> Devices:
    """Looks up the devices that a container asks for.

    Raises:
        InvalidArgumentError: one does not exist or is not a device.
    """
    nodes: list[Device] = []
    rules: list[DeviceRule] = []
    privileged = resources.get("Privileged", False)
    if privileged:
        nodes += of_host("/dev")
    for mapping in resources.get("Devices", ()):
        source, target = mapping["PathOnHost"], mapping["PathInContainer"]
        if privileged and source == target:
            continue
        for node in _from_path(source, target):
            nodes.append(node)
            rules.append(_rule(node, mapping["CgroupPermissions"]))
    rules += [devices.cgroup_rule(text) for text in resources.get("DeviceCgroupRules", ())]
    if privileged:
        rules = [{"allow": True, "access": "rwm"}]
    return Devices(nodes, rules)


def _from_path(source: str, target: str) -> "list[Device]":
    """The device at a path, or all below a directory."""
    try:
        # /dev/disk/by-id and its like are links.
        node = _node(os.path.realpath(source, strict=True), target)
        if node is not None:
            return [node]
        if os.path.isdir(source):
            found = [
                {**below, "path": target + below["path"][len(source) :]}
                for below in of_host(source, ())
            ]
            if found:
                return found  # type: ignore[return-value]
        reason = "not a device node"
    except OSError as error:
        reason = (error.strerror or "").lower()
    raise InvalidArgumentError(
        f'error gathering device information while adding custom device "{source}": {reason}'
    )


def of_host(directory: str, skipped: tuple[str, ...] = _SKIPPED) -> "list[Device]":
    """Returns the device nodes below a directory; those that vanish meanwhile are left out."""
    found: list[Device] = []
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name in skipped:
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    found += of_host(entry.path, skipped)
                    continue
                node = _node(entry.path, entry.path, follow=False)
            except OSError:
                continue
            if node is not None and (node["major"], node["minor"]) != _CONTROLLING_TERMINAL:
                found.append(node)
    return found


def _node(source: str, target: str, *, follow: bool = True) -> "Device | None":
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


def _rule(node: "Device", access: str) -> "DeviceRule":
    return {
        "allow": True,
        "type": node["type"],
        "major": node["major"],
        "minor": node["minor"],
        "access": access,
    }
