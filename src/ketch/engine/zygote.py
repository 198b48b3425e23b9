"""The zygote: a process that has everything loaded and forks monitors; it holds nothing else.

One thread, no state, no containers. It leaves after a minute unused, and killing it at any time
costs the next command one interpreter's start and no container anything. The interpreter it runs
is executed from a detached, read-only mount of itself, so that what descends from it can enter a
container without offering ``/proc/self/exe`` for overwriting (CVE-2019-5736).
"""

import _socket
import fcntl
import gc
import os
import select
import signal
import struct
import sys
from contextlib import suppress

from ketch.engine import launch
from ketch.linux import libc, mount, process

_IDLE_SECONDS = 60

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Run as ``launch.command_line`` says; the first connection is descriptor CONNECTION."""
    _script, _role, state, _package, name, *sealed = sys.argv
    if not sealed:
        _seal(state, name)
    # Only the sealed interpreter loads all of it.
    from ketch.engine import monitor  # noqa: PLC0415

    process.set_name("ketch-zygote" if name else "ketch-monitor")
    os.umask(0o022)
    os.chdir("/")
    connection = _socket.socket(fileno=launch.CONNECTION)
    os.set_inheritable(launch.CONNECTION, False)
    lock = _lock(state, name) if name else None
    if lock is None:
        monitor.serve(connection)
        return
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = _listen(state, name)
    _fork_for(connection, listener, monitor.serve)
    code = _loaded_code()
    while select.select((listener,), (), (), _IDLE_SECONDS)[0]:
        connection = _accept(listener)
        if _loaded_code() != code:
            # ketch was upgraded: the new code shall serve this connection and those to come.
            os.unlink(f"{state}/{name}.socket")
            os.dup2(connection.fileno(), launch.CONNECTION)
            os.close(lock)
            _seal(state, name)
        _fork_for(connection, listener, monitor.serve)
    # First nobody new can come, then those who came in the meantime are served.
    os.unlink(f"{state}/{name}.socket")
    listener.setblocking(False)
    try:
        while True:
            _fork_for(_accept(listener), listener, monitor.serve)
    except BlockingIOError:
        return


def _accept(listener: _socket.socket) -> _socket.socket:
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    return _socket.socket(fileno=descriptor)


def _fork_for(
    connection: _socket.socket,
    listener: _socket.socket,
    serve: "Callable[[_socket.socket], None]",
) -> None:
    """Fork a monitor that serves a connection, if it is of the same user."""
    credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    _pid, user, _group = struct.unpack("iii", credentials)
    if user == os.getuid() and os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        process.set_name("ketch-monitor")
        try:
            serve(connection)
        finally:
            os._exit(0)
    connection.close()


def _loaded_code() -> list[int]:
    """When each loaded module's file was last changed, as the files are now."""
    times = []
    for name, module in sorted(sys.modules.items()):
        if name.startswith("ketch") and module.__file__:
            try:
                times.append(os.stat(module.__file__).st_mtime_ns)
            except FileNotFoundError:
                times.append(0)
    return times


def _seal(state: str, name: str) -> None:
    """Execute this interpreter again, from a read-only mount that has no place in any tree."""
    tree = mount.open_tree(libc.AT_FDCWD, os.path.realpath(sys.executable), mount.OPEN_TREE_CLONE)
    mount.mount_setattr(tree, set_attributes=mount.MOUNT_ATTR_RDONLY)
    os.set_inheritable(launch.CONNECTION, True)
    process.exec_descriptor(tree, launch.command_line(state, name, sealed=True), {})


def _lock(state: str, name: str) -> int | None:
    """Become the one zygote of this name; None when another one is alive."""
    lock = os.open(f"{state}/{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _listen(state: str, name: str) -> _socket.socket:
    path = f"{state}/{name}.socket"
    with suppress(FileNotFoundError):
        os.unlink(path)  # of one that was killed: the lock is ours
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    directory = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{name}.socket")
    finally:
        os.close(directory)
    os.chmod(path, 0o600)
    listener.listen(128)
    return listener
