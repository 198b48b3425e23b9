"""A monitor's life: the parent of one container's programs, from the first start to the last end.

Forked from the zygote, or started by itself, it costs private memory for each page that it writes,
so it loads nothing, decides little, and leaves the work to the processes that it forks; see
``handover``. Its client may leave at any time.
"""

import _socket
import os
import select
import time
from contextlib import suppress

from ketch.cgroups import oom
from ketch.engine import logs, mishaps
from ketch.engine.logs import json_file
from ketch.engine.monitor import (
    deadlines,
    execution,
    finishing,
    handover,
    probing,
    requests,
    scribe,
    shortage,
)
from ketch.engine.monitor.subject import Subject
from ketch.engine.monitor.supervision import Streams, Supervisor
from ketch.engine.requests import wire
from ketch.engine.requests.client import Client
from ketch.engine.settings import Settings
from ketch.errors import in_words
from ketch.linux import process
from ketch.linux.memory_image import Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Begin = Callable[[_socket.socket, handover.Channel], requests.Stay | None]

    Fields = Mapping[str, wire.Value]

# What a request for a container's start begins with: see wire.encode.
_STARTS = (b"action\0srun\0", b"action\0sstart\0")
_LASTING = b"action\0sexec-lasting\0"
_PEEK_BYTES = 32
SERVICES = ("resolver", "uplink")
_TRIES = 5  # to have a container registered, one after the other
# How long a restart is put off for clients that have not read everything yet.
_PARTING_SECONDS = 2


def serve(connection: "_socket.socket", memory: Image | None = None) -> None:
    """Do what one client asks for.

    Args:
        connection: to the client; its request has not been read yet.
        memory: the caller's, as it was when it was forked.
    """
    memory = memory or Image()
    try:
        seen = connection.recv(_PEEK_BYTES, _socket.MSG_PEEK)
    except OSError:
        seen = b""
    if seen[8:].startswith(_STARTS):
        Monitor(memory).run(connection)
    elif seen[8:].startswith(_LASTING):
        execution.last(connection, requests.serve, memory)
    else:
        requests.serve(connection)


