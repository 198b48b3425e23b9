"""An end of a connection that speaks TLS, on a socket that does not block."""

import contextlib
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING

from ketch.linux.scopes import owned
from ketch.sandbox.egress import policy, secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.sandbox.egress import http_requests

_PIECE_BYTES = 64 << 10
_PLAIN_BYTES_MAX = 16 << 10  # a record's
_PROTOCOLS = ["http/1.1"]


class TlsEnd:
    """See ``passing.End``.

    Args:
        plain: the connection.
        context: how TLS is spoken there.
        said: what came by it already.
        name: whom we call; None where we are called.
        seconds: how long agreeing may take.

    Raises:
        OSError: nothing was agreed on.
    """

    def __init__(
        self,
        plain: socket.socket,
        context: ssl.SSLContext,
        *,
        said: bytes = b"",
        name: str | None = None,
        seconds: float,
    ) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._incoming.write(said)
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=name is None, server_hostname=name
        )
        self._held = memoryview(b"")
        until = time.monotonic() + seconds
        while True:
            try:
                self._tls.do_handshake()
                agreed = True
            except ssl.SSLWantReadError:
                agreed = False
            finally:
                plain.settimeout(max(0.01, until - time.monotonic()))
                plain.sendall(self._outgoing.read())
            if agreed:
                break
            plain.settimeout(max(0.01, until - time.monotonic()))
            data = plain.recv(_PIECE_BYTES)
            if not data:
                raise ConnectionResetError("TLS was broken off")
            self._incoming.write(data)
        plain.setblocking(False)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._plain.fileno()

    def recv(self, size: int, /) -> bytes:
        """Returns what came; nothing at its end.

        Raises:
            BlockingIOError: nothing is there.
        """
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                self.flush()
            data = self._plain.recv(_PIECE_BYTES)
            if not data:
                raise ConnectionResetError("TLS was cut off")
            self._incoming.write(data)

    def send(self, data: bytes | memoryview, /) -> int:
        """Send the beginning of something; returns how much.

        Raises:
            BlockingIOError: what was sent before is not gone yet.
        """
        self.flush()
        count = self._tls.write(data[:_PLAIN_BYTES_MAX])
        with contextlib.suppress(BlockingIOError):
            self.flush()
        return count

    def flush(self) -> None:
        """Send what TLS has to say.

        Raises:
            BlockingIOError: it is not gone yet.
        """
        while True:
            if not self._held:
                self._held = memoryview(self._outgoing.read())
            if not self._held:
                return
            self._held = self._held[self._plain.send(self._held) :]

    def shutdown(self, how: int, /) -> None:
        """End one direction.

        Raises:
            BlockingIOError: what was sent before is not gone yet.
        """
        self.flush()
        with contextlib.suppress(ssl.SSLError):  # the other end has not said so yet
            self._tls.unwrap()
        self.flush()
        self._plain.shutdown(how)


def serving(chain: str, key: str) -> ssl.SSLContext:
    """Returns how one is called under a certificate, both in PEM; neither is in any file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(_PROTOCOLS)
    # The library reads files alone.
    with owned(os.memfd_create("certificate", os.MFD_CLOEXEC)) as descriptor:
        os.write(descriptor, f"{key}{chain}".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    return context


def calling() -> ssl.SSLContext:
    """Returns how one calls others, believing whom this machine believes."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(_PROTOCOLS)
    return context


class Vaults:
    """What is put in for hosts, and what is shown as them; nothing of it is in any file.

    Args:
        secrets: what is put in.
        certified: what is shown.
    """

    def __init__(
        self, secrets: "Iterable[secret.Handed]" = (), certified: "Iterable[secret.Certified]" = ()
    ) -> None:
        self._vaults = [secret.Vault.of(one) for one in secrets]
        self._shown = [
            ([policy.parse(rule) for rule in one["hosts"]], serving(one["chain"], one["key"]))
            for one in certified
        ]
        self.calling = calling()

    def shown_as(self, name: str, port: int) -> ssl.SSLContext | None:
        """Returns how one is called as a host; None for those whose TLS passes untouched."""
        for rules, context in self._shown:
            if any(rule.names(name) and rule.opens(port) for rule in rules):
                return context
        return None

    def put_in(
        self, fields: "list[http_requests.Field]", name: str, port: int
    ) -> "list[http_requests.Field]":
        """Returns a request's fields with what is for a host put in."""
        return secret.put_in(fields, [one for one in self._vaults if one.is_for(name, port)])
