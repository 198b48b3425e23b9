"""A server on this machine that says one word to whoever comes."""

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def saying(word: bytes, address: str = "") -> Iterator[int]:
    """Listen until the end of the block; yield the port.

    Args:
        word: what is said, before the connection is closed.
        address: where to listen; at all of the machine's IPv4 addresses where empty.
    """
    with socket.create_server((address, 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.sendall(word)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):  # it is no connection's; who waits is woken
                listening.shutdown(socket.SHUT_RDWR)
