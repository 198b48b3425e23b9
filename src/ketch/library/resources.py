"""What the library's objects have in common: an identity, a document, and where they are."""

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ketch.errors import NotFoundError
from ketch.spec.template_functions import plain

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from ketch.library.places import Places
    from ketch.spec.template_functions import Struct


class Resource(ABC):
    """Something that an engine has. As a context manager, it is removed at the end.

    Attributes:
        id: what it is known by for as long as it is there.
        attrs: its document, as it was when it was last read, in the Docker API's keys.
    """

    def __init__(self, places: "Places", identifier: str) -> None:
        self._places = places
        self.id = identifier
        self.attrs: dict[str, Any] = {}

    def _show(self, document: "Struct") -> None:
        """Take on a document as it is in JSON, where what nobody has made is null."""
        self.attrs = plain(document)  # type: ignore[assignment] # a struct is an object there

    def __repr__(self) -> str:
        """Its kind and its name."""
        return f"<{type(self).__name__} {self.name}>"

    def __eq__(self, other: object) -> bool:
        """Whether both are the same thing."""
        return isinstance(other, Resource) and type(other) is type(self) and other.id == self.id

    def __hash__(self) -> int:
        """Of its identifier."""
        return hash(self.id)

    def __enter__(self) -> "Self":
        """Nothing more than itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:  # fmt: skip
        """Remove it, unless it has gone."""
        with contextlib.suppress(NotFoundError):
            self._leave()

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name."""

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self.attrs.get("Labels") or {})

    @abstractmethod
    def reload(self) -> None:
        """Read it again.

        Raises:
            NotFoundError: it is gone.
        """

    @abstractmethod
    def _leave(self) -> None:
        """Remove it, as the end of its block does."""


class Collection:
    """Things of one kind that an engine has."""

    def __init__(self, places: "Places") -> None:
        self._places = places
