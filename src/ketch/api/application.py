"""What every request needs: the engine, threads for what blocks, the query, the answer to errors.

The server's one asyncio loop never waits for a disk or a lock. Engine calls run in threads, a few
for what is quick and a bounded crowd for what waits for others (a stop, a pull), each with a store
of its own, since a connection to SQLite belongs to one thread.
"""

import asyncio
import contextlib
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

from ketch import __version__
from ketch.api import errors, router
from ketch.api.encoding import clean_text, parse
from ketch.api.http import NOTHING, ClientGoneError
from ketch.engine.engine import Engine
from ketch.engine.views import information
from ketch.errors import InvalidArgumentError, KetchError
from ketch.spec.filters import Filters
from ketch.spec.timestamps import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Concatenate

    from ketch.api.http import Exchange
    from ketch.engine.settings import Settings


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


API_VERSION = _numbers(information.API_VERSION)
API_VERSION_MINIMUM = _numbers(information.API_VERSION_MINIMUM)


QUICK_THREADS = 4
SLOW_THREADS = 64

LEVELS = ("debug", "info", "warn", "error")
_SILENT_PATHS = ("/_ping",)

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
        self._local = threading.local()
        self.shared: dict[str, object] = {}
        """What connections share as long as one needs it, such as the poll for events."""

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

    def _engine(self) -> Engine:
        engine: Engine | None = getattr(self._local, "engine", None)
        if engine is None:
            engine = self._local.engine = Engine(self.settings)
        return engine

    # Requests

    async def handle(self, exchange: "Exchange") -> None:
        """Answer one request, whatever comes of it."""
        self.active += 1
        began = time.monotonic()
        cause: BaseException | None = None
        try:
            await self._answer(exchange)
        except ClientGoneError as error:
            cause = error
            raise
        except Exception as error:  # noqa: BLE001 - a client is owed an answer to everything
            cause = error
            await self._fail(exchange, error)
        except asyncio.CancelledError as error:
            cause = error
            raise
        finally:
            self.active -= 1
            self.last_used = time.monotonic()
            self._log_request(exchange, time.monotonic() - began, cause)

    async def _answer(self, exchange: "Exchange") -> None:
        target, _, query = exchange.target.partition("?")
        call = Call(self, exchange, _path(target), _query(query))
        handler, call.parameters = router.find(call.method, call.path)
        await handler(call)

    async def _fail(self, exchange: "Exchange", error: Exception) -> None:
        if exchange.status:
            # Amid an answer; only the connection's end can tell that it is not whole.
            raise ClientGoneError from error
        await exchange.reply(*answer(error))

    def log(self, level: str, message: str, **facts: object) -> None:
        """Write a line to the log, standard error, as JSON."""
        if LEVELS.index(level) < self._level:
            return
        line = {"time": rfc3339(time.time_ns()), "level": level, "msg": message, **facts}
        with contextlib.suppress(OSError):
            print(json.dumps(line), file=sys.stderr, flush=True)

    def _log_request(
        self, exchange: "Exchange", seconds: float, cause: BaseException | None
    ) -> None:
        status = exchange.status
        level = "error" if status >= 500 and status != 501 else "info"
        if level == "info" and (exchange.target.endswith(_SILENT_PATHS)):
            level = "debug"
        facts: dict[str, object] = {
            "method": exchange.method, "path": exchange.target, "status": status,
            "duration_ms": round(seconds * 1000, 3),
        }  # fmt: skip
        if isinstance(cause, ClientGoneError):
            facts["cause"] = "the client left"
        elif isinstance(cause, KetchError):
            facts["cause"] = cause.message
            if cause.hint:
                facts["hint"] = cause.hint
        elif cause is not None:
            facts["cause"] = repr(cause)
            if level == "error" and not isinstance(cause, OSError):
                import traceback  # noqa: PLC0415 - only for a mistake of our own

                facts["traceback"] = "".join(traceback.format_exception(cause))
        self.log(level, "request", **facts)


