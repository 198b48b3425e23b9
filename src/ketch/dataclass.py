"""The dataclasses of the standard library, made in a thirtieth of the time.

``dataclasses.dataclass`` writes methods for each class as text and compiles them, which takes 0.3
to 0.8 ms a class. A build has more than a hundred classes, makes few objects of most, and lives as
long as that takes. Here all classes have the same methods, which look at the fields: making an
object takes 2 microseconds more.

All else is the library's: ``field``, ``fields``, ``replace``, ``match``, inheritance. There are no
``slots``, which would make each class twice, and no ``InitVar``.
"""

from dataclasses import MISSING, FrozenInstanceError, fields
from dataclasses import dataclass as _dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - others have it from here
    from typing import Any
else:

    def dataclass(cls=None, /, *, eq=True, order=False, frozen=False, kw_only=False):
        """As ``dataclasses.dataclass``, with those of its parameters that ketch has a use for."""

        def made(cls):
            _dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)
            cls._layout_ = None
            cls.__init__ = _initialize
            own = cls.__dict__
            if "__repr__" not in own:
                cls.__repr__ = _shown
            if eq:
                cls.__eq__ = _equal
                if own.get("__hash__") is None:
                    cls.__hash__ = _hash if frozen else None
            if order:
                cls.__lt__, cls.__le__, cls.__gt__, cls.__ge__ = _ORDER
            if frozen:
                cls.__setattr__ = _refuse_change
                cls.__delattr__ = _refuse_removal
            return cls

        return made if cls is None else made(cls)


class _Layout:
    """What the fields of a class come to; made when its first object is.

    Args:
        cls: the class.
    """

    __slots__ = ("compared", "defaults", "factories", "known", "positional", "post", "required",
                 "shown")  # fmt: skip

    def __init__(self, cls: "Any") -> None:
        found = fields(cls)
        given = [each for each in found if each.init]
        made = [each for each in found if each.default_factory is not MISSING]
        self.positional = [each.name for each in given if not each.kw_only]
        self.known = {each.name for each in given}
        self.factories: list[tuple[str, Any]] = [(each.name, each.default_factory) for each in made]
        self.defaults = {each.name: each.default for each in found if each.default is not MISSING}
        self.required = self.known - self.defaults.keys() - {each.name for each in made}
        self.compared = [each.name for each in found if each.compare]
        self.shown = [each.name for each in found if each.repr]
        self.post: bool = hasattr(cls, "__post_init__")


def _layout(cls: "Any") -> _Layout:
    found: _Layout | None = cls._layout_
    if found is None:
        found = cls._layout_ = _Layout(cls)
    return found


def _initialize(self: "Any", /, *arguments: object, **given: object) -> None:
    layout = self.__class__._layout_ or _layout(self.__class__)
    if arguments:
        by_place = dict(zip(layout.positional, arguments, strict=False))
        if len(by_place) < len(arguments) or not by_place.keys().isdisjoint(given):
            raise _wrong(self, layout, arguments, given)
        given |= by_place
    if not layout.required <= given.keys() <= layout.known:
        raise _wrong(self, layout, arguments, given)
    # Not by setattr, which a frozen class refuses.
    state = self.__dict__
    state |= layout.defaults
    for name, make in layout.factories:
        if name not in given:
            state[name] = make()
    state |= given
    if layout.post:
        self.__post_init__()


def _wrong(
    self: "Any", layout: _Layout, arguments: tuple[object, ...], given: "dict[str, object]"
) -> TypeError:
    name = type(self).__qualname__
    if len(arguments) > len(layout.positional):
        most = len(layout.positional)
        return TypeError(f"{name} takes {most} arguments by place, and {len(arguments)} were given")
    if unknown := sorted(given.keys() - layout.known):
        return TypeError(f"{name} has no {', '.join(unknown)}")
    if missing := sorted(layout.required - given.keys()):
        return TypeError(f"{name} lacks {', '.join(missing)}")
    return TypeError(f"{name} was given an argument twice")


def _values(self: "Any") -> tuple[object, ...]:
    return tuple(getattr(self, name) for name in _layout(self.__class__).compared)


def _shown(self: "Any") -> str:
    pairs = (f"{name}={getattr(self, name)!r}" for name in _layout(self.__class__).shown)
    return f"{self.__class__.__qualname__}({', '.join(pairs)})"


def _equal(self: object, other: object) -> "Any":
    if other.__class__ is not self.__class__:
        return NotImplemented
    return _values(self) == _values(other)


def _hash(self: object) -> int:
    return hash(_values(self))


def _ordering(name: str) -> "Callable[[object, object], Any]":
    def compared(self: object, other: object) -> "Any":
        if other.__class__ is not self.__class__:
            return NotImplemented
        return getattr(_values(self), name)(_values(other))

    return compared


_ORDER = tuple(_ordering(name) for name in ("__lt__", "__le__", "__gt__", "__ge__"))


def _refuse_change(_: object, name: str, __: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_removal(_: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
