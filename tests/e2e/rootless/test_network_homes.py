"""A home that a server keeps: the engine works there, on one machine at a time.

The virtual machine is NFS's server and its own client. Another machine is one of another name, with
processes and mounts of its own.
"""

import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import images, users
from tests.support.commands import Engine
from tests.support.users import User

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(
        not pathlib.Path("/ketch-vm/job").exists() or shutil.which("rpc.nfsd") is None,
        reason="serves NFS, which is not for everybody's machine: the virtual machine does",
    ),
]
_SERVE = """
modprobe nfsd && modprobe nfsv4
mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
mkdir -p /var/lib/nfs/v4recovery
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
exportfs -o rw,fsid=0,insecure,no_root_squash,no_subtree_check "127.0.0.1:$0"
rpc.nfsd --grace-time 10 --lease-time 10 --no-nfs-version 3 2
"""


@pytest.fixture(scope="module")
def away(run_name: str) -> Iterator[User]:
    """Return a user whose home, by HOME, is on NFS."""
    served = pathlib.Path("/served")
    served.mkdir()
    with users.made(run_name) as user:
        shutil.chown(served, user.name, user.name)
        served.chmod(0o700)
        place = user.home / "away"
        place.mkdir()
        subprocess.run(["sh", "-ec", _SERVE, str(served)], check=True)
        # Answers what the kernel's server asks of exports.
        exports = subprocess.Popen(["rpc.mountd", "--foreground", "--no-nfs-version", "3"])
        there = ["nsenter", f"--target={user.mounts}", "--mount"]
        subprocess.run([*there, "mount", "-t", "nfs4", "127.0.0.1:/", str(place)], check=True)
        user.environment["HOME"] = str(place)
        try:
            yield user
        finally:
            user.end()
            subprocess.run([*there, "umount", str(place)], check=True)
            subprocess.run(["rpc.nfsd", "0"], check=True)
            exports.terminate()
            exports.wait(30)
            subprocess.run(["exportfs", "-au"], check=True)
            subprocess.run(["umount", "/proc/fs/nfsd"], check=True)
            shutil.rmtree(served)


def _elsewhere(user: User) -> Engine:
    """Return the engine of the same user, as another machine that has the same home."""
    prefix = user.prefix(XDG_RUNTIME_DIR="")
    here = prefix.index("--") + 1
    script = 'hostname elsewhere && exec "$@"'
    machine = ["unshare", "--uts", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c",
               script, "sh"]  # fmt: skip
    return Engine("ketch", [*prefix[:here], *machine, *prefix[here:], "ketch"])


def test_it_works_there_and_says_which_machine_has_it(away: User) -> None:
    ketch = away.ketch
    ketch.ok("import", "-", "busybox", stdin=images.busybox_archive().read_bytes(), timeout=120)
    kept = ("run", "-d", "--name", "kept", "--network", "none", "-v", "volume:/volume", "busybox")
    ketch.ok(*kept, "sleep", "1000", timeout=120)
    ketch.ok("exec", "kept", "sh", "-c", "echo told > /volume/file; mkdir /usr/new", timeout=120)
    built = ketch.ok("build", "-q", "--network", "none", "-", timeout=120,
                     stdin="FROM busybox\nRUN echo built > /file\n")  # fmt: skip
    assert ketch.ok("run", "--rm", "--network", "none", built, "cat", "/file") == "built"

    check = ketch.ok("system", "check", timeout=120)
    assert "is on a network file system (nfs4), where layers cannot be stacked" in check

    other = _elsewhere(away)
    name = subprocess.run(["hostname"], capture_output=True, check=True, text=True).stdout.strip()
    theirs = f"is on a network file system (nfs4), and the engine of {name} is there"
    for words in (("ps",), ("rm", "-f", "kept"), ("system", "reset", "--force")):
        refused = other(*words, timeout=120)
        assert refused.status != 0
        assert theirs in refused.err
    assert "on a disk of this machine with --root or KETCH_ROOT" in refused.err
    assert other.ok("--root", f"/tmp/ketch-{away.uid}-root", "ps", "-q", timeout=120) == ""

    shutil.rmtree(f"/tmp/ketch-{away.uid}-root")
    assert ketch.ok("exec", "kept", "cat", "/volume/file", timeout=120) == "told"
    reset = ketch("system", "reset", "--force", timeout=120)
    assert (reset.status, reset.err) == (0, ""), str(reset)
    assert away.run("ls", "-A", f"{away.home}/away/.local/share").out == ""
