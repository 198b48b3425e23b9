"""``kill -9`` of the command at any moment: what the next commands say is true, and they clean."""

import os
import signal
import time

import pytest

from tests.support import leftovers
from tests.support.commands import Engine

# Spread over a start's whole life; the last are after most starts have ended.
DELAYS_SECONDS = [0.004 * n for n in range(14)] + [0.08, 0.15]


@pytest.mark.parametrize("zygote", ["zygote", "no zygote"])
def test_the_command_is_killed(ketch: Engine, zygote: str, run_name: str) -> None:
    options = ["--no-zygote"] if zygote == "no zygote" else []
    for delay in DELAYS_SECONDS:
        process = ketch.start(*options, "run", "--name", "victim", "busybox", "sleep", "0.05")
        time.sleep(delay)
        process.kill()
        process.communicate()
        _check_and_remove(ketch, run_name)


def test_the_commands_whole_group_is_killed(ketch: Engine, run_name: str) -> None:
    """Without a zygote the monitor may be in the group: it dies with all it has in its hands."""
    for delay in DELAYS_SECONDS:
        process = ketch.start("--no-zygote", "run", "--name", "victim", "busybox", "sleep", "0.05",
                              start_new_session=True)  # fmt: skip
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        _check_and_remove(ketch, run_name)


def _check_and_remove(ketch: Engine, run_name: str) -> None:
    """Whatever stage it reached: it ends, is listed truly or not at all, and can be removed."""
    deadline = time.monotonic() + 20
    # Twice, for a process may hand over to a child of its while the list is being read.
    state = ketch.prefix[-1]
    while leftovers.working(run_name, state) or leftovers.working(run_name, state):
        assert time.monotonic() < deadline, ketch.ok("ps", "-a")
        time.sleep(0.02)
    for row in ketch.ok("ps", "-a").splitlines()[1:]:
        assert any(status in row for status in ("Created", "Exited", "Dead")), row
        ketch.ok("rm", "victim")
    # What was half made has no name any more, so the name can be used at once.
    ketch.ok("run", "--rm", "--name", "victim", "--network", "none", "busybox", "true")
    assert ketch.ok("ps", "-aq") == ""
