"""/proc, /sys and /dev as a hostile image prepares them, and what masks and sysctls do then."""

import os
import pathlib
import time

import pytest

from tests.security.hostile import make_image, unprotected
from tests.support.archives import CHARACTER, DIRECTORY, FIFO, SYMLINK, member
from tests.support.commands import Engine, finish

FAKE = (
    member(b"proc/self/attr/exec", data=b"fake"),
    member(b"proc/self/attr/apparmor/exec", data=b"fake"),
    member(b"proc/sys/kernel/core_pattern", data=b"fake"),
    member(b"proc/kcore", data=b"fake"),
    member(b"proc/1/status", data=b"fake"),
)


def test_a_directory_prepared_as_procfs(ketch: Engine) -> None:
    """CVE-2019-19921: the image brings a /proc of its own; ours is mounted over it."""
    make_image(ketch, "prepared", *FAKE)
    script = "stat -fc %T /proc; head -n1 /proc/1/status; cat /proc/self/attr/exec; true"
    text = ketch.ok("run", "--rm", "--network", "none", "prepared", "sh", "-c", script)
    assert text.splitlines()[:2] == ["proc", "Name:\tsh"]
    assert "fake" not in text


@pytest.mark.parametrize(
    "place", ["/proc", "/proc/", "/proc/sys", "/proc/self/attr", "/tmp/../proc"]
)
@pytest.mark.parametrize("option", ["-v", "--tmpfs"])
def test_a_volume_over_procfs_is_refused(
    ketch: Engine, shared: pathlib.Path, option: str, place: str
) -> None:
    """CVE-2019-16884: a volume at /proc, so that labels are written to a file of the image's.

    runc: "cannot be mounted because it is inside /proc".
    """
    value = f"{shared}:{place}" if option == "-v" else place
    result = ketch("run", "--rm", "--network", "none", option, value, "busybox", "true")
    assert result.status == 125, str(result)
    assert "/proc" in result.err


# The label goes where "self" leads in the procfs at hand.
LABEL = """
import os, sys
from ketch.linux import mount
from ketch.runtime import tuning
tuning._is_active = lambda module: True
label = tuning.apparmor("unconfined")
label.look_back()
mount.mount("tmpfs", "/proc", "tmpfs")
os.makedirs("/proc/self/attr/apparmor")
for path in ("/proc/self/attr/exec", "/proc/self/attr/apparmor/exec"):
    open(path, "w").close()
if sys.argv[1] == "weak":
    label.descriptor = os.open("/proc", os.O_PATH)
try:
    label.execute()
except Exception as error:  # whatever the real kernel makes of a label it does not know
    pass
print(os.path.getsize("/proc/self/attr/exec") + os.path.getsize("/proc/self/attr/apparmor/exec"))
"""


@pytest.mark.parametrize(("which", "written"), [("ours", False), ("weak", True)])
def test_a_label_is_written_to_the_hosts_procfs(which: str, written: bool) -> None:
    """CVE-2019-16884, CVE-2025-52881: a fake procfs takes the label, and the program runs without.

    The host's procfs is held open since before the container's was there.
    """
    assert (unprotected(LABEL, which) != "0") == written


# /dev/null is what the image says it is: CVE-2025-31133.
MASK = """
import os, sys, pathlib
from ketch.linux import mount
from ketch.linux.openat2 import openat2
from ketch.runtime.filesystem import MaskPath
root = pathlib.Path(sys.argv[1])
mount.mount("tmpfs", str(root), "tmpfs")
for name in ("dev", "proc"):
    (root / name).mkdir()
mount.mount("proc", str(root / "proc"), "proc")
(root / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
descriptor = os.open(root, os.O_PATH)
if sys.argv[2] == "weak":
    tree = mount.open_tree(openat2(descriptor, "/dev/null", os.O_PATH), "", mount.OPEN_TREE_CLONE)
    mount.move_mount(tree, openat2(descriptor, "/proc/version", os.O_PATH))
else:
    MaskPath("/proc/version").execute(descriptor)
pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text()
print((root / "proc/version").read_text() == pattern)
"""


@pytest.mark.parametrize(("which", "uncovered"), [("ours", "False"), ("weak", "True")])
def test_a_mask_is_the_hosts_null_device(
    tmp_path: pathlib.Path, which: str, uncovered: str
) -> None:
    """CVE-2025-31133: /dev/null is a symlink, so masking binds core_pattern, writable.

    The mask's source is the host's null device, looked up before the root changes.
    """
    assert unprotected(MASK, str(tmp_path), which) == uncovered


@pytest.mark.root_engine("who may not write to /proc/sys is told so before its mount is asked")
@pytest.mark.parametrize("kind", ["symlink", "file", "fifo", "directory", "device"])
def test_an_image_with_another_null_device(ketch: Engine, kind: str) -> None:
    """CVE-2025-31133 with an image: /dev is ours, and so are the masks."""
    null = {
        "symlink": member(b"dev/null", SYMLINK, link=b"/proc/sys/kernel/core_pattern", mode=0o777),
        "file": member(b"dev/null", data=b"fake", mode=0o666),
        "fifo": member(b"dev/null", FIFO, mode=0o666),
        "directory": member(b"dev/null", DIRECTORY, mode=0o777),
        "device": member(b"dev/null", CHARACTER, device=(1, 5), mode=0o666),
    }[kind]
    make_image(ketch, "null", null)
    assert ketch.ok("run", "--rm", "--network", "none", "null", "sh", "-c", LOOK) == LOOKS


