"""The container's init, from its birth in new namespaces to the program it becomes.

Everything runs in a copy of the parent, made by clone3(2), with the parent's modules already
loaded: once the root has changed, nothing may be read from the container's files, so ``import`` is
switched off first.
"""

import os
import select
import sys

from ketch import cgroups
from ketch.errors import InvalidArgumentError, KetchError
from ketch.linux import beneath, mount, namespaces, process, signals, tty
from ketch.linux.openat2 import openat2
from ketch.linux.scopes import owned, suppress
from ketch.runtime import root as rootfs
from ketch.runtime.filesystem import has_use
from ketch.runtime.handshake import Channel, run_child
from ketch.runtime.mappings import become_root
from ketch.runtime.namespaces import join
from ketch.runtime.plan import explain_namespace
from ketch.runtime.process import ProcessSetup
from ketch.runtime.steps import JoinKeyring
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal, NoReturn

    from ketch.runtime.plan import Operation, Plan
    from ketch.runtime.resctrl import Group
    from ketch.runtime.steps import Step
    from ketch.spec.runtime import State, Status
    from ketch.spec.told import Say, Value

# By hand it takes one more program to let go of the host's tree: umount(8), which is in that tree,
# and is reached by the working directory, with its loader and libraries. It lies in /dev meanwhile,
# since the root may be read-only by then.
_PIVOT_BY_HAND = (
    "loader=$(realpath $(ldd /usr/bin/umount | sed -n 's,^[[:space:]]*\\(/[^ ]*\\) .*,\\1,p'))",
    "libraries=$(ldd /usr/bin/umount | sed -n 's,.*=> \\(/.*\\)/[^/]* .*,.\\1,p' | sort -u)",
    'host=".$loader --library-path $libraries"',
    "mkdir -p dev/.host && pivot_root . dev/.host && cd /dev/.host",
    "$host ./usr/bin/umount --lazy /dev/.host && $host ./usr/bin/rmdir /dev/.host",
)


class Birth:
    """What init is born with.

    Args:
        plan: what is to be done.
        setup: the program's user, privileges and limits.
        bundle: directory that the root's path is relative to.
        rootfs: descriptor of a detached mount to be the root, or None to bind the root's path.
        streams: descriptors of standard input, output and error; with a terminal they are unused.
        fifo: descriptor of the exec fifo that starts the program, or None to wait for the parent.
        preserved: how many descriptors from 3 on the program inherits.
        explain: takes what is told of each step, when it begins.
        under_init: ``true`` where PID 1 stays ketch's and the program is its child; ``alone``
            where there is no program.
        die_with_parent: whether the container ends when its parent does.
        container_id: the container's identifier, for its hooks, listener and keyring.
        new_keyring: whether it gets a session keyring of its own; not without an identifier.
        no_pivot: whether the root is moved instead of pivoted, as an initramfs needs.
        sibling: whether init becomes a child of the caller's parent (CLONE_PARENT).
        notified: takes the filter's listener; None for the supervisor that the configuration names.
        entrances: descriptors through which init enters its v1 cgroups.
    """

    __slots__ = (
        "bundle",
        "container_id",
        "die_with_parent",
        "entrances",
        "explain",
        "fifo",
        "new_keyring",
        "no_pivot",
        "notified",
        "plan",
        "preserved",
        "rootfs",
        "setup",
        "sibling",
        "streams",
        "under_init",
    )

    def __init__(
        self,
        plan: "Plan",
        setup: ProcessSetup,
        bundle: str,
        *,
        rootfs: int | None = None,
        streams: tuple[int, int, int] = (0, 1, 2),
        fifo: int | None = None,
        preserved: int = 0,
        explain: "Say | None" = None,
        under_init: str = "",
        die_with_parent: bool = False,
        container_id: str = "",
        new_keyring: bool = True,
        no_pivot: bool = False,
        sibling: bool = False,
        notified: "Callable[[int], None] | None" = None,
    ) -> None:
        self.plan = plan
        self.setup = setup
        self.bundle = bundle
        self.rootfs = rootfs
        self.streams = streams
        self.fifo = fifo
        self.preserved = preserved
        self.explain = explain
        self.under_init = under_init
        self.die_with_parent = die_with_parent
        self.container_id = container_id
        self.new_keyring = new_keyring
        self.no_pivot = no_pivot
        self.sibling = sibling
        self.notified = notified
        self.entrances: list[int] = []
        nested = not namespaces.in_initial_user_namespace()
        if plan.visit is not None and nested:
            # Who is below it may not go back into the network that it came from.
            plan.steps.insert(0, plan.visit)
            plan.visit = None
        setup.settle(plan.config, in_user_namespace=plan.in_user_namespace, nested=nested)
        if plan.config.get("hooks"):
            # Init may import nothing.
            from ketch.runtime import hooks  # noqa: F401, PLC0415
        if under_init:
            from ketch.runtime import pid_one  # noqa: F401, PLC0415

    def say(self, topic: str, words: str, values: "Sequence[Value]" = ()) -> None:
        """Explain a step, if anyone asked."""
        if self.explain:
            self.explain(Told(topic, words, values))

    def tell(self, step: "Step | Operation | Group") -> None:
        """Have a step describe itself, if anyone asked."""
        if self.explain:
            self.explain(step.describe())

    def root_path(self) -> str:
        """Where the root file system is, or is to be mounted, outside."""
        return os.path.join(self.bundle, self.plan.config["root"]["path"])

    def state(self, status: "Status", pid: int) -> "State":
        """The container's state as its hooks and listeners receive it."""
        from ketch.runtime import hooks  # noqa: PLC0415 wanted by few

        return hooks.state(self.plan.config, self.container_id, self.bundle, status, pid)


