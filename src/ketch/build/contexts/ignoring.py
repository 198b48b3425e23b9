"""What a ``.dockerignore`` leaves out of a context, told to whoever walks it."""

from typing import TYPE_CHECKING

from ketch.spec.ignore_patterns import IgnorePatterns, read

if TYPE_CHECKING:
    from ketch.build.trees import Hidden

_STATES_MAX = 10_000


def patterns(text: bytes, name: str) -> tuple[str, ...]:
    """Returns the patterns of a file, as clients are given them.

    Args:
        text: its content.
        name: of the file, for messages.

    Raises:
        InvalidArgumentError: it is malformed.
    """
    found = read(text, name)
    IgnorePatterns(found)  # whoever is sent them says less of what is wrong with one
    return tuple(found)


def hidden(text: bytes, name: str) -> "Hidden | None":
    """Returns what a file leaves out, None where that is nothing.

    Raises:
        InvalidArgumentError: it is malformed.
    """
    found = IgnorePatterns(read(text, name))
    return _Hidden(found) if found else None


class _Hidden:
    """What patterns leave out. Several threads may ask."""

    def __init__(self, patterns: IgnorePatterns) -> None:
        self._patterns = patterns
        # Of directories, which patterns match them: so each name is tried once, however deep.
        self._states: dict[str, tuple[bool, ...]] = {}

    def hides(self, path: str) -> bool:
        return self._step(path)[0]

    def may_show_below(self, path: str) -> bool:
        return self._patterns.may_except_beneath(path)

    def _step(self, path: str) -> tuple[bool, tuple[bool, ...]]:
        parent = path.rpartition("/")[0]
        return self._patterns.step(path, self._state(parent) if parent else None)

    def _state(self, directory: str) -> tuple[bool, ...]:
        # Down from the top, since a path may be deeper than Python recurses.
        known = self._states.get(directory)
        if known is not None:
            return known
        state: tuple[bool, ...] | None = None
        end = 0
        while end < len(directory):
            end = directory.find("/", end + 1)
            end = len(directory) if end < 0 else end
            above = directory[:end]
            found = self._states.get(above)
            if found is None:
                _, found = self._patterns.step(above, state)
                if len(self._states) >= _STATES_MAX:
                    self._states.clear()
                self._states[above] = found
            state = found
        return state or ()
