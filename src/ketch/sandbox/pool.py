"""Sandboxes that are made before they are wanted, and are used once."""

import contextlib
import functools
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ketch.errors import ConflictError, InvalidArgumentError, KetchError
from ketch.sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from ketch.library.images import Image

    Given = TypeVar("Given")
    Made = TypeVar("Made")


_CLOSED = "the pool is closed"


class Pool:
    """Keeps sandboxes ready. As a context manager, it removes those that nobody took, at its end.

    Args:
        size: how many are ready.
        image: as for ``Sandbox.create``.
        create: further arguments of that.
    """

    def __init__(self, size: int, image: "str | Image", **create: "Any") -> None:
        if size < 1:
            raise InvalidArgumentError(f"size={size!r}: at least one is wanted")
        self._make: Callable[[], Sandbox] = functools.partial(Sandbox.create, image, **create)
        self._size = size
        self._ready: queue.SimpleQueue[Sandbox | BaseException] = queue.SimpleQueue()
        self._wanted = threading.Semaphore(size)
        self._closed = threading.Event()
        self._maker = threading.Thread(target=self._keep_ready, name="ketch-pool", daemon=True)
        self._maker.start()

    def __enter__(self) -> "Self":
        """Nothing more than itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:  # fmt: skip
        """Remove what nobody took."""
        self.close()

    def acquire(self) -> Sandbox:
        """Returns one that nobody has used; it is the caller's, who kills it.

        Raises:
            ConflictError: the pool is closed.
            KetchError: none can be made.
        """
        if self._closed.is_set():
            raise ConflictError(_CLOSED)
        found = self._ready.get()
        if self._closed.is_set():
            self._ready.put(ConflictError(_CLOSED))  # for whoever else waits
        self._wanted.release()
        if isinstance(found, BaseException):
            raise found
        return found

    def map(
        self, function: "Callable[[Sandbox, Given], Made]", items: "Iterable[Given]"
    ) -> "Iterator[Made]":
        """Call a function for each item, each with a sandbox of its own, several at once.

        Args:
            function: is given a sandbox, which is killed when it returns, and an item.
            items: the items.

        Yields:
            What it returned, in the items' order.
        """

        def call(item: "Given") -> "Made":
            with self.acquire() as sandbox:
                return function(sandbox, item)

        with ThreadPoolExecutor(self._size, "ketch-pool-map") as threads:
            yield from threads.map(call, items)

    def close(self) -> None:
        """Remove what nobody took, and make no more."""
        self._closed.set()
        self._wanted.release()
        self._maker.join()
        with contextlib.suppress(queue.Empty):
            while True:
                left = self._ready.get_nowait()
                if isinstance(left, Sandbox):
                    left.kill()
        self._ready.put(ConflictError(_CLOSED))  # for those who wait: nothing else will come

    def _keep_ready(self) -> None:
        while True:
            self._wanted.acquire()
            if self._closed.is_set():
                return
            try:
                self._ready.put(_attended(self._make()))
            except BaseException as error:  # noqa: BLE001 - who acquires hears of it
                self._ready.put(error)


def _attended(made: Sandbox) -> Sandbox:
    """Have a sandbox's programs run quickly from the first one on."""
    try:
        with contextlib.suppress(KetchError):  # they then begin in the usual way
            made._attendance.begin()
    except BaseException:
        made.kill()
        raise
    return made
