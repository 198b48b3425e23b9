"""Git repositories, and servers that give them out as real ones do."""

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.registry import FakeRegistry, Handler, fake

_IDENTITY = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example", "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example", "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000", "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_ALLOW_PROTOCOL": "file:http:git",
}  # fmt: skip


def git(directory: pathlib.Path, *arguments: str, **variables: str) -> str:
    """Run git in a directory; return what it says."""
    done = subprocess.run(
        # Where an ordinary user's tests are played it is that user's, and git is root's.
        ["git", "-c", "init.defaultBranch=main", "-c", "safe.directory=*", *arguments],
        cwd=directory, check=True, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], **_IDENTITY, **variables},
    )  # fmt: skip
    return done.stdout.strip()


class Repository:
    """A repository that is worked in.

    Args:
        path: of its directory, which is made.
        options: of ``git init``.
    """

    def __init__(self, path: pathlib.Path, *options: str) -> None:
        self.path = path
        path.mkdir(parents=True)
        git(path, "init", "-q", *options)

    def __call__(self, *arguments: str, **variables: str) -> str:
        """Run git in it."""
        return git(self.path, *arguments, **variables)

    def commit(self, **files: str) -> str:
        """Commit files; return the commit."""
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self("add", "-A")
        self("commit", "-q", "--allow-empty", "-m", "x")
        return self("rev-parse", "HEAD")


@contextlib.contextmanager
def served(root: pathlib.Path, **settings: str) -> Iterator[FakeRegistry]:
    """Give out the repositories below a directory by HTTP, as ``git http-backend`` does.

    Args:
        root: the directory.
        settings: git's, with ``_`` for a dot.
    """
    program = pathlib.Path(git(root, "--exec-path")) / "git-http-backend"
    pairs = {key.replace("_", "."): value for key, value in settings.items()}
    variables = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (key, value) in enumerate(pairs.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}

    def hook(request: Handler) -> bool:
        path, _, query = request.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            **_IDENTITY, **variables,
        }  # fmt: skip
        done = subprocess.run(
            [program], input=request.body(), capture_output=True, check=False, env=environment
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields: dict[str, str] = {}
        for line in head.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
        status = int(fields.pop("Status", "200").split()[0])
        request.answer(status, body, fields)
        return True

    with fake() as server:
        server.hooks.append(hook)
        yield server


def counted(server: FakeRegistry, wanted: Callable[[str], Any]) -> int:
    """Return how many requests had such a path."""
    return sum(bool(wanted(path)) for _, path, _ in server.requests)
