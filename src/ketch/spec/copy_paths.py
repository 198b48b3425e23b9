"""Where a copy goes and what it is called there: the rules of ``docker cp``. Pure.

They depend on whether a path ends with a slash or ``/.``, on what is at the destination, and on
whether the source is a directory. Source: moby, pkg/archive/copy.go.
"""

import posixpath
from typing import NamedTuple

from ketch.errors import InvalidArgumentError


class CopyInfo(NamedTuple):
    """One end of a copy.

    Attributes:
        path: the path as it was given, made absolute; what it ends with has meaning.
        exists: whether there is anything.
        is_directory: whether that is a directory.
        rebase_name: what a source is called in its archive's place, where a symlink was followed.
    """

    path: str
    exists: bool = False
    is_directory: bool = False
    rebase_name: str = ""


def specifies_current(path: str) -> bool:
    """Whether a path means a directory's content: it ends with a dot as its last part."""
    return posixpath.basename(path) == "."


def asserts_directory(path: str) -> bool:
    """Whether a path can only be a directory."""
    return path.endswith("/") or specifies_current(path)


def split_entry(path: str) -> tuple[str, str]:
    """Returns a path's directory and last part, which is ``.`` where the path says so."""
    clean = clean_path(path)
    if specifies_current(path):
        return clean, "."
    return posixpath.dirname(clean) or ".", posixpath.basename(clean) or "/"


def clean_path(path: str) -> str:
    """Returns a path without doubled slashes, dots and what they take back."""
    clean = posixpath.normpath(path)
    return "/" + clean.lstrip("/") if clean.startswith("/") else clean


def preserve_end(clean: str, given: str) -> str:
    """Returns a cleaned path with the slash or dot at its end that the given one had."""
    if specifies_current(given) and not specifies_current(clean):
        return posixpath.join(clean, ".")
    if given.endswith("/") and not clean.endswith("/"):
        return f"{clean}/"
    return clean


def followed(path: str, target: str) -> tuple[str, str]:
    """Returns where a followed symlink leads, and what the copy keeps of the name that it had.

    Args:
        path: the symlink.
        target: where it leads, cleaned.
    """
    resolved = preserve_end(target, path)
    name = split_entry(path)[1]
    return resolved, name if name != split_entry(resolved)[1] else ""


def place(source: CopyInfo, target: CopyInfo) -> tuple[str, tuple[str, str] | None]:
    """Decide where an archive of a source is unpacked.

    Returns:
        The directory, and the first part of members' names that is replaced, with what, if it is.

    Raises:
        InvalidArgumentError: a directory cannot go there, or one is missing.
    """
    if target.exists and target.is_directory:
        return target.path, None
    if target.exists and source.is_directory:
        raise InvalidArgumentError("cannot copy directory")
    if not target.exists and not source.is_directory and asserts_directory(target.path):
        raise InvalidArgumentError("no such directory", "what ends with a slash has to be there")
    directory, name = split_entry(target.path)
    return directory, (source.rebase_name or split_entry(source.path)[1], name)


def renamed(name: bytes, change: tuple[str, str] | None) -> bytes:
    """Returns a member's name with its first part replaced."""
    if change is None:
        return name
    old, new = (part.encode(errors="surrogateescape") for part in change)
    if old == b"/":  # or the slash before every name would be replaced
        old = b""
    return name.replace(old, new, 1) if old else new + name
