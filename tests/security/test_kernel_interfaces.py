"""What the kernel offers root, asked for by a container's root.

The same program runs with --privileged too, which shows that it is our rules that refuse.
"""

import contextlib
import json
import pathlib
import re
import secrets
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest

from tests.security.hostile import PROGRAMS, PYTHON, attack, program, unprotected, volumes
from tests.support.commands import Engine

# Errors that say no, whatever the arguments. ENOSYS: the system call filter knows it not.
REFUSALS = {"EPERM", "EACCES", "EROFS", "ENOSYS", "EAFNOSUPPORT"}
# What the kernel allows everyone, or does not have here.
HARMLESS = {"ENODEV", "ENXIO", "ENOENT", "EOPNOTSUPP"}
BARE = ("--privileged", "--security-opt", "seccomp=unconfined")


@pytest.mark.parametrize("options", [(), ("--user", "1000"), ("--cap-add", "SYS_PTRACE"),
                                     ("--security-opt", "no-new-privileges")])  # fmt: skip
def test_what_root_can_do_to_the_kernel(
    ketch: Engine, attacker: str, options: tuple[str, ...]
) -> None:
    """Mounts, namespaces, keys, modules, devices, cgroup v1's release_agent (CVE-2022-0492),
    core_pattern, sysrq, uevent_helper: capabilities, filter, devices, read-only mounts.
    """
    found: dict[str, str] = attack(ketch, attacker, "try_everything", options=options)
    allowed = {name: how for name, how in found.items() if how not in REFUSALS | HARMLESS}
    assert allowed == {}
    assert "mount" in found
    assert any(name.endswith("core_pattern") for name in found)


@pytest.mark.root_engine("an ordinary user's privileges reach none of the machine's")
def test_the_same_with_privileges(ketch: Engine, attacker: str) -> None:
    """Most of it works there, so that the refusals above are known to be ours."""
    found: dict[str, str] = attack(ketch, attacker, "try_everything", options=BARE)
    done = {name for name, how in found.items() if how == "done"}
    assert {"mount", "unshare mount", "fsopen", "add_key", "device kmsg", "make a cgroup",
            "/proc/sys/kernel/core_pattern", "setns"} <= done, found  # fmt: skip


def status(text: str) -> dict[str, int]:
    """Read the capability sets of a /proc/PID/status."""
    return {name: int(value, 16) for name, value in re.findall(r"(Cap\w+):\s*([0-9a-f]+)", text)}


@pytest.mark.parametrize("options", [(), ("--user", "1000"), ("--privileged",),
                                     ("--cap-add", "NET_ADMIN")])  # fmt: skip
def test_nothing_is_inheritable(ketch: Engine, options: tuple[str, ...]) -> None:
    """CVE-2022-29162, CVE-2022-24769: inheritable capabilities survive a change of user.

    Even where ketch was started with them.
    """
    words = ["run", "--rm", "--network", "none", *options, "busybox", "cat", "/proc/self/status"]
    inheriting = ["setpriv", "--inh-caps", "+net_admin,+sys_ptrace,+chown"]
    text = subprocess.run([*inheriting, *ketch.prefix, "--no-zygote", *words], check=True,
                          capture_output=True, text=True).stdout  # fmt: skip
    for sets in (status(text), status(ketch.ok(*words))):
        assert sets["CapInh"] == sets["CapAmb"] == 0
    ketch.ok("run", "-d", "--name", "held", "--network", "none", "busybox", "sleep", "1000")
    execed = [option for option in options if option not in {"--cap-add", "NET_ADMIN"}]
    sets = status(ketch.ok("exec", *execed, "held", "cat", "/proc/self/status"))
    ketch.ok("rm", "-f", "held")
    assert sets["CapInh"] == sets["CapAmb"] == 0


