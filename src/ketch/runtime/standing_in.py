"""The supervisor that answers for the kernel in containers of a user who has no id but its own.

It is told of changes of owners and of device nodes (``spec.standing_in`` has the rules) and has
them remembered: see ``linux.owners``. One small process a container and exec session, which ends
with the last process under the filter. It looks names up as the caller does, beneath the caller's
root, through nothing magic; what it changes is no more than an attribute of a file.
"""

import errno
import os
import select
import stat

from ketch.linux import notifications, owners, process, procfs
from ketch.linux.notifications import Notification
from ketch.linux.openat2 import openat2
from ketch.linux.scopes import owned, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
# What these mean to the caller is hidden from whoever is in another PID namespace.
_STREAMS = (b"/dev/std", b"/dev/fd/", b"/proc/self/", b"/proc/thread-self/")
_KEEP = (1 << 32) - 1
_CAPABILITIES = b"security.capability"
_PATH = os.O_PATH | os.O_CLOEXEC

# <asm/unistd.h>, <linux/audit.h>. What another architecture's programs ask for is said to be done.
_X86_64, _AARCH64 = 0xC000003E, 0xC00000B7
_CALLS = {
    _X86_64: {92: "chown", 93: "fchown", 94: "lchown", 133: "mknod", 259: "mknodat",
              260: "fchownat"},
    _AARCH64: {33: "mknodat", 54: "fchownat", 55: "fchown"},
}  # fmt: skip


def start(listener: int) -> None:
    """Have a process of its own answer what a filter's listener tells, until it tells no more.

    Args:
        listener: stays the caller's.
    """
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    # Nobody of those who made the container waits for it.
    if os.fork() == 0:
        with suppress(BaseException):
            process.set_name("ketch-owners")
            os.setsid()
            process.close_all_but({listener})
            os.chdir("/")
            _serve(listener)
    os._exit(0)


def _serve(listener: int) -> None:
    own = os.open("/", _PATH | os.O_DIRECTORY)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        for _, events in poll.poll():
            if not events & select.POLLIN:
                return  # nobody is left whom it could tell of
            notification = notifications.receive(listener)
            if notification is not None:
                code, flags = _answer(listener, notification, own)
                notifications.answer(listener, notification, code, flags)


def _answer(listener: int, call: Notification, own: int) -> tuple[int, int]:
    """Do what a call asks for; returns an errno and flags."""
    name = _CALLS.get(call.architecture, {}).get(call.number, "")
    act = _ACTS.get(name)
    if act is None:
        return 0, 0
    try:
        return act(_Caller(listener, call, own), call.arguments)
    except OSError as error:
        # A magic link, such as /dev/stdout: what it leads to is no file that remembers anything.
        return (0 if error.errno == errno.ELOOP else error.errno or errno.EIO), 0


class _Caller:
    """Whoever called: its memory, its root, its descriptors."""

    __slots__ = ("_call", "_listener", "_own", "_place")

    def __init__(self, listener: int, call: Notification, own: int) -> None:
        self._listener = listener
        self._call = call
        self._own = own
        self._place = f"/proc/{call.pid}"

    def text(self, address: int) -> bytes:
        """Returns a string in its memory."""
        with owned(os.open(f"{self._place}/mem", os.O_RDONLY | os.O_CLOEXEC)) as memory:
            return notifications.text_at(memory, address)

    def umask(self) -> int:
        """Returns its umask."""
        found = procfs.umask(self._place)
        return 0o022 if found is None else found

    def descriptor(self, number: int) -> int:
        """Open what one of its descriptors is open on."""
        if number >> 31:
            raise OSError(errno.EBADF, "no descriptor")
        try:
            found = os.open(f"{self._place}/fd/{number}", _PATH)
        except FileNotFoundError as error:
            raise OSError(errno.EBADF, "no descriptor") from error
        return self._sure(found)

    def directory(self, number: int) -> int:
        """Open what a call is to begin at: one of its descriptors, or its working directory."""
        if _signed(number) == _AT_FDCWD:
            return self._sure(os.open(f"{self._place}/cwd", _PATH))
        return self.descriptor(number & _KEEP)

    def file(self, directory: int, path: bytes, *, follow: bool) -> int:
        """Open what a path of its means, without acting on it."""
        if not path:
            raise OSError(errno.ENOENT, "an empty path")
        if path.startswith(_STREAMS):
            raise OSError(errno.ELOOP, "leads to an open file of the caller's")
        root = os.open(f"{self._place}/root", _PATH | os.O_DIRECTORY)
        with owned(root):
            start = root if path.startswith(b"/") else self.directory(directory)
            try:
                os.fchdir(root)
                os.chroot(".")
                try:
                    os.fchdir(start)
                    flags = _PATH | (0 if follow else os.O_NOFOLLOW)
                    found = openat2(_AT_FDCWD, path, flags, resolve=0)
                finally:
                    os.fchdir(self._own)
                    os.chroot(".")
            finally:
                if start != root:
                    os.close(start)
        return self._sure(found)

    def _sure(self, found: int) -> int:
        if not notifications.is_waiting(self._listener, self._call):
            os.close(found)
            raise OSError(errno.EINTR, "the caller has gone")
        return found


