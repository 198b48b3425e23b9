"""``.dockerignore``, and what it leaves of a context.

A path is ignored where the last pattern that matches it or a directory above it is none that
begins with ``!``. Source: github.com/moby/patternmatcher.
"""

import posixpath
import re

from ketch.errors import InvalidArgumentError
from ketch.spec.path_match import Pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FILE_SIZE_MAX = 1 << 20
"""How large a file of patterns may be, in bytes."""

PATTERNS_MAX = 10_000
"""How many patterns there may be: each is tried on each path."""

_SPECIAL = re.compile(r"[*?\[\]\\]")


def read(content: bytes, name: str = ".dockerignore") -> list[str]:
    """Reads a file of patterns, one a line.

    Comments begin with ``#`` at the very beginning of a line. A pattern's leading slash, and blanks
    around it, count for nothing.

    Raises:
        InvalidArgumentError: it is larger than ``FILE_SIZE_MAX``.
    """
    if len(content) > FILE_SIZE_MAX:
        raise InvalidArgumentError(f"{name}: larger than {FILE_SIZE_MAX} bytes")
    found = []
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        text = line.decode(errors="surrogateescape")
        pattern = text.strip()
        if not pattern or text.startswith("#"):
            continue
        exception = pattern.startswith("!")
        if exception:
            pattern = pattern[1:].strip()
        if pattern:
            pattern = _clean(pattern)
            pattern = pattern[1:] if len(pattern) > 1 and pattern[0] == "/" else pattern
        found.append(f"!{pattern}" if exception else pattern)
    return found


class IgnorePatterns:
    """Patterns, in their order.

    Args:
        patterns: those of a ``.dockerignore``, or of ``--exclude``.

    Raises:
        InvalidArgumentError: one is malformed, or there are more than ``PATTERNS_MAX``.

    Attributes:
        has_exceptions: whether one begins with ``!``.
    """

    def __init__(self, patterns: "Iterable[str]") -> None:
        self._patterns: list[_Pattern] = []
        for text in patterns:
            pattern = text.strip()
            if not pattern:
                continue
            if len(self._patterns) == PATTERNS_MAX:
                raise InvalidArgumentError(f"more than {PATTERNS_MAX} patterns")
            pattern = _clean(pattern)
            exception = pattern.startswith("!")
            if pattern == "!":
                raise InvalidArgumentError('illegal exclusion pattern: "!"')
            try:
                self._patterns.append(_Pattern(pattern[exception:], exception=exception))
            except InvalidArgumentError as error:
                message = f"invalid pattern {pattern!r}: {error.message}"
                raise InvalidArgumentError(message, error.hint) from error
        self.has_exceptions = any(pattern.exception for pattern in self._patterns)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._patterns)

    @property
    def texts(self) -> list[str]:
        """The patterns that are no exceptions, cleaned."""
        return [pattern.text for pattern in self._patterns if not pattern.exception]

    def matches(self, path: str) -> bool:
        """Whether a path is ignored, by its own name or by a directory's above it.

        Args:
            path: beneath the context, without a slash at its beginning or end.
        """
        matched = False
        above = [path[: match.start()] for match in re.finditer("/", path)]
        for pattern in self._patterns:
            # One that could change nothing is not tried.
            if pattern.exception == matched and (
                pattern.matches(path) or any(map(pattern.matches, above))
            ):
                matched = not pattern.exception
        return matched

    def step(self, path: str, parent: "Sequence[bool] | None") -> tuple[bool, tuple[bool, ...]]:
        """Says the same to one who walks a tree from its root.

        Args:
            path: as above.
            parent: what was returned for the directory that it is in; None for the root's entries.

        Returns:
            Whether the path is ignored, and what to hand over for its own entries.
        """
        matched = False
        results = []
        for index, pattern in enumerate(self._patterns):
            match = parent is not None and parent[index]
            if not match:
                if pattern.exception != matched:
                    results.append(False)
                    continue
                match = pattern.matches(path)
            results.append(match)
            if match:
                matched = not pattern.exception
        return matched, tuple(results)

    def may_except_beneath(self, directory: str) -> bool:
        """Whether something in an ignored directory may not be ignored, so that it is walked."""
        return any(
            pattern.exception and pattern.may_match_beneath(directory) for pattern in self._patterns
        )


class _Pattern:
    """One pattern."""

    def __init__(self, text: str, *, exception: bool) -> None:
        self.text = text
        self.exception = exception
        pattern = Pattern(text, deep=True)
        self._exact = self._prefix = self._suffix = None
        beginning = text[:2] == "**"
        inner = text[2:] if beginning else text
        if text == "**":
            self._prefix = ""
        elif not _SPECIAL.search(inner):
            if beginning:
                self._suffix = inner
            else:
                self._exact = text
        elif not beginning and text.endswith("**") and not _SPECIAL.search(text[:-2]):
            self._prefix = text[:-2]
        self._pattern = pattern

    def matches(self, path: str) -> bool:
        """Whether a path matches; directories above it are not looked at."""
        if self._exact is not None:
            return path == self._exact
        if self._prefix is not None:
            return path.startswith(self._prefix)
        if self._suffix is not None:
            # **/name is also the name alone.
            return path.endswith(self._suffix) or path == self._suffix.removeprefix("/")
        return self._pattern.matches(path)

    def may_match_beneath(self, directory: str) -> bool:
        """Whether a path in a directory may match. Where that is hard to say, it may."""
        above = directory.split("/")
        parts = self.text.split("/")
        for part, name in zip(parts, above, strict=False):
            if "**" in part or "[" in part or "\\" in part:
                return True
            if not Pattern(part).matches(name):
                return False
        return len(parts) > len(above)


def _clean(path: str) -> str:
    """Returns a path without ``.``, ``..`` and double slashes: Go's ``path.Clean``."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned
