"""``exec``: another process in a running container.

Entering goes through a process in between, since setns(2) into a PID namespace counts only for
children::

    caller ──fork──> between: cgroups, setns(2) ──clone3(2) CLONE_PARENT──> the new process
      └──────────────────────── is the parent of ─────────────────────────────┘

Whoever is inside may watch: both processes are non-dumpable before they enter, so that neither
their memory nor their descriptors can be opened, and what they execute from is read-only.
"""

import errno
import os
import struct

from ketch import cgroups
from ketch.errors import ConflictError, SyscallError, UnavailableError
from ketch.linux import namespaces, process
from ketch.linux.scopes import ExitStack, owned
from ketch.runtime import create, init
from ketch.runtime.create import Container
from ketch.runtime.handshake import Channel, run_child
from ketch.runtime.mappings import become_root
from ketch.runtime.process import ProcessSetup, set_limits, set_oom_score, too_many_processes
from ketch.runtime.steps import JoinKeyring
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from ketch.spec.runtime import Config, ExecCpuAffinity, Linux, Process
    from ketch.spec.told import Say


class Entry:
    """What the processes that enter are made with."""

    __slots__ = (
        "affinity",
        "belongs",
        "cgroup_namespace",
        "channel",
        "entrances",
        "flags",
        "init_pidfd",
        "into",
        "keyring",
        "preserved",
        "root",
        "say",
        "setup",
        "streams",
    )

    def __init__(
        self,
        setup: ProcessSetup,
        channel: Channel,
        streams: tuple[int, int, int],
        init_pidfd: int,
        opened: tuple[int, int, int],
    ) -> None:
        self.setup = setup
        self.channel = channel
        self.streams = streams
        self.init_pidfd = init_pidfd
        self.root, self.cgroup_namespace, self.flags = opened
        self.entrances: list[int] = []
        self.into: int | None = None
        self.preserved = 0
        self.belongs = False
        self.keyring: JoinKeyring | None = None
        self.affinity: ExecCpuAffinity = setup.specification.get("execCPUAffinity") or {}
        self.say: Say | None = None

    def open_cgroups(self, cgroup: "cgroups.Manager", init_pid: int, held: ExitStack) -> None:
        """Open what leads into the container's control groups, before its namespaces are entered.

        Args:
            cgroup: the container's.
            init_pid: its init.
            held: closes that again in the calling process.
        """
        if self.affinity:
            # The child may import nothing.
            from ketch.runtime import tuning  # noqa: F401, PLC0415
        self.entrances = cgroup.entrances()
        for descriptor in self.entrances:
            held.callback(os.close, descriptor)
        self.into = cgroup.descriptor(near=init_pid)
        if self.into is not None:
            held.callback(os.close, self.into)

    def needed(self) -> set[int]:
        """The descriptors that are needed inside."""
        kept = {*range(3 + self.preserved), *self.streams, *self.setup.held()}
        kept |= {self.channel.fileno(), self.init_pidfd, self.root, self.cgroup_namespace}
        kept.add(self.setup.null)
        if self.into is not None:
            kept.add(self.into)
        return kept - {-1}


def enter(
    init_pid: int,
    init_pidfd: int,
    specification: "Process",
    setup: ProcessSetup,
    cgroup: "cgroups.Manager",
    streams: tuple[int, int, int],
    *,
    config: "Config | None" = None,
    container_id: str = "",
    bundle: str = "",
    preserved: int = 0,
    new_keyring: bool = True,
    explain: "Say | None" = None,
    notified: "Callable[[int], None] | None" = None,
    sibling: bool = False,
) -> Container:
    """Make a process in a running container, up to the moment before its program runs.

    The caller must be single-threaded.

    Args:
        init_pid: the container's init.
        init_pidfd: its descriptor, which makes sure that the pid is still its own.
        specification: the process to add.
        setup: the same, ready to be applied.
        cgroup: the container's cgroup.
        streams: descriptors of the process's standard input, output and error.
        config: the container's configuration, some of which holds for each of its processes.
        container_id: the container's identifier, for its keyring and its listener.
        bundle: its bundle.
        preserved: how many descriptors from 3 on the program inherits.
        new_keyring: whether the container has a session keyring of its own.
        explain: takes what is told of each step, when it begins.
        notified: takes its filter's listener; None for the supervisor that the configuration names.
        sibling: whether it becomes a child of the caller's parent, which has also to reap
            ``Container.between``.

    Returns:
        The new process, a child of the caller, or of its parent.

    Raises:
        KetchError: why it could not be made.
    """
    linux: Linux = config.get("linux", {}) if config else {}
    with ExitStack() as stack:
        opened = open_container(init_pid, init_pidfd, stack)
        flags = opened[-1]
        in_user_namespace = bool(flags & namespaces.CLONE_NEWUSER)
        setup.settle(
            config,
            in_user_namespace=in_user_namespace,
            nested=not namespaces.in_initial_user_namespace(),
        )
        ours, theirs = Channel.pair()
        stack.callback(theirs.close)
        entry = Entry(setup, theirs, streams, init_pidfd, opened)
        entry.preserved = preserved
        if explain is not None:
            explain(_tell_entrance(init_pid, flags, setup))
            ours.hear = explain
            entry.say = theirs.say
        if new_keyring and container_id:
            entry.keyring = JoinKeyring(container_id, in_user_namespace=in_user_namespace)
        entry.open_cgroups(cgroup, init_pid, stack)
        pid, between = _fork_across(entry, ours, sibling=sibling)
    entered = Container(pid, process.pidfd_open(pid), ours, sibling=sibling)
    entered.between = between

    def hand_over(listener: int) -> None:
        if config is not None:
            from ketch.runtime import hooks  # noqa: PLC0415 wanted by few

            state = hooks.state(config, container_id, bundle, "running", init_pid)
            create.hand_over(entered, listener, linux, state, notified)

    see_in(entered, specification, cgroup, hand_over, explain=explain)
    return entered


