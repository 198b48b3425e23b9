"""``ketch images --tree``: each image with its platforms, and what they take on the disk.

The layout is that of Docker's command line, 28.2. Into a pipe it goes without colours.
"""

import os
import sys

from ketch.cli.tables import shortened
from ketch.engine.images import inspection, listing
from ketch.spec import platforms
from ketch.spec.digest import short
from ketch.spec.sizes import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from ketch.engine.images.image import Image
    from ketch.engine.images.images import Images

_WARNING = (
    "WARNING: This is an experimental feature. The output may change and shouldn't be depended on."
)
_HEADS = ("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")
_WIDTHS = (12, 10, 12, 5)  # of all but the first
_TO_THE_RIGHT = {2, 3}
_GAP = 3
_NAME_WIDTH_MIN = 12
_PIPE_WIDTH, _WIDTH_MIN = 80, 20
_BRANCH = "└─ "
_NO_NAME = "<untagged>"
# Select graphic rendition: ECMA-48, 8.3.117.
_NORMAL, _HEAD, _UNTAGGED, _NAME = "39", "39;1", "39;2", "34;1"
_YELLOW, _CYAN, _MARK, _CHIP = "93", "96", "1;106;30", "38;5;0;48;5;14"


def show(images: "Images", found: "Iterable[Image]", *, every: bool) -> None:
    """Print a tree on standard output.

    Args:
        images: the engine's.
        found: which to show.
        every: whether those without a name are shown.
    """
    users = images.users()
    screen = _Screen()
    for image in found:
        names = sorted(inspection.repo_tags(image), key=len, reverse=True)
        if names or every:
            screen.add(names, listing.manifest(images, image, users.get(image.id, ())), image)
    screen.write()


class _Screen:
    """A tree, and how wide a terminal or a pipe has it."""

    __slots__ = ("_is_terminal", "_rows", "_width")

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._width = _PIPE_WIDTH
        if self._is_terminal:
            columns = os.get_terminal_size(sys.stdout.fileno()).columns
            self._width = max(columns, _WIDTH_MIN)
        # Texts and the first one's colour; a row of one text has all the width.
        self._rows: list[tuple[str, Sequence[str]]] = []

    def add(self, names: "Sequence[str]", told: "dict[str, Any]", image: "Image") -> None:
        """Add an image: its names, the last one with its figures, and its platform."""
        extra = (" U " if self._is_terminal else "U") if told["ImageData"]["Containers"] else ""
        figures = (size(told["Size"]["Total"]), size(told["Size"]["Content"]), extra)
        *others, last = names or [_NO_NAME]
        self._rows += [(_NAME, [name]) for name in others]
        self._rows.append((_NAME if names else _UNTAGGED, [last, image.short_id, *figures]))
        platform = platforms.shown(told["ImageData"]["Platform"])
        self._rows.append((_NORMAL, [f"{_BRANCH}{platform}", short(told["ID"]), *figures]))
        self._rows.append((_NORMAL, []))

    def write(self) -> None:
        """Print all of it."""
        widths = self._widths()
        if self._is_terminal:
            key = f"{self._painted(_MARK, 'i')} {self._painted(_CYAN, 'Info → ')} "
            key += f"{self._painted(_CHIP, ' U ')} In Use "
            key = f"{' ' * (self._width - len('i Info →   U  In Use '))}{key}"
        else:
            key = "Info ->  U In Use ".rjust(self._width)
        lines = [
            self._painted(_YELLOW, _WARNING),
            key,
            "",
            self._line(_HEAD, _HEADS, widths, _HEAD),
            *(self._line(colour, texts, widths) for colour, texts in self._rows),
        ]
        sys.stdout.write("".join(f"{line}\n" for line in lines))

    def _widths(self) -> "Sequence[int]":
        """Returns the width of each column that there is room for."""
        left, widths = self._width, []
        for width in _WIDTHS:
            if left - width - _GAP < _NAME_WIDTH_MIN:
                break
            left -= width + _GAP
            widths.append(width)
        # Docker counts the bytes of its lines, which are three for each of their characters.
        firsts = [_HEADS[0], *(texts[0] for _, texts in self._rows if texts)]
        return [min(left, max(len(text.encode()) for text in firsts)), *widths]

    def _line(
        self, colour: str, texts: "Sequence[str]", widths: "Sequence[int]", others: str = _NORMAL
    ) -> str:
        if len(texts) == 1:
            width = self._width if self._is_terminal else len(texts[0])
            return self._painted(colour, shortened(texts[0], width))
        cells = []
        for column, (whole, width) in enumerate(zip(texts, widths, strict=False)):
            text = shortened(whole, width)
            fill = " " * (width - len(text))
            style = others if column else colour
            if column == len(_HEADS) - 1 and others != _HEAD:
                style = _CHIP
            painted = self._painted(style, text) if text else ""
            cells.append(f"{fill}{painted}" if column in _TO_THE_RIGHT else f"{painted}{fill}")
        return (" " * _GAP).join(cells)

    def _painted(self, colour: str, text: str) -> str:
        if not self._is_terminal:
            return text
        return f"\x1b[{colour}m{text}\x1b[0m"
