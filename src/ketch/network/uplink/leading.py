"""A program that leads out for one container alone: started, waited for, begun anew when it ends.

It is in a mount namespace of its own, where the container's network has a path: it gives up what
it would need to reach that by a process's ``/proc``. It ends with whoever has started it.
"""

import json
import os
import select
import socket
import time

from ketch.errors import UnavailableError
from ketch.linux import mount, namespaces, process, rtnetlink, tun
from ketch.linux.apart import apart
from ketch.linux.scopes import owned, suppress
from ketch.network.uplink import private, uplink
from ketch.network.uplink.programs import PASTA, SLIRP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.network.uplink.private import Asked, Forward

_START_SECONDS = 10.0
RETRY_SECONDS = 5.0
_LASTING_SECONDS = 1.0
_API_SECONDS = 2.0
_ANSWER_BYTES_MAX = 4096
_SAID_BYTES_MAX = 16 * 1024
_SUFFIXES = ("said", "log", "pid", "socket", "net")


class Leading:
    """One container's program.

    Args:
        asked: what the container asks for.
        forwards: the machine's ports that lead to it.
        network: descriptor of its network namespace; stays the caller's.
        place: the beginning of paths where it may write, which are nobody else's.
        guest: whether pasta is thought to know ``--map-guest-addr``.

    Attributes:
        guest: whether it does.
        is_ready: whether it leads out.
        problem: why it does not; None while that is not known.

    Raises:
        UnavailableError: it is not installed.
        OSError: the kernel refused.
    """

    __slots__ = ("_asked", "_began_at", "_forwards", "_network", "_place", "_program", "_ready",
                 "guest", "is_ready", "problem")  # fmt: skip

    def __init__(
        self,
        asked: "Asked",
        forwards: "Sequence[Forward]",
        network: int,
        place: str,
        *,
        guest: bool = True,
    ) -> None:
        self._asked = asked
        self._forwards = forwards
        self._place = place
        self.guest = guest
        self._program: uplink.Uplink | None = None
        self._ready = -1
        self.is_ready = False
        self.problem: UnavailableError | None = None
        self._network = os.dup(network)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """A descriptor that can be read from when the program has ended; negative without one."""
        return -1 if self._program is None else self._program.fileno()

    def close(self) -> None:
        """End it."""
        self._end()
        os.close(self._network)
        self._network = -1
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError):
                os.unlink(f"{self._place}.{suffix}")

    def hosts(self) -> list[str]:
        """Addresses by which the container reaches the machine itself."""
        return self._asked.hosts(apart(self._gateways), guest=self.guest)

    def nameservers(self) -> list[str]:
        """Addresses at which the machine's name server answers."""
        return self._asked.nameservers()

    def look(self, forget: "Callable[[int], object]") -> bool:
        """Notice what has come of it.

        Args:
            forget: is called with ``fileno()`` before that is closed.

        Returns:
            Whether there is another program than before.
        """
        now = time.monotonic()
        if self._program is None:
            if now < self._began_at + RETRY_SECONDS:
                return False
            self._begin()
            return True
        if select.select((self._program,), (), (), 0)[0]:
            forget(self.fileno())
            return self._ended(now)
        if not self.is_ready and self.problem is None:
            if self._has_come_up():
                self.is_ready = True
            elif now > self._began_at + _START_SECONDS:
                forget(self.fileno())
                self._fail(f"it is not ready after {_START_SECONDS:.0f} seconds")
        return False

    # Its program

    def _begin(self) -> None:
        self._began_at = time.monotonic()
        self.is_ready, self.problem = False, None
        program = self._asked.program
        tun.check()
        path = uplink.which(program.name)
        if not path:
            raise UnavailableError(
                f"{program.name} is not installed", f"install the package {program.package}"
            )
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError):
                os.unlink(f"{self._place}.{suffix}")
        network = f"{self._place}.net"
        words = self._asked.words(path, network, self._forwards, self._place, guest=self.guest)
        if program is PASTA and namespaces.in_initial_user_namespace():
            # As nobody, whom it would become, it would not hear that its parent has ended.
            words += ["--runas", "0:0"]
        with owned(_made(network)), owned(_made(f"{self._place}.said")) as said:
            ready, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            with owned(theirs):
                self._ready = ready
                pid = os.fork()
                if pid == 0:
                    uplink.become(words, said, self._give_path, theirs if program is SLIRP else -1)
            self._program = uplink.Uplink(program.name, process.pidfd_open(pid))

    def _give_path(self) -> None:
        """In the child: have the container's network at a path, for this process alone."""
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.mount("", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
        mount.mount(f"/proc/self/fd/{self._network}", f"{self._place}.net", flags=mount.MS_BIND)

    def _has_come_up(self) -> bool:
        if self._asked.program is PASTA:  # what it does last before it serves
            with suppress(FileNotFoundError):
                return os.stat(f"{self._place}.pid").st_size > 0
            return False
        with suppress(BlockingIOError):
            if os.read(self._ready, 1):
                return self._forward()
        return False

    def _forward(self) -> bool:
        """Have slirp4netns pass ports on, which it is asked for when it serves."""
        for protocol, address, outside, inside in self._forwards:
            asked = {"proto": protocol, "host_addr": address or "0.0.0.0", "host_port": outside,
                     "guest_port": inside}  # fmt: skip
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(_API_SECONDS)
                asking.connect(f"{self._place}.socket")
                asking.sendall(json.dumps({"execute": "add_hostfwd", "arguments": asked}).encode())
                asking.shutdown(socket.SHUT_WR)
                told = json.loads(asking.recv(_ANSWER_BYTES_MAX) or b"{}")
            if "return" not in told:
                reason = (told.get("error") or {}).get("desc", "it says nothing")
                self._fail(f"port {outside}: {reason}")
                return False
        return True

    def _ended(self, now: float) -> bool:
        """It has ended: begin anew at once where that may help, else say why."""
        lasted, was_ready = now - self._began_at > _LASTING_SECONDS, self.is_ready
        said = self._said()
        self._end()
        if self.guest and private.GUEST in said and not was_ready:
            self.guest = False  # an older one
        elif not (was_ready and lasted):
            self._fail(private.reason(said))
            return False
        self._begin()
        return True

    def _fail(self, why: str) -> None:
        self._end()
        self.is_ready = False
        self.problem = UnavailableError(f"{self._asked.program.name} does not start: {why}")

    def _said(self) -> str:
        text = ""
        for suffix in ("said", "log"):
            with (
                suppress(FileNotFoundError),
                open(f"{self._place}.{suffix}", errors="replace") as file,
            ):
                text += file.read(_SAID_BYTES_MAX)
        return text

    def _end(self) -> None:
        if self._program is not None:
            self._program.close()
            self._program = None
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1

    def _gateways(self) -> list[str]:
        """In a thread of its own: the next hops of the container's default routes."""
        namespaces.setns(self._network, namespaces.CLONE_NEWNET)
        with rtnetlink.Socket() as inside:
            return [
                str(route.gateway) for route in inside.routes()
                if not route.destination.prefixlen and route.gateway is not None
            ]  # fmt: skip


def _made(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
