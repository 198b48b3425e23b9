"""Taking a whole engine away: its containers, networks and processes, its state and its root.

Others may go on using the engine meanwhile. Services are not started anew, since their lock is
held; whoever writes to the database waits, and then finds that it is gone (``Store.transaction``).
Only what an engine makes is removed from its directories: a directory that was named by mistake
keeps what is somebody else's, and what is mounted there keeps the engine from being removed at all.
"""

import contextlib
import fcntl
import os
import time
from signal import SIGKILL, pidfd_send_signal

from ketch.engine import places
from ketch.engine.files import image_mounts
from ketch.engine.images.images import COLLECTED
from ketch.engine.monitor import stepping
from ketch.engine.networks import kernel, reclaiming, records, sandboxes
from ketch.errors import (
    ConflictError,
    KetchError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from ketch.linux import locks, mount, procfs, rtnetlink
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned
from ketch.network import bridge as bridges
from ketch.network import firewall, forward_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import ExitStack

    from ketch.engine.engine import Engine

DATABASE = "ketch.db"

# The database goes last, after all the rest: so what was interrupted can be done again.
_ROOT_FILES = (
    COLLECTED, "images.lock", "repair.lock", "index.json", "oci-layout", places.MACHINE,
    f"{DATABASE}-wal", f"{DATABASE}-shm", DATABASE,
)  # fmt: skip
_ROOT_DIRECTORIES = (
    "blobs", "build-cache", "builds", "containers", "ingest", "mounts", "seccomp", "snapshots",
    "volumes",
)  # fmt: skip
_ROOT_PREFIXES = ("damaged-", "storage-driver", "trial-")
_STATE_FILES = ("errors.log", "holder.socket", "network", "services.lock", "uplink.socket")
_STATE_DIRECTORIES = ("steps", "uplink")
_STATE_PREFIXES = ("forwarding", "zygote-", "names-")
# What network file systems call a file that was removed while somebody has it open: it goes with
# the last descriptor of it.
_REMOVED_PREFIXES = (".nfs", ".fuse_hidden")

_PATIENCE_SECONDS = 10.0
_STARTING_SECONDS = 30.0
_PAUSE_SECONDS = 0.02


def check(engine: "Engine", *, force: bool = False) -> None:
    """See whether an engine can be taken away.

    Args:
        engine: which.
        force: whether it is to be even if programs use it that are not its own.

    Raises:
        NotFoundError: there is no engine.
        ConflictError: programs use it; something is mounted in its root.
    """
    root = engine.settings.root
    if not os.path.isfile(f"{root}/{DATABASE}"):
        raise NotFoundError(
            f"{root} is not the root of an engine: it has no {DATABASE}", "nothing was removed"
        )
    engine.containers.list(all=True)  # it can be read
    # Volumes with driver options are mounted while containers use them.
    _check_mounts(root, but=f"{root}/volumes/")
    users = [] if force else [one for one in _users(root) if not one[1].startswith("ketch-")]
    if users:
        listed = ", ".join(f"{pid} ({name})" for pid, name in users)
        raise ConflictError(
            f"other programs use {root}: {listed}", "end them first, or say --force"
        )


def reset(engine: "Engine") -> list[str]:
    """Take an engine away; ``check`` says whether that can be.

    Returns:
        What was left in its directories, since it is not the engine's.

    Raises:
        UnavailableError: containers cannot be removed, or others go on making new ones.
        ConflictError: something is mounted in its root.
        OSError: the kernel refused.
    """
    settings = engine.settings
    states = {settings.state, *_states_of_monitors(engine)}
    with contextlib.ExitStack() as held:
        for state in states:
            _lock_services(state, held)
        _end(
            pid
            for state in states
            for pid, words, name in _processes()
            if _follows(pid, words, "ketch-zygote", state) and not _is_monitor(name)
        )
        _remove_containers(engine)
        _end_builds(engine)
        image_mounts.take_away(engine)
        _check_mounts(settings.root)
        _remove_networks(engine)
        _end(
            pid for pid, words, _ in _processes()
            if _follows(pid, words, "ketch-names", settings.root)
        )  # fmt: skip
        with engine.store.transaction() as connection:
            if connection.execute("SELECT 1 FROM container").fetchone():
                raise UnavailableError(
                    f"containers are being made in {settings.root}", "try again when that is done"
                )
            left = _clear(settings.root, _ROOT_FILES, _ROOT_DIRECTORIES, _ROOT_PREFIXES)
            is_kept_open = not left and os.path.isdir(settings.root)
        engine.store.close()
        if is_kept_open:
            with contextlib.suppress(OSError):  # it may be a mount point
                os.rmdir(settings.root)
        for state in states:
            runtime = f"{state}/containers"
            with contextlib.suppress(OSError):
                os.rmdir(runtime)
            # Another root's containers may have the same directory for what they run with.
            if not os.path.exists(runtime):
                _end_holder(state)
                left += _clear(state, _STATE_FILES, _STATE_DIRECTORIES, _STATE_PREFIXES)
    _leave_the_packet_filter()
    return left


def _end_holder(state: str) -> None:
    """End what leads out of an ordinary user's namespaces and what holds them.

    They end with the caller then.
    """
    with contextlib.suppress(OSError):
        mount.umount2(f"{state}/network", mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
    _end(
        pid for pid, words, _ in _processes()
        if any(_follows(pid, words, role, state) for role in ("ketch-uplink", "ketch-holder"))
    )  # fmt: skip


def _lock_services(state: str, held: "ExitStack") -> None:
    """Keep services from being started: who asks for one waits, and finds no directory then."""
    try:
        lock = os.open(f"{state}/services.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return
    held.callback(os.close, lock)
    locks.take(lock, fcntl.LOCK_EX, f"{state}/services.lock", _STARTING_SECONDS, fcntl.lockf)


def _remove_containers(engine: "Engine") -> None:
    problem: KetchError | OSError | None = None
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for container in engine.containers.list(all=True):
            try:
                engine.containers.remove(container.id, force=True)
            except NotFoundError:
                continue
            except (KetchError, OSError) as error:
                problem = error
        with engine.store.reading() as connection:
            if not connection.execute("SELECT 1 FROM container").fetchone():
                return
        time.sleep(_PAUSE_SECONDS)  # one is being made, or removed by somebody else
    raise problem or UnavailableError(
        f"others go on making containers in {engine.settings.root}", "end them first"
    )


def _end_builds(engine: "Engine") -> None:
    """End what builds have running, and take away what they held."""
    _end(stepping.running(engine.settings.state))
    stepping.clean(engine.settings.state)
    _end(sandboxes.holders(engine.store))
    sandboxes.clean(engine.settings, engine.store)


def _check_mounts(root: str, but: str = "//") -> None:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        places = [procfs.unescape(line.split()[4]) for line in mounts]
    for place in places:
        # What ``ketch mount`` has mounted goes with its container, or its image.
        own = place.startswith((f"{root}/containers/", f"{root}/mounts/"))
        if own and place.endswith("/merged"):
            continue
        if place.startswith(f"{root}/") and not place.startswith(but):
            raise ConflictError(
                f"{place} is a mount point: what is mounted there would be removed",
                f"umount {place}",
            )


def _remove_networks(engine: "Engine") -> None:
    with engine.store.reading() as connection:
        networks = records.every(connection)
    for network in networks:
        if network.driver not in {"host", "null"}:
            kernel.unmake(engine.settings, engine.store, network)
    with rtnetlink.Socket() as host:
        for name in reclaiming.made_by(engine.settings):
            known = bridges.read(host, name)
            bridges.delete(host, name)
            firewall.forget(name, known)


def _leave_the_packet_filter() -> None:
    """Take away what is in the packet filter for all engines, with the last one."""
    with rtnetlink.Socket() as host:
        if any(link.name.startswith(forward_policy.BRIDGE_PREFIX) for link in host.links()):
            return
    with contextlib.suppress(UnavailableError, UnsupportedError):  # no nft, no table
        firewall.leave()


def _clear(
    place: str,
    files: "tuple[str, ...]",
    directories: "tuple[str, ...]",
    prefixes: "tuple[str, ...]",
) -> list[str]:
    """Remove what an engine makes in a directory, and that itself if it is empty then.

    Returns:
        Paths of what was left.
    """
    try:
        there = os.listdir(place)
    except FileNotFoundError:
        return []
    for name in [*sorted(set(there) - {*files}), *files]:
        if name in files or name.startswith(prefixes):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(f"{place}/{name}")
        if name in directories or (name.startswith(prefixes) and os.path.isdir(f"{place}/{name}")):
            remove_tree(f"{place}/{name}")
    left = sorted(name for name in os.listdir(place) if not name.startswith(_REMOVED_PREFIXES))
    if not left:
        with contextlib.suppress(OSError):  # it may be a mount point, or have what is open still
            os.rmdir(place)
    return [f"{place}/{name}" for name in left]


# Processes


def _processes() -> "Iterator[tuple[int, list[str], str]]":
    """The caller's user's: each one's pid, command line, and name."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{entry}").st_uid != os.geteuid():
                continue
            words = os.fsdecode(_read(f"/proc/{entry}/cmdline")).split("\0")
            yield int(entry), words, os.fsdecode(_read(f"/proc/{entry}/comm")).strip()


def _follows(pid: int, words: list[str], role: str, path: str) -> bool:
    """Whether a process has a role for a directory, which it sees where the caller does."""
    if role not in words[:-1] or words[words.index(role) + 1] != path:
        return False
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(f"/proc/{pid}/root{path}"), os.stat(path))
    return False


def _is_monitor(name: str) -> bool:
    """Whether a process that a zygote has forked watches over a container.

    It has the zygote's command line, and another name; a zygote has the interpreter's for a while.
    """
    return name.startswith("ketch-") and name != "ketch-zygote"


def _states_of_monitors(engine: "Engine") -> set[str]:
    """The state directories that running containers were started with."""
    found = set()
    pids = {one.monitor_pid for one in engine.containers.list(all=True) if one.is_active}
    for pid, words, _ in _processes():
        for role in ("ketch-zygote", "ketch-monitor"):
            if pid in pids and role in words[:-1]:
                state = words[words.index(role) + 1]
                if _follows(pid, words, role, state):
                    found.add(state)
    return found


def _users(root: str) -> list[tuple[int, str]]:
    """Processes that have the engine's database open, by pid and name."""
    facts = os.stat(f"{root}/{DATABASE}")
    found = []
    for pid, _, name in _processes():
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{descriptor}"), facts):
                    found.append((pid, name))
                    break
    return found


def _end(pids: "Iterable[int]") -> None:
    """Kill processes, and wait until they are gone."""
    waiting = []
    for pid in pids:
        start_time = procfs.process_start_time(pid) or 0
        with contextlib.suppress(ProcessLookupError), owned(os.pidfd_open(pid)) as pidfd:
            if procfs.is_running(pid, start_time):
                pidfd_send_signal(pidfd, SIGKILL)
                waiting.append((pid, start_time))
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while any(procfs.is_running(*one) for one in waiting) and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
