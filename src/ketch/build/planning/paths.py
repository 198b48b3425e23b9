"""Paths in an image, as text: nothing is looked up.

Source: github.com/moby/buildkit, util/system/path.go.
"""

import posixpath


def clean(path: str) -> str:
    """Returns a path without ``.``, ``..`` and doubled slashes, as Go's path.Clean."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def rooted(path: str) -> str:
    """Returns a path below the root, clean."""
    return clean(f"/{path}")


def absolute(directory: str, path: str) -> str:
    """Returns where a path leads from a directory; one that is absolute stays as it is written."""
    if path.startswith("/"):
        return path
    return rooted(f"{directory}/{path}")


def target(directory: str, path: str) -> str:
    """Returns where a copy goes, clean, with a slash at its end where it is to be a directory."""
    found = rooted(path if path.startswith("/") else f"{directory}/{path}")
    into = path in {"", "."} or path.endswith(("/", "/."))
    return f"{found}/" if into and found != "/" else found
