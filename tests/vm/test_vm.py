"""The suite's part in a virtual machine with a stock Debian kernel and cgroup v2 alone."""

import contextlib
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

import pytest

BOOT = pathlib.Path(__file__).with_name("boot.py")
_CHECKOUT = pathlib.Path(__file__).parents[2]


def marked() -> list[str]:
    """Name the files of which a part is marked: to collect the others takes a minute there."""
    files = sorted(_CHECKOUT.glob("tests/e2e/**/test_*.py"))
    return [
        str(file.relative_to(_CHECKOUT))
        for file in files
        if "pytest.mark.vm" in file.read_text(encoding="utf-8")
    ]


# Left to `make test-vm`, since it takes longer under emulation than all the rest: tests/kernel, and
# layers by the hundred. What asks for docker's command line would be skipped there. The guest's
# kernel is older than Linux 6.8, so "overlay" already has all its layers in one option there; and
# sixty layers that are copied (vfs) do not ask the kernel anything that three do not. What
# pause does is the contracts' too, and the other machine's.
PART = (
    "-p", "selection", "tests/vm/guest/facilities.py", "tests/contracts", *marked(),
    "--ignore=tests/contracts/test_create_requests.py",
    "-k", "not (hundreds and (500 or vfs)) and not (all and layers and option)"
    " and not pause_holds",
)  # fmt: skip
# What asks for systemd as init, or for a kernel that criu knows.
BOOTED = (
    "--init=systemd", "--", "tests/vm/guest/facilities.py", "tests/e2e/oci/test_systemd.py",
    "tests/e2e/oci/test_checkpoint.py", "tests/e2e/test_checkpoints.py",
    "tests/kernel/runtime/test_process.py", "tests/e2e/rootless/test_delegation.py",
    "-k", "facilities or (oci and not runc) or apparmor or (test_checkpoints and not said)"
    " or delegation",
    # runc showed long ago that the tests are fair. tests/e2e/test_systemd.py is left to a machine
    # of its own: behind all of these its container has ended without a word, alone it has not.
)  # fmt: skip
TIMEOUT_SECONDS = 1300
IMAGES_SECONDS = 180  # to make them, when they are not cached yet


pytestmark = [pytest.mark.root, pytest.mark.timeout(TIMEOUT_SECONDS + IMAGES_SECONDS)]


def test_contracts_and_limits_on_debian_12_with_cgroup_v2() -> None:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("that machine is handed .venv, which is of another Python than its 3.11")
    passed("--suite=bookworm", "--", *PART)


def test_ketch_oci_and_users_on_debian_13_under_systemd_and_through_criu() -> None:
    passed("--suite=trixie", *BOOTED)


def test_what_is_missing_is_told_before_anything_is_fetched(tmp_path: pathlib.Path) -> None:
    """In one go, with the packages that have it: `make test-vm` where nobody has worked before."""
    (tmp_path / "setpriv").symlink_to("/bin/true")
    done = subprocess.run(
        [sys.executable, BOOT, "--shell", "true"], check=False, capture_output=True, text=True,
        timeout=60, env={"PATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert line.startswith("vm: not installed: ")
    assert "qemu-system-x86_64" in line
    assert "setpriv" not in line
    assert line.endswith("apt-get install e2fsprogs kmod mmdebstrap qemu-system-x86")


def passed(*arguments: str) -> None:
    """Run tests in a machine, all of which must pass.

    One machine after the other: emulation keeps one processor busy, and leaves the rest to the
    tests that run beside.
    """
    if platform.machine() != "x86_64":
        pytest.skip("the guest takes over .venv, so it must be of the host's architecture: x86_64")
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed (Debian: qemu-system-x86)")
    command = [sys.executable, str(BOOT), f"--timeout={TIMEOUT_SECONDS}", *arguments]
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(tempfile.TemporaryFile("w+"))
        machine = subprocess.Popen(command, stdout=output, stderr=output)
        stack.callback(machine.wait)
        stack.callback(machine.terminate)  # it takes the machine and its own files with it
        status = machine.wait()
        output.seek(0)
        assert status == 0, f"in the guest:\n{output.read()}"
