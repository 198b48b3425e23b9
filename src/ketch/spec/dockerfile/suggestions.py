"""What was probably meant: names that are nearly those that were written."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_DISTANCE = 3
_SUGGESTED_MAX = 64


def suggestion(word: str, options: "Iterable[str]", *, any_case: bool = False) -> str:
    """Returns which of some words was probably meant: one within two edits; empty for none.

    A word that is among the options is not what is wrong, so nothing is suggested for it.
    Source: github.com/moby/buildkit, util/suggest.

    Args:
        word: what was written.
        options: what could have been.
        any_case: whether case is no matter; then the suggestion has the case of the word.
    """
    wanted = word.lower() if any_case else word
    if len(wanted) > _SUGGESTED_MAX:
        return ""
    best, nearest = "", _DISTANCE
    for option in options:
        candidate = option.lower() if any_case else option
        if candidate == wanted:
            return ""
        if abs(len(candidate) - len(wanted)) >= nearest:
            continue
        distance = _distance(wanted, candidate)
        if distance < nearest:
            best, nearest = candidate, distance
    return best.upper() if any_case and word != wanted and word == word.upper() else best


def did_you_mean(word: str, options: "Iterable[str]", *, any_case: bool = False) -> str:
    """Returns ``" (did you mean X?)"`` to be added to an error, or nothing."""
    found = suggestion(word, options, any_case=any_case)
    return f" (did you mean {found}?)" if found else ""


def _distance(first: str, second: str) -> int:
    """Returns how many characters are to be put in, taken out or exchanged (Levenshtein)."""
    row = list(range(len(second) + 1))
    for index, character in enumerate(first, 1):
        previous, row[0] = row[0], index
        for column, other in enumerate(second, 1):
            previous, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, previous + (character != other)),
            )
    return row[-1]
