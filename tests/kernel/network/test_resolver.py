"""Name servers in containers' namespaces, asked from inside, with servers beyond to pass on to."""

import asyncio
import contextlib
import errno
import os
import pathlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import dnslib
import pytest

from ketch.errors import SyscallError
from ketch.linux import sk_lookup
from ketch.network import dns, nameserver, resolver
from ketch.network.bridge import Bridge
from tests.kernel.network import machines

pytestmark = pytest.mark.root

WEB, INNER = "a" * 64, "b" * 64
Answer = Callable[[bytes], bytes | None]


class Service:
    """A resolver in a thread, and the way to register with it."""

    def __init__(self, path: pathlib.Path, servers: list[str], own: list[str]) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(path))
        listener.listen()
        self.path = str(path)
        self.endpoints = [
            dns.Endpoint(WEB, "net", ["web"], [IPv4Address("172.17.0.2")]),
            dns.Endpoint(INNER, "inner", ["inner"], [IPv4Address("10.9.0.2")], leads_out=False),
        ]
        self.own: dict[str, list[str]] = {}
        self.failures = 0  # so often the engine's database is out of reach
        directories = resolver.Directories(
            self.directory, lambda container: self.own.get(container, own)
        )
        self._resolver = resolver.Resolver(listener, directories, lambda: servers)
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self._resolver.serve(0.4)), daemon=True
        )
        self.thread.start()

    def directory(self) -> dns.Directory:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return dns.Directory(self.endpoints)

    @contextlib.contextmanager
    def registered(self, container_id: str, namespace: int) -> Iterator[None]:
        """Have a container's name server answered."""
        sockets = nameserver.open_sockets(namespace)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(self.path)
            socket.send_fds(connection, [container_id.encode()], [namespace, *sockets])
            for descriptor in sockets:
                os.close(descriptor)
            yield


