"""Forks of a sandbox: the same files, none of them copied, and nobody writes to another's."""

import pathlib
import threading
import time
from collections.abc import Iterator

import pytest

import ketch
from ketch import Sandbox
from ketch.engine.volumes import branches
from ketch.errors import InvalidArgumentError, UnsupportedError

pytestmark = pytest.mark.in_process

PROGRAMS = {place: place for place in ("/usr", "/lib", "/lib64") if pathlib.Path(place).exists()}
needs_python = pytest.mark.skipif(
    not pathlib.Path("/usr/bin/python3").exists(), reason="this machine has no /usr/bin/python3"
)


@pytest.fixture
def sandbox(library: ketch.Engine) -> Iterator[Sandbox]:
    with Sandbox.create("busybox", engine=library, mounts=PROGRAMS, timeout=None) as made:
        yield made


def _used_kib(sandbox: Sandbox) -> int:
    """How much of its own it has in its directory."""
    return int(sandbox.run(["df", "-k", "/workspace"]).text.splitlines()[-1].split()[2])


def _images(library: ketch.Engine) -> set[str]:
    return {image.id for image in library.images.list(all=True)}


def test_what_is_large_is_shared(library: ketch.Engine) -> None:
    before = _images(library)
    with Sandbox.create("busybox", engine=library, memory="96m") as sandbox:
        sandbox.run("dd if=/dev/urandom of=large bs=1M count=64")
        whole = sandbox.run(["md5sum", "large"]).text
        forks = sandbox.fork(2)
        assert _images(library) == before, "its files went through an image"
        try:
            for fork in forks:
                # Each could have no copy of its own: the limit is too low for two in one.
                assert fork.run("md5sum large").text == whole
                assert _used_kib(fork) < 1024
                assert fork.stats()["memory_stats"]["usage"] < 48 << 20
            sandbox.kill()
            assert forks[1].run("md5sum large").text == whole
        finally:
            for fork in forks:
                fork.kill()


def test_each_changes_its_own(sandbox: Sandbox) -> None:
    sandbox.run(
        "mkdir -p d/e; echo one > d/e/file; ln -s e/file d/link; ln d/e/file d/hard; mkfifo fifo;"
        "chmod 640 d/e/file; chmod 750 d; echo gone > gone; echo kept > kept; echo t > /tmp/t;"
        "touch -d '2001-02-03 04:05:06' kept; chmod 711 ."
    )
    look = (
        "stat -c '%n %F %a %u %g %s %Y' . d d/e/file d/link d/hard fifo kept /tmp/t | sort;"
        "cat d/link gone"
    )
    seen = sandbox.run(look).text.replace(" 80 ", " ")
    one, two = sandbox.fork(2)
    with one, two:
        for each in (one, two):
            assert [line.split()[:5] for line in each.run(look).text.splitlines()] == [
                line.split()[:5] for line in seen.splitlines()
            ]
        assert one.run("stat -c %Y kept").text == sandbox.run("stat -c %Y kept").text
        assert one.run("rm gone; echo two >> d/e/file; mv d moved; rm -r /tmp/t").status == 0
        assert sandbox.run("echo three > d/e/file; mkdir gone.d; echo x > d/e/new").status == 0
        assert one.run("cat moved/e/file; ls; ls /tmp").text == "one\ntwo\nfifo\nkept\nmoved\n"
        assert two.run("cat d/e/file; ls d/e; cat gone /tmp/t").text == "one\nfile\ngone\nt\n"
        assert sandbox.run("cat d/e/file; ls d/e; cat gone").text == "three\nfile\nnew\ngone\n"


def test_forks_of_forks_have_all_that_came_before(sandbox: Sandbox, library: ketch.Engine) -> None:
    before = _images(library)
    line = [sandbox]
    try:
        for number in range(5):
            line[-1].run(f"echo {number} > file{number}; echo {number} >> all; rm -f file0")
            line += line[-1].fork()
        sandbox.run("echo own > own")
        assert line[-1].run("ls; cat all").text == (
            "all\nfile1\nfile2\nfile3\nfile4\n0\n1\n2\n3\n4\n"
        )
        # The first one has been parted once, and has files since: it can be again.
        line += sandbox.fork()
        assert line[-1].run("ls; cat all").text == "all\nown\n0\n"
        assert _images(library) == before
    finally:
        for one in line[1:]:
            one.kill()


