"""The monitor's end of a connection, with a client at the other end of a socket pair."""

import socket
import threading
from collections.abc import Iterator

import pytest

from ketch.engine.requests import client as clients
from ketch.engine.requests import wire
from ketch.errors import NotFoundError, StartError

Pair = tuple[clients.Client, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with theirs:
        client = clients.Client(ours)
        yield client, theirs
        theirs.close()
        client.close()


def requested(pair: Pair) -> Pair:
    client, theirs = pair
    theirs.sendall(wire.frame(wire.REQUEST, wire.encode({"action": "run"})))
    assert client.read_request() == {"action": "run"}
    return pair


def test_a_request_may_come_in_pieces_and_with_more_behind_it(pair: Pair) -> None:
    client, theirs = pair
    data = wire.frame(wire.REQUEST, wire.encode({"a": ["b"]})) + wire.frame(wire.INPUT, b"x")

    def feed() -> None:
        for at in range(len(data)):
            theirs.sendall(data[at : at + 1])

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert client.read_request() == {"a": ["b"]}
    feeder.join()
    assert client.receive() == [(wire.INPUT, b"x")]
    assert not client.gone


@pytest.mark.parametrize("data", [b"", b"junk that is no frame", wire.frame(wire.INPUT, b"x")])
def test_what_is_no_request_is_refused(pair: Pair, data: bytes) -> None:
    client, theirs = pair
    theirs.sendall(data)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(wire.ProtocolError):
        client.read_request()


def test_nonsense_after_the_request_ends_the_client(pair: Pair) -> None:
    client, theirs = requested(pair)
    theirs.sendall(b"\xff" * 100)
    assert client.receive() == []
    assert client.gone


def test_nothing_sent_is_nothing_received(pair: Pair) -> None:
    client, _ = requested(pair)
    assert client.receive() == []
    assert not client.gone


def test_a_client_that_reads_nothing_gets_all_of_it_later(pair: Pair) -> None:
    client, theirs = requested(pair)
    sent = b"".join(bytes([number % 251]) * 50_000 for number in range(100))
    for at in range(0, len(sent), 50_000):
        client.send(wire.OUTPUT, sent[at : at + 50_000])
    assert client.is_behind
    client.ended(7)
    closer = threading.Thread(target=client.close)
    closer.start()
    decoder = wire.Decoder()
    frames: list[tuple[int, bytes]] = []
    while data := theirs.recv(65536):
        frames += decoder.feed(data)
    closer.join()
    assert frames[-1] == (wire.EXIT, b"7")
    assert b"".join(payload for kind, payload in frames if kind == wire.OUTPUT) == sent


def test_closing_does_not_wait_for_a_client_that_has_left(pair: Pair) -> None:
    client, theirs = requested(pair)
    client.send(wire.OUTPUT, bytes(4_000_000))
    theirs.close()
    client.close()
    assert client.gone


def test_an_error_is_told_with_its_hint(pair: Pair) -> None:
    client, theirs = requested(pair)
    client.failed(NotFoundError("no such image", "import one"))
    client.failed(StartError("no such program", exit_status=127))
    frames = list(wire.Decoder().feed(theirs.recv(4096)))
    assert [(kind, wire.decode_failure(payload)) for kind, payload in frames] == [
        (wire.FAILED, (None, "no such image", "import one", "NotFoundError")),
        (wire.FAILED, (127, "no such program", "", "StartError")),
    ]


@pytest.mark.parametrize("number", [1, 2, 3, 15])
def test_an_ending_signal_calls_the_start_off(pair: Pair, number: int) -> None:
    client, theirs = requested(pair)
    theirs.sendall(wire.frame(wire.SIGNAL, b"%d" % number))
    with pytest.raises(StartError, match="interrupted by SIG") as caught:
        client.check_interest()
    assert caught.value.exit_status == 128 + number


def test_a_client_that_left_is_not_started_for(pair: Pair) -> None:
    client, theirs = requested(pair)
    theirs.close()
    with pytest.raises(StartError, match="ended before"):
        client.check_interest()


def test_what_else_comes_before_the_start_is_kept(pair: Pair) -> None:
    client, theirs = requested(pair)
    sent = [(wire.SIGNAL, b"10"), (wire.RESIZE, b"24 80"), (wire.SIGNAL, b"x"), (wire.INPUT, b"i"),
            (wire.SIGNAL, b"1" * 9999)]  # fmt: skip
    theirs.sendall(b"".join(wire.frame(*frame) for frame in sent))
    client.check_interest()
    client.check_interest()
    assert client.receive() == sent
