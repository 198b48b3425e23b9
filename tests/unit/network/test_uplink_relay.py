"""What comes to a published port is passed on: whole, in bounds, and no longer than it is one."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ketch.network.shares import Shares
from ketch.network.uplink import relay
from ketch.network.uplink.origins import Origins
from ketch.network.uplink.relay import Relay

PATIENCE_SECONDS = 10
LOOPBACK = "127.0.0.1"


class Passing:
    """A relay that serves, in a thread of its own, and the service that tells it of ports."""

    def __init__(self) -> None:
        self.service, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.service.settimeout(PATIENCE_SECONDS)
        self.relay = Relay(theirs, Origins(works=False))
        self.thread = threading.Thread(target=self.relay.serve, daemon=True)

    def add(self, key: str, protocol: str, target: tuple[str, int]) -> tuple[str, int]:
        """Publish a port; return where."""
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as outer:
            outer.bind((LOOPBACK, 0))
            if protocol == "tcp":
                outer.listen()
            words = "\0".join(("add", key, protocol, target[0], str(target[1])))
            socket.send_fds(self.service, [words.encode()], [outer.fileno()])
            place: tuple[str, int] = outer.getsockname()
        return place

    def drop(self, key: str) -> None:
        self.service.send(f"drop\0{key}".encode())
        assert self.service.recv(64) == b"dropped"


@pytest.fixture
def passing() -> Iterator[Passing]:
    found = Passing()
    found.thread.start()
    yield found
    found.service.close()
    found.thread.join(PATIENCE_SECONDS)
    assert not found.thread.is_alive()


@pytest.fixture
def container() -> Iterator[socket.socket]:
    """Return what listens for streams where ports lead."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        listening.settimeout(PATIENCE_SECONDS)
        yield listening


def connected(place: tuple[str, int]) -> socket.socket:
    return socket.create_connection(place, PATIENCE_SECONDS)


def everything(stream: socket.socket) -> bytes:
    stream.settimeout(PATIENCE_SECONDS)
    return b"".join(iter(lambda: stream.recv(65536), b""))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stream_goes_both_ways_and_ends_one_by_one(
    passing: Passing, container: socket.socket
) -> None:
    place = passing.add("one", "tcp", container.getsockname())
    asked, answered = b"q" * 3_000_000, b"a" * 2_000_001
    with connected(place) as client:
        inner, _ = container.accept()
        with inner:
            sending = threading.Thread(target=client.sendall, args=(asked,))
            sending.start()
            found = b""
            inner.settimeout(PATIENCE_SECONDS)
            while len(found) < len(asked):
                found += inner.recv(65536)
            sending.join(PATIENCE_SECONDS)
            client.shutdown(socket.SHUT_WR)
            assert inner.recv(1) == b""  # its end, while the answer is still to come
            answering = threading.Thread(target=inner.sendall, args=(answered,))
            answering.start()
            got = b""
            while len(got) < len(answered):
                got += client.recv(65536)
            answering.join(PATIENCE_SECONDS)
        assert everything(client) == b""
    assert (found, got) == (asked, answered)
    eventually(lambda: passing.relay.shares._out == 0)


def test_where_nobody_listens_the_stream_is_reset(passing: Passing) -> None:
    with socket.socket() as nobody:
        nobody.bind((LOOPBACK, 0))
        place = passing.add("one", "tcp", nobody.getsockname())
        with pytest.raises(ConnectionResetError), connected(place) as client:
            client.recv(1)
    eventually(lambda: passing.relay.shares._out == 0)


def test_what_is_dropped_ends_with_all_that_came_by_it(
    passing: Passing, container: socket.socket
) -> None:
    place = passing.add("one", "tcp", container.getsockname())
    other = passing.add("two", "tcp", container.getsockname())
    with connected(place) as client:
        inner, _ = container.accept()
        with inner, connected(other) as stays:
            second, _ = container.accept()
            with second:
                passing.drop("one")
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""
                with pytest.raises(ConnectionRefusedError):
                    connected(place)
                stays.sendall(b"x")
                assert second.recv(1) == b"x"
    passing.drop("nobody's")


def test_a_stream_too_many_waits_for_its_turn(passing: Passing, container: socket.socket) -> None:
    passing.relay.shares = Shares(1, 1, 1)
    place = passing.add("one", "tcp", container.getsockname())
    with connected(place) as first:
        inner, _ = container.accept()
        with connected(place) as second:
            second.sendall(b"later")
            container.settimeout(0.3)
            with pytest.raises(TimeoutError):
                container.accept()
            assert len(passing.relay._paused) == 1  # and nobody looks there meanwhile
            # Another container has its own share.
            beside = passing.add("two", "tcp", container.getsockname())
            container.settimeout(PATIENCE_SECONDS)
            with connected(beside):
                container.accept()[0].close()
                inner.close()
                first.close()
                late, _ = container.accept()
                with late:
                    assert late.recv(10) == b"later"


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Return what takes datagrams where ports lead."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind((LOOPBACK, 0))
        found.settimeout(PATIENCE_SECONDS)
        yield found


