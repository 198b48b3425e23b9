"""A connection to systemd: method calls, and the ends of the jobs that they begin.

systemd listens on a socket of its own, ``/run/systemd/private``, for root alone; a user's manager
does on ``$XDG_RUNTIME_DIR/systemd/private``. Both speak D-Bus without a bus in between. Where there
is none, the system's bus, or the user's, leads there as well.

Source: org.freedesktop.systemd1(5), D-Bus Specification "Authentication Protocol".
"""

import _socket
import os
import time

from ketch.errors import UnavailableError, in_words
from ketch.linux.restrictions import own_id
from ketch.spec import dbus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MANAGER = "org.freedesktop.systemd1.Manager"
PATH = "/org/freedesktop/systemd1"
_NAME = "org.freedesktop.systemd1"
_BUS = "org.freedesktop.DBus"
_REPLY_SECONDS = 30.0
_JOB_SECONDS = 30.0
_RECEIVE_BYTES = 1 << 16
# The system's, and whether a bus is in between.
_PLACES = [("/run/systemd/private", False), ("/run/dbus/system_bus_socket", True)]


class BusError(Exception):
    """systemd refused a call.

    Args:
        name: of the error, such as ``org.freedesktop.systemd1.UnitExists``.
        message: systemd's words.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{message} ({name})")
        self.name = name.rpartition(".")[2]


class Systemd:
    """A connection to the system's manager, or to a user's; a context manager.

    Args:
        user: whether to speak to the manager of this user.

    Raises:
        UnavailableError: nobody answers.
    """

    __slots__ = ("_buffer", "_ended_jobs", "_serial", "_socket", "_through_bus")

    def __init__(self, *, user: bool = False) -> None:
        self._buffer = b""
        self._serial = 0
        self._ended_jobs: dict[str, str] = {}
        self._socket, self._through_bus = _connect(user=user)
        try:
            if self._through_bus:
                self._call_bus("Hello")
                rule = f"type='signal',interface='{MANAGER}',member='JobRemoved'"
                self._call_bus("AddMatch", "s", rule)
                self.call("Subscribe")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Systemd":
        """Returns the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def call(self, member: str, signature: str = "", *arguments: "Any") -> "list[Any]":
        """Call a method of the manager.

        Args:
            member: its name.
            signature: the arguments' types.
            arguments: as ``ketch.spec.dbus`` takes them.

        Returns:
            What it returned.

        Raises:
            BusError: it refused.
            UnavailableError: systemd does not answer.
        """
        return self._request(_NAME, PATH, MANAGER, member, signature, arguments)

    def property(self, name: str) -> "Any":
        """A property of the manager."""
        interface = "org.freedesktop.DBus.Properties"
        (found,) = self._request(_NAME, PATH, interface, "Get", "ss", (MANAGER, name))
        return found.value

    def run(self, member: str, signature: str, *arguments: "Any") -> str:
        """Call a method that begins a job, and wait for the job's end.

        Returns:
            The job's result: ``done``, or what went wrong.

        Raises:
            BusError: it refused.
            UnavailableError: the job did not end in time.
        """
        (job,) = self.call(member, signature, *arguments)
        deadline = time.monotonic() + _JOB_SECONDS
        while job not in self._ended_jobs:
            self._note(self._receive(deadline, f"{member} to end"))
        return self._ended_jobs.pop(job)

    def _call_bus(self, member: str, signature: str = "", *arguments: "Any") -> None:
        self._request(_BUS, "/org/freedesktop/DBus", _BUS, member, signature, arguments)

    def _request(
        self, destination: str, path: str, interface: str, member: str, signature: str,
        arguments: "Sequence[Any]",
    ) -> "list[Any]":  # fmt: skip
        self._serial += 1
        fields = {
            "path": path,
            "interface": interface,
            "member": member,
            "destination": destination if self._through_bus else "",
            "signature": signature,
        }
        message = dbus.Message(dbus.METHOD_CALL, self._serial, fields, arguments)
        try:
            self._socket.sendall(message.encode())
        except OSError as error:
            raise _unavailable(in_words(error)) from error
        deadline = time.monotonic() + _REPLY_SECONDS
        while True:
            reply = self._receive(deadline, f"an answer to {member}")
            if reply.fields.get("reply_to") != self._serial:
                self._note(reply)
            elif reply.kind == dbus.ERROR:
                words = str(reply.body[0]) if reply.body else ""
                raise BusError(reply.fields.get("error", ""), words)
            else:
                return reply.body

    def _note(self, message: dbus.Message) -> None:
        """Remember the end of a job; nothing else is of interest."""
        if message.kind == dbus.SIGNAL and message.fields.get("member") == "JobRemoved":
            _, job, _, result = message.body
            self._ended_jobs[job] = result

    def _receive(self, deadline: float, awaited: str) -> dbus.Message:
        try:
            self._fill(dbus.FIXED_BYTES, deadline)
            whole = dbus.length(self._buffer[: dbus.FIXED_BYTES])
            self._fill(whole, deadline)
            data, self._buffer = self._buffer[:whole], self._buffer[whole:]
            return dbus.Message.decode(data)
        except TimeoutError:
            raise _unavailable(f"waited too long for {awaited}") from None
        except OSError as error:
            raise _unavailable(in_words(error)) from error
        except ValueError as error:
            raise _unavailable(f"it sent {error}") from error

    def _fill(self, wanted_bytes: int, deadline: float) -> None:
        while len(self._buffer) < wanted_bytes:
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0:
                raise TimeoutError
            self._socket.settimeout(left_seconds)
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise _unavailable("it closed the connection")
            self._buffer += data


def _connect(*, user: bool) -> tuple[_socket.socket, bool]:
    """Connect and authenticate; the socket, and whether a bus is in between."""
    reason = "there is no socket"
    for path, through_bus in _user_places() if user else _PLACES:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(_REPLY_SECONDS)
            connection.connect(path)
            _authenticate(connection)
        except OSError as error:
            connection.close()
            reason = f"{path}: {in_words(error)}"
        else:
            return connection, through_bus
    raise _unavailable(reason)


def _user_places() -> list[tuple[str, bool]]:
    directory = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{own_id('uid_map')}"
    bus = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    places = [(f"{directory}/systemd/private", False), (f"{directory}/bus", True)]
    for address in bus.split(";"):
        transport, _, rest = address.partition(":")
        pairs = dict(each.partition("=")[::2] for each in rest.split(","))
        if transport == "unix" and "path" in pairs:
            places.append((pairs["path"], True))
    return places


def _authenticate(connection: _socket.socket) -> None:
    """Say who we are by what the kernel knows of the socket's owner.

    Without a number, as sd-bus does since 246: inside a user namespace ours is another than the one
    that systemd sees. All in one, and no call before the answer: a call that arrives together with
    BEGIN stays unread in systemd's buffer until more comes.
    """
    connection.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
    answer = b""
    while b"OK " not in answer or not answer.endswith(b"\r\n"):
        data = connection.recv(512)
        answer += data
        if not data or b"REJECTED" in answer or b"ERROR" in answer:
            raise PermissionError(0, "authentication was refused")


def _unavailable(reason: str) -> UnavailableError:
    return UnavailableError(
        f"systemd does not answer: {reason}",
        "it must be this machine's init, and you its root or logged in with a session of your own",
    )
