"""What installers have to be told where everybody is the same user.

apt hands its downloads to a user of its own, and looks whether it has become that one. Where
changes of a process's ids are only said to be done (``spec.standing_in``), it is told not to: by a
file among its others, which is mounted, and no part of what the container has changed.
"""

import os

from ketch.linux import beneath, namespaces
from ketch.linux.scopes import owned, suppress
from ketch.spec.standing_in import APT_FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.spec.runtime import Mount

_TEXT = 'APT::Sandbox::User "root"; // this user has no id but its own\n'


def targets(root: int) -> list[str]:
    """Returns where something is to be mounted for the installers that an image has.

    Args:
        root: descriptor of the container's root.
    """
    if namespaces.in_initial_user_namespace():
        return []
    from ketch.linux import owners  # noqa: PLC0415 - for users alone

    if owners.alone():
        with suppress(OSError), owned(beneath.open_path(root, os.path.dirname(APT_FILE))):
            return [APT_FILE]
    return []


def mounts(root: int, write: "Callable[[str, str], str]") -> "list[Mount]":
    """Returns the mounts.

    Args:
        root: as for ``targets``.
        write: writes a file of a name and a text, and returns its path.
    """
    return [
        {"destination": target, "type": "bind", "source": write("apt.conf", _TEXT),
         "options": ["rbind", "ro", "rprivate"]}
        for target in targets(root)
    ]  # fmt: skip
