"""The same attacks on ketch-oci, which has another start: no zygote, and its caller's streams."""

import json
import os
import pathlib
import shutil
import sys
import tarfile
from collections.abc import Iterator

import pytest

from tests.e2e.oci.conftest import ketch_oci  # noqa: F401 - a fixture by its name
from tests.security.hostile import PROGRAMS, PYTHON, UP
from tests.security.test_descriptors import NUMBERS
from tests.support import oci
from tests.support.commands import Engine
from tests.support.images import busybox_archive


@pytest.fixture
def runtime(tmp_path: pathlib.Path, ketch_oci: str) -> Iterator[Engine]:  # noqa: F811
    """Return ketch-oci with a state of its own."""
    engine = Engine("ketch-oci", [ketch_oci, "--root", str(tmp_path / "state")])
    yield engine
    oci.delete_all(engine)


@pytest.fixture
def bundle(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return the path of a bundle whose program the test writes."""
    directory = tmp_path / "bundle"
    with tarfile.open(busybox_archive()) as archive:
        archive.extractall(directory / "rootfs")
    for name in ("lib", "lib64"):
        (directory / "rootfs" / name).symlink_to(f"usr/{name}")
    return directory


def write(bundle: pathlib.Path, *arguments: str) -> str:
    """Write the bundle's configuration; return its path as an argument."""
    config = oci.configuration(bundle / "rootfs", *arguments)
    for place in {"/usr", sys.base_prefix}:
        config["mounts"].append({"destination": place, "source": place, "type": "bind",
                                 "options": ["rbind", "ro"]})  # fmt: skip
    return oci.write_bundle(bundle, config)


def test_a_program_that_is_its_runtime(runtime: Engine, bundle: pathlib.Path) -> None:
    """CVE-2019-5736: ketch-oci is started from a read-only mount of its interpreter."""
    evil = bundle / "rootfs/entry"
    evil.write_bytes(b"#!/proc/self/exe\n" + PROGRAMS.joinpath("open_exe.py").read_bytes())
    evil.chmod(0o755)
    found = json.loads(runtime.ok("run", "--bundle", write(bundle, "/entry"), "evil"))
    assert found["inode"] == os.stat(PYTHON).st_ino, "it was not its runtime that it ran"
    assert found["chmod"] == "Read-only file system"
    assert found["read-only"] is True


def test_a_program_through_a_leaked_descriptor(
    runtime: Engine, bundle: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """CVE-2024-21626: the program's path leads over a descriptor of the runtime's."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, tmp_path / "busybox")
    reached = []
    for number in NUMBERS:
        path = f"/proc/self/fd/{number}{UP}{tmp_path}/busybox"
        result = runtime("run", "--bundle", write(bundle, path, "true"), f"leak-{number}")
        if "no such file" not in result.err and "not a directory" not in result.err:
            reached.append(str(result))
        runtime("delete", "--force", f"leak-{number}")
    assert reached == []


def test_a_working_directory_of_exec_through_magic_links(
    runtime: Engine, bundle: pathlib.Path
) -> None:
    """CVE-2024-21626: --cwd through what the runtime holds open while it enters, or itself is.

    The descriptors of the way in are closed before the directory is looked up, and it must be
    beneath the container's root.
    """
    path = write(bundle, "sleep", "1000")
    assert oci.quietly(runtime, "run", "--detach", "--bundle", path, "magic") == 0
    (bundle / "mark").touch()  # outside of the root, beside it
    links = [f"/proc/self/fd/{number}" for number in NUMBERS[:12]]
    links += ["/proc/self/cwd", "/proc/self/root", "/proc/1/cwd", "/proc/1/root", "/proc/self/exe"]
    looking = 'test -e "$0" || test -e mark || test -e ../mark || test -e ../../mark || pwd'
    said = set()
    for link in links:
        for way in (link, f"{link}{UP}{bundle}", f"{link}/.."):
            result = runtime("exec", "--cwd", way, "magic", "sh", "-c", looking, f"{bundle}/mark")
            said.add(result.out.strip() if result.status == 0 else "refused")
    assert "refused" in said
    assert said <= {"refused", "/", "/proc"} | {f"/proc/{number}" for number in range(1, 1000)}


@pytest.mark.parametrize("how", ["run", "exec"])
def test_standard_streams_and_nothing_else(runtime: Engine, bundle: pathlib.Path, how: str) -> None:
    """CVE-2024-21626; and the caller's null device, which a container's root could change."""
    listing = "ls /proc/self/fd; chmod 666 /proc/self/fd/0 2>/dev/null; echo $?"
    if how == "run":
        text = runtime.ok("run", "--bundle", write(bundle, "sh", "-c", listing), "streams")
    else:
        assert oci.quietly(runtime, "run", "--detach", "--bundle",
                           write(bundle, "sleep", "1000"), "streams") == 0  # fmt: skip
        text = runtime.ok("exec", "streams", "sh", "-c", listing)
    assert text.split() == ["0", "1", "2", "3", "1"]


def test_procfs_through_a_symlink(runtime: Engine, bundle: pathlib.Path) -> None:
    """CVE-2019-19921, 2023-27561: /proc of the root is a symlink into a volume."""
    rootfs = bundle / "rootfs"
    (rootfs / "proc").rmdir()
    (rootfs / "proc").symlink_to("volume/proc")
    (rootfs / "volume/proc").mkdir(parents=True)
    result = runtime("run", "--bundle", write(bundle, "true"), "fake")
    assert result.status != 0
    assert "symlink" in result.err


def test_a_cgroup_beside_the_callers(runtime: Engine, bundle: pathlib.Path) -> None:
    """With ".." in its path a container's cgroup would lie, and limit, where the host's do."""
    config = oci.configuration(bundle / "rootfs", "true")
    config["linux"]["cgroupsPath"] = "/../../ketch-test-oci-escape"
    runtime("run", "--bundle", oci.write_bundle(bundle, config), "cgroup")
    assert not list(pathlib.Path("/sys/fs").glob("*escape*"))
    assert not list(pathlib.Path("/").glob("*escape*"))
