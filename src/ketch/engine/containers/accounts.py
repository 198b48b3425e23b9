"""Whom a container's files know: with ``--userns keep-id`` its user has a name there, as outside.

Source: podman, libpod/container_internal_common.go, ``userPasswdEntry`` and ``groupEntry``.
"""

import grp
import os
import pwd

from ketch.errors import InvalidArgumentError
from ketch.linux import beneath
from ketch.linux.openat2 import openat2
from ketch.linux.scopes import owned, suppress
from ketch.spec import passwd
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.images.snapshots import Snapshotter
    from ketch.spec.container import Request
    from ketch.spec.user_namespaces import IdMap

_BYTES_MAX = 4 * 1024 * 1024
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK


def add_caller(
    snapshotter: "Snapshotter", directory: str, request: "Request", own: "Sequence[IdMap]"
) -> None:
    """Add lines to /etc/passwd and /etc/group of a new container, unless the image has such ones.

    Args:
        snapshotter: where its root is.
        directory: of the container; its root is prepared.
        request: its whole configuration, which says as whom its program runs.
        own: the user and group ids of the engine's namespace.
    """
    user, _, group = request["Config"].get("User", "").partition(":")
    uid, gid = passwd.id_of(user), passwd.id_of(group)
    if not uid:
        return
    try:
        entry = pwd.getpwuid(own[0].outside(0))
        group_name = grp.getgrgid(own[1].outside(0)).gr_name
    except (KeyError, InvalidArgumentError):
        return  # of whom the machine knows no name
    home = _home(request, entry.pw_dir)
    person = entry.pw_gecos.partition(",")[0].replace(":", "")
    with owned(snapshotter.mount(directory)) as root:
        _add(root, "/etc/passwd", (entry.pw_name, uid),
             f"{entry.pw_name}:*:{uid}:{gid or 0}:{person}:{home}:/bin/sh\n")  # fmt: skip
        if gid:
            _add(root, "/etc/group", (group_name, gid), f"{group_name}:x:{gid}:{entry.pw_name}\n")


def _home(request: "Request", home: str) -> str:
    """The user's own directory where the container has that, or what it is in; else its own."""
    points = request["HostConfig"].get("Mounts", [])
    binds = [bind.split(":")[1:2] for bind in request["HostConfig"].get("Binds") or ()]
    places = {point.get("Target", "") for point in points} | {one for each in binds for one in each}
    parts = home.rstrip("/").split("/")
    above = {"/".join(parts[:count]) for count in range(2, len(parts) + 1)}
    if above & {os.path.normpath(place) for place in places if place}:
        return home
    return request["Config"].get("WorkingDir") or "/"


def _add(root: int, path: str, known: tuple[str, int], line: str) -> None:
    text = beneath.read_file(root, path, _BYTES_MAX).decode(errors="replace")
    for fields in (entry.split(":") for entry in text.splitlines()):
        if fields[0] == known[0] or (len(fields) > 2 and decimal(fields[2]) == known[1]):
            return
    # An image without such a file has no names, and gets none.
    with suppress(OSError), owned(openat2(root, path, _APPEND)) as file:
        os.write(file, f"{'' if not text or text.endswith(chr(10)) else chr(10)}{line}".encode())
