"""User and group ids inside and outside: user_namespaces(7).

A map can be written by whoever has CAP_SETUID and CAP_SETGID outside the new namespace. An
ordinary user may map only its own id, and the ranges that /etc/subuid and /etc/subgid give it
through newuidmap(1) and newgidmap(1).
"""

import _socket
import os
import stat

from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.linux import capabilities, process, signals
from ketch.linux.namespaces import CLONE_NEWUSER, setns
from ketch.linux.scopes import ExitStack, owned, suppress
from ketch.spec.capabilities import mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.spec.id_ranges import Span
    from ketch.spec.runtime import IdMapping

_WRITERS = mask(["CAP_SETUID", "CAP_SETGID"])
_PROGRAM_DIRECTORIES = ("/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin")


def write(pid: int, uids: "list[IdMapping]", gids: "list[IdMapping]") -> None:
    """Give a new user namespace its maps.

    Args:
        pid: a child of the caller, in the namespace.
        uids: ``linux.uidMappings``.
        gids: ``linux.gidMappings``.

    Raises:
        InvalidArgumentError: the kernel, or newuidmap, refuses a map.
        UnavailableError: newuidmap or newgidmap is needed and not installed.
    """
    privileged = capabilities.get()[0] & _WRITERS == _WRITERS
    if not privileged and _is_single(gids, os.getegid()):
        # user_namespaces(7): an unprivileged gid map asks that setgroups(2) be given up first.
        _write(f"/proc/{pid}/setgroups", "deny", "linux.gidMappings")
    for field, file, name, mappings, own in (
        ("linux.gidMappings", "gid_map", "newgidmap", gids, os.getegid()),
        ("linux.uidMappings", "uid_map", "newuidmap", uids, os.geteuid()),
    ):
        if privileged or _is_single(mappings, own):
            _write(f"/proc/{pid}/{file}", text(mappings), field)
        else:
            _ask(name, pid, mappings, field)


def text(mappings: "list[IdMapping]") -> str:
    """A map as the kernel's files want it: first id inside, first id outside, how many."""
    return "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in mappings)


def open_namespace(uids: "list[IdMapping]", gids: "list[IdMapping]") -> int:
    """Make a user namespace for its maps alone, which an id-mapped mount takes.

    Returns:
        Its descriptor, close-on-exec, owned by the caller.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with owned(reader), owned(writer):
        pid, pidfd = process.clone3(CLONE_NEWUSER)
        if pid == 0:
            # Ends at the latest with the parent, whose end of the pipe is the only one.
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        with owned(pidfd):
            try:
                write(pid, uids, gids)
                return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                process.pidfd_send_signal(pidfd, signals.SIGKILL)
                os.waitpid(pid, 0)


def require_same(path: str, uids: "list[IdMapping]", gids: "list[IdMapping]") -> None:
    """Make sure that a user namespace that is to be joined has the maps that are also given.

    Args:
        path: of the namespace.
        uids: ``linux.uidMappings``, empty where they are not given.
        gids: ``linux.gidMappings``, likewise.

    Raises:
        InvalidArgumentError: it has others, or is none.
    """
    with ExitStack() as stack:
        try:
            namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidArgumentError(
                f"linux.namespaces: user namespace {path}: {(error.strerror or '').lower()}"
            ) from error
        stack.callback(os.close, namespace)
        for field, file, given in (
            ("linux.uidMappings", "uid_map", uids), ("linux.gidMappings", "gid_map", gids),
        ):  # fmt: skip
            there = _of(namespace, file)
            wanted = text(given).splitlines()
            if given and _whole(wanted) != _whole(there):
                raise InvalidArgumentError(
                    f"{field}: {', '.join(wanted)} is not what the user namespace {path} has, "
                    f"{', '.join(there) or 'nothing'}",
                    "leave the field out, and what the namespace has counts",
                )


def users_of(path: str) -> "list[IdMapping]":
    """Read which users of the caller's a user namespace has: linux.uidMappings.

    Args:
        path: of the namespace.
    """
    with owned(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as namespace:
        return [
            {"containerID": first, "hostID": host, "size": size}
            for first, host, size in (map(int, line.split()) for line in _of(namespace, "uid_map"))
        ]


def _whole(lines: list[str]) -> "list[Span]":
    """A map's ranges in order, each as long as it can be, however they were cut."""
    from ketch.spec import id_ranges  # noqa: PLC0415 - for those that are joined alone

    found = [line.split() for line in lines]
    return id_ranges.joined((int(one[0]), int(one[1]), int(one[2])) for one in found)


