"""Tables, against what the Docker command line printed."""

import pytest

from ketch.cli import tables

HEAD = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]


def test_an_empty_table_is_its_head() -> None:
    assert tables.table([HEAD]) == (
        "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    )


def test_columns_fit_their_longest_cell() -> None:
    rows = [
        HEAD,
        ["0c82f3f5c83b", "bb", '"nosuch"', "1 second ago", "Created", "", "bad"],
        ["53a8ee0b6b6f", "bb", '"sh -c \'sleep 1000; …"', "1 second ago",
         "Up Less than a second", "", "one"],
    ]  # fmt: skip
    assert tables.table(rows).splitlines() == [
        "CONTAINER ID   IMAGE     COMMAND                  CREATED        STATUS"
        "                  PORTS     NAMES",
        '0c82f3f5c83b   bb        "nosuch"                 1 second ago   Created'
        "                           bad",
        '53a8ee0b6b6f   bb        "sh -c \'sleep 1000; …"   1 second ago   Up Less than a second'
        "             one",
    ]


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [("short", 20, "short"), ("x" * 20, 20, "x" * 20), ("x" * 21, 20, "x" * 19 + "…")],
)
def test_shortened(text: str, length: int, expected: str) -> None:
    assert tables.shortened(text, length) == expected
