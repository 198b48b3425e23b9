"""``--link``: what it says, in Docker's forms."""

import pytest

from ketch.errors import InvalidArgumentError
from ketch.spec import links


@pytest.mark.parametrize(
    ("text", "reference", "alias"),
    [
        ("db", "db", ""),
        ("db:mysql", "db", "mysql"),
        ("db:", "db", ""),
        ("/db:/app/mysql", "db", "mysql"),  # as inspect shows it
        ("db:a/b", "db", "a/b"),
        ("", None, "empty string specified for links"),
        ("db::x", None, "bad format for links: db::x"),
        (":x", None, "bad format for links: :x"),
        ("a:b:c", None, "bad format for links: a:b:c"),
    ],
)
def test_forms(text: str, reference: str | None, alias: str) -> None:
    if reference is None:
        with pytest.raises(InvalidArgumentError, match=alias):
            links.split(text)
    else:
        assert links.split(text) == (reference, alias)
