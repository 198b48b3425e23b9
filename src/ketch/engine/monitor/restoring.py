"""A container's start from a checkpoint: criu makes its processes, in place of a new init."""

import os
from contextlib import ExitStack

from ketch.engine.containers import checkpoints
from ketch.linux import namespaces
from ketch.runtime import checkpoint, outside
from ketch.runtime.filesystem import WriteSysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups import Manager
    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings
    from ketch.runtime import create
    from ketch.spec.runtime import Config

_DESCRIPTOR = "/proc/self/fd/"


def restore(
    settings: "Settings",
    container: "Container",
    images: str,
    config: "Config",
    cgroup: "Manager",
    *,
    rootfs: int,
    network: int,
    streams: tuple[int, int, int],
) -> "create.Container":
    """Have a container run again from what was saved, as a child of the caller's parent.

    Args:
        settings: the engine's places.
        container: the container.
        images: directory of its checkpoint.
        config: its configuration, as it would be made from.
        cgroup: its control groups, made and limited.
        rootfs: its root filesystem, a detached mount.
        network: its network namespace, wired.
        streams: the program's ends of its standard streams.

    Raises:
        UnavailableError: criu failed.
    """
    place = f"{settings.container_directory(container.id)}/restoring"
    root = f"{_DESCRIPTOR}{rootfs}"
    trees = {root: rootfs}
    with ExitStack() as held:
        for entry in config["mounts"]:
            source = entry.get("source", "")
            if source.startswith(_DESCRIPTOR) and source not in trees:
                trees[source] = outside.detached(int(source.removeprefix(_DESCRIPTOR)))
                held.callback(os.close, trees[source])
        _set_parameters(network, config["linux"].get("sysctl", {}))
        os.makedirs(place, 0o700, exist_ok=True)
        held.callback(os.rmdir, place)
        restored = checkpoint.restore(
            config,
            root,
            cgroup,
            checkpoints.options(settings, container, images),
            place,
            serve=lambda _pid: None,
            streams=streams,
            trees=trees,
            sibling=True,
        )
    cgroup.settled()
    return restored


def _set_parameters(network: int, sysctls: "dict[str, str]") -> None:
    """Set the kernel parameters of a new network namespace; others are in the checkpoint."""
    with namespaces.network_entered(network):
        for name, value in sysctls.items():
            if name.startswith("net."):
                WriteSysctl(name, value).execute(-1)
