"""``--filter name=value``: what is to be listed. Pure.

Values of one name are alternatives, but for labels, which must all be there; different names must
all fit.
"""

import re

from ketch.errors import InvalidArgumentError
from ketch.spec.digits import signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def pair(text: str) -> str:
    """Check that an option's value is ``name=value``, and bring it to its normal form.

    An empty one, such as a script's empty variable, filters nothing and stays empty.

    Raises:
        InvalidArgumentError: it is not.
    """
    name, equals, value = text.partition("=")
    if not text:
        return ""
    if not equals:
        raise InvalidArgumentError("bad format of filter (expected name=value)")
    return f"{name.strip().lower()}={value.strip()}"


class Filters:
    """Filters that were given together.

    Args:
        pairs: from ``pair``; a name alone filters nothing, and must be known all the same.
        known: the names that mean something here.

    Raises:
        InvalidArgumentError: a name that is not known.
    """

    def __init__(self, pairs: "Iterable[str]", known: "Iterable[str]") -> None:
        self._values: dict[str, list[str]] = {}
        names = set(known)
        for text in filter(None, pairs):
            name, equals, value = text.partition("=")
            if name not in names:
                raise InvalidArgumentError(
                    f"invalid filter '{name}'", f"there are {', '.join(sorted(names))}"
                )
            if not equals:
                continue
            values = self._values.setdefault(name, [])
            if value not in values:  # as often as one likes, and means the same
                values.append(value)

    def __contains__(self, name: str) -> bool:
        """Whether such a filter was given."""
        return name in self._values

    def values(self, name: str) -> list[str]:
        """Returns what was given under a name."""
        return self._values.get(name, [])

    def exact(self, name: str, *candidates: str) -> bool:
        """Whether a value, or one of its other spellings, was given, if any was."""
        wanted = self._values.get(name)
        return wanted is None or any(candidate in wanted for candidate in candidates)

    def pattern(self, name: str, *candidates: str) -> bool:
        """Whether a given regular expression is found in a value, if any was given."""
        wanted = self._values.get(name)
        return wanted is None or any(
            candidate == text or _found(text, candidate)
            for text in wanted
            for candidate in candidates
        )

    def labels(self, name: str, labels: "Mapping[str, str]") -> bool:
        """Whether all given ``key`` and ``key=value`` are among the labels."""
        for text in self._values.get(name, ()):
            key, equals, value = text.partition("=")
            if key not in labels or (equals and labels[key] != value):
                return False
        return True

    def numbers(self, name: str) -> list[int]:
        """Returns what was given under a name, as numbers.

        Raises:
            InvalidArgumentError: one is none.
        """
        found = [signed(value) for value in self.values(name)]
        numbers = [number for number in found if number is not None]
        if len(numbers) < len(found):
            wrong = "', '".join(self.values(name))
            raise InvalidArgumentError(f"invalid filter '{name}={wrong}'")
        return numbers


def _found(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False