class Monitor:
    """One container's monitor, for as long as its restart policy starts the container again.

    Args:
        memory: the calling process's, as it was when it was forked.
        begin: what a starter does for a client's connection.
        finish: what a finisher does.
    """

    __slots__ = (
        "_await_names", "_begin_with", "_clients", "_delay_ms", "_failures", "_fields",
        "_finish_with", "_index", "_listener", "_made", "_memory", "_missed", "_network",
        "_orphaned", "_packed", "_ports", "_registering", "_started_at", "_starter", "_supervisor",
        "_told",
    )  # fmt: skip

    def __init__(
        self,
        memory: Image,
        begin: "Begin" = requests.serve,
        finish: "Callable[..., None]" = finishing.finish,
    ) -> None:
        self._memory = memory
        self._begin_with = begin
        self._finish_with = finish
        self._fields: Fields = {}
        self._listener: _socket.socket | None = None
        self._packed = (b"", b"")
        self._ports = b""  # descriptors of the sockets that keep the published ports, packed
        self._made: _Made | None = None
        self._supervisor: Supervisor | None = None
        self._clients: list[Client] = []
        # Who waits, each with whether the container's names were answered before.
        self._await_names: list[tuple[Client, bool]] = []
        self._registering = self._missed = False
        self._failures = 0
        self._delay_ms = 0
        self._started_at = 0.0
        self._network = -1
        self._index = -1
        self._told = b""  # by the scribe
        self._starter: tuple[int, handover.Channel] | None = None  # while it stays
        self._orphaned = False  # whether the process has ended whose life the container shares

    def run(self, connection: "_socket.socket") -> None:
        """Have a container started as a client asks, and watch over it until it is at rest."""
        pid, channel = handover.fork(lambda channel: self._begin(connection, channel))
        connection.close()
        finisher = 0
        while self._await_start(pid, channel):
            status = self._watch()
            finisher, restart_ms = self._finish(status)
            for client in self._clients:
                client.ended(status)
            if restart_ms < 0:
                break
            while self._clients:
                self._clients.pop().close(_PARTING_SECONDS)
            # Who stops a container that waits records that and ends this process.
            time.sleep(restart_ms / 1000)
            self._delay_ms = restart_ms
            os.waitpid(finisher, 0)
            finisher = 0
            pid, channel = handover.fork(self._restart)
        if self._listener is not None:
            self._listener.close()
        while self._clients:
            self._clients.pop().close()
        if finisher:
            os.waitpid(finisher, 0)

    def _begin(self, connection: "_socket.socket", channel: handover.Channel) -> None:
        process.set_name("ketch-starter")
        stay = self._begin_with(connection, channel)
        if stay is not None:
            stay()

    def _restart(self, channel: handover.Channel) -> None:
        process.set_name("ketch-starter")
        requests.restart(Settings.told(self._fields), str(self._fields["container"]), channel)

    def _await_start(self, pid: int, channel: handover.Channel) -> bool:
        """Take over what a starter has made; returns whether the program runs."""
        self._packed = made = channel.take()
        at_once = False
        word = client = b""
        if made[0]:
            at_once = bool(made[0][0])
            if at_once:
                self._unpack()
                self._open_log(channel)
            else:
                channel.agree()
            word, client = channel.take()
            while word == handover.PORTS:
                self._ports += client
                word, client = channel.take()
            if word and client:
                self._take_client(word, client)
        if word and client:
            self._starter = pid, channel
        else:
            channel.close()
            os.waitpid(pid, 0)
        if not made[0] or not word:
            self._clear_away()
            return False
        self._started_at = time.monotonic()
        if not at_once and not client:
            self._sleep()
        return True

    def _sleep(self) -> None:
        """Wait for more than a scribe can do; nothing is unpacked, and hardly a page touched."""
        message, raw = self._packed
        descriptors = memoryview(raw).cast("i")
        outputs = descriptors[: message[2]]
        awaited = [(descriptor, select.POLLIN) for descriptor in descriptors[: message[1]]]
        if self._listener is not None:  # of the run before a restart
            awaited.append((self._listener.fileno(), select.POLLIN))
        while True:
            for descriptor, events in self._memory.wait(awaited):
                if descriptor not in outputs or not events & select.POLLIN:
                    return
            try:
                pid, channel = handover.fork(self._write_log)
            except OSError:  # no memory, no process: then by ourselves
                return
            self._told, _ = channel.take()
            channel.close()
            os.waitpid(pid, 0)
            if not scribe.rests(self._told):
                return

    def _write_log(self, channel: handover.Channel) -> None:
        process.set_name("ketch-scribe")
        handover.end_with_monitor()
        made = self._unpack()
        self._open_log()
        others = [made.init]
        if self._listener is not None:
            others.append(self._listener.fileno())
        others += made.services.values()
        others += [other for other in (made.creator, made.shortage) if other is not None]
        if isinstance(made.log, json_file.Writer):
            scribe.serve(channel, made.streams, others, made.log, self._memory)

    def _unpack(self) -> "_Made":
        """Unpack what the starter has made, if that has not been done yet."""
        if self._made is None:
            data, raw = self._packed
            self._fields, descriptors = handover.unpack(data[handover.HEAD_BYTES :], raw)
            self._made = _Made(self._fields, descriptors)
            if self._made.listener is not None:
                self._listener = self._made.listener
            if self._made.between:
                with suppress(ChildProcessError):
                    os.waitpid(self._made.between, 0)
        return self._made

    def _take_client(self, word: bytes, raw: bytes) -> None:
        fields, (descriptor,) = handover.unpack(word, raw)
        client = Client(_socket.socket(fileno=descriptor))
        client.asked = client.starter = True
        client.takes = (wire.OUTPUT, wire.ERRORS)
        if fields.get("explain"):
            client.takes = (wire.OUTPUT, wire.ERRORS, wire.STEP)
        client.gives = bool(fields["gives"])
        self._clients.append(client)

    def _clear_away(self) -> None:
        """The starter has failed and cleaned; or it was killed, and the next command will clean."""
        if self._packed[0]:
            self._unpack().end()
            self._made = None
        self._let_ports_go()

    def _let_index_go(self) -> None:
        if self._index >= 0:
            os.close(self._index)

    def _let_ports_go(self) -> None:
        for descriptor in memoryview(self._ports).cast("i"):
            os.close(descriptor)
        self._ports = b""

    def _open_log(self, channel: handover.Channel | None = None) -> None:
        """Open the container's log, and tell the starter if it waits for that."""
        directory = f"{self._fields['root']}/containers/{self._fields['container']}"
        assert self._made is not None
        try:
            subject: Any = Subject(self._fields)
            self._made.log = log = logs.writer(subject, directory)
            if self._told and isinstance(log, json_file.Writer):
                log.resume(*scribe.begun(self._told))
        except Exception as error:  # noqa: BLE001 - the start fails, whatever it is
            if channel is None:
                mishaps.note(f"open the log of container {self._fields['container']}", error)
                return
            with suppress(OSError):
                channel.tell(
                    {
                        "failure": getattr(error, "message", "") or in_words(error),
                        "hint": getattr(error, "hint", ""),
                        "class": type(error).__name__,
                    }
                )
        else:
            if channel is not None:
                channel.agree()

    def _watch(self) -> int:
        made = self._unpack()
        if made.log is None:
            self._open_log()
        self._told = b""
        self._supervisor = supervisor = Supervisor(
            made.init,
            made.streams,
            made.log,
            listener=self._listener,
            identifier=str(self._fields["container"]),
            once=bool(self._fields["once"]),
            memory=self._memory,
        )
        supervisor.clients = self._clients
        if self._fields["health"]:
            probing.Watch(self._fields, supervisor)
        deadlines.Watch(self._fields, supervisor)
        if self._starter is not None:
            supervisor.watched[self._starter[1].fileno()] = self._starter_left
        supervisor.on_names = self._serve_names
        for name in made.services:
            self._watch_service(name)
        if made.creator is not None:
            supervisor.watched[made.creator] = self._creator_left
        if made.shortage is not None:
            shortage.Watch(self._fields, supervisor, made.shortage, made.kills)
        status = supervisor.run()
        self._clients = [client for client in supervisor.clients if client.asked]
        # The finisher's, so that links are cut off before the namespace begins to die.
        self._network, made.network = made.network, -1
        self._let_index_go()
        self._index, made.index = made.index, -1
        made.close()
        self._let_ports_go()
        self._made = self._supervisor = None
        self._registering = self._missed = False
        self._await_names.clear()
        return status

    def _watch_service(self, name: str) -> None:
        """Have the container registered anew should a service of its network be killed."""
        made, supervisor = self._made, self._supervisor
        assert made is not None
        assert supervisor is not None

        def left() -> None:
            descriptor = made.services.pop(name)
            del supervisor.watched[descriptor]
            os.close(descriptor)
            if self._registering:
                self._missed = True
            else:
                self._begin_registering(supervisor)

        supervisor.watched[made.services[name]] = left

    def _serve_names(self, client: Client) -> None:
        """Have the container registered, whose networks are others now than at its start."""
        assert self._made is not None
        assert self._supervisor is not None
        services = self._made.services
        had_names = "resolver" in services
        if "uplink" in services:  # what it was for is no more
            del self._supervisor.watched[services["uplink"]]
            os.close(services.pop("uplink"))
        elif had_names and not self._fields["home"]:
            client.ended(0)
            return
        self._await_names.append((client, had_names))
        if not self._registering:
            self._begin_registering(self._supervisor)

    def _begin_registering(self, supervisor: Supervisor) -> None:
        try:
            pid, channel = handover.fork(self._register)
        except OSError as error:  # no memory, no process: until somebody asks again
            mishaps.note(f"have the names of {self._fields['container']} answered", error)
            while self._await_names:
                self._await_names.pop()[0].ended(1)
            return
        self._registering = True
        supervisor.watched[channel.fileno()] = lambda: self._registered(pid, channel)

    def _register(self, channel: handover.Channel) -> None:
        process.set_name("ketch-names")
        assert self._made is not None
        taken = memoryview(self._ports).cast("i")
        requests.register(self._fields, channel, self._made.services, taken)

    def _registered(self, pid: int, channel: handover.Channel) -> None:
        told = channel.hear()
        made, supervisor = self._made, self._supervisor
        assert made is not None
        assert supervisor is not None
        del supervisor.watched[channel.fileno()]
        channel.close()
        os.waitpid(pid, 0)
        self._registering = False
        self._failures = self._failures + 1 if told is None else 0
        # What was reached may have been about to end, and another service may have ended meanwhile.
        again = self._missed if told is not None else self._failures < _TRIES
        self._missed = False
        if told is not None:
            fields, descriptors = told
            names = fields["services"]
            assert isinstance(names, list)
            for name, descriptor in zip(names, descriptors, strict=True):
                made.services[name] = descriptor
                self._watch_service(name)
        if again:
            self._begin_registering(supervisor)
        while self._await_names and not (again and told is None):
            client, had_names = self._await_names.pop()
            if told is None:
                client.ended(1)
            elif had_names:
                client.ended(0)
            else:
                client.started(str(self._fields["container"]))

    def _creator_left(self) -> None:
        """End the container: so does the process whose life it shares."""
        assert self._made is not None
        assert self._made.creator is not None
        assert self._supervisor is not None
        del self._supervisor.watched[self._made.creator]
        self._orphaned = True
        self._made.kill()

    def _finish(self, status: int) -> tuple[int, int]:
        """Have the end recorded, and tell the steps of that to who wants to hear of them.

        Returns:
            The pid of the finisher, which may still be tidying up; in how many milliseconds to
            start again, or -1.
        """
        ran_ns = int((time.monotonic() - self._started_at) * 1e9)
        pid, heard = self._have_finished(status, ran_ns)
        if heard is None:
            pid, channel = handover.fork(lambda channel: self._end(channel, status, ran_ns))
            heard = self._hear_end(channel)
        if self._network >= 0:
            os.close(self._network)
            self._network = -1
        restart_ms = -1 if heard is None else heard["restart_ms"]
        return pid, int(restart_ms)  # type: ignore[arg-type]

    def _have_finished(self, status: int, ran_ns: int) -> "tuple[int, Fields | None]":
        """Have the starter finish what it has begun, where it has stayed for that.

        Returns:
            Its pid, and what it says at the end; None where somebody else has to do it.
        """
        if self._starter is None:
            return 0, None
        (pid, channel), self._starter = self._starter, None
        fields: dict[str, wire.Value] = {
            "container": self._fields["container"],
            "cgroup": self._fields["cgroup"],
            "explain": bool(self._hearers()),
            "orphaned": self._orphaned,
            "ran_ns": ran_ns,
            "status": status,
        }
        try:
            channel.tell(fields, [self._network] if self._network >= 0 else [])
        except OSError:  # it has just left
            channel.close()
            heard = None
        else:
            heard = self._hear_end(channel)
        if heard is None:
            os.waitpid(pid, 0)
        return pid, heard

    def _hear_end(self, channel: handover.Channel) -> "Fields | None":
        """Wait for what a finisher says at the end, and pass on what it tells before that."""
        while (heard := channel.hear()) is not None and "told" in heard[0]:
            for client in self._hearers():
                client.tell(str(heard[0]["told"]))
        channel.close()
        return None if heard is None else heard[0]

    def _starter_left(self) -> None:
        """Let go of a starter that has stayed long enough."""
        assert self._starter is not None
        assert self._supervisor is not None
        (pid, channel), self._starter = self._starter, None
        del self._supervisor.watched[channel.fileno()]
        channel.close()
        os.waitpid(pid, 0)

    def _hearers(self) -> list[Client]:
        """Who wants to hear what is done."""
        return [client for client in self._clients if wire.STEP in client.takes]

    def _end(self, channel: handover.Channel, status: int, ran_ns: int) -> None:
        process.set_name("ketch-finisher")
        self._finish_with(
            channel,
            {**self._fields, "explain": True} if self._hearers() else self._fields,
            status,
            ran_ns=ran_ns,
            delay_ms=self._delay_ms,
            orphaned=self._orphaned,
            namespace=self._network,
        )


