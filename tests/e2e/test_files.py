"""Files into and out of containers, what they changed, and images made of it."""

import contextlib
import gzip
import io
import json
import os
import pathlib
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator

import pytest

from tests.support import archives, serving
from tests.support.commands import Engine, heeds


@pytest.fixture
def container(engine: Engine, tmp_path: pathlib.Path) -> Iterator[str]:
    """Return a running container with a volume, a symlink out and one to a directory."""
    (tmp_path / "bound").mkdir()
    engine.ok(
        "run", "-d", "--name", "box", "-v", f"{tmp_path}/bound:/bound", "-v", "/volume", "busybox",
        "sh", "-c", "[ -e /dir ] && exec sleep 1000;"
        " mkdir -p /dir/sub; echo one >/dir/one; echo two >/dir/sub/two;"
        " ln -s /dir /link; ln -s one /dir/alias; ln -s ../../../../../tmp /out;"
        " chown 5:6 /dir/one; chmod 640 /dir/one; touch -d '2001-02-03 04:05:06' /dir/one;"
        " rm /bin/wget; exec sleep 1000",
    )  # fmt: skip
    for _ in range(100):
        if engine("exec", "box", "test", "!", "-e", "/bin/wget").status == 0:
            break
    yield "box"
    engine.ok("rm", "-f", "-v", "box")


@pytest.fixture(params=["running", "stopped"])
def either(request: pytest.FixtureRequest, engine: Engine, container: str) -> str:
    if request.param == "stopped":
        engine.ok("stop", "-t", "0", container)
    return container


