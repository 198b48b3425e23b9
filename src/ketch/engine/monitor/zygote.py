"""The zygote: a process that has everything loaded and forks monitors; it holds nothing else.

One thread, no state, no containers. It leaves after a minute unused, and killing it at any time
costs the next command one interpreter's start and no container anything. The interpreter it runs
is executed from a detached, read-only mount of itself, so that what descends from it can enter a
container without offering ``/proc/self/exe`` for overwriting (CVE-2019-5736).
"""

import _socket
import errno
import gc
import os
import select
import sys
from contextlib import suppress

from ketch.engine.requests import launch
from ketch.errors import ENGINE_FAILED, PermissionDeniedError, UnavailableError, in_words
from ketch.linux import filesystems, inotify, libc, malloc, memory_image, mount, process, signals

IDLE_SECONDS = 60
_REFUSAL_MS = 500
_REQUEST_BYTES = 64 * 1024

# Of the heap; what is free beyond that goes back to the kernel.
_KEPT_HEAP_BYTES = 64 * 1024
# A caller that looked the socket up before it was unlinked may still be about to queue up.
_LATECOMER_SECONDS = 0.2

_CHANGES = (
    inotify.IN_MODIFY | inotify.IN_ATTRIB | inotify.IN_CREATE | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO | inotify.IN_DELETE_SELF | inotify.IN_ONLYDIR
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[[_socket.socket, memory_image.Image], None]


def main() -> None:
    """Run as ``launch.command_line`` says; descriptor SOCKET is what to serve."""
    _script, _role, state, _package, name, *sealed = sys.argv
    if not sealed:
        # Those that the caller's parents let it inherit.
        os.closerange(launch.SOCKET + 1, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        os.umask(0o022)
        try:
            _seal(state, name)
        except Exception as error:
            _refuse(error, alone=not name)
            raise
    # Only the sealed interpreter loads all of it; the codec would be loaded by each monitor anew.
    import encodings.ascii  # noqa: F401, PLC0415
    import resource  # noqa: F401, PLC0415

    from ketch.cgroups import (  # noqa: F401, PLC0415
        delegation,
        device_program,
        facts,
        freezer,
        members,
        resources,
    )
    from ketch.engine.containers import containers  # noqa: F401, PLC0415
    from ketch.engine.monitor import monitor, rehearsal  # noqa: PLC0415
    from ketch.engine.networks import networks  # noqa: F401, PLC0415
    from ketch.images import drivers  # noqa: F401, PLC0415

    os.set_inheritable(launch.SOCKET, False)
    with suppress(OSError):  # what cannot be limited then says so
        delegation.enter(state)
    # A monitor that a talkative program has kept busy is to be as small afterwards as before.
    malloc.give_back_beyond(_KEPT_HEAP_BYTES)
    socket = _socket.socket(fileno=launch.SOCKET)
    if not name:
        process.set_name("ketch-monitor")
        monitor.serve(socket)
        return
    process.set_name("ketch-zygote")
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)  # what it was before an exec stays ignored
    # Not after the rehearsal: collecting empties the lists of free objects that it has filled.
    gc.collect()
    gc.disable()
    memory = memory_image.Image()
    memory.load()
    rehearsal.rehearse(memory)
    filling = rehearsal.fill()
    gc.freeze()
    gc.enable()
    # A start makes little garbage, and looking for it would only touch pages.
    gc.set_threshold(100_000)
    path = f"{state}/{name}.socket"
    if serve_until_idle(socket, path, monitor.serve, IDLE_SECONDS, memory) == "changed":
        os.set_inheritable(launch.SOCKET, True)
        _seal(state, name)
    del filling


def serve_until_idle(
    listener: _socket.socket,
    path: str,
    serve: "Serve",
    idle_seconds: float,
    memory: memory_image.Image,
) -> str:
    """Fork a process for each caller until none has come for a while, or ketch has changed.

    Args:
        listener: a listening socket; it does not block afterwards.
        path: where it is bound; unlinked at the end, unless something else stands there.
        serve: what a forked process does with its connection; it ends when this returns.
        idle_seconds: how long to wait for a caller.
        memory: what to take an image of the caller's memory for, which forked processes are given.

    Returns:
        ``idle``, or ``changed`` when the loaded code is no longer what is installed: then callers
        wait in the queue for the new code.
    """
    listener.setblocking(False)
    signals.signal(signals.SIGCHLD, signals.SIG_IGN)
    code = _Code()
    callers = listener.fileno()
    awaited = (callers, *code.descriptors)
    place = launch.place(path)
    while ready := select.select(awaited, (), (), idle_seconds)[0]:
        if ready != [callers]:
            code.look_later()
        if callers in ready:
            if code.has_changed():
                return "changed"
            _fork_for(listener, code, serve, memory)
    # First nobody new can come, then those who came in the meantime are served.
    if place == launch.place(path):
        with suppress(FileNotFoundError):
            os.unlink(path)
    while select.select((listener,), (), (), _LATECOMER_SECONDS)[0]:
        _fork_for(listener, code, serve, memory)
    return "idle"


def _fork_for(
    listener: _socket.socket, code: "_Code", serve: "Serve", memory: memory_image.Image
) -> None:
    """Fork a monitor that serves the next caller, if it is of the same user."""
    try:
        descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    except OSError:  # it has left again
        return
    connection = _socket.socket(fileno=descriptor)
    try:
        _pid, user, _group = process.peer(connection)
        if user == os.getuid():
            memory.take()
            if os.fork() == 0:
                code.close()
                _become_monitor(connection, listener, serve, memory)
    except OSError as error:
        from ketch.engine.requests.client import Client  # noqa: PLC0415 - loaded; a cycle at the top

        Client(connection).failed(UnavailableError(f"cannot fork: {error.strerror}"))
    finally:
        connection.close()


def _become_monitor(
    connection: _socket.socket,
    listener: _socket.socket,
    serve: "Serve",
    memory: memory_image.Image,
) -> None:
    # By the barest means: each object that is used here is a page of memory of the monitor's own.
    try:
        os.setsid()  # or whoever kills the zygote's group kills every container
        signals.signal(signals.SIGCHLD, signals.SIG_DFL)
        listener.close()
        name = os.open("/proc/self/comm", os.O_WRONLY)
        os.write(name, b"ketch-monitor")
        os.close(name)
        connection.setblocking(True)
        serve(connection, memory)
    except BaseException:  # noqa: BLE001 - no way back into the zygote's loop
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


class _Code:
    """The files of all modules of ketch that are loaded, and whether they are still the same.

    Where the kernel tells of changes, nothing is looked at for each caller but where the package
    is: it may have been moved as a whole. Not of what another machine does on a network's file
    system; there, and where nothing can be watched, each file is.

    They are copied side by side: a page of memory that the zygote touches after a fork is no longer
    shared with that monitor, so what it does for each caller keeps to few pages.

    Attributes:
        descriptors: of what is readable when the kernel has told; none where it does not.
    """

    __slots__ = ("_changes", "_events", "_files", "_place", "_top", "_unsure", "descriptors")

    def __init__(self) -> None:
        files = [module.__file__ for name, module in sorted(sys.modules.items())
                 if name.startswith("ketch") and module.__file__]  # fmt: skip
        self._files = "\0".join(files).split("\0")
        self._top = f"{launch.package_directory()}/ketch"
        self._place = launch.place(self._top)
        self._unsure = False
        self._events: inotify.Inotify | None = None
        self.descriptors: tuple[int, ...] = ()
        if not filesystems.is_networked(self._top):
            self._begin_watching()
        # After that, so that nothing happens in between.
        self._changes = self._count()

    def close(self) -> None:
        """Close what a forked process would hold as long as it lives."""
        for descriptor in self.descriptors:
            os.close(descriptor)

    def look_later(self) -> None:
        """Something has happened: files that are being exchanged are looked at with a caller."""
        assert self._events is not None
        self._events.forget()
        self._unsure = True

    def has_changed(self) -> bool:
        """Whether what is loaded is no longer what is installed."""
        if self._events is not None:
            if launch.place(self._top) != self._place:
                return True
            if not self._unsure:
                return False
            self._unsure = False
            try:
                self._watch(self._events)  # directories may have been made anew
            except OSError:
                return True
        return self._count() != self._changes

    def _begin_watching(self) -> None:
        try:
            events = inotify.Inotify()
        except OSError:  # the user has too many
            return
        try:
            self._watch(events)
        except OSError:
            events.close()
            return
        self._events = events
        self.descriptors = (events.fileno(),)

    def _watch(self, events: inotify.Inotify) -> None:
        for directory in sorted({os.path.dirname(file) for file in self._files}):
            events.watch(directory, _CHANGES)

    def _count(self) -> int:
        """A number that is another one when a file has been changed."""
        known = 0
        try:
            for file in self._files:
                known = hash((known, os.stat(file).st_mtime_ns))
        except FileNotFoundError:
            return 0
        return known


def _refuse(error: Exception, *, alone: bool) -> None:
    """Tell those who wait why nobody is going to serve them.

    Args:
        error: why.
        alone: whether the socket is a client's, not one where clients come.
    """
    from ketch.engine.requests import wire  # noqa: PLC0415 - few have to be told
    from ketch.linux import restrictions  # noqa: PLC0415 - likewise

    message, hint = f"containers cannot be started here: {in_words(error)}", ""
    if isinstance(error, OSError) and error.errno == errno.EPERM:
        hint = "that needs root, with CAP_SYS_ADMIN"
        if missing := restrictions.of_root():
            message = f"containers cannot be started here: {missing.message}"
            hint = missing.hint
    told = wire.encode_failure(ENGINE_FAILED, message, hint, PermissionDeniedError.__name__)
    failure = wire.frame(wire.FAILED, told)
    socket = _socket.socket(fileno=launch.SOCKET)
    if alone:
        _answer(socket, failure)
        return
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    while poll.poll(_REFUSAL_MS):
        descriptor, _ = socket._accept()  # type: ignore[attr-defined]
        _answer(_socket.socket(fileno=descriptor), failure)


def _answer(client: _socket.socket, failure: bytes) -> None:
    """Send a client its answer once it has asked: what is left unread would undo the answer."""
    poll = select.poll()
    poll.register(client, select.POLLIN)
    with suppress(OSError):
        client.sendall(failure)
        while poll.poll(_REFUSAL_MS) and client.recv(_REQUEST_BYTES):
            pass
    client.close()


def _seal(state: str, name: str) -> None:
    """Execute this interpreter again, from a read-only mount that has no place in any tree."""
    tree = mount.open_tree(libc.AT_FDCWD, os.path.realpath(sys.executable), mount.OPEN_TREE_CLONE)
    mount.mount_setattr(tree, set_attributes=mount.MOUNT_ATTR_RDONLY)
    os.set_inheritable(launch.SOCKET, True)
    process.exec_descriptor(tree, launch.command_line(state, name, sealed=True), {})
