"""Tables as Docker's command line lays them out."""

from ketch.errors import on_one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMN_WIDTH_MIN = 10
_GAP = 3


def table(rows: "Sequence[Sequence[str]]", minimum_width: int = _COLUMN_WIDTH_MIN) -> str:
    """Lay rows out in columns, each as wide as its longest cell; the last is not filled up.

    Args:
        rows: the head first; all of the same length. What strangers wrote is spelt out.
        minimum_width: of a column, the gap after it included.

    Returns:
        Lines, each with its newline.
    """
    # Most tables have nothing to be spelt out, which one look at all of it tells.
    if not "".join(map("".join, rows)).isprintable():
        rows = [list(map(on_one_line, row)) for row in rows]
    widths = [
        max(minimum_width, max(map(len, column)) + _GAP)
        for column in zip(*(row[:-1] for row in rows), strict=True)
    ]
    return "".join("".join(map(str.ljust, row, widths)) + row[-1] + "\n" for row in rows)


def shortened(text: str, length: int) -> str:
    """Cut text to a number of characters, the last of which then is an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"