@contextlib.contextmanager
def upstream(descriptor: int | None, answer: Answer) -> Iterator[list[str]]:
    """A server on port 53 of a machine (None: the host), by UDP and TCP; who asked it, in order."""
    seen: list[str] = []
    with machines.entered(descriptor) if descriptor is not None else contextlib.nullcontext():
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("0.0.0.0", 53))
        tcp = socket.create_server(("0.0.0.0", 53))

    def datagrams() -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = udp.recvfrom(4096)
                if not data:
                    return
                seen.append(peer[0])
                if (reply := answer(data)) is not None:
                    udp.sendto(reply, peer)

    def connections() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = tcp.accept()
                with connection:
                    seen.append(f"tcp {peer[0]}")
                    (length,) = struct.unpack("!H", connection.recv(2))
                    reply = answer(connection.recv(length)) or b""
                    connection.sendall(struct.pack("!H", len(reply)) + reply)

    threads = [threading.Thread(target=work, daemon=True) for work in (datagrams, connections)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        for listening in (udp, tcp):
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for thread in threads:
            thread.join(2)


def says(address: str) -> Answer:
    """Answer every question with one address."""

    def answer(data: bytes) -> bytes:
        query = dnslib.DNSRecord.parse(data)
        reply = query.reply()
        reply.add_answer(dnslib.RR(query.q.qname, rdata=dnslib.A(address)))
        return bytes(reply.pack())

    return answer


def fails(data: bytes) -> bytes:
    """Answer every question with SERVFAIL."""
    reply = dnslib.DNSRecord.parse(data).reply()
    reply.header.rcode = dnslib.RCODE.SERVFAIL
    return bytes(reply.pack())


def ask(namespace: int, name: str, *, tcp: bool = False) -> dnslib.DNSRecord:
    """Ask a container's name server from inside."""
    question = dnslib.DNSRecord.question(name)
    with machines.entered(namespace):
        asking = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    with asking:
        asking.settimeout(machines.TIMEOUT_SECONDS)
        asking.connect((nameserver.ADDRESS, 53))
        message = question.pack()
        asking.sendall(struct.pack("!H", len(message)) + message if tcp else message)
        data = asking.recv(4096)
        if tcp:
            while len(data) < 2 + int.from_bytes(data[:2], "big"):
                data += asking.recv(4096)
            data = data[2:]
    answer = dnslib.DNSRecord.parse(data)
    assert answer.header.id == question.header.id
    return answer


def told(namespace: int, name: str, *, tcp: bool = False) -> list[str]:
    """Return the addresses that a container is told."""
    return [str(record.rdata) for record in ask(namespace, name, tcp=tcp).rr]


@pytest.fixture
def web(bridge: Bridge) -> Iterator[int]:
    """Return a container's namespace on the default network."""
    with machines.container(bridge, "172.17.0.2") as descriptor:
        yield descriptor


@pytest.fixture
def service(tmp_path: pathlib.Path) -> Iterator[Service]:
    """Return a running resolver whose host's server is the host's own address."""
    running = Service(tmp_path / "names", ["127.0.0.1"], [])
    yield running
    running.thread.join(5)
    assert not running.thread.is_alive(), "it does not leave when nobody is registered"


def test_names_by_datagram_and_stream(service: Service, web: int) -> None:
    with service.registered(WEB, web):
        assert told(web, "web") == ["172.17.0.2"]
        assert told(web, "web", tcp=True) == ["172.17.0.2"]


def test_changes_are_visible_at_once(service: Service, web: int) -> None:
    with service.registered(WEB, web), upstream(None, fails):
        assert ask(web, "db").header.rcode == dnslib.RCODE.SERVFAIL
        service.endpoints.append(dns.Endpoint(INNER, "net", ["db"], [IPv4Address("172.17.0.3")]))
        assert told(web, "db") == ["172.17.0.3"]


def test_a_database_out_of_reach_is_told_of_and_tried_again(
    service: Service, web: int, caplog: pytest.LogCaptureFixture
) -> None:
    with service.registered(WEB, web):
        service.failures = 2  # more at once would mean that it tries as fast as it can
        assert told(web, "web") == ["172.17.0.2"]
        heard = [record for record in caplog.records if "cannot answer" in record.message]
        assert len(heard) == 2
        service.failures = 1
        with machines.entered(web):
            asking = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with asking:
            asking.settimeout(machines.TIMEOUT_SECONDS)
            asking.connect((nameserver.ADDRESS, 53))
            message = dnslib.DNSRecord.question("web").pack()
            asking.sendall(struct.pack("!H", len(message)) + message)
            assert asking.recv(1) == b""
        assert told(web, "web", tcp=True) == ["172.17.0.2"]
        heard = [record for record in caplog.records if "cannot answer" in record.message]
        assert len(heard) == 3
    assert "Too many open files" in caplog.text


def test_what_was_asked_before_waits(service: Service, web: int) -> None:
    sockets = nameserver.open_sockets(web)
    with machines.entered(web):
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with asking, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        asking.settimeout(machines.TIMEOUT_SECONDS)
        asking.connect((nameserver.ADDRESS, 53))
        asking.send(dnslib.DNSRecord.question("web").pack())
        connection.connect(service.path)
        socket.send_fds(connection, [WEB.encode()], [web, *sockets])
        for descriptor in sockets:
            os.close(descriptor)
        assert dnslib.DNSRecord.parse(asking.recv(512)).rr


def test_port_53_is_the_containers_own(service: Service, web: int) -> None:
    with service.registered(WEB, web), upstream(web, says("192.0.2.9")):
        assert told(web, "web") == ["172.17.0.2"]
        with machines.entered(web):
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with asking:
            asking.settimeout(machines.TIMEOUT_SECONDS)
            asking.connect(("127.0.0.1", 53))
            asking.send(dnslib.DNSRecord.question("web").pack())
            answer = dnslib.DNSRecord.parse(asking.recv(512))
        assert str(answer.rr[0].rdata) == "192.0.2.9"


def test_without_socket_lookup_programs_port_53_is_bound(
    service: Service, web: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_sockets: list[int]) -> int:
        raise SyscallError(1, "bpf", "MAP_CREATE")

    monkeypatch.setattr(sk_lookup, "socket_map", refuse)
    with service.registered(WEB, web):
        assert told(web, "web") == ["172.17.0.2"]
        assert told(web, "web", tcp=True) == ["172.17.0.2"]


@pytest.mark.parametrize("tcp", [False, True])
def test_the_rest_is_asked_of_the_hosts_server_from_the_host(
    service: Service, web: int, tcp: bool
) -> None:
    with service.registered(WEB, web), upstream(None, says("192.0.2.1")) as seen:
        assert told(web, "example.org", tcp=tcp) == ["192.0.2.1"]
    assert seen == ["tcp 127.0.0.1" if tcp else "127.0.0.1"]


def test_the_containers_own_servers_are_asked_from_inside(tmp_path: pathlib.Path, web: int) -> None:
    running = Service(tmp_path / "names", [], ["172.17.0.1"])
    with running.registered(WEB, web), upstream(None, says("192.0.2.2")) as seen:
        assert told(web, "example.org") == ["192.0.2.2"]
    assert seen == ["172.17.0.2"]
    running.thread.join(5)


def test_a_name_server_does_not_ask_itself(tmp_path: pathlib.Path, web: int) -> None:
    running = Service(tmp_path / "names", [], [nameserver.ADDRESS])
    with running.registered(WEB, web):
        assert ask(web, "example.org").header.rcode == dnslib.RCODE.SERVFAIL
    running.thread.join(5)


def test_the_next_server_is_asked_when_one_fails(
    tmp_path: pathlib.Path, host: int, web: int
) -> None:
    with machines.internet() as beyond:
        running = Service(tmp_path / "names", ["127.0.0.1", machines.INTERNET], [])
        with (
            running.registered(WEB, web),
            upstream(None, fails) as first,
            upstream(beyond, says("192.0.2.3")) as second,
        ):
            assert told(web, "example.org") == ["192.0.2.3"]
        assert len(first) == len(second) == 1
        running.thread.join(5)


def test_answers_to_other_questions_are_ignored(service: Service, web: int) -> None:
    right = says("192.0.2.4")

    def forged_first(data: bytes) -> bytes:
        other = dnslib.DNSRecord.parse(right(data))
        other.header.id = (other.header.id + 1) % 65536
        return bytes(other.pack())

    with service.registered(WEB, web), upstream(None, forged_first):
        with machines.entered(web):
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with asking:
            asking.settimeout(0.5)
            asking.connect((nameserver.ADDRESS, 53))
            asking.send(dnslib.DNSRecord.question("example.org").pack())
            with pytest.raises(TimeoutError):
                asking.recv(512)


def test_answers_from_elsewhere_are_ignored(service: Service, web: int) -> None:
    """Not even those that know the number: from another port, or another address."""
    right = says("192.0.2.6")
    heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def elsewhere() -> None:
        with contextlib.suppress(OSError):
            data, peer = heard.recvfrom(4096)
            for address, port in (("127.0.0.1", 0), ("127.0.0.2", 53)):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    other.bind((address, port))
                    other.sendto(right(data) or b"", peer)

    with service.registered(WEB, web), heard:
        heard.bind(("127.0.0.1", 53))
        answering = threading.Thread(target=elsewhere, daemon=True)
        answering.start()
        with machines.entered(web):
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with asking:
            asking.settimeout(0.5)
            asking.connect((nameserver.ADDRESS, 53))
            asking.send(dnslib.DNSRecord.question("example.org").pack())
            with pytest.raises(TimeoutError):
                asking.recv(512)
        answering.join(2)
        assert not answering.is_alive(), "it was not asked"


def test_a_container_without_a_way_out_asks_nobody_beyond(service: Service) -> None:
    with (
        machines.machine() as inner,
        service.registered(INNER, inner),
        upstream(None, says("192.0.2.5")) as seen,
    ):
        assert told(inner, "inner") == ["10.9.0.2"]
        assert ask(inner, "secret.example.org").header.rcode == dnslib.RCODE.SERVFAIL
        assert seen == []


def test_nonsense_and_silence_harm_nobody(service: Service, web: int) -> None:
    with service.registered(WEB, web):
        with machines.entered(web):
            silent = [socket.create_connection((nameserver.ADDRESS, 53)) for _ in range(70)]
            noisy = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        noisy.connect((nameserver.ADDRESS, 53))
        for size in (0, 1, 11, 12, 300):
            noisy.send(os.urandom(size))
        silent[0].sendall(b"\xff\xff" + os.urandom(100))
        assert told(web, "web") == ["172.17.0.2"]
        for connection in (*silent, noisy):
            connection.close()
        deadline = time.monotonic() + machines.TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                assert told(web, "web", tcp=True) == ["172.17.0.2"]
                return
        pytest.fail("closed connections still count")


def test_strangers_are_not_registered(service: Service) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(machines.TIMEOUT_SECONDS)
        connection.connect(service.path)
        connection.send(b"no descriptors")
        assert connection.recv(16) == b""


def test_another_user_is_not_registered(service: Service) -> None:
    """Who has got to the socket would be told of every network of a container that it names."""
    directory, name = os.path.split(service.path)
    os.chmod(directory, 0o755)
    os.chmod(service.path, 0o666)
    before = os.getcwd()
    os.chdir(directory)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        open("/proc/self/ns/net", "rb") as namespace,
    ):
        connection.settimeout(machines.TIMEOUT_SECONDS)
        os.seteuid(65534)
        try:
            connection.connect(name)
        finally:
            os.seteuid(0)
            os.chdir(before)
        with contextlib.suppress(BrokenPipeError):
            descriptors = [one.fileno() for one in (namespace, udp, tcp)]
            socket.send_fds(connection, [b"a" * 64], descriptors)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(16) == b""