def test_what_is_as_it_was_is_no_layer_more(sandbox: Sandbox) -> None:
    sandbox.run("echo x > file")
    for _ in range(3):
        for fork in sandbox.fork():
            fork.kill()
    layers = [line for line in sandbox.run(["cat", "/proc/mounts"]).text.splitlines()
              if f" {branches.PLACE}/" in line]  # fmt: skip
    assert len(layers) == 2, "one that is shared, and one to write to"


def test_there_are_only_so_many_layers(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "_LAYERS_MAX", 2)
    for number in range(3):
        sandbox.run(f"echo {number} > file{number}")
        (fork,) = sandbox.fork()
        with fork:
            assert fork.run("cat file*").text == "".join(f"{one}\n" for one in range(number + 1))


_AT_WORK = {
    # Python's own mmap keeps the descriptor.
    "mapping": "import ctypes, os\nfile = os.open('file', os.O_RDWR | os.O_CREAT)\n"
    "os.write(file, bytes(4096))\nlibc = ctypes.CDLL(None)\n"
    "libc.mmap.restype = ctypes.c_void_p\n"
    "where = libc.mmap(None, ctypes.c_size_t(4096), 3, 1, file, ctypes.c_long(0))\n"
    "os.close(file)\nos.chdir('/')\n"
    "def write(number): ctypes.c_int.from_address(where).value = number\n",
    "descriptor": "import os\nfile = os.open('file', os.O_WRONLY | os.O_CREAT)\nos.chdir('/')\n"
    "def write(number): os.write(file, b'x')\n",
    "directory": "def write(number):\n"
    "    with open('file', 'w') as file: file.write(str(number))\n",
}


@needs_python
@pytest.mark.parametrize("held", _AT_WORK)
def test_nobody_who_is_at_work_writes_to_another_s_files(sandbox: Sandbox, held: str) -> None:
    """Nor does he lose what he has in hand."""
    loop = "import time\nfor number in range(100000):\n    write(number)\n    time.sleep(0.001)\n"
    loop += "    if number == 9: print('ready', flush=True)\n"
    sandbox.run("echo early > early")
    for early in sandbox.fork():  # what is mapped of an overlay, the kernel counts elsewhere
        early.kill()
    session = sandbox.start(["python3", "-c", _AT_WORK[held] + loop])
    next(iter(session))
    (fork,) = sandbox.fork()
    with fork:
        first = fork.run(["md5sum", "file"]).text
        before = sandbox.run(["md5sum", "file"]).text
        time.sleep(0.5)
        assert fork.run(["md5sum", "file"]).text == first
        assert sandbox.run(["md5sum", "file"]).text != before, "it goes on"
        assert fork.run("echo mine > mine").status == 0
        assert sandbox.run(["ls"]).text == "early\nfile\n"
    session.kill()


def test_its_layers_are_closed_to_it(library: ketch.Engine) -> None:
    with Sandbox.create("busybox", engine=library, user="0") as root:
        root.run("echo mine > file")
        (fork,) = root.fork()
        with fork:
            for each in (root, fork):
                for attempt in ("ls {0}", "cat {0}/*/file", "touch {0}/x", "umount {0}",
                                "rmdir {0}", "mount -o remount,rw {0}"):  # fmt: skip
                    assert each.run(attempt.format(branches.PLACE)).status != 0, attempt
                assert each.run(["umount", "/workspace"]).status != 0


