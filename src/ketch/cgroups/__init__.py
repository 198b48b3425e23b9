"""Control groups: one Manager interface, and v1, v2 and hybrid hierarchies behind it.

``detect`` finds the machine's hierarchies, ``manager`` speaks for one container's cgroup in all of
them. What is written where is decided by ``resources.plan`` and the controllers' modules, which do
no I/O; ``filesystem.Manager`` does it.
"""

from ketch.cgroups.filesystem import Manager, enter
from ketch.cgroups.layout import Hierarchy, Layout, detect

__all__ = ["Hierarchy", "Layout", "Manager", "detect", "enter", "manager"]


def manager(path: str, layout: Layout) -> Manager:
    """The manager of the cgroup ``path`` on a machine of this layout; see ``Manager``."""
    return Manager(path, layout)
