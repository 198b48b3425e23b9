"""Sizes, against what the Docker command line printed."""

import pytest

from ketch.spec import sizes


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0B"), (999, "999B"), (1000, "1kB"), (1500, "1.5kB"), (1_980_000, "1.98MB"),
        (123_456_789, "123MB"), (999_999, "1e+03kB"), (4_200_000_000, "4.2GB"),
    ],
)  # fmt: skip
def test_sizes(size_bytes: int, text: str) -> None:
    assert sizes.size(size_bytes) == text


@pytest.mark.parametrize(
    ("current", "total", "columns", "shown"),
    [
        (0, 100, 80, "      0B/100B"),
        (512_000, 2_030_000, 80, "   512kB/2.03MB"),
        (50, 100, 120, f"[{'=' * 25}>{' ' * 25}]      50B/100B"),
        (100, 100, 120, f"[{'=' * 50}>]     100B/100B"),
        (50, 100, 0, f"[{'=' * 25}>{' ' * 25}]      50B/100B"),
        (200, 100, 120, f"[{'=' * 50}>]     200B/100B"),
    ],
)
def test_bars(current: int, total: int, columns: int, shown: str) -> None:
    assert sizes.bar(current, total, columns) == shown
