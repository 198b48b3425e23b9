"""Turning the calling process into the container's: limits, user, capabilities, filter, program.

Init and ``exec`` end here alike. All of it is prepared as values while files can still be read
(``ProcessSetup``), so that ``become`` runs on system calls alone.
"""

import errno
import os
import stat

from ketch.errors import InvalidArgumentError, StartError, UnavailableError, in_words
from ketch.linux import capabilities, process, seccomp, signals
from ketch.linux.openat2 import openat2
from ketch.linux.scopes import owned
from ketch.runtime import null_device, program
from ketch.spec import passwd
from ketch.spec.capabilities import resolve, to_names
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.runtime.seccomp import Filter
    from ketch.runtime.steps import Step
    from ketch.runtime.tuning import SetLabel
    from ketch.spec.runtime import Config, Linux, Process
    from ketch.spec.told import Say, Value

DEFAULT_UMASK = 0o022
KEEP_GROUPS_ANNOTATION = "run.oci.keep_original_groups"
"""``1`` leaves the program the supplementary groups of whoever started the runtime: crun(1)."""
_RLIMIT_LOCKS = 10  # obsolete since Linux 2.4.25, and not in Python's module; getrlimit(2)
_PASSWD_BYTES_MAX = 4 * 1024 * 1024
_BY_SETPRIV = "# by setpriv, below"
_BY_NSENTER = "# by nsenter, below"
_NOT_BY_HAND = "# not by hand: behind nsenter no tool is left to do it"


