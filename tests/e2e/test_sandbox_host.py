"""``Sandbox.host``: the host's own programs at work on a project, which stays as it is."""

import os
import pathlib
import stat
import subprocess
import time
from collections.abc import Iterator

import pytest

import ketch
from ketch import Sandbox
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)

pytestmark = pytest.mark.in_process


@pytest.fixture
def project(tmp_path: pathlib.Path) -> pathlib.Path:
    place = tmp_path / "a project"
    (place / "kept").mkdir(parents=True)
    (place / "gone").mkdir()
    (place / "kept" / "text").write_text("one\ntwo\n")
    (place / "gone" / "file").write_text("x\n")
    (place / "same").write_text("same\n")
    (place / ".git").mkdir()
    (place / ".git" / "config").write_text("[core]\n")
    return place


@pytest.fixture
def sandbox(library: ketch.Engine, project: pathlib.Path) -> Iterator[Sandbox]:
    with Sandbox.host(project, engine=library, disk="8m") as made:
        yield made


def _snapshot(place: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for path in place.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(place))] = (status.st_mode, content)
    return found


def test_a_project_is_changed_when_its_owner_takes_it_over(
    sandbox: Sandbox, project: pathlib.Path
) -> None:
    before = _snapshot(project)
    done = sandbox.run(
        "set -e; pwd; echo three >> kept/text; rm -r gone; mkdir new; echo x > new/file;"
        "ln -s file new/link; chmod 4755 new/file; touch same; echo evil >> .git/config;"
        "printf '\\0' > binary; mkdir .git/hooks; echo evil > .git/hooks/post-commit"
    )
    assert (done.status, done.text) == (0, f"{project}\n"), done
    assert _snapshot(project) == before
    found = {change.path: change for change in sandbox.changes()}
    assert {path: (one.kind, one.what) for path, one in found.items()} == {
        "kept/text": ("changed", "file"), "gone": ("deleted", "directory"),
        "new": ("added", "directory"), "new/file": ("added", "file"), "new/link": ("added", "link"),
        "binary": ("added", "file"), ".git/config": ("changed", "file"),
        ".git/hooks": ("added", "directory"), ".git/hooks/post-commit": ("added", "file"),
    }  # fmt: skip
    assert found["kept/text"].text == (
        "--- a/kept/text\n+++ b/kept/text\n@@ -1,2 +1,3 @@\n one\n two\n+three\n"
    )
    assert [change.path for change in sandbox.apply("kept")] == ["kept/text"]
    assert (project / "kept" / "text").read_text() == "one\ntwo\nthree\n"
    assert (project / "gone").is_dir()
    with pytest.raises(NotFoundError, match="nosuch"):
        sandbox.apply("nosuch")
    taken = [change.path for change in sandbox.apply()]
    assert taken == ["binary", "gone", "new", "new/file", "new/link"]
    assert stat.S_IMODE((project / "new" / "file").stat().st_mode) == 0o755
    assert (project / "new" / "file").stat().st_uid == project.stat().st_uid
    assert not (project / "gone").exists()
    assert (project / ".git" / "config").read_text() == "[core]\n"
    assert {change.path for change in sandbox.changes()} == {
        ".git/config", ".git/hooks", ".git/hooks/post-commit",
    }  # fmt: skip
    sandbox.run("echo again >> kept/text; rm new/link; mv new moved")
    assert {(change.kind, change.path) for change in sandbox.changes()} >= {
        ("deleted", "new"), ("added", "moved"), ("added", "moved/file"),
    }  # fmt: skip
    sandbox.apply()
    assert sorted(os.listdir(project)) == [".git", "binary", "kept", "moved", "same"]


def test_what_both_have_changed_is_left_unless_it_is_to_be_overwritten(
    sandbox: Sandbox, project: pathlib.Path
) -> None:
    sandbox.run("echo guest > same; echo guest > new; echo guest >> kept/text; rm -r gone")
    sandbox.apply("kept", "new")  # which makes them newer, by our own hand
    sandbox.run("echo again >> kept/text; echo again >> new; echo x > kept/more")
    (project / "same").write_text("caller's\n")
    (project / "gone" / "file").write_text("caller's\n")
    found = {change.path: change.conflict for change in sandbox.changes()}
    assert {path for path, conflict in found.items() if conflict} == {"same", "gone"}
    assert "gone/file was changed" in found["gone"]
    with pytest.raises(ConflictError, match="same: it was changed in the project meanwhile"):
        sandbox.apply("same", "kept")
    assert (project / "kept" / "text").read_text() == "one\ntwo\nguest\n", "nothing was taken"
    assert [change.path for change in sandbox.apply()] == ["kept/more", "kept/text", "new"]
    assert (project / "same").read_text() == "caller's\n"
    assert (project / "gone" / "file").exists()
    assert [change.path for change in sandbox.apply(overwrite=True)] == ["gone", "same"]
    assert (project / "same").read_text() == "guest\n"
    assert not (project / "gone").exists()
    (fork,) = sandbox.fork()
    with fork:
        fork.run("echo fork > same; echo fork > kept/text")
        (project / "same").write_text("caller's\n")
        assert [change.path for change in fork.apply()] == ["kept/text"]


