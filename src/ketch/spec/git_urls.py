"""Git repositories as builds name them: a URL, and behind it which commit and which directory.

``https://host/path.git#ref:subdirectory``, or with a query: ``?ref=``, ``?branch=``, ``?tag=``,
``?commit=`` or ``?checksum=``, ``?subdir=``, ``?keep-git-dir=``, ``?submodules=``; with ``ssh://``,
``git://`` and ``user@host:path`` likewise.

Source: github.com/moby/buildkit, frontend/dockerfile/dfgitutil/git_ref.go and
util/gitutil/git_url.go.
"""

import re

from ketch.dataclass import dataclass
from ketch.errors import InvalidArgumentError
from ketch.spec.values import boolean, quoted

_SCHEMES = ("http", "https", "ssh", "git")
_SCHEME = re.compile(r"([a-zA-Z0-9]+)://")
_SCP = re.compile(r"([a-zA-Z0-9_-]+)@([a-zA-Z0-9.-]+):([^?#]*)(?:\?([^#]*))?(?:#(.*))?")
_KEYS = ("ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules")
_QUERY_FIELDS_MAX = 20


@dataclass(frozen=True)
class GitUrl:
    """A repository, and what of it is meant.

    Attributes:
        remote: what Git is given: the URL without fragment and query.
        ref: a branch, a tag (``refs/tags/...`` where it was said to be one) or a commit; empty for
            the default branch.
        subdirectory: of the tree, empty for all of it.
        checksum: the commit that it must be, empty for any.
        keep_git_dir: whether ``.git`` comes along, None where nothing was said.
        submodules: whether they come along, None where nothing was said.
        like_a_path: whether it could be a local path as well (``github.com/name/repository``),
            which only the main context is not.
    """

    remote: str
    ref: str = ""
    subdirectory: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    like_a_path: bool = False


def parse(text: str, *, known: bool = False) -> GitUrl | None:
    """Reads a repository's URL; None where the text is none.

    Args:
        text: the URL.
        known: whether it is said to be Git's in another way: an HTTP URL need not end in ``.git``
            then.

    Raises:
        InvalidArgumentError: it is one, but what it asks for is malformed.
    """
    if text.startswith(("./", "../")):
        return None
    like_a_path = text.startswith("github.com/")
    scheme = _SCHEME.match(text)
    if like_a_path or scheme is not None:
        url = f"https://{text}" if like_a_path else text
        return _of_url(url, known=known or like_a_path, like_a_path=like_a_path)
    found = _SCP.fullmatch(text)
    if found is None:
        return None
    user, host, path, query, fragment = found.groups()
    return _with_options(GitUrl(f"{user}@{host}:{path}"), query or "", fragment or "")


def _of_url(text: str, *, known: bool, like_a_path: bool) -> GitUrl | None:
    from urllib.parse import urlsplit, urlunsplit  # noqa: PLC0415 - most contexts are directories

    try:
        url = urlsplit(text)
    except ValueError:
        return None
    if url.scheme not in _SCHEMES:
        return None
    if url.scheme in {"http", "https"} and not url.path.endswith(".git") and not known:
        return None
    remote = urlunsplit(url._replace(query="", fragment=""))
    return _with_options(GitUrl(remote, like_a_path=like_a_path), url.query, url.fragment)


def _with_options(url: GitUrl, query: str, fragment: str) -> GitUrl:
    ref, _, subdirectory = fragment.partition(":")
    options = _options(query)
    ref = _agreed("ref", ref, options.get("ref", ""))
    subdirectory = _agreed("subdir", subdirectory, options.get("subdir", ""))
    checksum = options.get("checksum", "") or options.get("commit", "")
    if "tag" in options and "branch" in options:
        raise InvalidArgumentError("branch conflicts with tag")
    for key, prefix in (("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if key in options:
            ref = _agreed("ref", ref, prefix + options[key].removeprefix(prefix))
    return GitUrl(
        url.remote,
        ref or checksum,
        subdirectory,
        checksum,
        _truth(options, "keep-git-dir"),
        _truth(options, "submodules"),
        url.like_a_path,
    )


def _options(query: str) -> dict[str, str]:
    if not query:
        return {}
    from urllib.parse import parse_qs  # noqa: PLC0415 - few have one

    try:
        fields = parse_qs(query, keep_blank_values=True, max_num_fields=_QUERY_FIELDS_MAX)
    except ValueError as error:
        raise InvalidArgumentError(f"invalid query {quoted(query)}: {error}") from error
    for key, values in fields.items():
        if key not in _KEYS:
            raise InvalidArgumentError(f"unexpected query {quoted(key)}")
        if len(values) > 1:
            raise InvalidArgumentError(f"query {quoted(key)} has multiple values")
        if not values[0] and key not in {"keep-git-dir", "submodules"}:
            raise InvalidArgumentError(f"query {quoted(key)} has no value")
    return {key: values[0] for key, values in fields.items()}


def _agreed(name: str, first: str, second: str) -> str:
    if first and second and first != second:
        raise InvalidArgumentError(f"{name} conflicts: {quoted(first)} vs {quoted(second)}")
    return first or second


def _truth(options: dict[str, str], key: str) -> bool | None:
    value = options.get(key)
    if not value:
        return None if value is None else True
    try:
        return boolean(value)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid {key} value: {quoted(value)}") from error
