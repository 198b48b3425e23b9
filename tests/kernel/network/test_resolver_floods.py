"""One container asks without end, or its servers lie without end; another one is answered."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import dnslib
import pytest

from ketch.network import dns, forwarding, resolver
from ketch.network.bridge import Bridge
from tests.kernel.network import machines
from tests.kernel.network.test_resolver import Service, says, told, upstream
from tests.support.descriptors import open_now

pytestmark = pytest.mark.root

LOUD, QUIET = "c" * 64, "d" * 64

# What one container does until it is ended; each says a line once it is at it. Asking questions of
# which each name is another one keeps the resolver from remembering the answers.
PREAMBLE = """
import itertools, os, socket, sys, threading
def question(name, more=0):
    labels = b"".join(bytes([len(one)]) + one for one in name)
    again = b"\\xc0\\x0c" + b"\\0\\1\\0\\1"
    counts = (1 + more).to_bytes(2, "big") + bytes(6)
    return os.urandom(2) + b"\\1\\0" + counts + labels + b"\\0" + again[2:] + again * more
def datagrams(messages):
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.connect(("127.0.0.11", 53))
    asking.setblocking(False)
    for number, message in enumerate(messages):
        try:
            asking.send(message)
        except OSError:
            pass
        if number == 300:
            print("loud", flush=True)
each = (str(number).encode() for number in itertools.count())
"""
FLOODS = {
    "names nobody knows": "datagrams(question([one, b'example', b'org']) for one in each)",
    "other cases of a name": (
        "datagrams(question([b'web', os.urandom(2).hex().encode()]) for one in each)"
    ),
    "long questions of many labels": (
        "datagrams(question([b'a'] * 120 + [one], more=10700) for one in each)"
    ),
    "the largest questions that are looked at": (
        "datagrams(question([b'a'] * 120 + [one], more=630) for one in each)"
    ),
    "questions by streams, without a pause": """
message = question([b"loud"])
framed = (len(message).to_bytes(2, "big") + message) * 500
def talk():
    with socket.create_connection(("127.0.0.11", 53)) as asking:
        threading.Thread(target=lambda: [None for _ in iter(lambda: asking.recv(65536), b"")],
                         daemon=True).start()
        for number in itertools.count():
            asking.sendall(framed)
            if number == 4:
                os.write(1, b"loud\\n")  # whole, whoever else writes
threads = [threading.Thread(target=talk) for _ in range(4)]
for one in threads: one.start()
for one in threads: one.join()
""",
    "connections that are silent, or read nothing": """
held = []
message = question([b"loud"])
framed = (len(message).to_bytes(2, "big") + message) * 2000
for number in itertools.count():
    try:
        one = socket.create_connection(("127.0.0.11", 53), timeout=0.2)
        one.setblocking(False)
        one.send(framed if number % 2 else framed[:5])
        held.append(one)
    except OSError:
        pass
    held = held[-200:]
    if number == 250:
        print("loud", flush=True)
""",
}

# Of a server that a container has named: what it says, to whom, before anyone hears it.
LIES = """
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
streams = socket.create_server(("127.0.0.1", 53))
def lie(data, send):
    while True:
        send(os.urandom(2) + b"\\x81\\x80" + data[4:])
        send(data[:2] + b"\\x81\\x80" + data[4:12] + b"\\xc0\\x0c" + data[13:])
        send(os.urandom(2000))
def by_datagram():
    while True:
        data, peer = server.recvfrom(4096)
        threading.Thread(target=lie, args=(data, lambda said: server.sendto(said, peer)),
                         daemon=True).start()
def by_stream():
    while True:
        connection, _ = streams.accept()
        data = connection.recv(4096)[2:]
        def send(said):
            connection.sendall(len(said).to_bytes(2, "big") + said)
        def work():
            try:
                lie(data, send)
            except OSError:
                pass
        threading.Thread(target=work, daemon=True).start()
for work in (by_datagram, by_stream):
    threading.Thread(target=work, daemon=True).start()
message = question([b"example", b"org"])
def ask():
    while True:
        try:
            with socket.create_connection(("127.0.0.11", 53), timeout=5) as asking:
                asking.sendall(len(message).to_bytes(2, "big") + message)
                asking.recv(2)
        except OSError:
            pass
