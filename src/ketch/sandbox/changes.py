"""What a sandbox did to a project: found, and told as differences.

Both sides are looked at beneath descriptors, without following a link: what was changed is the
guest's, who may go on changing it, and the project may be anybody's. How the caller takes it over:
``applying``.
"""

import difflib
import errno
import os
import stat
from typing import TYPE_CHECKING, Literal, NamedTuple

from ketch.errors import InvalidArgumentError
from ketch.images.opaque import is_opaque
from ketch.linux import openat2, sparse
from ketch.linux.scopes import owned

if TYPE_CHECKING:
    from collections.abc import Iterator

    Kind = Literal["added", "changed", "deleted"]
    What = Literal["file", "directory", "link", "other"]

CHANGES_MAX = 100_000
TEXT_BYTES_MAX = 1 << 20
_LINES_MAX = 1000  # of both sides, to be compared line by line: that takes their square
_BESIDE = openat2.RESOLVE_BENEATH | openat2.RESOLVE_NO_SYMLINKS
_LOOK = os.O_PATH | os.O_NOFOLLOW
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
CHUNK_BYTES = 1 << 20


class ProjectChange(NamedTuple):
    """One difference between a project and what a sandbox made of it.

    Attributes:
        kind: ``added``, ``changed`` or ``deleted``.
        path: from the project on.
        what: what it is now, or was: ``file``, ``directory``, ``link`` or ``other``.
        mode: permissions as they are now, as the guest gave them; 0 of what is deleted.
        target: where a link leads now.
        text: of text files, the difference in the unified format; empty for others, and for those
            larger than a mebibyte.
        refused: why ``apply`` does not take it over; empty where it does.
        conflict: what somebody else did meanwhile to what is in the project, for which ``apply``
            leaves it, unless it is told to overwrite; empty where nobody did anything.
    """

    kind: "Kind"
    path: str
    what: "What"
    mode: int
    target: str
    text: str
    refused: str
    conflict: str = ""


def found(upper: int, project: int) -> "Iterator[ProjectChange]":
    """Yield what was changed, by path; a directory before what is in it.

    Args:
        upper: descriptor of overlayfs's upper directory.
        project: descriptor of the directory that it lies on.

    Raises:
        InvalidArgumentError: there are too many changes to be told.
    """
    count = 0
    # Directories, the last one next, and whether one above hides what the project has in it: those
    # in an opaque one are not opaque themselves.
    waiting = [("", False)]
    while waiting:
        directory, hiding = waiting.pop()
        try:
            descriptor = opened(upper, directory, LIST)
        except OSError:  # gone meanwhile
            continue
        with owned(descriptor):
            names = sorted(os.listdir(descriptor), reverse=True)
            hiding = hiding or (bool(directory) and is_opaque(descriptor))
        below = [f"{directory}/{name}" if directory else name for name in names]
        hidden = sorted(_names(project, directory) - {*names}, reverse=True) if hiding else []
        hidden_paths = {f"{directory}/{name}" for name in hidden}
        for path in sorted({*below, *hidden_paths}):
            change = _gone(project, path) if path in hidden_paths else _told(upper, project, path)
            if change is not None:
                count += 1
                if count > CHANGES_MAX:
                    raise InvalidArgumentError(f"more than {CHANGES_MAX} files were changed")
                yield change
        waiting += [
            (path, hiding) for path in below if path not in hidden_paths and _is(upper, path)
        ]


def _told(upper: int, project: int, path: str) -> ProjectChange | None:
    """What became of a path; None where nothing did."""
    try:
        with owned(opened(upper, path, _LOOK)) as now:
            status = os.fstat(now)
            target = _target(now) if stat.S_ISLNK(status.st_mode) else ""
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return ProjectChange("added", path, "other", 0, "", "", "its path is too long")
        return None
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return _gone(project, path)
    what, mode = _what(status.st_mode), stat.S_IMODE(status.st_mode)
    before = status_of(project, path)
    kind: Kind = "added" if before is None else "changed"
    old = b"" if before is None or what != "file" else _content(project, path)
    new = _content(upper, path) if what == "file" else b""
    if before is not None and what == _what(before.st_mode):
        same_mode = (mode ^ stat.S_IMODE(before.st_mode)) & 0o777 == 0
        if what == "directory":
            return None  # what is in it is told of
        if same_mode and what == "file" and _same(upper, project, path, status, before):
            return None
        if what == "link" and target == _target_at(project, path):
            return None
    text = _text(path, old, new, kind) if what == "file" else ""
    return ProjectChange(kind, path, what, mode, target, text, _refused(path, what, target))


def _gone(project: int, path: str) -> ProjectChange | None:
    before = status_of(project, path)
    if before is None:
        return None
    what = _what(before.st_mode)
    text = _text(path, _content(project, path), b"", "deleted") if what == "file" else ""
    return ProjectChange("deleted", path, what, 0, "", text, _refused(path, "file", ""))


def _refused(path: str, what: "What", target: str) -> str:
    if what == "other":
        return "it is no file, directory or link"
    if what == "link" and not _stays(path, target):
        return f"the link leads out of the project: {target!r}"
    return ""


