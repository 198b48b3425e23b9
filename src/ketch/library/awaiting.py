"""What ``ketch.aio`` is made of: stand-ins whose methods do their work in threads.

What ``ketch.Engine`` and its objects do in the caller's thread, these do in others, so that the
loop never waits. A method is a coroutine function, or gives an asynchronous iterator where the
library's gives an iterator. Whoever cancels a call has its thread called off, and hears of that
when what the call had begun is put away.
"""

import asyncio
import contextlib
import functools
import inspect
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from ketch.engine.containers.ledger import RECORD_TIMEOUT_SECONDS
from ketch.errors import UnavailableError
from ketch.library import archives, container, containers, images, networks, sessions, volumes
from ketch.library import engine as library
from ketch.library.interruption import CalledOffError
from ketch.library.threads import Call, Threads

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeVar

    Class = TypeVar("Class", bound="type[Proxy]")

# What stands for an object of a class of the library's; complete once the classes are made.
_PROXIES: "dict[type, type[Proxy]]" = {}
# How long a cancelled call may take to hear of it; one that then puts something away has more.
_MOMENT_SECONDS = 1.0
_PUTTING_AWAY_SECONDS = RECORD_TIMEOUT_SECONDS
_PAUSE_SECONDS = 0.01


class Proxy:
    """One of the library's objects, its methods to be awaited and its attributes as they are.

    It serves in ``async with`` and ``async for`` where the object serves in ``with`` and ``for``.
    """

    def __init__(self, inner: Any, threads: Threads) -> None:
        self._inner = inner
        self._threads = threads

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
        """What the object has under this name."""
        if name.startswith("_"):
            raise AttributeError(name)
        return _wrapped(getattr(self._inner, name), self._threads)

    async def __aenter__(self) -> "Proxy":
        """Enter the object, in a thread."""
        await in_thread(self._inner.__enter__, self._threads)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:  # fmt: skip
        """Leave the object, in a thread."""
        leave = functools.partial(self._inner.__exit__, kind, error, trace)
        await in_thread(leave, self._threads)

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the object, in a thread of its own."""
        return _iterate(functools.partial(iter, self._inner), self._threads)


def stand_in(kind: type) -> "Callable[[Class], Class]":
    """Returns a decorator that gives a proxy what one of the library's classes has.

    Wherever a call returns an object of that class, the proxy is what is had of it.
    """

    def complete(proxy: "Class") -> "Class":
        for name in dir(kind):
            if name.startswith("_") or name in vars(proxy):
                continue
            member = inspect.getattr_static(kind, name)
            if isinstance(member, classmethod):
                continue  # a proxy's own: it needs to be told of threads
            if isinstance(member, property):
                setattr(proxy, name, _read(name, member))
            elif _gives_many(member):
                setattr(proxy, name, _iterated(member))
            else:
                setattr(proxy, name, _awaited(member))
        _PROXIES[kind] = proxy
        return proxy

    return complete


def _gives_many(method: "Callable[..., Any]") -> bool:
    return str(method.__annotations__.get("return", "")).startswith("Iterator")


def _read(name: str, member: property) -> property:
    return property(
        lambda self: _wrapped(getattr(self._inner, name), self._threads), doc=member.__doc__
    )


def _awaited(method: "Callable[..., Any]") -> "Callable[..., Any]":
    @functools.wraps(method)
    async def awaited(self: Proxy, *given: Any, **named: Any) -> Any:
        return await in_thread(_bound(method, self, given, named), self._threads)

    return awaited


def _iterated(method: "Callable[..., Any]") -> "Callable[..., Any]":
    @functools.wraps(method)
    def iterated(self: Proxy, *given: Any, **named: Any) -> AsyncIterator[Any]:
        return _iterate(_bound(method, self, given, named), self._threads)

    return iterated


def _bound(
    method: "Callable[..., Any]", proxy: Proxy, given: tuple[Any, ...], named: dict[str, Any]
) -> "Callable[[], Any]":
    """Returns a call that is still to be made, of what the proxies stand for."""
    named = {name: plain(value) for name, value in named.items()}
    return functools.partial(method, proxy._inner, *map(plain, given), **named)


def plain(value: Any) -> Any:
    """Returns what a proxy stands for, and anything else as it is."""
    return value._inner if isinstance(value, Proxy) else value


def _wrapped(value: Any, threads: Threads) -> Any:
    if proxy := _PROXIES.get(type(value)):
        return proxy(value, threads)
    if isinstance(value, list):
        return [_wrapped(item, threads) for item in value]
    return value


@stand_in(library.Engine)
class Engine(Proxy):
    """An engine whose methods are awaited; arguments as those of ``ketch.Engine``."""

    def __init__(
        self, root: str | None = None, state: str | None = None, *, zygote: bool = True
    ) -> None:
        engine = library.Engine(root, state, zygote=zygote)
        super().__init__(engine, Threads(engine._places))

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
        """Call off what is still being done, wait for its end, and let go of the threads."""
        self._threads.close()
        begun = time.monotonic()
        while calls := self._threads.calls():
            attended = any(call.is_attended_to for call in calls)
            if time.monotonic() - begun > (_PUTTING_AWAY_SECONDS if attended else _MOMENT_SECONDS):
                break
            await asyncio.sleep(_PAUSE_SECONDS)


@stand_in(archives.Archive)
class Archive(Proxy):
    """A tar archive that is made while it is read."""


@stand_in(sessions.Session)
class Session(Proxy):
    """A program's streams."""


