"""``ketch system check`` says what this machine offers to a user, and a failing start the same."""

import contextlib
import fcntl
import json
import pathlib
import platform
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import images
from tests.support.commands import Engine
from tests.support.users import User, accounts

# Answers unshare(2) as a sandbox does that forbids it.
_FORBIDDEN = """
import ctypes, sys, os
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))
code = bytes.fromhex(sys.argv[1])
libc.prctl(38, 1, 0, 0, 0)
argument = Program(len(code) // 8, code)
if libc.prctl(22, 2, ctypes.byref(argument), 0, 0):
    raise OSError(ctypes.get_errno(), "prctl")
os.execvp(sys.argv[2], sys.argv[2:])
"""
# Runs a command in a user namespace that has all ids, and may have no other below it.
_SWITCHED_OFF = """
import ctypes, os, sys
parent = os.getpid()
made, ready = os.pipe(), os.pipe()
if os.fork() == 0:
    os.read(made[0], 1)
    for name in ("uid_map", "gid_map"):
        open(f"/proc/{parent}/{name}", "w").write("0 0 4294967295")
    os.write(ready[1], b"r")
    os._exit(0)
if ctypes.CDLL(None).unshare(0x10000000):
    sys.exit("unshare(2) failed")
os.write(made[1], b"m")
os.read(ready[0], 1)
os.wait()
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.execvp(sys.argv[1], sys.argv[1:])
"""
_UNSHARE_NUMBERS = {"x86_64": 272, "aarch64": 97}


def offers(result: str) -> dict[str, dict[str, Any]]:
    return {offer["Name"]: offer for offer in json.loads(result)["Offers"]}


def test_what_there_is(user: User) -> None:
    text = user.ketch.ok("system", "check", "--format", "json")
    assert json.loads(text)["CanRun"]
    found = offers(text)
    assert found["user namespaces"]["State"] == "yes"
    assert found["subordinate ids"]["Detail"] == "65536 users, 65536 groups"
    assert found["newuidmap"]["State"] == found["newgidmap"]["State"] == "yes"
    assert found["overlay"]["State"] == found["procfs"]["State"] == "yes"
    assert found["/dev/net/tun"]["State"] == "yes"
    assert found["packet filter"]["State"] == "yes"
    assert found["runtime directory"]["Detail"] == f"{user.session}/ketch"
    first = int(pathlib.Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    assert found["low ports"]["State"] == ("no" if first else "yes")


def test_what_is_used_instead_and_what_would_mend_it(lone_user: User) -> None:
    result = lone_user.run("ketch", "system", "check", XDG_RUNTIME_DIR="")
    assert result.status == 0, str(result)
    assert "have this user's own id alone" in result.out
    assert "-> as root: usermod --add-subuids " in result.out
    assert f"/tmp/ketch-{lone_user.uid}" in result.out
    assert result.out.endswith("\nContainers can run.\n")
    assert "subordinate ids: instead" in lone_user.ketch.ok("info")


def without_unshare(*command: str) -> list[str]:
    """Return words that run a command to which unshare(2) is forbidden."""
    number = _UNSHARE_NUMBERS.get(platform.machine())
    if number is None:
        pytest.skip("nobody has written down this machine's number of unshare(2)")
    filter_ = b"".join(struct.pack("=HBBI", *each) for each in (
        (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000),
    ))  # fmt: skip
    return [sys.executable, "-c", _FORBIDDEN, filter_.hex(), *command]


def refused(engine: Engine) -> dict[str, Any]:
    """Return why no container can run, which ``system check`` and a start must both say."""
    check = engine("system", "check", "--format", "json")
    assert check.status == 1, str(check)
    assert not json.loads(check.out)["CanRun"]
    found = offers(check.out)["user namespaces"]
    assert found["State"] == "no"
    start = engine("run", "--rm", "busybox", "true")
    assert start.status == 125
    assert found["Detail"] in start.err
    assert found["Remedy"] in start.err
    return found


def session(user: User, name: str) -> str:
    """Return a runtime directory where nothing of the user's engine runs."""
    directory = f"{user.session}/{name}"
    assert user.run("mkdir", "-m", "700", directory).status == 0
    return directory


def test_a_start_says_what_the_check_says(user: User) -> None:
    prefix = user.prefix(XDG_RUNTIME_DIR=session(user, "forbidden"))
    engine = Engine("ketch", [*prefix, *without_unshare("ketch")])
    assert "user namespaces are not permitted here" in refused(engine)["Detail"]


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("unprivileged_userns_clone", "0", "ordinary users may not make user namespaces"),
        ("apparmor_restrict_unprivileged_userns", "1", "AppArmor lets programs without a profile"),
    ],
)
def test_what_a_distribution_forbids_is_named(
    user: User, setting: str, value: str, said: str
) -> None:
    """This kernel has not these settings, so it is shown them, and refuses by a filter."""
    script = f'mount -t tmpfs tmpfs /proc/sys/kernel && echo {value} > "$0"; exec "$@"'
    prefix = user.prefix(XDG_RUNTIME_DIR=session(user, setting))
    here = prefix.index("--")
    settings = ["unshare", "--mount", "sh", "-c", script, f"/proc/sys/kernel/{setting}"]
    prefix = [*prefix[: here + 1], *settings, *prefix[here + 1 :]]
    found = refused(Engine("ketch", [*prefix, *without_unshare("ketch")]))
    assert said in found["Detail"]
    assert f"kernel.{setting} is {value}" in found["Detail"]
    assert found["Remedy"].startswith("as root: ")