class _Made:
    """What a starter hands over: a program that is about to run.

    Args:
        fields: the message, whose ``descriptors`` are the names of what came beside it.
        descriptors: in that order.
    """

    __slots__ = (
        "between", "creator", "index", "init", "kills", "listener", "log", "network", "services",
        "shortage", "streams",
    )  # fmt: skip

    def __init__(self, fields: "Fields", descriptors: tuple[int, ...]) -> None:
        self.init = -1
        self.between = int(fields["between"])  # type: ignore[arg-type]
        self.creator: int | None = None
        self.listener: _socket.socket | None = None
        self.log: logs.Writer | None = None
        self.network = -1
        self.index = -1  # of the database's log, see kept_files
        # Connections to what serves its network, by name: see requests.register.
        self.services: dict[str, int] = {}
        self.shortage: int | None = None
        self.kills = oom.NO_COUNTER
        self.streams = Streams()
        names = fields["descriptors"]
        assert isinstance(names, list)
        for name, descriptor in zip(names, descriptors, strict=True):
            if name == "init":
                self.init = descriptor
            elif name == "creator":
                self.creator = descriptor
            elif name in SERVICES:
                self.services[name] = descriptor
            elif name == "network":
                self.network = descriptor
            elif name == "index":
                self.index = descriptor
            elif name == "shortage":
                self.shortage = descriptor
            elif name == "kills":
                self.kills = descriptor
            elif name == "listener":
                self.listener = _socket.socket(fileno=descriptor)
                self.listener.setblocking(False)
            else:
                self.streams.adopt(name, descriptor)

    def kill(self) -> None:
        """Kill the program."""
        with suppress(OSError):
            process.pidfd_send_signal(self.init, 9)

    def end(self) -> None:
        """Kill the program and reap it: it is not going to be watched over."""
        self.kill()
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.init, os.WEXITED)
        self.close()

    def close(self) -> None:
        """Close what belongs to one run of the program."""
        if self.log is not None:
            self.log.close(time.time_ns())
        self.streams.close()
        held = (self.init, self.creator, self.network, self.index, self.shortage, self.kills)
        for descriptor in (*held, *self.services.values()):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
