"""What deciders of limits are told and answer: a cgroup's present files, and writes to them."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Controller ("cgroup" for files of cgroup v2 itself), file, value.
Write = tuple[str, str, str]


class Facts:
    """What the files of one cgroup say at present.

    Args:
        read: (controller, file) -> the file's text, or None when there is no such file.
        fresh: the cgroup was just made, so what can be set still has the kernel's defaults.
    """

    __slots__ = ("fresh", "read")

    def __init__(self, read: "Callable[[str, str], str | None]", *, fresh: bool = False) -> None:
        self.read = read
        self.fresh = fresh

    def value(self, controller: str, file: str, default: str) -> str:
        """A file's text; its default, unread, in a fresh cgroup, or where the file is absent."""
        if self.fresh:
            return default
        text = self.read(controller, file)
        return default if text is None else text