def run(birth: Birth, channel: Channel) -> "NoReturn":
    """Set the container up from inside and become its program; never returns.

    Args:
        birth: what init is born with.
        channel: init's end of the handshake.
    """
    if birth.explain is not None:
        birth.explain = channel.say
    run_child(channel, lambda: _live(birth, channel))


def _live(birth: Birth, channel: Channel) -> None:
    place = _settle_in(birth, channel)
    terminal = _set_up(birth, channel, place)
    setup = birth.setup
    birth.say("privileges", "close every descriptor but the program's · close_range(2)")
    needed = {channel.fileno(), *setup.held()}
    if birth.fifo is not None:
        needed.add(birth.fifo)
    arrange_descriptors(setup.unchangeable(birth.streams), terminal, birth.preserved, needed)
    setup.become_user(
        birth.explain,
        channel.hand_over,
        limit=channel.be_limited,
        die_with_parent=birth.die_with_parent,
    )
    path = "" if birth.under_init == "alone" else setup.find_program()
    channel.reached("created")
    _await_start(birth, channel)
    _run_hooks(birth, "startContainer", "created")
    if not path:
        birth.say("program", "reap orphans, and nothing else")
        _be_alone(birth)
    if birth.under_init:
        words = "stay the first process, which passes signals on and reaps orphans · fork(2)"
        birth.say("program", words)
    if birth.explain:
        birth.explain(setup.tell_program(path))
    if birth.under_init:
        _stay_as_init(birth, channel, path)
    setup.execute(path)


def _settle_in(birth: Birth, channel: Channel) -> int:
    """Take the place that the namespaces and the control groups give; returns the root's place."""
    plan = birth.plan
    # /proc/PID/exe and fd of a non-dumpable process are closed to whoever shares its namespaces.
    # Not yet in a user namespace: its maps are written through /proc, maybe by an ordinary user.
    if not plan.in_user_namespace:
        process.prctl(process.PR_SET_DUMPABLE, 0)
    cgroups.enter(birth.entrances)
    process.allow_all_processors()
    if plan.in_user_namespace or plan.crosses:
        channel.await_go("begin")
    # Neither before, without maps to be privileged by, nor after: the way there may lead through
    # directories of the mapped root, and through those of whoever started us.
    in_place = plan.crosses or not plan.joins_mounts
    place = rootfs.open_place(birth.root_path()) if in_place else -1
    if plan.in_user_namespace:
        words = "become the root of the user namespace · setresuid(2), setresgid(2)"
        birth.say("namespaces", words)
        setup = birth.setup
        become_root(setup.uid, setup.gid, keeps_groups=setup.keeps_groups)
        process.prctl(process.PR_SET_DUMPABLE, 0)
    if birth.die_with_parent:
        process.prctl(process.PR_SET_PDEATHSIG, signals.SIGKILL)
    if plan.new_cgroup_namespace:
        # Not before: what it shows as its root is where its maker is then.
        if birth.explain:
            birth.explain(explain_namespace("cgroup", "unshare(2)"))
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)
    os.setsid()
    birth.say("privileges", "load no module from here on, which might be the container's")
    forbid_imports()
    if not plan.crosses:
        join(plan.joins, birth.explain)
    steps = list(plan.steps)
    if birth.new_keyring and birth.container_id:
        steps.append(JoinKeyring(birth.container_id, in_user_namespace=plan.in_user_namespace))
    for step in steps:
        birth.tell(step)
        step.execute()
    # Before, what is at the root's path is in another mount namespace.
    return place if in_place else rootfs.open_place(birth.root_path())


