"""``exec``: another process in a running container.

Entering goes through a process in between, since setns(2) into a PID namespace counts only for
children::

    caller ──fork──> between: cgroups, setns(2) ──clone3(2) CLONE_PARENT──> the new process
      └──────────────────────── is the parent of ─────────────────────────────┘

Whoever is inside may watch: both processes are non-dumpable before they enter, so that neither
their memory nor their descriptors can be opened, and what they execute from is read-only.
"""

import os
import struct
from contextlib import ExitStack

from ketch import cgroups
from ketch.errors import ConflictError, UnavailableError
from ketch.linux import namespaces, process
from ketch.runtime import init
from ketch.runtime.create import Container
from ketch.runtime.handshake import Channel, run_child
from ketch.runtime.process import ProcessSetup, set_limits, set_oom_score

TYPE_CHECKING = False
if TYPE_CHECKING:

    from ketch.spec.runtime import Process


def enter(
    init_pid: int,
    init_pidfd: int,
    specification: "Process",
    setup: ProcessSetup,
    cgroup: "cgroups.Manager",
    streams: tuple[int, int, int],
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

    Returns:
        The new process, a child of the caller.

    Raises:
        KetchError: why it could not be made.
    """
    flags = _foreign_namespaces(init_pid, init_pidfd)
    with ExitStack() as stack:
        ours, theirs = Channel.pair()
        stack.callback(theirs.close)
        entrances = cgroup.entrances()
        for descriptor in entrances:
            stack.callback(os.close, descriptor)
        into = cgroup.descriptor()
        if into is not None:
            stack.callback(os.close, into)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, reader)
        between = os.fork()
        if between == 0:
            ours.close()
            run_child(
                theirs, lambda: _cross(init_pidfd, flags, entrances, into, writer, theirs, setup,
                                       streams)
            )  # fmt: skip
        os.close(writer)
        os.waitpid(between, 0)
        told = os.read(reader, 4)
    if not told:
        try:
            ours.await_point()
        finally:
            ours.close()
        raise UnavailableError("the process that enters the container ended before it was inside")
    pid = struct.unpack("i", told)[0]
    entered = Container(pid, process.pidfd_open(pid), ours)
    try:
        set_limits(pid, specification)
        entered.await_created()
    except BaseException:
        entered.abandon()
        raise
    return entered


def _foreign_namespaces(pid: int, pidfd: int) -> int:
    """CLONE_NEW* flags of the namespaces that a process has and the caller does not."""
    flags = 0
    try:
        for flag, name in namespaces.KINDS.values():
            if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
                flags |= flag
        # Still the same process, so what was read was about it.
        process.pidfd_send_signal(pidfd, 0)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ConflictError("the container is not running") from error
    return flags


def _cross(
    init_pidfd: int,
    flags: int,
    entrances: list[int],
    into: int | None,
    writer: int,
    channel: Channel,
    setup: ProcessSetup,
    streams: tuple[int, int, int],
) -> None:
    """In the process between: enter, and clone the one that stays."""
    process.prctl(process.PR_SET_DUMPABLE, 0)
    init.forbid_imports()
    if setup.oom_score_adjustment is not None:
        set_oom_score(setup.oom_score_adjustment)
    cgroups.enter(entrances)
    namespaces.setns(init_pidfd, flags)
    pid, _ = process.clone3(process.CLONE_PARENT, cgroup=into)
    if pid:
        os.write(writer, struct.pack("i", pid))
        os._exit(0)
    run_child(channel, lambda: _become(channel, setup, streams))


def _become(channel: Channel, setup: ProcessSetup, streams: tuple[int, int, int]) -> None:
    os.setsid()
    terminal = None
    if setup.terminal:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        master, terminal = init.open_terminal(root, setup.window)
        channel.reached("console", master)
        os.close(master)
    init.arrange_descriptors(streams, terminal)
    setup.become_user()
    path = setup.find_program()
    channel.reached("created")
    channel.await_go("start")
    setup.execute(path)