def test_user_namespaces_that_are_switched_off(user: User) -> None:
    prefix = user.prefix(XDG_RUNTIME_DIR=session(user, "off"))
    here = prefix.index("--")
    prefix = [*prefix[: here + 1], sys.executable, "-c", _SWITCHED_OFF, *prefix[here + 1 :]]
    found = refused(Engine("ketch", [*prefix, "ketch"]))
    assert "user namespaces are switched off: user.max_user_namespaces is 0" in found["Detail"]
    assert "sysctl -w user.max_user_namespaces" in found["Remedy"]


@contextlib.contextmanager
def in_place(user: User, path: str, text: bytes, mode: int = 0o644) -> Iterator[None]:
    """Show the user another file in the place of one of the machine's."""
    file = user.home / f"in-place-{pathlib.Path(path).name}"
    file.write_bytes(text)
    file.chmod(mode)
    mounts = ["nsenter", f"--target={user.mounts}", "--mount"]
    with accounts(fcntl.LOCK_SH):
        subprocess.run([*mounts, "mount", "--bind", str(file), path], check=True)
        try:
            yield
        finally:
            subprocess.run([*mounts, "umount", path], check=True)
            file.unlink()


def test_without_the_programs_privilege_the_users_own_id_is_left(user: User) -> None:
    """So an image of many owners is unpacked nevertheless, and the check says what is amiss."""
    directory = session(user, "unprivileged")
    engine = Engine("ketch", [*user.prefix(XDG_RUNTIME_DIR=directory), "ketch",
                              "--root", str(user.home / "unprivileged")])  # fmt: skip
    program = pathlib.Path("/usr/bin/newuidmap")
    with in_place(user, str(program), program.read_bytes(), 0o755):
        engine.ok("import", "-", "busybox", stdin=images.busybox_archive().read_bytes())
        shown = engine.ok(
            "run", "--rm", "--network", "none", "busybox", "cat", "/proc/self/uid_map"
        )
        assert shown.split() == ["0", str(user.uid), "1"]
        found = offers(engine.ok("system", "check", "--format", "json"))
        assert found["newuidmap"]["State"] == found["subordinate ids"]["State"] == "instead"
        assert "newuidmap has no privilege" in found["newuidmap"]["Detail"]
        assert found["newuidmap"]["Remedy"].startswith("as root: chmod u+s /usr/bin/newuidmap")
        assert "have this user's own id alone" in found["subordinate ids"]["Detail"]
        engine.ok("system", "reset", "--force")