def see_in(
    entered: Container,
    specification: "Process",
    cgroup: "cgroups.Manager",
    hand_over: "Callable[[int], None] | None" = None,
    *,
    explain: "Say | None" = None,
) -> None:
    """Bring a process that has just been cloned inside to where its program can be started.

    Args:
        entered: the process; killed where that fails.
        specification: what it is to become.
        cgroup: the container's cgroup.
        hand_over: hands its filter's listener over, given its number in the process; None where
            it has none.
        explain: takes what is told of each step.

    Raises:
        KetchError: why it gave up.
    """

    def serve(word: str, rest: str) -> None:
        if word == "listener" and hand_over is not None:
            hand_over(int(rest))
        elif word == "limits":
            set_limits(entered.pid, specification)

    try:
        cgroup.adopt(entered.pid)
        entered.begin()
        entered.await_created(serve)
        create.tune(entered.pid, specification, explain)
    except BaseException:
        entered.abandon()
        raise


def _fork_across(entry: Entry, ours: Channel, *, sibling: bool) -> tuple[int, int]:
    """Fork the process in between, and reap it unless the caller's parent is its parent.

    Returns:
        The pid of the one that it left inside, and its own where it is still to be reaped, else 0.
    """
    parent = process.CLONE_PARENT if sibling else 0
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with owned(reader):
        if entry.into is not None and entry.flags & namespaces.CLONE_NEWUSER:
            # Whoever has entered a user namespace may be nobody to the cgroup's owner.
            between, pidfd = clone(parent, entry.into)
            if pidfd >= 0:
                os.close(pidfd)
            entry.into = None
        elif sibling:
            between, pidfd = clone(parent, None)
            if pidfd >= 0:
                os.close(pidfd)
        else:
            between = os.fork()
        if between == 0:
            ours.close()
            run_child(entry.channel, lambda: _cross(entry, writer))
        os.close(writer)
        told = os.read(reader, 4)
        if not sibling:
            os.waitpid(between, 0)
    if not told:
        entry.channel.close()
        try:
            ours.await_point()
        finally:
            ours.close()
        raise UnavailableError("the process that enters the container ended before it was inside")
    return int(struct.unpack("i", told)[0]), between if sibling else 0


