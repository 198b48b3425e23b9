"""Programs in a sandbox that mean ill: what they fill, flood, outwait and forge."""

import os
import pathlib
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator

import pytest

import ketch
from ketch import Sandbox
from ketch.errors import InvalidArgumentError, KetchError, NotFoundError
from tests.support.commands import Engine as Command

pytestmark = pytest.mark.in_process

PROGRAMS = {place: place for place in ("/usr", "/lib", "/lib64") if pathlib.Path(place).exists()}
needs_python = pytest.mark.skipif(
    not pathlib.Path("/usr/bin/python3").exists(), reason="this machine has no /usr/bin/python3"
)


@pytest.fixture(scope="module")
def sandbox(ketch_engine: Command) -> Iterator[Sandbox]:
    options = list(ketch_engine.prefix)
    root, state = (options[options.index(name) + 1] for name in ("--root", "--state"))
    library = ketch.Engine(root, state)
    with Sandbox.create(
        "busybox", engine=library, mounts=PROGRAMS, timeout=None, memory="128m", disk="16m", pids=64
    ) as made:
        yield made


@pytest.mark.parametrize(
    "script",
    [
        "trap '' TERM INT HUP QUIT PIPE; while :; do sleep 1; done",
        "kill -STOP $$",
        "(while :; do :; done) & (while :; do :; done) & kill -STOP $$",
        "b() { b | b & }; b; kill -STOP $$",
        "for i in 1 2 3 4 5 6 7 8; do (trap '' TERM; exec sleep 1000) & done; wait",
        "exec 1>&- 2>&- 0<&-; sleep 1000",
    ],
    ids=["ignores", "stops", "spins", "bombs", "crowd", "silent"],
)
def test_nothing_outwaits_its_time(sandbox: Sandbox, script: str) -> None:
    begun = time.monotonic()
    told = sandbox.run(script, timeout=1)
    assert (told.timed_out, told.status) == (True, 137)
    assert time.monotonic() - begun < 60
    left = sandbox.run("ps -o comm,stat | grep -c -e sleep -e '^sh .*T' || true")
    assert left.text == "0\n", sandbox.run(["ps"]).text
    assert sandbox.run(["true"]).status == 0


@pytest.mark.parametrize("stream", ["", " >&2"])
def test_a_flood_is_cut_off(sandbox: Sandbox, stream: str) -> None:
    begun = time.monotonic()
    told = sandbox.run(f"cat /dev/zero{stream}", max_output=1 << 20, timeout=60)
    assert (told.truncated, len(told.stdout) + len(told.stderr)) == (True, 1 << 20)
    assert time.monotonic() - begun < 60
    both = sandbox.run("cat /dev/zero & cat /dev/zero >&2", max_output=1 << 20, timeout=60)
    assert len(both.stdout) + len(both.stderr) == 1 << 20


def test_what_fills_the_disk_fills_its_own(sandbox: Sandbox, ketch_engine: Command) -> None:
    root = ketch_engine.prefix[list(ketch_engine.prefix).index("--root") + 1]

    def taken_kib() -> int:
        words = ["du", "-skx", root]
        return int(subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout.split()[0])

    before_kib = taken_kib()
    for place in ("/workspace", "/tmp", "/dev/shm"):
        told = sandbox.run(f"cd {place} && dd if=/dev/zero of=big bs=1M count=100")
        assert b"No space left on device" in told.stderr, place
        assert taken_kib() < before_kib + 64 * 1024, place
        inodes = sandbox.run(f"cd {place}; rm -f big; i=0;"
                             " while mkdir d$i 2>/dev/null && [ $i -lt 5000 ];"
                             " do i=$((i+1)); done; echo $i; rm -rf d*")  # fmt: skip
        if place != "/dev/shm":
            assert int(inodes.text) < 5000, place
    assert sandbox.run("echo x > ok; cat ok").text == "x\n"


@needs_python
def test_who_eats_all_memory_dies_and_the_sandbox_goes_on(sandbox: Sandbox) -> None:
    sandbox.run("dd if=/dev/zero of=/tmp/kept bs=1M count=12")
    for _ in range(2):
        eater = sandbox.run(["python3", "-c", "x = [bytearray(1 << 20) for _ in range(1000)]"])
        assert (eater.status, eater.oom_killed) == (137, True)
    assert sandbox.is_running
    sandbox.run("rm /tmp/kept")


