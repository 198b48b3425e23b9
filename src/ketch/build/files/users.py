"""Whom files are to belong to: ``--chown``, and USER for what WORKDIR makes."""

from ketch.linux import beneath
from ketch.spec import passwd

_BYTES_MAX = 1 << 20


def owner(root: int, specification: str) -> tuple[int, int]:
    """Returns the user and group that a specification names.

    A number is an id, and the group's too where none is given; a name is looked up in the root's
    own files. Source: moby/buildkit, solver/llbsolver/ops/user_linux.go.

    Args:
        root: descriptor of the root directory.
        specification: ``user[:group]`` by name or number; empty for root.

    Raises:
        InvalidArgumentError: there is no such user or group, or a number is none of an id.
    """
    user, _, group = specification.partition(":")
    number = passwd.id_of(user) if user else 0
    if number is None:
        found = passwd.look_up(user, _text(root, "/etc/passwd"), "")
        uid, gid = found.uid, found.gid
    else:
        uid = gid = number
    if group:
        number = passwd.id_of(group)
        gid = passwd.group_ids([group], _text(root, "/etc/group"))[0] if number is None else number
    return uid, gid


def _text(root: int, path: str) -> str:
    return beneath.read_file(root, path, _BYTES_MAX).decode(errors="surrogateescape")
