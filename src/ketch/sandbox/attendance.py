"""What runs a sandbox's programs quickly, from the second one on: ``engine.monitor.attending``.

The first program of a sandbox, often its only one, is asked of the zygote. With the second one an
attendant is asked for, which then stays, and runs one program after another; whoever comes while it
is busy asks the zygote as well.
"""

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

from ketch.engine.containers.ledger import RECORD_TIMEOUT_SECONDS
from ketch.engine.requests import wire
from ketch.errors import KetchError, UnavailableError, UnsupportedError
from ketch.library import sessions
from ketch.library.sessions import Session
from ketch.linux import process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ketch.cgroups import Manager
    from ketch.library.container import Container

_IDLE_SECONDS = 20


class Attendance:
    """A sandbox's attendant, if it has one.

    Args:
        container: the sandbox's.

    Attributes:
        container: as it was given.
    """

    def __init__(self, container: "Container") -> None:
        self.container = container
        self._busy = threading.Lock()
        self._is_wanted = False
        self._is_possible = True
        self._control: Session | None = None
        self._session: Session | None = None  # of the program that it was asked for last
        self._owner = 0
        self._cgroup: Manager | None = None

    @contextlib.contextmanager
    def turn(self) -> "Iterator[sessions.Ask | None]":
        """Have the attendant to oneself for a block, which runs one program to its end.

        Returns:
            What asks it for that: a function that is given a request, and returns the program's
            session, or None where nobody could be asked. Or None, where it is not its turn.
        """
        if not self._busy.acquire(blocking=False):
            yield None
            return
        try:
            yield self._ask if self._is_wanted and self._is_possible else None
        finally:
            self._is_wanted = True
            session, self._session = self._session, None
            if session is not None and session.exit_status is None:
                self.close()  # it is at work for whoever does not want that any more
            self._busy.release()

    def oom_kills(self) -> int:
        """Returns how many of the sandbox's processes the kernel has killed for want of memory."""
        try:
            if self._cgroup is None:
                engine = self.container._places.engine
                self._cgroup = engine.containers.cgroup(engine.containers.find(self.container.id))
            return self._cgroup.oom_kills()
        except (KetchError, OSError):
            return 0

    def begin(self, idle_seconds: int = 0) -> None:
        """Have an attendant before the first program is asked for.

        Args:
            idle_seconds: for how long it stays where it is not asked; 0 for as long as this does.

        Raises:
            KetchError: it cannot be had.
        """
        with self._busy:
            self._is_wanted = True
            try:
                self._opened(idle_seconds)
            except UnsupportedError:  # another runtime runs the sandbox: each goes the usual way
                self._is_possible = False

    def end(self) -> None:
        """Have it leave, and wait until it has, unless it is at work; there will be another one."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            control, self._control = self._control, None
            if control is None or self._owner != os.getpid():
                return
            with contextlib.suppress(OSError):
                control._socket.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + RECORD_TIMEOUT_SECONDS
            with self.container._places.uninterrupted(), contextlib.suppress(KetchError):
                while True:
                    control._next(deadline)
            control.close()
        finally:
            self._busy.release()

    def close(self) -> None:
        """Let go of it."""
        control, self._control = self._control, None
        if control is not None and self._owner == os.getpid():
            control.close()

    def _ask(self, fields: "Mapping[str, wire.Value]") -> Session | None:
        places = self.container._places
        try:
            control = self._opened()
        except KetchError:
            # Whatever is in its way, be it the sandbox's end: the usual way goes, or tells of it.
            self._is_possible = False
            return None
        ours, theirs = socket.socketpair()
        session = Session(places, ours)
        with theirs:
            try:
                control._socket.sendmsg(
                    [wire.frame(wire.DESCRIPTORS)], process.rights(theirs.fileno())
                )
            except OSError:  # it has left
                session.close()
                self._forget(control)
                return None
        about: dict[str, wire.Value] = {"directory": "", "environment": []}
        try:
            sessions.ask(session, {**fields, "action": "exec", **about}, Session._kill)
        except UnavailableError:
            if not self._has_left(control):
                raise
            self._forget(control)
            return None
        self._session = session
        return session

    def _forget(self, control: Session) -> None:
        """Forget an attendant that has left; the next program gets another one."""
        control.close()
        self._control = None

    def _has_left(self, control: Session) -> bool:
        """Whether it said that what it has not answered was not begun."""
        with contextlib.suppress(KetchError):
            return control._next(time.monotonic())[0] == wire.EXIT
        return False

    def _opened(self, idle_seconds: int = _IDLE_SECONDS) -> Session:
        if self._control is None or self._owner != os.getpid():
            places = self.container._places
            fields: dict[str, wire.Value] = {
                "action": "attend", "container": self.container.id, "idle": idle_seconds,
            }  # fmt: skip
            self._control = sessions.start(places, fields, Session.close)
            self._owner = os.getpid()
            places.unless_delivered(None)  # it leaves with whoever has asked for it
        return self._control
