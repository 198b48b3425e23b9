"""A monitor's life played through before there is a container, so that its pages stay shared.

A function's first calls write to it: Python specializes its code, fills its caches and lists of
free objects. What the zygote has written its monitors share; so it lives a monitor's life a few
times, with a program that says a word and ends. What is cached counts for the very class, so it is
the real monitor, with a real log, that starter and finisher are played to.
"""

import _socket
import functools
import os
import sys

from ketch.engine.logs import json_file
from ketch.engine.monitor import execution, handover, scribe
from ketch.engine.monitor.monitor import Monitor
from ketch.engine.monitor.supervision import Streams
from ketch.engine.requests import wire
from ketch.linux import mount, process
from ketch.spec import log_drivers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.linux.memory_image import Image

_ROUNDS = 10

# Objects/obmalloc.c
_STEP_BYTES, _SMALL_BYTES = 16, 512
_POOL_BYTES, _POOL_HEAD_BYTES = 16 * 1024, 48
_HOLES_BYTES_MAX = 1024 * 1024  # of one size


def rehearse(memory: "Image") -> None:
    """Live a monitor's life a few times, in the process that is going to fork monitors.

    Args:
        memory: what monitors are given; still empty.
    """
    context = mount.fsopen("tmpfs")
    place = mount.fsmount(context)  # which nobody else sees, and which goes with its descriptor
    root = f"/proc/self/fd/{place}"
    os.makedirs(f"{root}/containers/none")
    for _ in range(_ROUNDS):
        for awake in (False, True):
            begin = functools.partial(_begin, root, awake)
            _live(lambda connection: Monitor(memory, begin, _finish).run(connection))  # noqa: B023
            _write_log(f"{root}/containers/none", memory)
        _live(lambda connection: execution.last(connection, _begin_lasting, memory, _end))
    os.close(place)
    os.close(context)


def _live(life: "Callable[[_socket.socket], None]") -> None:
    ours, theirs = _socket.socketpair()
    theirs.setblocking(False)
    life(theirs)
    ours.close()


def _start() -> tuple[int, int, int]:
    """Start a program of one word, the child of who forked the caller.

    Returns:
        Its pidfd, where to read its output, and what to close so that it runs.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    go, going = os.pipe()
    pid, pidfd = process.clone3(process.CLONE_PARENT)
    if pid == 0:
        os.close(going)
        os.read(go, 1)
        os.write(writer, b"word\n")
        os._exit(0)
    return pidfd, reader, going


def _begin(
    root: str, awake: bool, connection: _socket.socket, channel: handover.Channel
) -> "Callable[[], None] | None":
    """Start a container's program, with somebody attached to it who starts it where awake.

    Returns:
        With somebody attached, what there is to stay for.
    """
    pidfd, reader, going = _start()
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    listener.bind("")
    listener.listen()
    fields: dict[str, wire.Value] = {
        "root": root, "state": "", "home": "", "container": "none", "between": 0, "cgroup": "",
        "once": False, "name": "none", "image_id": "", "image": "", "created_ns": "0",
        "record": "", "health": [], "ends_after": 0,
        "descriptors": ["stdout", "init", "resolver", "listener", "shortage"],
    }  # fmt: skip
    shortage = os.eventfd(0, os.EFD_CLOEXEC)
    descriptors = [reader, pidfd, connection.fileno(), listener.fileno(), shortage]
    channel.tell(fields, descriptors, bytes((awake, len(descriptors), 1)))
    channel.hear()
    client = [connection.fileno()] if awake else []
    channel.tell({"at": "started", "gives": False, "explain": False}, client)
    os.close(going)
    return functools.partial(_stay, channel) if awake else None


def _stay(channel: handover.Channel) -> None:
    channel.hear()
    _finish(channel)


def _begin_lasting(_connection: _socket.socket, channel: handover.Channel) -> None:
    pidfd, reader, _going = _start()
    fields: dict[str, wire.Value] = {
        "session": "none", "container": "none", "between": 0, "gives": False,
        "takes": ["AttachStdout"], "descriptors": ["stdout"],
    }  # fmt: skip
    channel.tell(fields, [pidfd, reader])


def _end(*_told: object) -> None:
    """Nothing is on record."""


def _write_log(directory: str, memory: "Image") -> None:
    """Write a word into the log, as a scribe does."""
    ours, theirs = handover.Channel.pair()
    streams = Streams.make(interactive=False, terminal=False)
    os.write(streams.given[1], b"word\n")
    streams.started(None)  # which is the end of the output
    rotation = log_drivers.rotation(log_drivers.JSON_FILE, {})
    scribe.serve(theirs, streams, (), json_file.Writer(f"{directory}/log", rotation), memory)
    streams.close()
    ours.close()
    theirs.close()


def _finish(channel: handover.Channel, *_told: object, **_named: object) -> None:
    channel.tell({"restart_ms": -1})


def fill() -> list[object]:
    """Fill the holes that small objects have left, so that new ones lie together.

    Else each that a forked process makes would lie on another page, as it were, and have it copied.
    """
    kept: list[object] = []
    for size_bytes in range(_STEP_BYTES, _SMALL_BYTES + 1, _STEP_BYTES):
        room = (_POOL_BYTES - _POOL_HEAD_BYTES) // size_bytes
        row: list[object] = []
        place = together = 0
        while together < room - 1 and len(row) * size_bytes < _HOLES_BYTES_MAX:
            one = _object(size_bytes)
            together = together + 1 if id(one) == place + size_bytes else 0
            place = id(one)
            row.append(one)
        del one
        # The last ones lie side by side: nothing else is left in pools that are in use. Where they
        # never do, the allocator is another one.
        if together >= room - 1:
            kept += row[: len(row) - together - 1]
    return kept


def _object(size_bytes: int) -> object:
    """An object of one of the sizes that the interpreter's allocator has pools of."""
    if size_bytes == _STEP_BYTES:
        return object()
    if size_bytes == 2 * _STEP_BYTES:
        return float("1.5")
    return bytes(size_bytes - sys.getsizeof(b"") - 1)