def _of(namespace: int, file: str) -> list[str]:
    """A user namespace's map as it is seen here: a process there shows it."""
    ours, theirs = _socket.socketpair()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            ours.close()
            if not os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/user")):
                setns(namespace, CLONE_NEWUSER)
            theirs.send(b"1")
            theirs.recv(1)  # until the parent has read, or is gone
        os._exit(0)
    theirs.close()
    try:
        if not ours.recv(1):
            raise InvalidArgumentError(
                "linux.namespaces: the user namespace cannot be joined",
                "its path must be of a user namespace below the runtime's own",
            )
        with open(f"/proc/{pid}/{file}", encoding="ascii") as lines:
            return [" ".join(line.split()) for line in lines]
    finally:
        ours.close()
        os.waitpid(pid, 0)


def become_root(uid: int, gid: int, *, keeps_groups: bool = False) -> None:
    """Become the new user namespace's root, as which the container is set up.

    Where there is none, whoever sets it up is the program's user: what is made meanwhile needs an
    owner. The capabilities of who enters a namespace are all that it has, whatever the id.

    Args:
        uid: the program's user.
        gid: its group.
        keeps_groups: whether the caller's supplementary groups stay.

    Raises:
        InvalidArgumentError: the namespace has neither.
    """
    if not keeps_groups:
        with suppress(PermissionError):  # given up together with an unprivileged gid map
            os.setgroups([])
    try:
        _take(os.setresgid, gid)
        _take(os.setresuid, uid)
    except OSError as error:
        raise InvalidArgumentError(
            f"linux.uidMappings, linux.gidMappings: user {uid}:{gid}, as whom the program is to "
            "run, is not mapped",
            "map it, or choose another process.user",
        ) from error


def _take(change: "Callable[[int, int, int], None]", otherwise: int) -> None:
    try:
        change(0, 0, 0)
    except OSError:
        change(otherwise, otherwise, otherwise)


def _is_single(mappings: "list[IdMapping]", own: int) -> bool:
    return len(mappings) == 1 and mappings[0]["size"] == 1 and mappings[0]["hostID"] == own


def _write(path: str, words: str, field: str) -> None:
    with owned(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as descriptor:
        try:
            os.write(descriptor, words.encode())
        except OSError as error:
            raise InvalidArgumentError(
                f"{field}: {words.strip()!r}: {(error.strerror or '').lower()}",
                "ids outside must be mapped in the runtime's own user namespace, where they belong",
            ) from error


def program(name: str) -> str:
    """The path of what gives an ordinary user's namespaces the ids of its ranges.

    Args:
        name: ``newuidmap`` or ``newgidmap``.

    Raises:
        UnavailableError: it is not installed, or has no privilege to do so.
    """
    for directory in _PROGRAM_DIRECTORIES:
        path = f"{directory}/{name}"
        if not os.access(path, os.X_OK):
            continue
        if not _is_privileged(path):
            raise UnavailableError(
                f"{path} has no privilege: it is neither setuid nor has the capability",
                f"as root: chmod u+s {path}; in a container, its file system must not be nosuid",
            )
        if process.prctl(process.PR_GET_NO_NEW_PRIVS):
            raise UnavailableError(
                f"{path} gains no privilege for this process, which has no_new_privs",
                "have whoever starts it leave that out: of systemd's units, NoNewPrivileges=",
            )
        return path
    raise UnavailableError(
        f"{name} is not installed, without which only root maps ids", "install it (Debian: uidmap)"
    )


def _is_privileged(path: str) -> bool:
    """Whether a program gains what it needs: setuid root, or a capability of its file's."""
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        return False
    from ketch.spec.user_namespaces import OVERFLOW_ID  # noqa: PLC0415 - it loads re

    status = os.stat(path)
    # In a user's namespace the root of the machine has no name.
    return (status.st_mode & stat.S_ISUID and status.st_uid in {0, OVERFLOW_ID}) or (
        "security.capability" in os.listxattr(path)
    )


def _ask(name: str, pid: int, mappings: "list[IdMapping]", field: str) -> None:
    try:
        path = program(name)
    except UnavailableError as error:
        raise UnavailableError(f"{field}: {error.message}", error.hint) from error
    arguments = [name, str(pid), *text(mappings).split()]
    said, writer = os.pipe2(os.O_CLOEXEC)
    with open(said, encoding="utf-8", errors="replace") as output:
        with owned(writer):
            child = os.posix_spawn(
                path, arguments, {}, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 2)]
            )
        words = output.read(4096)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise InvalidArgumentError(
            f"{field}: {name}: {words.strip() or f'exit status {status}'}",
            "give the user a range in /etc/subuid and /etc/subgid",
        )