@needs_python
def test_downloads_bring_nothing_but_what_is_there(
    sandbox: Sandbox, tmp_path: pathlib.Path
) -> None:
    """Names that look like paths, links to the host's files, setuid, pipes, depth."""
    outside = tmp_path / "outside"
    outside.write_text("the caller's")
    done = sandbox.run_code(
        "import os\nos.makedirs('evil/sub')\nos.chdir('evil')\n"
        f"os.symlink({str(outside)!r}, 'link')\nos.symlink({str(tmp_path)!r}, 'dir')\n"
        "os.symlink('..', 'sub/up')\nos.mkfifo('pipe')\n"
        "open('..name', 'w').write('x')\nopen('-rf', 'w').write('x')\n"
        "open('new\\nline', 'w').write('x')\nopen(b'\\xff\\xfe', 'w').write('x')\n"
        "open('suid', 'w').write('x'); os.chmod('suid', 0o6777)\n"
        "os.link('suid', 'hard')\n"
        "here = os.open('.', os.O_RDONLY)\n"
        "for _ in range(300):\n    os.mkdir('deep'); os.chdir('deep')\n"
        "os.fchdir(here)"
    )
    assert done.error is None, done
    target = tmp_path / "target"
    target.mkdir()
    (target / "evil").symlink_to(tmp_path)  # what a name of the guest's could be led by
    with pytest.raises(KetchError):
        sandbox.files.download("evil", target)
    assert sorted(os.listdir(tmp_path)) == ["outside", "target"]
    (target / "evil").unlink()
    sandbox.files.download("evil", target)
    assert outside.read_text() == "the caller's"
    found = target / "evil"
    assert (found / "link").is_symlink()
    assert (found / "..name").read_text() == "x"
    assert (found / "suid").stat().st_uid == os.getuid()
    assert stat.S_IMODE((found / "suid").stat().st_mode) == 0o777, "it would run as the caller"
    assert stat.S_IMODE((found / "hard").stat().st_mode) == 0o777
    assert stat.S_ISFIFO((found / "pipe").lstat().st_mode)
    outside.write_text("the caller's")
    for path in ("evil/link", "evil/dir/outside", "evil/pipe"):
        with pytest.raises((InvalidArgumentError, KetchError)):
            sandbox.files.read(path)
    names = {entry.path for entry in sandbox.files.list("evil")}
    assert "/workspace/evil/new\nline" in names
    sandbox.files.remove("evil")


@needs_python
def test_a_directory_is_listed_whatever_is_below_it(sandbox: Sandbox) -> None:
    """Of that nothing is read: not a path that is longer than any can be, nor much of it."""
    sandbox.run(
        "mkdir -p seen/much && cd seen && dd if=/dev/zero of=much/x bs=1M count=12; ln -s a l;"
        " echo x > f; ln f h; ln -s /proc/self/environ env; mkfifo p"
    )
    deep = "import os\nfor _ in range(30): os.mkdir('d' * 200); os.chdir('d' * 200)"
    assert sandbox.run(["python3", "-c", deep], cwd="/workspace/seen").status == 0
    found = {os.path.basename(one.path): one for one in sandbox.files.list("seen")}
    assert {name: one.kind for name, one in found.items()} == {
        "much": "directory", "d" * 200: "directory", "l": "link", "env": "link", "f": "file",
        "h": "file", "p": "other",
    }  # fmt: skip
    assert (found["h"].size, found["l"].target) == (2, "a")
    assert all(sandbox.files.stat(f"seen/{name}") == found[name] for name in ("much", "l", "p"))
    with pytest.raises(NotFoundError):
        sandbox.files.read("seen/env")
    with pytest.raises(KetchError):
        sandbox.files.list("seen/f")
    gone = sandbox.run(["python3", "-c", "import shutil; shutil.rmtree('seen')"])
    assert gone.status == 0, gone


@needs_python
def test_an_archive_of_the_guest_s_making_is_a_file(
    sandbox: Sandbox, tmp_path: pathlib.Path
) -> None:
    """A file that is a tar archive with paths out of it is a file, however it is carried."""
    made = sandbox.run_code(
        "import io, tarfile\n"
        "with tarfile.open('evil.tar', 'w') as archive:\n"
        "    member = tarfile.TarInfo('../../../tmp/escaped'); member.size = 1\n"
        "    archive.addfile(member, io.BytesIO(b'x'))\n",
        context="archive",
    )
    assert made.error is None, made
    sandbox.files.download("evil.tar", tmp_path)
    assert os.listdir(tmp_path) == ["evil.tar"]
    with tarfile.open(tmp_path / "evil.tar") as archive:
        assert archive.getnames() == ["../../../tmp/escaped"]
