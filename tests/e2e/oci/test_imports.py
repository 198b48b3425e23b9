"""What each command of ketch-oci loads: a third of what it costs, so it is pinned."""

import pathlib
import subprocess

import pytest

from ketch.runtime.cli import seal
from tests.support import oci
from tests.support.commands import Engine

pytestmark = pytest.mark.root

# Loaded by every command.
BASE = {
    "_collections_abc", "_ctypes", "_json", "_stat", "_struct", "ctypes", "ctypes._endian",
    "encodings.ascii", "errno", "fcntl", "gc", "genericpath", "math", "os", "posixpath", "stat",
    "struct", "types",
    "ketch", "ketch.errors", "ketch.runtime", "ketch.runtime.cli", "ketch.runtime.cli.commands",
    "ketch.runtime.cli.grammar", "ketch.runtime.cli.log", "ketch.runtime.cli.main", "ketch.spec",
    "ketch.spec.flag", "ketch.spec.json_text", "ketch.spec.values",
}  # fmt: skip
# Loaded by what looks at a container's state.
LOOKING = BASE | {
    "ketch.cgroups", "ketch.cgroups.filesystem", "ketch.cgroups.freezer", "ketch.cgroups.group",
    "ketch.cgroups.layout", "ketch.cgroups.memory", "ketch.linux", "ketch.linux.libc",
    "ketch.linux.procfs", "ketch.linux.scopes", "ketch.runtime.state", "select",
}  # fmt: skip
# Loaded by what makes a container with device rules alone.
CREATING = LOOKING - {"ketch.cgroups.freezer"} | {
    "_socket", "select",
    *(f"ketch.cgroups.{name}" for name in ("blkio", "cpu", "devices", "facts", "resources")),
    *(f"ketch.linux.{name}" for name in (
        "beneath", "capabilities", "contested", "keyring", "loopback", "mount", "namespaces",
        "openat2", "process", "seccomp", "signals", "statfs", "tty", "uts",
    )),
    *(f"ketch.runtime.{name}" for name in (
        "cgroup_mount", "create", "filesystem", "handshake", "init", "mappings", "mount_options",
        "mounts", "namespaces", "null_device", "plan", "process", "program", "root", "steps",
        "validate",
        "cli.handover", "cli.seal", "cli.starting",
    )),
    *(f"ketch.spec.{name}" for name in (
        "capabilities", "digits", "number_lists", "passwd", "runtime_shape", "seccomp", "shape",
        "told",
    )),
}  # fmt: skip
CHANGING = {
    "_socket",
    "ketch.runtime.cli.changing",
    "ketch.runtime.cli.handover",
    "ketch.linux.process",
}
REMOVING = {"ketch.runtime.cli.removing", "ketch.linux.signals", "ketch.spec.digits",
            "ketch.spec.signals", "ketch.cgroups.members"}  # fmt: skip


def loaded(interpreter: str, *words: str) -> set[str]:
    """The modules that a command loads, less those of a bare interpreter."""

    def modules(*arguments: str) -> set[str]:
        command = [interpreter, "-I", "-S", "-X", "importtime", *arguments]
        null = subprocess.DEVNULL
        with subprocess.Popen(command, stdin=null, stdout=null, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            text = process.stderr.read()
            assert process.wait(20) == 0, text.decode()
        return {
            line.rpartition("|")[2].strip() for line in text.decode().splitlines() if "|" in line
        }

    parent = str(pathlib.Path(seal.__file__).parents[3])
    return modules("-c", seal.BOOT, parent, *words) - modules("-c", "")


@pytest.fixture
def interpreter(ketch_oci: str) -> str:
    """Return the sealed interpreter, which every command runs from."""
    subprocess.run([ketch_oci, "--version"], check=True, stdout=subprocess.DEVNULL)
    (found,) = pathlib.Path("/run/ketch-oci/.python/bin").iterdir()
    return str(found)


def test_commands_load_no_more_than_they_must(
    interpreter: str, ketch_oci: str, rootfs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    engine = Engine("ketch-oci", [ketch_oci, "--root", f"{tmp_path}/state"])
    sleeping = oci.write_bundle(tmp_path / "one", oci.configuration(rootfs, "sleep", "100"))
    config = oci.configuration(rootfs, "true")
    config["linux"]["cgroupsPath"] += "-true"
    ending = oci.write_bundle(tmp_path / "two", config)
    root = ["--root", f"{tmp_path}/state"]
    assert oci.quietly(engine, "create", "-b", sleeping, "c") == 0
    try:
        found = loaded(interpreter, *root, "run", "-b", ending, "r")
        more = {"termios", "ketch.runtime.cli.foreground", *REMOVING, "ketch.cgroups.freezer"}
        assert found <= CREATING | more, found - CREATING - more
        for words, more in (
            (["state", "c"], {"ketch.runtime.cli.looking", "ketch.spec.features", "pwd"}),
            (["start", "c"], CHANGING),
            (["kill", "c", "KILL"], REMOVING),
            (["delete", "--force", "c"], REMOVING),
        ):
            found = loaded(interpreter, *root, *words)
            assert found <= LOOKING | more, (words, found - LOOKING - more)
    finally:
        oci.delete_all(engine)
