"""Logs that go elsewhere: to a syslog, or to journald by its native protocol.

So that ``logs`` can read them all the same, what is sent is also kept in a local log beside the
container, as Docker does, unless ``cache-disabled`` says otherwise.

With ``mode=non-blocking`` the container never waits for the other end: what that does not take is
kept up to ``max-buffer-size``, and what does not fit there is lost. Otherwise a container that
talks faster than the other end listens waits for it.
"""

import _socket
import errno
import os
import select
import time

from ketch.engine.logs.lines import Lines
from ketch.errors import UnavailableError, in_words
from ketch.spec import log_drivers
from ketch.spec.timestamps import SECOND_NS, rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from ketch.engine.logs import local
    from ketch.engine.logs.lines import Part
    from ketch.engine.logs.tls import Secured

    class Format(Protocol):
        """Makes of a line what is sent."""

        def message(self, stream: str, line: bytes, part: Part | None, time_ns: int) -> bytes:
            """Returns one line as a message."""


_JOURNAL = "/run/systemd/journal/socket"
_HOSTS_OWN = ("/dev/log", "/var/run/syslog", "/var/run/log")
_CONNECT_SECONDS = 10
_SEND_SECONDS = 30
_LAST_SECONDS = 2
_STREAMS = {"tcp", "unix", "tcp+tls"}


class Writer:
    """Sends a container's output on, line by line.

    Args:
        connection: where to.
        form: what is sent of a line.
        capacity_bytes: how much is kept for another end that does not take it, None to wait.
        cache: a local log of the same, or None.
    """

    __slots__ = ("_cache", "_capacity_bytes", "_connection", "_form", "_kept", "_kept_bytes",
                 "_lines", "lost_bytes")  # fmt: skip

    def __init__(
        self,
        connection: "Connection",
        form: "Format",
        capacity_bytes: int | None,
        cache: "local.Writer | None",
    ) -> None:
        self._connection = connection
        self._form = form
        self._capacity_bytes = capacity_bytes
        self._cache = cache
        self._lines = Lines()
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self.lost_bytes = 0

    def write(self, stream: str, data: bytes, time_ns: int) -> None:
        """Send what a container wrote, whole lines of it."""
        if self._cache is not None:
            self._cache.write(stream, data, time_ns)
        for line, part in self._lines.feed(stream, data):
            self._send(self._form.message(stream, line, part, time_ns))

    def flush(self) -> bool:
        """Try once more to send what was kept; returns whether nothing is left."""
        while self._kept and self._connection.send(self._kept[0], 0):
            self._kept_bytes -= len(self._kept.pop(0))
        return not self._kept

    def close(self, time_ns: int) -> None:
        """Send what was begun and what was kept, as far as the other end takes it."""
        for stream, lines in self._lines.finish():
            for line, part in lines:
                self._send(self._form.message(stream, line, part, time_ns))
        while self._kept and self._connection.send(self._kept[0], _LAST_SECONDS):
            del self._kept[0]
        self._connection.close()
        if self._cache is not None:
            self._cache.close(time_ns)

    def _send(self, message: bytes) -> None:
        if self._capacity_bytes is None:
            if not self._connection.send(message, _SEND_SECONDS):
                self.lost_bytes += len(message)
            return
        self.flush()
        if not self._kept and self._connection.send(message, 0):
            return
        if self._kept_bytes + len(message) <= self._capacity_bytes:
            self._kept.append(message)
            self._kept_bytes += len(message)
        else:
            self.lost_bytes += len(message)


class Connection:
    """A socket to another program's log, connected anew when that has been away.

    Args:
        transport: ``tcp``, ``udp``, ``unix``, ``unixgram`` or ``tcp+tls``.
        where: a path, or a host.
        port: of the host.
        options: what TLS is to be done with.

    Raises:
        UnavailableError: nobody listens there.
    """

    __slots__ = ("_begun", "_options", "_port", "_retry_at", "_socket", "_transport", "_where")

    def __init__(self, transport: str, where: str, port: int, options: "Mapping[str, str]") -> None:
        self._transport = transport
        self._where = where
        self._port = port
        self._options = options
        self._begun = b""  # the rest of a message of which the stream has got the start
        self._retry_at = 0.0
        self._socket: _socket.socket | Secured | None = None
        try:
            self._socket = self._connect()
        except OSError as error:
            target = where if transport.startswith("unix") else f"{where}:{port}"
            raise UnavailableError(
                "failed to initialize logging driver: "
                f"dial {transport.partition('+')[0]} {target}: connect: {in_words(error)}"
            ) from error

    def send(self, message: bytes, patience_seconds: float) -> bool:
        """Send a message.

        Args:
            message: whole.
            patience_seconds: how long to wait for an end that does not take it.

        Returns:
            Whether it is sent, or will be by the next call.
        """
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                if self._socket is None:
                    if time.monotonic() < self._retry_at:
                        return False
                    self._socket = self._connect()
                if self._begun and not self._push(b"", deadline):
                    return False
                return self._push(message, deadline)
            except OSError:
                # Whoever listens was started anew: one more try, then some peace.
                self.close()
                self._begun = b""
                if time.monotonic() < self._retry_at:
                    return False
                self._retry_at = time.monotonic() + 1

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _push(self, message: bytes, deadline: float) -> bool:
        data = self._begun or message
        assert self._socket is not None
        while data:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._socket.fileno(), select.POLLOUT)
                left = deadline - time.monotonic()
                if left <= 0 or not poll.poll(left * 1000):
                    if data is not message:
                        self._begun = bytes(data)
                        return not (message and self._begun == message)
                    return False
                continue
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    return True  # a datagram that no socket will ever take
                raise
            data = data[sent:] if self._transport in _STREAMS else b""
        self._begun = b""
        return True

    def _connect(self) -> "_socket.socket | Secured":
        if self._transport.startswith("unix"):
            kind = _socket.SOCK_STREAM if self._transport == "unix" else _socket.SOCK_DGRAM
            try:
                return self._open(_socket.AF_UNIX, kind, self._where)
            except OSError as error:
                if error.errno != errno.EPROTOTYPE or self._transport != "unix":
                    raise
                self._transport = "unixgram"  # a datagram socket, as syslogs mostly have
                return self._open(_socket.AF_UNIX, _socket.SOCK_DGRAM, self._where)
        kind = _socket.SOCK_DGRAM if self._transport == "udp" else _socket.SOCK_STREAM
        found = _socket.getaddrinfo(self._where, self._port, 0, kind)
        family, _, _, _, address = found[0]
        if self._transport != "tcp+tls":
            return self._open(family, kind, address)
        from ketch.engine.logs import tls  # noqa: PLC0415 - for the few that want it

        return tls.connect(self._where, self._port, self._options, _CONNECT_SECONDS)

    @staticmethod
    def _open(family: int, kind: int, address: object) -> "_socket.socket":
        opened = _socket.socket(family, kind | _socket.SOCK_CLOEXEC)
        try:
            opened.settimeout(_CONNECT_SECONDS)
            opened.connect(address)  # type: ignore[arg-type]
            opened.setblocking(False)
        except BaseException:
            opened.close()
            raise
        return opened


