"""What an address that is given as a context means."""

from ketch.build.request import Git, Http
from ketch.spec import git_urls


def remote(text: str) -> Git | Http | None:
    """Returns what an address leads to; None where it is none.

    Source: moby/buildkit, frontend/dockerui (``detectGitContext``, ``httpPrefix``).

    Raises:
        InvalidArgumentError: it is a Git repository's, and what it asks for is malformed.
    """
    if git_urls.parse(text) is not None:
        return Git(text)
    return Http(text) if text.startswith(("http://", "https://")) else None
