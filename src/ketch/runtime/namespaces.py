"""Joining namespaces by path, and what a new one needs before it is of any use.

Most configurations make all their namespaces, and init is born into them by one clone3(2). A user
or PID namespace that is joined, or a clock that is shifted, takes a process in between, since
setns(2) into a PID namespace and unshare(2) of a time namespace count only for children::

    parent ──fork──> between: setns(2), unshare(2) ──clone3(2) CLONE_PARENT──> init
      │ ◀─ "user": writes its id maps ─┘                                         │
      │ ◀─ "time": writes its offsets ─┘                                         │
      │ ◀─ "born PID" + its pidfd ─────┘                                         │
      └────────────────────────── is the parent of ──────────────────────────────┘
"""

import errno
import os

from ketch.errors import InvalidArgumentError, SyscallError, UnsupportedError
from ketch.linux import process
from ketch.linux.namespaces import CLONE_NEWTIME, CLONE_NEWUSER, KINDS, setns, unshare
from ketch.linux.scopes import owned
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ketch.runtime.handshake import Channel
    from ketch.runtime.plan import Plan
    from ketch.runtime.steps import Step
    from ketch.spec.runtime import TimeOffset
    from ketch.spec.told import Say


def join(joins: list[tuple[str, str]], say: "Say | None") -> None:
    """Enter namespaces by path.

    A namespace belongs to a user namespace, and entering it takes privileges there. So those that
    the caller's own allow come first, then the user namespace, then those that belong to it.

    Args:
        joins: ``(kind, path)`` of each.
        say: takes what is told of each step.

    Raises:
        InvalidArgumentError: a path leads to no namespace, or to one of another kind.
        UnsupportedError: the caller may not enter one.
    """
    opened = []
    try:
        for kind, path in joins:
            opened.append((kind, path, _open(kind, path)))
        late = []
        for kind, path, descriptor in opened:
            if kind == "user":
                continue
            try:
                _enter(kind, path, descriptor, say)
            except PermissionError:
                if _is_own(kind, descriptor):
                    continue  # where whoever is there may have no say
                late.append((kind, path, descriptor))
        user = [entry for entry in opened if entry[0] == "user"]
        for kind, path, descriptor in user + late:
            try:
                _enter(kind, path, descriptor, say)
            except PermissionError as error:
                raise UnsupportedError(
                    f"linux.namespaces: {kind} namespace {path}: operation not permitted",
                    "join the user namespace that it belongs to as well",
                ) from error
    finally:
        for _, _, descriptor in opened:
            os.close(descriptor)


def _open(kind: str, path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgumentError(
            f"linux.namespaces: {kind} namespace {path}: {(error.strerror or '').lower()}"
        ) from error


def _is_own(kind: str, descriptor: int) -> bool:
    """Whether a namespace is the one that the caller is in."""
    name = KINDS[kind][1]
    return os.path.samestat(os.fstat(descriptor), os.stat(f"/proc/self/ns/{name}"))


def _enter(kind: str, path: str, descriptor: int, say: "Say | None") -> None:
    if kind == "mount" and os.fstat(descriptor).st_ino == os.stat("/proc/self/ns/mnt").st_ino:
        # Its root is about to be changed.
        raise InvalidArgumentError(
            f"linux.namespaces: mount namespace {path} is the caller's own",
            "leave the path out, and the container has a mount namespace of its own",
        )
    try:
        setns(descriptor, KINDS[kind][0])
    except SyscallError as error:
        if error.errno != errno.EINVAL:
            raise
        if kind == "user" and os.fstat(descriptor).st_ino == os.stat("/proc/self/ns/user").st_ino:
            return  # already there, which setns(2) refuses
        raise InvalidArgumentError(
            f"linux.namespaces: {path} is not a {kind} namespace that can be joined"
        ) from error
    if say:
        if path.startswith("/proc/self/fd/"):  # a number that means nothing to whoever reads this
            path = os.readlink(f"/proc/self/fd/{descriptor}")
        say(Told("namespaces", f"join the {kind} namespace {path} · setns(2)"))


def cross(
    plan: "Plan",
    channel: "Channel",
    cgroup: int | None,
    say: "Say | None",
    born: "Callable[[], NoReturn]",
) -> "NoReturn":
    """In the process between: enter and make namespaces, and clone init into them.

    Args:
        plan: which.
        channel: init's end of the handshake.
        cgroup: descriptor of the v2 cgroup that init is born into, or None.
        say: takes what is told of each step.
        born: init's life.
    """
    if plan.joins:
        # Whoever is inside may watch.
        process.prctl(process.PR_SET_DUMPABLE, 0)
    join(plan.joins, say)
    flags = plan.clone_flags
    if flags & CLONE_NEWUSER:
        unshare(CLONE_NEWUSER)
        channel.reached("user")
        channel.await_go("user")
        flags &= ~CLONE_NEWUSER
    if plan.time_offsets:
        # clone3(2) would start the clocks at once, and then they can no longer be set.
        unshare(CLONE_NEWTIME)
        channel.reached("time")
        channel.await_go("time")
        flags &= ~CLONE_NEWTIME
    pid, pidfd = process.clone3(flags | process.CLONE_PARENT, cgroup=cgroup)
    if pid == 0:
        born()
    channel.reached(f"born {pid}", pidfd)
    os._exit(0)


def visit(pidfd: int, flag: int, step: "Step") -> None:
    """Take a step in another process's namespace, and come back; for callers of one thread.

    Args:
        pidfd: the process's descriptor.
        flag: CLONE_NEW* of the namespace.
        step: what to do there.
    """
    name = next(name for each, name in KINDS.values() if each == flag)
    with owned(os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)) as home:
        setns(pidfd, flag)
        try:
            step.execute()
        finally:
            setns(home, flag)


def write_time_offsets(pid: int, offsets: "dict[str, TimeOffset]") -> None:
    """Shift the clocks of the time namespace that a process's children are to live in.

    Args:
        pid: a child of the caller.
        offsets: ``linux.timeOffsets``.

    Raises:
        InvalidArgumentError: a clock would stand before zero or too far ahead.
    """
    lines = [
        f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n"
        for clock, offset in offsets.items()
    ]
    with owned(os.open(f"/proc/{pid}/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)) as descriptor:
        try:
            os.write(descriptor, "".join(lines).encode())
        except OSError as error:
            raise InvalidArgumentError(
                f"linux.timeOffsets: {' '.join(lines).strip()!r}: {(error.strerror or '').lower()}",
                "a shifted clock must stand between zero and 146 years: time_namespaces(7)",
            ) from error