def test_breaking_out_of_a_chroot(ketch: Engine, attacker: str, tmp_path: pathlib.Path) -> None:
    """chroot(2) twice leads to the real root. pivot_root(2) leaves no other one to lead to."""
    found = attack(ketch, attacker, "break_chroot")
    assert found["before"] == found["after"]


# The same program where the root was only changed.
CHROOTED = """
import os, sys, json
program = open(sys.argv[2]).read()
os.chroot(sys.argv[1])
os.chdir("/")
exec(program)
"""


def test_breaking_out_of_a_mere_chroot(tmp_path: pathlib.Path) -> None:
    """The attack is sound: it leaves a root that was changed by chroot(2)."""
    (tmp_path / "root/tmp").mkdir(parents=True)
    text = unprotected(CHROOTED, str(tmp_path / "root"), str(PROGRAMS / "break_chroot.py"))
    assert '"proc"' in text


@pytest.mark.parametrize(("options", "reached"), [((), False), (("--network", "host"), True)])
def test_abstract_sockets_of_the_host(
    ketch: Engine, attacker: str, options: tuple[str, ...], reached: bool
) -> None:
    """CVE-2020-15257: containerd's shim listened on an abstract socket of the shared namespace."""
    name = f"ketch-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        found = ketch.ok("run", "--rm", *(options or ("--network", "none")), *volumes(), attacker,
                         *program("connect", name))  # fmt: skip
    assert found == str(reached)


def test_ketch_listens_on_no_abstract_socket(ketch: Engine) -> None:
    """CVE-2020-15257: nor does ketch offer one to containers in the host's network."""
    ketch.ok("run", "-d", "--name", "held", "--network", "host", "busybox", "sleep", "1000")
    listing = ketch.ok("exec", "held", "cat", "/proc/net/unix")
    ketch.ok("rm", "-f", "held")
    assert [line for line in listing.splitlines() if "@" in line and "ketch" in line] == []


@pytest.mark.root_engine("an ordinary user mounts no /proc of the machine's processes", of="True")
@pytest.mark.parametrize(("options", "seen"), [((), False), (("--pid", "host"), True)])
def test_processes_of_the_host(
    ketch: Engine, attacker: str, options: tuple[str, ...], seen: bool
) -> None:
    """Neither listed, traced nor signalled: they have no number in the container's namespace."""
    with host_sleeper() as sleeper:
        text = ketch.ok("run", "--rm", "--network", "none", *options, "busybox", "sh", "-c",
                        "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")  # fmt: skip
        assert (f"sleep 3{sleeper.pid}" in text) == seen


