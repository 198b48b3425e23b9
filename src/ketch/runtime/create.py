"""The parent's half of a container's creation: clone init into its cgroup, and hear of it."""

import os
import signal
from contextlib import ExitStack, suppress

from ketch.errors import UnavailableError
from ketch.linux import process
from ketch.runtime import init
from ketch.runtime.handshake import Channel
from ketch.runtime.process import set_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups import Manager


class Container:
    """A created container: its init waits for the word to become the program.

    Attributes:
        pid: init's pid as the caller sees it.
        pidfd: init's process descriptor, close-on-exec; the caller owns it.
        console: the terminal's master, or None; the caller owns it.
    """

    __slots__ = ("_channel", "console", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int, channel: Channel) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.console: int | None = None
        self._channel = channel

    def await_created(self) -> None:
        """Wait until init is ready to become the program.

        Raises:
            KetchError: why it gave up.
        """
        while True:
            point, descriptor = self._channel.await_point()
            if point == "console":
                self.console = descriptor
            elif point == "created":
                return
            else:
                raise UnavailableError(f"the container's init ended before it was ready ({point})")

    def start(self) -> None:
        """Let init become the program.

        Raises:
            StartError: the program could not be executed.
        """
        self._channel.go("start")
        try:
            point, _ = self._channel.await_point()
        finally:
            self._channel.close()
        if point != "executed":
            raise UnavailableError(f"the container's init said {point!r} instead of starting")

    def abandon(self) -> None:
        """Kill a container that will not be started, reap it, and free what belongs to it."""
        with suppress(ProcessLookupError):
            process.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
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
    on failure they stay the caller's to remove.

    Args:
        birth: what init is born with.
        cgroup: where to place it, or None to leave it in the caller's cgroups.

    Returns:
        The created container.

    Raises:
        KetchError: what went wrong, on either side; nothing of the container is left running.
    """
    with ExitStack() as stack:
        ours, theirs = Channel.pair()
        stack.callback(theirs.close)
        into = None
        if cgroup:
            into = cgroup.descriptor()
            if into is not None:
                stack.callback(os.close, into)
            birth.entrances = cgroup.entrances()
            for descriptor in birth.entrances:
                stack.callback(os.close, descriptor)
        pid, pidfd = process.clone3(birth.plan.clone_flags, cgroup=into)
        if pid == 0:
            ours.close()
            init.run(birth, theirs)
    container = Container(pid, pidfd, ours)
    try:
        set_limits(pid, birth.plan.config["process"])
        container.await_created()
    except BaseException:
        container.abandon()
        raise
    return container
