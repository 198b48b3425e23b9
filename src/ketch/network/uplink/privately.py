"""Whom programs lead out one by one: the part of the service that keeps these."""

import json
import select
import sys

from ketch.errors import KetchError, UnavailableError, in_words
from ketch.linux.scopes import suppress
from ketch.network.uplink import outside
from ketch.network.uplink.leading import Leading
from ketch.network.uplink.private import Asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket


class Private:
    """All programs that lead out for one container each.

    Args:
        directory: one of the user's alone.
    """

    __slots__ = ("_directory", "_guest", "_led", "_number", "_waiting")

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._number = 0
        self._guest = True
        self._led: dict[int, Leading] = {}  # by their connections' descriptors
        self._waiting: dict[int, _socket.socket] = {}  # those who have not been answered yet

    @property
    def begins(self) -> bool:
        """Whether one is about to be ready, which nothing tells."""
        return any(one.problem is None and not one.is_ready for one in self._led.values())

    def close(self) -> None:
        """End them all."""
        while self._led:
            self._led.popitem()[1].close()

    def lead(
        self, client: "_socket.socket", document: str, network: int, poll: select.poll
    ) -> None:
        """Begin one for somebody, who is answered when it is known what comes of it.

        Args:
            client: who has asked.
            document: see ``outside``.
            network: descriptor of the container's network namespace; stays the caller's.
            poll: is told of what is to be waited for.
        """
        key = client.fileno()
        self._number += 1
        told = json.loads(document)
        forwards = [(str(a), str(b), int(c), int(d)) for a, b, c, d in told["forwards"]]
        try:
            asked = Asked(str(told["mode"]))
            if key in self._led:
                raise UnavailableError("this container is led out already")
            self._led[key] = one = Leading(
                asked, forwards, network, f"{self._directory}/{self._number}", guest=self._guest
            )
        except (KetchError, OSError) as error:
            _refuse(client, error)
            return
        self._waiting[key] = client
        poll.register(one.fileno(), select.POLLIN)

    def look(self, poll: select.poll) -> None:
        """Notice what has come of them, answer, and begin anew what has ended."""
        for key, one in self._led.items():
            before = one.problem
            try:
                if one.look(poll.unregister):
                    poll.register(one.fileno(), select.POLLIN)
            except (KetchError, OSError) as error:
                one.problem = UnavailableError(in_words(error), getattr(error, "hint", ""))
            self._guest = self._guest and one.guest  # another one need not find out again
            problem = one.problem
            if key in self._waiting:
                if problem is not None:
                    _refuse(self._waiting.pop(key), problem)
                elif one.is_ready:
                    servers, hosts = one.nameservers(), one.hosts()
                    _answer(self._waiting.pop(key), "ok", *servers, "", *hosts)
            elif problem is not None and problem is not before:
                sys.stderr.write(f"ketch-uplink: {problem.message}\n")

    def leave(self, client: "_socket.socket", poll: select.poll) -> None:
        """End somebody's."""
        self._waiting.pop(client.fileno(), None)
        one = self._led.pop(client.fileno(), None)
        if one is not None:
            if one.fileno() >= 0:
                poll.unregister(one.fileno())
            one.close()


def _refuse(client: "_socket.socket", error: "KetchError | OSError") -> None:
    message = getattr(error, "message", "") or in_words(error)
    _answer(client, "none", message, getattr(error, "hint", ""))


def _answer(client: "_socket.socket", *words: str) -> None:
    with suppress(OSError):  # it has left, of which its end tells
        outside.answer(client, words)
