"""The parent's half of a container's creation: clone init into its cgroup, and hear of it."""

import os
import select

from ketch.errors import (
    InvalidArgumentError,
    KetchError,
    SyscallError,
    UnavailableError,
    UnsupportedError,
    in_words,
)
from ketch.linux import capabilities, process, signals
from ketch.linux.namespaces import CLONE_NEWNET, CLONE_NEWUSER
from ketch.linux.scopes import ExitStack, owned, suppress
from ketch.runtime import init, mappings, namespaces
from ketch.runtime import root as rootfs
from ketch.runtime.cgroup_mount import is_for_systemd
from ketch.runtime.handshake import Channel, run_child
from ketch.runtime.process import set_limits, set_oom_score
from ketch.spec.capabilities import mask
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.cgroups import Manager
    from ketch.spec.runtime import IdMapping, Linux, Process, State
    from ketch.spec.told import Say

    IdMaps = tuple[list[IdMapping], list[IdMapping]]

_CAP_SYS_ADMIN = mask(["CAP_SYS_ADMIN"])


class _EndedEarlyError(UnavailableError):
    """Init ended without a word: somebody, or the kernel, killed it."""


class Container:
    """A created container: its init waits for the word to become the program.

    Attributes:
        pid: init's pid as the caller sees it.
        pidfd: init's process descriptor, close-on-exec; the caller owns it.
        console: the terminal's master, or None; the caller owns it.
        between: pid of a process that has ended and that the caller's parent must reap, or 0.
    """

    __slots__ = ("_channel", "_sibling", "between", "console", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int, channel: Channel, *, sibling: bool = False) -> None:
        self._sibling = sibling
        self.between = 0
        self.pid = pid
        self.pidfd = pidfd
        self.console: int | None = None
        self._channel = channel

    def begin(self) -> None:
        """Let init begin: what it needs from outside is there."""
        self._channel.go("begin")

    def await_created(self, serve: "Callable[[str, str], None]") -> None:
        """Wait until init is ready to become the program.

        Args:
            serve: does what init asks for on its way, given the word and what it says with it.

        Raises:
            KetchError: why it gave up.
        """
        while True:
            point, descriptor = self._channel.await_point()
            word, _, rest = point.partition(" ")
            if word == "console":
                self.console = descriptor
            elif word == "created":
                return
            elif word in {"hooks", "limits", "listener"}:
                serve(word, rest)
                self._channel.go(word)
            else:
                raise _EndedEarlyError("the container's init was killed before it was ready")

    def start(self) -> None:
        """Let init become the program.

        Raises:
            StartError: the program could not be executed.
        """
        try:
            self._channel.go("start")
            point, _ = self._channel.await_point()
        except BrokenPipeError as error:
            raise UnavailableError("the container's init ended before it was started") from error
        finally:
            self._channel.close()
        if point != "executed":
            raise UnavailableError(f"the container's init said {point!r} instead of starting")

    def hear_out(self) -> None:
        """Kill init, and raise what it gave up for, if it already had.

        For when the parent fails at something that init was needed for: init may have ended in the
        middle of it, and knows better why.

        Raises:
            KetchError: why init gave up.
        """
        self._kill()
        point = ""
        while point != "executed":
            point, descriptor = self._channel.await_point()
            if descriptor is not None:
                os.close(descriptor)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            process.pidfd_send_signal(self.pidfd, signals.SIGKILL)

    def abandon(self) -> None:
        """Kill a container that will not be started, reap it, and free what belongs to it."""
        self._kill()
        _await_end(self.pid, self.pidfd, sibling=self._sibling)
        self.close()
        if self.console is not None:
            os.close(self.console)

    def close(self) -> None:
        """Let go of init: if it was not started, it ends; if it was, it lives on."""
        self._channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def create(birth: init.Birth, cgroup: "Manager | None") -> Container:
    """Make a container up to the moment before its program runs.

    The caller must be single-threaded. The cgroup's directories must be made and its limits set;
    on failure they stay the caller's to remove, as do ``poststop`` hooks to run.

    Args:
        birth: what init is born with.
        cgroup: where to place it, or None to leave it in the caller's cgroups.

    Returns:
        The created container.

    Raises:
        KetchError: what went wrong, on either side; nothing of the container is left running.
    """
    plan = birth.plan
    with ExitStack() as stack:
        ours, theirs = Channel.pair()
        ours.hear = birth.explain
        stack.callback(theirs.close)
        into = None
        for kind, path in plan.joins:
            if kind == "user" and any(plan.id_maps):
                mappings.require_same(path, *plan.id_maps)
        if cgroup and cgroup.layout.hierarchies:
            if birth.explain:
                _tell_entry(birth.explain, cgroup)
            into = cgroup.descriptor()
            if into is not None:
                stack.callback(os.close, into)
            birth.entrances = cgroup.entrances()
            for descriptor in birth.entrances:
                stack.callback(os.close, descriptor)
        _open_sources(birth, stack)
        if birth.explain:
            for told in plan.explain_birth():
                birth.explain(told)
        between = 0
        if plan.crosses:
            pid, pidfd, between = _clone_across(birth, ours, theirs, into)
        else:
            flags = plan.clone_flags | (process.CLONE_PARENT if birth.sibling else 0)
            pid, pidfd = process.clone3(flags, cgroup=into)
            if pid == 0:
                ours.close()
                init.run(birth, theirs)
    container = Container(pid, pidfd, ours, sibling=birth.sibling)
    if birth.sibling:
        container.between = between
    try:
        try:
            _furnish(birth, container, cgroup)
        except (KetchError, OSError) as error:
            container.hear_out()
            if isinstance(error, KetchError):
                raise
            raise UnsupportedError(
                f"the kernel refused to set the container up: {in_words(error)}"
            ) from error
        try:
            container.await_created(lambda word, rest: _serve(birth, container, word, rest))
        except _EndedEarlyError as error:
            raise _explained(error, birth, cgroup) from error
        if cgroup:
            cgroup.settled()
            _delegate(birth, cgroup)
        tune(pid, plan.config["process"], birth.explain)
    except BaseException:
        container.abandon()
        raise
    return container


