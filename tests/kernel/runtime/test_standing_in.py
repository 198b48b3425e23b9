"""Calls that are answered in the kernel's place: what a program is told, and what is remembered.

The program is a process under a filter that asks for every change of owner and for device nodes.
"""

import ctypes
import errno
import json
import os
import pathlib
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ketch.linux import notifications, owners, process
from ketch.linux import seccomp as kernel
from ketch.runtime import standing_in
from ketch.runtime.libseccomp import Libseccomp

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers here are those of x86_64"),
]

CHOWN, FCHOWN, LCHOWN, MKNOD, MKNODAT, FCHOWNAT = 92, 93, 94, 133, 259, 260
NAMES = ["chown", "fchown", "lchown", "mknod", "mknodat", "fchownat"]
HERE, NOFOLLOW, EMPTY_PATH = -100, 0x100, 0x1000
SAME = -1  # an id that stays
CHARACTER = stat.S_IFCHR

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

Place = pathlib.Path
Program = Callable[[], Any]


def call(number: int, *arguments: int | str) -> str:
    """``done``, or the name of the error of a system call made here and now."""
    passed = [ctypes.c_char_p(os.fsencode(one)) if isinstance(one, str) else ctypes.c_long(one)
              for one in arguments]  # fmt: skip
    if libc.syscall(ctypes.c_long(number), *passed) >= 0:
        return "done"
    return errno.errorcode[ctypes.get_errno()]


class Asking:
    """A process that waits before it does something under the filter."""

    def __init__(self, program: Program) -> None:
        names: Any = [{"names": NAMES, "action": "SCMP_ACT_NOTIFY"}]
        code = Libseccomp().compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": names})
        self._connection, theirs = socket.socketpair()
        self._connection.settimeout(20)
        self.pid = os.fork()
        if self.pid == 0:
            self._connection.close()
            listener = kernel.load(code, kernel.FILTER_FLAG_NEW_LISTENER)
            socket.send_fds(theirs, [b"x"], [listener])
            os.close(listener)
            theirs.recv(1)
            try:
                result = program()
            except BaseException as error:  # noqa: BLE001 the parent asserts on it
                result = f"{type(error).__name__}: {error}"
            theirs.sendall(json.dumps(result).encode())
            os._exit(0)
        theirs.close()
        _, (self.listener,), _, _ = socket.recv_fds(self._connection, 1, 1)

    def begin(self) -> None:
        self._connection.sendall(b"x")

    def said(self) -> Any:
        with self._connection.makefile("rb") as stream:
            return json.loads(stream.read() or b"null")

    def close(self) -> None:
        self._connection.close()
        os.close(self.listener)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def answered(program: Program) -> Any:
    """What a program returns for which a supervisor answers."""
    asking = Asking(program)
    try:
        standing_in.start(asking.listener)
        asking.begin()
        return asking.said()
    finally:
        asking.close()


@pytest.fixture
def place(tmp_path: Place) -> Iterator[Place]:
    """A directory with a file, a directory with one, and links to both."""
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/inner").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dir/absolute").symlink_to("/file")
    before = os.getcwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def owner(path: str) -> tuple[int, int] | None:
    """What is remembered of a file itself."""
    found = owners.seen(path.encode())
    return (found.uid, found.gid) if found else None


def test_each_call_changes_what_it_means(place: Place) -> None:
    directory = os.open("dir", os.O_RDONLY)
    handle = os.open("dir/inner", os.O_RDONLY)

    for number, arguments, path, expected in (
        (CHOWN, ("file", 1, 2), "file", (1, 2)),
        (CHOWN, ("link", 3, 4), "file", (3, 4)),
        (LCHOWN, ("link", 5, 6), "file", (3, 4)),
        (LCHOWN, ("file", 5, 6), "file", (5, 6)),
        (FCHOWN, (directory, 7, 8), "dir", (7, 8)),
        (FCHOWNAT, (directory, "inner", 9, 10, 0), "dir/inner", (9, 10)),
        (FCHOWNAT, (HERE, "link", 11, 12, NOFOLLOW), "file", (5, 6)),
        (FCHOWNAT, (HERE, "link", 11, 12, 0), "file", (11, 12)),
        (FCHOWNAT, (handle, "", 13, 14, EMPTY_PATH), "dir/inner", (13, 14)),
        (FCHOWNAT, (HERE, "", 15, 16, EMPTY_PATH), ".", (15, 16)),
        # An absolute path needs no directory.
        (FCHOWNAT, (99, f"{place}/file", 17, 18, 0), "file", (17, 18)),
        (CHOWN, ("file", SAME, 19), "file", (17, 19)),
        (CHOWN, ("file", 20, SAME), "file", (20, 19)),
        (CHOWN, ("dir/inner", 0, 0), "dir/inner", None),
        (CHOWN, ("dir/../dir", SAME, 21), "dir", (7, 21)),
    ):  # fmt: skip
        assert answered(lambda n=number, a=arguments: call(n, *a)) == "done"  # type: ignore[misc]
        assert owner(path) == expected, (number, arguments)
    status = os.stat("file")
    assert (status.st_uid, status.st_gid) == (0, 0)  # and nothing but the attribute changed
    os.close(directory)
    os.close(handle)


