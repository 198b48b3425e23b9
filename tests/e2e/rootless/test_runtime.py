"""``ketch-oci`` as an ordinary user: by itself, and as podman's runtime without root."""

import pathlib
import shutil
import sys
from collections.abc import Iterator

import pytest

from tests.support import images
from tests.support.commands import Result
from tests.support.users import User

RUNTIME = str(pathlib.Path(sys.executable).with_name("ketch-oci"))
# The machine's cgroup v1 gives a user none; where the user's files are, overlay may be refused.
_PODMAN = ("podman", "--cgroup-manager=cgroupfs", "--events-backend=file", "--storage-driver=vfs",
           f"--runtime={RUNTIME}")  # fmt: skip


@pytest.fixture
def podman(user: User) -> Iterator[User]:
    """Return a user whose podman has the image ``busybox``."""
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    done(user.run(*_PODMAN, "import", str(images.busybox_archive()), "busybox"))
    yield user
    user.run("podman", "--storage-driver=vfs", "system", "reset", "--force")


def done(result: Result) -> str:
    assert result.status == 0, str(result)
    return result.out.strip()


def test_podmans_rootless_containers(podman: User) -> None:
    inside = done(podman.run(*_PODMAN, "run", "--rm", "--network=none", "busybox", "sh", "-c",
                             "id -u; cat /proc/self/uid_map"))  # fmt: skip
    assert inside.split()[:4] == ["0", "0", str(podman.uid), "1"]
    done(podman.run(*_PODMAN, "run", "-d", "--name=one", "--network=none", "busybox", "sleep",
                    "1000"))  # fmt: skip
    assert done(podman.run(*_PODMAN, "exec", "one", "echo", "here")) == "here"
    done(podman.run(*_PODMAN, "rm", "--force", "--time=0", "one"))


def test_a_bundle_that_spec_has_made(user: User) -> None:
    made = (
        f"mkdir -p bundle/rootfs && tar -xf {images.busybox_archive()} -C bundle/rootfs"
        f" && cd bundle && {RUNTIME} spec --rootless && sed -i"
        """ 's/"terminal": true/"terminal": false/; s/"sh"/"id","-u"/' config.json"""
        f" && {RUNTIME} run one && {RUNTIME} --rootless=true run two"
    )
    assert done(user.run("sh", "-c", made)) == "0\n0"
