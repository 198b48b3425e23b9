"""What this machine offers to this user, what is used instead of what is missing, what mends it.

Every fact is asked of whoever depends on it, so that a start which fails says the same.
"""

import errno
import os
import shutil
import tempfile

from ketch import cgroups
from ketch.cgroups import absent, delegation
from ketch.cgroups.resources import DELEGATE
from ketch.dataclass import dataclass
from ketch.engine import places as engine_places
from ketch.engine.home import entering, ids, places
from ketch.errors import KetchError, UnavailableError
from ketch.images import drivers, fuse_overlay
from ketch.linux import filesystems, mount, namespaces, nftables, restrictions, tun
from ketch.linux.scopes import owned
from ketch.network.uplink import uplink
from ketch.network.uplink.programs import PASTA, PROGRAMS, SLIRP
from ketch.network.uplink.programs import ways as ways_of
from ketch.runtime import mappings
from ketch.runtime.mounts import UNHIDDEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.engine.settings import Settings

YES, INSTEAD, NO, UNNEEDED = "yes", "instead", "no", "unneeded"

_ALONE = "containers have this user's own id alone"
_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
_BINFMT = "/proc/sys/fs/binfmt_misc"
_LINGER = "/var/lib/systemd/linger"
_SYSTEMD = "/run/systemd/system"  # sd_booted(3)


@dataclass(frozen=True)
class Offer:
    """One thing that containers, or commands about them, make use of.

    Attributes:
        name: of the thing.
        state: ``yes``; ``no``: what needs it is refused; ``instead``: something else does its work;
            ``unneeded``: it is missing, and nothing here would use it.
        detail: what there is, or why it is missing and what is used instead.
        remedy: what would mend it: a command, or a step in words.
        is_needed: whether no container can run without.
    """

    name: str
    state: str
    detail: str = ""
    remedy: str = ""
    is_needed: bool = False


def examine(settings: "Settings", refused: KetchError | None = None) -> list[Offer]:
    """Ask for everything, in the order in which a start needs it.

    Args:
        settings: the engine's places. An ordinary user's process has entered the user's
            namespaces, unless that was refused.
        refused: why it was.
    """
    return [*_for_user(settings, refused)] if settings.home else [*_for_root(settings)]


def can_run(offers: list[Offer]) -> bool:
    """Whether containers can run with this."""
    return not any(offer.is_needed and offer.state == NO for offer in offers)


def document(offer: Offer) -> dict[str, str | bool]:
    """Returns an offer under keys as the API's documents have them."""
    return {
        "Name": offer.name,
        "State": offer.state,
        "Detail": offer.detail,
        "Remedy": offer.remedy,
        "Needed": offer.is_needed,
    }


def _for_root(settings: "Settings") -> "Iterator[Offer]":
    yield _offer("privileges", restrictions.of_root(), is_needed=True)
    restricted = restrictions.of_user_namespaces()
    yield _offer("user namespaces", restricted)
    yield from _storage(settings)
    yield _control_groups(settings)
    yield _packet_filter(settings)
    yield _platforms()


def _for_user(settings: "Settings", refused: KetchError | None) -> "Iterator[Offer]":
    yield _offer("user namespaces", refused, is_needed=True)
    yield _subordinate_ids(entered=refused is None)
    for name in ("newuidmap", "newgidmap"):
        yield _program_of_ids(name)
    if refused is None:
        yield _procfs()
        yield from _storage(settings)
        yield _packet_filter(settings)
    yield from _way_out()
    yield _control_groups(settings)
    yield _runtime_directory(settings)
    yield lingering()
    yield _low_ports()
    yield _platforms()


def _offer(name: str, error: KetchError | None, *, is_needed: bool = False) -> Offer:
    if error is None:
        return Offer(name, YES, is_needed=is_needed)
    return Offer(name, NO, error.message, error.hint, is_needed)


