"""The cgroup manager that works on the mounted file systems themselves.

A container has one cgroup, which is a directory of the same path in every hierarchy: one on v2,
one a controller on v1, both kinds on a hybrid machine. ``Manager`` is the interface;
``ketch.cgroups.systemd`` derives from it and has systemd make, limit and remove the cgroup.

How a process gets in decides how fast a container starts:

- on v2 it is born there: ``clone3`` with ``descriptor()`` (CLONE_INTO_CGROUP);
- on v1 it enters by itself: the parent opens ``entrances()``, the forked child calls ``enter``.
  A write of "0" to ``tasks`` by a single thread needs no lock against the whole system: all nine
  hierarchies together take 0.3 ms;
- ``attach(pid)`` moves any process, and is the slow way: the first write waits for an RCU grace
  period, 5 to 37 ms (the following ones, within it, do not).

On a hybrid machine the child is born into the v2 cgroup and then enters those of v1. A child that
unshares its cgroup namespace does so afterwards, for the namespace's root is where it then is.

Source: cgroups(7), cgroup-v1/*.rst, cgroup-v2.rst, kernel/cgroup/cgroup.c.
"""

import errno
import os
import time

from ketch.cgroups.group import Group, read
from ketch.cgroups.memory import keyed
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    PermissionDeniedError,
    SyscallError,
    UnavailableError,
)
from ketch.linux.scopes import ExitStack, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ketch.cgroups.devices import Policy
    from ketch.cgroups.facts import Write
    from ketch.cgroups.figures import Statistics
    from ketch.cgroups.freezer import V1Freezer, V2Freezer
    from ketch.cgroups.layout import Layout
    from ketch.spec.runtime import Resources

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SHORTEST_WAIT_SECONDS = 0.0005
_LONGEST_WAIT_SECONDS = 0.02
_GONE = {errno.ENOENT, errno.ENODEV}  # ENODEV: removed after its file was opened
_PATIENCE_SECONDS = 0.1  # for cgroup.kill, before processes are killed one by one


