"""What a ``with`` block owns: descriptors, and contextlib's ExitStack and suppress for a start.

Importing contextlib brings functools, collections and types along, 5 ms of a runtime command whose
whole life should be 25.
"""

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any


_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class ExitStack:
    """Calls what was entrusted to it at the block's end, the last first, each whatever failed."""

    __slots__ = ("_callbacks",)

    def __init__(self) -> None:
        self._callbacks: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def callback(self, function: "Callable[..., object]", *arguments: "Any") -> None:
        """Have a function called at the end."""
        self._callbacks.append((function, arguments))

    def __enter__(self) -> "ExitStack":
        """Returns the stack itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        """Call all of them; an error of the last that fails is raised."""
        while self._callbacks:
            function, arguments = self._callbacks.pop()
            try:
                function(*arguments)
            except BaseException:
                self.__exit__(None, None, None)
                raise


class suppress:  # noqa: N801 - contextlib's name
    """Lets the block end early, without an error, where one of these kinds is raised."""

    __slots__ = ("_kinds",)

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        """Nothing is to be done."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> bool:
        """Tell whether the error is of these kinds."""
        return kind is not None and issubclass(kind, self._kinds)


class suppress_absence:  # noqa: N801 - reads like the others
    """Lets the block end early where what it looks for is not to be had, whatever the reason.

    But that the caller has no descriptors or memory left says nothing of it, and is raised.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        """Nothing is to be done."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> bool:
        """Tell whether the error says something of what was looked for."""
        return isinstance(error, OSError) and error.errno not in _EXHAUSTED


class owned:  # noqa: N801 - reads like the others
    """Owns a descriptor: gives it at the block's beginning, closes it at its end.

    ``with owned(os.open(path, flags)) as descriptor:``
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> int:
        """Returns the descriptor."""
        return self._descriptor

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        """Close it."""
        os.close(self._descriptor)


class umask:  # noqa: N801 - os's name
    """Has another umask for the length of the block: the process's, or that of who shares it."""

    __slots__ = ("_mask",)

    def __init__(self, mask: int) -> None:
        self._mask = mask

    def __enter__(self) -> None:
        """Change it."""
        self._mask = os.umask(self._mask)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        """Change it back."""
        os.umask(self._mask)
