"""A monitor's life played through before there is a container, so that its pages stay shared.

A function's first calls write to it: Python specializes its code, fills its caches and lists of
free objects. What the zygote has written its monitors share; so it lives a monitor's life a few
times, with a program that says a word and ends. Measured: half of a monitor's private memory.
"""

import _socket
import os

from ketch.engine import wire
from ketch.engine.logs import json_file
from ketch.engine.monitor import handover
from ketch.engine.monitor.monitor import Monitor
from ketch.linux import process
from ketch.spec import log_drivers

_ROUNDS = 12


def rehearse() -> None:
    """Live a monitor's life a few times, in the process that is going to fork monitors."""
    for _ in range(_ROUNDS):
        ours, theirs = _socket.socketpair()
        theirs.setblocking(False)
        _Rehearsal().run(theirs)
        ours.close()


class _Rehearsal(Monitor):
    """A monitor whose container needs nothing and is recorded nowhere."""

    __slots__ = ()

    def _begin(self, connection: _socket.socket, channel: handover.Channel) -> None:
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
            "root": "", "state": "", "container": "none", "between": 0, "cgroup": "",
            "once": False, "name": "none", "image_id": "", "image": "", "created_ns": "0",
            "record": "", "health": [], "descriptors": ["stdout", "init", "resolver", "listener"],
        }  # fmt: skip
        descriptors = [reader, pidfd, connection.fileno(), listener.fileno()]
        channel.tell(fields, descriptors, bytes((0, len(descriptors))))
        channel.hear()
        channel.tell({"at": "started", "gives": False})

    def _open_log(self, _channel: handover.Channel | None = None) -> None:
        rotation = log_drivers.rotation(log_drivers.JSON_FILE, {})
        self._unpack().log = json_file.Writer("/dev/null", rotation, None)

    def _end(self, channel: handover.Channel, _status: int, _ran_ns: int) -> None:
        channel.tell({"restart_ms": -1})
