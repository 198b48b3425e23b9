"""The engine's own directories, closed to other users whoever made them.

They hold images' and containers' setuid programs, volumes, and blobs that others have no right to
read (CVE-2021-41091, CVE-2024-25621). The engine makes them 0700; one that an administrator, a
packet or a service manager has made is looked at by everyone who opens it.
"""

import errno
import os
import stat

from ketch.engine.settings import is_closed
from ketch.errors import ConflictError, KetchError, PermissionDeniedError, UnavailableError
from ketch.linux.scopes import owned, suppress

MACHINE = "machine"  # says whose the directory is, where several machines see it
_CLOSED = 0o710
_WRITABLE = 0o022
# What shows that a directory is an engine's, and what may be in one that is about to be.
_OURS = {"ketch.db", "services.lock"}
_BEFORE_US = {"config.json", "lost+found"}


def close(path: str) -> None:
    """Close a directory of the engine's, where it is; one that is made later is made closed.

    Raises:
        PermissionDeniedError: as ``check``.
    """
    with suppress(OSError):
        check(path, os.stat(path))


def check(path: str, status: os.stat_result) -> None:
    """Close a directory of the engine's to others, where it is open: ``settings.is_closed``.

    Args:
        path: the directory.
        status: of it.

    Raises:
        PermissionDeniedError: it is another user's, or it is not the engine's alone: others may
            have put something there, or others' files are there that this would close.
    """
    if is_closed(status) or not stat.S_ISDIR(status.st_mode):
        return
    user = os.geteuid()
    if status.st_uid != user:
        raise PermissionDeniedError(
            f"{path}: belongs to user {status.st_uid}, who could change all that is in it",
            "choose a directory of this user's own, or give it away with chown",
        )
    mode = stat.S_IMODE(status.st_mode)
    try:
        with owned(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
            names = set(os.listdir(directory))
            is_foreign = not (names & _OURS or names <= _BEFORE_US)
            if is_foreign or (names and mode & _WRITABLE):
                raise PermissionDeniedError(
                    f"{path}: is open to other users (mode {mode:o}) and has files that may be "
                    "theirs",
                    "choose a directory for ketch alone, or close this one with chmod 700",
                )
            os.fchmod(directory, mode & _CLOSED)
    except OSError as error:
        raise PermissionDeniedError(
            f"{path}: is open to other users (mode {mode:o}) and cannot be closed: "
            f"{(error.strerror or '').lower()}",
            "choose another directory, or close this one with chmod 700",
        ) from error


def unusable(path: str, number: int) -> KetchError:
    """Returns what there is to say of an engine's directory in which nothing can be written.

    Args:
        path: the directory, or a file in it.
        number: of the error.
    """
    another = "choose another directory with --root or KETCH_ROOT"
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return UnavailableError(f"{path}: no space left on its disk", f"make room, or {another}")
    with suppress(OSError):
        if number == errno.EACCES and os.statvfs(path).f_flag & os.ST_RDONLY:
            number = errno.EROFS
    if number in {errno.EACCES, errno.EPERM}:
        return PermissionDeniedError(
            f"{path}: permission denied",
            f"run ketch as the user who owns this directory, or as root, or {another}",
        )
    return UnavailableError(f"{path}: {os.strerror(number).lower()}", another)


def claim(root: str) -> None:
    """See that one machine alone has its engine in a directory on a network file system.

    Two would take each other's containers for ended ones, and the database for their own.

    Args:
        root: the engine's directory.

    Raises:
        ConflictError: another machine has.
        OSError: the directory cannot be read or written.
    """
    from ketch.linux import filesystems  # noqa: PLC0415 - on few machines

    if not filesystems.is_networked(root):
        return
    path = f"{root}/{MACHINE}"
    own = f"{os.uname().nodename} {_machine_id()}\n"
    with suppress(FileExistsError):
        temporary = f"{path}.{os.urandom(6).hex()}"
        with owned(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)) as file:
            os.write(file, own.encode())
        try:
            os.link(temporary, path)  # the first one stays
        finally:
            os.unlink(temporary)
    with owned(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as file:
        found = os.read(file, 4096).decode(errors="replace")
    if found != own:
        raise ConflictError(
            f"{root}: is on a network file system ({filesystems.kind(root)}), and the engine of "
            f"{found.split(' ', maxsplit=1)[0]} is there",
            "choose a directory on a disk of this machine with --root or KETCH_ROOT; if nothing "
            f"of it runs there any more: rm {path}",
        )


def _machine_id() -> str:
    """What tells machines of one name apart: machine-id(5), where they have one."""
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            return file.read(64).strip()
    except OSError:
        return ""
