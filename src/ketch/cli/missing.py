"""Pulling the image that a container is to be made of, before it is made.

Neither the client nor the processes that start containers load what a registry needs: a child of
the client pulls, and the client is as lean as before when it asks again.
"""

import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.session import Signals
    from ketch.engine.settings import Settings

_READY = 1  # which end of things poll(2) tells of does not matter here


def pull(
    settings: "Settings",
    image: str,
    signals: "Signals",
    *,
    command: str,
    platform: str,
    quiet: bool,
    missing: bool,
    explain: str,
) -> None:
    """Pull an image in a child process, which says on standard error how it goes.

    Args:
        settings: the engine.
        image: its name.
        signals: those of them that end programs end the child.
        command: for which command, which decides the exit status of a failure.
        platform: what the image is to run on, or empty.
        quiet: whether nothing is to be said but what goes wrong.
        missing: whether it was looked for here.
        explain: in which form is told what is done, or empty.

    Raises:
        SystemExit: that failed, as the child has said.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signals.release()
            os.dup2(2, 1)
            status = _pull(settings, image, command, platform, quiet, missing, explain)
        finally:
            os._exit(status)
    ended = _await(child, signals)
    if ended:
        sys.exit(128 - ended if ended < 0 else ended)


def _await(child: int, signals: "Signals") -> int:
    """Wait for the child, passing on what is to end it; returns its exit status."""
    descriptor = os.pidfd_open(child)
    poll = select.poll()
    poll.register(descriptor, _READY)
    poll.register(signals, _READY)
    while True:
        ready = [found for found, _ in poll.poll()]
        for number in signals.read():
            os.kill(child, number)
        if descriptor in ready:
            os.close(descriptor)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _pull(
    settings: "Settings",
    image: str,
    command: str,
    platform: str,
    quiet: bool,
    missing: bool,
    explain: str,
) -> int:
    """The child's part; returns its exit status."""
    from ketch.cli.main import guarded  # noqa: PLC0415 - a cycle at the top
    from ketch.cli.pull import pull_for_start  # noqa: PLC0415 - the child's alone

    def do() -> int:
        pull_for_start(
            settings, image, platform=platform, quiet=quiet, missing=missing, explain=explain
        )
        return 0

    return guarded(lambda: command, do)
