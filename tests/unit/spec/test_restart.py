import pytest

from ketch.errors import InvalidArgumentError
from ketch.spec import restart


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [("", "", 0), ("no", "no", 0), ("always", "always", 0), ("on-failure:3", "on-failure", 3),
     ("on-failure:", "on-failure", 0), ("on-failure:+3", "on-failure", 3),
     ("on-failure:-1", "on-failure", -1), ("on-failure:007", "on-failure", 7)],
)  # fmt: skip
def test_policies(text: str, name: str, count: int) -> None:
    assert restart.policy(text) == {"Name": name, "MaximumRetryCount": count}


@pytest.mark.parametrize("count", ["x", "+", "-", "--1", "+-1", " 1", "1_0", "\u00b2", "9" * 5000])
def test_counts_that_are_none(count: str) -> None:
    with pytest.raises(InvalidArgumentError, match="maximum retry count must be an integer"):
        restart.policy(f"on-failure:{count}")


def test_a_count_needs_a_policy() -> None:
    with pytest.raises(InvalidArgumentError, match="no policy provided before colon"):
        restart.policy(":3")
