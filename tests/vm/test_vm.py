"""The suite's part in a virtual machine with a stock Debian kernel and cgroup v2 alone."""

import pathlib
import platform
import shutil
import subprocess
import sys

import pytest

BOOT = pathlib.Path(__file__).with_name("boot.py")

# tests/kernel is left to `make test-vm`: under emulation it takes longer than all the rest.
PART = ("-p", "selection", "tests/vm/guest/facilities.py", "tests/contracts", "tests/e2e")
# What asks for systemd as init, or for a kernel that criu knows.
BOOTED = (
    "--init=systemd", "--", "tests/e2e/oci/test_systemd.py", "tests/e2e/oci/test_checkpoint.py",
    "tests/kernel/runtime/test_process.py", "-k", "(oci and not runc) or apparmor",
    # runc showed long ago that the tests are fair.
)  # fmt: skip
TIMEOUT_SECONDS = 420
IMAGES_SECONDS = 180  # to make them, when they are not cached yet


@pytest.mark.root
@pytest.mark.timeout(TIMEOUT_SECONDS + IMAGES_SECONDS)
def test_contracts_and_limits_on_debian_with_cgroup_v2() -> None:
    run_in_machine("--", *PART)


@pytest.mark.root
@pytest.mark.timeout(TIMEOUT_SECONDS + IMAGES_SECONDS)
def test_ketch_oci_under_systemd_and_through_criu() -> None:
    run_in_machine(*BOOTED)


def run_in_machine(*arguments: str) -> None:
    """Boot the machine and run tests in it, all of which must pass."""
    if platform.machine() != "x86_64":
        pytest.skip("the guest takes over .venv, so it must be of the host's architecture: x86_64")
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed (Debian: qemu-system-x86)")
    command = [sys.executable, str(BOOT), f"--timeout={TIMEOUT_SECONDS}", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            output, _ = process.communicate()
        finally:
            process.terminate()  # it takes the machine and its own files with it
    assert process.returncode == 0, f"in the guest:\n{output}"