def client_of(place: tuple[str, int]) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.settimeout(PATIENCE_SECONDS)
    found.connect(place)
    return found


def test_datagrams_are_answered_to_whom_they_came_from(
    passing: Passing, listening: socket.socket
) -> None:
    place = passing.add("one", "udp", listening.getsockname())
    with client_of(place) as one, client_of(place) as other:
        for client, said in ((one, b"first"), (other, b"second"), (one, b"third"), (other, b"")):
            client.send(said)
            found, whom = listening.recvfrom(100)
            assert found == said
            listening.sendto(b"re: " + said, whom)
            assert client.recv(100) == b"re: " + said
    assert passing.relay.shares._out == 2  # a flow each
    passing.drop("one")
    eventually(lambda: passing.relay.shares._out == 0)


def test_a_client_that_sends_before_the_port_is_one_has_one_flow(
    passing: Passing, listening: socket.socket
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outer:
        outer.bind((LOOPBACK, 0))
        with client_of(outer.getsockname()) as client:
            client.send(b"early")
            host, port = listening.getsockname()
            words = "\0".join(("add", "one", "udp", host, str(port)))
            socket.send_fds(passing.service, [words.encode()], [outer.fileno()])
            early, whom = listening.recvfrom(10)
            client.send(b"late")
            assert (early, listening.recvfrom(10)) == (b"early", (b"late", whom))
            listening.sendto(b"answer", whom)
            assert client.recv(10) == b"answer"


def test_the_oldest_flow_gives_way(
    passing: Passing, listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_FLOWS_MAX", 2)
    place = passing.add("one", "udp", listening.getsockname())
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(client_of(place)) for _ in range(3)]
        whom = []
        for number in (0, 1, 0, 2):  # the second one is the oldest then
            clients[number].send(b"%d" % number)
            whom.append(listening.recvfrom(10)[1])
        assert whom[0] == whom[2]
        listening.sendto(b"still", whom[0])
        assert clients[0].recv(10) == b"still"
        listening.sendto(b"gone", whom[1])
        clients[1].settimeout(0.3)
        with pytest.raises(TimeoutError):
            clients[1].recv(10)
    assert passing.relay.shares._out == 2


def test_a_flow_ends_when_nothing_goes_by_it(
    passing: Passing, listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_UNANSWERED_SECONDS", 0.05)
    monkeypatch.setattr(relay, "_SWEEP_SECONDS", 0.1)
    place = passing.add("one", "udp", listening.getsockname())
    with client_of(place) as silent, client_of(place) as answered:
        answered.send(b"x")
        listening.sendto(b"y", listening.recvfrom(10)[1])
        assert answered.recv(10) == b"y"
        silent.send(b"x")
        eventually(lambda: passing.relay.shares._out == 1)


@pytest.mark.parametrize(
    ("about", "back"),
    [
        ([], b""),
        ([(socket.IPPROTO_TCP, 8, b"x" * 12)], b""),
        ([(socket.IPPROTO_IP, 8, b"\1\0\0\0\x7f\0\0\1\xc0\0\2\1")],
         b"\0\0\0\0\x7f\0\0\1\0\0\0\0"),
        # It came before anybody had asked.
        ([(socket.IPPROTO_IP, 8, bytes(8) + b"\xc0\0\2\1")], b"\0\0\0\0\xc0\0\2\1\0\0\0\0"),
        ([(socket.IPPROTO_IPV6, 50, b"\x20" + bytes(15) + b"\5\0\0\0")],
         b"\x20" + bytes(15) + bytes(4)),
        # Only a link-local address is one of some link's.
        ([(socket.IPPROTO_IPV6, 50, b"\xfe\xbf" + bytes(14) + b"\5\0\0\0")],
         b"\xfe\xbf" + bytes(14) + b"\5\0\0\0"),
        ([(socket.IPPROTO_IPV6, 50, b"\xfe\xc0" + bytes(14) + b"\5\0\0\0")],
         b"\xfe\xc0" + bytes(14) + bytes(4)),
    ],
)  # fmt: skip
def test_an_answer_comes_from_where_was_asked(
    about: list[tuple[int, int, bytes]], back: bytes
) -> None:
    assert relay._back(about) == back
