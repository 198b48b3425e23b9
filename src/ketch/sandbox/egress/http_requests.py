"""Whom requests ask for: HTTP/1.0 and 1.1 as a client sends it (RFC 9112), without a socket.

Every request of a connection is read, its body passed on as its head says. What two readers could
understand in two ways is refused: bare line feeds, folded lines, two lengths, two hosts.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_BYTES_MAX = 64 << 10
_LINE_BYTES_MAX = 256  # of a chunk's length, with its extensions
_FIELDS_MAX = 200
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_HOST = frozenset(b"-._0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS_MAX = 18  # of a length
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")

Field = tuple[bytes, bytes]


class Request(NamedTuple):
    """A request's head.

    Attributes:
        method: what is to be done.
        target: to what, as it is written.
        version: ``HTTP/1.1`` or ``HTTP/1.0``.
        fields: names, as they are written, and values.
        host: whom it asks, as it is written, without the port.
        port: the port that it names, None where it names none.
    """

    method: bytes
    target: bytes
    version: bytes
    fields: list[Field]
    host: str
    port: int | None


class Requests:
    """A client's side of a connection, as it may be passed on.

    Args:
        check: is told of each request; returns what its fields are to be. It raises ValueError
            where the request must not be passed on.
        scheme: of what is asked for: ``http``, or ``https`` within TLS.
    """

    def __init__(self, check: "Callable[[Request], list[Field]]", *, scheme: str = "http") -> None:
        self._check = check
        self._scheme = scheme.encode()
        self._held = bytearray()
        self._left = 0  # of a body, or of a chunk with its line end
        self._chunked = False
        self._data = False  # a chunk's, whose line end is to come
        self._trailer = False

    def feed(self, data: bytes) -> bytes:
        """Take what came; returns what may be passed on of it.

        Raises:
            ValueError: nothing more may be passed on; why.
        """
        passed = bytearray()
        self._held += data
        while self._held:
            if self._left:
                piece = self._held[: self._left]
                passed += piece
                del self._held[: len(piece)]
                self._left -= len(piece)
                continue
            step = self._chunk() if self._chunked else self._head()
            if step is None:
                break
            passed += step
        return bytes(passed)

    def _head(self) -> bytes | None:
        end = self._held.find(b"\r\n\r\n")
        if end < 0 or end > HEAD_BYTES_MAX:
            if len(self._held) > HEAD_BYTES_MAX:
                raise ValueError("a request's head that has no end")
            _check_beginning(bytes(self._held[:32]))
            return None
        lines = bytes(self._held[:end]).split(b"\r\n")
        del self._held[: end + 4]
        request = _request(lines, self._scheme)
        self._frame(request)
        fields = self._check(request)
        line = b" ".join((request.method, request.target, request.version))
        return b"\r\n".join([line, *(b"%s: %s" % field for field in fields), b"", b""])

    def _frame(self, request: Request) -> None:
        """Know how long the body is."""
        lengths = _values(request.fields, b"content-length")
        codings = _values(request.fields, b"transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise ValueError("a request of two lengths")
        if codings:
            if codings[0].lower() != b"chunked" or request.version != b"HTTP/1.1":
                raise ValueError("a request in a coding that is not chunked")
            self._chunked = True
        elif lengths:
            if not lengths[0].isdigit() or len(lengths[0]) > _DIGITS_MAX:
                raise ValueError("a request's length that is none")
            self._left = int(lengths[0])

    def _chunk(self) -> bytes | None:
        """A chunk's head, the line end of its data, or a line of what follows the last one."""
        if self._data:
            return self._end_of_data()
        end = self._held.find(b"\r\n")
        limit = HEAD_BYTES_MAX if self._trailer else _LINE_BYTES_MAX
        if end < 0 or end > limit:
            if len(self._held) > limit:
                raise ValueError("a chunk's head that has no end")
            return None
        line = bytes(self._held[:end])
        if b"\n" in line or b"\r" in line:
            raise ValueError("a line's end that is none")
        if self._trailer:
            if line:
                raise ValueError("fields behind a body")
            self._chunked = self._trailer = False
        else:
            size = line.partition(b";")[0].rstrip(b" \t")
            if not size or len(size) > 15 or not _HEXADECIMAL.issuperset(size):
                raise ValueError("a chunk's length that is none")
            length = int(size, 16)
            self._trailer = length == 0
            self._data = length > 0
            self._left = length
        del self._held[: end + 2]
        return line + b"\r\n"

    def _end_of_data(self) -> bytes | None:
        if len(self._held) < 2:
            return None
        # Who takes other bytes for it may take what follows for another request.
        if self._held[:2] != b"\r\n":
            raise ValueError("a chunk that is longer than it says")
        del self._held[:2]
        self._data = False
        return b"\r\n"


