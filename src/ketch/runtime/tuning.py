"""What few configurations ask for a process: scheduling, priorities, memory nodes, labels.

Whatever can be set from outside is (``tune``), where the privilege is; the rest are steps that the
process takes itself shortly before it becomes its program. Each step describes itself.
"""

import errno
import os

from ketch.errors import InvalidArgumentError, SyscallError, UnsupportedError
from ketch.linux import mempolicy, personality, scheduler
from ketch.linux.scopes import owned
from ketch.spec.number_lists import number_list, without_blanks
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.runtime import IoPriority, Linux, MemoryPolicy, Process, Scheduler
    from ketch.spec.told import Say


def tune(pid: int, specification: "Process", say: "Say | None") -> None:
    """Set how a process is scheduled, from outside.

    Args:
        pid: a child of the caller.
        specification: ``process``.
        say: takes what is told of each step.

    Raises:
        InvalidArgumentError: the kernel refuses, or the caller lacks CAP_SYS_NICE.
    """
    if wanted := specification.get("scheduler"):
        if say:
            values = [(name, value) for name, value in wanted.items() if name != "policy"]
            words = f"schedule it under {wanted['policy']} · sched_setattr(2)"
            say(Told("limits", words, values))
        _schedule(pid, wanted)
    if priority := specification.get("ioPriority"):
        if say:
            words = f"input and output priority {priority['class']} · ioprio_set(2)"
            say(Told("limits", words, [("priority", priority.get("priority", 0))]))
        _prioritise(pid, priority)


def _schedule(pid: int, wanted: "Scheduler") -> None:
    flags = 0
    for name in wanted.get("flags") or ():
        flags |= scheduler.FLAGS[name]
    try:
        scheduler.sched_setattr(
            pid,
            wanted["policy"],
            flags=flags,
            nice=wanted.get("nice", 0),
            priority=wanted.get("priority", 0),
            runtime_ns=wanted.get("runtime", 0),
            deadline_ns=wanted.get("deadline", 0),
            period_ns=wanted.get("period", 0),
        )
    except SyscallError as error:
        raise InvalidArgumentError(
            f"process.scheduler: {wanted['policy']}: {os.strerror(error.errno or 0).lower()}",
            _SCHEDULER_HINTS.get(error.errno or 0, "see sched_setattr(2) for what goes together"),
        ) from error


_SCHEDULER_HINTS = {
    errno.EPERM: "it needs CAP_SYS_NICE, and on cgroup v1 real-time processor time for the cgroup; "
    "SCHED_DEADLINE excludes a cpuset of fewer processors",
    errno.EBUSY: "the processors' time is already promised to other deadline tasks",
}


def _prioritise(pid: int, wanted: "IoPriority") -> None:
    try:
        scheduler.ioprio_set(pid, wanted["class"], wanted.get("priority", 0))
    except SyscallError as error:
        raise InvalidArgumentError(
            f"process.ioPriority: {wanted['class']} {wanted.get('priority', 0)}: "
            f"{os.strerror(error.errno or 0).lower()}",
            "IOPRIO_CLASS_RT needs CAP_SYS_NICE; priorities are 0 to 7",
        ) from error


def numbers(listed: str) -> set[int]:
    """The members of a list such as ``0-3,7``, which has been validated."""
    return number_list(without_blanks(listed)) if listed else set()


def set_affinity(pid: int, cpus: str, field: str) -> None:
    """Bind a process to processors: sched_setaffinity(2).

    Args:
        pid: the process, 0 for the caller.
        cpus: a list such as ``0-3,7``, or empty to leave it.
        field: ``initial`` or ``final``, for the error.

    Raises:
        InvalidArgumentError: none of them is there, or in the process's cpuset.
    """
    if not cpus:
        return
    try:
        os.sched_setaffinity(pid, numbers(cpus))
    except OSError as error:
        raise InvalidArgumentError(
            f"process.execCPUAffinity.{field}: {cpus}: {(error.strerror or '').lower()}",
            "name processors that this machine, and the container's cpuset, has",
        ) from error


class SetPersonality:
    """Take on an execution domain: ``linux.personality``."""

    __slots__ = ("_domain",)

    def __init__(self, domain: str) -> None:
        self._domain = domain

    def describe(self) -> Told:
        """What the step does, in words, with its system call."""
        return Told("program", f"execution domain {self._domain} · personality(2)")

    def execute(self) -> None:
        """Do it, in the process itself."""
        personality.personality(self._domain)


