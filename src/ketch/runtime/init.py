"""The container's init, from its birth in new namespaces to the program it becomes.

Everything runs in a copy of the parent, made by clone3(2), with the parent's modules already
loaded: once the root has changed, nothing may be read from the container's files, so ``import`` is
switched off first.
"""

import errno
import os
import select
import signal
import sys

from ketch import cgroups
from ketch.errors import InvalidArgumentError, KetchError, SyscallError
from ketch.linux import beneath, libc, mount, namespaces, process, tty
from ketch.linux.openat2 import openat2
from ketch.runtime import filesystem
from ketch.runtime.handshake import Channel, run_child
from ketch.runtime.process import ProcessSetup, run_under_init, set_oom_score

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ketch.runtime.plan import Plan


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
        explain: takes each step's description as it happens.
        under_init: whether PID 1 stays ketch's and the program is its child.
        die_with_parent: whether the container ends when its parent does.
        entrances: descriptors through which init enters its v1 cgroups.
    """

    __slots__ = (
        "bundle",
        "die_with_parent",
        "entrances",
        "explain",
        "fifo",
        "plan",
        "preserved",
        "rootfs",
        "setup",
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
        explain: "Callable[[str], None] | None" = None,
        under_init: bool = False,
        die_with_parent: bool = False,
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
        self.entrances: list[int] = []

    def say(self, words: str) -> None:
        """Explain a step, if anyone asked."""
        if self.explain:
            self.explain(words)


def run(birth: Birth, channel: Channel) -> "NoReturn":
    """Set the container up from inside and become its program; never returns.

    Args:
        birth: what init is born with.
        channel: init's end of the handshake.
    """
    run_child(channel, lambda: _set_up(birth, channel))


def _set_up(birth: Birth, channel: Channel) -> None:
    plan, setup = birth.plan, birth.setup
    if birth.die_with_parent:
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
    # /proc/PID/exe and fd of a non-dumpable process are closed to whoever shares its namespaces.
    process.prctl(process.PR_SET_DUMPABLE, 0)
    cgroups.enter(birth.entrances)
    if plan.new_cgroup_namespace:
        # Not before: what it shows as its root is where its maker is then.
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)
    os.setsid()
    forbid_imports()
    if setup.oom_score_adjustment is not None:
        set_oom_score(setup.oom_score_adjustment)
    for kind, path in plan.joins:
        _join(kind, path)
    root = _attach_root(birth)
    for operation in plan.operations:
        birth.say(operation.describe())
        operation.execute(root)
    _set_names(birth)
    # What runc does: made in the container's own tree, volumes included, and before it is closed.
    os.close(beneath.make_directories(root, setup.directory))
    terminal = None
    if setup.terminal:
        master, terminal = open_terminal(root, setup.window)
        _bind_console(root, terminal)
        channel.reached("console", master)
        os.close(master)
    if plan.read_only_root:
        birth.say("make the root read-only · mount_setattr(2)")
        mount.mount_setattr(root, set_attributes=mount.MOUNT_ATTR_RDONLY)
    birth.say("make it the root and let go of the host's · pivot_root(2), umount2(2)")
    filesystem.pivot_root(root)
    arrange_descriptors(birth.streams, terminal, birth.preserved)
    setup.become_user()
    path = setup.find_program()
    channel.reached("created")
    _await_start(birth, channel)
    birth.say(f"become {path} · execve(2)")
    if birth.under_init:
        _stay_as_init(birth, channel, path)
    setup.execute(path)


def _stay_as_init(birth: Birth, channel: Channel, path: str) -> None:
    def start() -> None:
        try:
            birth.setup.execute(path)
        except KetchError as error:
            channel.failed(error)
        os._exit(127)

    run_under_init(start)


def forbid_imports() -> None:
    """Load nothing from now on: what a name finds may be the container's."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()


def _join(kind: str, path: str) -> None:
    flag = namespaces.KINDS[kind][0]
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgumentError(
            f"linux.namespaces: {kind} namespace {path}: {(error.strerror or '').lower()}"
        ) from error
    try:
        namespaces.setns(descriptor, flag)
    except SyscallError as error:
        if error.errno != errno.EINVAL:
            raise
        raise InvalidArgumentError(f"linux.namespaces: {path} is not a {kind} namespace") from error
    finally:
        os.close(descriptor)


def _attach_root(birth: Birth) -> int:
    """Mount the root filesystem at its path in this mount namespace; return its descriptor."""
    plan = birth.plan
    path = os.path.join(birth.bundle, plan.config["root"]["path"])
    birth.say("keep mounts from travelling to the host · mount(2) MS_REC")
    mount.mount("", "/", flags=plan.root_propagation)
    birth.say(f"mount the root filesystem at {path} · open_tree(2), move_mount(2)")
    if birth.rootfs is None:
        try:
            flags = mount.OPEN_TREE_CLONE | libc.AT_RECURSIVE
            root = mount.open_tree(libc.AT_FDCWD, path, flags)
        except FileNotFoundError as error:
            raise InvalidArgumentError(f"root.path: {path} does not exist") from error
    else:
        root = birth.rootfs
    # pivot_root(2) refuses a shared parent; private keeps what is mounted below to ourselves.
    mount.mount_setattr(root, propagation=mount.MS_PRIVATE, recursive=birth.rootfs is None)
    parent = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount.move_mount(root, parent)
    finally:
        os.close(parent)
    return root


def _set_names(birth: Birth) -> None:
    config = birth.plan.config
    if name := config.get("hostname"):
        birth.say(f"host name {name} · sethostname(2)")
        filesystem.write_text("/proc/sys/kernel/hostname", name)
    if name := config.get("domainname"):
        birth.say(f"domain name {name} · setdomainname(2)")
        filesystem.write_text("/proc/sys/kernel/domainname", name)


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
    tree = mount.open_tree(slave, "", mount.OPEN_TREE_CLONE)
    target = beneath.make_file(root, "/dev/console")
    try:
        mount.move_mount(tree, target)
    finally:
        os.close(tree)
        os.close(target)


def arrange_descriptors(
    streams: tuple[int, int, int], terminal: int | None, preserved: int = 0
) -> None:
    """Leave the program its standard streams and what it is to inherit, and nothing else.

    Args:
        streams: descriptors of standard input, output and error.
        terminal: the terminal's slave, which is all three instead, or None.
        preserved: how many descriptors from 3 on the program inherits.
    """
    if terminal is not None:
        streams = (terminal, terminal, terminal)
        tty.set_controlling_terminal(terminal)
    for number, descriptor in enumerate(streams):
        if descriptor == number:
            os.set_inheritable(number, True)
        else:
            os.dup2(descriptor, number)
    process.close_on_exec_from(3 + preserved)


def _await_start(birth: Birth, channel: Channel) -> None:
    if birth.fifo is None:
        channel.await_go("start")
        return
    # Opened without blocking, so that it is open before the host's files are out of reach; until
    # the first writer comes, poll(2) waits and read(2) would not.
    poll = select.poll()
    poll.register(birth.fifo, select.POLLIN)
    poll.poll()
