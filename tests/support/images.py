"""Root filesystems to make images from: made once from Debian's packages, kept in ``.cache``."""

import fcntl
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import urllib.request

from ketch.cli import lab

CHECKOUT = pathlib.Path(__file__).parents[2]
CACHE = CHECKOUT / ".cache"
_ROOTFS_SCRIPT = CHECKOUT / "scripts" / "busybox_rootfs.py"
IN_MEMORY = ("sh", str(pathlib.Path(__file__).with_name("in_memory.sh")))
# As in the image of Docker's registry: what is installed later does not wait for the disk either.
_UNSAFE = "--dpkgopt=force-unsafe-io"


class CannotMakeError(Exception):
    """This machine lacks what the image is made from; the message says what."""


def busybox_archive() -> pathlib.Path:
    """Return the tar archive of a root filesystem with busybox alone, about 2 MB."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise CannotMakeError("busybox is not installed (Debian: busybox-static)")
    inputs = max(os.stat(busybox).st_mtime_ns, _ROOTFS_SCRIPT.stat().st_mtime_ns)
    archive = CACHE / f"busybox-{platform.machine()}.tar"
    if not archive.exists() or archive.stat().st_mtime_ns < inputs:
        subprocess.run([sys.executable, str(_ROOTFS_SCRIPT), str(archive)], check=True)
    return archive


def debian_archive(suite: str = "bookworm") -> pathlib.Path:
    """Return the tar archive of a whole, minimal Debian with apt, about 170 MB.

    It is taken from wherever this machine's own apt takes that suite.
    """
    archive = CACHE / f"debian-{suite}-{platform.machine()}.tar"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "debian.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # it takes a minute, and is not made several times at once
        if not archive.exists():
            _make_debian(suite, archive)
    return archive


def systemd_archive() -> pathlib.Path:
    """Return the tar archive of a Debian with systemd as its init.

    Where mmdebstrap cannot be had it is what this machine itself booted, less what does not matter.
    """
    archive = CACHE / f"debian-systemd-{platform.machine()}.tar"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "debian.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if archive.exists():
            return archive
        if shutil.which("mmdebstrap"):
            _make_debian("bookworm", archive, "--include=systemd-sysv,dbus")
        elif pathlib.Path("/run/systemd/system").exists():
            _make(["tar", "-C", "/", "--one-file-system", "-cf", str(archive),
                   *(f"--exclude=usr/{place}" for place in _NO_SYSTEM),
                   *("bin", "sbin", "lib", "lib64", "etc", "usr")])  # fmt: skip
        else:
            raise CannotMakeError("mmdebstrap is not installed")
    return archive


def lab_archive() -> pathlib.Path:
    """Return the tar archive of the root file system of ``ketch lab``, made as that makes it."""
    archive = CACHE / f"{lab.image().replace(':', '-')}-{platform.machine()}.tar"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "debian.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            if not shutil.which("mmdebstrap"):
                raise CannotMakeError("mmdebstrap is not installed")
            partial = archive.with_suffix(f".{os.getpid()}")
            try:
                with partial.open("wb") as file:
                    done = subprocess.run(
                        [*IN_MEMORY, *lab.recipe("")], check=False, stdin=subprocess.DEVNULL,
                        stdout=file, stderr=subprocess.PIPE,
                    )  # fmt: skip
                if done.returncode:
                    said = done.stderr.decode(errors="replace").strip()
                    raise CannotMakeError(f"mmdebstrap failed: {said[-400:]}")
                for stale in CACHE.glob(f"{lab.NAME}-*.tar"):
                    stale.unlink()
                partial.rename(archive)
            finally:
                partial.unlink(missing_ok=True)
    return archive


_NO_SYSTEM = ("lib/python3*", "lib/modules", "lib/x86_64-linux-gnu/perl*", "share")


def _make_debian(suite: str, archive: pathlib.Path, *more: str) -> None:
    mirror = _mirror(suite)
    partial = archive.with_suffix(f".{os.getpid()}")
    try:
        if shutil.which("mmdebstrap"):
            options = [f"--aptopt={line}" for line in _acquire_options()]
            _make([*IN_MEMORY, "mmdebstrap", "--variant=minbase", "--mode=root", "--format=tar",
                   _UNSAFE, *options, *more, suite, str(partial),
                   f"deb {mirror} {suite} main"])  # fmt: skip
        elif shutil.which("debootstrap"):
            root = partial.with_suffix(".root")
            try:
                _make(["debootstrap", "--variant=minbase", suite, str(root), mirror])
                _make(["tar", "-C", str(root), "--numeric-owner", "-cf", str(partial), "."])
            finally:
                shutil.rmtree(root, ignore_errors=True)
        else:
            raise CannotMakeError("neither mmdebstrap nor debootstrap is installed")
        partial.rename(archive)
    finally:
        partial.unlink(missing_ok=True)


def packages_reachable() -> bool:
    """Tell whether this machine's apt can fetch from its Debian mirror now."""
    try:
        with urllib.request.urlopen(f"{_mirror('bookworm')}dists/bookworm/Release", timeout=10):
            return True
    except (CannotMakeError, OSError):
        return False


def _make(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        program = "mmdebstrap" if "mmdebstrap" in command else command[0]
        raise CannotMakeError(f"{program} failed: {done.stderr.strip()[-400:]}")


def _mirror(suite: str) -> str:
    """Ask apt where it takes Debian's ``suite`` from."""
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages",
         "Origin: Debian", f"Codename: {suite}"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    uris = listing.stdout.split()
    if not uris:
        raise CannotMakeError(f"this machine's apt has no source for Debian {suite}")
    return uris[0]


def _acquire_options() -> list[str]:
    """Return what this machine's apt says of how to fetch (proxies, clock checks)."""
    dump = subprocess.run(
        ["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-")
    return [line for line in dump.stdout.splitlines()
            if line.startswith(wanted) and not line.endswith('"";')]  # fmt: skip
