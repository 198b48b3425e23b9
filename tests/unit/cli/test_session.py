"""The client's side: detach keys, signals and streams, with a made-up monitor at the other end."""

import _socket
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.cli import caller, session
from ketch.engine.requests import wire
from ketch.spec import detach_keys

# Few different bytes, so that sequences overlap themselves and each other.
FEW = st.lists(st.sampled_from(b"abc"), max_size=40).map(bytes)
SEQUENCE = st.lists(st.sampled_from(b"abc"), min_size=1, max_size=5).map(bytes)


def typed(sequence: bytes, *pieces: bytes) -> tuple[bytes, bool]:
    keys = detach_keys.DetachKeys(sequence)
    passed = b""
    for piece in pieces:
        got, detached = keys.filter(piece)
        passed += got
        if detached:
            return passed, True
    return passed, False


@given(sequence=SEQUENCE, data=FEW, cut=st.integers(0, 40))
def test_detaching_is_finding_the_sequence_wherever_it_is_cut(
    sequence: bytes, data: bytes, cut: int
) -> None:
    before, found, _ = data.partition(sequence)
    passed, detached = typed(sequence, data[:cut], data[cut:])
    assert detached == bool(found)
    if found:
        assert passed == before
    else:
        held = data[len(passed) :]
        assert data.startswith(passed)
        assert sequence.startswith(held)
        ends = (data[start:] for start in range(len(data) + 1))
        assert held == next(end for end in ends if sequence.startswith(end)), "held too little"


@pytest.mark.parametrize(
    ("sequence", "pieces", "passed", "detached"),
    [
        (b"\x10\x11", [b"\x10", b"\x11"], b"", True),
        (b"\x10\x11", [b"\x10", b"x"], b"\x10x", False),
        (b"\x10\x11", [b"\x10\x10\x11"], b"\x10", True),
        (b"aab", [b"aaab"], b"a", True),
        (b"abac", [b"ababac"], b"ab", True),
        (b"", [b"\x10\x11"], b"\x10\x11", False),
    ],
)
def test_detach_sequences(
    sequence: bytes, pieces: list[bytes], passed: bytes, detached: bool
) -> None:
    assert typed(sequence, *pieces) == (passed, detached)


