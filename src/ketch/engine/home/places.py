"""Where an ordinary user's engine is: the directories that the XDG specification gives programs.

Sources: XDG Base Directory Specification 0.8; for users who have no session of systemd's,
podman's ``XDG_RUNTIME_DIR`` in podman(1).
"""

import os

from ketch.engine.settings import UNSHARED
from ketch.errors import PermissionDeniedError

_OWNER_ALONE = 0o077


def home() -> str:
    """The user's home directory: what HOME says, else the user database, else ``/``."""
    told = os.environ.get("HOME", "")
    if told.startswith("/"):
        return told
    import pwd  # noqa: PLC0415 - for the few who have no HOME

    try:
        return pwd.getpwuid(number()).pw_dir or "/"
    except KeyError:
        return "/"


def name_of(user: int) -> str:
    """What a user is called; its number where it has no name here."""
    import pwd  # noqa: PLC0415 - on no way to a start but the holder's

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def number() -> int:
    """The user's id, also where the process has become user 0 in the user's namespaces."""
    if UNSHARED not in os.environ:
        return os.getuid()
    from ketch.linux.restrictions import own_id  # noqa: PLC0415 - for the few who are there

    return own_id("uid_map")


def root() -> str:
    """The directory of what lasts."""
    data = os.environ.get("XDG_DATA_HOME", "")
    return f"{data if data.startswith('/') else f'{home()}/.local/share'}/ketch"


def configuration() -> str:
    """The directory of what the user has written down for the engine."""
    told = os.environ.get("XDG_CONFIG_HOME", "")
    return f"{told if told.startswith('/') else f'{home()}/.config'}/ketch"


def state() -> str:
    """The directory of what a reboot may lose.

    That of the user's session; with ssh, cron and su, where the session is not told of, the same
    directory if it is there; else one of the user's own below /tmp, see ``check_temporary``.
    """
    user = number()
    for directory in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{user}"):
        if directory.startswith("/") and _is_closed(directory, os.getuid()):
            return f"{directory}/ketch"
    return temporary(user)


def api_socket(state: str) -> str:
    """Where ``ketch serve`` listens: beside the state directory, as root's is, or in it.

    Args:
        state: the state directory.
    """
    above, _, name = state.rpartition("/")
    # Not where others might have put something of theirs.
    is_beside = name == "ketch" and _is_closed(above, os.getuid())
    return f"{above}/ketch.sock" if is_beside else f"{state}/ketch.sock"


def temporary(user: int) -> str:
    """The directory below /tmp, where a user has no other of what a reboot may lose."""
    return f"/tmp/ketch-{user}"


def check_temporary(directory: str, user: int) -> None:
    """See that a directory where everybody may make one is this user's, closed, and no link.

    Args:
        directory: what ``temporary`` says; made where it is missing.
        user: the user's id.

    Raises:
        PermissionDeniedError: it is somebody else's, or others may write to it.
        OSError: it cannot be made.
    """
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        if not _is_closed(directory, user):
            raise PermissionDeniedError(
                f"{directory} is not a directory of this user's alone",
                "choose another one with --state or XDG_RUNTIME_DIR",
            ) from None


def _is_closed(directory: str, user: int) -> bool:
    """Whether a directory is a user's, and nobody else can reach what is in it."""
    try:
        status = os.lstat(directory)
    except OSError:
        return False
    return (
        status.st_uid == user
        and not status.st_mode & _OWNER_ALONE
        and status.st_mode & 0o170000 == 0o040000
    )
