"""The control groups that an ordinary user, or a container, is given to make its own in.

A process may move between cgroups where it may write to the one above both, which a user's login
session may not. So the process that forks containers goes where it may, and they are made beside
it::

    SUBTREE/ketch-engine     those that start and watch over containers
    SUBTREE/ketch/ID         a container

SUBTREE is a scope that the user's systemd makes and delegates, one for each state directory; it
ends with the last process in it. Where there is no such manager, it is the cgroup that the process
is in, if that is its own to divide: of a container that was given a writable one, of a CI job. What
else is in that one is moved to ``ketch-engine`` too, for a cgroup that has processes of its own
passes no controllers on.

On cgroup v1 nothing can be delegated safely, and nothing is.

Source: cgroup-v2.rst "Delegation", https://systemd.io/CGROUP_DELEGATION.
"""

import binascii
import os

from ketch.cgroups import layout
from ketch.cgroups.group import read
from ketch.errors import UnavailableError
from ketch.linux import namespaces
from ketch.linux.scopes import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups.layout import Hierarchy

LEAF = "ketch-engine"
_ATTEMPTS = 5
_ROUNDS = 20  # of moving processes that fork meanwhile


def subtree() -> str:
    """Where containers' cgroups are to be made, below each hierarchy's root; empty for there."""
    # Asked at each start: for most the shorter file will do.
    if f"/{LEAF}\n" not in (read("/proc/self/cgroup") or ""):
        return ""
    hierarchy = _unified()
    return _subtree(hierarchy) if hierarchy is not None else ""


def enter(state: str) -> None:
    """Go where cgroups can be made, where the machine gives this process any such place.

    Nothing happens where it is there, or is the machine's root.

    Args:
        state: the engine's state directory, after which the scope is named.

    Raises:
        OSError: the kernel refused what its files' modes had promised.
    """
    hierarchy = _unified()
    if hierarchy is None or _subtree(hierarchy):
        return
    if namespaces.in_initial_user_namespace():
        if hierarchy.own != "/":
            return
    else:
        with suppress(UnavailableError):  # no manager of this user's
            _enter_scope(f"{binascii.crc32(state.encode('utf-8', 'surrogateescape')):08x}")
            hierarchy = _unified() or hierarchy
    directory = hierarchy.directory(hierarchy.own)
    if os.path.basename(directory) != LEAF and _is_divisible(directory):
        _divide(directory)


def controllers() -> tuple[str, ...]:
    """What a user's containers can be limited in, once ``enter`` has been called."""
    hierarchy = _unified()
    if hierarchy is None:
        return ()
    directory = hierarchy.directory(_subtree(hierarchy) or hierarchy.own)
    if not _subtree(hierarchy):
        from ketch.cgroups.bus import BusError, Systemd  # noqa: PLC0415 - on no way to a start

        with suppress(UnavailableError, BusError), Systemd(user=True) as systemd:
            directory = hierarchy.directory(str(systemd.property("ControlGroup")))
    if not os.access(directory, os.W_OK):
        return ()
    return tuple((read(f"{directory}/cgroup.controllers") or "").split())


def _unified() -> "Hierarchy | None":
    """The v2 hierarchy of a machine that has no other."""
    found = layout.mounted()
    return found.unified if found.mode == "v2" else None


def _subtree(hierarchy: "Hierarchy") -> str:
    above, _, name = hierarchy.own.rpartition("/")
    return (above or "/") if name == LEAF else ""


def _is_divisible(directory: str) -> bool:
    """Whether a cgroup is this process's to divide, and not the machine's first one."""
    return os.path.exists(f"{directory}/cgroup.type") and all(
        os.access(f"{directory}/{name}", os.W_OK)
        for name in ("", "cgroup.procs", "cgroup.subtree_control")
    )


def _divide(directory: str) -> None:
    """Move all that is in a cgroup into one below it, so that it can have others."""
    with suppress(FileExistsError):
        os.mkdir(f"{directory}/{LEAF}", 0o755)
    for _ in range(_ROUNDS):
        pids = (read(f"{directory}/cgroup.procs") or "").split()
        for pid in pids:
            with suppress(ProcessLookupError), open(f"{directory}/{LEAF}/cgroup.procs", "w") as to:
                to.write(pid)
        if not pids:
            return


def _enter_scope(name: str) -> None:
    """Have the user's systemd move this process into the engine's scope, made where it is missing.

    Raises:
        UnavailableError: it does not answer, or refuses.
    """
    from ketch.cgroups import units  # noqa: PLC0415 - not where there is no such manager
    from ketch.cgroups.bus import BusError, Systemd  # noqa: PLC0415

    unit = units.Unit(f"user.slice:ketch:{name}", "", "user.slice")
    pid = os.getpid()
    properties = units.birth(unit, "ketch, containers of an ordinary user", pid, {}, v2=True)
    failure = ""
    with Systemd(user=True) as systemd:
        for _ in range(_ATTEMPTS):
            try:
                done = systemd.run(
                    "StartTransientUnit", "ssa(sv)a(sa(sv))", unit.name, "fail", properties, []
                )
                if done == "done":
                    return
                failure = f"the job is {done}"
            except BusError as error:
                if error.name != "UnitExists":
                    failure = str(error)
                    break
            try:
                systemd.call("AttachProcessesToUnit", "ssau", unit.name, f"/{LEAF}", [pid])
            except BusError as error:  # it has just ended, or is just beginning
                failure = str(error)
            else:
                return
    raise UnavailableError(f"systemd gives this user's engine no control group: {failure}")
