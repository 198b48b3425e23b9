"""Which name a TLS client asks for, each time: RFC 8446 4.1, RFC 6066 3. No socket in sight.

Who speaks is hostile: what is read is bounded, and what is not exactly as the standards have it is
refused, for it may be something else to the server.
"""

BYTES_MAX = 64 << 10
"""Of all that is read before the name is known."""

_HANDSHAKE, _CHANGE_CIPHER_SPEC, _ALERT, _APPLICATION_DATA = 22, 20, 21, 23
_CLIENT_HELLO, _SERVER_HELLO = 1, 2
# What a server's random is that wants another hello: SHA-256 of HelloRetryRequest.
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_SERVER_NAME = 0
_ENCRYPTED_CLIENT_HELLO = 0xFE0D  # RFC 9849
_RECORD_HEAD_BYTES = 5
_LENGTH_MAX = (1 << 14) + 256  # of a record, encrypted
_HELLO_HEAD_BYTES = 4


class ClientHello:
    """The beginning of a client's side of a connection.

    Args:
        again: it is what the client says when the server has it begin anew. Data that it has sent
            early, in vain, and a record for middleboxes may come first.

    Attributes:
        name: what it asks for, as it is written; None until it is known, and where it names none.
        done: whether all is read that tells.
    """

    def __init__(self, *, again: bool = False) -> None:
        self.name: str | None = None
        self.done = False
        self._before = {_CHANGE_CIPHER_SPEC, _APPLICATION_DATA} if again else set()
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
            before = kind in self._before and not self._message
            if not (kind == _HANDSHAKE or before) or major != 3 or not 0 < length <= _LENGTH_MAX:
                raise ValueError("no ClientHello")
            end = _RECORD_HEAD_BYTES + length
            if len(self._records) < end:
                return
            if not before:
                self._message += self._records[_RECORD_HEAD_BYTES:end]
            del self._records[:end]
            if not before:
                self._look()
        if self._records and not self.done and self._records[0] not in {_HANDSHAKE, *self._before}:
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


def wants_another(said: bytes) -> bool | None:
    """Whether a server has the client say its hello again (HelloRetryRequest).

    Args:
        said: what it has said until now.

    Returns:
        None where more has to come to tell.
    """
    message = b""
    while len(said) >= _RECORD_HEAD_BYTES:
        length = int.from_bytes(said[3:5], "big")
        content = said[_RECORD_HEAD_BYTES : _RECORD_HEAD_BYTES + length]
        if said[0] == _HANDSHAKE:
            message += content
        elif message or said[0] not in {_ALERT, _CHANGE_CIPHER_SPEC}:
            return False  # no TLS
        said = said[_RECORD_HEAD_BYTES + len(content) :]
        begin = _HELLO_HEAD_BYTES + 2
        if message[:1] not in {b"", bytes([_SERVER_HELLO])}:
            return False
        if len(message) >= begin + len(_RETRY):
            return message[begin : begin + len(_RETRY)] == _RETRY
        if len(content) < length:
            break
    return None


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