def _tell_entry(explain: "Say", cgroup: "Manager") -> None:
    by_hand = [f"echo $$ > {directory}/cgroup.procs" for directory in cgroup.directories]
    words = f"enter the control group {cgroup.path} · cgroups(7)"
    explain(Told("limits", words, outside=by_hand))


def _explained(
    error: UnavailableError, birth: init.Birth, cgroup: "Manager | None"
) -> UnavailableError:
    """Say what most likely killed an init that had no time to say it."""
    if cgroup and cgroup.oom_kills():
        return UnavailableError(
            "container init was OOM-killed (memory limit too low?)",  # runc's words
            "raise linux.resources.memory.limit: init itself needs 2 MiB",
        )
    if birth.setup.filter is not None:
        error.hint = "linux.seccomp may forbid what init still has to do, such as write and execve"
    return error


def _delegate(birth: init.Birth, cgroup: "Manager") -> None:
    """Give the cgroup to the container's user, where that is safe and asked for.

    Safe it is of v2 alone, and of a hierarchy beside it by which nothing is limited. Not before
    init is inside: who clones it may be nobody to the new owner.
    """
    plan = birth.plan
    for_systemd = is_for_systemd(plan.config)
    if not plan.new_cgroup_namespace or not (cgroup.layout.mode == "v2" or for_systemd):
        return
    from ketch.runtime import delegation  # noqa: PLC0415 wanted by few

    if not delegation.is_wanted(plan.config):
        return
    users = plan.id_maps[0]
    for kind, path in plan.joins:
        if kind == "user" and not users:
            users = mappings.users_of(path)
    uid = delegation.host_id(birth.setup.uid, users)
    if not uid:
        return
    birth.say("limits", f"give the control group to uid {uid} · chown(2)")
    directory = cgroup.descriptor()
    if directory is not None:
        with owned(directory):
            delegation.delegate(directory, uid)
    for hierarchy in cgroup.layout.hierarchies:
        if hierarchy.version == 1 and hierarchy.tracks:
            with owned(os.open(hierarchy.directory(cgroup.path), os.O_PATH | os.O_DIRECTORY)) as it:
                delegation.delegate(it, uid)