def _set_up(birth: Birth, channel: Channel, place: int) -> int | None:
    """Build the container's file system and enter it; returns the terminal's slave, if any."""
    plan, setup = birth.plan, birth.setup
    path = birth.root_path()
    if birth.explain:
        _tell_root(birth.explain, path)
    root = rootfs.attach(path, place, birth.rootfs, plan.propagation)
    os.close(place)
    for operation in plan.operations:
        birth.tell(operation)
        operation.execute(root)
    # What runc does: made in the container's own tree, volumes included, and before it is closed.
    _make_working_directory(birth, root)
    if plan.hooked:
        channel.reached("hooks")
        channel.await_go("hooks")
        os.fchdir(root)
        _run_hooks(birth, "createContainer", "creating")
    terminal = None
    if setup.terminal:
        words = "open a terminal, the container's /dev/console · ioctl_tty(2) TIOCGPTPEER"
        birth.say("files", words)
        master, terminal = open_terminal(root, setup.window)
        _bind_console(root, terminal)
        channel.reached("console", master)
        os.close(master)
    for operation in plan.closing:
        if birth.explain and has_use(operation, root):
            birth.tell(operation)
        operation.execute(root)
    if plan.read_only_root:
        if birth.explain:
            words = "make the root read-only · mount_setattr(2)"
            birth.explain(Told("files", words, inside=["mount -o remount,bind,ro ."]))
        mount.mount_setattr(root, set_attributes=mount.MOUNT_ATTR_RDONLY)
    setup.find_home(root)
    setup.look_back()
    if birth.no_pivot:
        birth.say("files", "move it over the root · mount(2) MS_MOVE, chroot(2)")
        rootfs.move(root, plan.propagation)
    else:
        if birth.explain:
            words = "make it the root and let go of the host's · pivot_root(2), umount2(2)"
            birth.explain(Told("files", words, inside=_PIVOT_BY_HAND))
        rootfs.pivot(root, plan.propagation)
    return terminal


def _tell_root(explain: "Say", path: str) -> None:
    words = "keep mounts from travelling to the host · mount(2) MS_REC"
    explain(Told("files", words, inside=["mount --make-rprivate /"]))
    words = f"mount the root file system at {path} · open_tree(2), move_mount(2)"
    by_hand = [f"mount --rbind {quote(path)} {quote(path)}", f"cd {quote(path)}"]
    explain(Told("files", words, inside=by_hand))


def _make_working_directory(birth: Birth, root: int) -> None:
    path = birth.setup.directory
    if birth.explain and not beneath.exists(root, path):
        words = f"make the working directory {path} · mkdirat(2)"
        birth.explain(Told("files", words, inside=[f"mkdir -p .{quote(path)}"]))
    try:
        os.close(beneath.make_directories(root, path))
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise InvalidArgumentError(f"process.cwd: {path} cannot be made: {reason}") from error


def _run_hooks(birth: Birth, kind: "Literal['createContainer', 'startContainer']",
               status: "Status") -> None:  # fmt: skip
    """Run hooks in the container, where their state names init as it is seen there."""
    if not birth.plan.config.get("hooks"):
        return
    from ketch.runtime import hooks  # noqa: PLC0415 loaded by Birth

    told = birth.state(status, os.getpid())
    hooks.run(birth.plan.config, kind, told, birth.explain, birth.setup.environment)


