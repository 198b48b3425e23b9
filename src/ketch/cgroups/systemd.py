"""The cgroup manager that has systemd make the cgroup: a scope of the container's own.

systemd wants to be the only one who writes to the cgroups near its root, and restores what it
believes in whenever it reloads. So it makes the cgroup, is told the limits that it knows of, and
leaves what is inside to us (``Delegate=``); all else is as in ``filesystem.Manager``.

A scope is made of processes that are there, and ends with the last of them. The container's init is
to be born limited, so a process that does nothing, the keeper, holds the scope until init is in::

    create()  keeper ──StartTransientUnit──▶ scope      set()  SetUnitProperties, then the files
    clone3 or tasks: init is in                         settled()  the keeper leaves

For a user's own manager, init may not be born there, since all that is above belongs to root: once
it is born, systemd moves it (``adopt``).

Source: org.freedesktop.systemd1(5), systemd.scope(5), https://systemd.io/CGROUP_DELEGATION.
"""

import os

from ketch.cgroups import members, units
from ketch.cgroups.bus import BusError, Systemd
from ketch.cgroups.filesystem import Manager
from ketch.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    UnavailableError,
    UnsupportedError,
)
from ketch.linux import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.cgroups.layout import Layout
    from ketch.spec.runtime import Resources

_BOOTED = "/run/systemd/system"  # sd_booted(3)


def place(
    path: str, container_id: str, annotations: dict[str, str], layout: "Layout", *, user: bool
) -> "UnitManager":
    """Choose a container's unit.

    Args:
        path: ``linux.cgroupsPath``: ``slice:prefix:name``, or empty.
        container_id: what the unit is named after where the path does not say.
        annotations: of the container, some of which are properties of the unit.
        layout: of the machine.
        user: whether this user's manager is to make it.

    Raises:
        InvalidArgumentError: path or annotations are wrong in themselves.
        UnavailableError: systemd does not run here.
        UnsupportedError: an ordinary user, on cgroup v1.
    """
    unit = units.Unit(path, container_id, "user.slice" if user else "system.slice")
    units.annotated(annotations)
    base = ""
    if user:
        if layout.mode != "v2":
            raise UnsupportedError(
                "cannot use rootless systemd cgroups manager on cgroup v1",
                "boot with systemd.unified_cgroup_hierarchy=1, or leave --systemd-cgroup out",
            )
        with Systemd(user=True) as systemd:
            base = str(systemd.property("ControlGroup")).rstrip("/")
    elif not os.path.isdir(_BOOTED):
        raise UnavailableError(
            "systemd cgroup flag passed, but systemd support for managing cgroups is not available",
            "systemd is not this machine's init: leave --systemd-cgroup out",
        )
    manager = UnitManager(unit.name, base + unit.cgroup, layout, user=user)
    manager.order(unit, container_id, annotations)
    return manager