def _subordinate_ids(*, entered: bool) -> Offer:
    user = restrictions.own_id("uid_map")
    group = restrictions.own_id("gid_map")
    given = ids.of(user, group)
    faults = ids.faults(user, group)
    counts = [sum(one["size"] for one in each[1:]) for each in (given.users, given.groups)]
    detail = f"{counts[0]} users, {counts[1]} groups"
    if given.is_alone:
        name = places.name_of(user)
        span = ids.unclaimed()
        reason = "; ".join(faults) or "none in /etc/subuid and /etc/subgid"
        return Offer(
            "subordinate ids", INSTEAD,
            f"{reason}: {_ALONE}",
            f"as root: usermod --add-subuids {span} --add-subgids {span} {name}",
        )  # fmt: skip
    if ids.unwritable():
        return Offer(
            "subordinate ids", INSTEAD,
            f"{detail}, which newuidmap and newgidmap cannot give: {_ALONE}",
        )  # fmt: skip
    if entered and restrictions.count("uid_map") == 1:
        return Offer(
            "subordinate ids", INSTEAD,
            f"{detail}, which this user's namespaces were made without",
            "ketch stop what runs; they are made anew a minute after the last process in them",
        )  # fmt: skip
    return Offer(
        "subordinate ids", YES, "; ".join([detail, *faults]),
        "as root: mend these lines, or who else has the ids can be reached by containers"
        if faults else "",
    )  # fmt: skip


def _program_of_ids(name: str) -> Offer:
    try:
        return Offer(name, YES, mappings.program(name))
    except UnavailableError as error:
        return Offer(name, INSTEAD, f"{error.message}: {_ALONE}", error.hint)


def _procfs() -> Offer:
    """Whether a container can have its own: in a user namespace not where some of it is hidden."""
    if number := _in_processes_own(_make_procfs):
        return Offer(
            "procfs", NO,
            f"some of /proc is hidden here, as in a container: {os.strerror(number).lower()}",
            f"have it made with nothing hidden: {UNHIDDEN}", is_needed=True,
        )  # fmt: skip
    return Offer("procfs", YES, is_needed=True)


def _make_procfs() -> None:
    with owned(mount.fsopen("proc")) as context, owned(mount.fsmount(context)):
        pass


def _in_processes_own(work: "Callable[[], None]") -> int:
    """Do something as the first process of a PID namespace; returns the number of its error, or 0.

    Only a child of whoever has made the namespace is in it.
    """
    pid = os.fork()
    if pid == 0:
        status = errno.EPERM
        try:
            namespaces.unshare(namespaces.CLONE_NEWPID)
            first = os.fork()
            if first == 0:
                work()
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
        except OSError as error:
            status = error.errno or errno.EPERM
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _storage(settings: "Settings") -> "Iterator[Offer]":
    root = settings.root
    place = drivers.existing(root)
    try:
        _write_in(place)
        used = drivers.choose(root, settings.storage_driver).name
    except OSError as error:
        yield _offer("storage", engine_places.unusable(root, error.errno or 0), is_needed=True)
        return
    except KetchError as error:
        yield _offer("storage", error, is_needed=True)
        return
    kind = filesystems.kind(root)
    failure = drivers.overlay_failure(place)
    if failure is None:
        yield Offer("overlay", YES, f"on {kind}")
    elif filesystems.is_networked(root):
        yield Offer(
            "overlay", INSTEAD,
            f"{root} is on a network file system ({kind}), where layers cannot be stacked: {used}",
            "choose a directory on a local disk with --root or KETCH_ROOT",
        )  # fmt: skip
    else:
        yield Offer(
            "overlay", INSTEAD, f"on {kind}: {failure}: {used} instead",
            "boot Linux 5.11 or newer, or choose another directory with --root",
        )  # fmt: skip
    state = YES if fuse_overlay.available() else UNNEEDED if failure is None else NO
    detail, remedy = shutil.which(fuse_overlay.PROGRAM) or "", ""
    if not detail:
        detail, remedy = "not installed", fuse_overlay.REMEDY
    elif not fuse_overlay.available():
        detail += ", but /dev/fuse is missing"
        remedy = "as root: modprobe fuse; in a container, give it the device"
    yield Offer("fuse-overlayfs", state, detail, remedy if state == NO else "")
    yield Offer("storage driver", YES if used == "overlay2" else INSTEAD, f"{used} in {root}")


