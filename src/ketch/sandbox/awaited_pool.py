"""A pool of sandboxes for asyncio."""

import asyncio
import contextlib
import functools
from collections import deque
from typing import TYPE_CHECKING

from ketch.errors import ConflictError, InvalidArgumentError, KetchError
from ketch.library.awaiting import in_thread
from ketch.sandbox.awaiting import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from ketch.library.awaiting import Image

    Given = TypeVar("Given")
    Made = TypeVar("Made")


class Pool:
    """Keeps sandboxes ready, from its first use on.

    As a context manager, it begins at once, and removes those that nobody took at its end.

    Args:
        size: how many are ready.
        image: as for ``Sandbox.create``.
        create: further arguments of that.
    """

    def __init__(self, size: int, image: "str | Image", **create: "Any") -> None:
        if size < 1:
            raise InvalidArgumentError(f"size={size!r}: at least one is wanted")
        self._make: Callable[[], Awaitable[Sandbox]] = functools.partial(
            Sandbox.create, image, **create
        )
        self._size = size
        self._ready: asyncio.Queue[Sandbox | Exception] = asyncio.Queue()
        self._wanted = asyncio.Semaphore(size)
        self._maker: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> "Self":
        """Begin to make them."""
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:  # fmt: skip
        """Remove what nobody took."""
        await self.close()

    async def acquire(self) -> Sandbox:
        """Returns one that nobody has used; it is the caller's, who kills it.

        Raises:
            ConflictError: the pool is closed.
            KetchError: none can be made.
        """
        self._begin()
        found = await self._ready.get()
        self._wanted.release()
        if isinstance(found, Exception):
            raise found
        return found

    async def map(
        self, function: "Callable[[Sandbox, Given], Awaitable[Made]]", items: "Iterable[Given]"
    ) -> "AsyncIterator[Made]":
        """Await a function for each item, each with a sandbox of its own, several at once.

        Args:
            function: is given a sandbox, which is killed when it has returned, and an item.
            items: the items; so many are taken at a time as the pool has ready.

        Yields:
            What it returned, in the items' order.
        """

        async def call(item: "Given") -> "Made":
            sandbox = await self.acquire()
            async with sandbox:
                return await function(sandbox, item)

        begun: deque[asyncio.Task[Made]] = deque()
        try:
            for item in items:
                begun.append(asyncio.ensure_future(call(item)))
                if len(begun) >= self._size:
                    yield await begun[0]
                    begun.popleft()
            while begun:
                yield await begun[0]
                begun.popleft()
        finally:
            for task in begun:
                task.cancel()
            await asyncio.gather(*begun, return_exceptions=True)

    async def close(self) -> None:
        """Remove what nobody took, and make no more."""
        self._closed = True
        if self._maker is not None:
            self._maker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._maker
        while not self._ready.empty():
            left = self._ready.get_nowait()
            if not isinstance(left, Exception):
                await left.kill()

    def _begin(self) -> None:
        if self._closed:
            raise ConflictError("the pool is closed")
        if self._maker is None:
            self._maker = asyncio.create_task(self._keep_ready())

    async def _keep_ready(self) -> None:
        while True:
            await self._wanted.acquire()
            try:
                made = await self._make()
                await _attended(made)
                self._ready.put_nowait(made)
            except Exception as error:  # noqa: BLE001 - who acquires hears of it
                self._ready.put_nowait(error)


async def _attended(made: "Sandbox") -> None:
    """Have a sandbox's programs run quickly from the first one on."""
    begin = made._inner._attendance.begin
    try:
        with contextlib.suppress(KetchError):  # they then begin in the usual way
            await in_thread(begin, made._threads)
    except asyncio.CancelledError:
        await made.kill()
        raise
