"""What ``ketch.aio`` is made of: stand-ins whose methods do their work in threads.

What ``ketch.Engine`` and its objects do in the caller's thread, these do in others, so that the
loop never waits. Iterators become asynchronous ones, each with a thread of its own while it waits.
"""

import asyncio
import contextvars
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ketch.library import archives, container, containers, images, networks, sessions, volumes
from ketch.library import engine as library

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

THREADS = 32

_END = object()


class Engine:
    """An engine whose methods are awaited; arguments as those of ``ketch.Engine``."""

    def __init__(
        self, root: str | None = None, state: str | None = None, *, zygote: bool = True
    ) -> None:
        self._engine = library.Engine(root, state, zygote=zygote)
        self._pool = ThreadPoolExecutor(THREADS, "ketch")

    def __getattr__(self, name: str) -> Any:
        """What ``ketch.Engine`` has under this name, to be awaited."""
        return _wrapped(getattr(self._engine, name), self._pool)

    async def __aenter__(self) -> "Engine":
        """Nothing more than itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:  # fmt: skip
        """Let go of the threads."""
        await self.close()

    async def close(self) -> None:
        """Let go of the threads; those that wait for something end when that has come."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Proxy:
    """One of the library's objects, its methods to be awaited and its attributes as they are.

    It serves in ``async with`` and ``async for`` where the object serves in ``with`` and ``for``.
    """

    def __init__(self, inner: object, pool: ThreadPoolExecutor) -> None:
        self._inner = inner
        self._pool = pool

    def __repr__(self) -> str:
        """What it stands for."""
        return f"<asynchronous {self._inner!r}>"

    def __eq__(self, other: object) -> bool:
        """Whether both stand for the same."""
        return isinstance(other, Proxy) and other._inner == self._inner

    def __hash__(self) -> int:
        """Of what it stands for."""
        return hash(self._inner)

    def __getattr__(self, name: str) -> Any:
        """What the object has under this name, to be awaited if it is a method."""
        return _wrapped(getattr(self._inner, name), self._pool)

    async def __aenter__(self) -> "Proxy":
        """Enter the object, in a thread."""
        await _call(self._inner.__enter__, self._pool)  # type: ignore[attr-defined]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:  # fmt: skip
        """Leave the object, in a thread."""
        leave = functools.partial(self._inner.__exit__, kind, error, trace)  # type: ignore[attr-defined]
        await _call(leave, self._pool)

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the object, in a thread of its own."""
        return _iterate(iter(self._inner), self._pool)  # type: ignore[call-overload]


class Archive(Proxy):
    """A tar archive that is made while it is read."""


class Session(Proxy):
    """A program's streams."""


class Container(Proxy):
    """One container."""


class Containers(Proxy):
    """The containers of an engine."""


class Image(Proxy):
    """One image."""


class Images(Proxy):
    """The images of an engine."""


class Network(Proxy):
    """One network."""


class Networks(Proxy):
    """The networks of an engine."""


class Volume(Proxy):
    """One volume."""


class Volumes(Proxy):
    """The volumes of an engine."""


_PROXIES: dict[type, type[Proxy]] = {
    archives.Archive: Archive, sessions.Session: Session,
    container.Container: Container, containers.Containers: Containers,
    images.Image: Image, images.Images: Images, networks.Network: Network,
    networks.Networks: Networks, volumes.Volume: Volume, volumes.Volumes: Volumes,
}  # fmt: skip


class Pending:
    """A method's call: to be awaited for what it returns, or iterated over where it gives many."""

    def __init__(self, function: "Callable[[], Any]", pool: ThreadPoolExecutor) -> None:
        self._function = function
        self._pool = pool

    def __await__(self) -> "Generator[Any, None, Any]":
        """Do it, in a thread."""
        return _call(self._function, self._pool).__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Do it, and iterate over what comes, in a thread of its own."""
        async for item in await self:
            yield item


async def _call(function: "Callable[[], Any]", pool: ThreadPoolExecutor) -> Any:
    context = contextvars.copy_context()
    work = functools.partial(context.run, function)
    return _wrapped(await asyncio.get_running_loop().run_in_executor(pool, work), pool)


def _wrapped(value: Any, pool: ThreadPoolExecutor) -> Any:
    if proxy := _PROXIES.get(type(value)):
        return proxy(value, pool)
    if isinstance(value, list):
        return [_wrapped(item, pool) for item in value]
    if isinstance(value, Iterator):
        return _iterate(value, pool)
    if callable(value) and not isinstance(value, type):
        return lambda *given, **named: Pending(functools.partial(value, *given, **named), pool)
    return value


async def _iterate(source: "Iterator[Any]", pool: ThreadPoolExecutor) -> AsyncIterator[Any]:
    """Iterate in a thread, an item at a time, as fast as they are taken."""
    loop = asyncio.get_running_loop()
    wanted = threading.Semaphore(0)
    given: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue()
    stopped = False

    def work() -> None:
        while True:
            wanted.acquire()
            if stopped:
                close = getattr(source, "close", None)
                if close is not None:
                    close()
                return
            error: BaseException | None = None
            item: Any = _END
            try:
                item = next(source, _END)
            except BaseException as raised:  # noqa: BLE001 - it is raised where it was asked for
                error = raised
            try:
                loop.call_soon_threadsafe(given.put_nowait, (item, error))
            except RuntimeError:  # the loop has ended
                return
            if item is _END:
                return

    threading.Thread(target=work, name="ketch-iterator", daemon=True).start()
    try:
        while True:
            wanted.release()
            item, error = await given.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield _wrapped(item, pool)
    finally:
        stopped = True
        wanted.release()
