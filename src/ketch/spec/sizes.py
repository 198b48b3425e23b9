"""Sizes as people read them: Docker's units, digits and bars."""

_BAR_WIDTH_MIN = 110
_BAR_CELLS = 50


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


def bar(current_bytes: int, total_bytes: int, columns: int = 0) -> str:
    """Returns how far something is, as Docker draws it.

    Args:
        current_bytes: how much is done.
        total_bytes: how much there is.
        columns: the terminal's width, 0 for none; a narrow one has room for the figures alone.
    """
    share = min(current_bytes * _BAR_CELLS // total_bytes, _BAR_CELLS) if total_bytes else 0
    numbers = f"{size(current_bytes, 4):>8}/{size(total_bytes, 4)}"
    if 0 < columns <= _BAR_WIDTH_MIN:
        return numbers
    return f"[{'=' * share}>{' ' * (_BAR_CELLS - share)}] {numbers}"