def test_a_process_that_can_gain_no_privilege_has_the_users_own_id(user: User) -> None:
    prefix = user.prefix(XDG_RUNTIME_DIR=session(user, "gains-nothing"))
    engine = Engine("ketch", [*prefix, "setpriv", "--no-new-privs", "ketch", "--root",
                              str(user.home / "gains-nothing")])  # fmt: skip
    found = offers(engine.ok("system", "check", "--format", "json"))
    assert "has no_new_privs" in found["newuidmap"]["Detail"]
    assert engine.ok("unshare", "cat", "/proc/self/uid_map").split() == ["0", str(user.uid), "1"]


@pytest.mark.parametrize(
    ("lines", "mapped", "said"),
    [
        ("{name}:{before}:100\n", 100, "has the user's own id"),
        ("{name}:200000:65536\nother:200100:10\n", 65537, "given to other as well"),
        ("{name}:200000:65536\n{name}:200010:65536\n", 65547, ""),
        ("{name}:4294967000:65536\n", 1, "is no NAME:FIRST:COUNT of 32 bits"),
        ("{name}:many:65536\n", 1, "is no NAME:FIRST:COUNT of 32 bits"),
    ],
    ids=["the user's own", "another's", "twice", "too many", "none"],
)
def test_ranges_that_cannot_be_count_as_far_as_they_can(
    user: User, lines: str, mapped: int, said: str
) -> None:
    text = lines.format(name=user.name, before=user.uid - 10).encode()
    prefix = user.prefix(XDG_RUNTIME_DIR=session(user, f"ranges{mapped}{len(lines)}"))
    engine = Engine("ketch", [*prefix, "ketch", "--root", str(user.home / "ranges")])
    with in_place(user, "/etc/subuid", text), in_place(user, "/etc/subgid", text):
        shown = engine.ok("unshare", "cat", "/proc/self/uid_map").splitlines()
        found = offers(engine.ok("system", "check", "--format", "json"))["subordinate ids"]
    assert sum(int(line.split()[2]) for line in shown) == mapped
    assert said in found["Detail"]
    assert bool(found["Remedy"]) == bool(said)


def test_a_procfs_of_which_some_is_hidden(user: User) -> None:
    """As in a container, in which an ordinary user's containers cannot have one of their own."""
    prefix = user.prefix(XDG_RUNTIME_DIR=session(user, "hidden"))
    here = prefix.index("--")
    script = 'mount --bind /dev/null /proc/timer_list; exec "$@"'
    hide = ["unshare", "--mount", "sh", "-c", script, "sh"]
    engine = Engine("ketch", [*prefix[: here + 1], *hide, *prefix[here + 1 :], "ketch"])
    check = engine("system", "check", "--format", "json")
    assert check.status == 1
    assert not json.loads(check.out)["CanRun"]
    found = offers(check.out)["procfs"]
    assert "some of /proc is hidden here" in found["Detail"]
    start = engine("run", "--rm", "--network", "none", "busybox", "true")
    assert start.status == 125
    assert "--security-opt systempaths=unconfined" in start.err
    assert "--security-opt systempaths=unconfined" in found["Remedy"]


def test_networks_need_no_list_of_protocols(user: User) -> None:
    """As in an image without Debian's netbase."""
    engine = Engine("ketch", [*user.prefix(XDG_RUNTIME_DIR=session(user, "bare")), "ketch"])
    with in_place(user, "/etc/protocols", b""):
        assert engine.ok("run", "--rm", "busybox", "id", "-u") == "0"


def test_a_root_that_lacks_the_privilege_is_told_of_it(ketch: Engine) -> None:
    """As in a container that is given what Docker's have by default."""
    engine = Engine("ketch", ["setpriv", "--bounding-set=-sys_admin", *ketch.prefix])
    check = engine("system", "check", "--format", "json")
    assert check.status == 1
    found = offers(check.out)["privileges"]
    assert found["State"] == "no"
    start = engine("run", "--rm", "busybox", "true")
    assert start.status == 125
    assert f"containers cannot be started here: {found['Detail']}" in start.err
    assert found["Remedy"] in start.err


def test_root_is_told_of_the_kernel(ketch: Engine) -> None:
    found = offers(ketch.ok("system", "check", "--format", "json"))
    assert {name for name in found if found[name]["State"] == "yes"} >= {
        "user namespaces", "control groups", "packet filter",
    }  # fmt: skip
