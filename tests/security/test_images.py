"""Images whose files are hostile to whoever unpacks, reads or executes them on the host."""

import os
import pathlib
import pty
import stat
import subprocess
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable

import pytest

import ketch as ketch_package
from ketch.linux import beneath
from tests.security.hostile import PYTHON, UP, make_image
from tests.support.archives import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    SYMLINK,
    archive,
    member,
)
from tests.support.commands import Engine

OUT = UP[1:].encode()
EVIL = b"evil"


@pytest.fixture
def victim(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a file of the host, which no image may read or change."""
    path = tmp_path / "victims" / "victim"
    path.parent.mkdir()
    path.write_text("untouched", encoding="ascii")
    return path


# Members made from the victim's path and its directory's.
ATTACKS: dict[str, Callable[[bytes, bytes], list[bytes]]] = {
    "dots": lambda file, _: [member(OUT + file, data=EVIL)],
    "absolute": lambda file, _: [member(file, data=EVIL)],
    "through a symlink": lambda _, top: [
        member(b"l", SYMLINK, link=top), member(b"l/victim", data=EVIL)],
    "through dots": lambda _, top: [
        member(b"l", SYMLINK, link=OUT + top), member(b"l/victim", data=EVIL)],
    "over a symlink": lambda file, _: [
        member(b"l", SYMLINK, link=file), member(b"l", data=EVIL)],
    "hard link": lambda file, _: [member(b"l", HARD_LINK, link=file), member(b"l", data=EVIL)],
    "hard link through dots": lambda file, _: [
        member(b"l", HARD_LINK, link=OUT + file), member(b"l", data=EVIL)],
    "hard link to a symlink": lambda file, _: [
        member(b"l", SYMLINK, link=file), member(b"h", HARD_LINK, link=b"l"),
        member(b"h", data=EVIL)],
    "hard link through a symlink": lambda _, top: [
        member(b"l", SYMLINK, link=top), member(b"h", HARD_LINK, link=b"l/victim"),
        member(b"h", data=EVIL)],
    "whiteout": lambda _, top: [member(OUT + top + b"/.wh.victim")],
    "whiteout through a symlink": lambda _, top: [
        member(b"l", SYMLINK, link=top), member(b"l/.wh.victim")],
    "opaque through a symlink": lambda _, top: [
        member(b"l", SYMLINK, link=top), member(b"l/.wh..wh..opq")],
    "whiteout of the parent": lambda _, __: [member(b".wh..."), member(b"a/.wh...")],
    "the root as a symlink": lambda _, top: [
        member(b".", SYMLINK, link=top), member(b"victim", data=EVIL)],
    "directory over a symlink": lambda _, top: [
        member(b"l", SYMLINK, link=top), member(b"l", DIRECTORY, mode=0o777),
        member(b"l/victim", data=EVIL)],
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_unpacking_leaves_the_layer_alone(ketch: Engine, victim: pathlib.Path, name: str) -> None:
    """CVE-2014-9357, CVE-2018-15664 and kin: a member's name or link leads to the host.

    Every name is resolved beneath the layer's descriptor, and links are members, not ways.
    """
    members = ATTACKS[name](os.fsencode(victim), os.fsencode(victim.parent))
    before = _facts(victim)
    if ketch("import", "-", "hostile", stdin=archive(*members)).status == 0:
        make_image(ketch, "hostile", *members)
        # What it brought is inside, at most.
        ketch("run", "--rm", "--network", "none", "hostile", "cat", str(victim))
    assert _facts(victim) == before


def test_a_trusting_unpacker_is_led_out(victim: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The archives are sound: tarfile, told to trust, writes through the symlink."""
    path = tmp_path / "layer.tar"
    path.write_bytes(archive(*ATTACKS["through a symlink"](b"", os.fsencode(victim.parent))))
    with tarfile.open(path) as layer:
        layer.extraction_filter = lambda entry, _path: entry  # what Python before 3.12 does
        layer.extractall(tmp_path / "layer")
    assert victim.read_text(encoding="ascii") == "evil"


def _facts(victim: pathlib.Path) -> list[object]:
    listing: list[object] = [*sorted(os.listdir(victim.parent))]
    for path in (victim, victim.parent):
        status = path.lstat()
        listing.append((status.st_mode, status.st_ino, status.st_nlink, status.st_ctime_ns))
    return [*listing, victim.read_bytes()]


@pytest.mark.root_engine("an ordinary user's image has no device nodes")
def test_device_nodes_of_an_image(ketch: Engine) -> None:
    """An image brings the host's disk and memory as files: opening them is what is refused."""
    make_image(ketch, "nodes",
               member(b"disk", BLOCK, device=(7, 0), mode=0o666),
               member(b"mem", CHARACTER, device=(1, 1), mode=0o666),
               member(b"loop", CHARACTER, device=(10, 237), mode=0o666))  # fmt: skip
    script = "for name in disk mem loop; do (: </$name) 2>/dev/null && echo $name; done; echo tried"
    assert ketch.ok("run", "--rm", "--network", "none", "nodes", "sh", "-c", script) == "tried"
    allowed = ketch.ok("run", "--rm", "--network", "none", "--device-cgroup-rule", "c 10:237 r",
                       "nodes", "sh", "-c", script)  # fmt: skip
    assert allowed.split() == ["loop", "tried"], "it is not our rule that refuses"


@pytest.mark.root_engine("the test opens an engine of root's own")
def test_users_of_the_host_cannot_reach_an_images_setuid_program(
    ketch: Engine, run_name: str
) -> None:
    """An image's setuid root program is one on the host too, for whoever gets at its path."""
    with tempfile.TemporaryDirectory(prefix=f"{run_name}-") as name:
        top = pathlib.Path(name)
        top.chmod(0o755)
        engine = Engine(
            "ketch", [ketch.prefix[0], "--root", f"{top}/root", "--state", f"{top}/run"]
        )
        make_image(engine, "setuid", member(b"bin/suid", data=b"#!/bin/sh\n", mode=0o4755))
        (program,) = top.rglob("suid")
        assert program.stat().st_mode & 0o4000, "it was not unpacked"
        assert _files_seen_by_nobody(top / "root") == 0
        # Were ketch's own directories open, it could be executed.
        for directory in program.parents[: len(program.relative_to(top).parts)]:
            directory.chmod(0o755)
        assert _files_seen_by_nobody(top / "root") > 0


def _files_seen_by_nobody(top: pathlib.Path) -> int:
    walk = "import os, sys; print(sum(len(names) for _, _, names in os.walk(sys.argv[1])))"
    done = subprocess.run(
        [PYTHON, "-I", "-S", "-c", walk, str(top)], check=True, capture_output=True, text=True,
        user=65534, group=65534, extra_groups=[],
    )  # fmt: skip
    return int(done.stdout)


HUGE = b"x:x:1:1::/:\n" * 200_000
ACCOUNTS = {
    "huge": [member(b"etc/passwd", data=HUGE), member(b"etc/group", data=HUGE)],
    "one long line": [member(b"etc/passwd", data=b"root:" * 1_000_000)],
    "no text": [member(b"etc/passwd", data=bytes(range(256)) * 100)],
    "NUL in the home": [member(b"etc/passwd", data=b"root:x:0:0:root:/ro\0ot:/bin/sh\n")],
    "strange digits": [member(b"etc/passwd", data="root:x:²:٣:root:/root:/bin/sh\n".encode())],
    "endless number": [member(b"etc/passwd", data=b"root:x:" + b"9" * 9000 + b":0::/:\n")],
    "fifo": [member(b"etc/passwd", FIFO), member(b"etc/group", FIFO)],
    "directory": [member(b"etc/passwd", DIRECTORY), member(b"etc/group", DIRECTORY)],
    "zeros": [member(b"etc/passwd", CHARACTER, device=(1, 5))],
    "symlink to a fifo": [member(b"etc/passwd", SYMLINK, link=b"/tmp/fifo"),
                          member(b"tmp/fifo", FIFO)],
    "symlink to itself": [member(b"etc/passwd", SYMLINK, link=b"passwd")],
    "symlink into proc": [member(b"etc/passwd", SYMLINK, link=b"/proc/self/fd/0")],
}  # fmt: skip


@pytest.mark.root_engine("an ordinary user's image has no device nodes", of="zeros")
@pytest.mark.parametrize("options", [(), ("--user", "root"), ("--user", "7:7")])
@pytest.mark.parametrize("name", ACCOUNTS)
def test_account_files(ketch: Engine, name: str, options: tuple[str, ...]) -> None:
    """A container's /etc/passwd is read by the host's root: it must not hang, crash or be obeyed.

    Read without blocking, up to a size, and only where it is a regular file.
    """
    without = ("etc/passwd", "etc/group")
    make_image(ketch, "accounts", *ACCOUNTS[name], without=without)
    began = time.monotonic()
    result = ketch("run", "--rm", "--network", "none", *options, "accounts", "true", timeout=15)
    assert time.monotonic() - began < 10
    assert result.status in {0, 125}, str(result)
    assert "internal error" not in result.err, str(result)
    if options != ("--user", "root"):  # a name needs an entry, and a number none
        assert result.status == 0, str(result)


def test_account_files_are_the_images(ketch: Engine, victim: pathlib.Path) -> None:
    """A symlink at /etc/passwd leads to the image's files, not to the host's accounts."""
    victim.write_text("secret:x:4711:4711::/:/bin/sh\n", encoding="ascii")
    link = member(b"etc/passwd", SYMLINK, link=OUT + os.fsencode(victim))
    make_image(ketch, "accounts", link, without=("etc/passwd",))
    result = ketch("run", "--rm", "--network", "none", "-u", "secret", "accounts", "id", "-u")
    assert result.status == 125
    assert "4711" not in result.out


@pytest.mark.parametrize("kind", ["device", "fifo", "directory", "terminal", "nothing"])
def test_account_files_that_are_none_stay_unopened(tmp_path: pathlib.Path, kind: str) -> None:
    """The monitor, whom no device rule holds, would open an image's /etc/passwd that is a device.

    A watchdog's, opened and closed, restarts the machine; a terminal becomes its opener's.
    """
    path = tmp_path / "passwd"
    master, slave = pty.openpty()
    if kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        assert path.open("rb").read(1) == b"\0", "device nodes do not work here"
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "terminal":
        os.mknod(path, stat.S_IFCHR | 0o666, os.fstat(slave).st_rdev)
    root = os.open(tmp_path, os.O_PATH)
    try:
        assert beneath.read_file(root, "/passwd", 10) == b""
        (tmp_path / "regular").write_bytes(b"0123456789abcdef")
        assert beneath.read_file(root, "/regular", 10) == b"0123456789"
    finally:
        for descriptor in (root, master, slave):
            os.close(descriptor)


def test_an_image_in_the_place_of_ketchs_own_modules(ketch: Engine, shared: pathlib.Path) -> None:
    """CVE-2019-14271: a helper of docker cp loaded its libraries from the container it worked on.

    All is loaded before the root changes, and import is switched off.
    """
    evil = b"open('/shared/evil', 'a').close()\n"
    places = [sysconfig.get_paths()["stdlib"], os.path.dirname(ketch_package.__file__)]
    members = [
        member(os.fsencode(os.path.relpath(path, "/")), data=evil)
        for place in places
        for path in sorted(pathlib.Path(place).rglob("*.py"))
        if "test" not in path.parts and "site-packages" not in path.parts
    ]
    assert len(members) > 500
    make_image(ketch, "modules", *members)
    volume = ["--network", "none", "-v", f"{shared}:/shared"]
    ketch.ok("run", "-d", "--name", "held", *volume, "modules", "sleep", "1000")
    for words in (["run", "--rm", *volume, "modules"], ["exec", "held"]):
        for program in ("true", "/nowhere", "/etc/passwd", "/tmp"):
            ketch(*words, program)
        ketch(
            "run", "--rm", *volume, "--user", "nobody", "-w", "/proc/self/fd/9", "modules", "true"
        )
    ketch("run", "--rm", "--init", *volume, "modules", "true")
    ketch.ok("rm", "-f", "held")
    assert list(shared.iterdir()) == []


PROGRAMS = {
    "fifo": member(b"bin/evil", FIFO, mode=0o755),
    "null device": member(b"bin/evil", CHARACTER, device=(1, 3), mode=0o755),
    "directory": member(b"bin/evil", DIRECTORY, mode=0o755),
    "itself": member(b"bin/evil", SYMLINK, link=b"evil", mode=0o777),
    "symlink to a fifo": member(b"bin/evil", SYMLINK, link=b"/tmp/fifo", mode=0o777),
    "ELF with wild offsets": member(
        b"bin/evil", data=b"\x7fELF\x02\x01\x01" + bytes(9) + b"\xff" * 4000, mode=0o755),
    "ELF with a wild loader": member(
        b"bin/evil", mode=0o755,
        data=b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00\x01\x00\x00\x00"
        + bytes(8) + (64).to_bytes(8, "little") + bytes(14) + (56).to_bytes(2, "little")
        + (1).to_bytes(2, "little") + bytes(6) + (3).to_bytes(4, "little") + bytes(4)
        + b"\xff" * 24 + b"\xff" * 24),
    "script of itself": member(b"bin/evil", data=b"#!/bin/evil\n", mode=0o755),
    "script of a fifo": member(b"bin/evil", data=b"#!/tmp/fifo\n", mode=0o755),
    "script with escapes": member(b"bin/evil", data=b"#!/\x1b]0;evil\x07\x1b[2J\n", mode=0o755),
}  # fmt: skip


@pytest.mark.root_engine("an ordinary user's image has no device nodes", of="null device")
@pytest.mark.parametrize("how", ["run", "exec"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_cannot_be_executed(ketch: Engine, name: str, how: str) -> None:
    """ketch reads the program to say why it was refused: that must neither hang nor crash it."""
    make_image(ketch, "programs", PROGRAMS[name], member(b"tmp/fifo", FIFO, mode=0o755))
    if how == "run":
        words = ["run", "--rm", "--network", "none", "programs", "/bin/evil"]
    else:
        ketch.ok("run", "-d", "--name", "held", "--network", "none", "programs", "sleep", "1000")
        words = ["exec", "held", "/bin/evil"]
    try:
        result = ketch(*words, timeout=10)
    finally:
        if how == "exec":
            ketch.ok("rm", "-f", "held")
    assert result.status in {126, 127}, str(result)
    assert "/bin/evil" in result.err
    assert "\x1b" not in result.err, "an image writes to the caller's terminal by our messages"
