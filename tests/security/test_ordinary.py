"""An ordinary user's engine: root inside is that user outside, and no other user reaches it."""

import pathlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

# A fixture, by its name.
from tests.e2e.rootless.conftest import lone_user  # noqa: F401
from tests.support.users import User

_CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX, {}).connect(sys.argv[1])"


@pytest.fixture(scope="module")
def victim(user: User) -> Iterator[int]:
    """Return the pid of a container's program, root inside, that has the machine's /etc."""
    ketch = user.ketch
    ketch.ok("run", "-d", "--name", "victim", "--network", "none", "-v", "/etc:/host", "busybox",
             "sleep", "1000")  # fmt: skip
    yield int(ketch.ok("inspect", "-f", "{{.State.Pid}}", "victim"))
    ketch.ok("rm", "-f", "victim")


def test_root_inside_is_the_user_outside(user: User, victim: int) -> None:
    status = pathlib.Path(f"/proc/{victim}/status").read_text(encoding="utf-8")
    assert f"Uid:\t{user.uid}\t{user.uid}\t{user.uid}\t{user.uid}\n" in status
    for command in ("touch /host/made", "cat /host/shadow", "chown 0 /host/hostname",
                    "mknod /tmp/disk b 8 0"):  # fmt: skip
        tried = user.ketch("exec", "--privileged", "victim", "sh", "-c", command)
        assert tried.status != 0, command
    assert not pathlib.Path("/etc/made").exists()


def test_another_user_reaches_nothing(user: User, lone_user: User, victim: int) -> None:  # noqa: F811
    other = replace(lone_user, mounts=user.mounts)  # which sees the same directories
    root, state = user.home / ".local/share/ketch", f"{user.session}/ketch"
    sockets = user.run("sh", "-c", f"ls {state}/*.socket {state}/containers/*/*.socket").out.split()
    assert len(sockets) >= 2
    attempts = [
        ["ls", str(root)],
        ["cat", str(root / "ketch.db")],
        ["ls", state],
        ["ketch", "--root", str(root), "--state", state, "ps"],
        *([*["python3", "-c"], _CONNECT.format(kind), path]
          for path in sockets for kind in ("socket.SOCK_STREAM", "socket.SOCK_SEQPACKET")),
        *(["nsenter", f"--target={victim}", option, "true"] for option in ("-U", "-m", "-n", "-p")),
        ["ls", f"/proc/{victim}/root/"],
        ["cat", f"/proc/{victim}/environ"],
        ["kill", "-0", str(victim)],
    ]  # fmt: skip
    reached = [words for words in attempts if other.run(*words).status == 0]
    assert reached == []
    assert user.run("kill", "-0", str(victim)).status == 0
