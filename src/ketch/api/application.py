"""What every request needs: the engine, threads for what blocks, the query, the answer to errors.

The server's one asyncio loop never waits for a disk or a lock. Engine calls run in threads, a few
for what is quick and a bounded crowd for what waits for others (a stop, a pull), each with a store
of its own, since a connection to SQLite belongs to one thread. What copies to or from a client
has threads apart.
"""

import asyncio
import contextlib
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ketch import __version__
from ketch.api.presence import Presence
from ketch.engine.engine import Engine
from ketch.engine.views import information
from ketch.spec.timestamps import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Concatenate

    from ketch.engine.settings import Settings


QUICK_THREADS = 4
SLOW_THREADS = 64
TRANSFER_THREADS = 64

LEVELS = ("debug", "info", "warn", "error")

P = ParamSpec("P")
R = TypeVar("R")


class Application:
    """Answers requests on one engine.

    Args:
        settings: the engine's places.
        log_level: the least that is logged, one of LEVELS.
    """

    def __init__(self, settings: "Settings", log_level: str = "info") -> None:
        self.settings = settings
        self.headers = {
            "Api-Version": information.API_VERSION,
            "Docker-Experimental": str(information.is_experimental()).lower(),
            "Ostype": "linux",
            "Server": f"ketch/{__version__} (linux)",
        }
        self.active = 0
        self.last_used = time.monotonic()
        self._level = LEVELS.index(log_level)
        self._quick = ThreadPoolExecutor(QUICK_THREADS, "quick")
        self._slow = ThreadPoolExecutor(SLOW_THREADS, "slow")
        self._transfers = ThreadPoolExecutor(TRANSFER_THREADS, "transfer")
        self._local = threading.local()
        self.presence = Presence(f"{settings.root}/ketch.db")
        self.shared: dict[str, object] = {}
        """What connections share as long as one needs it, such as the poll for events."""
        self.builds: dict[str, Callable[[], object]] = {}
        """What ends builds that go on, by what their clients call them."""

    # Threads

    async def run(
        self, function: "Callable[Concatenate[Engine, P], R]", *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run something quick in a thread; the engine comes as its first argument."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._quick, lambda: function(self._engine(), *args, **kwargs)
        )

    async def run_slowly(
        self, function: "Callable[Concatenate[Engine, P], R]", *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run something that waits for others, or reads and writes much, in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._slow, lambda: function(self._engine(), *args, **kwargs)
        )

    async def transfer(
        self, function: "Callable[Concatenate[Engine, P], R]", *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run what goes on as fast as its client sends or takes, in a thread that may wait for it.

        However many such clients there are, nobody else's request waits for them.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._transfers, lambda: function(self._engine(), *args, **kwargs)
        )

    def _engine(self) -> Engine:
        if lost := self.presence.lost():
            raise lost
        engine: Engine | None = getattr(self._local, "engine", None)
        if engine is None:
            engine = self._local.engine = Engine(self.settings)
        return engine

    def log(self, level: str, message: str, **facts: object) -> None:
        """Write a line to the log, standard error, as JSON."""
        if LEVELS.index(level) < self._level:
            return
        line = {"time": rfc3339(time.time_ns()), "level": level, "msg": message, **facts}
        with contextlib.suppress(OSError):
            print(json.dumps(line), file=sys.stderr, flush=True)