def test_what_would_hurt_the_caller_is_refused(
    sandbox: Sandbox, project: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (project / "out").symlink_to(tmp_path)
    sandbox.run(
        "ln -s /etc abs; ln -s ../.. up; mkfifo fifo; ln -s kept/../../.. sly; ln -s out/x through;"
        "rm out; mkdir out; echo x > out/outside; printf x > \"$(printf 'a\\nb')\""
    )
    found = {change.path: change for change in sandbox.changes()}
    assert {path for path, one in found.items() if one.refused} == {"abs", "up", "fifo", "sly"}
    for path in ("abs", "up", "fifo", "sly"):
        with pytest.raises(PermissionDeniedError):
            sandbox.apply(path)
    sandbox.apply("a\nb")
    assert (project / "a\nb").read_text() == "x"
    with pytest.raises(PermissionDeniedError, match="leads out"):
        sandbox.apply("through")
    with pytest.raises(ConflictError, match="out: it was changed in the project meanwhile"):
        sandbox.apply("out")
    sandbox.apply("out", overwrite=True)
    assert (project / "out" / "outside").read_text() == "x\n"
    assert not (tmp_path / "outside").exists()


def test_nothing_else_of_the_host_is_seen(sandbox: Sandbox, project: pathlib.Path) -> None:
    home = os.environ.get("HOME", "/root")
    listed = sandbox.run(["ls", "-A", home]).text
    assert listed == ""
    for path in (
        "/etc/shadow", "/etc/ssh", "/etc/sudoers", "/var/lib", "/run/ketch", "/srv",
        "/boot", str(project.parent / "other"), "/etc/ssl/private", "/root/.ssh",
    ):  # fmt: skip
        assert sandbox.run(["cat", path]).status != 0, path
        assert sandbox.run(["ls", path]).status != 0, path
    environment = sandbox.run(["env"]).text
    names = {line.partition("=")[0] for line in environment.splitlines()}
    assert names <= {
        "PATH", "HOME", "USER", "HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_",
        "LANG", "LC_ALL", "LC_CTYPE", "LANGUAGE", "TZ", "TERM", "COLORTERM",
    }  # fmt: skip
    assert sandbox.run("touch /usr/x /etc/x /x").status != 0
    kept = sandbox.run("ls -d /run/.ketch-changes-*").text.strip()
    assert sandbox.run(f"chmod 777 {kept}; touch {kept}/upper/x").status != 0
    full = sandbox.run("dd if=/dev/zero of=big bs=1M; rm big")
    assert b"No space left on device" in full.stderr
    many = sandbox.run("i=0; while echo > f$i; do i=$((i+1)); done 2>&1 | tail -1; rm -f f*")
    assert b"No space left on device" in many.stdout


def test_what_holds_more_than_a_project_is_none(
    library: ketch.Engine, tmp_path: pathlib.Path
) -> None:
    for place in ("/", "/etc", "/usr/lib", os.environ.get("HOME", "/root"), tmp_path / "missing"):
        with pytest.raises(InvalidArgumentError, match="project="):
            Sandbox.host(place, engine=library)
    with Sandbox.create("busybox", engine=library) as other, pytest.raises(InvalidArgumentError):
        other.changes()


def test_its_changes_end_with_it_and_nothing_stays(
    library: ketch.Engine, project: pathlib.Path
) -> None:
    sandbox = Sandbox.host(project, engine=library)
    sandbox.run("echo x > file")
    found = Sandbox.connect(sandbox.name, engine=library)
    assert [change.path for change in found.changes()] == ["file"]
    places = pathlib.Path(library._places.settings.root)
    sandbox.kill()
    with pytest.raises((NotFoundError, ConflictError)):
        found.changes()
    assert not list(places.glob(f"containers/{sandbox.id}*"))
    assert str(project) not in pathlib.Path("/proc/self/mountinfo").read_text()


def test_a_repository_s_own_tools_work_on_it(library: ketch.Engine, tmp_path: pathlib.Path) -> None:
    """Renames, hard links, time stamps, locks: what Git does."""
    if subprocess.run(["git", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this machine has no git")
    project = tmp_path / "repository"
    project.mkdir()
    (project / "file").write_text("x\n")
    begin = time.monotonic()
    with Sandbox.host(project, engine=library) as sandbox:
        done = sandbox.run(
            "set -e; git init -q; git config user.name n; git config user.email e@e; git add .;"
            "git commit -qm one; echo y >> file; git commit -qam two; git log --oneline | wc -l"
        )
        assert (done.status, done.text) == (0, "2\n"), (done, time.monotonic() - begin)
        assert [change.path for change in sandbox.apply()] == ["file"]
        assert any(change.path == ".git" for change in sandbox.apply(".git"))
    log = subprocess.run(
        ["git", "-c", f"safe.directory={project}", "log", "--format=%s"], cwd=project,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert log.stdout == "two\none\n"
