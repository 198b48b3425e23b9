"""Contexts that are no directory: archives, URLs, Git repositories, layouts; whole builds of them.

What docker's BuildKit makes of the archives was compared with (26.1, and 0.12): who owns what is
copied, that nothing of them is ignored, what is said where there is no Dockerfile.
"""

import io
import pathlib
import shutil
import signal
import subprocess
import tarfile
import threading
from collections.abc import Iterator

import pytest

from tests.support.archives import DIRECTORY, archive, member
from tests.support.commands import Engine, Result
from tests.support.registry import FakeRegistry, Handler, fake
from tests.support.repositories import Repository, served

CONTEXT = archive(
    member(b"Dockerfile", data=b"FROM scratch\nCOPY a d /x/\nCOPY --chown=1:1 a /y\n"),
    member(b"a", data=b"1", uid=12, gid=34),
    member(b"d", DIRECTORY, mode=0o755, uid=5, gid=6),
    member(b"d/e", data=b"2", uid=12, gid=34, mode=0o600),
    member(b".dockerignore", data=b"a\n"),
)
COPIED = {"x": (0, 0), "x/a": (12, 34), "x/e": (12, 34), "y": (1, 1)}


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    """Return a server whose answers a test gives."""
    with fake() as one:
        yield one


def answers(server: FakeRegistry, content: bytes) -> str:
    """Have a server answer everything with some content; return its address."""

    def hook(request: Handler) -> bool:
        request.answer(200, content, {"ETag": '"one"'})
        return True

    server.hooks[:] = [hook]
    return f"http://{server.host}"


def build(ketch: Engine, *arguments: str, stdin: bytes = b"") -> dict[str, tarfile.TarInfo]:
    """Build; return what is in the root that comes of it."""
    words = ["build", "--progress=plain", "--output", "type=tar,dest=-", *arguments]
    done = subprocess.run(
        [*ketch.prefix, *words], input=stdin, check=False, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as root:
        return {one.name: one for one in root}


def failed(ketch: Engine, *arguments: str, stdin: bytes = b"") -> Result:
    result = ketch("build", "--progress=plain", *arguments, stdin=stdin)
    assert result.status == 1
    return result


def owners(root: dict[str, tarfile.TarInfo]) -> dict[str, tuple[int, int]]:
    return {name: (one.uid, one.gid) for name, one in root.items()}


def test_archives_come_by_standard_input_and_from_urls(ketch: Engine, server: FakeRegistry) -> None:
    assert owners(build(ketch, "-", stdin=CONTEXT)) == COPIED
    assert owners(build(ketch, f"{answers(server, CONTEXT)}/context.tar")) == COPIED
    assert build(ketch, "-", stdin=b"FROM scratch\nCOPY . /\n") == {}
    none = failed(ketch, "-", stdin=archive(member(b"other")))
    assert "failed to read dockerfile: open Dockerfile: no such file or directory" in none.err
    out = failed(ketch, "-", stdin=archive(member(b"../../../../tmp/outside", data=b"evil")))
    assert "leads out of the context" in out.err
    ketch.ok("builder", "prune", "--all", "--force")


def test_what_is_added_from_a_url_is_asked_for_again_and_sent_once(
    ketch: Engine, server: FakeRegistry
) -> None:
    address = answers(server, b"content")
    text = f"FROM scratch\nADD --chmod=644 {address}/file /dir/\n".encode()
    assert build(ketch, "-", stdin=text)["dir/file"].mode == 0o644
    assert build(ketch, "-", stdin=text)["dir/file"].size == 7
    assert ["If-None-Match" in fields for _, _, fields in server.requests] == [False, True]
    wrong = text.replace(b"--chmod=644", b"--checksum=sha256:" + b"0" * 64)
    assert "digest mismatch sha256:" in failed(ketch, "-", stdin=wrong).err
    ketch.ok("builder", "prune", "--all", "--force")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_repositories_are_contexts_and_are_added(ketch: Engine, tmp_path: pathlib.Path) -> None:
    project = Repository(tmp_path / "project.git")
    project.commit(Dockerfile="FROM scratch\nCOPY . /\n", **{"sub/Dockerfile": "FROM scratch\n"})
    project.commit(**{"sub/Dockerfile": "FROM scratch\nCOPY f /g\n", "sub/f": "x"})
    with served(tmp_path) as server:
        url = f"http://{server.host}/project.git"
        assert set(build(ketch, url)) == {"Dockerfile", "sub", "sub/Dockerfile", "sub/f"}
        own = ("--build-arg", "SOURCE_DATE_EPOCH=context")
        found = build(ketch, *own, f"{url}#main:sub")
        assert {name: one.mtime for name, one in found.items()} == {"g": 1_700_000_000}
        text = f"FROM scratch\nCOPY --from=named sub/f /\nADD {url}#main:sub /s/\n".encode()
        named = build(ketch, "--build-context", f"named={url}", "-", stdin=text)
        assert set(named) == {"f", "s", "s/Dockerfile", "s/f"}
        missing = failed(ketch, f"{url}#missing")
        assert "repository does not contain ref missing" in missing.err
        assert "git/" not in missing.err  # no place of ours is told of
    ketch.ok("builder", "prune", "--all", "--force")


def test_a_layout_is_a_base(ketch: Engine, tmp_path: pathlib.Path) -> None:
    ketch.ok("save", "--output", str(tmp_path / "saved.tar"), "busybox")
    layout = tmp_path / "layout"
    layout.mkdir()
    subprocess.run(["tar", "-xf", str(tmp_path / "saved.tar")], cwd=layout, check=True)
    text = b"FROM base\nCOPY --from=base /bin/busybox /other\n"
    arguments = ("--build-context", f"base=oci-layout://{layout}", "-")
    assert {"other", "bin/busybox"} <= set(build(ketch, *arguments, stdin=text))
    ketch.ok("builder", "prune", "--all", "--force")


def test_a_build_that_is_killed_amid_a_download_leaves_what_the_next_one_takes_away(
    ketch: Engine, server: FakeRegistry
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def hook(request: Handler) -> bool:
        request.answer(200, bytes(1 << 16), length=1 << 20)
        request.wfile.flush()
        begun.set()
        ended.wait(60)
        return True

    server.hooks[:] = [hook]
    root = pathlib.Path(ketch.prefix[ketch.prefix.index("--root") + 1])
    process = ketch.start("build", f"http://{server.host}/x")
    try:
        assert begun.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert len(list((root / "builds").iterdir())) == 1
    finally:
        ended.set()
        process.kill()
        process.communicate()
    build(ketch, "-", stdin=b"FROM scratch\nCOPY . /\n")
    assert list((root / "builds").iterdir()) == []
    assert not (root / "build-cache" / "http").exists() or not any(
        (root / "build-cache" / "http").iterdir()
    )
    ketch.ok("builder", "prune", "--all", "--force")
