"""Machines that lack something: what fails ends, says why, and leaves nothing that cannot go."""

import errno
import pathlib
import platform
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.commands import Engine
from tests.support.images import busybox_archive

pytestmark = pytest.mark.ketch_only("docker's daemon is another process than who asks it")

# In the namespaces of the tests an engine must not be found by what another test has set up.
_ALONE = ("unshare", "--net")

# Answers socket(AF_NETLINK, ..., NETLINK_NETFILTER) as a kernel without nf_tables does.
_NO_NETFILTER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))
code = bytes.fromhex(sys.argv[1])
argument = Program(len(code) // 8, code)
if libc.prctl(22, 2, ctypes.byref(argument), 0, 0):
    raise OSError(ctypes.get_errno(), "prctl")
os.execvp(sys.argv[2], sys.argv[2:])
"""
_SOCKET_NUMBERS = {"x86_64": 41, "aarch64": 198}
_AF_NETLINK, _NETLINK_NETFILTER, _EPROTONOSUPPORT = 16, 12, 93


@pytest.fixture
def plain(ketch: Engine, scratch: pathlib.Path) -> Iterator[Engine]:
    """Return an engine of its own, with an image."""
    places = ["--root", str(scratch / "lacking-root"), "--state", str(scratch / "lacking-state")]
    engine = Engine("ketch", [ketch.prefix[0], *places])
    engine.ok("import", str(busybox_archive()), "busybox")
    yield engine
    engine.ok("system", "reset", "-f")


def within(engine: Engine, *wrapper: str) -> Engine:
    """Return the same engine, by commands that another command starts."""
    return Engine("ketch", [*wrapper, *engine.prefix])


def _without_netfilter() -> list[str]:
    """Return the start of a command line that runs the rest of it without nf_tables."""
    number = _SOCKET_NUMBERS.get(platform.machine())
    if number is None:
        pytest.skip("nobody has written down this machine's number of socket(2)")
    load, equal, answer = 0x20, 0x15, 0x06
    code = b"".join(struct.pack("=HBBI", *each) for each in (
        (load, 0, 0, 0), (equal, 0, 5, number),
        (load, 0, 0, 16), (equal, 0, 3, _AF_NETLINK),
        (load, 0, 0, 32), (equal, 0, 1, _NETLINK_NETFILTER),
        (answer, 0, 0, 0x00050000 | _EPROTONOSUPPORT), (answer, 0, 0, 0x7FFF0000),
    ))  # fmt: skip
    return [sys.executable, "-c", _NO_NETFILTER, code.hex()]


def _denying(*calls: int) -> list[str]:
    """Return the start of a command line that runs the rest of it under a filter, as Docker's."""
    load, equal, answer = 0x20, 0x15, 0x06
    code = struct.pack("=HBBI", load, 0, 0, 0)
    for number in calls:
        code += struct.pack("=HBBI", equal, 0, 1, number)
        code += struct.pack("=HBBI", answer, 0, 0, 0x00050000 | errno.EPERM)
    code += struct.pack("=HBBI", answer, 0, 0, 0x7FFF0000)
    return [sys.executable, "-c", _NO_NETFILTER, code.hex()]


def test_docker_s_filter_around_ketch_denies_keyrings_to_its_containers_too(plain: Engine) -> None:
    keys = {"x86_64": (248, 249, 250), "aarch64": (217, 218, 219)}.get(platform.machine())
    if keys is None:
        pytest.skip("nobody has written down this machine's numbers of keyctl(2) and its kin")
    words = ("--no-zygote", "run", "--rm", "--network", "none", "busybox", "echo", "here")
    assert within(plain, *_denying(*keys)).ok(*words) == "here"
    refused = within(plain, *_denying(keys[2]))(*words)
    assert refused.status == 125
    assert "denies keyctl(2)" in refused.err
    assert "--no-new-keyring" in refused.err


def test_a_filter_that_denies_mounts_is_told_of(plain: Engine) -> None:
    """Docker's, for who has not CAP_SYS_ADMIN: whatever is denied first is named."""
    for number, call in ((428, "open_tree"), (429, "move_mount"), (430, "fsopen")):
        denied = within(plain, *_denying(number))
        failed = denied("--no-zygote", "run", "--rm", "--network", "none", "busybox", "true")
        assert failed.status == 125
        assert f"{call}(" in failed.err
        assert "Operation not permitted" in failed.err


def test_without_the_right_to_change_networks_a_start_ends_and_can_be_cleared_away(
    plain: Engine,
) -> None:
    lacking = within(plain, *_ALONE, "capsh", "--drop=cap_net_admin", "--", "-c", 'exec "$0" "$@"')
    failed = lacking("run", "--name", "web", "-p", "18080:80", "busybox", "true", timeout=60)
    assert failed.status == 125
    assert "its network cannot be set up" in failed.err
    assert "Operation not permitted" in failed.err
    assert "CAP_NET_ADMIN" in failed.err
    assert lacking.ok("ps", "-a", "--format", "{{.Names}} {{.State}}") == "web created"
    assert lacking.ok("rm", "-f", "web", timeout=60) == "web"
    assert lacking.ok("ps", "-aq") == ""
    assert lacking.ok("run", "--rm", "--network", "host", "busybox", "echo", "here") == "here"


def test_without_nf_tables_a_failed_start_can_be_cleared_away(plain: Engine) -> None:
    lacking = within(plain, *_ALONE, *_without_netfilter())
    failed = lacking("run", "--name", "web", "-p", "18080:80", "busybox", "true", timeout=60)
    assert failed.status == 125
    assert "this kernel has no nftables" in failed.err
    assert lacking.ok("rm", "-f", "web", timeout=60) == "web"
    assert lacking.ok("run", "--rm", "--network", "none", "busybox", "echo", "here") == "here"
    assert lacking.ok("ps", "-aq") == ""


def test_without_the_right_to_mount_the_reason_is_told(plain: Engine) -> None:
    lacking = within(plain, "capsh", "--drop=cap_sys_admin", "--", "-c", 'exec "$0" "$@"')
    failed = lacking("run", "--rm", "busybox", "true", timeout=60)
    assert failed.status == 125
    assert "containers cannot be started here" in failed.err
    assert "CAP_SYS_ADMIN" in failed.err


@pytest.mark.parametrize("options", [[], ["--init"]])
def test_a_caller_that_shows_itself_as_another_machine_starts_containers(
    plain: Engine, options: list[str]
) -> None:
    """setarch(8) changes what uname(2) says, and not whose system calls are made."""
    shown = subprocess.run(
        ["setarch", "linux32", "uname", "-m"], check=True, capture_output=True, text=True
    ).stdout.strip()
    other = within(plain, "setarch", "linux32")
    words = ("run", "--rm", "--network", "none", *options, "busybox", "uname", "-m")
    assert other.ok(*words) == shown


def test_a_caller_with_real_time_scheduling_is_told_that_its_containers_have_no_time_for_it(
    plain: Engine,
) -> None:
    if not pathlib.Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        pytest.skip("this kernel has no groups of real-time processes: CONFIG_RT_GROUP_SCHED")
    real_time = within(plain, "chrt", "--rr", "10")
    refused = real_time("run", "--rm", "--network", "none", "busybox", "true")
    assert refused.status == 125
    assert "cpu/ketch/" in refused.err
    assert " cannot be entered: invalid argument" in refused.err
    assert "--cpu-rt-runtime" in refused.err
    given = ("--cpu-rt-runtime", "100000", "--network", "none")
    assert real_time.ok("run", "--rm", *given, "busybox", "sh", "-c", "echo ran") == "ran"
    plain.ok("run", "-d", "--name", "web", "--network", "none", "busybox", "sleep", "60")
    refused = real_time("exec", "web", "true")
    assert refused.status == 126
    assert "cannot be entered" in refused.err
    assert plain.ok("exec", "web", "echo", "there") == "there"


def _read_only(*places: str) -> list[str]:
    """Return the start of a command line that runs the rest of it with directories read-only."""
    mounts = "".join(f"mount --bind {each} {each}; mount -o remount,bind,ro {each}; "
                     for each in places)  # fmt: skip
    return ["unshare", "--mount", "sh", "-ec", f'{mounts}exec "$0" "$@"']


def test_on_a_read_only_file_system_the_reason_is_told_and_what_reads_works(plain: Engine) -> None:
    root = plain.prefix[plain.prefix.index("--root") + 1]
    state = plain.prefix[plain.prefix.index("--state") + 1]
    for place, path in ((root, f"{root}/ketch.db"), (state, state)):
        lacking = within(plain, *_read_only(place))
        failed = lacking("run", "--rm", "--network", "none", "busybox", "true", timeout=60)
        assert failed.status == 125
        assert path in failed.err
        assert "read-only file system" in failed.err
        assert "--root" in failed.err
        assert lacking.ok("images", "--format", "{{.Repository}}") == "busybox"
        assert lacking.ok("ps", "-aq") == ""


def test_on_a_read_only_machine_containers_run_where_the_engine_can_write(plain: Engine) -> None:
    """As on CoreOS, Yocto's images and in containers that have a read-only root."""
    root = plain.prefix[plain.prefix.index("--root") + 1]
    state = plain.prefix[plain.prefix.index("--state") + 1]
    keep = f"mount --bind {root} {root}; mkdir -p {state}; mount --bind {state} {state}"
    close = "mount -o remount,bind,ro /; ! touch /written 2>&-"
    machine = ["unshare", "--mount", "sh", "-ec", f'{keep}; {close} && exec "$0" "$@"']
    lacking = within(plain, *machine)
    words = ("run", "--rm", "-v", "kept:/kept", "busybox", "sh", "-c", "echo here >/kept/f")
    lacking.ok(*words)
    assert lacking.ok("run", "--rm", "-v", "kept:/kept", "busybox", "cat", "/kept/f") == "here"
