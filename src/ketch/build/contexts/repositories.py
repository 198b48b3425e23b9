"""A Git repository's files at one commit: which commit is meant, and its checkout.

As BuildKit does (source/git/source.go): a branch, a tag or a commit is looked up as
``git checkout`` would, fetched without its history, and checked out with its submodules. A checkout
is kept under its commit, so that the next build fetches nothing where that is still the one.
"""

import base64
import contextlib
import os
import posixpath
import re
import stat
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from ketch.build.contexts import kept
from ketch.build.contexts.git import Git, GitError
from ketch.build.trees import Tree
from ketch.errors import (
    DigestMismatchError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from ketch.linux import descent
from ketch.linux.openat2 import openat2
from ketch.linux.scopes import owned
from ketch.spec import git_urls
from ketch.spec.digits import decimal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ketch.build.contexts.kept import Kept
    from ketch.build.contexts.places import Places
    from ketch.build.request import Agents, Secrets
    from ketch.engine.processes import Patience
    from ketch.spec.git_urls import GitUrl

    Tell = Callable[[str, int, int], object]

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_CHECKSUM = re.compile(r"[0-9a-f]{1,64}")
# git-check-ref-format(1), and no pattern.
_REFERENCE = re.compile(r"(?!-)[^\x00-\x20~^:?*\[\\\x7f]{1,1000}")
_FILES, _REPOSITORY, _COMMITTED = "files", "repository", "committed"
_GITHUB = ("https://github.com/", "https://www.github.com/")


class Commit(NamedTuple):
    """A commit that was found.

    Attributes:
        id: of the commit.
        reference: the name that it was found by, ``refs/...``; empty where it was asked for itself.
    """

    id: str
    reference: str = ""


class Repositories:
    """The repositories of a build.

    Args:
        store: where checkouts are kept for others.
        places: where they are made.
        scope: until its end nobody removes what is kept.
        patience: how the caller waits.
        environment: of the caller: PATH and proxies.
        secrets: where credentials come from, called as BuildKit calls them.
        agents: where ssh agents listen.
    """

    def __init__(
        self,
        store: "Kept",
        places: "Places",
        scope: contextlib.ExitStack,
        patience: "Patience",
        environment: "Mapping[str, str]",
        secrets: "Secrets | None",
        agents: "Agents | None",
    ) -> None:
        self._store = store
        self._places = places
        self._scope = scope
        self._patience = patience
        self._environment = environment
        self._secrets = secrets
        self._agents = agents

    def resolve(self, text: str, checksum: str = "") -> "Repository":
        """Find out which commit a URL means; a server is asked unless it names the commit itself.

        Args:
            text: the URL, with what of it is meant.
            checksum: the commit that it must be, or its beginning; empty for any.

        Raises:
            InvalidArgumentError: it is no URL of a repository.
            NotFoundError: the repository has no such branch, tag or commit.
            DigestMismatchError: it is not the commit that it must be.
            UnavailableError: the server cannot be reached, or fails.
            UnsupportedError: there is no git here.
        """
        url = git_urls.parse(text, known=True)
        if url is None:
            raise InvalidArgumentError(f"invalid git context {text[:300]!r}")
        checksums = [one for one in (url.checksum, checksum) if one]
        for one in checksums:
            if not _CHECKSUM.fullmatch(one):
                raise InvalidArgumentError(
                    f"invalid checksum {one[:100]!r}: a commit is hex digits"
                )
        if url.ref and not _REFERENCE.fullmatch(url.ref):
            raise InvalidArgumentError(f"invalid Git reference {url.ref[:300]!r}")
        remote, settings = self._authorized(url)
        path, _ = self._places.make("git")
        git = Git(
            path, self._patience, self._environment, settings, self._agent(remote),
            self._places.room_bytes,
        )  # fmt: skip
        repository = Repository(git, url, remote, path)
        repository.find(checksums)
        return repository

    def checkout(self, repository: "Repository", *, keep_git_dir: bool, tell: "Tell") -> Tree:
        """Returns a repository's files.

        Args:
            repository: as it was resolved.
            keep_git_dir: whether ``.git`` comes along, unless the URL says something else.
            tell: is told how far the transfer is.

        Raises:
            NotFoundError: the repository has no such directory.
            UnavailableError: the server fails, or the disk is full.
        """
        subdirectory = repository.subdirectory
        keeps = repository.keeps(keep_git_dir)
        submodules = repository.url.submodules is not False
        key = f"{repository.remote}\0{repository.commit.id}\0{keeps}\0{submodules}\0dated"
        entry = self._store.find(kept.GIT, key, self._scope)
        if entry is None:
            made = repository.fetch(keep_git_dir=keeps, submodules=submodules, tell=tell)
            if self._store.publish(kept.GIT, key, made):
                entry = self._store.find(kept.GIT, key, self._scope)
            else:
                entry = self._places.open(made)
            if entry is None:
                raise UnavailableError("the checkout was removed meanwhile: try again")
        root = self._open(entry, _FILES, "")
        with open(os.open(_COMMITTED, os.O_RDONLY | os.O_CLOEXEC, dir_fd=entry)) as file:
            time_s = decimal(file.read())
        if subdirectory:
            root = self._open(root, subdirectory, repository.url.subdirectory)
        return Tree(root, identity=repository.identity(keep_git_dir), time_s=time_s)

    def _open(self, directory: int, path: str, asked: str) -> int:
        """Open a directory beneath another: a repository's symlinks lead nowhere else."""
        try:
            return self._places.hold(openat2(directory, path, os.O_RDONLY | os.O_DIRECTORY))
        except OSError as error:
            raise NotFoundError(
                f"failed to open subdir {asked!r}: {os.strerror(error.errno or 0).lower()}"
            ) from error

    def _authorized(self, url: "GitUrl") -> tuple[str, dict[str, str]]:
        """Returns a URL without credentials, and settings that show them to its server."""
        if "://" not in url.remote:
            return url.remote, {}  # as ssh has it, which takes no password
        parts = urlsplit(url.remote)
        credentials, _, host = parts.netloc.rpartition("@")
        if parts.scheme == "ssh":
            user = credentials.partition(":")[0]
            return urlunsplit(parts._replace(netloc=f"{user}@{host}" if user else host)), {}
        remote = urlunsplit(parts._replace(netloc=host))
        if parts.scheme == "git":
            return remote, {}
        if credentials:
            return remote, _shown(remote, _basic(unquote(credentials).encode()))
        for kind, of_host in (
            ("HEADER", True), ("TOKEN", True), ("HEADER", False), ("TOKEN", False),
        ):  # fmt: skip
            name = f"GIT_AUTH_{kind}" + (f".{host}" if of_host else "")
            secret = self._secrets.get(name) if self._secrets is not None else None
            if secret:
                value = secret.strip()
                if not value.isascii() or any(byte < 32 for byte in value):
                    raise InvalidArgumentError(f"the secret {name} is no header's value")
                if kind == "TOKEN":
                    return remote, _shown(remote, _basic(b"x-access-token:" + value))
                return remote, _shown(remote, value.decode())
        return remote, {}

    def _agent(self, remote: str) -> str:
        is_ssh = not remote.startswith(("http://", "https://", "git://"))
        return (self._agents.socket("default") or "") if is_ssh and self._agents is not None else ""


class Repository:
    """A repository that a server has.

    Args:
        git: the program.
        url: what of it is meant.
        remote: where it is, without credentials.
        path: directory of the build's for it.

    Attributes:
        url: as above.
        remote: as above.
        commit: which one is meant, once it was found.
    """

    commit: Commit

    def __init__(self, git: Git, url: "GitUrl", remote: str, path: str) -> None:
        self.url = url
        self.remote = remote
        self._git = git
        self._path = path
        self._count = 0

    @property
    def subdirectory(self) -> str:
        """The directory of it that is meant, empty for all of it."""
        return posixpath.normpath(f"/{self.url.subdirectory}").strip("/")

    def keeps(self, keep_git_dir: bool) -> bool:
        """Whether ``.git`` comes along; never with a part of the files."""
        if self.url.keep_git_dir is not None:
            keep_git_dir = self.url.keep_git_dir
        return keep_git_dir and not self.subdirectory

    def identity(self, keep_git_dir: bool) -> str:
        """Returns what all of its files follow from."""
        parts = ["git", self.commit.id]
        parts += [".git"] if self.keeps(keep_git_dir) else []
        parts += ["no-submodules"] if self.url.submodules is False else []
        return ":".join([*parts, *([f"/{self.subdirectory}"] if self.subdirectory else [])])

    def find(self, checksums: "list[str]") -> None:
        """Find the commit, and hold it against what it must be."""
        wanted = self.url.ref
        if _COMMIT.fullmatch(wanted):
            self.commit = Commit(wanted)
            known = {wanted}
        else:
            self.commit, known = self._look_up(wanted)
        for checksum in checksums:
            if not any(one.startswith(checksum) for one in known):
                raise DigestMismatchError(
                    f"expected checksum to match {checksum}, got {self.commit.id}"
                )

    def fetch(self, *, keep_git_dir: bool, submodules: bool, tell: "Tell") -> str:
        """Check the commit out; returns a directory with the files, in its directory ``files``.

        When it was committed is in its file ``committed``, in seconds since 1970; nothing where
        the commit does not say it.
        """
        self._count += 1
        made = f"{self._path}/checkout-{self._count}"
        files = f"{made}/{_FILES}"
        os.makedirs(files)
        os.chmod(files, 0o755)  # whatever the umask
        repository = f"{files}/.git" if keep_git_dir else f"{made}-{_REPOSITORY}"
        here = {"GIT_DIR": repository, "GIT_WORK_TREE": files}
        try:
            self._prepare(repository)
            self._receive(repository, tell)
            self._git.run(
                "checkout", "--progress", "--force", "--detach", self.commit.id, where=files,
                tell=self._told(tell), variables=here,
            )  # fmt: skip
            when = self._git.run(
                "log", "--max-count=1", "--no-show-signature", "--format=%ct", self.commit.id,
                variables=here,
            )  # fmt: skip
            with open(f"{made}/{_COMMITTED}", "w") as file:
                file.write(_seconds(when))
            if submodules and os.path.lexists(f"{files}/.gitmodules"):
                self._git.run(
                    "submodule", "update", "--init", "--recursive", "--depth=1", "--progress",
                    where=files, tell=self._told(tell), variables=here,
                )  # fmt: skip
                if not keep_git_dir:
                    _remove_links(files)
            if keep_git_dir:
                self._git.run("reflog", "expire", "--all", "--expire=now", variables=here)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{repository}/FETCH_HEAD")
        except GitError as error:
            raise self._failed(error) from error
        return made

    def _prepare(self, repository: str) -> None:
        """Make an empty repository that knows where the other one is."""
        form = "sha256" if len(self.commit.id) == 64 else "sha1"
        self._git.run(
            "init", "--quiet", f"--object-format={form}", variables={"GIT_DIR": repository}
        )
        for key, value in (
            ("remote.origin.url", self.remote),
            ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
            ("core.logAllRefUpdates", "false"),
        ):
            self._git.run("config", key, value, variables={"GIT_DIR": repository})

    def _receive(self, repository: str, tell: "Tell") -> None:
        commit = self.commit
        # What is no branch or tag here must not become one: HEAD, where it is none there.
        name = commit.reference if commit.reference.startswith("refs/") else "refs/found"
        wanted = f"+{commit.reference}:{name}" if commit.reference else commit.id
        try:
            self._fetch(repository, tell, wanted)
        except GitError as error:
            if commit.reference or not re.search("not our ref|unadvertised object", str(error)):
                raise
            # A server that does not give a commit by its name: it is somewhere in all of it.
            self._fetch(
                repository, tell, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*",
                shallow=False,
            )  # fmt: skip
        try:
            found = self._git.run(
                "rev-parse", "--verify", "--quiet", "--end-of-options",
                f"{name if commit.reference else commit.id}^{{commit}}",
                variables={"GIT_DIR": repository},
            )  # fmt: skip
        except GitError as error:
            raise NotFoundError(f"repository does not contain commit {commit.id}") from error
        if commit.reference and found.decode().strip() != commit.id:
            # It moved on between question and transfer; what was asked for may still be had.
            self._fetch(repository, tell, commit.id)

    def _fetch(self, repository: str, tell: "Tell", *references: str, shallow: bool = True) -> None:
        arguments = [
            "--progress",
            "--no-tags",
            "--force",
            "--update-head-ok",
            "origin",
            *references,
        ]
        depth = ["--depth=1"] if shallow else []
        try:
            self._git.run(
                "fetch",
                *depth,
                *arguments,
                tell=self._told(tell),
                variables={"GIT_DIR": repository},
            )
        except GitError as error:
            if not shallow or not re.search("--depth|shallow", str(error)):
                raise
            self._git.run(
                "fetch", *arguments, tell=self._told(tell), variables={"GIT_DIR": repository}
            )

    def _look_up(self, wanted: str) -> tuple[Commit, set[str]]:
        """Ask the server what a name stands for.

        Returns:
            The commit, and all IDs that the name has: of an annotated tag its own is one.
        """
        patterns = [wanted, f"{wanted}^{{}}"] if wanted else ["HEAD"]
        try:
            listed = self._git.run("ls-remote", "--symref", "--", self.remote, *patterns)
        except GitError as error:
            raise self._failed(error) from error
        commit, known = find(wanted, listed.decode(errors="surrogateescape"))
        if commit is None:
            if not wanted:
                raise NotFoundError(f"could not find default branch for repository: {self.remote}")
            raise NotFoundError(f"repository does not contain ref {wanted}")
        return commit, known

    def _failed(self, error: GitError) -> UnavailableError:
        hint = ""
        if "could not read Username" in error.message or "Authentication failed" in error.message:
            hint = "show the server who asks with a secret called GIT_AUTH_TOKEN"
        elif "Permission denied (" in error.message:
            hint = "hand your ssh agent over with --ssh default"
        # Of a submodule git says where it would have been.
        ours = re.escape(self._path) + rf"/checkout-\d+/{_FILES}/"
        message = re.sub(ours, "", error.message)
        return UnavailableError(f"failed to fetch remote {self.remote}: {message}", hint)

    def _told(self, tell: "Tell") -> "Tell":
        return lambda what, current, total: tell(f"{what} of {self.remote}", current, total)


def find(wanted: str, listed: str) -> tuple[Commit | None, set[str]]:
    """Returns the commit that a name stands for in a server's list, and all IDs that it has.

    As ``git checkout`` has it: a whole reference, a branch, a tag.

    Args:
        wanted: the name, empty for the default branch.
        listed: what ``git ls-remote --symref`` says.
    """
    ids: dict[str, str] = {}
    links: dict[str, str] = {}
    for line in listed.splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: "):
            links[name] = value.removeprefix("ref: ")
        elif _COMMIT.fullmatch(value):
            ids[name] = value
    names = [wanted] if wanted == "HEAD" else []
    names += [prefix + wanted.removeprefix(prefix) for prefix in _PREFIXES] if wanted else ["HEAD"]
    for name in names:
        if name in ids:
            peeled = ids.get(f"{name}^{{}}", ids[name])
            reference = links.get(name, name)
            if not _REFERENCE.fullmatch(reference):
                return None, set()
            return Commit(peeled, reference), {peeled, ids[name]}
    return None, set()


def _seconds(told: bytes) -> str:
    """A commit's time as digits. Whoever made it may have written there what they like."""
    time_s = decimal(told.decode("ascii", "replace").strip(), _SECONDS_DIGITS_MAX)
    return "" if time_s is None else str(time_s)


_SECONDS_DIGITS_MAX = 11  # until the year 5138
_PREFIXES = ("refs/", "refs/heads/", "refs/tags/")


def _remove_links(files: str) -> None:
    """Take away the files by which submodules know of their repositories, which do not come along.

    Git checks nothing out under that name.
    """
    with owned(os.open(files, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
        for parent, name, status in descent.statuses(directory):
            if name == b".git" and stat.S_ISREG(status.st_mode):
                os.unlink(name, dir_fd=parent)


def _basic(pair: bytes) -> str:
    return f"Basic {base64.b64encode(pair).decode()}"


def _shown(remote: str, authorization: str) -> dict[str, str]:
    """Returns the settings that show a server who asks: the repository's own, and no other.

    Of GitHub's, as BuildKit has it, submodules get the same. Git would take the header along to
    wherever that server leads on to, so nobody is followed.
    """
    scope = next((prefix for prefix in _GITHUB if remote.startswith(prefix)), remote)
    return {
        f"http.{scope}.extraHeader": f"Authorization: {authorization}",
        "http.followRedirects": "false",
    }
