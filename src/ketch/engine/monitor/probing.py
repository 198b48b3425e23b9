"""Running health checks: the monitor's clock, and the prober that it forks for each.

A check is an exec session whose output is kept with the result.
"""

import os
import time
from contextlib import ExitStack, suppress

from ketch.engine import mishaps
from ketch.engine.containers import restarting
from ketch.engine.engine import Engine
from ketch.engine.monitor import execution, handover, health
from ketch.engine.monitor.supervision import Alarm
from ketch.engine.records import states
from ketch.engine.requests import wire
from ketch.engine.settings import Settings
from ketch.errors import ENGINE_FAILED, KetchError, in_words
from ketch.linux import process
from ketch.spec import runtime_names
from ketch.spec.timestamps import rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ketch.engine.monitor.supervision import Supervisor
    from ketch.engine.records.rows import Container
    from ketch.spec.container import ExecConfig
    from ketch.spec.image import Healthcheck

    Fields = Mapping[str, wire.Value]

_OUTPUT_BYTES_MAX = 4096
_PAUSE_SECONDS = 0.02  # for each piece that is thrown away
_DEFAULT_SHELL = ("/bin/sh", "-c")


class Watch:
    """The monitor's clock of one run's checks.

    Args:
        fields: what the starter told the monitor.
        supervisor: whose loop it is.
    """

    __slots__ = ("_alarm", "_began", "_ended", "_fields", "_status", "_supervisor", "_times")

    def __init__(self, fields: "Fields", supervisor: "Supervisor") -> None:
        self._fields = fields
        self._supervisor = supervisor
        times = fields["health"]
        assert isinstance(times, list)
        self._times = [int(time_ns) / 1e9 for time_ns in times]
        self._began = time.monotonic()
        self._status = health.STARTING
        self._ended: list[int] = []  # probers that have said all, and are to be reaped
        self._alarm = Alarm(self._probe, self._next(first=True))
        supervisor.alarms.append(self._alarm)

    def _next(self, *, first: bool = False) -> float:
        now = time.monotonic()
        starting = self._status == health.STARTING
        return now + health.pause(self._times, now - self._began, starting=starting, first=first)

    def _probe(self) -> float | None:
        """Begin a check; returns when the next is due, None where the end of this one says that."""
        self._ended = [pid for pid in self._ended if os.waitpid(pid, os.WNOHANG)[0] == 0]
        try:
            pid, channel = handover.fork(lambda channel: probe(self._fields, channel))
        except OSError as error:  # no memory, no process: the next time, perhaps
            mishaps.note(f"check container {self._fields['container']}", error)
            return self._next()

        def done() -> None:
            told = channel.hear()
            if told is None:
                del self._supervisor.watched[channel.fileno()]
                channel.close()
                # One that has something to do about it waits for this very monitor.
                self._ended.append(pid)
                self._alarm.due = self._next()
            else:
                self._status = str(told[0]["status"])

        self._supervisor.watched[channel.fileno()] = done
        return None


class _Output:
    """A log that keeps the first bytes; of what comes after them it takes its time to read on.

    Else a check that writes without end would have the engine read without end, on the host's time.
    """

    __slots__ = ("kept", "whole")

    def __init__(self) -> None:
        self.kept = bytearray()
        self.whole = True

    def write(self, _stream: str, data: bytes, _time_ns: int) -> None:
        """Keep as much as there is room for."""
        room = _OUTPUT_BYTES_MAX - len(self.kept)
        self.kept += data[:room]
        self.whole &= len(data) <= room
        if not room:
            time.sleep(_PAUSE_SECONDS)

    def flush(self) -> bool:
        """Nothing is held back."""
        return False

    def text(self) -> str:
        """What was kept, with three dots where that is not all."""
        text = self.kept.decode(errors="replace")
        return text if self.whole else f"{text}..."


def probe(fields: "Fields", channel: handover.Channel) -> None:
    """Run a container's check, record the result, and do what is to be done about it.

    Args:
        fields: what the starter told the monitor.
        channel: to the monitor, which is told the status.
    """
    process.set_name("ketch-prober")
    # It must not keep open what is the monitor's: the program's input, clients, the socket.
    process.close_all_but({0, 1, 2, channel.fileno()})
    settings = Settings.told(fields)
    engine = Engine(settings)
    container = engine.containers.read(str(fields["container"]))
    check = health.check_of(container)
    if container.status != states.RUNNING or container.health is None or check is None:
        return
    began_ns = time.time_ns()
    result = _run(engine, container, check, began_ns)
    starting = began_ns - container.started_ns < (check.get("StartPeriod") or 0)
    retries = check.get("Retries") or health.RETRIES
    status = engine.containers.note_health(
        container, lambda known: health.judge(known, result, retries, starting=starting)
    )
    if status is None:
        return
    now, before = status
    channel.tell({"status": now})
    if now == health.UNHEALTHY != before:
        action = container.record["Config"].get("HealthcheckOnFailureAction") or "none"
        with suppress(OSError):
            channel.close()  # the monitor need not wait for what ends it
        try:
            _act(engine, settings, container, action)
        except KetchError as error:
            mishaps.note(f"{action} the unhealthy container {container.id}", error)


def _act(engine: Engine, settings: Settings, container: "Container", action: str) -> None:
    if action == "kill":
        engine.containers.kill(container.id)
    elif action == "stop":
        engine.containers.stop(container.id)
    elif action == "restart":
        restarting.restart(settings, engine.containers, container.id)


def _run(
    engine: Engine, container: "Container", check: "Healthcheck", began_ns: int
) -> "dict[str, Any]":
    """Run the check; returns its result as ``inspect`` shows it."""
    kind, *words = check["Test"]
    if kind == "CMD-SHELL":
        words = [*(container.record["Config"].get("Shell") or _DEFAULT_SHELL), *words]
    asked: ExecConfig = {"Cmd": words, "AttachStdout": True, "AttachStderr": True}
    output = _Output()
    timeout_ns = check.get("Timeout") or health.TIMEOUT_NS
    late = False
    try:
        session = engine.execs.claim(engine.execs.create(container.id, asked).id)
        status = ENGINE_FAILED
        try:
            with ExitStack() as held:
                supervisor = execution.start(engine, container, session, held, log=output)

                def expire() -> None:
                    nonlocal late
                    late = True
                    if runtime_names.is_other(container.record):  # that is not the program itself
                        engine.execs.kill(session.id)
                        return
                    with suppress(OSError):
                        process.pidfd_send_signal(supervisor.pidfd, 9)

                deadline = time.monotonic() + timeout_ns / 1e9
                supervisor.alarms.append(Alarm(expire, deadline))
                status = supervisor.run()
        finally:
            # Nobody asks about it: else a container with many checks would have many records.
            engine.execs.mark_ended(session, container, status, keep=False)
        text = output.text()
    except (KetchError, OSError) as error:
        status, text = getattr(error, "exit_status", -1), in_words(error)
    if late:
        said = f": {text}" if text else ""
        status, text = -1, f"Health check exceeded timeout ({timeout_ns / 1e9:g}s){said}"
    return {
        "Start": rfc3339(began_ns),
        "End": rfc3339(time.time_ns()),
        "ExitCode": status,
        "Output": text,
    }