def tree(path: pathlib.Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


def test_out_of_a_container_by_every_rule_of_ends(
    engine: Engine, either: str, tmp_path: pathlib.Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()

    def copy(source: str, target: str, *flags: str) -> list[str]:
        engine.ok("cp", *flags, f"{either}:{source}", f"{here}/{target}")
        found = tree(here)
        for path in sorted(here.rglob("*"), reverse=True):
            path.unlink() if path.is_symlink() or path.is_file() else path.rmdir()
        return found

    assert copy("/dir/one", "") == ["one"]
    assert copy("/dir/one", "other") == ["other"]
    assert copy("dir", "") == ["dir", "dir/alias", "dir/one", "dir/sub", "dir/sub/two"]
    assert copy("/dir", "new") == ["new", "new/alias", "new/one", "new/sub", "new/sub/two"]
    assert copy("/dir/.", "") == ["alias", "one", "sub", "sub/two"]
    assert copy("/dir/.", "new") == ["new", "new/alias", "new/one", "new/sub", "new/sub/two"]
    assert copy("/link", "") == ["link"]
    assert copy("/link/", "") == ["link", "link/alias", "link/one", "link/sub", "link/sub/two"]
    assert copy("/dir/alias", "f", "-L") == ["f"]
    assert copy("/dir/alias", "", "-L") == ["alias"]
    engine.ok("cp", f"{either}:/dir/one", f"{here}/one")
    status = (here / "one").stat()
    # Without -a it is whose the copying is.
    assert (status.st_mode & 0o7777, status.st_mtime) == (0o640, 981173106)
    assert status.st_uid == engine.outside(0)
    engine.ok("cp", f"{either}:/dir/alias", f"{here}/alias")
    assert os.readlink(here / "alias") == "one"


@pytest.mark.many_ids("programs see all files as root's")
@pytest.mark.user
def test_into_a_container_by_every_rule_of_ends(
    engine: Engine, either: str, tmp_path: pathlib.Path
) -> None:
    here = tmp_path / "from"
    (here / "sub").mkdir(parents=True)
    (here / "f").write_text("text")
    (here / "sub" / "g").write_text("inner")
    os.chown(here / "f", engine.outside(7), engine.outside(8))
    (here / "s").symlink_to("f")
    for source, target in [
        (f"{here}/f", "/dir"), (f"{here}/f", "/dir/renamed"), (f"{here}", "/dir"),
        (f"{here}/.", "/dir/sub"), (f"{here}", "/dir/made"), (f"{here}/f", "/link/through"),
        (f"{here}/s", "/dir/s"), (f"{here}/f", "/volume/v"), (f"{here}/f", "/bound/b"),
    ]:  # fmt: skip
        result = engine("cp", source, f"{either}:{target}")
        assert result.status == 0, str(result)
        assert (result.out, result.err) == ("", "")
    engine("start", either)
    found = engine.ok("exec", either, "find", "/dir", "/volume", "/bound").splitlines()
    assert sorted(found) == sorted([
        "/dir", "/dir/one", "/dir/alias", "/dir/sub", "/dir/sub/two", "/dir/f", "/dir/renamed",
        "/dir/from", "/dir/from/f", "/dir/from/s", "/dir/from/sub", "/dir/from/sub/g",
        "/dir/sub/f", "/dir/sub/s", "/dir/sub/sub", "/dir/sub/sub/g", "/dir/made", "/dir/made/f",
        "/dir/made/s", "/dir/made/sub", "/dir/made/sub/g", "/dir/through", "/dir/s", "/volume",
        "/volume/v", "/bound", "/bound/b",
    ])  # fmt: skip
    assert engine.ok("exec", either, "stat", "-c", "%u:%g", "/dir/f") == "7:8"
    assert engine.ok("exec", either, "readlink", "/dir/s") == "f"
    assert (tmp_path / "bound" / "b").read_text() == "text"


@pytest.mark.many_ids("programs see all files as root's")
@pytest.mark.user
def test_tar_streams_both_ways(engine: Engine, container: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a/b")
        member.size, member.uid, member.mode = 3, 42, 0o600
        archive.addfile(member, io.BytesIO(b"abc"))
    engine.ok("cp", "-", f"{container}:/dir", stdin=buffer.getvalue())
    assert engine.ok("exec", container, "stat", "-c", "%u %a %s", "/dir/a/b") == "42 600 3"
    process = engine.start("cp", f"{container}:/dir/sub", "-")
    out, _ = process.communicate(timeout=30)
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        assert archive.getnames() == ["sub", "sub/two"]
    assert engine("cp", "-", f"{container}:/dir/one", stdin=buffer.getvalue()).status == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["box:/nonsuch", "/tmp"], "Could not find the file /nonsuch in container box"),
        (["nonsuch:/x", "/tmp"], "No such container: nonsuch"),
        (["box:/dir", "/etc/passwd"], "cannot copy directory"),
        (["/etc/passwd", "box:/nonsuch/"], "no such directory"),
        (["/etc/passwd", "box:/nonsuch/x"], "Could not find the file /nonsuch in container box"),
        (["/etc/passwd", "/tmp"], "must specify at least one container source"),
        (["box:/a", "box:/b"], "copying between containers is not supported"),
        (["/nonsuch", "box:/"], "no such file or directory"),
        (["/etc", "box:/dir/one"], "cannot copy directory"),
    ],
)
def test_what_cannot_be_copied_is_said(
    engine: Engine, container: str, arguments: list[str], told: str
) -> None:
    result = engine("cp", *arguments)
    assert result.status == 1, str(result)
    assert told in result.err


def test_symlinks_lead_nowhere_outside(engine: Engine, either: str, tmp_path: pathlib.Path) -> None:
    secret = pathlib.Path("/tmp") / f"ketch-secret-{os.getpid()}"
    secret.write_text("secret")
    try:
        result = engine("cp", f"{either}:/out/{secret.name}", str(tmp_path))
        assert result.status == 1, str(result)
        (tmp_path / "x").write_text("x")
        engine("cp", str(tmp_path / "x"), f"{either}:/out/{secret.name}")
        assert secret.read_text() == "secret"
    finally:
        secret.unlink()


