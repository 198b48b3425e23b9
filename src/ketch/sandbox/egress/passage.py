"""A connection of a sandbox's, from its beginning to its end: judged, connected, passed on.

Whom it means is known by the address, and by the first words where they tell; whether it may, by
the policy.
"""

import contextlib
import select
import socket
import struct
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ketch.sandbox.egress import http_requests, policy
from ketch.sandbox.egress.client_hello import BYTES_MAX, ClientHello, wants_another
from ketch.sandbox.egress.passing import IDLE_SECONDS, Read, Spliced, pass_on
from ketch.sandbox.egress.reaching import RefusedError, place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ssl import SSLContext

    from ketch.sandbox.egress.policy import Address, Policy, Rule
    from ketch.sandbox.egress.record import Attempt
    from ketch.sandbox.egress.relay import Relay
    from ketch.sandbox.egress.tls import TlsEnd, Vaults

_BEGINNING_SECONDS = 10.0  # until whom a connection is for must be known
_PIECE_BYTES = 64 << 10
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed is reset


class Passage:
    """A connection of the sandbox's, from its beginning to its end."""

    def __init__(self, relay: "Relay", client: socket.socket) -> None:
        self._relay = relay
        self._client = client
        self._server: socket.socket | None = None
        host, port = client.getsockname()[:2]
        self._address = policy.unmapped(ip_address(host.partition("%")[0]))
        self._port = port
        self._name = relay.named(self._address) or ""
        self._attempt: Attempt = relay.record.begin("tcp", self._name, place(self._address, port))
        self._revoked = False

    def serve(self) -> None:
        """Do all of it."""
        attempt = self._attempt
        try:
            with self._client:
                self._pass_on()
            attempt.end("allowed")
        except RefusedError as error:
            attempt.end("refused", str(error))
        except ValueError as error:
            if attempt.verdict == "allowed":
                attempt.verdict = ""
            attempt.end("refused", str(error))
        except OSError as error:
            verdict = "refused" if self._revoked else "failed"
            attempt.end(verdict, _words(error))
        except BaseException:
            attempt.end("failed", "the relay failed")
            raise
        finally:
            if self._server is not None:
                self._server.close()

    def refuse(self, reason: str) -> None:
        """Reset it."""
        self._attempt.end("refused", reason)
        self._reset()
        self._client.close()

    def rules(self, allowed: "Policy") -> "list[Rule]":
        """Returns the rules that allow it."""
        if self._address in policy.VIRTUAL:
            return allowed.by_name(self._name, self._port) if self._name else []
        return allowed.by_address(self._address, self._port)

    def recheck(self, allowed: "Policy") -> None:
        """End it where no rule allows it any more."""
        if self.rules(allowed):
            return
        self._revoked = True
        self._attempt.verdict, self._attempt.reason = "refused", "its rule was taken away"
        for one in (self._client, self._server):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _reset(self) -> None:
        with contextlib.suppress(OSError):
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _pass_on(self) -> None:
        rules = self.rules(self._relay.policy)
        if not rules:
            self._reset()
            raise RefusedError(
                "no rule names its port" if self._name else "no rule names the address"
            )
        self._client.settimeout(_BEGINNING_SECONDS)
        if not self._name:
            self._connect(self._address, rules)
            self._splice(b"")
        elif self._port == 443:
            self._pass_tls(self._hello(b""), rules)
        elif self._port == 80:
            self._pass_http(b"", rules)
        else:
            self._pass_other(rules)

    # By what is spoken

    def _hello(self, data: bytes, *, again: bool = False) -> bytes:
        """Read a ClientHello, and see that it asks for the name that the address stands for."""
        until = time.monotonic() + _BEGINNING_SECONDS
        hello, read = ClientHello(again=again), bytearray()
        while not hello.done:
            data = data or self._receive(until)
            read += data
            hello.feed(data)
            data = b""
        if hello.name is None:
            raise RefusedError("TLS without a name (SNI)")
        if policy.normal(hello.name) != self._name:
            raise RefusedError(f"TLS for another name (SNI): {hello.name}")
        return bytes(read)

    def _receive(self, until: float) -> bytes:
        left = until - time.monotonic()
        if left <= 0:
            raise RefusedError("nothing that tells whom it is for")
        self._client.settimeout(left)
        try:
            data = self._client.recv(_PIECE_BYTES)
        except TimeoutError as error:
            raise RefusedError("nothing that tells whom it is for") from error
        if not data:
            raise RefusedError("nothing that tells whom it is for")
        return data

    def _pass_tls(self, first: bytes, rules: "Sequence[Rule]") -> None:
        vaults = self._relay.vaults
        context = vaults.shown_as(self._name, self._port) if vaults is not None else None
        if vaults is not None and context is not None:
            self._pass_opened(first, vaults, context, rules)
            return
        server = self._server or self._connect(self._name, rules)
        server.settimeout(IDLE_SECONDS)
        server.sendall(first)
        said = bytearray()
        while (wants := wants_another(bytes(said))) is None and len(said) < BYTES_MAX:
            data = server.recv(_PIECE_BYTES)
            if not data:
                break
            said += data
        if said:
            self._client.settimeout(_BEGINNING_SECONDS)
            self._client.sendall(said)
        # Servers take the name from the second hello (OpenSSL's do), others on the way from the
        # first: so both are looked at.
        more = self._hello(b"", again=True) if wants else b""
        self._attempt.sent, self._attempt.received = len(first), len(said)
        self._splice(more)

    def _pass_opened(
        self, first: bytes, vaults: "Vaults", context: "SSLContext", rules: "Sequence[Rule]"
    ) -> None:
        """End TLS here, read the requests in it, and put in what is for the host."""
        from ketch.sandbox.egress.tls import TlsEnd  # noqa: PLC0415 - loaded where there are secrets

        def check(request: http_requests.Request) -> "list[http_requests.Field]":
            host = policy.normal(request.host)
            if host != self._name or (request.port or 443) not in {self._port, 443}:
                raise ValueError(f"a request for another host: {request.host}")
            if request.method.upper() == b"TRACE":  # RFC 9110 9.3.8: the answer has all fields
                raise ValueError("a request to be told what it says (TRACE)")
            return vaults.put_in(request.fields, self._name, self._port)

        guest = TlsEnd(self._client, context, said=first, seconds=_BEGINNING_SECONDS)
        try:
            server = TlsEnd(
                self._server or self._connect(self._name, rules), vaults.calling,
                name=self._name, seconds=_BEGINNING_SECONDS,
            )  # fmt: skip
        except (OSError, RefusedError) as error:
            self._tell_unreached(error, guest)
            self._attempt.verdict = ""
            raise
        requests = http_requests.Requests(check, scheme="https")

        def checked(data: bytes) -> bytes:
            try:
                return requests.feed(data)
            except ValueError as error:
                self._tell(403, str(error), guest)
                raise

        self._run(Read(guest, server, checked), Read(server, guest, bytes))

    def _pass_http(self, first: bytes, rules: "Sequence[Rule]") -> None:
        requests = http_requests.Requests(self._check)
        try:
            until = time.monotonic() + _BEGINNING_SECONDS
            passed = requests.feed(first)
            while not passed:
                passed = requests.feed(self._receive(until))
        except (ValueError, RefusedError) as error:
            self._tell(403, str(error))
            raise
        try:
            server = self._connect(self._name, rules)
        except (OSError, RefusedError) as error:
            self._tell_unreached(error)
            raise
        self._client.setblocking(False)
        outward = Read(self._client, server, requests.feed, passed)
        self._run(outward, Spliced(server, self._client))

    def _check(self, request: http_requests.Request) -> "list[http_requests.Field]":
        host = policy.normal(request.host)
        if host != self._name or (request.port or 80) not in {self._port, 80}:
            raise ValueError(f"a request for another host: {request.host}")
        return request.fields

    def _pass_other(self, rules: "Sequence[Rule]") -> None:
        """On a port of which nobody knows what is spoken there: what the client's first words are.

        A server that speaks first speaks neither TLS nor HTTP.
        """
        server = self._connect(self._name, rules)
        first = b""
        looks: bool | None = None
        while looks is None:
            # Whoever connects early may say nothing for as long as any connection may.
            data = _first_of(self._client, server, _BEGINNING_SECONDS if first else IDLE_SECONDS)
            if data is None:
                break
            first += data
            if not data or first[:1] == b"\x16":
                break
            looks = http_requests.looks_like(first)
        if first[:1] == b"\x16":
            self._pass_tls(self._hello(first), rules)
        elif looks:
            server.close()
            self._server = None
            self._pass_http(first, rules)
        elif first and looks is None:
            self._watch(first)
        else:
            self._splice(first)

    def _watch(self, first: bytes) -> None:
        """Pass on what may still become a request, whose server might be asked for another host."""
        server = self._server
        assert server is not None
        begun: bytearray | None = bytearray()

        def checked(data: bytes) -> bytes:
            nonlocal begun
            if begun is not None:
                begun += data
                looks = http_requests.looks_like(bytes(begun))
                if looks:
                    raise ValueError("a request of which the first line came in pieces")
                if looks is False:
                    begun = None
            return data

        self._client.setblocking(False)
        self._run(
            Read(self._client, server, checked, checked(first)), Spliced(server, self._client)
        )

    # Passing on

    def _connect(self, where: "str | Address", rules: "Sequence[Rule]") -> socket.socket:
        self._server, self._attempt.address = self._relay.network.reach(where, self._port, rules)
        for one in (self._client, self._server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._attempt.verdict = "allowed"
        self._server.setblocking(False)
        if not self.rules(self._relay.policy):  # taken away in the meantime
            raise RefusedError("its rule was taken away")
        return self._server

    def _splice(self, first: bytes) -> None:
        server = self._server
        assert server is not None
        if first:
            server.settimeout(_BEGINNING_SECONDS)
            server.sendall(first)
            self._attempt.sent += len(first)
        for one in (self._client, server):
            one.setblocking(False)
        self._run(Spliced(self._client, server), Spliced(server, self._client))

    def _run(self, outward: "Read | Spliced", inward: "Read | Spliced") -> None:
        assert self._server is not None
        self._attempt.follow(outward, inward)
        pass_on((self._client, self._server), (outward, inward))
        if self._revoked:
            raise RefusedError(self._attempt.reason)

    def _tell_unreached(self, error: Exception, guest: "TlsEnd | None" = None) -> None:
        """Answer a request whose host cannot be reached; where it is, the guest is not to know."""
        if isinstance(error, OSError):
            self._tell(502, "the host cannot be reached", guest)
        else:
            self._tell(403, "the host is where no rule leads", guest)

    def _tell(self, status: int, reason: str, guest: "TlsEnd | None" = None) -> None:
        """Answer a request that is not passed on, so that whoever made it reads why."""
        body = f"ketch: {reason}\n".encode("utf-8", "backslashreplace")
        word = {403: "Forbidden", 502: "Bad Gateway"}[status]
        head = (
            f"HTTP/1.1 {status} {word}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError):
            if guest is not None:
                guest.send(head.encode() + body)
                guest.shutdown(socket.SHUT_WR)
                return
            self._client.settimeout(1.0)
            self._client.sendall(head.encode() + body)
            self._client.shutdown(socket.SHUT_WR)
            self._client.recv(_PIECE_BYTES)


def _words(error: Exception) -> str:
    """What happened, without its number."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def _first_of(client: socket.socket, server: socket.socket, seconds: float) -> bytes | None:
    """What the client says next; None where the server speaks first, or nobody for so long."""
    poll = select.poll()
    poll.register(client, select.POLLIN)
    poll.register(server, select.POLLIN)
    ready = dict(poll.poll(seconds * 1000))
    if client.fileno() in ready:
        return client.recv(_PIECE_BYTES)
    return None
