"""Watching over a program: its streams, its client and its end, with real processes and pipes."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from ketch.engine.monitor.supervision import Streams, Supervisor
from ketch.engine.requests import wire
from ketch.engine.requests.client import Client
from tests.support.descriptors import open_now


class Memory:
    """A log that remembers."""

    def __init__(self) -> None:
        self.pieces: list[tuple[str, bytes]] = []

    def write(self, stream: str, data: bytes, time_ns: int) -> None:
        assert time_ns > 1_600_000_000_000_000_000
        self.pieces.append((stream, data))

    def text(self, stream: str) -> bytes:
        return b"".join(data for name, data in self.pieces if name == stream)

    def flush(self) -> bool:
        return True


class Run:
    """A supervised program, with this test as its client; the supervisor is a thread."""

    def __init__(
        self,
        *program: str,
        interactive: bool = False,
        starter: bool = True,
        gives: bool | None = None,
        takes: tuple[int, ...] = (wire.OUTPUT, wire.ERRORS),
        once: bool = True,
    ) -> None:
        streams = Streams.make(interactive=interactive, terminal=False)
        self.child = subprocess.Popen(
            program, stdin=streams.given[0], stdout=streams.given[1], stderr=streams.given[2]
        )
        streams.started(None)
        pidfd = os.pidfd_open(self.child.pid)
        ours, self.socket = socket.socketpair()
        ours.setblocking(False)
        self.socket.settimeout(30)
        self.log = Memory()
        self.status = -1
        self.decoder = wire.Decoder()
        self.frames: list[tuple[int, bytes]] = []
        client = Client(ours)
        client.asked = True
        client.starter = starter
        supervisor = Supervisor(pidfd, streams, self.log, once=once)
        supervisor.attach(client, gives=interactive if gives is None else gives, takes=takes)

        def run() -> None:
            self.status = supervisor.run()
            self.child.returncode = 0  # reaped
            client.ended(self.status)
            client.close()
            streams.close()
            os.close(pidfd)

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def say(self, kind: int, payload: bytes = b"") -> None:
        self.socket.sendall(wire.frame(kind, payload))

    def take(self) -> tuple[int, bytes] | None:
        while not self.frames:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:  # it closed with something of ours unread
                data = b""
            if not data:
                return None
            self.frames += self.decoder.feed(data)
        return self.frames.pop(0)

    def read(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            frame = self.take()
            assert frame is not None
            assert frame[0] == wire.OUTPUT
            got += frame[1]
        return got

    def finish(self) -> tuple[int, bytes, bytes]:
        got = {wire.OUTPUT: bytearray(), wire.ERRORS: bytearray()}
        status = -1
        while frame := self.take():
            if frame[0] == wire.EXIT:
                status = int(frame[1])
            else:
                got[frame[0]] += frame[1]
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.socket.close()
        return status, bytes(got[wire.OUTPUT]), bytes(got[wire.ERRORS])


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = open_now()
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def test_output_goes_to_the_log_and_to_the_client() -> None:
    run = Run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert run.finish() == (3, b"out\n", b"err\n")
    assert run.log.text("stdout") == b"out\n"
    assert run.log.text("stderr") == b"err\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_death_by_signal_is_128_and_its_number(number: int) -> None:
    run = Run("sh", "-c", f"kill -{number:d} $$")
    assert run.finish()[0] == 128 + number


def test_signals_are_passed_on_and_nonsense_is_not() -> None:
    run = Run("sh", "-c", "trap 'echo usr1; exit 4' USR1; echo ready; while :; do sleep 0.05; done")
    assert run.read(6) == b"ready\n"
    run.say(wire.SIGNAL, b"999")
    run.say(wire.SIGNAL, b"%d" % signal.SIGUSR1)
    assert run.finish() == (4, b"usr1\n", b"")


@pytest.mark.parametrize(
    "nonsense",
    [
        wire.frame(wire.SIGNAL, b"x"),
        wire.frame(wire.RESIZE, b"1"),
        b"\xff" * 20,
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["signal", "size", "frame", "http"],
)
def test_a_client_that_talks_nonsense_is_let_go_and_the_program_lives_on(nonsense: bytes) -> None:
    run = Run("sh", "-c", "echo ready; sleep 0.5; echo done")
    assert run.read(6) == b"ready\n"
    run.socket.sendall(nonsense)
    while run.take():
        pass
    run.thread.join(30)
    run.socket.close()
    assert run.status == 0
    assert run.log.text("stdout") == b"ready\ndone\n"


def test_output_after_the_client_left_still_goes_to_the_log() -> None:
    run = Run("sh", "-c", "echo first; sleep 0.3; echo second")
    assert run.read(6) == b"first\n"
    run.socket.close()
    run.thread.join(30)
    assert run.status == 0
    assert run.log.text("stdout") == b"first\nsecond\n"


def test_an_attached_client_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ketch.engine.monitor.supervision.PATIENCE_SECONDS", 0.5)
    run = Run("sh", "-c", "yes | head -c 50000000; echo >&2 end", starter=False)
    run.thread.join(30)
    assert run.status == 0
    assert len(run.log.text("stdout")) == 50_000_000
    run.socket.close()


def test_who_started_the_program_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ketch.engine.monitor.supervision.PATIENCE_SECONDS", 0.2)
    run = Run("sh", "-c", "yes | head -c 5000000")
    time.sleep(1)
    status, out, _ = run.finish()
    assert (status, len(out)) == (0, 5_000_000)


def test_a_client_has_the_streams_that_it_asked_for() -> None:
    run = Run("sh", "-c", "echo out; echo err >&2", takes=(wire.ERRORS,))
    assert run.finish() == (0, b"", b"err\n")
    assert run.log.text("stdout") == b"out\n"
    run = Run("timeout", "0.5", "cat", interactive=True, gives=False)
    run.say(wire.INPUT, b"word\n")
    assert run.finish() == (124, b"", b"")


def test_an_end_of_input_is_one_only_where_that_was_asked_for() -> None:
    for once, seconds, status in ((True, "20", 0), (False, "0.7", 124)):
        run = Run("timeout", seconds, "cat", interactive=True, once=once)
        run.say(wire.INPUT)
        assert run.finish()[0] == status


def test_a_client_that_leaves_ends_the_input() -> None:
    run = Run("sh", "-c", "cat; echo end", interactive=True)
    run.say(wire.INPUT, b"word\n")
    assert run.read(5) == b"word\n"
    run.socket.close()
    run.thread.join(30)
    assert run.log.text("stdout") == b"word\nend\n"


def test_what_the_client_sent_before_it_left_still_arrives() -> None:
    run = Run("sh", "-c", "sleep 0.3; wc -c", interactive=True)
    run.say(wire.INPUT, bytes(300_000))
    run.socket.close()
    run.thread.join(30)
    assert run.log.text("stdout").strip() == b"300000"


def test_input_for_a_program_that_reads_none_is_held_up_and_bounded() -> None:
    run = Run("sleep", "1.5", interactive=True)
    run.socket.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 100:
            run.say(wire.INPUT, bytes(60_000))
            sent += 1
    assert sent < 70
    run.socket.settimeout(30)
    assert run.finish()[0] == 0


def test_input_for_a_program_that_closed_it_is_thrown_away() -> None:
    run = Run("sh", "-c", "exec <&-; echo closed; sleep 0.5; exit 6", interactive=True)
    assert run.read(7) == b"closed\n"
    for _ in range(100):
        run.say(wire.INPUT, bytes(60_000))
    assert run.finish()[0] == 6


def test_a_client_that_reads_nothing_holds_the_program_up_and_memory_is_bounded() -> None:
    run = Run("sh", "-c", "yes | head -c 50000000; echo >&2 end")
    time.sleep(0.5)
    assert len(run.log.text("stdout")) < 4_000_000
    assert run.child.poll() is None
    status, out, err = run.finish()
    assert (status, len(out), err) == (0, 50_000_000, b"end\n")
    assert out == b"y\n" * 25_000_000


def test_much_goes_both_ways_at_once_without_a_deadlock() -> None:
    data = os.urandom(1 << 20) * 24
    run = Run("cat", interactive=True)

    def feed() -> None:
        for start in range(0, len(data), 50_000):
            run.say(wire.INPUT, data[start : start + 50_000])
        run.say(wire.INPUT)

    feeder = threading.Thread(target=feed)
    feeder.start()
    status, out, _ = run.finish()
    feeder.join()
    assert status == 0
    assert out == data


def test_the_end_is_the_programs_and_not_that_of_what_it_left_writing() -> None:
    script = "(while :; do echo more; done) & echo $! >&2; sleep 0.2"
    run = Run("sh", "-c", script)
    started = time.monotonic()
    status, _, err = run.finish()
    os.kill(int(err), signal.SIGKILL)
    assert status == 0
    assert time.monotonic() - started < 10


def test_all_that_was_written_before_the_end_is_read() -> None:
    for _ in range(20):
        run = Run(sys.executable, "-IS", "-c", "import os; os.write(1, b'x' * 60000); os._exit(5)")
        status, out, _ = run.finish()
        assert (status, len(out)) == (5, 60_000)


def test_waiting_costs_no_time() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    run = Run("sleep", "1", interactive=True)
    run.finish()
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - before.ru_utime < 0.2