def looks_like(data: bytes) -> bool | None:
    """Whether what a client begins with is a request; None where more has to come to tell.

    Methods can have any name, and servers take more than one kind of blanks around them, leave out
    the version, or take another protocol's for it (llhttp, which Node has). So what tells is the
    first line, but where its first word is none that a method could be.
    """
    if data.startswith(_PROXIED):
        return True
    if _PROXIED.startswith(data):
        return None
    line, end, _ = data.lstrip(_BLANKS).partition(b"\n")
    words = line.split(maxsplit=1)
    if not words:
        return None if len(data) <= HEAD_BYTES_MAX else True
    if not _is_token(words[0]):
        return False
    if words[0].upper() in _METHODS and (end or len(words) > 1 or line[-1:].isspace()):
        return True
    if end or len(line) > HEAD_BYTES_MAX:
        target = words[1] if len(words) > 1 else b""
        return (
            target[:1] in {b"/", b"*"} or b"://" in target
            or any(version in line.upper() for version in _VERSIONS)
        )  # fmt: skip
    return None


_BLANKS = b" \t\r\n\x0b\x0c"
_METHODS = {
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI",
    b"PROXY",  # says before the request whose it is (haproxy's proxy-protocol.txt)
}  # fmt: skip
_VERSIONS = (b"HTTP/", b"RTSP/", b"ICE/")
_PROXIED = b"\r\n\r\n\0\r\nQUIT\n"  # the same in its second version


def _check_beginning(data: bytes) -> None:
    """Refuse early what will be no request, so that nobody waits for its end."""
    if b"\0" in data or data[:1] in {b"\r", b"\n", b" "} or data[:1] == b"\x16":
        raise ValueError("no request")


def _request(lines: list[bytes], scheme: bytes) -> Request:
    if any(b"\n" in line or b"\r" in line or b"\0" in line for line in lines):
        raise ValueError("a line's end that is none")
    words = lines[0].split(b" ")
    if len(words) != 3 or not all(words) or not _is_token(words[0]):
        raise ValueError("no request")
    method, target, version = words
    if version not in {b"HTTP/1.1", b"HTTP/1.0"}:
        raise ValueError("a request of another version of HTTP")
    if method.upper() in {b"CONNECT", b"PRI"}:
        raise ValueError("a request for a tunnel")
    if len(lines) > _FIELDS_MAX:
        raise ValueError("a request of too many fields")
    fields = [_field(line) for line in lines[1:]]
    hosts = _values(fields, b"host")
    if len(hosts) != 1:
        raise ValueError(f"a request with {len(hosts)} fields Host")
    if _values(fields, b"upgrade"):
        raise ValueError("a request for another protocol (Upgrade)")
    authority = hosts[0]
    if not target.startswith(b"/") and target != b"*":
        before, _, rest = target.partition(b"://")
        if before.lower() != scheme or rest.partition(b"/")[0].partition(b"?")[0] != authority:
            raise ValueError("a request for what its field Host does not say")
    host, port = _authority(authority)
    return Request(method, target, version, fields, host, port)


def _field(line: bytes) -> Field:
    name, colon, value = line.partition(b":")
    if not colon or not _is_token(name):
        raise ValueError("a field that is none")
    return name, value.strip(b" \t")


def _authority(text: bytes) -> tuple[str, int | None]:
    host, colon, port = text.partition(b":")
    # An IPv6 address has no name that a rule could be about.
    if not _HOST.issuperset(host) or (colon and not (port.isdigit() and len(port) <= 5)):
        raise ValueError("a field Host that names none")
    return host.decode("ascii"), int(port) if port else None


def _values(fields: list[Field], name: bytes) -> list[bytes]:
    return [value for key, value in fields if key.lower() == name]


def _is_token(text: bytes) -> bool:
    return bool(text) and _TOKEN.issuperset(text)
