"""Tables as Docker's command line lays them out."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMN_WIDTH_MIN = 10
_GAP = 3


def table(rows: "Sequence[Sequence[str]]", minimum_width: int = _COLUMN_WIDTH_MIN) -> str:
    """Lay rows out in columns, each as wide as its longest cell; the last is not filled up.

    Args:
        rows: the head first; all of the same length.
        minimum_width: of a column, the gap after it included.

    Returns:
        Lines, each with its newline.
    """
    widths = [
        max(minimum_width, max(map(len, column)) + _GAP)
        for column in zip(*(row[:-1] for row in rows), strict=True)
    ]
    return "".join("".join(map(str.ljust, row, widths)) + row[-1] + "\n" for row in rows)


def shortened(text: str, length: int) -> str:
    """Cut text to a number of characters, the last of which then is an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def size(size_bytes: float, digits: int = 3) -> str:
    """Write a size in decimal units to three significant digits, as ``1.98MB``."""
    units = iter(("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB"))
    while size_bytes >= 1000:
        size_bytes /= 1000
        next(units)
    return f"{size_bytes:.{digits}g}{next(units)}"


def binary_size(size_bytes: float) -> str:
    """Write a size in powers of 1024 to four significant digits, as ``23.54GiB``."""
    units = iter(("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB"))
    while size_bytes >= 1024:
        size_bytes /= 1024
        next(units)
    return f"{size_bytes:.4g}{next(units)}"