def is_of_git(path: str) -> bool:
    """Whether a path is in what Git keeps: hooks, and settings that name programs, among it."""
    return any(part.casefold() == ".git" for part in path.split("/"))


def _stays(path: str, target: str) -> bool:
    """Whether a link leads down from a directory that is no higher than the project.

    A ``..`` behind a name counts as leading out, since the name may be another link.
    """
    parts = [part for part in target.split("/") if part not in {"", "."}]
    up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    return bool(target) and target[0] != "/" and up <= path.count("/") and ".." not in parts[up:]


def opened(root: int, path: str, flags: int) -> int:
    """Open something beneath a directory, without following a link; "" is the directory."""
    if not path:
        return os.open(".", flags | os.O_CLOEXEC, dir_fd=root)
    return openat2.openat2(root, path, flags, resolve=_BESIDE)


def _names(root: int, path: str) -> set[str]:
    try:
        with owned(opened(root, path, LIST)) as directory:
            return {*os.listdir(directory)}
    except OSError:
        return set()


def _is(root: int, path: str) -> bool:
    status = status_of(root, path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def status_of(root: int, path: str) -> os.stat_result | None:
    """What is at a path beneath a directory; None for nothing."""
    try:
        with owned(opened(root, path, _LOOK)) as entry:
            return os.fstat(entry)
    except OSError:
        return None


def _target(link: int) -> str:
    return os.readlink("", dir_fd=link)


def _target_at(root: int, path: str) -> str:
    try:
        with owned(opened(root, path, _LOOK)) as link:
            return _target(link)
    except OSError:
        return ""


def _what(mode: int) -> "What":
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"


def _content(root: int, path: str) -> bytes:
    """A file's beginning: a byte more than what is shown, at most."""
    try:
        with owned(opened(root, path, READ)) as file:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return b""
            return os.pread(file, TEXT_BYTES_MAX + 1, 0)
    except OSError:
        return b""


def _same(upper: int, project: int, path: str, now: os.stat_result, before: os.stat_result) -> bool:
    if now.st_size != before.st_size:
        return False
    try:
        with (
            owned(opened(upper, path, READ)) as one,
            owned(opened(project, path, READ)) as other,
        ):
            return _alike(one, other, now.st_blocks * 512 + before.st_blocks * 512)
    except OSError:
        return False


def _alike(one: int, other: int, data_bytes: int) -> bool:
    """Whether two files of one length have the same content.

    Holes are not read: a guest's empty file may be as long as it likes. Nor is more than there was,
    where it goes on filling them.
    """
    left, position = data_bytes + CHUNK_BYTES, 0
    while left > 0:
        places = [sparse.next_data(file, position) for file in (one, other)]
        known = [place for place in places if place is not None]
        if not known:
            return True
        position = min(known)
        piece = os.pread(one, CHUNK_BYTES, position)
        if piece != os.pread(other, CHUNK_BYTES, position) or not piece:
            return False
        position += len(piece)
        left -= len(piece)
    return False


def _text(path: str, old: bytes, new: bytes, kind: "Kind") -> str:
    if max(len(old), len(new)) > TEXT_BYTES_MAX or b"\0" in old + new:
        return ""
    before, after = (data.decode(errors="replace").splitlines(keepends=True) for data in (old, new))
    shown = path if path.isprintable() else ascii(path)
    names = (
        "/dev/null" if kind == "added" else f"a/{shown}",
        "/dev/null" if kind == "deleted" else f"b/{shown}",
    )
    if min(len(before), len(after)) == 0 or max(len(before), len(after)) <= _LINES_MAX:
        lines = difflib.unified_diff(before, after, *names)
    else:
        lines = _at_once(before, after, *names)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
                   for line in lines)  # fmt: skip


def _at_once(before: list[str], after: list[str], old: str, new: str) -> "Iterator[str]":
    """One piece from the first line that differs to the last: long files are not searched."""
    first = 0
    while first < min(len(before), len(after)) and before[first] == after[first]:
        first += 1
    last = 0
    while last < min(len(before), len(after)) - first and before[-1 - last] == after[-1 - last]:
        last += 1
    taken, given = before[first : len(before) - last], after[first : len(after) - last]
    if max(len(taken), len(given)) <= _LINES_MAX:
        start, end = max(0, first - 3), max(0, last - 3)
        pieces = difflib.unified_diff(
            before[start : len(before) - end], after[start : len(after) - end], old, new
        )
        yield from (_moved(line, start) for line in pieces)
        return
    yield from (f"--- {old}\n", f"+++ {new}\n")
    yield f"@@ -{first + 1},{len(taken)} +{first + 1},{len(given)} @@\n"
    yield from (f"-{line}" for line in taken)
    yield from (f"+{line}" for line in given)


def _moved(line: str, by: int) -> str:
    """A line of a difference whose pieces begin further down."""
    if not line.startswith("@@ "):
        return line
    words = line.split(" ")
    for place in (1, 2):
        number, comma, count = words[place][1:].partition(",")
        words[place] = f"{words[place][0]}{int(number) + by}{comma}{count}"
    return " ".join(words)