class SetMemoryPolicy:
    """Choose memory nodes: ``linux.memoryPolicy``."""

    __slots__ = ("_policy",)

    def __init__(self, policy: "MemoryPolicy") -> None:
        self._policy = policy

    def describe(self) -> Told:
        """What the step does, in words, with its system call."""
        policy = self._policy
        nodes = policy.get("nodes", "")
        words = f"memory from nodes {nodes or '(any)'} by {policy['mode']} · set_mempolicy(2)"
        return Told("limits", words)

    def execute(self) -> None:
        """Do it, in the process itself.

        Raises:
            InvalidArgumentError: no such node, or the kernel does not know the mode.
        """
        policy = self._policy
        flags = 0
        for name in policy.get("flags") or ():
            flags |= mempolicy.FLAGS[name]
        nodes = numbers(policy.get("nodes", ""))
        try:
            mempolicy.set_mempolicy(policy["mode"], flags, nodes)
        except SyscallError as error:
            raise InvalidArgumentError(
                f"linux.memoryPolicy: {policy['mode']} on nodes {policy.get('nodes', '')!r}: "
                f"{os.strerror(error.errno or 0).lower()}",
                "name nodes of /sys/devices/system/node/online; a newer mode may need a newer "
                "kernel",
            ) from error


class SetLabel:
    """Ask for the security label that the process gets when it becomes its program.

    Args:
        field: the configuration's field, for errors.
        module: the security module, as /proc names it.
        label: what is written to the process's attribute.

    Attributes:
        descriptor: of the host's procfs, between ``look_back`` and ``execute``.

    Raises:
        UnsupportedError: this kernel does not run the module: a container that believes itself
            confined must not run unconfined.
    """

    __slots__ = ("_field", "_label", "_module", "descriptor")

    def __init__(self, field: str, module: str, label: str) -> None:
        if not _is_active(module):
            raise UnsupportedError(
                f"{field}: {module} is not active on this machine",
                f"start the kernel with {module}, or leave the field out",
            )
        self._field = field
        self._module = module
        self._label = label
        self.descriptor = -1

    def look_back(self) -> None:
        """Keep hold of the host's procfs, to be called in the process while it is in sight.

        A container may have put anything over its own (CVE-2019-16884). In the host's the process
        finds itself whatever its root and its PID namespace.
        """
        self.descriptor = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def describe(self) -> Told:
        """What the step does, in words, with its system call."""
        words = f"{self._module} label {self._label!r} from execve(2) on · proc_pid_attr(5)"
        return Told("privileges", words)

    def execute(self) -> None:
        """Ask for the label, and let go of the host's procfs.

        Raises:
            InvalidArgumentError: the module does not know it.
        """
        with owned(self.descriptor):
            self._ask()

    def _ask(self) -> None:
        try:
            for path in (f"self/attr/{self._module}/exec", "self/attr/exec"):
                try:
                    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.descriptor)
                except FileNotFoundError:
                    continue
                with owned(descriptor):
                    os.write(descriptor, self._label.encode())
                return
        except OSError as error:
            raise InvalidArgumentError(
                f"{self._field}: {self._label!r}: {(error.strerror or '').lower()}",
                f"load the profile or policy into {self._module} first",
            ) from error
        raise UnsupportedError(f"{self._field}: this kernel has no /proc/self/attr/exec")


def apparmor(profile: str) -> SetLabel:
    """The step for ``process.apparmorProfile``."""
    return SetLabel("process.apparmorProfile", "apparmor", f"exec {profile}")


def selinux(label: str) -> SetLabel:
    """The step for ``process.selinuxLabel``."""
    return SetLabel("process.selinuxLabel", "selinux", label)


def require_selinux(field: str) -> None:
    """Refuse a label that nobody would enforce.

    Raises:
        UnsupportedError: SELinux is not active.
    """
    if not _is_active("selinux"):
        raise UnsupportedError(
            f"{field}: selinux is not active on this machine",
            "start the kernel with selinux, or leave the field out",
        )


def _is_active(module: str) -> bool:
    if module == "selinux":
        return os.path.exists("/sys/fs/selinux/enforce")
    try:
        with open("/sys/module/apparmor/parameters/enabled", encoding="ascii") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def steps(linux: "Linux") -> "list[SetPersonality | SetMemoryPolicy]":
    """What ``linux`` asks of every process of the container, ready to be executed by it."""
    found: list[SetPersonality | SetMemoryPolicy] = []
    if (wanted := linux.get("personality")) is not None:
        found.append(SetPersonality(wanted.get("domain", "LINUX")))
    if (policy := linux.get("memoryPolicy")) is not None:
        found.append(SetMemoryPolicy(policy))
    return found
