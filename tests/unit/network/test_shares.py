"""Who gets how much of what all have together."""

from hypothesis import given
from hypothesis import strategies as st

from ketch.network.shares import Shares


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans())))
def test_nobody_has_too_much_and_nobody_nothing(steps: list[tuple[str, bool]]) -> None:
    shares = Shares(total=6, own=5, sure=2)
    out: dict[str, int] = dict.fromkeys("abcd", 0)
    for asker, takes in steps:
        if not takes:
            if out[asker]:
                shares.give(asker)
                out[asker] -= 1
            continue
        allowed = out[asker] < 2 or (out[asker] < 5 and sum(out.values()) < 6)
        assert shares.take(asker) is allowed
        out[asker] += allowed
    assert {asker: shares.of(asker) for asker in "abcd"} == out
