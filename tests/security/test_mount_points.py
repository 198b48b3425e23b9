"""Mount points that a hostile image or a neighbour chose: symlinks, exchanged while in use."""

import os
import pathlib
import time

import pytest

from tests.security.hostile import UP, make_image, program, unprotected, volumes
from tests.support.archives import SYMLINK, member
from tests.support.commands import Engine


@pytest.fixture
def outside(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return an empty directory of the host, which no test may fill."""
    directory = tmp_path / "outside"
    directory.mkdir()
    return directory


# A mount point made by its text, as runc 1.1.13 did: CVE-2024-45310.
JOINED = """
import os, sys
root, target = sys.argv[1:]
os.makedirs(root + target)
"""


def test_joining_paths_leads_out(tmp_path: pathlib.Path, outside: pathlib.Path) -> None:
    """The attack itself, on a step without our rule."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside)
    unprotected(JOINED, str(root), "/link/made")
    assert os.listdir(outside) == ["made"]


@pytest.mark.root_engine(
    "an ordinary user's devices are bound, and no link on the way is followed", of="device"
)
@pytest.mark.parametrize("up", ["", UP], ids=["absolute", "dots"])
@pytest.mark.parametrize("what", ["volume", "file", "tmpfs", "workdir", "device", "exec-workdir"])
def test_a_symlink_in_the_image(
    ketch: Engine, outside: pathlib.Path, shared: pathlib.Path, what: str, up: str
) -> None:
    """CVE-2024-45310: the target of -v leads through the image's symlink, and is made on the host.

    Targets are looked up and made beneath the root's descriptor (openat2, RESOLVE_IN_ROOT).
    """
    link = member(b"link", SYMLINK, link=os.fsencode(f"{up}{outside}"), mode=0o777)
    make_image(ketch, "linked", link)
    (shared / "file").touch()
    options = {
        "volume": ["-v", f"{shared}:/link/made"],
        "file": ["-v", f"{shared}/file:/link/deep/made"],
        "tmpfs": ["--tmpfs", "/link/made"],
        "workdir": ["-w", "/link/made"],
        "device": ["--device", "/dev/zero:/link/made"],
        "exec-workdir": [],
    }[what]
    script = f"ls -R {outside}" if options else f"mkdir -p {outside}/made; ls {outside}"
    text = ketch.ok("run", "--rm", "--network", "none", *options, "linked", "sh", "-c", script)
    assert "made" in text, "it is not inside either"
    assert os.listdir(outside) == []


@pytest.mark.parametrize("name", ["etc/hosts", "etc/resolv.conf", "etc/hostname", "etc", "dev",
                                  "tmp/x"])  # fmt: skip
def test_symlinks_where_ketch_itself_mounts(
    ketch: Engine, outside: pathlib.Path, name: str
) -> None:
    """The same with what is mounted unasked: name files, /dev with its nodes."""
    (outside / "kept").write_text("kept", encoding="ascii")
    target = outside / "kept" if "/" in name else outside
    link = member(name.encode(), SYMLINK, link=os.fsencode(f"{UP}{target}"), mode=0o777)
    make_image(ketch, "linked", link, without=(name,))
    ketch.ok("run", "--rm", "--network", "none", "linked", "sh", "-c",
             f"(echo evil >/{name}; echo evil >/{name}/evil) 2>/dev/null; true")  # fmt: skip
    assert os.listdir(outside) == ["kept"]
    assert (outside / "kept").read_text(encoding="ascii") == "kept"


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_procfs_through_a_symlink_is_refused(ketch: Engine, name: str) -> None:
    """CVE-2019-19921, 2023-27561: /proc is a symlink, so procfs appears elsewhere, unmasked."""
    make_image(ketch, "linked", member(name.encode(), SYMLINK, link=b"/elsewhere", mode=0o777),
               member(b"elsewhere", "5", mode=0o755), without=(name,))  # fmt: skip
    result = ketch("run", "--rm", "--network", "none", "linked", "ls", "/elsewhere")
    assert result.status == 125, str(result)
    assert "symlink" in result.err


# Between a check and its use a neighbour has changed what the name means: CVE-2021-30465.
CHECKED_THEN_USED = """
import os, sys
volume, outside = sys.argv[1:]
target = volume + "/target"
assert not os.path.islink(target)
os.rename(target, volume + "/was")
os.symlink(outside, target)
os.makedirs(target + "/made")
"""


def test_a_check_before_its_use_leads_out(shared: pathlib.Path, outside: pathlib.Path) -> None:
    """The race itself, on a step without our rule, won by appointment."""
    (shared / "target").mkdir()
    unprotected(CHECKED_THEN_USED, str(shared), str(outside))
    assert os.listdir(outside) == ["made"]


@pytest.mark.root_engine("the races of a mount are the same for whoever mounts, and take long")
def test_a_neighbour_exchanges_the_mount_point(
    ketch: Engine, attacker: str, shared: pathlib.Path, outside: pathlib.Path
) -> None:
    """CVE-2021-30465: a container swaps a directory and a symlink of a volume that both mount.

    A mount goes to the descriptor of its mount point, which is found in one system call.
    """
    (shared / "target").mkdir()
    (shared / "link").symlink_to(f"{UP[1:]}{outside}")
    secret = shared.parent / "secret"
    secret.mkdir()
    (secret / "token").write_text("secret", encoding="ascii")
    race = program("exchange", "/shared/target", "/shared/link")
    ketch.ok("run", "-d", "--name", "racer", "--network", "none", "-v", f"{shared}:/shared",
             *volumes(), attacker, *race)  # fmt: skip
    seconds: list[float] = []
    places: set[str] = set()
    until = time.monotonic() + 6
    while time.monotonic() < until and len(seconds) < 60:
        began = time.monotonic()
        result = ketch("run", "--rm", "--network", "none", "-v", f"{shared}:/mnt/volume",
                       "-v", f"{secret}:/mnt/volume/target/made", "busybox",
                       "sh", "-c", "grep /made /proc/mounts | cut -d' ' -f2")  # fmt: skip
        seconds.append(time.monotonic() - began)
        places.update(result.out.split())
        # Where the race makes a start fail, it fails and says so.
        assert result.status in {0, 125}, str(result)
    ketch.ok("rm", "-f", "racer")
    assert os.listdir(outside) == []
    assert max(seconds) < 5, "a race holds starts up"
    # Beneath the volume by either name that the directory has, or by the symlink inside the root.
    assert places <= {"/mnt/volume/target/made", "/mnt/volume/link/made", f"{outside}/made"}
    assert places, "no start succeeded"


def test_mounts_do_not_reach_the_host(ketch: Engine, shared: pathlib.Path) -> None:
    """A privileged container mounts in a volume: propagation would show that on the host."""
    before = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").count(str(shared))
    ketch.ok("run", "--rm", "--privileged", "--network", "none", "-v", f"{shared}:/shared",
             "busybox", "mount", "-t", "tmpfs", "tmpfs", "/shared")  # fmt: skip
    after = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").count(str(shared))
    assert before == after