# What is masked and there; and that nothing of /proc/sys can be written.
LOOK = """for path in /dev/null /proc/keys /proc/interrupts; do stat -Lc %t:%T $path; done
(echo >>/proc/sys/kernel/core_pattern) 2>&1 | grep -o 'Read-only file system'"""
LOOKS = "1:3\n1:3\n1:3\nRead-only file system"


@pytest.mark.root_engine("who may not write to /proc/sys is told so before its mount is asked")
def test_a_volume_as_dev_with_another_null_device(ketch: Engine, shared: pathlib.Path) -> None:
    """CVE-2025-31133 where the image, or a neighbour, even has /dev: the masks are still ours."""
    (shared / "null").symlink_to("/proc/sys/kernel/core_pattern")
    for name in ("pts", "shm", "mqueue"):
        (shared / name).mkdir()
    script = LOOK.replace("/dev/null ", "")
    text = ketch.ok(
        "run", "--rm", "--network", "none", "-v", f"{shared}:/dev", "busybox", "sh", "-c", script
    )
    assert text == LOOKS.removeprefix("1:3\n")


@pytest.mark.parametrize("kind", ["fifo", "file", "symlink", "directory", "nothing"])
def test_a_terminal_from_a_hostile_dev(ketch: Engine, shared: pathlib.Path, kind: str) -> None:
    """CVE-2025-52565: what stands at /dev/pts and /dev/console decides what becomes the console.

    The terminal is opened beneath the root, asked whether it is one, and bound by descriptor.
    """
    (shared / "pts").mkdir()
    ptmx = shared / "pts/ptmx"
    if kind == "fifo":
        os.mkfifo(ptmx)
    elif kind == "file":
        ptmx.touch()
    elif kind == "symlink":
        ptmx.symlink_to("/proc/sys/kernel/core_pattern")
    elif kind == "directory":
        ptmx.mkdir()
    (shared / "console").symlink_to("/proc/sysrq-trigger")
    began = time.monotonic()
    terminal = ketch.terminal("run", "--rm", "-t", "--network", "none", "-v", f"{shared}:/dev",
                              "busybox", "echo", "started")  # fmt: skip
    text = terminal.read()
    assert finish(terminal) == 125, text
    assert "started" not in text.splitlines()
    assert time.monotonic() - began < 10


def test_the_console_is_the_containers_terminal(ketch: Engine) -> None:
    """CVE-2025-52565 with an image: its /dev/console and /dev/pts/0 count for nothing."""
    make_image(ketch, "console",
               member(b"dev/console", SYMLINK, link=b"/proc/sysrq-trigger", mode=0o777),
               member(b"dev/pts/0", SYMLINK, link=b"/proc/kcore", mode=0o777),
               member(b"dev/ptmx", SYMLINK, link=b"/proc/kcore", mode=0o777))  # fmt: skip
    script = "stat -c %t:%T /dev/console /dev/pts/0; readlink /dev/ptmx; tty"
    terminal = ketch.terminal(
        "run", "--rm", "-t", "--network", "none", "console", "sh", "-c", script
    )
    text = terminal.read()
    assert finish(terminal) == 0
    assert text.split() == ["88:0", "88:0", "pts/ptmx", "/dev/pts/0"]


@pytest.mark.parametrize(
    "given",
    [
        "kernel.core_pattern=|/evil",
        "net/../kernel/core_pattern=|/evil",
        "net.//.kernel.core_pattern=|/evil",
        "vm.drop_caches=3",
    ],
)
def test_a_sysctl_of_the_hosts(ketch: Engine, given: str) -> None:
    """A parameter that belongs to no namespace would change the host, however it is spelled."""
    before = pathlib.Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8")
    result = ketch("run", "--rm", "--network", "none", "--sysctl", given, "busybox", "true")
    assert result.status == 125, str(result)
    assert pathlib.Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8") == before


# Written by path in the container's tree, as runc did: CVE-2025-52881.
SYSCTL = """
import os, sys, pathlib
from ketch.linux import namespaces
from ketch.runtime.filesystem import WriteSysctl
root, trap, which = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
path = "proc/sys/kernel/domainname"
(root / path).parent.mkdir(parents=True)
(root / path).symlink_to(trap)
trap.touch()
namespaces.unshare(namespaces.CLONE_NEWUTS)
if which == "weak":
    (root / path).write_text("there")
else:
    WriteSysctl("kernel.domainname", "there").execute(os.open(root, os.O_PATH))
print(trap.read_text(), pathlib.Path("/proc/sys/kernel/domainname").read_text().strip())
"""


@pytest.mark.parametrize(("which", "trap"), [("ours", " there"), ("weak", "there (none)")])
def test_a_sysctl_goes_to_the_hosts_procfs(tmp_path: pathlib.Path, which: str, trap: str) -> None:
    """CVE-2025-52881: a write meant for procfs is redirected by what the container has at /proc.

    It goes through the host's procfs, before the root changes.
    """
    (tmp_path / "root").mkdir()
    found = unprotected(SYSCTL, str(tmp_path / "root"), str(tmp_path / "trap"), which)
    assert found == trap
