"""Homes and runtime directories that are not as they should be: a clear word, and nothing lost."""

import subprocess

import pytest

from tests.support import images
from tests.support.commands import Engine
from tests.support.users import User


def home(user: User, name: str, options: str) -> Engine:
    """Return the engine of a user whose home is a file system of its own, in a session anew."""
    directory = user.home / name
    assert user.run("mkdir", "-p", str(directory)).status == 0
    # Of no other test: a holder that is there has another one's mounts.
    assert user.run("mkdir", "-m", "700", f"{user.session}/{name}").status == 0
    command = ["mount", "-t", "tmpfs", "-o", f"uid={user.uid},mode=700,{options}", "tmpfs"]
    subprocess.run(
        ["nsenter", f"--target={user.mounts}", "--mount", *command, str(directory)], check=True
    )
    places = {"HOME": str(directory), "XDG_RUNTIME_DIR": f"{user.session}/{name}"}
    return Engine("ketch", [*user.prefix(**places), "ketch"])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [("fixed", "ro", "read-only file system"), ("full", "size=16k", "no space left on its disk")],
)
def test_a_home_without_room(user: User, name: str, options: str, said: str) -> None:
    engine = home(user, name, options)
    if name == "full":
        user.run("sh", "-c", f"cat /dev/zero > {user.home}/{name}/zeros")
    start = engine("run", "--rm", "busybox", "true")
    assert start.status == 125
    assert said in start.err, f"{start}{user.run('cat', '/proc/self/mountinfo').out}"
    assert "--root or KETCH_ROOT" in start.err
    check = engine("system", "check")
    assert check.status == 1
    assert said in check.out
    assert check.out.endswith("\nContainers cannot run.\n")


def test_a_home_where_nothing_can_be_executed(user: User) -> None:
    engine = home(user, "noexec", "noexec,nosuid,nodev")
    engine.ok("import", "-", "busybox", stdin=images.busybox_archive().read_bytes())
    assert engine.ok("run", "--rm", "--network", "none", "busybox", "echo", "hi") == "hi"
    engine.ok("system", "reset", "--force")


def test_no_home_in_the_environment(user: User) -> None:
    own = user.ketch.ok("images", "-q")
    assert user.run("env", "-u", "HOME", "ketch", "images", "-q").out.strip() == own


def test_a_runtime_directory_of_an_earlier_boot(user: User) -> None:
    directory = f"{user.session}/earlier"
    script = (
        f"mkdir -p -m 700 {directory} {directory}/ketch && cd {directory}/ketch && python3 -c"
        " 'import socket; socket.socket(socket.AF_UNIX).bind(\"holder.socket\")'"
        f" && echo stale > network && XDG_RUNTIME_DIR={directory} ketch images -q"
    )
    found = user.run("sh", "-c", script)
    assert (found.status, found.out.strip()) == (0, user.ketch.ok("images", "-q")), str(found)