def _open_sources(birth: init.Birth, stack: ExitStack) -> None:
    """Open for init what it may not reach, or may not map; its copies outlive the parent's."""
    plan = birth.plan
    privileged = bool(capabilities.get()[0] & _CAP_SYS_ADMIN)
    for operation in plan.early_binds(privileged=privileged):
        namespace = None
        if operation.options.id_map:
            namespace = _mapped_namespace(plan.joins, operation.mappings, plan.id_maps)
        try:
            tree = operation.prepare(namespace)
        finally:
            if namespace is not None:
                os.close(namespace)
        if tree is not None:
            stack.callback(os.close, tree)
    if plan.in_user_namespace and privileged and birth.rootfs is None:
        birth.rootfs = rootfs.clone(birth.root_path())
        stack.callback(os.close, birth.rootfs)


def _mapped_namespace(joins: list[tuple[str, str]], own: "IdMaps", container: "IdMaps") -> int:
    """A user namespace whose maps an id-mapped mount takes: its own, or else the container's."""
    maps = own if own[0] else container
    if maps[0]:
        return mappings.open_namespace(*maps)
    for kind, path in joins:
        if kind == "user":
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    raise InvalidArgumentError(
        "mounts: idmap without ids to map",
        "give the mount uidMappings and gidMappings, or the container a user namespace",
    )


def _clone_across(
    birth: init.Birth, ours: Channel, theirs: Channel, into: int | None
) -> tuple[int, int, int]:
    """Have init cloned by a process in between, and serve that.

    Returns:
        Pid and pidfd of init, and the pid of the process between, which has ended.
    """
    plan = birth.plan
    # Its own CLONE_PARENT makes init a child of whoever is its parent.
    between, pidfd = process.clone3(process.CLONE_PARENT if birth.sibling else 0)
    if between == 0:
        ours.close()
        if birth.explain is not None:
            birth.explain = theirs.say

        def cross() -> None:
            init.hide_command_line()
            namespaces.cross(plan, theirs, into, birth.explain, lambda: init.run(birth, theirs))

        run_child(theirs, cross)
    try:
        theirs.close()  # so that the end of the process between is an end of file
        return (*_serve_between(birth, ours, between), between)
    except BaseException:
        ours.close()
        with suppress(ProcessLookupError):
            os.kill(between, signals.SIGKILL)
        raise
    finally:
        _await_end(between, pidfd, sibling=birth.sibling)
        os.close(pidfd)


def _await_end(pid: int, pidfd: int, *, sibling: bool) -> None:
    """Wait for the end of a process, and reap it unless that is the business of our parent."""
    if sibling:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll()
    else:
        os.waitpid(pid, 0)


def _serve_between(birth: init.Birth, ours: Channel, between: int) -> tuple[int, int]:
    while True:
        point, descriptor = ours.await_point()
        word, _, rest = point.partition(" ")
        if word == "user":
            _map_ids(birth, between)
        elif word == "time":
            offsets = birth.plan.time_offsets
            values = [(clock, f"{one.get('secs', 0)} s, {one.get('nanosecs', 0)} ns")
                      for clock, one in offsets.items()]  # fmt: skip
            birth.say("namespaces", "shift the container's clocks · time_namespaces(7)", values)
            namespaces.write_time_offsets(between, birth.plan.time_offsets)
        elif word == "born" and descriptor is not None:
            return int(rest), descriptor
        else:
            raise UnavailableError("the process that enters the namespaces ended too early")
        ours.go(word)


def _map_ids(birth: init.Birth, pid: int) -> None:
    uids, gids = birth.plan.id_maps
    for name, entries in (("uids", uids), ("gids", gids)):
        ranges = mappings.text(entries).strip().replace("\n", ", ")
        words = f"map {name} {ranges} (inside, outside, how many) · user_namespaces(7)"
        birth.say("namespaces", words)
    mappings.write(pid, uids, gids)