def test_diff_commit_and_export_agree_with_what_the_container_sees(
    engine: Engine, container: str, tmp_path: pathlib.Path
) -> None:
    changes = set(engine.ok("diff", container).splitlines())
    assert {"A /dir", "A /dir/one", "A /link", "C /bin", "D /bin/wget"} <= changes
    assert not any("/bound/" in line for line in changes)
    assert not any("/etc" in line for line in changes)  # where hosts and others are mounted
    image = engine.ok(
        "commit", "-a", "me", "-m", "why", "-c", "CMD cat /dir/one", "-c", "ENV A=b", container,
        "files/made:1",
    )  # fmt: skip
    assert engine.ok("ps", "-q", "--filter", "status=running", "--filter", "name=box")
    try:
        [document] = json.loads(engine.ok("image", "inspect", "files/made:1"))
        assert (document["Id"], document["Author"], document["Comment"]) == (image, "me", "why")
        assert document["Config"]["Cmd"] == ["/bin/sh", "-c", "cat /dir/one"]
        assert "A=b" in document["Config"]["Env"]
        assert len(document["RootFS"]["Layers"]) == 2
        assert engine.ok("run", "--rm", "files/made:1") == "one"
        assert engine("run", "--rm", "files/made:1", "ls", "/bin/wget").status == 1
        history = engine.ok("history", "--format", "{{.ID}}|{{.Comment}}", "files/made:1")
        assert history.splitlines()[0] == f"{image[7:19]}|why"
    finally:
        engine.ok("rmi", "files/made:1")
    archive = tmp_path / "root.tar"
    engine.ok("export", "-o", str(archive), container)
    with tarfile.open(archive) as opened:
        names = set(opened.getnames())
        assert {"dir/one", "dir/sub/two", "bin/busybox", "proc", "bound"} <= names
        assert not {"bin/wget", "bound/b"} & names
        assert not any(name.startswith("proc/") for name in names)
        one = opened.getmember("dir/one")
        assert (one.uid, one.gid, one.mode & 0o7777, one.mtime) == (5, 6, 0o640, 981173106)


def test_a_file_of_the_image_that_got_a_name_is_one_file_after_a_commit(engine: Engine) -> None:
    engine.ok("run", "--name", "linking", "busybox", "ln", "/bin/busybox", "/also")
    try:
        assert engine.ok("diff", "linking") == "A /also"
        engine.ok("commit", "linking", "linked")
        names = engine.ok("run", "--rm", "linked", "stat", "-c", "%i", "/bin/busybox", "/also")
        assert len(set(names.split())) == 1
    finally:
        engine.ok("rm", "linking")
        engine.ok("rmi", "linked")


def test_changes_of_a_commit_know_the_containers_own_configuration(engine: Engine) -> None:
    options = ["-e", "A=one", "-e", "B=x y", "-w", "/w", "--label", "old=1"]
    engine.ok("create", "--name", "known", *options, "busybox", "true")
    changes = ["ENV C=$A-two", "LABEL l=$A $A=1", "WORKDIR $C/sub", "VOLUME /v/$A", "EXPOSE $NONE",
               "ENV A=three", "ENV D=$A", "USER $B"]  # fmt: skip
    try:
        words = [word for change in changes for word in ("-c", change)]
        engine.ok("commit", *words, "known", "knows")
        found = json.loads(engine.ok("image", "inspect", "--format", "{{json .Config}}", "knows"))
        assert {"A=three", "B=x y", "C=one-two", "D=three"} <= set(found["Env"])
        assert found["Labels"] == {"old": "1", "l": "one", "one": "1"}
        assert (found["WorkingDir"], found["User"]) == ("/w/one-two/sub", "x y")
        assert found["Volumes"] == {"/v/one": {}}
        assert not found.get("ExposedPorts")
        assert found["Cmd"] == ["true"]
    finally:
        engine("rm", "known")
        engine("rmi", "knows")