@pytest.mark.parametrize(
    ("number", "arguments", "error"),
    [
        (CHOWN, ("missing", 1, 1), "ENOENT"),
        (CHOWN, ("file/below", 1, 1), "ENOTDIR"),
        (CHOWN, ("", 1, 1), "ENOENT"),
        (CHOWN, (8, 1, 1), "EFAULT"),
        (CHOWN, (-8, 1, 1), "EFAULT"),
        (CHOWN, ("x" * 5000, 1, 1), "ENAMETOOLONG"),
        (FCHOWN, (99, 1, 1), "EBADF"),
        (FCHOWN, (-1, 1, 1), "EBADF"),
        (FCHOWNAT, (99, "file", 1, 1, 0), "EBADF"),
        (FCHOWNAT, (-5, "file", 1, 1, 0), "EBADF"),
        (FCHOWNAT, (99, "", 1, 1, EMPTY_PATH), "EBADF"),
        (FCHOWNAT, (HERE, "", 1, 1, 0), "ENOENT"),
        (MKNOD, ("file", CHARACTER | 0o600, 259), "EEXIST"),
        (MKNOD, ("missing/node", CHARACTER | 0o600, 259), "ENOENT"),
        (MKNOD, ("node/", CHARACTER | 0o600, 259), "ENOENT"),
        (MKNOD, ("file/node", CHARACTER | 0o600, 259), "ENOTDIR"),
        (MKNOD, ("", CHARACTER | 0o600, 259), "ENOENT"),
    ],
)  # fmt: skip
def test_errors_are_the_kernels(
    place: Place, number: int, arguments: tuple[int | str, ...], error: str
) -> None:
    assert call(number, *arguments) == error  # what it says itself
    assert answered(lambda: call(number, *arguments)) == error
    assert not (place / "node").exists()


@pytest.mark.parametrize("mode", [0o6755, 0o4755, 0o4644, 0o2755, 0o2745, 0o2644, 0o6711, 0o1755])
@pytest.mark.parametrize("kind", ["file", "dir"])
def test_privileges_go_with_the_owner_as_in_the_kernel(place: Place, kind: str, mode: int) -> None:
    """Set-id bits and capabilities: what was to be run as its owner is not run as the next one."""
    capabilities = bytes.fromhex("0100000200040000000000000000000000000000")
    for path in ("by-kernel", "by-us"):
        if kind == "file":
            (place / path).touch()
            os.setxattr(path, "security.capability", capabilities)
        else:
            (place / path).mkdir()
        os.chmod(path, mode)
    assert call(CHOWN, "by-kernel", 1, 2) == "done"
    assert answered(lambda: call(CHOWN, "by-us", 1, 2)) == "done"
    assert oct(os.stat("by-us").st_mode) == oct(os.stat("by-kernel").st_mode)
    assert "security.capability" not in os.listxattr("by-us")
    assert owner("by-us") == (1, 2)


def test_device_nodes_are_stood_in_for_and_others_made(place: Place) -> None:
    directory = os.open("dir", os.O_RDONLY)

    def program() -> list[str]:
        os.umask(0o027)
        return [
            call(MKNOD, "null", CHARACTER | 0o666, os.makedev(1, 3)),
            call(MKNODAT, directory, "disk", stat.S_IFBLK | 0o660, os.makedev(8, 300)),
            call(MKNOD, "dir/absolute", CHARACTER | 0o600, os.makedev(1, 3)),
            call(MKNOD, "fifo", stat.S_IFIFO | 0o666, 0),
            call(MKNOD, "plain", 0o666, 0),
            call(MKNOD, "whiteout", CHARACTER, 0),
        ]

    assert answered(program) == ["done", "done", "EEXIST", "done", "done", "done"]
    for path, kind, device, mode in (
        ("null", stat.S_IFCHR, os.makedev(1, 3), 0o640),
        ("dir/disk", stat.S_IFBLK, os.makedev(8, 300), 0o640),
    ):
        found = owners.seen(path.encode())
        assert found is not None
        assert (found.kind, found.device, found.uid, found.gid) == (kind, device, 0, 0)
        status = os.stat(path)
        assert (stat.S_ISREG(status.st_mode), status.st_mode & 0o7777) == (True, mode)
    assert stat.S_ISFIFO(os.stat("fifo").st_mode)
    assert os.stat("plain").st_mode == stat.S_IFREG | 0o640
    assert (os.stat("whiteout").st_mode, os.stat("whiteout").st_rdev) == (stat.S_IFCHR, 0)
    assert owners.seen(b"plain") is None
    os.close(directory)