class Call:
    """One request, taken apart.

    Args:
        application: what answers it.
        exchange: the request and its answer.
        path: its path, decoded, with the version prefix.
        query: its query's fields; of several the last counts unless all are asked for.

    Attributes:
        version: the API version that the client speaks.
        path: without the version.
        parameters: what the route's places stand for.
    """

    def __init__(
        self,
        application: Application,
        exchange: "Exchange",
        path: str,
        query: list[tuple[str, str]],
    ) -> None:
        self.application = application
        self.exchange = exchange
        self.method = exchange.method
        self.version, self.path = _version(path)
        self.parameters: dict[str, str] = {}
        self._query = query
        self.reply = exchange.reply
        self.run = application.run
        self.run_slowly = application.run_slowly

    def __getitem__(self, name: str) -> str:
        """What the place of this name in the route's path stands for."""
        return self.parameters[name]

    def given(self, name: str) -> bool:
        """Whether the query has a field."""
        return any(key == name for key, _ in self._query)

    def texts(self, name: str) -> list[str]:
        """Returns all values of a field of the query."""
        return [value for key, value in self._query if key == name]

    def text(self, name: str, default: str = "") -> str:
        """Returns a field of the query."""
        values = self.texts(name)
        return values[-1] if values else default

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Returns a field of the query as Docker reads a boolean."""
        if not self.given(name):
            return default
        return self.text(name).strip().lower() not in {"", "0", "no", "false", "none"}

    def number(self, name: str) -> int | None:
        """Returns a field of the query as a number; None where it is missing or empty.

        Raises:
            InvalidArgumentError: it is none.
        """
        text = self.text(name)
        if not text:
            return None
        try:
            found = int(text) if text.isascii() else None
        except ValueError:
            found = None
        if found is None or not -(1 << 63) <= found < 1 << 63:
            raise InvalidArgumentError(f'invalid value for {name}: "{text[:80]}" is no number')
        return found

    def filters(self, known: "Iterable[str]") -> Filters:
        """Returns the query's ``filters``.

        Raises:
            InvalidArgumentError: they are malformed, or of a name that is not known here.
        """
        return Filters(self.filters_given(), known)

    def filters_given(self) -> list[str]:
        """Returns the query's ``filters``, ``name=value`` each.

        Raises:
            InvalidArgumentError: they are malformed.
        """
        return [f"{name}={value}" for name, value in self.filter_pairs()]

    def filter_pairs(self) -> list[tuple[str, str]]:
        """Returns the query's ``filters``: names and values, in either of JSON's two forms.

        Raises:
            InvalidArgumentError: they are malformed.
        """
        text = self.text("filters")
        if not text:
            return []
        found = parse(text.encode())
        pairs: list[tuple[str, str]] = []
        if not isinstance(found, dict):
            raise InvalidArgumentError("invalid filter: no JSON object")
        for name, values in found.items():
            # {"status": {"exited": true}}, or from before 1.22 {"status": ["exited"]}
            chosen = (
                [value for value, on in values.items() if on]
                if isinstance(values, dict)
                else values
            )
            if not isinstance(chosen, list) or not all(isinstance(one, str) for one in chosen):
                raise InvalidArgumentError(f"invalid filter '{name}'")
            pairs += [(name, value) for value in chosen]
        return pairs

    async def while_there(self, work: "Coroutine[None, None, R]") -> R:
        """Do something as long as the client is there; returns what comes of it.

        Raises:
            ClientGoneError: it left before the end.
        """
        gone = asyncio.ensure_future(self.exchange.gone())
        working = asyncio.ensure_future(work)
        try:
            await asyncio.wait((gone, working), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientGoneError
            return working.result()
        finally:
            gone.cancel()
            working.cancel()
            await asyncio.gather(gone, working, return_exceptions=True)


def answer(error: BaseException) -> tuple[int, object]:
    """Returns status and document that an error is answered with."""
    number = errors.status(error)
    return number, NOTHING if number == 304 else {"message": errors.message(error)}


def _path(target: str) -> str:
    if target.startswith(("http://", "https://")):
        target = "/" + target.partition("://")[2].partition("/")[2]
    try:
        return clean_text(unquote_to_bytes(target.encode("latin-1")).decode())
    except UnicodeDecodeError as error:
        raise InvalidArgumentError("the path is no UTF-8") from error


def _query(query: str) -> list[tuple[str, str]]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=1000)
    except ValueError as error:
        raise InvalidArgumentError(f"invalid query: {error}") from error
    return [(clean_text(name), clean_text(value)) for name, value in pairs]


def _version(path: str) -> tuple[tuple[int, int], str]:
    """Take the version prefix off a path.

    Raises:
        InvalidArgumentError: that version is not served.
    """
    first, slash, rest = path[1:].partition("/")
    major, dot, minor = first.removeprefix("v").partition(".")
    numbers = major.isascii() and minor.isascii() and major.isdigit() and minor.isdigit()
    if not first.startswith("v") or not slash or not dot or not numbers or len(first) > 12:
        return API_VERSION, path
    version = int(major), int(minor)
    if version > API_VERSION:
        raise InvalidArgumentError(
            f"client version {major}.{minor} is too new. Maximum supported API version is "
            f"{information.API_VERSION}"
        )
    if version < API_VERSION_MINIMUM:
        raise InvalidArgumentError(
            f"client version {major}.{minor} is too old. Minimum supported API version is "
            f"{information.API_VERSION_MINIMUM}, please upgrade your client to a newer version"
        )
    return version, f"/{rest}"