def open_container(pid: int, pidfd: int, held: ExitStack) -> tuple[int, int, int]:
    """Open a container's root directory and see which of its namespaces are not the caller's.

    Args:
        pid: its init.
        pidfd: its descriptor, which makes sure that the pid is still its own.
        held: closes again what is opened.

    Returns:
        A descriptor of the root, one of the cgroup namespace, -1 where that is the caller's, and
        CLONE_NEW* flags.

    Raises:
        ConflictError: the container does not run.
    """
    flags = 0
    within = -1
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        held.callback(os.close, root)
        for flag, name in namespaces.KINDS.values():
            if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
                flags |= flag
        if flags & namespaces.CLONE_NEWCGROUP:
            within = os.open(f"/proc/{pid}/ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)
            held.callback(os.close, within)
        # Still the same process, so what was read was about it.
        process.pidfd_send_signal(pidfd, 0)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ConflictError("the container is not running") from error
    return root, within, flags


def _cross(entry: Entry, writer: int) -> None:
    """In the process between: enter, and clone the one that stays."""
    go_inside(entry, writer)
    pid, _ = clone(process.CLONE_PARENT, entry.into)
    if pid:
        os.write(writer, struct.pack("i", pid))
        os._exit(0)
    os.close(writer)
    if entry.into is not None:
        os.close(entry.into)
    run_child(entry.channel, lambda: become(entry))


def go_inside(entry: Entry, kept: int) -> None:
    """Take the calling process into the container, but for what counts for its children alone.

    Args:
        entry: how.
        kept: a descriptor that it keeps beside those of the entry.
    """
    process.prctl(process.PR_SET_DUMPABLE, 0)
    init.hide_command_line()
    init.forbid_imports()
    setup = entry.setup
    if setup.oom_score_adjustment is not None:
        set_oom_score(setup.oom_score_adjustment)
    _set_affinity(entry, "initial")
    cgroups.enter(entry.entrances)
    setup.look_back()
    # A container with CAP_SYS_PTRACE can take descriptors out of even this process.
    process.close_all_but(entry.needed() | {kept})
    # Not yet the cgroup namespace: from inside, no one may be cloned into a cgroup while still in
    # one that lies outside (ENOENT under nsdelegate, cgroups(7)).
    namespaces.setns(entry.init_pidfd, entry.flags & ~namespaces.CLONE_NEWCGROUP)
    # setns(2) leads to the root of the mount namespace. That is not the container's root, but the
    # host's, where the container was made in a chroot: pivot_root(2) moved only what lay there.
    os.fchdir(entry.root)
    os.chroot(".")


def _tell_entrance(init_pid: int, flags: int, setup: ProcessSetup) -> Told:
    own = [kind for kind, (flag, _) in namespaces.KINDS.items() if flags & flag]
    values = [("namespaces", " ".join(own)), ("of", f"process {init_pid}")]
    kinds = " ".join(f"--{'net' if kind == 'network' else kind}" for kind in own)
    setup.entrance = (
        f"/usr/bin/nsenter --target {init_pid} {kinds} --root --wdns={quote(setup.directory)}"
        f" --setuid {setup.uid} --setgid {setup.gid}"
    )
    words = "enter the container's namespaces · setns(2)"
    return Told("namespaces", words, values, outside=["# by nsenter, below"])


def clone(flags: int, into: int | None) -> tuple[int, int]:
    """Clone a process that counts to a container: ``process.clone3``.

    Raises:
        UnavailableError: there are as many processes as there may be.
        SyscallError: the kernel refused.
    """
    try:
        return process.clone3(flags, cgroup=into)
    except SyscallError as error:
        if error.errno != errno.EAGAIN:
            raise
        raise too_many_processes() from error


def belong(entry: Entry) -> None:
    """Take on what those inherit whom the calling process clones."""
    setup = entry.setup
    process.allow_all_processors()
    if entry.flags & namespaces.CLONE_NEWUSER:
        become_root(setup.uid, setup.gid, keeps_groups=setup.keeps_groups)
        process.prctl(process.PR_SET_DUMPABLE, 0)
    if entry.keyring is not None:
        entry.keyring.execute()
    entry.belongs = True


def become(entry: Entry) -> None:
    """In the new process: take on all that is the container's, and become the program."""
    channel, setup = entry.channel, entry.setup
    channel.await_go("begin")
    if not entry.belongs:
        belong(entry)
    if entry.cgroup_namespace >= 0:
        # Not by the pidfd: whoever is inside may not look at an init that has not executed its
        # program yet, or one that nobody may read.
        namespaces.setns(entry.cgroup_namespace, namespaces.CLONE_NEWCGROUP)
    _set_affinity(entry, "final")
    os.setsid()
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    setup.find_home(root)
    terminal = None
    if setup.terminal:
        master, terminal = init.open_terminal(root, setup.window)
        channel.reached("console", master)
        os.close(master)
    os.close(root)
    needed = {channel.fileno(), *setup.held()}
    streams = setup.unchangeable(entry.streams)
    init.arrange_descriptors(streams, terminal, entry.preserved, needed)
    setup.become_user(entry.say, channel.hand_over, limit=channel.be_limited)
    path = setup.find_program()
    channel.reached("created")
    channel.await_go("start")
    if entry.say:
        entry.say(setup.tell_program(path))
    setup.execute(path)


def _set_affinity(entry: Entry, field: "Literal['initial', 'final']") -> None:
    """Bind to processors: before the container's cgroup is entered, and again after."""
    if cpus := entry.affinity.get(field):
        from ketch.runtime import tuning  # noqa: PLC0415 loaded by enter

        if entry.say:
            entry.say(Told("limits", f"run on processors {cpus} · sched_setaffinity(2)"))
        tuning.set_affinity(0, cpus, field)
