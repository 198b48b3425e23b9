"""Draw docs/drawings/*.txt as SVG beside them; a test compares the two.

A drawing is a text, a line a thing; places and sizes are in squares of a grid, across and down::

    drawing  WIDTH HEIGHT  TITLE
    frame    NAME  X,Y  WIDTHxHEIGHT  TEXT          a room, which others stand in
    box      NAME  X,Y  WIDTHxHEIGHT  TEXT | TEXT   a thing; lines after the first are small
    strong   ...                                    likewise, what the drawing is about
    faint    ...                                    likewise, what is not there any more, or yet
    arrow    NAME.SIDE NAME.SIDE  TEXT              from, to; sides are l, r, t, b, with decimals
                                                    behind (t25: on top, a quarter from the left)
    line     NAME.SIDE NAME.SIDE  TEXT              the same without a head
    note     X,Y  TEXT                              words that stand by themselves

Usage: drawings.py [NAME...]
"""

import itertools
import pathlib
import sys
import unicodedata
from xml.sax.saxutils import escape

PLACE = pathlib.Path(__file__).parents[1] / "docs" / "drawings"

_GRID = 20
_MARGIN = 10
_HEAD, _SMALL = 14, 12  # sizes of letters
_WIDTH_OF_LETTER = 0.53  # of its size, on average
_STYLE = """\
text{font-family:ui-sans-serif,system-ui,"DejaVu Sans","Noto Sans CJK SC",sans-serif;fill:#1b2733}
.page{fill:#ffffff}
.head{font-size:14px}.small{font-size:12px;fill:#51606e}.title{font-size:14px;font-weight:600}
.box{fill:#eef3f8;stroke:#7b93aa}.strong{fill:#d7eadf;stroke:#3f8f63;stroke-width:1.6}
.faint{fill:none;stroke:#9aa8b5;stroke-dasharray:4 4}.frame{fill:none;stroke:#b9c5d0}
.wire{fill:none;stroke:#3d5266;stroke-width:1.4}.tip{fill:#3d5266}
.behind{stroke:#ffffff;stroke-width:5;stroke-linejoin:round;paint-order:stroke}
@media(prefers-color-scheme:dark){text{fill:#e4ebf2}.page{fill:#12181f}.small{fill:#a9b7c4}
.box{fill:#1f2b37;stroke:#5d7489}.strong{fill:#173a29;stroke:#58b483}.frame{stroke:#405263}
.faint{stroke:#6f7f8e}.wire{stroke:#a8bccd}.tip{fill:#a8bccd}.behind{stroke:#12181f}}"""


class DrawingError(Exception):
    """A line of a drawing that cannot be drawn; the message says which, and why."""


class _Area:
    """A rectangle with a name, in pixels."""

    def __init__(self, place: str, size: str) -> None:
        self.x, self.y = (float(part) * _GRID + _MARGIN for part in place.split(","))
        self.width, self.height = (float(part) * _GRID for part in size.split("x"))

    def side(self, which: str) -> tuple[float, float]:
        """Return the point on a side: its middle, or where the decimals say."""
        share = float(f"0.{which[1:] or 5}")
        along = self.x + self.width * share, self.y + self.height * share
        return {
            "l": (self.x, along[1]), "r": (self.x + self.width, along[1]),
            "t": (along[0], self.y), "b": (along[0], self.y + self.height),
        }[which[0]]  # fmt: skip