class UnitManager(Manager):
    """The cgroup of a systemd unit.

    Args:
        name: of the unit.
        path: of its cgroup, absolute beneath every hierarchy's root.
        layout: of the machine.
        user: whether this user's manager has it.
    """

    __slots__ = ("_keeper", "_order", "_pids", "name", "user")

    def __init__(self, name: str, path: str, layout: "Layout", *, user: bool = False) -> None:
        super().__init__(path, layout)
        self.name = name
        self.user = user
        self._order: tuple[units.Unit, str, dict[str, str]] | None = None
        self._keeper: _Keeper | None = None
        self._pids: int | None = None  # the limit to set once the keeper has left

    def order(self, unit: units.Unit, container_id: str, annotations: dict[str, str]) -> None:
        """Say what ``create`` is to make."""
        self._order = unit, container_id, annotations

    def create(self) -> None:
        """Have systemd make the unit, and make what it does not: on v1 the other hierarchies.

        Raises:
            AlreadyExistsError: there is such a unit.
            ConflictError: a cgroup of its path has processes.
            UnavailableError: systemd does not answer, or its job failed.
        """
        assert self._order is not None
        unit, container_id, annotations = self._order
        if not unit.is_slice:
            self._keeper = _Keeper()
        try:
            pid = self._keeper.pid if self._keeper else 0
            v2 = self.layout.mode == "v2"
            description = f"ketch container {container_id}"
            properties = units.birth(unit, description, pid, annotations, v2=v2)
            with Systemd(user=self.user) as systemd:
                _start(systemd, unit, properties)
            super().create()
        except BaseException:
            self._dismiss()
            raise

    def _take_over(self) -> None:
        """Make sure that there is nobody else in it than the keeper."""
        kept = {self._keeper.pid} if self._keeper else set()
        if held := sorted(set(self.processes()) - kept):
            raise ConflictError(
                f"cgroup {self.path} is in use by {members.names(held)}",
                "choose another cgroup path, or end these processes",
            )
        self._refuse_frozen()

    def set(self, resources: "Resources", hear: "Callable[[str, str], None] | None" = None) -> None:
        """Limit the unit; see ``Manager.set``."""
        self._decide(resources)  # before systemd acts on what is refused then
        with Systemd(user=self.user) as systemd:
            version = units.version_number(str(systemd.property("Version")))
            v2 = self.layout.mode == "v2"
            if properties := units.limits(resources, version, v2=v2):
                try:
                    systemd.call("SetUnitProperties", "sba(sv)", self.name, True, properties)
                except BusError as error:
                    raise InvalidArgumentError(
                        f"systemd refuses the limits of unit {self.name}: {error}"
                    ) from error
                # It writes them once it has answered; it answers the next when it has.
                systemd.property("Version")
        pids = resources.get("pids", {}).get("limit")
        if self._keeper and pids is not None and pids >= 0:
            self._pids = max(pids, 1)
            resources = {**resources, "pids": {"limit": self._pids + 1}}
        super().set(resources, hear)

    def descriptor(self, near: int | None = None) -> int | None:
        """As ``Manager.descriptor``; None for a user, whose process systemd has to move."""
        return None if self.user else super().descriptor(near)

    def adopt(self, pid: int) -> None:
        """Have systemd move a process in, where it could not be born there."""
        if not self.user:
            return
        with Systemd(user=True) as systemd:
            try:
                systemd.call("AttachProcessesToUnit", "ssau", self.name, "/", [pid])
            except BusError as error:
                raise UnavailableError(
                    f"systemd cannot move process {pid} into unit {self.name}: {error}"
                ) from error

    def settled(self) -> None:
        """The container's init is in: the keeper may leave."""
        self._dismiss()
        if self._pids is not None:
            super().set({"pids": {"limit": self._pids}})
            self._pids = None

    def delete(self, timeout_seconds: float = 5.0, *, empty_parents: int = 0) -> None:
        """Have systemd forget the unit, and remove what is left; see ``Manager.delete``."""
        self._dismiss()
        with Systemd(user=self.user) as systemd:
            for member, signature, arguments in (
                ("StopUnit", "ss", (self.name, "replace")),
                ("ResetFailedUnit", "s", (self.name,)),
            ):
                try:
                    if member == "StopUnit":
                        systemd.run(member, signature, *arguments)
                    else:
                        systemd.call(member, signature, *arguments)
                except BusError:
                    continue  # systemd forgets a scope as soon as it is empty
        super().delete(timeout_seconds, empty_parents=empty_parents)

    def _dismiss(self) -> None:
        if self._keeper is not None:
            self._keeper.dismiss()
            self._keeper = None


def _start(systemd: Systemd, unit: units.Unit, properties: "list[units.Property]") -> None:
    """Start a unit, once more where one of its name is left that failed."""
    for attempt in range(2):
        try:
            result = systemd.run(
                "StartTransientUnit", "ssa(sv)a(sa(sv))", unit.name, "replace", properties, []
            )
            break
        except BusError as error:
            if error.name != "UnitExists":
                raise InvalidArgumentError(
                    f"systemd cannot make unit {unit.name}: {error}"
                ) from error
            if unit.is_slice:
                return
            if attempt:
                raise AlreadyExistsError(f"systemd has a unit {unit.name} already") from error
            _forget(systemd, unit.name)
    if result != "done":
        _forget(systemd, unit.name)
        raise UnavailableError(
            f"systemd could not start unit {unit.name}: {result}",
            f"see systemctl status {unit.name}",
        )


def _forget(systemd: Systemd, name: str) -> None:
    try:
        systemd.call("ResetFailedUnit", "s", name)
    except BusError:
        return


class _Keeper:
    """A process that does nothing, and ends at the latest with its maker.

    Attributes:
        pid: its pid; a child that only this reaps, so it stays its own.
    """

    __slots__ = ("_writer", "pid")

    def __init__(self) -> None:
        reader, self._writer = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                process.close_all_but({reader})
                os.read(reader, 1)
            finally:
                os._exit(0)
        os.close(reader)

    def dismiss(self) -> None:
        """End it."""
        os.close(self._writer)
        os.kill(self.pid, signals.SIGKILL)
        os.waitpid(self.pid, 0)