@contextlib.contextmanager
def host_sleeper() -> Any:
    """Hold a process of the host, whose command line names its pid."""
    process = subprocess.Popen(["sh", "-c", "exec sleep 3$$"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("how", ["run", "exec"])
def test_killing_everyone(ketch: Engine, how: str) -> None:
    """kill -9 -1 ends what is in the container, and neither its neighbours nor the host."""
    ketch.ok("run", "-d", "--name", "neighbour", "--network", "none", "busybox", "sleep", "1000")
    with host_sleeper() as sleeper:
        if how == "run":
            ketch("run", "--rm", "--network", "none", "busybox", "kill", "-9", "-1")
        else:
            ketch.ok("run", "-d", "--name", "held", "--network", "none", "busybox", "sleep", "99")
            ketch("exec", "held", "sh", "-c", "kill -9 -1; sleep 0.2")
            # The namespace's init is spared, whoever in it sends the signal.
            assert ketch.ok("inspect", "--format", "{{.State.Status}}", "held") == "running"
            ketch.ok("rm", "-f", "held")
        assert sleeper.poll() is None
    assert ketch.ok("inspect", "--format", "{{.State.Status}}", "neighbour") == "running"
    ketch.ok("rm", "-f", "neighbour")


@pytest.mark.root_engine("needs a limit, which cgroup v1 gives nobody but root", of="True")
@pytest.mark.parametrize(("options", "bounded"), [(("--pids-limit", "20"), True), ((), False)])
def test_a_fork_bomb(ketch: Engine, attacker: str, options: tuple[str, ...], bounded: bool) -> None:
    """--pids-limit bounds it, exec's processes included; nothing of it outlives the container."""
    children = attack(ketch, attacker, "fork_many", options=options)
    assert (children < 20) == bounded
    assert ketch.ok("ps", "-aq") == ""


# A login session: a keyring with a key in it, which every process that it starts shares.
SESSION = """
import ctypes, os, sys
join, add_key, keyctl = 1, *((248, 250) if os.uname().machine == "x86_64" else (217, 219))
libc = ctypes.CDLL(None)
assert libc.syscall(keyctl, join, b"ketch-test") > 0
assert libc.syscall(add_key, b"user", b"ketch-test", b"secret", 6, -3) > 0
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.root_engine("the keys are those of root's session")
@pytest.mark.parametrize("how", ["run", "exec", "nobody"])
def test_the_callers_keys(ketch: Engine, attacker: str, how: str) -> None:
    """Keys are in no namespace: who shares a session keyring reads what is in it.

    Each container joins one of its own, even where the filter lets keyctl(2) pass.
    """
    options = ["--network", "none", "--security-opt", "seccomp=unconfined", *volumes(), attacker]
    if how == "exec":
        ketch.ok("run", "-d", "--name", "held", *options, "sleep", "1000")
    words = {
        "run": [*ketch.prefix, "--no-zygote", "run", "--rm", *options, *program("session_keyring")],
        "exec": [*ketch.prefix, "--no-zygote", "exec", "held", *program("session_keyring")],
        "nobody": [PYTHON, str(PROGRAMS / "session_keyring.py")],
    }[how]
    found = subprocess.run([sys.executable, "-c", SESSION, *words], check=True,
                           capture_output=True, text=True).stdout  # fmt: skip
    if how == "exec":
        ketch.ok("rm", "-f", "held")
    assert json.loads(found)["found"] == (how == "nobody")


def test_containers_keys(ketch: Engine, attacker: str) -> None:
    """One container's keys are not another's, and are the same for all of its own programs."""
    options = ["--network", "none", "--security-opt", "seccomp=unconfined", *volumes(), attacker]
    found = []
    for name in ("first", "second"):
        ketch.ok("run", "-d", "--name", name, *options, "sleep", "1000")
    for name in ("first", "first", "second"):
        text = ketch.ok("exec", name, *program("session_keyring"))
        found.append(json.loads(text)["found"])
    ketch.ok("rm", "-f", "first", "second")
    assert found == [False, True, False]


def test_masked_and_read_only(ketch: Engine) -> None:
    """What procfs and sysfs tell or take from the host alone is hidden or read-only."""
    script = """for path in /proc/keys /proc/timer_list /proc/interrupts; do
      [ -e $path ] && wc -c <$path; done
      for path in /proc/sys /proc/bus /proc/fs /proc/irq /sys /sys/fs/cgroup; do
      grep " $path " /proc/mounts | tail -n1 | cut -d' ' -f4 | cut -d, -f1; done
      ls -A /proc/acpi /sys/firmware /proc/scsi 2>/dev/null | grep -v :$"""
    words = ketch("run", "--rm", "--network", "none", "busybox", "sh", "-c", script).out.split()
    sizes = [word for word in words if word.isdigit()]
    assert set(sizes) == {"0"}
    assert words[len(sizes) :] == ["ro"] * 6


def test_signals_to_ketch_from_inside(ketch: Engine) -> None:
    """The monitor is no process that the container knows, and its parent is nobody."""
    script = "cut -d' ' -f4 /proc/1/stat; kill -9 0 2>/dev/null; echo no"
    result = ketch("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    assert result.out.split()[0] == "0"
    assert result.status in {0, 128 + signal.SIGKILL}
