"""What of the build cache goes, and in which order."""

import time
from typing import Any

import pytest

from ketch.build.cache import pruning
from ketch.build.cache.usage import Usage
from ketch.errors import InvalidArgumentError

HOUR_NS = 3600 * 10**9


def one(name: str, **fields: Any) -> Usage:
    made: dict[str, Any] = {
        "id": name, "type": "regular", "description": name, "size_bytes": 10, "created_ns": 0,
        "used_ns": time.time_ns() - 2 * HOUR_NS, "uses": 1, "in_use": False, "shared": False,
        "parents": (), "mutable": False,
    }  # fmt: skip
    return Usage(**{**made, **fields})


@pytest.mark.parametrize(
    ("filters", "fields", "fits"),
    [
        ([], {}, True),
        (["until=1h"], {}, True),
        (["until=3h"], {}, False),
        (["unused-for=1h"], {}, True),
        (["type=regular"], {}, True),
        (["type=exec.cachemount"], {}, False),
        (["id=^a"], {}, True),
        (["id=x"], {}, False),
        (["parent=p"], {"parents": ("p",)}, True),
        (["parent=p"], {}, False),
        (["description=abc"], {}, True),
        (["inuse="], {}, False),
        (["shared=true"], {"shared": True}, True),
        (["private="], {"shared": True}, False),
        (["type=regular", "until=3h"], {}, False),
        (["label=a"], {}, False),
        (["label!=a", "label!=b=c", "until=1h"], {}, True),
    ],
    ids=str,
)
def test_filters(filters: list[str], fields: dict[str, Any], fits: bool) -> None:
    assert pruning.chooser(filters)(one("abc", **fields)) is fits


@pytest.mark.parametrize(
    "filters",
    [["until=1h", "unused-for=1h"], ["until=x"], ["colour=red"], ["type=a", "type=b"], ["id=("]],
    ids=str,
)
def test_odd_filters_are_refused(filters: list[str]) -> None:
    with pytest.raises(InvalidArgumentError):
        pruning.chooser(filters)


def test_the_oldest_goes_first_and_what_lies_on_others_before_them() -> None:
    used_ns = 5 * HOUR_NS
    base = one("base", used_ns=used_ns)
    middle = one("middle", used_ns=used_ns, parents=("base",))
    top = one("top", used_ns=used_ns, parents=("middle",))
    old = one("old", used_ns=HOUR_NS)
    found = pruning._in_order([base, top, middle, old])
    assert [item.id for item in found] == ["old", "top", "middle", "base"]


def test_a_circle_of_parents_ends() -> None:
    a, b = one("a", used_ns=1, parents=("b",)), one("b", used_ns=1, parents=("a",))
    assert sorted(item.id for item in pruning._in_order([a, b])) == ["a", "b"]