def test_paths_are_those_of_the_callers_root(place: Place) -> None:
    """By links and by ``..`` alike; what leads to an open file is changed by nobody."""
    (place / "outside").touch()
    (place / "dir/file").touch()
    handle = os.open("outside", os.O_RDONLY)

    def program() -> list[str]:
        os.chroot("dir")
        os.chdir("/")
        return [
            call(CHOWN, "/absolute", 1, 2),
            call(CHOWN, "../../../inner", 3, 4),
            call(CHOWN, "/../outside", 5, 6),
            call(MKNOD, "/../made", CHARACTER | 0o600, 259),
        ]

    assert answered(program) == ["done", "done", "ENOENT", "done"]
    assert (owner("dir/file"), owner("dir/inner"), owner("file")) == ((1, 2), (3, 4), None)
    assert (place / "dir/made").exists()
    assert not (place / "made").exists()
    for path in (f"/proc/self/fd/{handle}", f"/dev/fd/{handle}", f"/proc/{os.getpid()}/fd/{handle}",
                 f"/proc/{os.getpid()}/root{place}/outside"):  # fmt: skip
        assert answered(lambda path=path: call(CHOWN, path, 7, 8)) == "done"  # type: ignore[misc]
    assert owner("outside") is None
    os.close(handle)


def test_other_files_stay_whose_they_are(place: Place) -> None:
    os.mkfifo("fifo")
    assert answered(lambda: [call(CHOWN, "fifo", 1, 2), call(CHOWN, "/dev/null", 1, 2)]) == [
        "done", "done",
    ]  # fmt: skip
    assert os.stat("fifo").st_uid == os.stat("/dev/null").st_uid == 0


def awaited(asking: Asking) -> notifications.Notification:
    asking.begin()
    found = notifications.receive(asking.listener)
    assert found is not None
    return found


def test_a_call_that_is_given_up_changes_nothing(place: Place) -> None:
    """By then its pid may be another process's, and what it was to change another one's file."""

    reader, writer = os.pipe()

    def program() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        os.write(writer, call(CHOWN, "file", 1, 2).encode())
        time.sleep(60)

    asking = Asking(program)
    own = os.open("/", os.O_PATH)
    try:
        waiting = awaited(asking)
        os.kill(asking.pid, signal.SIGUSR1)
        assert os.read(reader, 100) == b"EINTR"
        assert not notifications.is_waiting(asking.listener, waiting)
        assert standing_in._answer(asking.listener, waiting, own) == (errno.EINTR, 0)
        assert owner(f"{place}/file") is None
    finally:
        os.close(own)
        os.close(reader)
        os.close(writer)
        asking.close()


@pytest.mark.parametrize("change", ["architecture", "number"])
def test_what_is_no_call_of_these_is_said_to_be_done(place: Place, change: str) -> None:
    asking = Asking(lambda: call(CHOWN, "file", 1, 2))
    own = os.open("/", os.O_PATH)
    try:
        waiting = awaited(asking)
        setattr(waiting, change, 0x40000003)  # i386, whose 92 is another call; getpid
        assert standing_in._answer(asking.listener, waiting, own) == (0, 0)
        notifications.answer(asking.listener, waiting)
        assert (asking.said(), owner(f"{place}/file")) == ("done", None)
    finally:
        os.close(own)
        asking.close()


def test_the_supervisor_keeps_nothing_open_and_ends_with_the_last_who_asks(place: Place) -> None:
    children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children")
    calls: list[tuple[int, tuple[int | str, ...]]] = [
        (CHOWN, ("file", 1, 2)), (CHOWN, ("missing", 1, 2)), (FCHOWN, (0, 1, 2)),
        (FCHOWNAT, (HERE, "dir", 1, 2, 0)), (FCHOWN, (99, 1, 2)),
    ]  # fmt: skip

    def program() -> None:
        for _ in range(100):
            for number, given in calls:
                call(number, *given)
        time.sleep(60)

    asking = Asking(program)
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    try:
        before = set(children.read_text().split())
        standing_in.start(asking.listener)
        (supervisor,) = set(children.read_text().split()) - before
    finally:
        process.prctl(process.PR_SET_CHILD_SUBREAPER, 0)
    place_of_it = pathlib.Path(f"/proc/{supervisor}")
    try:
        deadline = time.monotonic() + 20
        while place_of_it.joinpath("comm").read_text() != "ketch-owners\n":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        at_first = len(os.listdir(place_of_it / "fd"))
        asking.begin()
        while os.stat("dir").st_uid or owner("dir") != (1, 2):
            assert time.monotonic() < deadline
        time.sleep(0.3)
        assert len(os.listdir(place_of_it / "fd")) <= at_first
        assert os.readlink(place_of_it / "cwd") == "/"
    finally:
        asking.close()
    pid, status = os.waitpid(int(supervisor), 0)
    assert (pid, status) == (int(supervisor), 0)
