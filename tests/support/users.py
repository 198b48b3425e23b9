"""Ordinary users of this machine, made for a test run and taken away with all that is theirs."""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import pwd
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ketch.linux import capabilities
from tests.support import leftovers
from tests.support.commands import Engine, Result

NO_CGROUP = re.compile(r".*\bcgroup v1 gives ordinary users none")
_NS_GET_OWNER_UID = 0xB704  # linux/nsfs.h

# What the user's mount namespace has of its own: a device that distributions let everybody open,
# and the directory that systemd makes for a session.
_PLACES = """
set -e
mkdir -p "$1"
mount -t tmpfs -o mode=755 tmpfs "$1"
mknod -m 666 "$1/tun" c 10 200
mknod -m 666 "$1/fuse" c 10 229
for device in net/tun fuse; do
    if [ -e /dev/$device ]; then mount --bind "$1/${device#net/}" /dev/$device; fi
done
mkdir -p -m 700 "$1/session"
chown "$2" "$1/session"
echo ready
exec sleep infinity
"""


@dataclass(frozen=True)
class User:
    """An ordinary user, and how to be it.

    Attributes:
        name: what it is called.
        uid: its number.
        home: its home directory.
        session: its ``XDG_RUNTIME_DIR``.
        mounts: pid of a process in the mount namespace that it is in.
        environment: what ``run`` adds to the environment that a login gives.
    """

    name: str
    uid: int
    home: pathlib.Path
    session: str
    mounts: int
    environment: dict[str, str] = field(default_factory=dict)

    def prefix(self, **environment: str) -> list[str]:
        """Return the words that run a command as this user, in its home directory."""
        programs = pathlib.Path(sys.executable).parent
        variables = {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin:/usr/sbin",
            "XDG_RUNTIME_DIR": self.session,
            leftovers.RUN_VARIABLE: os.environ.get(leftovers.RUN_VARIABLE, ""),
            **self.environment,
            **environment,
        }
        return [
            "nsenter", f"--target={self.mounts}", "--mount", f"--wdns={self.home}", "--",
            "setpriv", f"--reuid={self.name}", f"--regid={self.name}", "--init-groups",
            "--reset-env", "--", "env", *(f"{name}={value}" for name, value in variables.items()),
        ]  # fmt: skip

    def program(self, path: pathlib.Path, *words: str) -> None:
        """Write a program that runs a command as this user, where and as its caller is otherwise.

        Args:
            path: of the program; its arguments are the command's last ones.
            words: the command's first ones.
        """
        own = {"HOME": str(self.home), "XDG_RUNTIME_DIR": self.session, "USER": self.name,
               "LOGNAME": self.name}  # fmt: skip
        # A test that gives a home, or a PATH, of its own means that.
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in own.items())
        enter, become = shutil.which("nsenter"), shutil.which("setpriv")
        path.write_text(f"""#!/bin/sh
[ "$HOME" = {shlex.quote(os.environ.get("HOME", ""))} ] && export {variables}
exec {enter} --target={self.mounts} --mount --wdns="$PWD" -- \\
    {become} --reuid={self.name} --regid={self.name} --init-groups -- {shlex.join(words)} "$@"
""", encoding="utf-8")  # fmt: skip
        path.chmod(0o755)

    @contextlib.contextmanager
    def owning(self) -> Iterator[None]:
        """Have the files that the calling thread makes belong to this user; it is root otherwise.

        The kernel takes from who changes its file system's ids what root may do with files:
        capabilities(7).
        """
        before = capabilities.get()
        libc = ctypes.CDLL(None)
        libc.setfsgid(self.uid)
        libc.setfsuid(self.uid)
        capabilities.set_(*before)
        try:
            yield
        finally:
            libc.setfsuid(0)
            libc.setfsgid(0)

    def run(self, *argv: str, timeout: float = 60, **environment: str) -> Result:
        """Run a program as this user, in its home directory, to its end."""
        return Engine("user", self.prefix(**environment))(*argv, timeout=timeout)

    @property
    def ketch(self) -> Engine:
        """The installed ketch, run by this user as it is, without any option."""
        return Engine("ketch", [*self.prefix(), "ketch"])

    def processes(self) -> list[int]:
        """Return the pids of all that runs as this user, or in user namespaces of its own.

        By an id alone nobody is told who is there as one of its subordinate ids: other tests map
        the same ones.
        """
        ids = [(self.uid, 1), *subordinate(self.name)]

        def has(uid: int) -> bool:
            return any(first <= uid < first + count for first, count in ids)

        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid, owner = int(entry.name), entry.stat().st_uid
                # A process that is not dumpable belongs to root.
                for line in (entry / "status").read_text(encoding="utf-8").splitlines():
                    if line.startswith("Uid:"):
                        owner = int(line.split()[1])
                if owner == self.uid or (has(owner) and has(_maker(entry))):
                    found.append(pid)
        return found

    def end(self) -> None:
        """Kill all that runs as this user."""
        for _ in range(100):
            pids = self.processes()
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        raise AssertionError(f"{self.name} cannot be ended: {pids}")