class _Drawing:
    """What has been drawn so far."""

    def __init__(self) -> None:
        self.title = ""
        self.width = self.height = 0.0
        self.areas: dict[str, _Area] = {}
        self.shapes: list[str] = []
        self.words: list[str] = []

    def draw(self, kind: str, rest: str) -> None:
        """Draw what a line says."""
        if kind == "drawing":
            across, down, self.title = rest.split(maxsplit=2)
            self.width = float(across) * _GRID + 2 * _MARGIN
            self.height = float(down) * _GRID + 2 * _MARGIN
        elif kind in {"arrow", "line"}:
            start, end, *text = rest.split(maxsplit=2)
            self._connect(start, end, text[0] if text else "", tip=kind == "arrow")
        elif kind == "note":
            place, text_of_note = rest.split(maxsplit=1)
            area = _Area(place, "0x0")
            for number, line in enumerate(text_of_note.split(" | ")):
                self._write("small", area.x, area.y + number * 16, line, "start")
        elif kind in {"frame", "box", "strong", "faint"}:
            name, place, size, *text = rest.split(maxsplit=3)
            self._rectangle(kind, name, _Area(place, size), text[0] if text else "")
        else:
            raise DrawingError(f"there is nothing called {kind}")

    def _rectangle(self, kind: str, name: str, area: _Area, text: str) -> None:
        if name in self.areas:
            raise DrawingError(f"{name} is there twice")
        self.areas[name] = area
        right, bottom = area.x + area.width, area.y + area.height
        if right > self.width or bottom > self.height:
            raise DrawingError(f"{name} is beyond the drawing's edge")
        self.shapes.append(
            f'<rect class="{kind}" x="{area.x:g}" y="{area.y:g}" width="{area.width:g}"'
            f' height="{area.height:g}" rx="5"/>'
        )
        lines = text.split(" | ") if text else []
        for number, line in enumerate(lines):
            size = _SMALL if number else _HEAD
            if _width(line, size) > area.width - 8:
                raise DrawingError(f"{name} is too narrow for: {line}")
        if kind == "frame":
            for number, line in enumerate(lines):
                style = "small" if number else "title"
                self._write(style, area.x + 8, area.y + 19 + number * 16, line, "start")
            return
        tall = _HEAD + 17 * (len(lines) - 1)
        if tall > area.height:
            raise DrawingError(f"{name} is too low for {len(lines)} lines")
        first = area.y + (area.height - tall) / 2 + _HEAD - 2
        for number, line in enumerate(lines):
            style = "small" if number else "head"
            self._write(style, area.x + area.width / 2, first + number * 17, line, "middle")

    def _connect(self, start: str, end: str, text: str, *, tip: bool) -> None:
        (x1, y1), side1 = self._point(start)
        (x2, y2), side2 = self._point(end)
        points = [(x1, y1), (x2, y2)]
        if x1 != x2 and y1 != y2:  # by right angles
            across = side1[0] in "lr", side2[0] in "lr"
            if across == (True, True):
                middle = (x1 + x2) / 2
                points[1:1] = [(middle, y1), (middle, y2)]
            elif across == (False, False):
                middle = (y1 + y2) / 2
                points[1:1] = [(x1, middle), (x2, middle)]
            else:
                points[1:1] = [(x2, y1) if across[0] else (x1, y2)]
        path = " L".join(f"{x:g} {y:g}" for x, y in points)
        marker = ' marker-end="url(#tip)"' if tip else ""
        self.shapes.append(f'<path class="wire" d="M{path}"{marker}/>')
        if text:
            longest = max(itertools.pairwise(points), key=_length)
            (ax, ay), (bx, by) = longest
            x, y = (ax + bx) / 2, (ay + by) / 2
            lines = text.split(" | ")
            for number, line in enumerate(lines):
                if ax == bx:
                    place = x + 7, y + 4 + (number - (len(lines) - 1) / 2) * 15, "start"
                else:
                    place = x, y - 6 - (len(lines) - 1 - number) * 15, "middle"
                self._write("small behind", *place[:2], line, place[2])

    def _point(self, text: str) -> tuple[tuple[float, float], str]:
        name, _, side = text.rpartition(".")
        if name not in self.areas:
            raise DrawingError(f"there is no {name} yet")
        return self.areas[name].side(side), side

    def _write(self, style: str, x: float, y: float, text: str, anchor: str) -> None:
        size = _SMALL if "small" in style else _HEAD
        width = _width(text, size)
        left = x - (width / 2 if anchor == "middle" else 0)
        if left < 0 or left + width > self.width:
            raise DrawingError(f"this is beyond the drawing's edge: {text}")
        self.words.append(
            f'<text class="{style}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )

    def svg(self) -> str:
        """Return the whole picture."""
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:g}"'
            f' height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}" role="img"'
            ' aria-labelledby="title">',
            f'<title id="title">{escape(self.title)}</title>',
            f"<style>{_STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8"'
            ' markerHeight="8" orient="auto"><path class="tip" d="M0 0L10 5L0 10z"/></marker>'
            "</defs>",
            f'<rect class="page" width="{self.width:g}" height="{self.height:g}"/>',
            *self.shapes, *self.words, "</svg>\n",
        ])  # fmt: skip


def draw(text: str) -> str:
    """Return a drawing as SVG.

    Raises:
        DrawingError: a line is wrong.
    """
    drawing = _Drawing()
    for number, line in enumerate(text.splitlines(), 1):
        kind, _, rest = line.partition(" ")
        if not kind or kind.startswith("#"):
            continue
        try:
            drawing.draw(kind, rest.strip())
        except (DrawingError, ValueError, KeyError) as error:
            raise DrawingError(f"line {number}: {error}") from error
    return drawing.svg()


def pictures() -> dict[pathlib.Path, str]:
    """Return what each picture's file should contain."""
    found = {}
    for path in sorted(PLACE.glob("*.txt")):
        try:
            found[path.with_suffix(".svg")] = draw(path.read_text(encoding="utf-8"))
        except DrawingError as error:
            raise DrawingError(f"{path.name}, {error}") from error
    return found


def _width(text: str, size: int) -> float:
    """About how wide a text is, on the wide side."""
    letters = sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)
    return letters * size * _WIDTH_OF_LETTER


def _length(ends: tuple[tuple[float, float], tuple[float, float]]) -> float:
    (x1, y1), (x2, y2) = ends
    return abs(x1 - x2) + abs(y1 - y2)


if __name__ == "__main__":
    wanted = pictures()
    for old in PLACE.glob("*.svg"):
        if old not in wanted:
            old.unlink()
    for path, picture in wanted.items():
        path.write_text(picture, encoding="utf-8")
    sys.stdout.write(f"{len(wanted)} pictures in {PLACE}\n")
