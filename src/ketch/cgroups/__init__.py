"""Control groups: one Manager interface, and v1, v2, hybrid hierarchies or none at all behind it.

``detect`` finds the machine's hierarchies, ``usable`` those of them in which this process may make
cgroups, ``manager`` speaks for one container's cgroup in all of them. What is written where is
decided by ``resources.plan`` and the controllers' modules, which do no I/O; ``filesystem.Manager``
does it.
"""

from ketch.cgroups.filesystem import Manager, enter
from ketch.cgroups.layout import Hierarchy, Layout, detect, usable

NO_PROCESS = (0, 0)

__all__ = ["NO_PROCESS", "Hierarchy", "Layout", "Manager", "detect", "enter", "manager", "usable"]


def manager(path: str, layout: Layout, init: tuple[int, int] = NO_PROCESS) -> Manager:
    """The manager of the cgroup ``path`` on a machine of this layout; see ``Manager``.

    Args:
        path: of the cgroup.
        layout: where it is; with no hierarchy at all the manager is ``absent.AbsentManager``.
        init: pid and start time of the container's first process, by which its processes are found
            where there is no cgroup that lists them.
    """
    if layout.hierarchies:
        return Manager(path, layout)
    from ketch.cgroups.absent import AbsentManager  # noqa: PLC0415 root has cgroups

    return AbsentManager(path, layout, init)
