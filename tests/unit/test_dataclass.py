"""Dataclasses made quickly behave as the standard library's."""

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

import ketch.dataclass


def _classes(decorated: Any, field: Any) -> dict[str, Any]:
    @decorated(frozen=True)
    class Plain:
        """Frozen."""

        first: int
        second: str = "b"
        third: list[int] = field(default_factory=list, compare=False)
        shared: ClassVar[int] = 7

    @decorated(frozen=True, kw_only=True)
    class Below(Plain):
        """Inherits."""

        more: int
        second: str = "c"

    @decorated(eq=False, kw_only=True)
    class Same:
        """Told apart by identity."""

        name: str
        hidden: int = field(default=0, repr=False)
        later: int = field(default=1, init=False)

        def __post_init__(self) -> None:
            self.later += self.hidden

    @decorated(order=True)
    class Ordered:
        """Has an order, and changes."""

        first: int
        last: int = 0

    return {each.__name__.lower(): each for each in (Plain, Below, Same, Ordered)}


_OURS = _classes(ketch.dataclass.dataclass, ketch.dataclass.field)
_THEIRS = _classes(dataclasses.dataclass, dataclasses.field)


def _tried(classes: dict[str, Any], does: Callable[..., object]) -> object:
    try:
        return does(**classes)
    except Exception as error:  # noqa: BLE001 - its kind is compared
        return type(error)


def _matched(thing: Any, plain: Any) -> object:
    match thing:
        case plain(first, second):
            return first, second
    return None


@pytest.mark.parametrize(
    "does",
    [
        lambda plain, **_: repr(plain(1)),
        lambda plain, **_: repr(plain(1, "x", [2])),
        lambda plain, **_: plain(second="x", first=2).second,
        lambda plain, **_: plain(1).third is not plain(1).third,
        lambda plain, **_: plain(1, third=[1]) == plain(1, "b", [2]),
        lambda plain, **_: plain(1) == plain(2),
        lambda plain, ordered, **_: plain(1) == ordered(1),
        lambda plain, **_: hash(plain(1)) == hash(plain(1)),
        lambda plain, **_: len({plain(1), plain(1), plain(2)}),
        lambda plain, **_: plain.shared,
        lambda plain, **_: plain(),
        lambda plain, **_: plain(1, "x", [], 4),
        lambda plain, **_: plain(1, first=2),
        lambda plain, **_: plain(1, fourth=2),
        lambda plain, **_: setattr(plain(1), "first", 2),
        lambda plain, **_: delattr(plain(1), "first"),
        lambda plain, **_: repr(dataclasses.replace(plain(1), second="z")),
        lambda plain, **_: [field.name for field in dataclasses.fields(plain)],
        lambda plain, **_: dataclasses.asdict(plain(1, third=[3])),
        lambda plain, **_: _matched(plain(1), plain),
        lambda plain, **_: copy.copy(plain(1, "y")) == plain(1, "y"),
        lambda plain, **_: copy.deepcopy(plain(1, third=[1])).third,
        lambda below, **_: repr(below(1, more=2)),
        lambda below, **_: repr(below(1, "q", more=2, third=[5])),
        lambda below, **_: below(1),
        lambda below, **_: below(1, "q", [], 2),
        lambda plain, below, **_: below(1, "b", more=1) == plain(1),
        lambda below, **_: setattr(below(1, more=2), "more", 3),
        lambda same, **_: repr(same(name="a", hidden=2)),
        lambda same, **_: same(name="a", later=2),
        lambda same, **_: same("a"),
        lambda same, **_: same(name="a") == same(name="a"),
        lambda same, **_: len({same(name="a"), same(name="a")}),
        lambda ordered, **_: sorted([ordered(2), ordered(1, 5), ordered(1)]) == [
            ordered(1), ordered(1, 5), ordered(2)],
        lambda ordered, **_: [ordered(1) <= ordered(1), ordered(1) >= ordered(2),
                              ordered(1) > ordered(0)],
        lambda ordered, **_: ordered(1) < 3,
        lambda ordered, **_: hash(ordered(1)),
        lambda ordered, **_: setattr(ordered(1), "last", 9),
    ],
)  # fmt: skip
def test_as_the_library_has_it(does: Callable[..., object]) -> None:
    ours, theirs = _tried(_OURS, does), _tried(_THEIRS, does)
    assert ours == theirs


@ketch.dataclass.dataclass(frozen=True)
class Picklable:
    """At the top of a module, where pickle finds it."""

    first: int
    second: str = "b"


@pytest.mark.parametrize(
    "does",
    [
        lambda replace, fields, plain, **_: repr(replace(plain(1), second="z")),
        lambda replace, fields, below, **_: repr(replace(below(1, more=2), first=3)),
        lambda replace, fields, same, **_: replace(same(name="a"), later=3),
        lambda replace, fields, same, **_: replace(same(name="a", hidden=1), name="b").later,
        lambda replace, fields, plain, **_: replace(plain(1), other=3),
        lambda replace, fields, below, **_: [
            (each.name, each.init, each.repr, each.compare, each.kw_only) for each in fields(below)
        ],
        lambda replace, fields, same, **_: [each.name for each in fields(same(name="a"))],
    ],
)  # fmt: skip
def test_functions_do_as_the_librarys(does: Callable[..., object]) -> None:
    ours = {"replace": ketch.dataclass.replace, "fields": ketch.dataclass.fields}
    theirs = {"replace": dataclasses.replace, "fields": dataclasses.fields}
    # Since 3.13 the library calls a field that is not for __init__ another type's mistake.
    expected = [_tried({**_THEIRS, **theirs}, does)]
    if expected == [TypeError]:
        expected.append(ValueError)
    assert _tried({**_OURS, **ours}, does) in expected
    # And the library's work on our classes.
    assert _tried({**_OURS, **theirs}, does) == expected[0]


def test_a_default_that_all_objects_would_share_is_refused() -> None:
    with pytest.raises(ValueError, match="shared"):

        @ketch.dataclass.dataclass
        class _Wrong:
            shared: list[int] = []  # noqa: RUF012 - what is refused


def test_the_library_is_not_loaded() -> None:
    program = "import sys, ketch.build.builder, ketch.cli.build; print('inspect' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout
    assert said == "False\n"


def test_objects_travel_between_processes() -> None:
    assert pickle.loads(pickle.dumps(Picklable(1, "x"))) == Picklable(1, "x")


def test_what_is_wrong_is_named() -> None:
    plain = _OURS["plain"]
    for arguments, given, message in (
        ((), {}, "lacks first"),
        ((1,), {"other": 2}, "has no other"),
        ((1, 2, 3, 4), {}, "takes 3 arguments by place, and 4 were given"),
        ((1,), {"first": 1}, "was given an argument twice"),
    ):
        with pytest.raises(TypeError, match=message):
            plain(*arguments, **given)