def _write_in(directory: str) -> None:
    """Write something that goes by itself."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(b"\0" * os.statvfs(directory).f_bsize)


def _packet_filter(settings: "Settings") -> Offer:
    def ask() -> None:
        nftables.listing("tables")

    try:
        entering.in_network(settings, ask)
    except KetchError as error:
        return Offer("packet filter", NO, error.message, error.hint)
    return Offer("packet filter", YES, "nf_tables, nft")


_LACKING = {
    PASTA: "which knows IPv4 alone",
    SLIRP: "which may stall or reset streams to who reads slowly",
}


def _way_out() -> "Iterator[Offer]":
    """What leads out of the user's network: see ``ketch.network.uplink``."""
    paths = {program: path for program in PROGRAMS if (path := uplink.which(program.name))}
    error = uplink.none_installed()
    ways = ways_of(paths, uplink.reachable())
    used = dict(ways[0]) if ways else {}
    names = " and ".join(program.name for program in used)
    for program in PROGRAMS:
        if program in used:
            told = ", ".join(f"IPv{version}" for version in sorted(used[program]))
            yield Offer(program.name, YES, f"{paths[program]}: {told}")
        elif program in paths:
            yield Offer(program.name, UNNEEDED, f"{names} is there" if names else "")
        elif not used:
            yield Offer(program.name, NO, error.message, error.hint)
        else:
            lacks = _LACKING[program]
            yield Offer(program.name, INSTEAD, f"not installed: {names}, {lacks}",
                        f"install the package {program.package}")  # fmt: skip
    try:
        tun.check()
    except UnavailableError as error:
        yield Offer(tun.DEVICE, NO, error.message, error.hint)
    else:
        yield Offer(tun.DEVICE, YES)


def _control_groups(settings: "Settings") -> Offer:
    layout = cgroups.usable("/ketch")
    mode = layout.shown.mode
    # Beside the controllers v1 has names of hierarchies.
    names = {name for each in layout.hierarchies for name in each.controllers if "=" not in name}
    if layout.hierarchies and not settings.home:
        return Offer("control groups", YES, f"{mode}: {', '.join(sorted(names))}")
    names = set(delegation.controllers()) if settings.home else set()
    if not names:
        why, hint = absent.reason(layout)
        return Offer("control groups", NO, f"no limits, no pause: {why}", hint)
    withheld = [name for name in _CONTROLLERS if name not in names]
    detail = f"{mode}: {', '.join(sorted(names))}"
    if not withheld:
        return Offer("control groups", YES, detail)
    return Offer(
        "control groups", YES, f"{detail}; not delegated, and refused: {', '.join(withheld)}",
        DELEGATE,
    )  # fmt: skip


def _runtime_directory(settings: "Settings") -> Offer:
    user = restrictions.own_id("uid_map")
    if settings.state != places.temporary(user):
        return Offer("runtime directory", YES, settings.state)
    return Offer(
        "runtime directory", INSTEAD,
        f"no XDG_RUNTIME_DIR and no /run/user/{user} of this user's: {settings.state}",
        f"have systemd make one: loginctl enable-linger {places.name_of(user)}",
    )  # fmt: skip


def lingering() -> Offer:
    """Whether a user's containers go on when nobody is logged in any more: loginctl(1)."""
    name = places.name_of(restrictions.own_id("uid_map"))
    if not os.path.isdir(_SYSTEMD):
        return Offer("lingering", UNNEEDED, "systemd is not this machine's init")
    if os.path.exists(f"{_LINGER}/{name}"):
        return Offer("lingering", YES)
    return Offer(
        "lingering", NO, "containers end when this user's last session does",
        f"loginctl enable-linger {name}",
    )  # fmt: skip


def _low_ports() -> Offer:
    first = restrictions.sysctl(restrictions.FIRST_PORT)
    if first in {"", "0"}:
        return Offer("low ports", YES)
    return Offer(
        "low ports", NO, f"ports below {first} are root's: {restrictions.FIRST_PORT}",
        f"as root: sysctl -w {restrictions.FIRST_PORT}=0",
    )  # fmt: skip


def _platforms() -> Offer:
    try:
        names = sorted(name for name in os.listdir(_BINFMT) if name.startswith("qemu-"))
    except OSError:
        names = []
    if names:
        return Offer(
            "other platforms", YES, ", ".join(name.removeprefix("qemu-") for name in names)
        )
    return Offer(
        "other platforms", NO, "images for other processors do not run: no binfmt_misc of QEMU's",
        "as root: apt install qemu-user-static binfmt-support",
    )  # fmt: skip
