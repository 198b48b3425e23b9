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


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0B"), (999, "999B"), (1000, "1kB"), (1500, "1.5kB"), (1_980_000, "1.98MB"),
        (123_456_789, "123MB"), (999_999, "1e+03kB"), (4_200_000_000, "4.2GB"),
    ],
)  # fmt: skip
def test_sizes(size_bytes: int, text: str) -> None:
    assert tables.size(size_bytes) == text