@stand_in(container.Container)
class Container(Proxy):
    """One container."""


@stand_in(containers.Containers)
class Containers(Proxy):
    """The containers of an engine."""


@stand_in(images.Image)
class Image(Proxy):
    """One image."""


@stand_in(images.Images)
class Images(Proxy):
    """The images of an engine."""


@stand_in(networks.Network)
class Network(Proxy):
    """One network."""


@stand_in(networks.Networks)
class Networks(Proxy):
    """The networks of an engine."""


@stand_in(volumes.Volume)
class Volume(Proxy):
    """One volume."""


@stand_in(volumes.Volumes)
class Volumes(Proxy):
    """The volumes of an engine."""


async def in_thread(function: "Callable[[], Any]", threads: Threads) -> Any:
    """Do something in a thread; cancelled, call it off and have what it has begun put away."""
    call, done = _submitted(function, threads)
    try:
        await asyncio.wait([done])
    except asyncio.CancelledError:
        undo = call.call_off()
        if undo is not None:  # it had just come to its end
            call, done = _submitted(undo, threads, certain=True)
        await _parted(call, done)
        raise
    _check(call)
    return _wrapped(call.result, threads)


def _submitted(
    function: "Callable[[], Any]",
    threads: Threads,
    wake: "Callable[[], object] | None" = None,
    *,
    certain: bool = False,
) -> "tuple[Call, asyncio.Future[None]]":
    """Have something done in a thread; returns the call, and what is done when it has ended."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def ended(_call: Call) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(done.set_result, None)

    call = Call(function, ended, wake, certain=certain)
    threads.submit(call)
    return call, done


async def _parted(call: Call, done: "asyncio.Future[None]") -> None:
    """Wait for the end of a call that was called off, unless it waits for what nobody can stop.

    However often the task is cancelled meanwhile: asyncio.run() does that to those that are left,
    and then the process ends.
    """
    # Not asyncio.timeout(), which before Python 3.11.4 fails in a task that is being cancelled.
    begun = time.monotonic()
    limit_seconds = _MOMENT_SECONDS
    while not done.done():
        left_seconds = begun + limit_seconds - time.monotonic()
        if left_seconds <= 0:
            if limit_seconds == _PUTTING_AWAY_SECONDS or not call.is_attended_to:
                return
            limit_seconds = _PUTTING_AWAY_SECONDS
            continue
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([done], timeout=left_seconds)


def _check(call: Call) -> None:
    """Raise what was raised in a thread."""
    if isinstance(call.error, CalledOffError):
        raise UnavailableError("the engine was closed") from None
    if call.error is not None:
        raise call.error


async def _iterate(
    begin: "Callable[[], Iterator[Any]]", threads: Threads
) -> AsyncGenerator[Any, None]:
    """Iterate in a thread, an item at a time, as fast as they are taken."""
    loop = asyncio.get_running_loop()
    wanted = threading.Semaphore(0)
    stopped = threading.Event()
    given: asyncio.Queue[Any] = asyncio.Queue()

    def work() -> None:
        wanted.acquire()
        if stopped.is_set():
            return
        source = begin()
        try:
            for item in source:
                loop.call_soon_threadsafe(given.put_nowait, (item,))
                wanted.acquire()
                if stopped.is_set():
                    return
        finally:
            if hasattr(source, "close"):
                source.close()

    def stop() -> None:
        stopped.set()
        wanted.release()

    call, done = _submitted(work, threads, stop)
    done.add_done_callback(lambda _: given.put_nowait(()))
    try:
        while True:
            wanted.release()
            item = await given.get()
            if not item:
                break
            yield _wrapped(item[0], threads)
    finally:
        call.call_off()
        await _parted(call, done)
    _check(call)
