"""Wildcards, matched in a time that grows with pattern and text, whatever they are.

Regular expressions that backtrack take years for ``*a*a*a*b``; patterns here come from strangers.
All places that a pattern's beginning can reach in a text are kept as the bits of one number, and
each part of the pattern moves them all at once.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Kind = str | Callable[[str], bool]


class Part:
    """A part of a pattern: one character of a kind, or any number of them.

    Args:
        kind: the character, or what tells whether one will do.
        repeated: whether there may be any number of them, none included.
        ending: a character that must follow the repeated ones, unless there are none: with it, the
            part is the ``(.*/)?`` that Docker makes of ``**/``.
    """

    __slots__ = ("ending", "kind", "repeated")

    def __init__(self, kind: "Kind", *, repeated: bool = False, ending: str = "") -> None:
        self.kind = kind
        self.repeated = repeated
        self.ending = ending


class Text:
    """A text, and where patterns match in it. Bit n stands for the place before character n."""

    __slots__ = ("_marks", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._marks: dict[Kind, int] = {}

    def ends(self, parts: "Sequence[Part]", starts: int) -> int:
        """Returns the places where a pattern can end that begins at one of some places."""
        reached = starts
        for part in parts:
            if not reached:
                break
            passing = self._marked(part.kind)
            if not part.repeated:
                reached = (reached & passing) << 1
                continue
            # Adding what is reached to a run of passing characters carries through to its end.
            spread = (((reached & passing) + passing) ^ passing) | reached
            if part.ending:
                spread = reached | (spread & self._marked(part.ending)) << 1
            reached = spread
        return reached

    def fullmatch(self, parts: "Sequence[Part]") -> bool:
        """Whether a pattern is all of the text."""
        return bool(self.ends(parts, 1) >> len(self.text))

    def starts(self, parts: "Sequence[Part]") -> int:
        """Returns the places where a pattern without ``ending`` parts can begin."""
        places = len(self.text) + 1
        mirrored = Text(self.text[::-1]).ends([*reversed(parts)], (1 << places) - 1)
        return int(f"{mirrored:0{places}b}"[::-1], 2)

    def _marked(self, kind: "Kind") -> int:
        marks = self._marks.get(kind)
        if marks is None:
            good = {kind} if isinstance(kind, str) else {*filter(kind, {*self.text})}
            digits = "".join(["1" if one in good else "0" for one in reversed(self.text)])
            marks = self._marks[kind] = int(digits or "0", 2)
        return marks