@pytest.mark.parametrize(
    ("text", "keys"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a", b"a"), ("ctrl-@", b"\0"), ("ctrl-[,ctrl-_", b"\x1b\x1f"),
     ("ctrl-\\", b"\x1c"), ("é", "é".encode())],
)  # fmt: skip
def test_keys_are_read(text: str, keys: bytes) -> None:
    assert detach_keys.parse_detach_keys(text) == keys


def test_the_usual_keys_are_the_default_ones() -> None:
    assert detach_keys.parse_detach_keys(detach_keys.DEFAULT) == caller.USUAL_KEYS


@pytest.mark.parametrize("text", ["", "ctrl-", "ctrl-P", "ctrl-pp", "ctrl-1", "a,,b", "ab"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - it holds the key alone
        detach_keys.parse_detach_keys(text)


class Monitor:
    """The other end of a session whose client runs in a process of its own."""

    def __init__(self, client: str, *, stdin: int = subprocess.PIPE) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(20)
        program = (
            "import sys, _socket\n"
            "from ketch.cli import session\n"
            "from ketch.cli.main import _say\n"
            f"s = _socket.socket(fileno={theirs.fileno()})\n"
            "def ask(every):\n"
            "    signals = session.Signals(every=every)\n"
            "    return session.Session(lambda: s, {'a': 'b'}, signals)\n"
            "try:\n"
            f"    {client}\n"
            "except session.Failure as failure:\n"
            "    sys.exit(_say(failure.message, failure.hint, failure.exit_status))\n"
        )
        self.client = subprocess.Popen(
            [sys.executable, "-c", program], pass_fds=[theirs.fileno()], stdin=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        theirs.close()
        self.decoder = wire.Decoder()
        self.frames: list[tuple[int, bytes]] = []

    def take(self) -> tuple[int, bytes]:
        while not self.frames:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.frames += self.decoder.feed(data)
        return self.frames.pop(0)

    def say(self, *frames: tuple[int, bytes]) -> None:
        self.socket.sendall(b"".join(wire.frame(*frame) for frame in frames))

    def end(self) -> tuple[int, bytes, bytes]:
        out, err = self.client.communicate(timeout=20)
        return self.client.returncode, out, err


START = "x = ask(True); x.await_started(); print(x.id)"
ATTACH = (
    "x = ask(%(forward)s); x.await_started(); "
    "sys.exit(x.attach(interactive=%(interactive)s, terminal=False, "
    "forward_signals=%(forward)s, detach_keys=b''))"
)


def attached(
    *, interactive: bool = False, forward: bool = True, stdin: int = subprocess.PIPE
) -> Monitor:
    monitor = Monitor(ATTACH % {"forward": forward, "interactive": interactive}, stdin=stdin)
    assert monitor.take() == (wire.REQUEST, wire.encode({"a": "b"}))
    monitor.say((wire.STARTED, b"id"))
    return monitor


@pytest.fixture(autouse=True)
def _no_client_stays() -> Iterator[None]:
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("feeder")]


def test_what_comes_in_one_piece_with_the_start_is_not_lost() -> None:
    monitor = Monitor(ATTACH % {"forward": True, "interactive": False})
    monitor.take()
    monitor.say(
        (wire.ERRORS, b"WARNING: first\n"), (wire.STARTED, b"id"), (wire.OUTPUT, b"out"),
        (wire.ERRORS, b"err"), (wire.EXIT, b"42"),
    )  # fmt: skip
    assert monitor.end() == (42, b"out", b"WARNING: first\nerr")


def test_a_failure_is_told_with_its_status() -> None:
    monitor = Monitor(START)
    monitor.take()
    monitor.say((wire.FAILED, wire.encode_failure(127, "no such program", "look")))
    assert monitor.end() == (127, b"", b"ketch: no such program\n\nlook\n")


def test_a_monitor_that_goes_is_a_failure_of_the_engine() -> None:
    waiting = Monitor(START)
    waiting.take()
    for monitor in (waiting, attached()):
        monitor.socket.close()
        status, _, err = monitor.end()
        assert status == 125
        assert b"monitor has gone" in err


@pytest.mark.parametrize("read", [False, True], ids=["before it read", "after it read"])
def test_a_request_is_made_again_only_if_nobody_has_read_it(read: bool) -> None:
    """The zygote may be killed with the request in its queue; a monitor may fail with it."""
    pairs = [socket.socketpair() for _ in range(2)]
    theirs = iter([pair[1] for pair in pairs])
    signals = session.Signals(every=False)
    try:
        client = session.Session(lambda: _plain(next(theirs)), {"a": "b"}, signals)
        client._exchange(select.POLLOUT)
        if read:
            pairs[0][0].recv(4096)
        pairs[0][0].close()
        pairs[1][0].sendall(wire.frame(wire.STARTED, b"id"))
        if read:
            with pytest.raises(session.Failure, match="monitor has gone"):
                client.await_started()
        else:
            client.await_started()
            assert client.id == "id"
            assert list(wire.Decoder().feed(pairs[1][0].recv(4096))) == [
                (wire.REQUEST, wire.encode({"a": "b"}))
            ]
    finally:
        signals.close()
        for number in session.ENDING_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pairs[1][0].close()


def _plain(end: socket.socket) -> _socket.socket:
    return _socket.socket(fileno=end.detach())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_start_is_told_and_a_second_one_ends_the_client(number: int) -> None:
    monitor = Monitor(START)
    monitor.take()
    monitor.client.send_signal(number)
    assert monitor.take() == (wire.SIGNAL, b"%d" % number)
    assert monitor.client.poll() is None
    monitor.client.send_signal(number)
    assert monitor.end()[0] == 128 + number


def test_other_signals_before_the_start_are_passed_on() -> None:
    monitor = Monitor(START)
    monitor.take()
    for _ in range(2):
        monitor.client.send_signal(signal.SIGUSR1)
        assert monitor.take() == (wire.SIGNAL, b"%d" % signal.SIGUSR1)
    monitor.say((wire.STARTED, b"id"))
    assert monitor.end() == (0, b"id\n", b"")


def test_signals_are_passed_on_though_nobody_reads_the_output() -> None:
    monitor = attached()
    feeder = threading.Thread(
        target=monitor.say, args=[(wire.OUTPUT, bytes(10_000))] * 200, name="feeder"
    )
    feeder.start()
    time.sleep(0.3)
    monitor.client.send_signal(signal.SIGUSR2)
    assert monitor.take() == (wire.SIGNAL, b"%d" % signal.SIGUSR2)
    assert monitor.client.stdout is not None
    assert len(monitor.client.stdout.read(2_000_000)) == 2_000_000
    feeder.join()
    monitor.say((wire.EXIT, b"0"))
    assert monitor.end() == (0, b"", b"")


def test_a_signal_that_is_not_forwarded_ends_the_client_alone() -> None:
    monitor = attached(forward=False)
    time.sleep(0.3)
    monitor.client.send_signal(signal.SIGTERM)
    assert monitor.end()[0] == 128 + signal.SIGTERM
    with pytest.raises(EOFError):
        monitor.take()


def test_an_ignored_signal_stays_ignored() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monitor = attached()
    finally:
        signal.signal(signal.SIGHUP, previous)
    time.sleep(0.3)
    monitor.client.send_signal(signal.SIGHUP)
    monitor.client.send_signal(signal.SIGUSR1)
    assert monitor.take() == (wire.SIGNAL, b"%d" % signal.SIGUSR1)
    monitor.say((wire.EXIT, b"0"))
    assert monitor.end()[0] == 0


def test_input_is_passed_on_whole_and_its_end_told() -> None:
    monitor = attached(interactive=True)
    sent = os.urandom(1_000_000)
    result: list[tuple[bytes, bytes]] = []
    feeder = threading.Thread(
        target=lambda: result.append(monitor.client.communicate(sent, timeout=30)), name="feeder"
    )
    feeder.start()
    got = b""
    while True:
        kind, payload = monitor.take()
        assert kind == wire.INPUT
        if not payload:
            break
        got += payload
    monitor.say((wire.EXIT, b"3"))
    feeder.join()
    assert got == sent
    assert monitor.client.returncode == 3


def test_input_that_has_nothing_ends_at_once() -> None:
    monitor = attached(interactive=True, stdin=subprocess.DEVNULL)
    assert monitor.take() == (wire.INPUT, b"")
    monitor.say((wire.EXIT, b"0"))
    assert monitor.client.wait(20) == 0
    monitor.client.communicate()


def test_a_reader_that_leaves_ends_the_client_like_a_filter() -> None:
    monitor = attached()
    assert monitor.client.stdout is not None
    monitor.client.stdout.close()
    monitor.say((wire.OUTPUT, b"x"))
    assert monitor.client.wait(20) == 128 + signal.SIGPIPE
    assert monitor.client.stderr is not None
    assert monitor.client.stderr.read() == b""
    monitor.client.stderr.close()
    if monitor.client.stdin is not None:
        monitor.client.stdin.close()


@pytest.mark.parametrize("ending", ["SIGTERM", "SIGHUP", "SIGINT", "monitor", "exit", "detach"])
def test_the_terminal_is_restored_however_the_session_ends(ending: str) -> None:
    ours, theirs = socket.socketpair()
    program = (
        "import sys, _socket; from ketch.cli import session\n"
        f"s = _socket.socket(fileno={theirs.fileno()})\n"
        "x = session.Session(lambda: s, {}, session.Signals(every=False)); x.await_started()\n"
        "try: sys.exit(x.attach(interactive=True, terminal=True, forward_signals=False, "
        "detach_keys=b'\\x10\\x11'))\n"
        "except session.Failure: sys.exit(125)\n"
    )
    terminal, slave = pty.openpty()
    termios.tcsetwinsize(terminal, (30, 90))
    before = termios.tcgetattr(terminal)
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=slave, stdout=slave, stderr=slave,
        pass_fds=[theirs.fileno()],
    )  # fmt: skip
    theirs.close()
    ours.sendall(wire.frame(wire.STARTED))
    deadline = time.monotonic() + 20
    while termios.tcgetattr(terminal) == before:
        assert time.monotonic() < deadline, "the terminal was never made raw"
        time.sleep(0.01)
    assert select.select([ours], [], [], 20)[0], "the terminal's size was never told"
    expected = 125
    if ending.startswith("SIG"):
        number = signal.Signals[ending]
        child.send_signal(number)
        expected = 128 + number
    elif ending == "monitor":
        ours.close()
    elif ending == "exit":
        ours.sendall(wire.frame(wire.EXIT, b"9"))
        expected = 9
    else:
        os.write(terminal, b"\x10\x11")
        expected = 0
    assert child.wait(20) == expected
    assert termios.tcgetattr(terminal) == before
    os.close(slave)
    os.close(terminal)
    received = list(wire.Decoder().feed(_drain(ours)))
    assert (wire.RESIZE, b"30 90") in received
    ours.close()


def _drain(end: socket.socket) -> bytes:
    data = b""
    try:
        while piece := end.recv(65536):
            data += piece
    except OSError:  # closed by the test
        return wire.frame(wire.RESIZE, b"30 90")
    return data