def _signed(number: int) -> int:
    number &= _KEEP
    return number - (1 << 32) if number >> 31 else number


def _chown(caller: _Caller, arguments: list[int], *, follow: bool = True) -> tuple[int, int]:
    path, uid, gid, *_ = arguments
    with owned(caller.file(_AT_FDCWD, caller.text(path), follow=follow)) as file:
        _give(file, uid, gid)
    return 0, 0


def _lchown(caller: _Caller, arguments: list[int]) -> tuple[int, int]:
    return _chown(caller, arguments, follow=False)


def _fchown(caller: _Caller, arguments: list[int]) -> tuple[int, int]:
    number, uid, gid, *_ = arguments
    with owned(caller.descriptor(number & _KEEP)) as file:
        _give(file, uid, gid)
    return 0, 0


def _fchownat(caller: _Caller, arguments: list[int]) -> tuple[int, int]:
    directory, address, uid, gid, flags, _ = arguments
    path = caller.text(address)
    if not path and flags & _AT_EMPTY_PATH:
        found = caller.directory(directory)
    else:
        found = caller.file(directory, path, follow=not flags & _AT_SYMLINK_NOFOLLOW)
    with owned(found) as file:
        _give(file, uid, gid)
    return 0, 0


def _give(file: int, uid: int, gid: int) -> None:
    """Remember an owner, and take privileges of the file away, as a change of owner does."""
    path = b"/proc/self/fd/%d" % file
    status = os.fstat(file)
    before = owners.seen(path) or owners.Remembered(0, 0)
    uid, gid = uid & _KEEP, gid & _KEEP
    owners.remember(path, before.uid if uid == _KEEP else uid, before.gid if gid == _KEEP else gid)
    if stat.S_ISREG(status.st_mode):
        bits = status.st_mode & 0o7777 & ~stat.S_ISUID
        if bits & stat.S_IXGRP:
            bits &= ~stat.S_ISGID
        if bits != status.st_mode & 0o7777:
            os.chmod(path, bits)
        with suppress(OSError):  # it mostly has none
            os.removexattr(path, _CAPABILITIES)


def _mknod(caller: _Caller, arguments: list[int]) -> tuple[int, int]:
    return _mknodat(caller, [_AT_FDCWD, *arguments])


def _mknodat(caller: _Caller, arguments: list[int]) -> tuple[int, int]:
    directory, address, mode, device, *_ = arguments
    mode &= 0xFFFF
    if stat.S_IFMT(mode) not in {stat.S_IFCHR, stat.S_IFBLK} or not device:
        return 0, notifications.FLAG_CONTINUE
    head, slash, name = caller.text(address).rpartition(b"/")
    if not name:  # a directory is meant, which a device is not
        return errno.ENOENT, 0
    with owned(caller.file(directory, head or slash or b".", follow=True)) as parent:
        os.close(owners.stand_in(name, mode & ~caller.umask(), device & _KEEP, parent))
    return 0, 0


_ACTS: "dict[str, Callable[[_Caller, list[int]], tuple[int, int]]]" = {
    "chown": _chown, "fchown": _fchown, "fchownat": _fchownat, "lchown": _lchown,
    "mknod": _mknod, "mknodat": _mknodat,
}  # fmt: skip