def _furnish(birth: init.Birth, container: Container, cgroup: "Manager | None") -> None:
    """Give init what only the parent may, or can while init mounts; and let it begin."""
    plan, pid = birth.plan, container.pid
    if cgroup:
        cgroup.adopt(pid)
    if not plan.crosses and plan.clone_flags & CLONE_NEWUSER:
        _map_ids(birth, pid)
    _tell_kernel(birth, pid)
    _connect(birth, container)
    if plan.crosses or plan.in_user_namespace:
        container.begin()


def _tell_kernel(birth: init.Birth, pid: int) -> None:
    config = birth.plan.config
    specification = config["process"]
    if (adjustment := specification.get("oomScoreAdj")) is not None:
        words = f"out-of-memory score {adjustment:+} · proc_pid_oom_score_adj(5)"
        if birth.explain:
            by_hand = [f"echo {adjustment} > /proc/self/oom_score_adj"]
            birth.explain(Told("limits", words, inside=by_hand))
        set_oom_score(adjustment, pid)
    if wanted := config.get("linux", {}).get("intelRdt"):
        from ketch.runtime import resctrl  # noqa: PLC0415 wanted by few

        group = resctrl.group(wanted, birth.container_id)
        birth.tell(group)
        group.apply(pid)


def _connect(birth: init.Birth, container: Container) -> None:
    """Bring a new network namespace's loopback and the host's devices up, where they are wanted."""
    plan = birth.plan
    if plan.visit is not None:
        birth.tell(plan.visit)
        namespaces.visit(container.pidfd, CLONE_NEWNET, plan.visit)
    if devices := plan.config.get("linux", {}).get("netDevices"):
        from ketch.runtime import netdevices  # noqa: PLC0415 wanted by few

        path = dict(plan.joins).get("network", f"/proc/{container.pid}/ns/net")
        with owned(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as namespace:
            netdevices.move(devices, namespace, birth.explain)


def _serve(birth: init.Birth, container: Container, word: str, rest: str) -> None:
    """Do what init asks its parent for."""
    config = birth.plan.config
    state = birth.state("creating", container.pid)
    if word == "listener":
        hand_over(container, int(rest), config.get("linux", {}), state, birth.notified)
        return
    if word == "limits":
        set_limits(container.pid, config["process"])
        return
    from ketch.runtime import hooks  # noqa: PLC0415 wanted by few

    hooks.run(config, "prestart", state, birth.explain)
    hooks.run(config, "createRuntime", state, birth.explain)


def hand_over(
    container: Container,
    number: int,
    linux: "Linux",
    state: "State",
    notified: "Callable[[int], None] | None" = None,
) -> None:
    """Give a filter's listener to its supervisor.

    Args:
        container: the filtered process.
        number: the listener's descriptor there.
        linux: the configuration's ``linux``.
        state: the container's state.
        notified: takes it; None for the supervisor that the configuration names.

    Raises:
        UnavailableError: there is no supervisor.
        UnsupportedError: the listener cannot be taken over.
    """
    try:
        descriptor = process.pidfd_getfd(container.pidfd, number)
    except SyscallError as error:
        raise UnsupportedError(
            f"linux.seccomp: the listener cannot be taken over: {error}",
            "notifications need a runtime with CAP_SYS_PTRACE",
        ) from error
    with owned(descriptor):
        if notified is not None:
            notified(descriptor)
            return
        from ketch.runtime import listener  # noqa: PLC0415 wanted by few

        listener.hand_over(linux["seccomp"], descriptor, container.pid, state)


def tune(pid: int, specification: "Process", say: "Say | None") -> None:
    """Set how a process is scheduled, where its configuration says so.

    Done last, since a process under SCHED_DEADLINE may not fork.

    Args:
        pid: a child of the caller.
        specification: ``process``.
        say: takes what is told of each step.
    """
    if specification.get("scheduler") or specification.get("ioPriority"):
        from ketch.runtime import tuning  # noqa: PLC0415 wanted by few

        tuning.tune(pid, specification, say)