class ProcessSetup:
    """What a configuration's ``process`` asks for, ready to be applied.

    Args:
        specification: the configuration's ``process``.
        filter_: the compiled system call filter, or None.
    """

    __slots__ = (
        "arguments",
        "capabilities",
        "directory",
        "entrance",
        "environment",
        "filter",
        "gid",
        "groups",
        "in_user_namespace",
        "is_mapped",
        "keeps_groups",
        "labels",
        "no_new_privileges",
        "null",
        "oom_score_adjustment",
        "specification",
        "steps",
        "terminal",
        "uid",
        "umask",
        "warnings",
        "window",
    )

    def __init__(self, specification: "Process", filter_: "Filter | None" = None) -> None:
        user = specification.get("user", {})
        self.uid, self.gid = user.get("uid", 0), user.get("gid", 0)
        self.groups = list(dict.fromkeys(user.get("additionalGids", ())))
        self.umask = user.get("umask", DEFAULT_UMASK)
        self.arguments = specification.get("args", [])
        self.environment = specification.get("env", [])
        self.directory = specification["cwd"]
        self.terminal = specification.get("terminal", False)
        size = specification.get("consoleSize")
        self.window = (size["height"], size["width"]) if size else None
        self.no_new_privileges = specification.get("noNewPrivileges", False)
        self.oom_score_adjustment = specification.get("oomScoreAdj")
        self.capabilities, self.warnings = resolve(
            specification.get("capabilities", {}), capabilities.available()
        )
        self.filter = filter_
        self.specification = specification
        self.in_user_namespace = self.is_mapped = self.keeps_groups = False
        self.null = -1
        self.entrance = ""
        self.steps: list[Step] = []
        if specification.get("rlimits"):
            import resource  # noqa: F401, PLC0415 - where they are set, nothing can be imported
        self.labels: list[SetLabel] = []
        profile, label = specification.get("apparmorProfile"), specification.get("selinuxLabel")
        if profile or label:
            from ketch.runtime import tuning  # noqa: PLC0415 wanted where such a module is active

            if profile:
                self.labels.append(tuning.apparmor(profile))
            if label:
                self.labels.append(tuning.selinux(label))

    def settle(self, config: "Config | None", *, in_user_namespace: bool, nested: bool) -> None:
        """Take in what the container as a whole asks of each of its processes.

        Args:
            config: its configuration, None where nothing is known of that.
            in_user_namespace: whether it runs in a user namespace of the container's, where it
                has all capabilities, whatever the runtime has outside.
            nested: whether the runtime is in a user namespace itself.
        """
        self.is_mapped = in_user_namespace or nested
        linux: Linux = config.get("linux", {}) if config else {}
        annotations = config.get("annotations", {}) if config else {}
        self.keeps_groups = annotations.get(KEEP_GROUPS_ANNOTATION) == "1"
        if linux.get("personality") is not None or linux.get("memoryPolicy") is not None:
            from ketch.runtime import tuning  # noqa: PLC0415 wanted by few

            self.steps += tuning.steps(linux)
        if in_user_namespace:
            self.in_user_namespace = True
            self.capabilities, self.warnings = resolve(
                self.specification.get("capabilities", {}), capabilities.every()
            )

    def look_back(self) -> None:
        """Keep hold of what the process will need of the host, in the process, while it is seen."""
        self.null = null_device.open_unchangeable()
        for label in self.labels:
            label.look_back()

    def unchangeable(self, streams: tuple[int, int, int]) -> tuple[int, int, int]:
        """The standard streams, the null device as ``look_back`` has opened it."""
        if self.null < 0:
            return streams
        first, second, third = (
            self.null if os.fstat(stream).st_rdev == null_device.NUMBER else stream
            for stream in streams
        )
        return first, second, third

    def held(self) -> set[int]:
        """The descriptors that ``look_back`` opened and ``become_user`` closes."""
        return {label.descriptor for label in self.labels}

    def find_home(self, root: int) -> None:
        """Give the environment a HOME from the container's passwd(5), where it has none.

        Args:
            root: descriptor of the container's root directory.
        """
        homes = [entry for entry in self.environment if entry.startswith("HOME=")]
        if homes and homes[-1] != "HOME=":
            return
        try:
            # A fifo in its place must not hold the start up, nor a terminal become ours.
            descriptor = openat2(root, "/etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            text = ""
        else:
            with open(descriptor, encoding="utf-8", errors="replace") as file:
                regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
                text = file.read(_PASSWD_BYTES_MAX) if regular else ""
        home = passwd.home(self.uid, text)
        self.environment = [e for e in self.environment if e not in homes] + [f"HOME={home}"]

    def become_user(
        self,
        say: "Say | None" = None,
        report: "Callable[[int], None] | None" = None,
        *,
        limit: "Callable[[], None]",
        die_with_parent: bool = False,
    ) -> None:
        """Take on the user, the capabilities and the system call filter; lose all else.

        Args:
            say: takes what is told of each step.
            report: takes the filter's listener, where it has one, and hands it over.
            limit: has the resource limits set from outside of a user namespace.
            die_with_parent: whether the process is to end when its parent does.

        Raises:
            InvalidArgumentError: the working directory cannot be entered, or an id is not mapped.
            SyscallError: the kernel refused a step.
        """
        _own_standard_streams(self.uid)
        os.umask(self.umask)
        # The labels' way to the host's procfs is closed before any path of the container's is used.
        for step in (*self.steps, *self.labels):
            if say:
                say(step.describe())
            step.execute()
        entered = self._enter_directory()
        self._limit(say, limit)
        # Without no_new_privs only CAP_SYS_ADMIN may load a filter, which leaves below.
        if not self.no_new_privileges:
            self._load_filter(say, report)
        sets = self.capabilities
        if say:
            say(self._tell_privileges())
        capabilities.restrict(sets.bounding)
        if say:
            say(self._tell_user())
        self._change_ids()
        capabilities.apply(sets.effective, sets.permitted, sets.inheritable, sets.ambient)
        if die_with_parent:
            # The kernel forgets it with the change of ids: prctl(2).
            process.prctl(process.PR_SET_PDEATHSIG, signals.SIGKILL)
        if not entered and not self._enter_directory():
            raise InvalidArgumentError(
                f"process.cwd: {self.directory}: permission denied for uid {self.uid}"
            )
        if self.no_new_privileges:
            if say:
                words = "no program gains privileges by execve(2) · prctl(2) PR_SET_NO_NEW_PRIVS"
                say(self._told("privileges", words, by_hand=_BY_SETPRIV, to_enter=_NOT_BY_HAND))
            process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
            self._load_filter(say, report)

    def _tell_privileges(self) -> Told:
        sets = self.capabilities
        names = {
            name: " ".join(to_names(value)) or "none"
            for name, value in (
                ("bounding", sets.bounding), ("effective", sets.effective),
                ("permitted", sets.permitted), ("inheritable", sets.inheritable),
                ("ambient", sets.ambient),
            )
        }  # fmt: skip
        words = (
            "keep the capabilities of the configuration alone · prctl(2) PR_CAPBSET_DROP, capset(2)"
        )
        return self._told("privileges", words, list(names.items()), by_hand=_BY_SETPRIV,
                          to_enter=_NOT_BY_HAND)  # fmt: skip

    def _tell_user(self) -> Told:
        words = f"become uid {self.uid}, gid {self.gid} · setresuid(2), setresgid(2), setgroups(2)"
        groups = "kept" if self.keeps_groups else " ".join(map(str, self.groups)) or "none"
        values = [("groups", groups), ("umask", f"{self.umask:04o}")]
        return self._told("privileges", words, values, by_hand=_BY_SETPRIV, to_enter=_BY_NSENTER)

    def tell_program(self, path: str) -> Told:
        """What there is to tell of the program that the process becomes.

        Args:
            path: what ``find_program`` found.
        """
        values = [("arguments", " ".join(map(quote, self.arguments)))]
        values += [("environment", one) for one in self.environment]
        values += [("directory", self.directory)]
        umask = f"umask {self.umask:04o}"
        environment = f"env -i {' '.join(map(quote, self.environment))}"
        arguments = " ".join(map(quote, [path, *self.arguments[1:]]))
        to_enter = f"{umask}\nexec {environment} {self.entrance} {arguments}"
        environment = environment.replace("-i", f"-i --chdir={quote(self.directory)}", 1)
        by_hand = (
            f"{umask}\nexec $host ./usr/bin/setpriv {self._privileges_by_hand()}"
            f" $host ./usr/bin/{environment} {arguments}"
        )
        words = f"become {path} · execve(2)"
        return self._told("program", words, values, by_hand=by_hand, to_enter=to_enter)

    def _privileges_by_hand(self) -> str:
        """What setpriv(1) is told."""
        sets = self.capabilities
        words = [f"--reuid={self.uid} --regid={self.gid}"]
        groups = ",".join(map(str, self.groups))
        words.append(f"--groups={groups}" if groups else "--clear-groups")
        if self.keeps_groups:
            words[-1] = "--keep-groups"
        words += [f"--bounding-set={_capabilities_by_hand(sets.bounding)}",
                  f"--inh-caps={_capabilities_by_hand(sets.inheritable)}"]  # fmt: skip
        if sets.ambient:
            words.append(f"--ambient-caps={_capabilities_by_hand(sets.ambient)}")
        if self.no_new_privileges:
            words.append("--no-new-privs")
        return " ".join(words)

    def _told(
        self, topic: str, words: str, values: "Sequence[Value]" = (), *, by_hand: str, to_enter: str
    ) -> Told:
        """A step with the command that does it: for init, or for who enters a container.

        Args:
            topic: what it is about.
            words: what it is.
            values: what it sets.
            by_hand: the command for a shell that has become the container's init.
            to_enter: that for one which is about to enter.
        """
        if self.entrance:
            return Told(topic, words, values, outside=[to_enter])
        return Told(topic, words, values, inside=[by_hand])

    def execute(self, path: str) -> None:
        """Become the program; does not return.

        Args:
            path: what ``program.find`` found.

        Raises:
            StartError: why it could not be executed.
        """
        restore_signals()
        program.execute(path, self.arguments, self.environment)

    def find_program(self) -> str:
        """Find the program as the container's user in the container's root.

        Raises:
            StartError: it is not there, or may not be executed.
        """
        if not self.arguments:
            raise StartError("process.args: empty: there is no program to run")
        return program.find(self.arguments[0], self.environment)

    def _limit(self, say: "Say | None", from_outside: "Callable[[], None]") -> None:
        """Set the resource limits: once nothing is left to be made, and before privileges go."""
        limits = self.specification.get("rlimits") or []
        if not limits:
            return
        for limit in limits if say else ():
            assert say is not None
            bounds = f"{limit['soft']}:{limit['hard']}"
            name = limit["type"].removeprefix("RLIMIT_").lower()
            words = f"limit {limit['type']} to {bounds} · prlimit(2)"
            by_hand = f"prlimit --pid $$ --{name}={bounds}"
            say(self._told("limits", words, by_hand=f"$host ./usr/bin/{by_hand}", to_enter=by_hand))
        if self.in_user_namespace:
            from_outside()  # where the privilege is to raise them
        else:
            set_limits(0, self.specification)

    def _change_ids(self) -> None:
        try:
            if not self.keeps_groups:
                os.setgroups(self.groups)
        except PermissionError as error:
            # An unprivileged user's namespace has given setgroups(2) up: user_namespaces(7).
            if self.groups or not self.is_mapped:
                raise InvalidArgumentError(
                    "process.user.additionalGids: this user namespace may not change its groups",
                    "map a range of groups, or leave additionalGids out",
                ) from error
        except OSError as error:
            raise self._unmapped(error.strerror) from error
        try:
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            raise self._unmapped(error.strerror) from error
        # A filter may have said that it is done, and nothing was.
        if (os.getuid(), os.getgid()) != (self.uid, self.gid):
            raise self._unmapped(os.strerror(errno.EINVAL))

    def _unmapped(self, reason: str | None) -> InvalidArgumentError:
        ids = f"uid {self.uid}, gid {self.gid}"
        if self.groups:
            ids += f", groups {', '.join(map(str, self.groups))}"
        hint = ""
        if self.in_user_namespace:
            hint = "map them in linux.uidMappings and linux.gidMappings"
        elif self.is_mapped:
            hint = "choose ids that are there, or give the user more: ketch system check"
        if self.is_mapped:
            reason = "this user namespace has not all of these"
        return InvalidArgumentError(f"process.user: {ids}: {(reason or '').lower()}", hint)

    def _load_filter(self, say: "Say | None", report: "Callable[[int], None] | None") -> None:
        if self.filter is None:
            return
        if say:
            by_hand = "# no tool of a shell's loads a system call filter"
            words = "filter system calls · seccomp(2) SECCOMP_SET_MODE_FILTER"
            say(self._told("privileges", words, by_hand=by_hand, to_enter=_NOT_BY_HAND))
        listener = seccomp.load(self.filter.program, self.filter.flags)
        if self.filter.flags & seccomp.FILTER_FLAG_NEW_LISTENER:
            if report is not None:
                report(listener)
            os.close(listener)

    def _enter_directory(self) -> bool:
        """Enter the working directory; False where this user may not (another one may)."""
        try:
            os.chdir(self.directory)
        except PermissionError:
            return False
        except OSError as error:
            raise InvalidArgumentError(
                f"process.cwd: {self.directory}: {(error.strerror or '').lower()}"
            ) from error
        # CVE-2024-21626: a cwd that is a leaked descriptor of the host, such as /proc/self/fd/7,
        # is outside the root; getcwd(2) then says "(unreachable)", which libc reports as ENOENT.
        try:
            os.getcwd()
        except FileNotFoundError as error:
            raise InvalidArgumentError(
                f"process.cwd: {self.directory} is outside the container's root"
            ) from error
        return True


def set_limits(pid: int, specification: "Process") -> None:
    """Set a process's resource limits.

    Args:
        pid: a child of the caller, so that the pid cannot be another's; 0 for the caller.
        specification: the configuration's ``process``.

    Raises:
        InvalidArgumentError: a limit is unknown here, or may not be raised so far.
    """
    if not specification.get("rlimits"):
        return
    import resource  # noqa: PLC0415 wanted by few

    for index, limit in enumerate(specification["rlimits"]):
        name = limit["type"]
        number = _RLIMIT_LOCKS if name == "RLIMIT_LOCKS" else getattr(resource, name, None)
        if number is None:
            raise InvalidArgumentError(f"process.rlimits[{index}].type: {name} is unknown")
        try:
            resource.prlimit(pid, number, (_limit(limit["soft"]), _limit(limit["hard"])))
        except (OSError, ValueError) as error:
            raise InvalidArgumentError(
                f"process.rlimits[{index}]: {name} {limit['soft']}:{limit['hard']}: "
                f"{in_words(error)}",
                "raising a hard limit needs CAP_SYS_RESOURCE; soft may not exceed hard",
            ) from error


def set_oom_score(adjustment: int, pid: int | str = "self") -> None:
    """Set how soon the kernel's out-of-memory killer picks a process: proc_pid_oom_score_adj(5).

    Args:
        adjustment: -1000, never, to 1000.
        pid: a child of the caller, or the caller.

    Raises:
        InvalidArgumentError: lowering it needs CAP_SYS_RESOURCE.
    """
    with owned(os.open(f"/proc/{pid}/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)) as descriptor:
        try:
            if int(os.read(descriptor, 16)) != adjustment:
                os.write(descriptor, str(adjustment).encode())
        except OSError as error:
            raise InvalidArgumentError(
                f"process.oomScoreAdj: {adjustment}: {(error.strerror or '').lower()}",
                "lowering it needs CAP_SYS_RESOURCE; the range is -1000 to 1000",
            ) from error


def too_many_processes() -> UnavailableError:
    """Returns what EAGAIN of clone(2) means in a container."""
    return UnavailableError(
        "the container has as many processes as it may have: its limit (--pids-limit), or the "
        "machine's, is reached",
        "raise the limit with update --pids-limit, or end some of its processes",
    )


def restore_signals() -> None:
    """Give the program the default signal actions and an empty mask.

    Python ignores SIGPIPE and SIGXFSZ, and what is ignored stays so over execve(2).
    """
    for ignored in (signals.SIGPIPE, signals.SIGXFSZ):
        signals.signal(ignored, signals.SIG_DFL)
    signals.reset_internal()
    signals.pthread_sigmask(signals.SIG_SETMASK, ())


def _capabilities_by_hand(mask: int) -> str:
    """A set, as setpriv(1) has it."""
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in to_names(mask))])


def _own_standard_streams(uid: int) -> None:
    """Give the standard streams to the user, so that it may open /dev/stdout again.

    A device that is no terminal, such as the null device, is shared with everyone and stays as it
    is, as does what is on a read-only or foreign file system.
    """
    for descriptor in range(3):
        status = os.fstat(descriptor)
        is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        if status.st_uid == uid or (is_device and not os.isatty(descriptor)):
            continue
        try:
            os.fchown(descriptor, uid, -1)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EPERM, errno.EROFS}:
                raise


def _limit(value: int) -> int:
    """The specification writes "no limit" as 2**64 - 1; Python's resource module as -1."""
    return -1 if value in {-1, 2**64 - 1} else value