def _stay_as_init(birth: Birth, channel: Channel, path: str) -> None:
    from ketch.runtime import pid_one  # noqa: PLC0415 loaded by Birth

    def start() -> None:
        try:
            birth.setup.execute(path)
        except KetchError as error:
            channel.failed(error)
        os._exit(127)

    pid_one.stay(start, birth.setup.arguments, birth.setup.environment)


def _be_alone(birth: Birth) -> None:
    from ketch.runtime import pid_one  # noqa: PLC0415 loaded by Birth

    pid_one.be_alone(birth.setup.environment)


def hide_command_line() -> None:
    """Show nothing of the host to those whose PID namespace this process, or its child, enters.

    A command line is all that they may read of a process that is non-dumpable.
    """
    with suppress(OSError):
        process.set_command_line(["ketch"])


def forbid_imports() -> None:
    """Load nothing from now on: what a name finds may be the container's."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()


def open_terminal(root: int, window: tuple[int, int] | None) -> tuple[int, int]:
    """Open a pseudo-terminal of the container's own devpts.

    Args:
        root: descriptor of the container's root directory.
        window: its size in rows and columns, or None.

    Returns:
        Descriptors of its master and of its slave.

    Raises:
        InvalidArgumentError: the container has no devpts.
    """
    try:
        master = openat2(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    except FileNotFoundError as error:
        raise InvalidArgumentError(
            "process.terminal: no devpts is mounted on /dev/pts",
            "add the mount to the configuration",
        ) from error
    try:
        slave, _ = tty.open_pair(master)
    except OSError as error:
        raise InvalidArgumentError(
            f"process.terminal: /dev/pts/ptmx is no pseudo-terminal: {error.strerror}"
        ) from error
    if window:
        tty.set_window_size(slave, *window)
    return master, slave


def _bind_console(root: int, slave: int) -> None:
    """Make the terminal the container's ``/dev/console``.

    By descriptor: what the image has at /dev/pts/0 or /dev/console counts for nothing here
    (CVE-2025-52565).
    """
    with (
        owned(mount.open_tree(slave, "", mount.OPEN_TREE_CLONE)) as tree,
        owned(beneath.make_file(root, "/dev/console")) as target,
    ):
        mount.move_mount(tree, target)


def arrange_descriptors(
    streams: tuple[int, int, int], terminal: int | None, preserved: int, needed: set[int]
) -> None:
    """Leave the program its standard streams and what it is to inherit, and nothing else.

    The rest is closed here and now. To close it by execve(2) would be too late: until then the
    working directory and the program are looked up, and a path such as /proc/self/fd/7/../../bin/sh
    leads through any directory that is still open (CVE-2024-21626).

    Args:
        streams: descriptors of standard input, output and error.
        terminal: the terminal's slave, which is all three instead, or None.
        preserved: how many descriptors from 3 on the program inherits.
        needed: what this process itself needs up to its execve(2), none of them a directory.
    """
    if terminal is not None:
        streams = (terminal, terminal, terminal)
        tty.set_controlling_terminal(terminal)
    for number, descriptor in enumerate(streams):
        if descriptor == number:
            os.set_inheritable(number, True)
        else:
            os.dup2(descriptor, number)
    process.close_all_but({*range(3 + preserved), *needed})
    process.close_on_exec_from(3 + preserved)


def _await_start(birth: Birth, channel: Channel) -> None:
    if birth.fifo is None:
        channel.await_go("start")
        return
    # The kernel keeps from a PID 1 the signals that it has no handler for; and who kills a
    # container that was never started should not have to wait.
    for number in (signals.SIGHUP, signals.SIGINT, signals.SIGQUIT, signals.SIGTERM):
        signals.signal(number, lambda number, _: os._exit(128 + number))
    # Opened without blocking, so that it is open before the host's files are out of reach; until
    # the first writer comes, poll(2) waits and read(2) would not.
    poll = select.poll()
    poll.register(birth.fifo, select.POLLIN)
    poll.poll()