class OrdinaryEngine(Engine):
    """The ketch of an ordinary user, whoever runs it."""

    def ok(self, *arguments: str, **options: Any) -> str:
        """Run a command that must succeed; what needs a control group is left out where is none.

        The virtual machine's systemd delegates one.
        """
        result = self(*arguments, **options)
        if result.status and (refused := NO_CGROUP.search(result.err)):
            if containers := self("ps", "-aq").out.split():
                self("rm", "-f", *containers)
            pytest.skip(refused[0])
        assert result.status == 0, str(result)
        return result.out.removesuffix("\n")

    @property
    def host(self) -> Sequence[str]:
        """Words that run a program in the network where the engine's bridges are."""
        return [*self.prefix, "unshare", "--rootless-netns"]


@dataclass(frozen=True)
class UsersEngine(OrdinaryEngine):
    """The ketch of an ordinary user, by a program that runs it as this user.

    Attributes:
        user: whose it is.
    """

    user: User = field(kw_only=True)

    @property
    def python(self) -> Sequence[str]:
        """Words that run this Python as root of the user's namespaces, as the engine runs."""
        return [*self.prefix, "unshare", sys.executable]

    @property
    def mounts(self) -> Sequence[str]:
        """Words that run a program, as root, where what it mounts is the engine's to see."""
        return ["nsenter", f"--target={self.user.mounts}", "--mount"]

    def outside(self, number: int) -> int:
        """Return what an id of the engine's containers is on the machine."""
        ranges = subordinate(self.user.name)
        return ranges[0][0] + number - 1 if number and ranges else self.user.uid


def _maker(process: pathlib.Path) -> int:
    """Return the user who has made a process's user namespace: ioctl_ns(2)."""
    with (process / "ns" / "user").open("rb") as namespace:
        answer = fcntl.ioctl(namespace, _NS_GET_OWNER_UID, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


def subordinate(name: str) -> list[tuple[int, int]]:
    """Return the ranges of subordinate user ids that a user has: subuid(5)."""
    lines = pathlib.Path("/etc/subuid").read_text(encoding="utf-8").splitlines()
    fields = [line.split(":") for line in lines]
    return [(int(first), int(count)) for owner, first, count in fields if owner == name]


@contextlib.contextmanager
def accounts(how: int) -> Iterator[None]:
    """Have the files of the machine's accounts stay (LOCK_SH), or change them (LOCK_EX).

    useradd(8) puts other files in their place, and with a file goes what somebody has mounted on
    it, in whatever mount namespace: rename(2).
    """
    with open(__file__, "rb") as lock:
        fcntl.flock(lock, how)
        yield


@contextlib.contextmanager
def made(run_name: str, *, subordinate_ids: bool = True) -> Iterator[User]:
    """Make a user, and take it away with its processes and files.

    Args:
        run_name: by which what a run leaves is found.
        subordinate_ids: whether it has any.
    """
    name = f"ketch-{secrets.token_hex(4)}"
    # usermod(8) would not take ids away that a process has, be it another test's.
    none = [] if subordinate_ids else ["--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0"]
    with accounts(fcntl.LOCK_EX):
        subprocess.run(["useradd", "--create-home", *none, name], check=True)
    place = None
    try:
        entry = pwd.getpwnam(name)
        place = pathlib.Path(tempfile.mkdtemp(prefix=f"{run_name}-"))
        place.chmod(0o755)
        with subprocess.Popen(
            ["unshare", "--mount", "--propagation=slave", "sh", "-c", _PLACES, "sh", str(place),
             name], stdout=subprocess.PIPE,
        ) as mounts:  # fmt: skip
            try:
                assert mounts.stdout is not None
                assert mounts.stdout.readline() == b"ready\n"
                user = User(
                    name, entry.pw_uid, pathlib.Path(entry.pw_dir), f"{place}/session", mounts.pid
                )
                try:
                    yield user
                finally:
                    user.end()
                    shutil.rmtree(f"/tmp/ketch-{user.uid}", ignore_errors=True)
            finally:
                mounts.kill()
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        with accounts(fcntl.LOCK_EX):
            subprocess.run(["userdel", "--remove", name], check=True, stderr=subprocess.DEVNULL)
