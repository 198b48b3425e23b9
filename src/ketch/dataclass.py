"""The dataclasses of the standard library, made in a thirtieth of the time.

``dataclasses.dataclass`` writes methods for each class as text and compiles them, which takes 0.3
to 0.8 ms a class. A build has more than a hundred classes, makes few objects of most, and lives as
long as that takes. Here all classes have the same methods, which look at the fields: making an
object takes 2 microseconds more. Nor is the library loaded, which takes 18 ms with what it needs;
its functions work on these classes, which show it their fields when it asks.

There are no ``slots``, which would make each class twice, no ``InitVar`` and no ``KW_ONLY``.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - others have them from here
    from dataclasses import field as field  # noqa: PLC0414
    from dataclasses import fields as fields  # noqa: PLC0414
    from dataclasses import replace as replace  # noqa: PLC0414
    from typing import Any
else:

    def dataclass(cls=None, /, *, eq=True, order=False, frozen=False, kw_only=False):
        """As ``dataclasses.dataclass``, with those of its parameters that ketch has a use for."""

        def made(cls):
            cls._fields_ = found = _collected(cls, kw_only=kw_only)
            cls._layout_ = None
            cls.__dataclass_fields__ = _SHOWN_TO_LIBRARY
            cls.__match_args__ = tuple(
                name for name, one in found.items() if one.init and not one.kw_only
            )
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

    def field(**given):
        """As ``dataclasses.field``, with what ``_Field`` has of it."""
        return _Field(**given)

    def fields(thing):
        """As ``dataclasses.fields``."""
        return tuple(thing._fields_.values())

    def replace(thing, /, **changes):
        """As ``dataclasses.replace``."""
        for name, one in thing._fields_.items():
            if not one.init:
                if name in changes:
                    raise ValueError(f"{name} is no argument, and cannot be replaced")
            elif name not in changes:
                changes[name] = getattr(thing, name)
        return thing.__class__(**changes)


_MISSING: "Any" = object()


class _Field:
    """One of a class's fields.

    Args:
        default: what it has where nothing is given.
        default_factory: makes that.
        init: whether it is given.
        repr: whether it is shown.
        compare: whether it counts where objects are compared.
        kw_only: whether it is given by its name alone; as the class has it if None.
    """

    __slots__ = ("compare", "default", "default_factory", "init", "kw_only", "name", "repr", "type")

    def __init__(
        self,
        *,
        default: "Any" = _MISSING,
        default_factory: "Any" = _MISSING,
        init: bool = True,
        repr: bool = True,  # noqa: A002 - the library's word
        compare: bool = True,
        kw_only: bool | None = None,
    ) -> None:
        self.default = default
        self.default_factory = default_factory
        self.init = init
        self.repr = repr
        self.compare = compare
        self.kw_only = kw_only
        self.name = ""
        self.type: Any = None


def _collected(cls: "Any", *, kw_only: bool) -> dict[str, _Field]:
    """Returns a class's fields by name, with those of its bases; leaves it their defaults."""
    found: dict[str, _Field] = {}
    for base in cls.__mro__[:0:-1]:
        found |= base.__dict__.get("_fields_", {})
    for name, annotation in cls.__annotations__.items():
        if _is_shared(annotation):
            continue
        given = getattr(cls, name, _MISSING)
        one = given if isinstance(given, _Field) else _Field(default=given)
        if one is given:
            if one.default is _MISSING:
                delattr(cls, name)
            else:
                setattr(cls, name, one.default)
        if one.default.__class__.__hash__ is None:
            raise ValueError(f"{name} of {cls.__qualname__} needs a default_factory")
        one.name, one.type = name, annotation
        if one.kw_only is None:
            one.kw_only = kw_only
        found[name] = one
    return found


def _is_shared(annotation: "Any") -> bool:
    """Whether it is ``ClassVar``: the class's own, and no field."""
    if annotation.__class__.__module__ == "typing":
        annotation = str(annotation)
    return annotation.__class__ is str and (
        annotation.partition("[")[0].rpartition(".")[2] == "ClassVar"
    )


class _ShownToLibrary:
    """What the library knows classes of its kind by, made when it asks: ``fields`` and others."""

    def __get__(self, _: object, cls: "Any") -> "Any":
        import dataclasses  # noqa: PLC0415 - see above

        described = []
        for one in cls._fields_.values():
            has = {"init": one.init, "repr": one.repr, "compare": one.compare,
                   "kw_only": one.kw_only}  # fmt: skip
            if one.default is not _MISSING:
                has["default"] = one.default
            if one.default_factory is not _MISSING:
                has["default_factory"] = one.default_factory
            described.append((one.name, one.type, dataclasses.field(**has)))
        like: Any = dataclasses.make_dataclass(cls.__name__, described, init=False, eq=False)
        return like.__dataclass_fields__


_SHOWN_TO_LIBRARY = _ShownToLibrary()


class _Layout:
    """What the fields of a class come to; made when its first object is.

    Args:
        cls: the class.
    """

    __slots__ = ("compared", "defaults", "factories", "known", "positional", "post", "required",
                 "shown")  # fmt: skip

    def __init__(self, cls: "Any") -> None:
        found = list(cls._fields_.values())
        given = [each for each in found if each.init]
        made = [each for each in found if each.default_factory is not _MISSING]
        self.positional = [each.name for each in given if not each.kw_only]
        self.known = {each.name for each in given}
        self.factories: list[tuple[str, Any]] = [(each.name, each.default_factory) for each in made]
        self.defaults = {each.name: each.default for each in found if each.default is not _MISSING}
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
    raise _frozen(f"cannot assign to field {name!r}")


def _refuse_removal(_: object, name: str) -> None:
    raise _frozen(f"cannot delete field {name!r}")


def _frozen(message: str) -> AttributeError:
    from dataclasses import FrozenInstanceError  # noqa: PLC0415 - who does not err needs it not

    return FrozenInstanceError(message)
