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
from ketch.errors import InvalidArgumentError, KetchError, SyscallError, UnsupportedError
from ketch.linux import beneath, libc, mount, namespaces, process, tty
from ketch.linux.openat2 import openat2
from ketch.runtime import filesystem
from ketch.runtime.process import ProcessSetup, run_under_init, set_oom_score

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.runtime.handshake import Channel
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


def run(birth: Birth, channel: "Channel") -> None:
    """Set the container up from inside and become its program; never returns.

    Args:
        birth: what init is born with.
        channel: init's end of the handshake.
    """
    try:
        _set_up(birth, channel)
    except KetchError as error:
        channel.failed(error)
    except OSError as error:
        channel.failed(_described(error))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        channel.failed(error)
    os._exit(1)


def _set_up(birth: Birth, channel: "Channel") -> None:
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
    _forbid_imports()
    if setup.oom_score_adjustment is not None:
        set_oom_score(setup.oom_score_adjustment)
    for kind, path in plan.joins:
        _join(kind, path)
    root = _attach_root(birth)
    for operation in plan.operations:
        birth.say(operation.describe())
        operation.execute(root)
    _set_names(birth)
    terminal = None
    if setup.terminal:
        master, terminal = _open_console(root, setup)
        channel.reached("console", master)
        os.close(master)
    if plan.read_only_root:
        birth.say("make the root read-only · mount_setattr(2)")
        mount.mount_setattr(root, set_attributes=mount.MOUNT_ATTR_RDONLY)
    birth.say("make it the root and let go of the host's · pivot_root(2), umount2(2)")
    filesystem.pivot_root(root)
    _arrange_descriptors(birth, terminal)
    setup.become_user()
    path = setup.find_program()
    channel.reached("created")
    _await_start(birth, channel)
    birth.say(f"become {path} · execve(2)")
    if birth.under_init:
        _stay_as_init(birth, channel, path)
    setup.execute(path)


def _stay_as_init(birth: Birth, channel: "Channel", path: str) -> None:
    def start() -> None:
        try:
            birth.setup.execute(path)
        except KetchError as error:
            channel.failed(error)
        os._exit(127)

    run_under_init(start)


def _forbid_imports() -> None:
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


def _open_console(root: int, setup: ProcessSetup) -> tuple[int, int]:
    """Open a pseudo-terminal of the container's own devpts and bind it to ``/dev/console``.

    Returns:
        Descriptors of its master and of its slave.
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
    if setup.window:
        tty.set_window_size(slave, *setup.window)
    # By descriptor: what the image has at /dev/pts/0 or /dev/console counts for nothing here
    # (CVE-2025-52565).
    tree = mount.open_tree(slave, "", mount.OPEN_TREE_CLONE)
    target = beneath.make_file(root, "/dev/console")
    try:
        mount.move_mount(tree, target)
    finally:
        os.close(tree)
        os.close(target)
    return master, slave


def _arrange_descriptors(birth: Birth, terminal: int | None) -> None:
    """Leave the program its standard streams and what it is to inherit, and nothing else."""
    streams = birth.streams if terminal is None else (terminal, terminal, terminal)
    if terminal is not None:
        tty.set_controlling_terminal(terminal)
    for number, descriptor in enumerate(streams):
        if descriptor == number:
            os.set_inheritable(number, True)
        else:
            os.dup2(descriptor, number)
    process.close_on_exec_from(3 + birth.preserved)


def _await_start(birth: Birth, channel: "Channel") -> None:
    if birth.fifo is None:
        channel.await_go("start")
        return
    # Opened without blocking, so that it is open before the host's files are out of reach; until
    # the first writer comes, poll(2) waits and read(2) would not.
    poll = select.poll()
    poll.register(birth.fifo, select.POLLIN)
    poll.poll()


def _described(error: OSError) -> KetchError:
    return UnsupportedError(f"container set-up: {error}")
