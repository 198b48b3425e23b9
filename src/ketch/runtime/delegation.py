"""Giving a container's v2 cgroup to its user, so that what runs inside may divide it further.

Done where a container has a cgroup namespace and mounts the hierarchy writable: that is how a
configuration says that it wants to; or that it runs systemd, which is given no more than it needs.

Source: runtime-spec config-linux.md "Cgroup ownership"; cgroups(7) "Delegation".
"""

import os

from ketch.runtime.cgroup_mount import is_for_systemd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.runtime import Config, IdMapping

_DELEGATE = "/sys/kernel/cgroup/delegate"
_FILES = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


def is_wanted(config: "Config") -> bool:
    """Whether the container mounts its own control groups writable."""
    return is_for_systemd(config) or any(
        mount.get("type") in {"cgroup", "cgroup2"}
        and mount["destination"].rstrip("/") == "/sys/fs/cgroup"
        and "ro" not in (mount.get("options") or ())
        for mount in config.get("mounts", ())
    )


def host_id(number: int, mappings: "list[IdMapping]") -> int | None:
    """An id of the container as the host knows it, or None where it is not mapped."""
    if not mappings:
        return number
    for mapping in mappings:
        if 0 <= number - mapping["containerID"] < mapping["size"]:
            return number - mapping["containerID"] + mapping["hostID"]
    return None


def delegate(cgroup: int, uid: int) -> None:
    """Give a cgroup, and those of its files that the kernel says may be given, to a user.

    Args:
        cgroup: descriptor of its directory.
        uid: the user, as the host knows it.
    """
    try:
        with open(_DELEGATE, encoding="ascii") as file:
            files = tuple(file.read().split())
    except FileNotFoundError:
        files = _FILES
    os.chown(".", uid, -1, dir_fd=cgroup)
    for name in files:
        try:
            os.chown(name, uid, -1, dir_fd=cgroup)
        except FileNotFoundError:
            continue  # of a controller that this cgroup has not
