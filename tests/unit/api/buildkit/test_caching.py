"""The build cache in BuildKit's messages."""

import pytest

from ketch.api.buildkit import caching
from ketch.build.cache import pruning
from ketch.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("filters", "age_ns", "pairs"),
    [
        ([], 0, []),
        ([""], 0, []),
        (["id~=ab,type==regular,inuse"], 0, ["id=ab", "type=regular", "inuse=true"]),
        (['description=="a b"'], 1_500_000_000, ["description=a b", "until=1.500000000s"]),
    ],
)
def test_filters_as_buildx_writes_them(filters: list[str], age_ns: int, pairs: list[str]) -> None:
    assert caching._pairs(filters, age_ns) == pairs
    pruning.chooser(pairs)


@pytest.mark.parametrize("filters", [["type!=regular"], ["type~=x"], ["id==x"], ["inuse", "id~=a"]])
def test_other_filters_are_refused(filters: list[str]) -> None:
    with pytest.raises(InvalidArgumentError):
        caching._pairs(filters, 0)


@pytest.mark.parametrize(
    ("reserved", "most", "free", "kept"),
    [(10, 0, 0, 10), (0, 50, 0, 50), (60, 50, 0, 60), (0, 0, 30, 80), (0, 70, 30, 70),
     (0, 90, 30, 80), (95, 90, 30, 95), (0, 0, 500, 1)],
)  # fmt: skip
def test_how_much_may_stay(reserved: int, most: int, free: int, kept: int) -> None:
    # 100 are taken, and 10 free.
    assert caching.kept_bytes(100, 10, reserved=reserved, most=most, free=free) == kept
