"""Which name a TLS client asks for: RFC 8446 4.1.2, RFC 6066 3. No socket in sight.

Who speaks is hostile: what is read is bounded, and what is not exactly as the standards have it is
refused, for it may be something else to the server.
"""

BYTES_MAX = 64 << 10
"""Of all that is read before the name is known."""

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_ENCRYPTED_CLIENT_HELLO = 0xFE0D  # RFC 9849
_RECORD_HEAD_BYTES = 5
_RECORD_BYTES_MAX = 1 << 14
_HELLO_HEAD_BYTES = 4


class ClientHello:
    """The beginning of a client's side of a connection.

    Attributes:
        name: what it asks for, as it is written; None until it is known, and where it names none.
        done: whether all is read that tells.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.done = False
        self._records = bytearray()
        self._message = bytearray()
        self._read = 0

    def feed(self, data: bytes) -> None:
        """Take what came next.

        Raises:
            ValueError: it is no ClientHello, or hides the name.
        """
        self._read += len(data)
        if self._read > BYTES_MAX:
            raise ValueError("a ClientHello longer than any")
        self._records += data
        while not self.done and len(self._records) >= _RECORD_HEAD_BYTES:
            kind, major = self._records[0], self._records[1]
            length = int.from_bytes(self._records[3:5], "big")
            if kind != _HANDSHAKE or major != 3 or not 0 < length <= _RECORD_BYTES_MAX:
                raise ValueError("no ClientHello")
            end = _RECORD_HEAD_BYTES + length
            if len(self._records) < end:
                return
            self._message += self._records[_RECORD_HEAD_BYTES:end]
            del self._records[:end]
            self._look()
        if self._records and not self.done and self._records[0] != _HANDSHAKE:
            raise ValueError("no ClientHello")

    def _look(self) -> None:
        message = self._message
        if message[0] != _CLIENT_HELLO:
            raise ValueError("no ClientHello")
        if len(message) < _HELLO_HEAD_BYTES:
            return
        length = int.from_bytes(message[1:4], "big")
        if length > BYTES_MAX:
            raise ValueError("a ClientHello longer than any")
        if len(message) < _HELLO_HEAD_BYTES + length:
            return
        if len(message) > _HELLO_HEAD_BYTES + length:
            raise ValueError("something behind the ClientHello")
        self.name = _name(_Reader(bytes(message[_HELLO_HEAD_BYTES:])))
        self.done = True


class _Reader:
    """Bytes that are taken one after another."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if count > len(self.data):
            raise ValueError("a ClientHello that is cut off")
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def vector(self, count: int) -> bytes:
        return self.take(self.number(count))

    def end(self) -> None:
        if self.data:
            raise ValueError("more in a ClientHello than it says")


def _name(hello: _Reader) -> str | None:
    hello.take(2 + 32)  # legacy_version, random
    hello.vector(1)  # legacy_session_id
    hello.vector(2)  # cipher_suites
    hello.vector(1)  # legacy_compression_methods
    if not hello.data:
        return None
    extensions = _Reader(hello.vector(2))
    hello.end()
    name, seen = None, set()
    while extensions.data:
        kind = extensions.number(2)
        content = _Reader(extensions.vector(2))
        if kind in seen:
            raise ValueError("an extension twice in a ClientHello")
        seen.add(kind)
        if kind == _ENCRYPTED_CLIENT_HELLO:
            raise ValueError("the name is encrypted (ECH)")
        if kind == _SERVER_NAME:
            name = _server_name(content)
    return name


def _server_name(content: _Reader) -> str:
    names = _Reader(content.vector(2))
    content.end()
    if names.number(1) != 0:  # host_name, the one kind that there is
        raise ValueError("a name of another kind in a ClientHello")
    name = names.vector(2)
    names.end()
    try:
        return name.decode("ascii")
    except UnicodeDecodeError as error:
        raise ValueError("a name that is none in a ClientHello") from error
