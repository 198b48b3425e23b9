"""What a container held while it ran, released: cgroup, connections, volumes, sockets.

Done when its program has ended, by its monitor, or by whoever finds that the monitor is gone. Each
step takes what is there, so that it can be done again where it was interrupted.
"""

from contextlib import ExitStack

from ketch.cgroups import telling
from ketch.errors import UnavailableError
from ketch.linux.removetree import remove_tree
from ketch.spec import runtime_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch import cgroups
    from ketch.engine.records.rows import Container
    from ketch.engine.records.store import Store
    from ketch.engine.settings import Settings


def release(
    settings: "Settings",
    store: "Store",
    container: "Container",
    *,
    namespace: int = -1,
    keep_socket: bool = False,
    left_behind: bool = False,
    late: "ExitStack | None" = None,
    cgroup: "cgroups.Manager | None" = None,
) -> None:
    """Release what a container held while it ran.

    Args:
        settings: the engine's places.
        store: its database.
        container: its program has ended.
        namespace: descriptor of its network namespace, if its monitor lives to have it.
        keep_socket: whether its monitor goes on listening.
        left_behind: whether its monitor is gone, and nobody has its network namespace.
        late: takes what may wait for a while, to be closed when nobody waits any more.
        cgroup: its cgroup; the one that its configuration names where None.

    Raises:
        KetchError, OSError: something could not be released; everything else was.
    """
    from ketch.engine.networks import releasing as connections  # noqa: PLC0415 - only for what has run
    from ketch.engine.volumes import uses  # noqa: PLC0415 - likewise

    with ExitStack() as steps:
        # The last first; each is done whatever becomes of those before.
        if not keep_socket:
            steps.callback(remove_tree, settings.runtime_directory(container.id))
        steps.callback(uses.detach, settings, store, container.id)
        steps.callback(
            connections.release,
            store,
            settings,
            container.id,
            namespace,
            left_behind=left_behind,
            late=late,
        )
        steps.callback(_end_cgroup, settings, container, cgroup)
        if runtime_names.is_other(container.record):
            from ketch.engine.containers import driven  # noqa: PLC0415 wanted by few

            steps.callback(driven.forget, settings, container.id)


def _end_cgroup(
    settings: "Settings",
    container: "Container",
    cgroup: "cgroups.Manager | None",
) -> None:
    """Take away a container's cgroup, by its configuration if need be, and what lives on there."""
    if cgroup is None:
        from ketch.engine.configuration import cgroup_paths  # noqa: PLC0415 - only for what has run

        try:
            cgroup = cgroup_paths.manager(settings, container)
        except UnavailableError:
            return  # written before the cgroup is made
    if cgroup.directories:
        settings.tell(telling.of_removal, cgroup)
    remove_cgroup(cgroup)


def remove_cgroup(cgroup: "cgroups.Manager") -> None:
    """Remove a container's cgroup, with whatever still lives in it.

    In a PID namespace of its own everything died with init; elsewhere what it started may live on.
    """
    if cgroup.processes():
        cgroup.kill()
    # The directory above is the engine's, and goes with its last container.
    cgroup.delete(empty_parents=1)
