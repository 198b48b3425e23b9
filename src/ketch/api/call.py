"""One request, taken apart: path, version, query, and the ways to the engine."""

import asyncio
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

from ketch.api import bodies
from ketch.api.encoding import clean_text, parse
from ketch.api.http import ClientGoneError
from ketch.engine.views import information
from ketch.errors import InvalidArgumentError
from ketch.spec.digits import decimal, signed
from ketch.spec.filters import Filters

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

    from ketch.api.application import Application
    from ketch.api.http import Exchange

R = TypeVar("R")


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


API_VERSION = _numbers(information.API_VERSION)
API_VERSION_MINIMUM = _numbers(information.API_VERSION_MINIMUM)


class Call:
    """One request, taken apart.

    Args:
        application: what answers it.
        exchange: the request and its answer. Of several fields of its query with one name the first
            counts unless all are asked for, as with Go's clients.

    Attributes:
        version: the API version that the client speaks.
        path: without the version.
        parameters: what the route's places stand for.
    """

    def __init__(
        self,
        application: "Application",
        exchange: "Exchange",
    ) -> None:
        target, _, query = exchange.target.partition("?")
        self.application = application
        self.exchange = exchange
        self.method = exchange.method
        self.version, self.path = _version(_path(target))
        self.parameters: dict[str, str] = {}
        self._query = _query(query)
        self.reply = exchange.reply
        self.run = application.run
        self.run_slowly = application.run_slowly
        self.transfer = application.transfer

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
        return values[0] if values else default

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
        found = signed(text)
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
        """Returns the query's ``filters``, ``name=value`` each, a name alone where it has no value.

        JSON has two forms for them.

        Raises:
            InvalidArgumentError: they are malformed.
        """
        text = self.text("filters")
        found = parse(text.encode()) if text else None
        if found is None:
            return []
        if not isinstance(found, dict):
            raise InvalidArgumentError("invalid filter: no JSON object")
        pairs: list[str] = []
        for name, values in found.items():
            # {"status": {"exited": true}}, or from before 1.22 {"status": ["exited"]}
            if isinstance(values, dict) and all(type(on) is bool for on in values.values()):
                chosen = [value for value, on in values.items() if on]
            else:
                chosen = [] if values is None else values
            if not isinstance(chosen, list) or not all(isinstance(one, str) for one in chosen):
                raise InvalidArgumentError(f"invalid filter '{name}'")
            pairs += [f"{name}={value}" for value in chosen] or [name]
        return pairs

    async def document(self, wanted: "Any", *, typed: bool = True) -> "Any":
        """Returns the body as a document of a kind, as ``bodies.document`` does."""
        return await bodies.document(self.exchange, wanted, typed=typed)

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
                gone.result()
                raise ClientGoneError
            return working.result()
        finally:
            gone.cancel()
            working.cancel()
            await asyncio.gather(gone, working, return_exceptions=True)


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
    numbers = decimal(major), decimal(minor)
    if not first.startswith("v") or not slash or not dot or len(first) > 12:
        return API_VERSION, path
    if numbers[0] is None or numbers[1] is None:
        return API_VERSION, path
    version = numbers[0], numbers[1]
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
