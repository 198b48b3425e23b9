import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.runtime.tuning import numbers


@pytest.mark.parametrize(
    ("listed", "expected"),
    [("", set()), ("0", {0}), ("0-3,7", {0, 1, 2, 3, 7}), (" 1 - 2 ,4", {1, 2, 4})],
)
def test_lists_of_processors_and_nodes(listed: str, expected: set[int]) -> None:
    assert numbers(listed) == expected


@given(st.sets(st.integers(0, 200)))
def test_any_set_can_be_listed(wanted: set[int]) -> None:
    assert numbers(",".join(map(str, wanted))) == wanted