class Manager:
    """One container's cgroup.

    Args:
        path: of the cgroup: absolute beneath the root of every hierarchy (``/ketch/ID``), or
            relative to the caller's own cgroup (see ``Hierarchy.directory``).
        layout: of the machine.

    Raises:
        InvalidArgumentError: the path is empty, the root, or climbs with ``..``.
    """

    __slots__ = ("_fresh", "_groups", "layout", "path")

    def __init__(self, path: str, layout: "Layout") -> None:
        parts = path.split("/")
        if ".." in parts or "\n" in path or not path.strip("/"):
            raise InvalidArgumentError(
                f"cgroup path {path!r} does not name a cgroup of its own",
                "give a path such as /ketch/NAME",
            )
        self.path = ("/" if path.startswith("/") else "") + "/".join(p for p in parts if p)
        self.layout = layout
        self._groups = [Group(hierarchy, self.path) for hierarchy in layout.hierarchies]
        self._fresh = False

    # Making and limiting

    @property
    def directories(self) -> list[str]:
        """The cgroup's directory in each hierarchy."""
        return [group.directory for group in self._groups]

    def create(self) -> None:
        """Make the cgroup in every hierarchy, ready to take processes.

        An empty one that is left from before is used again. What was made is removed again when
        something fails.

        Raises:
            ConflictError: it exists and has processes, or is frozen.
            PermissionDeniedError: a hierarchy cannot be written.
        """
        made: list[Group] = []
        unified = self._unified()
        try:
            made.extend(group for group in self._groups if group.create())
            # All of them, for their figures; beside v1 only those that are limited, see ``set``.
            if unified is not None and self.layout.mode == "v2":
                unified.receive(unified.hierarchy.controllers)
            self._fresh = len(made) == len(self._groups)
            if not self._fresh:
                self._take_over()
        except BaseException:
            for group in made:
                group.remove()
            raise

    def _take_over(self) -> None:
        """Make sure that a cgroup that was there before is empty, and not frozen by somebody."""
        if held := self.processes():
            raise ConflictError(
                f"cgroup {self.path} is in use by {_names(held)}",
                "choose another cgroup path, or end these processes",
            )
        self._refuse_frozen()

    def _refuse_frozen(self) -> None:
        """What would enter a frozen cgroup would never get any further."""
        with suppress(UnavailableError):
            if self.frozen():
                raise ConflictError(
                    f"cgroup {self.path} is frozen",
                    "choose another cgroup path, or thaw it where it was frozen",
                )

    def set(self, resources: "Resources", hear: "Callable[[str, str], None] | None" = None) -> None:
        """Limit the cgroup; what ``resources`` does not name stays as it is.

        Args:
            resources: ``linux.resources`` of an OCI configuration. With ``devices`` present, even
                empty, everything is denied but what they and runtime-spec's defaults allow.
            hear: takes the path of each file that was written, and what was written.

        Raises:
            InvalidArgumentError: the kernel, or reason, refuses a value.
            UnavailableError: a controller that is asked for is not there.
            UnsupportedError: this version of cgroups, or this kernel, lacks the limit.
            ConflictError: what is in use already exceeds the limit.
        """
        writes, policy = self._decide(resources)
        for controller, file, value in writes:
            group = self._group_of(controller)
            group.write(file, value)
            if hear is not None:
                hear(f"{group.directory}/{file}", value)
        # A new cgroup needs no program to allow everything.
        if policy is not None and not (policy.allows_everything and self._fresh):
            self._attach_device_program(policy)
        self._fresh = False

    def _decide(self, resources: "Resources") -> "tuple[list[Write], Policy | None]":
        """What ``set`` writes, and the device policy that it compiles to a program."""
        # Most commands of a runtime limit nothing, and pay for what they load.
        from ketch.cgroups.facts import Facts  # noqa: PLC0415
        from ketch.cgroups.resources import device_policy, plan, v2_controllers  # noqa: PLC0415

        unified = self._unified()
        if unified is not None and (needed := v2_controllers(resources, self.layout)):
            unified.receive(needed)
        facts = Facts(self._read, fresh=self._fresh)
        return plan(resources, self.layout, facts), device_policy(resources, self.layout)

    def _attach_device_program(self, policy: "Policy") -> None:
        from ketch.cgroups import device_program  # noqa: PLC0415 as in set
        from ketch.linux import bpf, namespaces  # noqa: PLC0415

        unified = self._group_of("cgroup")
        with ExitStack() as stack:
            cgroup = os.open(unified.directory, _DIRECTORY)
            stack.callback(os.close, cgroup)
            try:
                bpf.attach_device_program(cgroup, device_program.program(policy))
            except SyscallError as error:
                if error.errno != errno.EPERM:
                    raise
                # Who is no root of the machine's makes no device nodes either, and finds those
                # alone that were put there.
                if not namespaces.in_initial_user_namespace():
                    return
                raise PermissionDeniedError(
                    f"cannot confine {unified.directory} to its devices: {error.strerror}",
                    "device programs of cgroup v2 need CAP_BPF and CAP_NET_ADMIN in the host's "
                    "user namespace",
                ) from error

    def _group_of(self, controller: str) -> Group:
        """The directory that has a controller's files; "cgroup" is v2's core."""
        for group in self._groups:
            if controller in group.hierarchy.controllers:
                return group
            if controller == "cgroup" and group.hierarchy.version == 2:
                return group
        raise UnavailableError(f"this machine has no {controller} controller for cgroups")

    def _read(self, controller: str, file: str) -> str | None:
        for group in self._groups:
            if controller in group.hierarchy.controllers:
                return group.read(file)
        return None

    # Entering

    def descriptor(self, near: int | None = None) -> int | None:
        """Open the v2 directory for CLONE_INTO_CGROUP; None on v1.

        Args:
            near: a process of the container, its init, for one more that is to join it. Where the
                container has divided its own cgroup, as systemd in it does, that can take no
                process any more (EBUSY); then the cgroup of this process is opened.

        Returns:
            A descriptor, close-on-exec, owned by the caller.
        """
        unified = self._unified()
        if unified is None:
            return None
        directory = unified.directory
        if near is not None and (unified.read("cgroup.subtree_control") or "").strip():
            for line in (read(f"/proc/{near}/cgroup") or "").splitlines():
                if line.startswith("0::"):
                    found = unified.hierarchy.mountpoint + line[3:]
                    directory = found if found.startswith(f"{directory}/") else directory
        return os.open(directory, _DIRECTORY)

    def entrances(self) -> list[int]:
        """Open the ``tasks`` files of all v1 hierarchies, for a forked child's ``enter``.

        They work after the child has given up its privileges or entered a user namespace, since
        the kernel asks who opened them; so the child must close them before it runs a program.

        Returns:
            Descriptors, close-on-exec, owned by the caller; none on v2.
        """
        opened: list[int] = []
        try:
            for group in self._groups:
                if group.hierarchy.version == 1:
                    path = f"{group.directory}/tasks"
                    opened.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            raise
        return opened

    def adopt(self, pid: int) -> None:
        """Take a process in that was just born and waits, where it could not be born inside.

        Nothing to do for a cgroup that is made here; ``ketch.cgroups.systemd`` may have to.

        Args:
            pid: the process, which has entered what it can.
        """

    def settled(self) -> None:
        """The container's init is inside, and what was needed until then may go."""

    def attach(self, pid: int) -> None:
        """Move a process, with all its threads, into the cgroup: the slow way in.

        Raises:
            NotFoundError: there is no such process.
        """
        for group in self._groups:
            try:
                group.write("cgroup.procs", str(pid))
            except OSError as error:
                if error.errno != errno.ESRCH:
                    raise
                raise NotFoundError(f"process {pid} ended before it was put in a cgroup") from error

    # Looking

    def exists(self) -> bool:
        """Whether the cgroup is there in any hierarchy."""
        return any(group.exists() for group in self._groups)

    def paths(self) -> dict[str, str]:
        """Where the cgroup is: controller -> absolute directory; "" stands for v2 itself."""
        found: dict[str, str] = {}
        for group in self._groups:
            found.update(dict.fromkeys(group.hierarchy.controllers, group.directory))
            if group.hierarchy.version == 2:
                found[""] = group.directory
        return found

    def processes(self, *, recursive: bool = True) -> list[int]:
        """The pids of the processes in the cgroup, ascending; with ``recursive`` beneath it too."""
        found: set[int] = set()
        for group in self._census():
            found.update(group.processes(recursive=recursive))
        return sorted(found)

    def _census(self) -> "Iterable[Group]":
        """The hierarchies whose lists count: v2's, and of v1 the one that can freeze, or one."""
        v1 = [group for group in self._groups if group.hierarchy.version == 1]
        v1.sort(key=lambda group: "freezer" not in group.hierarchy.controllers)
        unified = self._unified()
        return [*v1[:1], *([] if unified is None else [unified])]

    def _unified(self) -> Group | None:
        return next((group for group in self._groups if group.hierarchy.version == 2), None)

    def oom_kills(self) -> int:
        """How many processes in it the kernel has killed for want of memory."""
        hierarchy = self.layout.hierarchy_of("memory")
        if hierarchy is None:
            return 0
        group = self._group_of("memory")
        if hierarchy.version == 2:
            return keyed(group.read("memory.events") or "").get("oom_kill", 0)
        # v1 counts in the victim's own cgroup (Linux 4.13), v2 in those above it as well.
        return sum(
            keyed(read(f"{directory}/memory.oom_control") or "").get("oom_kill", 0)
            for directory in group.tree()
        )

    def statistics(self) -> "Statistics":
        """What the cgroup has used; see ``ketch.cgroups.statistics``."""
        from ketch.cgroups import facts, statistics  # noqa: PLC0415 as in set

        return statistics.collect(self.layout, facts.Facts(self._read))

    # Freezing and killing

    def freeze(self, timeout_seconds: float = 5.0) -> None:
        """Stop every process in the cgroup, and wait until all have stopped.

        Raises:
            ConflictError: one would not stop in time (it hangs in the kernel); all run again.
            UnavailableError: there is no freezer.
        """
        from ketch.cgroups import freezer  # noqa: PLC0415 no start needs it

        freezer.freeze(self._groups, timeout_seconds)

    def thaw(self) -> None:
        """Let the processes run again. Raises UnavailableError where there is no freezer."""
        self._freezer().thaw()

    def freezer_file(self) -> str:
        """The file that says whether it is frozen; empty where there is no freezer."""
        try:
            return self._freezer().file
        except UnavailableError:
            return ""

    def frozen(self) -> bool:
        """Whether the cgroup is frozen, or freezing, by itself or by one above it."""
        return self._freezer().frozen()

    def _freezer(self) -> "V1Freezer | V2Freezer":
        from ketch.cgroups import freezer  # noqa: PLC0415 as in freeze

        return freezer.freezer(self._groups)

    def kill(self, timeout_seconds: float = 10.0) -> None:
        """Kill every process in the cgroup and beneath it, however fast they fork.

        Returns when none is left that is not a zombie; a frozen cgroup is thawed, since frozen
        processes of v1 do not die.

        Raises:
            ConflictError: some would not die in time.
        """
        if not self.exists():
            return
        start = time.monotonic()
        patience_seconds = 0.0
        wait_seconds = _SHORTEST_WAIT_SECONDS
        unified = self._unified()
        # cgroup.kill, Linux 5.14, kills all at once, those being forked included.
        if unified is not None and unified.has("cgroup.kill"):
            try:
                unified.write("cgroup.kill", "1")
            except KetchError as error:
                # Removed just now, by systemd when the last process had ended: none is left.
                cause = error.__cause__
                if not isinstance(cause, OSError) or cause.errno not in _GONE:
                    raise
            self._thaw_if_frozen()
            patience_seconds = _PATIENCE_SECONDS
        while held := self.processes():
            if time.monotonic() - start >= patience_seconds:
                self._kill_each()
            time.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, _LONGEST_WAIT_SECONDS)
            if time.monotonic() - start > timeout_seconds:
                raise ConflictError(
                    f"cgroup {self.path}: {_names(held)} did not die within "
                    f"{timeout_seconds:g} seconds",
                    "they hang in the kernel, waiting for a device or a network file system",
                )

    def _kill_each(self) -> None:
        """Kill all one by one, frozen where that is possible.

        Frozen processes neither fork nor end, so the list is complete and its pids stay theirs.
        Where they cannot be frozen some may fork: the caller comes back until none is left.
        """
        from ketch.cgroups import members  # noqa: PLC0415 as in freeze
        from ketch.linux import signals  # noqa: PLC0415

        with suppress(ConflictError, UnavailableError):
            self.freeze(timeout_seconds=0.5)
        try:
            members.signal(self.processes, signals.SIGKILL)
        finally:
            self._thaw_if_frozen()

    def _thaw_if_frozen(self) -> None:
        with suppress(UnavailableError):
            if self.frozen():
                self.thaw()

    # Removing

    def delete(self, timeout_seconds: float = 5.0, *, empty_parents: int = 0) -> None:
        """Remove the cgroup and all beneath it from every hierarchy, once its processes are dead.

        Args:
            timeout_seconds: how long to wait for processes that are dying.
            empty_parents: how many levels above to remove as well where nothing else is in them.

        Raises:
            ConflictError: processes live on in it; the message names them.
        """
        deadline = time.monotonic() + timeout_seconds
        wait_seconds = _SHORTEST_WAIT_SECONDS
        left = self._groups
        while left := [group for group in left if not group.remove()]:
            if time.monotonic() > deadline:
                held = sorted({pid for group in left for pid in group.processes()})
                raise ConflictError(
                    f"cgroup {left[0].directory} cannot be removed: {_names(held)} in it",
                    "kill them first",
                )
            time.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, _LONGEST_WAIT_SECONDS)
        for group in self._groups:
            directory = group.directory
            for _ in range(empty_parents):
                directory = os.path.dirname(directory)
                if len(directory) <= len(group.hierarchy.mountpoint):
                    break
                try:
                    os.rmdir(directory)
                except OSError:
                    break  # in use, or already gone


