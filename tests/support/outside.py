"""What is outside of a sandbox, on this machine's loopback: servers, name servers, and a canary."""

import contextlib
import pathlib
import random
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator

import dnslib


class Outside:
    """Addresses of a part of 127.0.0.0/8 that nobody else has.

    Attributes:
        server: where servers are that may be reached.
        canary: where nobody may get to.
        names: where the name server is.
        heard: all that anybody has said to any of them.
        asked: all names that the name server was asked for.
        zone: what it answers, by name and kind; or what makes an answer of a question.
        abstract: name of a socket without a file, where nobody may get to.
        retry: port of a TLS server that has clients say their hello again; 0 while there is none.
    """

    def __init__(self) -> None:
        number = random.randrange(1, 1 << 16)
        self._prefix = f"127.{64 + number % 128}.{number >> 8}"
        self.server, self.canary, self.names = (f"{self._prefix}.{last}" for last in (1, 9, 53))
        self.heard: list[bytes] = []
        self.asked: list[str] = []
        self.zone: dict[tuple[str, str], list[dnslib.RD] | Callable[[], list[dnslib.RD]]] = {}
        self.stack = contextlib.ExitStack()
        self.abstract = f"ketch-canary-{number}"
        unseen = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        unseen.bind(f"\0{self.abstract}")
        unseen.listen()
        self.retry = 0
        asked = self.stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        asked.bind((self.names, 53))
        self._go(self._answer, asked)

    def listen(
        self,
        address: str,
        port: int,
        says: bytes = b"",
        *,
        first: bytes = b"",
        tls: ssl.SSLContext | None = None,
    ) -> int:
        """Serve what looks like HTTP, a thread a connection; returns the port."""
        listener = self.stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(128)
        if tls is not None:
            tls.sni_callback = lambda _, name, __: self.heard.append((name or "").encode())
        self._go(self._accept, listener, says, first, tls)
        return int(listener.getsockname()[1])

    def listen_datagrams(self, address: str, port: int) -> int:
        """Hear datagrams; returns the port."""
        listener = self.stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        listener.bind((address, port))
        self._go(self._hear_datagrams, listener)
        return int(listener.getsockname()[1])

    def has_heard(self, words: str) -> bool:
        """Whether anybody has said something to any of them, or asked for it."""
        return any(words.encode() in one for one in list(self.heard)) or any(
            words in one for one in list(self.asked)
        )

    def _go(self, work: Callable[..., None], *arguments: object) -> None:
        def until_closed() -> None:
            with contextlib.suppress(OSError):
                work(*arguments)

        threading.Thread(target=until_closed, daemon=True).start()

    def _accept(
        self, listener: socket.socket, says: bytes, first: bytes, tls: ssl.SSLContext | None
    ) -> None:
        while True:
            connection, _ = listener.accept()
            self._go(self._serve, connection, says, first, tls)

    def _serve(
        self, connection: socket.socket, says: bytes, first: bytes, tls: ssl.SSLContext | None
    ) -> None:
        with connection:
            connection.settimeout(20)
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            if first:
                connection.sendall(first)
            while data := connection.recv(65536):
                self.heard.append(data)
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(says)
                connection.sendall(head + says)

    def _hear_datagrams(self, listener: socket.socket) -> None:
        while True:
            self.heard.append(listener.recvfrom(65536)[0])

    def _answer(self, asked: socket.socket) -> None:
        while True:
            data, peer = asked.recvfrom(4096)
            question = dnslib.DNSRecord.parse(data)
            name, kind = str(question.q.qname).rstrip("."), dnslib.QTYPE[question.q.qtype]
            self.asked.append(name)
            reply = question.reply()
            found = self.zone.get((name, kind), [])
            for one in found() if callable(found) else found:
                if isinstance(one, dnslib.RR):
                    reply.add_answer(one)
                else:
                    kind_of = {"A": 1, "AAAA": 28, "CNAME": 5}[type(one).__name__]
                    reply.add_answer(dnslib.RR(question.q.qname, kind_of, rdata=one, ttl=0))
            with contextlib.suppress(OSError):
                asked.sendto(reply.pack()[:60000], peer)


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    """Have all that for a while."""
    made = None
    while made is None:
        with contextlib.suppress(OSError):  # somebody has that part
            made = Outside()
    with made.stack:
        yield made


def certificate(directory: pathlib.Path, *names: str) -> ssl.SSLContext:
    """Returns what serves TLS under some names, believed by whoever believes ``ca.pem``."""

    def run(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True, cwd=directory)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    if not (directory / "ca.pem").exists():
        run("openssl", "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=outside")  # fmt: skip
    run("openssl", "req", "-x509", *key, "-keyout", "own.key", "-out", "own.pem", "-days", "2",
        "-subj", "/CN=own", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names),
        "-addext", "basicConstraints=critical,CA:false")  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "own.pem", directory / "own.key")
    return context
