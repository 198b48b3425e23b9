"""Whom files are to belong to: ``--chown``, and USER for what WORKDIR makes."""

from ketch.errors import InvalidArgumentError
from ketch.linux import beneath
from ketch.spec import passwd

_BYTES_MAX = 1 << 20


def owner(root: int, specification: str) -> tuple[int, int]:
    """Returns the user and group that a specification names.

    A number is an id, and the group's too where none is given. A name is looked up in the root's
    own files; one that is not there is root's, or no group, as it is for BuildKit: see ``unknown``.
    Source: moby/buildkit, solver/llbsolver/ops/user_linux.go.

    Args:
        root: descriptor of the root directory.
        specification: ``user[:group]`` by name or number; empty for root.

    Raises:
        InvalidArgumentError: a number is none of an id.
    """
    uid, gid, _ = _found(root, specification)
    return uid, gid


def unknown(root: int, specification: str) -> list[str]:
    """Returns what there is to say of names that the root does not know; see ``owner``."""
    return _found(root, specification)[2]


def _found(root: int, specification: str) -> tuple[int, int, list[str]]:
    user, _, group = specification.partition(":")
    said: list[str] = []
    uid = passwd.id_of(user) if user else 0
    gid = uid or 0
    if uid is None:
        uid = 0
        try:
            found = passwd.look_up(user, _text(root, "/etc/passwd"), "")
            uid, gid = found.uid, found.gid
        except InvalidArgumentError as error:
            said.append(f"{error}: its files are root's")
    if group:
        number = passwd.id_of(group)
        try:
            gid = (
                passwd.group_ids([group], _text(root, "/etc/group"))[0]
                if number is None
                else number
            )
        except InvalidArgumentError as error:
            said.append(f"{error}: its files are of group {gid}")
    return uid, gid, said


def _text(root: int, path: str) -> str:
    return beneath.read_file(root, path, _BYTES_MAX).decode(errors="surrogateescape")
