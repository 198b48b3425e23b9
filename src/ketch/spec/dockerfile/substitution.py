"""Patterns in ``${name#pattern}``, ``${name%pattern}`` and ``${name/pattern/text}``.

``?`` is one character and ``*`` any number of them, on one line; a backslash takes their meaning.
Source: github.com/moby/buildkit, frontend/dockerfile/shell/lex.go.
"""

import re

from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.wildcards import Part, Text

EXPANDED_MAX = 1 << 20
"""How many characters variables may add to a text. A program can be given 131,072 bytes in one."""

# What Go's regexp.ReplaceAllString makes of a dollar sign: there is no group but the match itself.
_TEMPLATE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})")


def too_large() -> DockerfileError:
    """Returns the error that a text came to more than it may."""
    return DockerfileError(f"variables come to more than {EXPANDED_MAX} characters")


def trimmed(value: str, modifier: str, word: str) -> str:
    """Returns a value without a beginning or an end that matches.

    Args:
        value: the variable's value.
        modifier: ``#`` for its beginning, ``%`` for its end.
        word: the pattern; the modifier before it asks for the longest match.
    """
    longest = word[:1] == modifier
    pattern = word[1:] if longest else word
    if modifier == "%":
        return _without_beginning(value[::-1], _mirrored(pattern), longest=longest)[::-1]
    return _without_beginning(value, pattern, longest=longest)


def replaced(value: str, pattern: str, replacement: str, *, everywhere: bool) -> str:
    """Returns a value with matches, as long as they can be, replaced."""
    parts = _parts(pattern)
    text = Text(value)
    starts = f"{text.starts(parts):b}"[::-1]
    fixed = None if any(part.repeated for part in parts) else len(parts)
    pieces: list[str] = []
    size = position = 0
    previous = -1
    start = starts.find("1")
    while start >= 0:
        end = start + fixed if fixed is not None else _last(text.ends(parts, 1 << start))
        # An empty match right behind another one is none.
        if end > start or start != previous:
            matched = value[start:end]
            inserted = _filled(replacement, matched) if everywhere else replacement
            pieces += [value[position:start], inserted]
            size += len(inserted)
            if size > EXPANDED_MAX:
                raise too_large()
            position = previous = end
        if not everywhere:
            break
        start = starts.find("1", max(end, start + (end == start)))
    return "".join([*pieces, value[position:]])


def _filled(replacement: str, matched: str) -> str:
    def fill(found: "re.Match[str]") -> str:
        if found[1]:
            return "$"
        return matched if (found[2] or found[3]) == "0" else ""

    return _TEMPLATE.sub(fill, replacement)


def _without_beginning(value: str, pattern: str, *, longest: bool) -> str:
    ends = Text(value).ends(_parts(pattern), 1)
    if not ends:
        return value
    return value[_last(ends) if longest else (ends & -ends).bit_length() - 1 :]


def _last(places: int) -> int:
    return places.bit_length() - 1


def _any(character: str) -> bool:
    return character != "\n"


def _parts(pattern: str) -> list[Part]:
    parts: list[Part] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            parts.append(Part(_any, repeated=True))
        elif character == "?":
            parts.append(Part(_any))
        elif character == "\\":
            following = pattern[position : position + 1]
            if following and following in "}/":
                continue  # escaped for the braces' sake, and no part of the pattern
            if not following or following not in "*?\\":
                raise DockerfileError(
                    f"invalid pattern ({pattern}) in substitution: invalid escape '\\{following}'"
                )
            parts.append(Part(following))
            position += 1
        else:
            parts.append(Part(character))
    return parts


def _mirrored(pattern: str) -> str:
    """Returns a pattern back to front, but for escapes, which stay before what they escape."""
    pieces: list[str] = []
    position = 0
    while position < len(pattern):
        width = 2 if pattern[position] == "\\" and position + 1 < len(pattern) else 1
        pieces.append(pattern[position : position + width])
        position += width
    return "".join(reversed(pieces))
