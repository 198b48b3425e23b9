"""Git repositories: which commit is meant, what comes of it, and what never happens."""

import contextlib
import multiprocessing
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ketch.build.contexts import git as git_program
from ketch.build.contexts import repositories
from ketch.build.contexts.contexts import Contexts
from ketch.build.graph import ContextSource, GitSource
from ketch.build.request import Git, Request
from ketch.engine.processes import Patience
from ketch.errors import (
    DigestMismatchError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from tests.support.contexts import Opened, content, listed
from tests.support.registry import FakeRegistry, Handler
from tests.support.repositories import Repository, counted, git, served

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return the directory with what is served."""
    made = tmp_path / "repositories"
    made.mkdir()
    return made


@pytest.fixture
def project(root: pathlib.Path) -> Repository:
    """Return a repository with two commits, a branch and two tags."""
    one = Repository(root / "project.git")
    one.commit(Dockerfile="FROM one\n")
    one("tag", "light")
    one("tag", "-a", "-m", "x", "full")
    one("branch", "old")
    one.commit(Dockerfile="FROM two\n", **{"sub/file": "in sub\n"})
    return one


@pytest.fixture
def server(root: pathlib.Path, project: Repository) -> Iterator[FakeRegistry]:
    """Return a server of the repositories."""
    with served(root) as one:
        yield one


def url(server: FakeRegistry, rest: str = "", name: str = "project.git") -> str:
    return f"http://{server.host}/{name}{rest}"


def source(server: FakeRegistry, rest: str = "", **options: Any) -> GitSource:
    return GitSource(
        name="", url=url(server, rest, options.pop("repository", "project.git")), **options
    )


# Which commit


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ("", b"FROM two\n"),
        ("#main", b"FROM two\n"),
        ("#refs/heads/main", b"FROM two\n"),
        ("#HEAD", b"FROM two\n"),
        ("#old", b"FROM one\n"),
        ("#light", b"FROM one\n"),
        ("#full", b"FROM one\n"),
        ("#tags/full", b"FROM one\n"),
        ("?branch=old", b"FROM one\n"),
        ("?tag=light", b"FROM one\n"),
        ("?ref=refs/tags/full", b"FROM one\n"),
    ],
)
def test_a_commit_is_found_by_its_names(
    opened: Opened, server: FakeRegistry, project: Repository, rest: str, text: bytes
) -> None:
    contexts = opened(Git(url(server, rest)))
    assert contexts.dockerfile() == (text, "Dockerfile")
    tree = contexts.tree("context")
    name = "main" if b"two" in text else "old"
    assert tree.identity == f"git:{project('rev-parse', name)}"
    assert ".git" not in listed(tree.directory)
    assert tree.hidden is None
    assert contexts.time_s(ContextSource(name="", context="context")) == 1_700_000_000


@pytest.mark.parametrize(
    ("committer", "time_s"),
    [
        ("committer A <a@b> 7 +0000", 7),
        ("committer A <a@b> yesterday +0000", None),
        ("committer A <a@b> 99999999999999999999999 +0000", None),
        ("committer A <a@b> 100000000000 +0000", None),
        ("committer A <a@b> -5 +0000", None),
        ("committer A <a@b>", None),
        ("encoding none", None),
    ],
)
def test_a_commit_may_say_anything_of_when_it_is_of(
    opened: Opened, server: FakeRegistry, project: Repository, committer: str, time_s: int | None
) -> None:
    tree = project("rev-parse", "main^{tree}")
    text = f"tree {tree}\nauthor A <a@b> 1 +0000\n{committer}\n\nodd\n"
    (project.path / "odd").write_text(text)
    odd = project("hash-object", "-t", "commit", "-w", "--literally", "odd")
    project("update-ref", "refs/heads/odd", odd)
    contexts = opened(Git(url(server, "#odd")))
    assert contexts.dockerfile() == (b"FROM two\n", "Dockerfile")
    assert contexts.tree("context").time_s == time_s


def test_a_commit_is_its_own_name(
    opened: Opened, server: FakeRegistry, project: Repository, root: pathlib.Path
) -> None:
    first = project("rev-parse", "old")
    contexts = opened()
    named = source(server, f"#{first}")
    assert contexts.identity(named) == f"git:{first}"
    assert server.requests == []  # nobody needs to be asked for that
    assert content(contexts.git(named).directory, "Dockerfile") == b"FROM one\n"
    # Of a server that gives out branches and tags alone.
    with served(root, uploadpack_allowAnySHA1InWant="false", protocol_version="0") as strict:
        buried = git(root / "project.git", "rev-parse", "main~1")
        contexts = opened(environment={**os.environ, "GIT_PROTOCOL": "version=0"})
        tree = contexts.git(source(strict, f"#{buried}"))
        assert content(tree.directory, "Dockerfile") == b"FROM one\n"
    with pytest.raises((NotFoundError, UnavailableError), match=r"0{40}"):
        opened().git(source(server, "#" + "0" * 40))


def test_names_stand_for_what_a_checkout_takes() -> None:
    one, two, three = ("1" * 40, "2" * 40, "3" * 40)
    listed = f"{one}\trefs/heads/x\n{two}\trefs/tags/x\n{three}\trefs/tags/x^{{}}\n"
    assert repositories.find("x", listed) == ((one, "refs/heads/x"), {one})
    assert repositories.find("tags/x", listed) == ((three, "refs/tags/x"), {two, three})
    # A path that merely ends like it is another name.
    assert repositories.find("x", f"{one}\trefs/heads/y/x\n") == (None, set())
    assert repositories.find("", f"ref: refs/heads/m\tHEAD\n{one}\tHEAD\n") == (
        (one, "refs/heads/m"),
        {one},
    )
    assert repositories.find("", f"{one}\tHEAD\n") == ((one, "HEAD"), {one})
    # What a server says is no option, pattern or second reference.
    for lie in ("--upload-pack=x", "refs/heads/a:refs/heads/b", "refs/*", "a b", "x\x01"):
        assert repositories.find("", f"ref: {lie}\tHEAD\n{one}\tHEAD\n")[0] is None
    assert repositories.find("", "fatal\tHEAD\n\t\n\n" + "x" * 5000) == (None, set())


def test_what_is_not_there_is_said(opened: Opened, server: FakeRegistry) -> None:
    for rest, message in {
        "#missing": "repository does not contain ref missing",
        "#:missing": "failed to open subdir 'missing': no such file or directory",
        "#:Dockerfile": "failed to open subdir 'Dockerfile': not a directory",
    }.items():
        with pytest.raises(NotFoundError) as found:
            opened(Git(url(server, rest))).tree("context")
        assert found.value.message == message
    with pytest.raises(UnavailableError, match=r"failed to fetch remote .*/none.git: .*not found"):
        opened(Git(url(server, name="none.git"))).tree("context")
    with pytest.raises(UnavailableError, match=r"failed to fetch remote http://127.0.0.1:1/x.git"):
        opened(Git("http://127.0.0.1:1/x.git")).tree("context")


@pytest.mark.parametrize(
    "text", ["ext::sh -c id", "file:///etc", "/etc", "host/path", "http://h/x.git#-x",
             "http://h/x.git#a b", "http://h/x.git?what=x"],
)  # fmt: skip
def test_what_is_no_repository_is_not_asked(opened: Opened, text: str) -> None:
    with pytest.raises((InvalidArgumentError, UnavailableError)) as caught:
        opened(Git(text)).tree("context")
    assert "sh -c" not in caught.value.message or "invalid git context" in caught.value.message


def test_a_commit_must_be_the_one_that_it_was_said_to_be(
    opened: Opened, server: FakeRegistry, project: Repository
) -> None:
    commit, tag = project("rev-parse", "old"), project("rev-parse", "full")
    for checksum in (commit, commit[:10], tag):
        tree = opened().git(source(server, "#full", checksum=checksum))
        assert tree.identity == f"git:{commit}"
    assert opened().git(source(server, f"?checksum={commit}")).identity == f"git:{commit}"
    with pytest.raises(DigestMismatchError) as caught:
        opened().git(source(server, "#main", checksum=commit))
    got = project("rev-parse", "main")
    assert caught.value.message == f"expected checksum to match {commit}, got {got}"
    with pytest.raises(InvalidArgumentError, match="a commit is hex digits"):
        opened().git(source(server, checksum="sha256:x"))


def test_repositories_of_sha256_are_read_too(
    opened: Opened, root: pathlib.Path, server: FakeRegistry
) -> None:
    one = Repository(root / "long.git", "--object-format=sha256")
    commit = one.commit(f="long")
    tree = opened().git(source(server, repository="long.git"))
    assert (len(commit), tree.identity) == (64, f"git:{commit}")
    assert content(tree.directory, "f") == b"long"


# What comes


def test_a_directory_of_it_is_a_context(opened: Opened, server: FakeRegistry) -> None:
    for rest in ("#:sub", "#main:/sub/", "?subdir=sub", "#main:./x/../sub"):
        tree = opened(Git(url(server, rest))).tree("context")
        assert listed(tree.directory) == ["file"]
        assert tree.identity.endswith(":/sub")


def test_its_own_directory_comes_where_it_is_wanted(
    opened: Opened, server: FakeRegistry, project: Repository
) -> None:
    for contexts in (
        opened(Git(url(server, "?keep-git-dir=1"))),
        opened(Git(url(server)), build_args={"BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1"}),
    ):
        tree = contexts.tree("context")
        assert tree.identity == f"git:{project('rev-parse', 'main')}:.git"
        config = content(tree.directory, ".git/config").decode()
        assert url(server) in config
    made = pathlib.Path(os.readlink(f"/proc/self/fd/{tree.directory}"))
    assert git(made, "rev-parse", "HEAD") == project("rev-parse", "HEAD")
    assert git(made, "status", "--porcelain") == ""
    assert git(made, "rev-parse", "main") == project("rev-parse", "main")
    assert not list((made / ".git").rglob("*.sample"))
    kept = opened().git(source(server, keep_git_dir=True))
    assert ".git" in listed(kept.directory)
    assert ".git" not in listed(opened().git(source(server, "#:sub", keep_git_dir=True)).directory)


def test_submodules_come_along(
    opened: Opened, root: pathlib.Path, server: FakeRegistry, project: Repository
) -> None:
    inner = Repository(root / "inner.git")
    inner.commit(f="inner")
    middle = Repository(root / "middle.git")
    git(middle.path, "submodule", "add", "-q", url(server, name="inner.git"), "deep")
    middle.commit()
    project("submodule", "add", "-q", url(server, name="middle.git"), "part")
    project("config", "-f", ".gitmodules", "submodule.part.url", "../middle.git")
    project.commit()
    tree = opened().git(source(server))
    assert content(tree.directory, "part/deep/f") == b"inner"
    assert listed(os.open("part", os.O_RDONLY, dir_fd=tree.directory)) == [".gitmodules", "deep"]
    kept = opened().git(source(server, keep_git_dir=True))
    assert content(kept.directory, "part/deep/f") == b"inner"
    alone = opened().git(source(server, "?submodules=false"))
    assert listed(os.open("part", os.O_RDONLY, dir_fd=alone.directory)) == []
    assert len({tree.identity, kept.identity, alone.identity}) == 3


def test_odd_names_modes_and_symlinks_come_as_they_are(
    opened: Opened, server: FakeRegistry, project: Repository
) -> None:
    odd = os.fsencode(project.path) + b"/a\nb\xff"
    with open(odd, "wb") as file:
        file.write(b"odd")
    (project.path / "run").write_text("#!")
    (project.path / "run").chmod(0o755)
    (project.path / "away").symlink_to("/etc/passwd")
    project.commit()
    mask = os.umask(0o077)
    try:
        tree = opened().git(source(server))
    finally:
        os.umask(mask)
    assert content(tree.directory, "a\nb\udcff") == b"odd"
    modes = {name: oct(os.stat(name, dir_fd=tree.directory).st_mode)[-3:] for name in (".", "run")}
    assert modes == {".": "755", "run": "755"}
    assert os.readlink("away", dir_fd=tree.directory) == "/etc/passwd"


# What never happens


def test_a_directory_of_it_leads_nowhere_else(
    opened: Opened, server: FakeRegistry, project: Repository
) -> None:
    (project.path / "away").symlink_to("/etc")
    (project.path / "up").symlink_to("../../../../../../../../etc")
    (project.path / "near").symlink_to("sub")
    (project.path / "etc").mkdir()
    (project.path / "etc" / "ours").touch()
    project.commit()
    # Links lead where they do in a container whose root this is.
    for name in ("away", "up", "../../etc"):
        assert listed(opened(Git(url(server, f"#:{name}"))).tree("context").directory) == ["ours"]
    assert listed(opened(Git(url(server, "#:near"))).tree("context").directory) == ["file"]


def test_nothing_of_a_repository_is_executed(
    opened: Opened, root: pathlib.Path, server: FakeRegistry, project: Repository,
    tmp_path: pathlib.Path,
) -> None:  # fmt: skip
    """Filters, hooks, drivers, a submodule that is a local path or a command, a linked .git."""
    trap = tmp_path / "trap"
    command = f"touch {trap}"
    project.commit(
        **{
            ".gitattributes": "* filter=evil diff=evil merge=evil\n",
            ".gitconfig": f"[core]\n\tfsmonitor = {command}\n",
            "hooks/post-checkout": f"#!/bin/sh\n{command}\n",
        }
    )
    (project.path / "hooks" / "post-checkout").chmod(0o755)
    project.commit()
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[filter "evil"]\n\tsmudge = {command}\n\tclean = {command}\n'
        f"[core]\n\tfsmonitor = {command}\n"
        f"\thooksPath = {project.path}/hooks\n\tsshCommand = {command}\n"
    )
    environment = {**os.environ, "HOME": str(home), "GIT_TRACE": str(trap),
                   "GIT_EXTERNAL_DIFF": command, "GIT_SSH": command}  # fmt: skip
    for keep in (False, True):
        opened(environment=environment).git(source(server, keep_git_dir=keep))
    assert not trap.exists()
    Repository(root / "inner.git").commit(inside="x")
    for evil, said in (
        (str(root / "inner.git"), "transport 'file' not allowed"),
        (f"file://{root}/inner.git", "transport 'file' not allowed"),
        (f"ext::{command}", "transport 'ext' not allowed"),
        ("-u./x", "No url found"),  # git passes over what looks like an option
        (f"x\n\tupdate = !{command}", "submodule.part.update"),
    ):
        project("rm", "-rq", "--cached", "--ignore-unmatch", "part")
        project("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},part")
        (project.path / ".gitmodules").write_text(
            f'[submodule "part"]\n\tpath = part\n\turl = {evil}\n'
        )
        project("add", ".gitmodules")
        project("commit", "-q", "-m", "x")
        with pytest.raises(UnavailableError, match="failed to fetch remote") as caught:
            opened(environment=environment).git(source(server))
        assert said in caught.value.message
        assert "checkout-" not in caught.value.message  # no place of ours is told of
    assert not trap.exists()


def test_few_trees_that_stand_for_many_files_fill_no_memory(
    project: Repository, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = project("rev-parse", "main:Dockerfile")
    kind, below = "100644 blob", blob
    for _ in range(4):  # 256 million files
        entries = "".join(f"{kind} {below}\t{number:03}\n" for number in range(128))
        below = subprocess.run(
            ["git", "mktree"], cwd=project.path, input=entries, check=True, capture_output=True,
            text=True,
        ).stdout.strip()  # fmt: skip
        kind = "040000 tree"
    monkeypatch.setattr(git_program, "memory_bytes_max", lambda: 32 << 20)
    one = git_program.Git(str(tmp_path), Patience(), os.environ, {}, "", 1 << 30)
    with pytest.raises(git_program.GitError, match="emory"):
        one.run("read-tree", below, variables={"GIT_DIR": str(project.path / ".git")})
    small = git_program.Git(str(tmp_path), Patience(), os.environ, {}, "", 100)
    with pytest.raises(git_program.GitError):
        small.run("read-tree", "main", variables={"GIT_DIR": str(project.path / ".git")})


def test_credentials_are_shown_to_their_server_and_to_nobody_else(
    opened: Opened, server: FakeRegistry, tmp_path: pathlib.Path
) -> None:
    shown: list[str] = []

    def guard(request: Handler) -> bool:
        found = request.headers.get("Authorization")
        if found is None:
            request.answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            return True
        shown.append(found)
        # Who looks at processes meanwhile sees nothing.
        assert running("s3cret") == []
        return False

    server.hooks.insert(0, guard)
    with pytest.raises(UnavailableError) as caught:
        opened().git(source(server))
    assert "GIT_AUTH_TOKEN" in caught.value.hint
    wanted = f"http://alice:s3cret@{server.host}/project.git"
    tree = opened().git(GitSource(name="", url=wanted, keep_git_dir=True))
    assert set(shown) == {"Basic YWxpY2U6czNjcmV0"}
    for path in tmp_path.rglob("*"):
        if path.is_file() and "repositories" not in path.parts:
            assert b"s3cret" not in path.read_bytes()
            assert b"YWxpY2U6" not in path.read_bytes()
    assert "s3cret" not in tree.identity
    for secrets, header in (
        ({"GIT_AUTH_TOKEN": b"t\n"}, "Basic eC1hY2Nlc3MtdG9rZW46dA=="),
        ({"GIT_AUTH_HEADER": b"Bearer h"}, "Bearer h"),
        ({f"GIT_AUTH_TOKEN.{server.host}": b"t", "GIT_AUTH_HEADER": b"x"},
         "Basic eC1hY2Nlc3MtdG9rZW46dA=="),
    ):  # fmt: skip
        shown.clear()
        opened(secrets=secrets).git(source(server, "#old"))
        assert set(shown) == {header}
    with pytest.raises(InvalidArgumentError, match="no header's value"):
        opened(secrets={"GIT_AUTH_TOKEN": b"a\nb"}).git(source(server))


def test_credentials_are_not_carried_on_to_another_server(
    opened: Opened, server: FakeRegistry, root: pathlib.Path
) -> None:
    with served(root) as other:

        def away(request: Handler) -> bool:
            request.answer(301, headers={"Location": f"http://{other.host}{request.path}"})
            return True

        server.hooks.insert(0, away)
        assert opened().git(source(server)).identity  # who shows nothing is followed
        other.requests.clear()
        with pytest.raises(UnavailableError):
            opened(secrets={"GIT_AUTH_TOKEN": b"t"}).git(source(server, "#old"))
        assert other.requests == []


def test_a_repository_elsewhere_on_the_way_up_is_none_of_ours(
    opened: Opened, server: FakeRegistry, tmp_path: pathlib.Path
) -> None:
    Repository(tmp_path / "x")
    (tmp_path / "x" / ".git").rename(tmp_path / ".git")
    with (tmp_path / ".git" / "config").open("a") as file:
        file.write(f'[url "http://127.0.0.1:1/"]\n\tinsteadOf = http://{server.host}/\n')
    assert listed(opened().git(source(server)).directory) == ["Dockerfile", "sub"]


# Waiting, keeping, and where there is no git


def test_a_checkout_is_kept_for_the_next_build(
    opened: Opened, server: FakeRegistry, project: Repository, tmp_path: pathlib.Path
) -> None:
    def is_transfer(path: str) -> bool:
        return path.endswith("/git-upload-pack")

    first = opened().git(source(server))
    before = counted(server, is_transfer)
    contexts = opened()
    again = contexts.git(source(server))
    assert os.path.samestat(os.fstat(first.directory), os.fstat(again.directory))
    # A list of references is all that was asked for.
    assert counted(server, is_transfer) == before + 1
    server.requests.clear()
    contexts.git(source(server))
    opened().git(source(server, f"#{project('rev-parse', 'main')}"))
    assert server.requests == []
    assert oct((tmp_path / "cache" / "git").stat().st_mode)[-3:] == "700"
    project.commit(new="file")
    assert "new" in listed(opened().git(source(server)).directory)


def test_what_stalls_or_is_called_off_is_ended(opened: Opened, tmp_path: pathlib.Path) -> None:
    class CalledOffError(BaseException):
        """As the library's."""

    class Short(Patience):
        def poll(self, milliseconds: int | None, *watched: tuple[int, int]) -> Any:
            if found := super().poll(300, *watched):
                return found
            raise CalledOffError

    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(CalledOffError):
            opened(patience=Short()).git(GitSource(name="", url=f"git://127.0.0.1:{port}/x"))
        assert time.monotonic() - begun < 20
        assert running(f"127.0.0.1:{port}/x") == []


def _fetch(cache: str, place: str, url: str) -> None:
    with Contexts(Request(contexts={"context": Git(url)}), place, cache) as contexts:
        contexts.tree("context")


def running(words: str) -> list[str]:
    """Return the command lines of processes that have some words in them."""
    every = subprocess.run(["ps", "-eww", "-o", "args"], check=True, capture_output=True, text=True)
    return [line for line in every.stdout.splitlines() if words in line]


def test_a_build_that_is_killed_leaves_nobody_at_work(tmp_path: pathlib.Path) -> None:
    (tmp_path / "place").mkdir()
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/x"
        process = multiprocessing.get_context("fork").Process(
            target=_fetch, args=(str(tmp_path / "cache"), str(tmp_path / "place"), url)
        )
        process.start()
        connection, _ = silent.accept()  # it has begun, and hears nothing
        with contextlib.closing(connection):
            assert running(url)
            process.kill()
            process.join()
            for _ in range(200):
                if not running(url):
                    break
                time.sleep(0.05)
            assert running(url) == []


def test_the_protocol_of_git_itself_is_spoken(
    opened: Opened, root: pathlib.Path, project: Repository
) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    daemon = subprocess.Popen(
        ["git", "daemon", "--export-all", f"--base-path={root}", "--listen=127.0.0.1",
         f"--port={port}", "--reuseaddr", "--log-destination=none"],
        start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.05)
        contexts = opened(Git(f"git://127.0.0.1:{port}/project.git#old"))
        assert contexts.dockerfile().text == b"FROM one\n"
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait()


def test_without_git_one_sentence_says_so(opened: Opened, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UnsupportedError, match="git is needed to fetch from a Git repository"):
        opened(Git("http://h/x.git"), environment={"PATH": str(tmp_path)}).dockerfile()
