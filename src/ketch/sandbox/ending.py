"""How a program in a sandbox is ended with all that it has started."""

import contextlib
from typing import TYPE_CHECKING

from ketch.errors import KetchError

if TYPE_CHECKING:
    from ketch.library.places import Places
    from ketch.library.sessions import Session


def end(places: "Places", session: "Session") -> None:
    """Kill a program, and what it has started unless that leads a session of its own."""
    with places.uninterrupted(), contextlib.suppress(KetchError):
        places.engine.execs.kill(session.id)
    session._kill()
