"""A syslog behind TLS. Loading OpenSSL costs a monitor some megabytes, so only where asked for."""

import socket
import ssl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Secured:
    """A connection that never blocks, with the words of a plain socket."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        connection.setblocking(False)
        self.fileno = connection.fileno
        self.close = connection.close

    def send(self, data: bytes) -> int:
        """Send what fits. Raises BlockingIOError where nothing does."""
        try:
            return self._connection.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error


def connect(host: str, port: int, options: "Mapping[str, str]", timeout_seconds: float) -> Secured:
    """Connect, and shake hands.

    Args:
        host: name or address.
        port: its port.
        options: ``syslog-tls-ca-cert``, ``-cert``, ``-key``, ``-skip-verify``.
        timeout_seconds: how long each step may take.

    Raises:
        OSError: nobody is there, or it is not who it should be.
    """
    context = ssl.create_default_context(cafile=options.get("syslog-tls-ca-cert") or None)
    if options.get("syslog-tls-skip-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := options.get("syslog-tls-cert"):
        context.load_cert_chain(certificate, options.get("syslog-tls-key") or None)
    plain = socket.create_connection((host, port), timeout_seconds)
    try:
        secured = context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise
    return Secured(secured)
