"""A monitor's life played through before there is a container, so that its pages stay shared.

A function's first calls write to it: Python specializes its code, fills its caches and lists of
free objects. What the zygote has written its monitors share; so it lives a monitor's life a few
times, with a program that says a word and ends. What is cached counts for the very class, so it is
the real monitor, with a real log, that starter and finisher are played to.
"""

import _socket
import functools
import os

from ketch.engine.logs import json_file
from ketch.engine.monitor import handover, scribe
from ketch.engine.monitor.monitor import Monitor
from ketch.engine.monitor.supervision import Streams
from ketch.engine.requests import wire
from ketch.linux import mount, process
from ketch.spec import log_drivers

_ROUNDS = 24


def rehearse() -> None:
    """Live a monitor's life a few times, in the process that is going to fork monitors."""
    context = mount.fsopen("tmpfs")
    place = mount.fsmount(context)  # which nobody else sees, and which goes with its descriptor
    root = f"/proc/self/fd/{place}"
    os.makedirs(f"{root}/containers/none")
    for number in range(_ROUNDS):
        ours, theirs = _socket.socketpair()
        theirs.setblocking(False)
        begin = functools.partial(_begin, root, number % 2)
        Monitor(begin, _finish).run(theirs)
        ours.close()
        _write_log(f"{root}/containers/none")
    os.close(place)
    os.close(context)


def _begin(root: str, awake: int, connection: _socket.socket, channel: handover.Channel) -> None:
    """Start a program of one word."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    listener.bind("")
    listener.listen()
    go, going = os.pipe()
    pid, pidfd = process.clone3(process.CLONE_PARENT)
    if pid == 0:
        os.close(going)
        os.read(go, 1)
        os.write(writer, b"word\n")
        os._exit(0)
    fields: dict[str, wire.Value] = {
        "root": root, "state": "", "home": "", "container": "none", "between": 0, "cgroup": "",
        "once": False, "name": "none", "image_id": "", "image": "", "created_ns": "0",
        "record": "", "health": [], "ends_after": 0,
        "descriptors": ["stdout", "init", "resolver", "listener", "shortage"],
    }  # fmt: skip
    shortage = os.eventfd(0, os.EFD_CLOEXEC)
    descriptors = [reader, pidfd, connection.fileno(), listener.fileno(), shortage]
    # Every other time the monitor is awake from the beginning.
    channel.tell(fields, descriptors, bytes((awake, len(descriptors), 1)))
    channel.hear()
    channel.tell({"at": "started", "gives": False})


def _write_log(directory: str) -> None:
    """Write a word into the log, as a scribe does."""
    ours, theirs = handover.Channel.pair()
    streams = Streams.make(interactive=False, terminal=False)
    os.write(streams.given[1], b"word\n")
    streams.started(None)  # which is the end of the output
    rotation = log_drivers.rotation(log_drivers.JSON_FILE, {})
    scribe.serve(theirs, streams, (), json_file.Writer(f"{directory}/log", rotation))
    streams.close()
    ours.close()
    theirs.close()


def _finish(channel: handover.Channel, *_told: object, **_named: object) -> None:
    channel.tell({"restart_ms": -1})
