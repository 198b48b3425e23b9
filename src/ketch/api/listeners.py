"""Where the API listens: Unix sockets, TCP with mutual TLS, sockets that systemd hands over."""

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

from ketch.dataclass import dataclass
from ketch.errors import InvalidArgumentError, UnavailableError, in_words
from ketch.spec import certificates
from ketch.spec.digits import decimal

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

BACKLOG = 512
SOCKET_MODE = 0o660
_OWNERS_MODE = 0o600
_FIRST_INHERITED = 3  # sd_listen_fds(3)


@dataclass
class Tls:
    """The files of mutual TLS; all three, or none.

    Args:
        authority: certificates of who signs clients' certificates.
        certificate: the server's certificate chain.
        key: its private key.
    """

    authority: str = ""
    certificate: str = ""
    key: str = ""

    def context(self) -> "ssl.SSLContext":
        """Returns what makes a connection prove who it is.

        Raises:
            InvalidArgumentError: a file is not named, not there, or not what it should be.
        """
        import ssl  # noqa: PLC0415 - only TCP needs it

        for name, path in (
            ("tlscacert", self.authority), ("tlscert", self.certificate), ("tlskey", self.key)
        ):  # fmt: skip
            if not path:
                raise InvalidArgumentError(
                    f"listening on TCP needs --{name}: whoever reaches the API is root here, so "
                    "it is never served to clients without certificates",
                    "give --tlscacert, --tlscert and --tlskey",
                )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.certificate, self.key)
            context.load_verify_locations(self.authority)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgumentError(f"TLS certificates: {in_words(error)}") from error
        return context

    def names(self) -> list[str]:
        """Returns the names that the certificate vouches for."""
        import ssl  # noqa: PLC0415 - only TCP needs it

        try:
            with open(self.certificate, encoding="ascii") as file:
                # The server's own comes first.
                first, _, _ = file.read().partition(ssl.PEM_FOOTER)
            begin = first.index(ssl.PEM_HEADER)
            return certificates.names(ssl.PEM_cert_to_DER_cert(f"{first[begin:]}{ssl.PEM_FOOTER}"))
        except (OSError, ValueError):
            return []


class Listener:
    """One listening socket.

    Args:
        socket: it; does not block.
        name: what it is called in the log.
        tls: what connections prove themselves with, None on a Unix socket.
        path: the file to remove at the end, empty for none.
        names: what the server may be called by who connects; None on a Unix socket, which has no
            name.
    """

    def __init__(
        self,
        socket: socket.socket,
        name: str,
        tls: "ssl.SSLContext | None" = None,
        path: str = "",
        names: "Sequence[str] | None" = None,
    ) -> None:
        socket.setblocking(False)
        self.socket = socket
        self.name = name
        self.tls = tls
        self.names = names
        self._path = path
        self._place = _place(path)

    def close(self) -> None:
        """Stop listening; the socket's file goes unless another server has taken its place."""
        if self._path and _place(self._path) == self._place:
            os.unlink(self._path)
        self.socket.close()


def inherited(environment: "Mapping[str, str]", tls: Tls) -> list[Listener]:
    """Returns the sockets that systemd opened for this process: sd_listen_fds(3).

    Raises:
        InvalidArgumentError: one is TCP, and a TLS file is missing.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    found = []
    for number in range(decimal(environment.get("LISTEN_FDS", ""), 4) or 0):
        descriptor = _FIRST_INHERITED + number
        os.set_inheritable(descriptor, False)
        listening = socket.socket(fileno=descriptor)
        name = f"fd://{descriptor}"
        if listening.family == socket.AF_UNIX:
            found.append(Listener(listening, name))
        else:
            names = [socket.gethostname().lower(), *tls.names()]
            found.append(Listener(listening, name, tls.context(), names=names))
    return found


def listen(address: str, tls: Tls, group: str, warn: "Callable[[str], None]") -> Listener:
    """Listen on an address.

    Args:
        address: ``unix:///PATH`` or ``tcp://HOST:PORT``.
        tls: for TCP.
        group: which group may use a Unix socket beside its owner; empty for none.
        warn: is told when there is no such group.

    Raises:
        InvalidArgumentError: the address is malformed, or TCP without certificates.
        UnavailableError: it is in use, or may not be used.
    """
    scheme, separator, rest = address.partition("://")
    if scheme == "unix" and separator and rest.startswith("/"):
        return _listen_unix(address, rest, group, warn)
    if scheme == "tcp" and separator:
        return _listen_tcp(address, rest, tls)
    raise InvalidArgumentError(
        f"invalid --host: {address}", "unix:///PATH and tcp://HOST:PORT are known"
    )


def _listen_unix(address: str, path: str, group: str, warn: "Callable[[str], None]") -> Listener:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o777 & ~(SOCKET_MODE if group else _OWNERS_MODE))
    try:
        _remove_stale(path)
        listening.bind(path)
    except OSError as error:
        listening.close()
        raise UnavailableError(f"cannot listen on {address}: {error.strerror or error}") from error
    finally:
        os.umask(umask)
    number = group_id(group) if group else None
    if group and number is None:
        warn(f"there is no group {group}: only root can use {path}")
    elif number is not None:
        os.chown(path, -1, number)
    listening.listen(BACKLOG)
    return Listener(listening, address, None, path)


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that was killed; one that somebody answers on stays."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "something else is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise OSError(errno.EADDRINUSE, "another server listens there")


def _listen_tcp(address: str, rest: str, tls: Tls) -> Listener:
    host, _, port = rest.rstrip("/").rpartition(":")
    number = decimal(port, 5)
    if number is None or not host:
        raise InvalidArgumentError(f"invalid --host: {address}", "write tcp://HOST:PORT")
    context = tls.context()
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host.strip("[]"), number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
    except (OSError, OverflowError) as error:
        raise UnavailableError(f"cannot listen on {address}: {in_words(error)}") from error
    listening.listen(BACKLOG)
    names = [host.strip("[]").lower(), socket.gethostname().lower(), *tls.names()]
    return Listener(listening, address, context, names=names)


def group_id(name: str) -> int | None:
    """Returns the number of a group of this host, None where there is none."""
    import grp  # noqa: PLC0415 - only at the server's start

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _place(path: str) -> tuple[int, int] | None:
    try:
        facts = os.stat(path) if path else None
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino) if facts else None
