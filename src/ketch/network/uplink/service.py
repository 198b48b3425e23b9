"""The process in the machine's network that leads out of a user's network, and into it.

One a state directory, started by the first container that needs it; it leaves when the last one has
gone. Each has a connection to it, and when that ends what it was for ends. It is in the user's user
and mount namespaces, so it is trusted with no more than any other of the user's processes.
"""

import _socket
import errno
import os
import select
import signal
import sys
import time
from ipaddress import ip_address

from ketch.errors import UnavailableError
from ketch.linux import namespaces, process
from ketch.linux.scopes import owned, suppress
from ketch.network import ports
from ketch.network.uplink import outside, uplink
from ketch.network.uplink.privately import Private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

IDLE_SECONDS = 2.0
# After which a way out that failed, or did not last, is tried again; one that lasted, at once.
RETRY_SECONDS = 5.0
_LASTING_SECONDS = 1.0
_RELAY_SECONDS = 5.0
_LOOK_SECONDS = 0.005
_BACKLOG = 4096  # the kernel's default limit, net.core.somaxconn


class Service:
    """Serves until nobody is connected any more.

    Args:
        listener: SOCK_SEQPACKET, listening.
        network: a path to the user's network namespace.
        directory: a directory of the user's alone.
    """

    __slots__ = ("_clients", "_directory", "_led", "_listener", "_network", "_poll", "_private",
                 "_problem", "_published", "_relay", "_tried_at", "_uplink")  # fmt: skip

    def __init__(self, listener: _socket.socket, network: str, directory: str) -> None:
        self._listener = listener
        self._network = network
        self._directory = directory
        self._clients: dict[int, _socket.socket] = {}
        self._led: set[int] = set()  # those who have asked for the way out
        self._published: set[int] = set()  # those who have published ports
        self._private = Private(directory)
        self._relay: _socket.socket | None = None
        self._uplink: uplink.Way | None = None
        self._problem: UnavailableError | None = None
        self._tried_at = 0.0
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        listener.setblocking(False)

    def close(self) -> None:
        """End the ways out."""
        self._private.close()
        if self._uplink is not None:
            self._uplink.close()
            self._uplink = None

    def serve(self, idle_seconds: float = IDLE_SECONDS) -> None:
        """Do what is asked until nobody has been connected for a while."""
        idle_until = time.monotonic() + idle_seconds
        while self._clients or time.monotonic() < idle_until:
            self._mend()
            self._private.look(self._poll)
            # Those who have left first: their ports may be asked for again by now.
            ready = self._poll.poll(self._patience(idle_until) * 1000)
            for descriptor, _ in sorted(ready, key=lambda one: not one[1] & select.POLLHUP):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._clients:
                    self._hear(self._clients[descriptor])
                elif self._relay is not None and descriptor == self._relay.fileno():
                    # Whoever is connected hears of that, and has everything made anew.
                    raise UnavailableError("the process that passes on what comes to ports ended")
            if self._clients:
                idle_until = time.monotonic() + idle_seconds

    def _patience(self, idle_until: float) -> float:
        """For how many seconds there is nothing to do unless something happens."""
        now = time.monotonic()
        if self._private.begins:
            return _LOOK_SECONDS
        if self._led and self._uplink is None:
            return max(0.0, self._tried_at + RETRY_SECONDS - now)
        return RETRY_SECONDS if self._clients else max(0.0, idle_until - now)

    # Connections

    def _accept(self) -> None:
        with suppress(OSError):  # it has left again
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
            client = _socket.socket(fileno=descriptor)
            _pid, user, _group = process.peer(client)
            if user != os.getuid():
                client.close()
                return
            client.setblocking(False)
            client.send(outside.HELLO)
            self._clients[descriptor] = client
            self._poll.register(client, select.POLLIN)

    def _hear(self, client: _socket.socket) -> None:
        try:
            verb, words, descriptor = outside.receive(client)
            try:
                self._do(client, verb, words, descriptor)
            finally:
                if descriptor is not None:
                    os.close(descriptor)
        except BlockingIOError:
            pass
        except (OSError, ValueError) as error:  # it has left, or is not one of us
            if isinstance(error, ValueError):
                sys.stderr.write(f"ketch-uplink: {error}\n")
            self._leave(client)

    def _leave(self, client: _socket.socket) -> None:
        self._poll.unregister(client)
        del self._clients[client.fileno()]
        self._led.discard(client.fileno())
        self._private.leave(client, self._poll)
        if client.fileno() in self._published and self._relay is not None:
            self._published.remove(client.fileno())
            # Its ports are free when the relay has closed them, not before.
            self._relay.send(f"drop\0{client.fileno()}".encode())
            self._relay.recv(outside.MESSAGE_BYTES_MAX)
        client.close()

    def _do(
        self, client: _socket.socket, verb: str, words: "Sequence[str]", descriptor: int | None
    ) -> None:
        """Do what is asked, as ``outside`` has it."""
        if verb == "way" and not words:
            self._led.add(client.fileno())
            self._lead()
            problem = self._problem
            if problem is None:
                outside.answer(client, ("ok", *uplink.own_addresses()))
            else:
                outside.answer(client, ("none", problem.message, problem.hint))
            return
        if verb == "versions" and not words:
            outside.answer(client, ("ok", *map(str, uplink.reachable())))
            return
        if verb == "lead" and len(words) == 1 and descriptor is not None:
            self._private.lead(client, words[0], descriptor, self._poll)
            return
        if verb not in {"bind", "publish"} or len(words) != 3 or words[0] not in outside.RELAYED:
            raise ValueError(f"{verb!r} with {len(words)} words means nothing")
        protocol, address, port = words[0], ip_address(words[1]), int(words[2])
        if verb == "bind":
            _bind(client, protocol, address, port)
        elif descriptor is not None:
            self._publish(client, protocol, address, port, descriptor)

    # The way in

    def _publish(
        self,
        client: _socket.socket,
        protocol: str,
        address: "ports.Address",
        port: int,
        descriptor: int,
    ) -> None:
        if self._relay is None:
            self._relay = _start_relay(self._network)
            self._poll.register(self._relay, select.POLLIN)
        self._published.add(client.fileno())
        told = f"add\0{client.fileno()}\0{protocol}\0{address}\0{port}".encode()
        self._relay.sendmsg([told], process.rights(descriptor))

    # The way out

    def _lead(self) -> None:
        """See that there is a way out, or know why not."""
        self._look()
        if self._uplink is not None or (
            self._problem is not None and time.monotonic() < self._tried_at + RETRY_SECONDS
        ):
            return
        self._tried_at = time.monotonic()
        self._problem = None
        try:
            self._uplink = uplink.start(self._network, self._directory)
        except UnavailableError as error:
            self._problem = error
        except OSError as error:
            self._problem = UnavailableError(f"the way out of this user's network: {error}")
        else:
            self._poll.register(self._uplink, select.POLLIN)

    def _look(self) -> None:
        """Notice that the way out has ended."""
        if self._uplink is not None and select.select((self._uplink,), (), (), 0)[0]:
            self._poll.unregister(self._uplink)
            self._uplink.close()
            self._uplink = None
            if time.monotonic() > self._tried_at + _LASTING_SECONDS:
                self._tried_at = 0.0

    def _mend(self) -> None:
        """Make the way out anew that somebody is on, at once if it has lasted for a while."""
        self._look()
        again_at = self._tried_at + RETRY_SECONDS
        if self._led and self._uplink is None and time.monotonic() >= again_at:
            self._lead()