def test_a_commit_of_nothing_has_no_layer(engine: Engine) -> None:
    engine.ok("create", "--name", "idle", "busybox", "true")
    try:
        engine.ok("commit", "idle", "idle")
        [document] = json.loads(engine.ok("image", "inspect", "idle"))
        [below] = json.loads(engine.ok("image", "inspect", "busybox"))
        assert document["RootFS"] == below["RootFS"]
        assert engine.ok("diff", "idle") == ""
    finally:
        engine.ok("rm", "idle")
        engine.ok("rmi", "idle")


@pytest.mark.parametrize("killed", [False, True])
def test_a_container_is_not_started_amid_a_copy(ketch: Engine, run_name: str, killed: bool) -> None:
    """Its start waits for whoever writes to its files, but for nobody who is no more."""
    size_bytes = 2 * 1024 * 1024
    ketch.ok("create", "--name", run_name, "busybox", "sh", "-c", "wc -c < /new; ls /new*")
    header = tarfile.TarInfo("new")
    header.size = size_bytes
    with subprocess.Popen(
        [*ketch.prefix, "cp", "-", f"{run_name}:/"], stdin=subprocess.PIPE
    ) as copy:
        assert copy.stdin is not None
        # More than a pipe holds, so that it is being unpacked when this returns.
        copy.stdin.write(header.tobuf() + bytes(size_bytes // 2))
        copy.stdin.flush()
        with subprocess.Popen(
            [*ketch.prefix, "start", "-a", run_name], stdout=subprocess.PIPE, text=True
        ) as start:
            with pytest.raises(subprocess.TimeoutExpired):
                start.wait(1)
            if killed:
                copy.kill()
            else:
                copy.stdin.write(bytes(size_bytes // 2 + 1024))
            copy.stdin.close()
            said, _ = start.communicate(timeout=30)
            assert start.returncode == 0
            if not killed:
                assert copy.wait(30) == 0
                assert said.split()[0] == str(size_bytes)
    ketch.ok("rm", run_name)


def test_a_start_that_waits_for_a_copy_can_be_called_off(ketch: Engine, run_name: str) -> None:
    ketch.ok("create", "--name", run_name, "busybox", "true")
    header = tarfile.TarInfo("new")
    header.size = 1024 * 1024
    with subprocess.Popen(
        [*ketch.prefix, "cp", "-", f"{run_name}:/"], stdin=subprocess.PIPE
    ) as copy:
        assert copy.stdin is not None
        copy.stdin.write(header.tobuf() + bytes(header.size // 2))
        copy.stdin.flush()
        with subprocess.Popen([*ketch.prefix, "start", "-a", run_name]) as start:
            while not heeds(start.pid, signal.SIGTERM):
                assert start.poll() is None
                time.sleep(0.05)
            with pytest.raises(subprocess.TimeoutExpired):
                start.wait(1)
            start.terminate()
            assert start.wait(30) == 128 + 15
        copy.kill()
    assert ketch.ok("start", "-a", run_name) == ""
    ketch.ok("rm", run_name)


@pytest.mark.ketch_only("its own way to the files of a running container")
@pytest.mark.parametrize("apart", [[], ["--userns", "auto"]], ids=["", "userns"])
def test_an_export_while_it_runs_mounts_nothing_twice(
    ketch: Engine, run_name: str, apart: list[str], tmp_path: pathlib.Path
) -> None:
    """The kernel says so in its log where the same directories are mounted by two overlays."""
    box = f"{run_name}-export"
    script = "mkdir /own; echo x >/own/file; chown 5:6 /own/file; mkdir /own/below; sleep 1000"
    ketch.ok("run", "-d", "--name", box, "--network", "none", *apart, "--tmpfs", "/own/below",
             "-v", "/volume", "busybox", "sh", "-c", script)  # fmt: skip
    for _ in range(100):
        if ketch("exec", box, "test", "-d", "/own/below").status == 0:
            break
    ketch.ok("exec", box, "touch", "/volume/hidden", "/own/below/hidden")
    with open("/dev/kmsg", "rb", buffering=0) as log:
        os.set_blocking(log.fileno(), False)
        os.lseek(log.fileno(), 0, os.SEEK_END)
        ketch.ok("export", "-o", f"{tmp_path}/running.tar", box)
        said = b""
        with contextlib.suppress(BlockingIOError):
            while record := os.read(log.fileno(), 8192):
                said += record
    if not os.environ.get("KETCH_TEST_SHARED"):  # else it may be of others
        assert b"overlayfs" not in said
    place = json.loads(ketch.ok("inspect", "-f", "{{json .GraphDriver.Data}}", box))
    assert sorted(place) == ["LowerDir", "MergedDir", "UpperDir", "WorkDir"]
    assert pathlib.Path(place["MergedDir"], "own", "file").read_text() == "x\n"
    ketch.ok("stop", "-t", "0", box)
    ketch.ok("export", "-o", f"{tmp_path}/stopped.tar", box)
    assert "MergedDir" not in ketch.ok("inspect", "-f", "{{json .GraphDriver.Data}}", box)
    found = []
    for name in ("running", "stopped"):
        with tarfile.open(tmp_path / f"{name}.tar") as archive:
            found.append([(m.name, m.type, m.mode, m.uid, m.gid, m.size) for m in archive])
    assert found[0] == found[1]
    names = {name: (uid, gid) for name, _, _, uid, gid, _ in found[0]}
    assert names["own/file"] == (5, 6)
    assert names["bin/busybox"] == (0, 0)
    assert not [name for name in names if "hidden" in name]
    ketch.ok("rm", "-v", box)


@pytest.mark.ketch_only("docker makes an image of nothing")
@pytest.mark.parametrize("content", [b"", gzip.compress(b"")], ids=["nothing", "compressed"])
def test_what_wrote_no_archive_makes_no_image(ketch: Engine, content: bytes) -> None:
    """``mmdebstrap ... | ketch import -`` where mmdebstrap is missing."""
    refused = ketch("import", "-", "nothing", stdin=content)
    assert refused.status == 1
    assert "the archive is empty" in refused.err
    assert ketch("image", "inspect", "nothing").status == 1
    ketch.ok("import", "-", "scratch", stdin=gzip.compress(bytes(1024)))
    ketch.ok("rmi", "scratch")


@pytest.mark.ketch_only("ketch's words, dockerd's statuses")
def test_a_directory_that_an_archive_loses_has_its_mode(
    ketch: Engine, served_engine: Engine, run_name: str
) -> None:
    """Its way is taken away by a later member: an error, and it is as the archive had it."""
    box = f"{run_name}-lost"
    ketch.ok("run", "-d", "--name", box, "--network", "none", "busybox", "sh", "-c",
             "mkdir -p /run /x/kept; ln -s /run /var/run; exec sleep 1000")  # fmt: skip
    for _ in range(100):
        if ketch("exec", box, "test", "-h", "/var/run").status == 0:
            break
    connection = serving.Connection(pathlib.Path(served_engine.prefix[2].removeprefix("unix://")))

    def put(*members: bytes) -> tuple[int, bytes]:
        path = f"/containers/{box}/archive?path=/"
        return connection.ask("PUT", path, archives.archive(*members))

    lost = archives.member(b"var/run/d", archives.DIRECTORY, mode=0o755, uid=7)
    status, told = put(lost, archives.member(b"var/run", archives.DIRECTORY, mode=0o711))
    assert (status, b"var/run/d" in told) == (500, True)
    assert ketch.ok("exec", box, "stat", "-c", "%a %u", "/run/d") == "755 7"
    # What is at its path in the end is as good, and a directory that stays has its times.
    kept = archives.member(b"x/kept", archives.DIRECTORY, mode=0o2750, mtime=1_000_000_000)
    inner = archives.member(b"x/kept/file", data=b"x")
    other = archives.member(b"x/other", archives.DIRECTORY)
    assert put(kept, inner, other, archives.member(b"x/other", data=b"x"))[0] == 200
    text = ketch.ok("exec", box, "stat", "-c", "%a %Y %F", "/x/kept", "/x/other")
    assert text.splitlines() == ["2750 1000000000 directory", "644 1000000000 regular file"]
    ketch.ok("rm", "-f", box)


@contextlib.contextmanager
def copying_into(
    engine: Engine, target: str, content: bytes
) -> Iterator["subprocess.Popen[bytes]"]:
    """Have a copy into a container stay under way until its input is closed at the block's end."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("held")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    data = archive.getvalue()
    command = [*engine.prefix, "cp", "-", target]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as copy:
        assert copy.stdin is not None
        copy.stdin.write(data[:1024])  # the member's head and the first of its content
        copy.stdin.flush()
        yield copy
        copy.stdin.write(data[1024:])
        copy.stdin.close()
        assert copy.wait(30) == 0


def overlays(engine: Engine, container: str) -> set[str]:
    """Return which overlay file systems of a container's layer are mounted, by device number."""
    directory = f"{engine.prefix[2]}/containers/{container}/"
    found = set()
    for place in pathlib.Path("/proc").glob("[0-9]*/task/[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
                if f"upperdir={directory}" in line or f" {directory}rootfs " in line:
                    found.add(line.split()[2])
    return found


def test_those_who_work_on_a_container_at_rest_have_one_mount_of_its_files(
    ketch: Engine, tmp_path: pathlib.Path
) -> None:
    """Two overlays of one writable layer are undefined, and would not see each other's files.

    Docker has the second wait for the first, and so for ever where the first waits for it.
    """
    engine = ketch
    container = engine.ok(
        "create", "--name", "rest", "-v", "/volume", "busybox", "cat", "/tmp/held"
    )
    (tmp_path / "more").write_text("more")
    try:
        with (
            copying_into(engine, "rest:/tmp", b"1" * 4096),
            copying_into(engine, "rest:/volume", b"2" * 4096),
        ):
            deadline = time.monotonic() + 20
            while not overlays(engine, container) and time.monotonic() < deadline:
                time.sleep(0.05)
            # What one has made, the other sees at once, whoever came first.
            engine.ok("cp", f"{tmp_path}/more", "rest:/root")
            engine.ok("cp", "rest:/root/more", f"{tmp_path}/again")
            assert (tmp_path / "again").read_text() == "more"
            listed = subprocess.run(
                [*engine.prefix, "export", "rest"], check=True, capture_output=True, timeout=30
            ).stdout
            with tarfile.open(fileobj=io.BytesIO(listed)) as tar:
                assert "root/more" in tar.getnames()
            assert len(overlays(engine, container)) == 1
        assert overlays(engine, container) == set()
        assert engine.ok("start", "-a", "rest") == "1" * 4096
        # A copy from one place to the other waits for nobody.
        shell = 'set -o pipefail; "$@" cp rest:/tmp/held - | "$@" cp - rest:/root'
        subprocess.run(["bash", "-c", shell, "bash", *engine.prefix], check=True, timeout=30)
        engine.ok("cp", "rest:/root/held", f"{tmp_path}/held")
        assert (tmp_path / "held").read_bytes() == b"1" * 4096
    finally:
        engine.ok("rm", "-f", "-v", "rest")


def test_what_a_killed_copy_leaves_is_in_nobodys_way(ketch: Engine) -> None:
    engine = ketch
    container = engine.ok("create", "--name", "rest", "busybox", "cat", "/tmp/held")
    try:
        with (
            contextlib.suppress(AssertionError, BrokenPipeError),
            copying_into(engine, "rest:/tmp", b"1" * 4096) as copy,
        ):
            deadline = time.monotonic() + 20
            while not overlays(engine, container) and time.monotonic() < deadline:
                time.sleep(0.05)
            copy.kill()
            copy.wait()
        with copying_into(engine, "rest:/tmp", b"3" * 4096):
            pass
        assert engine.ok("start", "-a", "rest") == "3" * 4096
    finally:
        engine.ok("rm", "-f", "rest")