@pytest.mark.parametrize("trap", ["mkdir {0}", "ln -s /tmp {0}", "touch {0}"])
def test_what_it_puts_in_the_layers_place_is_not_touched(library: ketch.Engine, trap: str) -> None:
    with Sandbox.create("busybox", engine=library, user="0") as root:
        made = root.run(f"echo mine > file; {trap.format(branches.PLACE)}; ls -la /dev /tmp")
        record = library._places.engine.containers.find(root.id)
        with pytest.raises(UnsupportedError):
            branches.part(library._places.engine, record)
        (fork,) = root.fork()
        with fork:
            assert fork.run(["cat", "file"]).text == "mine\n"
        assert root.run("ls -la /dev /tmp").text.splitlines()[1:4] == made.text.splitlines()[1:4]


def test_what_is_mounted_within_stays_there(library: ketch.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "file").write_text("host's\n")
    (tmp_path / "one").write_text("one\n")
    mounts = {str(tmp_path / "seen"): "/workspace/deep/er", str(tmp_path / "one"): "/tmp/one"}
    before = _images(library)
    with Sandbox.create("busybox", engine=library, mounts=mounts) as sandbox:
        sandbox.run("echo x > own; echo x > /tmp/own")
        (fork,) = sandbox.fork()
        with fork:
            assert _images(library) == before
            for each in (sandbox, fork):
                assert each.run("cat deep/er/file own /tmp/one /tmp/own").text == (
                    "host's\nx\none\nx\n"
                )
                assert each.run("echo x > deep/er/file").status != 0


def test_a_root_that_was_written_to_is_forked_too(library: ketch.Engine) -> None:
    before = _images(library)
    with Sandbox.create("busybox", engine=library, user="0", read_only=False) as sandbox:
        sandbox.run("echo root > /etc/mine; echo x > file")
        (fork,) = sandbox.fork()
        with fork:
            assert fork.run("cat /etc/mine file; echo other > /etc/mine").text == "root\nx\n"
        assert sandbox.run(["cat", "/etc/mine"]).text == "root\n"
    assert _images(library) == before


def test_a_project_s_changes_are_forked_too(library: ketch.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("one\n")
    (tmp_path / "gone").write_text("x\n")
    with Sandbox.host(tmp_path, engine=library) as sandbox:
        sandbox.run("echo two >> file; rm gone; mkdir d; echo x > d/new; echo t > /tmp/t")
        (fork,) = sandbox.fork()
        with fork:
            assert fork.run("cat file /tmp/t; ls; echo three >> file").text == (
                "one\ntwo\nt\nd\nfile\n"
            )
            assert [one.path for one in fork.changes()] == ["d", "d/new", "file", "gone"]
        assert sandbox.run(["cat", "file"]).text == "one\ntwo\n"
    assert (tmp_path / "file").read_text() == "one\n"


def test_who_watches_hears_of_what_comes_after(sandbox: Sandbox) -> None:
    told: list[tuple[str, str]] = []

    def watch() -> None:
        told.extend((event.kind, event.path) for event in sandbox.files.watch())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    deadline = time.monotonic() + 30
    while not told:
        assert time.monotonic() < deadline
        sandbox.run("echo x > first")
    for fork in sandbox.fork():
        fork.kill()
    while ("lost", "/workspace") not in told:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while ("created", "/workspace/after") not in told:
        assert time.monotonic() < deadline
        sandbox.run("rm -f after; echo x > after")


def test_many_fork_it_at_once(sandbox: Sandbox, library: ketch.Engine) -> None:
    before = _images(library)
    sandbox.run("echo x > file")
    made: list[Sandbox] = []
    failed: list[BaseException] = []

    def fork() -> None:
        try:
            made.extend(sandbox.fork())
        except BaseException as error:  # noqa: BLE001 - looked at below
            failed.append(error)

    threads = [threading.Thread(target=fork) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert not failed
        assert [one.run(["cat", "file"]).text for one in made] == ["x\n"] * 4
    finally:
        for one in made:
            one.kill()
    assert _images(library) == before


def test_fewer_than_none_are_refused(sandbox: Sandbox) -> None:
    assert sandbox.fork(0) == []
    with pytest.raises(InvalidArgumentError, match="count=-1"):
        sandbox.fork(-1)