def _bind(client: _socket.socket, protocol: str, address: "ports.Address", port: int) -> None:
    """Take a port of the machine's for somebody."""
    try:
        descriptor = ports.bind(protocol, address, port)
        if descriptor is None:
            outside.answer(client, ("none",))
            return
        if protocol == "tcp":
            # Whoever comes before the relay has it waits.
            listening = _socket.socket(fileno=descriptor)
            listening.listen(_BACKLOG)
            # What its connections leave in TIME_WAIT, which have this from it, is in nobody's way.
            # Not before: two who say so can both bind a port, as long as nobody listens.
            listening.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            listening.detach()
    except OSError as error:
        number = error.errno or errno.EIO
        outside.answer(client, ("refused", str(number), ports.advice(protocol, port, error)))
    else:
        outside.answer(client, ("ok",), descriptor)


def _start_relay(network: str) -> _socket.socket:
    """Fork the process that passes on what comes to ports; returns the channel to it."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        ours.settimeout(_RELAY_SECONDS)
        return ours
    try:
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        process.set_name("ketch-ports")
        process.close_all_but({0, 1, 2, theirs.fileno()})
        with owned(os.open(network, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
            namespaces.setns(descriptor, namespaces.CLONE_NEWNET)
        # Its modules are this process's alone.
        import socket  # noqa: PLC0415

        from ketch.network.uplink import origins  # noqa: PLC0415
        from ketch.network.uplink.relay import Relay  # noqa: PLC0415

        Relay(socket.socket(fileno=theirs.detach()), origins.prepare()).serve()
    except BaseException:  # noqa: BLE001 - no way back into the caller's frames
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(1)