threading.Thread(target=ask, daemon=True).start()
datagrams(question([one, b"example", b"org"]) for one in each)
"""


@contextlib.contextmanager
def doing(namespace: int, script: str) -> Iterator[None]:
    """Have a program run in a container's network, at it when the block begins."""
    program = subprocess.Popen(
        ["nsenter", f"--net=/proc/self/fd/{namespace}", sys.executable, "-c", PREAMBLE + script],
        pass_fds=[namespace], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == b"loud\n"
        yield
        assert program.poll() is None
    finally:
        program.kill()
        program.communicate()


def endpoints() -> list[dns.Endpoint]:
    return [
        dns.Endpoint(LOUD, "net", ["loud"], [IPv4Address("172.17.0.2")]),
        dns.Endpoint(QUIET, "net", ["quiet"], [IPv4Address("172.17.0.3")]),
    ]


def answered(namespace: int) -> None:
    """Ask for a neighbour and for somebody beyond, by datagram and stream, and be told."""
    for _ in range(5):
        for tcp in (False, True):
            assert told(namespace, "loud", tcp=tcp) == ["172.17.0.2"]
            assert told(namespace, "example.org", tcp=tcp) == ["192.0.2.1"]


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_by_one_container_leaves_another_one_answered(
    tmp_path: pathlib.Path, bridge: Bridge, flood: str
) -> None:
    # The loud one's server says nothing, ever; the quiet one asks the host's.
    service = Service(tmp_path / "names", ["127.0.0.1"], [])
    service.endpoints[:] = endpoints()
    service.own[LOUD] = ["192.0.2.77"]
    with (
        machines.container(bridge, "172.17.0.2") as loud,
        machines.container(bridge, "172.17.0.3") as quiet,
        service.registered(LOUD, loud),
        service.registered(QUIET, quiet),
        upstream(None, says("192.0.2.1")),
        doing(loud, FLOODS[flood]),
    ):
        answered(quiet)


def test_lies_of_one_containers_server_leave_another_one_answered(
    tmp_path: pathlib.Path, bridge: Bridge
) -> None:
    service = Service(tmp_path / "names", ["127.0.0.1"], [])
    service.endpoints[:] = endpoints()
    service.own[LOUD] = ["127.0.0.1"]
    with (
        machines.container(bridge, "172.17.0.2") as loud,
        machines.container(bridge, "172.17.0.3") as quiet,
        service.registered(LOUD, loud),
        service.registered(QUIET, quiet),
        upstream(None, says("192.0.2.1")),
        doing(loud, LIES),
    ):
        answered(quiet)


@pytest.mark.parametrize("tcp", [False, True])
def test_who_goes_on_lying_is_not_waited_for(
    tmp_path: pathlib.Path, bridge: Bridge, tcp: bool
) -> None:
    """The next server is asked long before the patience with a silent one ends."""
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    liar = socket.socket(socket.AF_INET, kind)
    liar.bind(("127.0.0.1", 53))

    def lie() -> None:
        with contextlib.suppress(OSError):
            if tcp:
                liar.listen()
                connection, _ = liar.accept()
                with connection:
                    data = connection.recv(4096)[2:]
                    for _ in range(100):
                        connection.sendall(len(data).to_bytes(2, "big") + os.urandom(2) + data[2:])
                        time.sleep(0.01)
            else:
                data, peer = liar.recvfrom(4096)
                for _ in range(100):
                    liar.sendto(os.urandom(2) + b"\x81\x80" + data[4:], peer)
                    time.sleep(0.01)

    with machines.internet() as beyond, liar:
        service = Service(tmp_path / "names", ["127.0.0.1", machines.INTERNET], [])
        lying = threading.Thread(target=lie, daemon=True)
        lying.start()
        with (
            machines.container(bridge, "172.17.0.2") as web,
            service.registered("a" * 64, web),
            upstream(beyond, says("192.0.2.1")),
        ):
            assert told(web, "example.org", tcp=tcp) == ["192.0.2.1"]
        service.thread.join(5)
        lying.join(5)


def test_questions_that_wait_have_a_limit(tmp_path: pathlib.Path, bridge: Bridge) -> None:
    """Beyond those that wait for a server, and those that wait for their turn, there is a no."""
    service = Service(tmp_path / "names", [], ["192.0.2.77"])
    with (
        machines.container(bridge, "172.17.0.2") as web,
        service.registered("a" * 64, web),
        machines.entered(web),
    ):
        asking = forwarding.socket_in(None, 2, 2)
        with asking:
            asking.settimeout(machines.TIMEOUT_SECONDS)
            asking.connect(("127.0.0.11", 53))
            limit = forwarding.OPEN_MAX + forwarding.WAITING_MAX
            refused: list[int] = []
            deadline = time.monotonic() + 20
            for number in range(limit + 10):
                question = dnslib.DNSRecord.question(f"{number}.example.org")
                question.header.id = number
                asking.send(question.pack())
                if number % 8 == 7:  # the socket's own queue is not what is looked at here
                    wanted = min(number, forwarding.OPEN_MAX)
                    while len(os.listdir("/proc/self/fd")) < wanted:
                        assert time.monotonic() < deadline, "fewer are asked at once"
            for _ in range(10):
                answer = dnslib.DNSRecord.parse(asking.recv(512))
                assert answer.header.rcode == dnslib.RCODE.SERVFAIL
                refused.append(answer.header.id)
    assert sorted(refused) == list(range(limit, limit + 10))


@contextlib.contextmanager
def asked(namespace: int, count: int) -> Iterator[socket.socket]:
    """Ask for as many names at once as wanted; their questions' numbers are those up to there."""
    with machines.entered(namespace):
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with asking:
        asking.settimeout(machines.TIMEOUT_SECONDS)
        asking.connect(("127.0.0.11", 53))
        for number in range(count):
            question = dnslib.DNSRecord.question(f"{number}.example.org")
            question.header.id = number
            asking.send(question.pack())
        yield asking


def test_who_waits_gets_a_turn(
    tmp_path: pathlib.Path, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "OPEN_MAX", 2)
    right = says("192.0.2.1")

    def slowly(data: bytes) -> bytes | None:
        time.sleep(0.02)
        return right(data)

    service = Service(tmp_path / "names", ["127.0.0.1"], [])
    with (
        machines.container(bridge, "172.17.0.2") as web,
        service.registered("a" * 64, web),
        upstream(None, slowly),
        asked(web, 10) as asking,
    ):
        answers = [dnslib.DNSRecord.parse(asking.recv(512)) for _ in range(10)]
    assert {str(answer.rr[0].rdata) for answer in answers} == {"192.0.2.1"}
    assert sorted(answer.header.id for answer in answers) == list(range(10))


def test_who_waits_in_vain_is_told(
    tmp_path: pathlib.Path, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "OPEN_MAX", 1)
    monkeypatch.setattr(forwarding, "UPSTREAM_SECONDS", 0.2)
    service = Service(tmp_path / "names", [], ["192.0.2.77"])
    with (
        machines.container(bridge, "172.17.0.2") as web,
        service.registered("a" * 64, web),
        asked(web, 4) as asking,
    ):
        answers = [dnslib.DNSRecord.parse(asking.recv(512)) for _ in range(4)]
    assert {answer.header.rcode for answer in answers} == {dnslib.RCODE.SERVFAIL}
    assert sorted(answer.header.id for answer in answers) == [0, 1, 2, 3]


def test_who_leaves_leaves_nothing_open(tmp_path: pathlib.Path, bridge: Bridge) -> None:
    service = Service(tmp_path / "names", [], ["192.0.2.77"])
    started = time.monotonic()
    with machines.container(bridge, "172.17.0.2") as web:
        with service.registered("a" * 64, web):
            before = len(open_now())
            with asked(web, 50):
                while len(os.listdir("/proc/self/fd")) < before + 50:
                    assert time.monotonic() < started + 20
        left = time.monotonic()
        while len(os.listdir("/proc/self/fd")) > before:
            assert time.monotonic() < left + forwarding.UPSTREAM_SECONDS / 2, "they are waited for"
            time.sleep(0.01)


def test_connections_of_one_container_have_a_limit(tmp_path: pathlib.Path, bridge: Bridge) -> None:
    service = Service(tmp_path / "names", [], [])
    service.endpoints[:] = endpoints()
    with (
        machines.container(bridge, "172.17.0.2") as loud,
        machines.container(bridge, "172.17.0.3") as quiet,
        service.registered(LOUD, loud),
        service.registered(QUIET, quiet),
        contextlib.ExitStack() as held,
    ):
        with machines.entered(loud):
            for _ in range(resolver.CONNECTIONS_MAX):
                silent = held.enter_context(forwarding.socket_in(None, 2, 1))
                silent.connect(("127.0.0.11", 53))
        with machines.entered(loud):
            another = held.enter_context(forwarding.socket_in(None, 2, 1))
        another.settimeout(machines.TIMEOUT_SECONDS)
        with contextlib.suppress(ConnectionError):
            another.connect(("127.0.0.11", 53))
            assert another.recv(1) == b""
        assert told(loud, "quiet") == ["172.17.0.3"]
        assert told(quiet, "loud", tcp=True) == ["172.17.0.2"]
