"""``kill -9`` of the command at any moment: what the next commands say is true, and they clean."""

import os
import signal
import time

import pytest

from tests.support.commands import Engine

# Spread over a start's whole life; the last are after most starts have ended.
DELAYS_SECONDS = [0.002 * n for n in range(25)] + [0.06, 0.1, 0.2]


@pytest.mark.parametrize("zygote", ["zygote", "no zygote"])
def test_the_command_is_killed(ketch: Engine, zygote: str) -> None:
    options = ["--no-zygote"] if zygote == "no zygote" else []
    for delay in DELAYS_SECONDS:
        process = ketch.start(*options, "run", "--name", "victim", "busybox", "sleep", "0.05")
        time.sleep(delay)
        process.kill()
        process.communicate()
        _check_and_remove(ketch)


def test_the_commands_whole_group_is_killed(ketch: Engine) -> None:
    """Without a zygote the monitor may be in the group: it dies with all it has in its hands."""
    for delay in DELAYS_SECONDS:
        process = ketch.start("--no-zygote", "run", "--name", "victim", "busybox", "sleep", "0.05",
                              start_new_session=True)  # fmt: skip
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        _check_and_remove(ketch)


def _check_and_remove(ketch: Engine) -> None:
    """Whatever stage it reached: it ends, is listed truly or not at all, and can be removed."""
    deadline = time.monotonic() + 10
    while ketch.ok("ps", "-q"):
        assert time.monotonic() < deadline, ketch.ok("ps", "-a")
        time.sleep(0.05)
    listing = ketch.ok("ps", "-a").splitlines()[1:]
    if listing:
        (row,) = listing
        assert any(status in row for status in ("Created", "Exited", "Dead")), row
        ketch.ok("rm", "victim")
    # What was half made has no name any more, so the name can be used at once.
    ketch.ok("run", "--rm", "--name", "victim", "--network", "none", "busybox", "true")
    assert ketch.ok("ps", "-aq") == ""
