"""Whatever is killed of what serves a user's containers, the next command repairs it."""

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.rootless.test_ports import await_true, names, own_address, says_again
from tests.support.saying import saying
from tests.support.users import User

_ECHO = "exec nc -ll -p 80 -e cat"
# What containers are served by. Those of pasta's that has left its child alone are called passt.
_WAY_OUT = {"slirp4netns", "pasta", "pasta.avx2", "passt", "passt.avx2"}
_SERVING = {
    "the way out": _WAY_OUT,
    "who leads out": {"ketch-uplink"},
    "who publishes": {"ketch-ports"},
    "the holder": {"ketch-holder"},
    "the zygote": {"ketch-zygote"},
    "who answers names": {"ketch-names"},
    "all of these": {"ketch-uplink", "ketch-ports", "ketch-holder", "ketch-zygote", "ketch-names",
                     *_WAY_OUT},
}  # fmt: skip


@pytest.fixture
def server(user: User) -> Iterator[int]:
    """Run a container on a network of its own that says all again; the machine's port to it."""
    user.ketch.ok("network", "create", "dying")
    user.ketch.ok("run", "-d", "--name", "server", "--network", "dying", "--restart", "always",
                  "-p", "80", "busybox", "sh", "-c", _ECHO)  # fmt: skip
    try:
        port = int(user.ketch.ok("port", "server", "80/tcp").rpartition(":")[2])
        await_true(lambda: says_again("127.0.0.1", port))
        yield port
    finally:
        user.ketch.ok("rm", "-f", "server")
        user.ketch.ok("network", "rm", "dying")


def _kill(user: User, called: set[str] | None) -> list[int]:
    """Kill at once those that are called so, or whatever is the user's; return whom."""
    killed = [pid for pid, name in names(user).items() if called is None or name in called]
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await_true(lambda: not set(killed) & set(names(user)))
    return killed


def _is_whole(user: User, port: int) -> None:
    """See that a container runs, is reached, known by name, and reaches others."""
    ketch = user.ketch
    assert f":{port}->80/tcp" in ketch.ok("ps", "--filter", "name=server")
    assert ketch.ok("exec", "server", "echo", "here") == "here"
    inside = ("run", "--rm", "--network", "dying", "busybox", "ping", "-c1", "-W5", "server")
    assert "1 packets received" in ketch.ok(*inside)
    await_true(lambda: says_again("127.0.0.1", port))
    with saying(b"far\n") as far:
        talk = f"nc {own_address()} {far} < /dev/null"
        await_true(lambda: ketch("exec", "server", "sh", "-c", talk).out == "far\n")


@pytest.mark.parametrize("who", _SERVING)
def test_a_running_container_is_served_again(user: User, server: int, who: str) -> None:
    before = user.ketch.ok("inspect", "--format", "{{.State.Pid}}", "server")
    assert _kill(user, _SERVING[who])
    _is_whole(user, server)
    # It is the same one: nobody's end is a container's.
    assert user.ketch.ok("inspect", "--format", "{{.State.Pid}}", "server") == before


def test_everything_killed_at_once_costs_what_ran_and_nothing_else(user: User, server: int) -> None:
    ketch = user.ketch
    ketch.ok("run", "-d", "--rm", "--name", "passing", "busybox", "sleep", "1000")
    ketch.ok("exec", "server", "sh", "-c", "echo kept > /kept")
    await_true(lambda: not _kill(user, None))  # one may have been forked meanwhile
    listed = ketch.ok("ps", "--all", "--format", "{{.Names}} {{.State}}").splitlines()
    assert "server exited" in listed
    assert not any(line.startswith("passing") for line in listed)
    assert ketch.ok("inspect", "--format", "{{.State.ExitCode}}", "server") == "255"
    ketch.ok("start", "server")
    assert ketch.ok("exec", "server", "cat", "/kept") == "kept"
    _is_whole(user, int(ketch.ok("port", "server", "80/tcp").rpartition(":")[2]))