def _names(pids: list[int]) -> str:
    from ketch.cgroups import members  # noqa: PLC0415 as in Manager.freeze

    return members.names(pids)


def enter(entrances: list[int]) -> None:
    """Move the calling process, which must be single-threaded, into a v1 cgroup.

    Args:
        entrances: of ``Manager.entrances``; none on v2. They stay open.

    Raises:
        UnavailableError: the kernel refused.
    """
    for descriptor in entrances:
        try:
            os.write(descriptor, b"0")
        except OSError as error:
            raise _no_entry(descriptor, error) from error


def _is_real_time() -> bool:
    policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    return policy in {os.SCHED_FIFO, os.SCHED_RR}


def _no_entry(entrance: int, error: OSError) -> UnavailableError:
    directory = os.path.dirname(os.readlink(f"/proc/self/fd/{entrance}"))
    hint = ""
    if error.errno == errno.ENOSPC:
        hint = "its cpuset has no processors, or no memory nodes"
    elif error.errno == errno.EINVAL and _is_real_time():
        hint = (
            "who starts this is scheduled in real time, for which the cgroup has no processor time:"
            " give it some by --cpu-rt-runtime, or begin with chrt --other 0"
        )
    return UnavailableError(
        f"cgroup {directory} cannot be entered: {(error.strerror or '').lower()}", hint
    )