class Syslog:
    """Messages of a syslog, as Docker writes them.

    Args:
        options: the driver's.
        tag: what the container is called there.
        counted: whether a message is preceded by its length: RFC 5425, 4.3.
    """

    __slots__ = ("_counted", "_facility", "_format", "_tag")

    def __init__(self, options: "Mapping[str, str]", tag: str, *, counted: bool) -> None:
        self._facility = log_drivers.facility(options.get("syslog-facility", ""))
        self._format = options.get("syslog-format", "")
        self._tag = tag
        self._counted = counted

    def message(self, stream: str, line: bytes, _part: "Part | None", time_ns: int) -> bytes:
        """Returns one line as a message."""
        severity = 3 if stream == "stderr" else 6
        message = self._head(self._facility * 8 + severity, time_ns).encode() + line + b"\n"
        return b"%d %s" % (len(message), message) if self._counted else message

    def _head(self, priority: int, time_ns: int) -> str:
        pid = os.getpid()
        host = os.uname().nodename
        if self._format.startswith("rfc5424"):
            stamp = rfc3339(time_ns - time_ns % SECOND_NS)
            if self._format == "rfc5424micro":
                stamp = f"{stamp[:-1]}.{time_ns % SECOND_NS // 1000:06d}Z"
            return f"<{priority}>1 {stamp} {host} {self._tag} {pid} {self._tag} - "
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime(time_ns // SECOND_NS))
        host = f"{host} " if self._format == "rfc3164" else ""
        return f"<{priority}>{stamp} {host}{self._tag}[{pid}]: "


class Journal:
    """Entries of journald, by its native protocol.

    Args:
        fields: what is the same for each of them.

    Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL
    """

    __slots__ = ("_fields", "_ordinal")

    def __init__(self, fields: "Mapping[str, str]") -> None:
        self._fields = b"".join(_field(name, value.encode()) for name, value in fields.items())
        self._ordinal = 0

    def message(self, stream: str, line: bytes, part: "Part | None", time_ns: int) -> bytes:
        """Returns one line as an entry."""
        self._ordinal += 1
        text = self._fields + _field("MESSAGE", line)
        text += _field("PRIORITY", b"3" if stream == "stderr" else b"6")
        text += _field("SYSLOG_TIMESTAMP", rfc3339(time_ns).encode())
        text += _field("CONTAINER_LOG_ORDINAL", b"%d" % self._ordinal)
        if part is not None:
            if not part.last:
                text += _field("CONTAINER_PARTIAL_MESSAGE", b"true")
            text += _field("CONTAINER_PARTIAL_ID", part.identifier.encode())
            text += _field("CONTAINER_PARTIAL_ORDINAL", b"%d" % part.ordinal)
            text += _field("CONTAINER_PARTIAL_LAST", b"true" if part.last else b"false")
        return text


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value or not value.isascii():
        return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%s=%s\n" % (name.encode(), value)


def open_driver(
    driver: str,
    options: "Mapping[str, str]",
    tag: str,
    journal_fields: "Callable[[], Mapping[str, str]]",
) -> "tuple[Connection, Format]":
    """Connect to where a driver sends a container's output.

    Args:
        driver: ``syslog`` or ``journald``.
        options: the driver's.
        tag: what the container is called there.
        journal_fields: returns what the journal is to be told of the container.

    Raises:
        UnavailableError: nobody listens there.
    """
    if driver == log_drivers.JOURNALD:
        if not os.path.exists(_JOURNAL):
            raise UnavailableError(
                "failed to initialize logging driver: journald is not enabled on this host"
            )
        return Connection("unixgram", _JOURNAL, 0, {}), Journal(journal_fields())
    transport, where, port = log_drivers.address(options.get("syslog-address", ""))
    if not transport:
        where = next((path for path in _HOSTS_OWN if os.path.exists(path)), "")
        if not where:
            raise UnavailableError(
                "failed to initialize logging driver: Unix syslog delivery error",
                f"start a syslog daemon that listens on {_HOSTS_OWN[0]}, or give syslog-address",
            )
        transport = "unixgram"
    counted = transport == "tcp+tls" and options.get("syslog-format", "").startswith("rfc5424")
    return Connection(transport, where, port, options), Syslog(options, tag, counted=counted)
