"""``ketch lab``, and the course that is taught in it: every command of every page."""

import dataclasses
import os
import pathlib
import shlex
import sys
from collections.abc import Iterator

import pytest

from ketch.cli import lab as lab_command
from tests.support import course, images
from tests.support.commands import Engine, finish

pytestmark = [
    pytest.mark.timeout(900),  # where the lab's image is made
    pytest.mark.root_engine("the lab is root's"),
]


MAKER = """#!/bin/sh
echo "$*" >> {directory}/asked
[ -e {directory}/broken ] && {{ echo "E: no mirror" >&2; exit 25; }}
exec cat {archive}
"""


@pytest.fixture
def maker(ketch: Engine, tmp_path: pathlib.Path) -> Iterator[Engine]:
    """Return ketch where mmdebstrap writes a root file system of busybox alone."""
    ketch.ok("lab", "--rm")
    program = tmp_path / "mmdebstrap"
    program.write_text(MAKER.format(directory=tmp_path, archive=images.busybox_archive()))
    program.chmod(0o755)
    yield dataclasses.replace(ketch, environment={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    ketch.ok("lab", "--rm")


def test_it_is_made_once_and_gone_on_with(maker: Engine, tmp_path: pathlib.Path) -> None:
    volumes = set(maker.ok("volume", "ls", "-q").split())
    first = maker("lab", "--mirror", "http://mirror.test/debian", "sh", "-c",
                  "hostname; touch /lab/mine; ls /opt/ketch/ketch/errors.py; exit 3")  # fmt: skip
    assert (first.status, first.out) == (3, "lab\n/opt/ketch/ketch/errors.py\n")
    asked = (tmp_path / "asked").read_text()
    assert "deb http://mirror.test/debian bookworm main" in asked
    assert "busybox-static" in asked
    assert maker.ok("lab", "--", "ls", "/lab") == "mine"
    assert maker("lab", "touch", "/opt/ketch/ketch/errors.py").status != 0
    maker.ok("stop", "ketch-lab")
    assert maker.ok("lab", "ls", "/lab") == "mine"
    maker.ok("pause", "ketch-lab")
    assert maker.ok("lab", "ls", "/lab") == "mine"
    assert maker.ok("lab", "--fresh", "ls", "/lab") == ""
    assert (tmp_path / "asked").read_text() == asked, "the image was made again"
    maker.ok("lab", "--rm")
    assert "ketch-lab" not in maker.ok("ps", "-a") + maker.ok("images")
    assert set(maker.ok("volume", "ls", "-q").split()) == volumes


def test_at_a_terminal_it_is_a_shell(maker: Engine) -> None:
    terminal = maker.terminal("lab", "sh")
    terminal.expect("# ")
    terminal.sendline("tty; pwd; exit 4")
    terminal.expect("/dev/pts/[0-9]+")
    terminal.expect("/lab")
    assert finish(terminal) == 4


def test_a_maker_that_fails_leaves_no_lab(maker: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "broken").touch()
    failed = maker("lab", "--mirror", "http://mirror.test/debian", "true")
    assert (failed.status, failed.out) == (1, "")
    assert "E: no mirror" in failed.err
    assert (
        "mmdebstrap could not make a Debian bookworm of packages from http://mirror" in failed.err
    )
    assert "--mirror" in failed.err
    assert "ketch-lab" not in maker.ok("ps", "-a") + maker.ok("images", "-a")
    (tmp_path / "broken").unlink()
    maker.ok("lab", "true")


def test_without_mmdebstrap_it_says_where_that_is(ketch: Engine, tmp_path: pathlib.Path) -> None:
    bare = dataclasses.replace(ketch, environment={"PATH": str(tmp_path)})
    result = bare("lab")
    assert (result.status, result.out) == (1, "")
    assert "mmdebstrap, which is not installed here" in result.err
    assert "package mmdebstrap" in result.err


def test_a_stranger_of_its_name_is_left_alone(ketch: Engine) -> None:
    ketch.ok("create", "--name", "ketch-lab", "busybox", "true")
    for words in (["true"], ["--rm"], ["--fresh", "true"]):
        result = ketch("lab", *words)
        assert result.status == 1
        assert "that is no lab" in result.err
    ketch.ok("rm", "ketch-lab")
    assert "nothing can be run in it then" in ketch("lab", "--rm", "true").err


@pytest.fixture(scope="module")
def lab(ketch_engine: Engine) -> Iterator[course.Shell]:
    """Return a shell in a new lab in which the course's first page has been typed."""
    try:
        archive = images.lab_archive()
    except images.CannotMakeError as error:
        pytest.skip(str(error))
    ketch_engine.ok("import", str(archive), lab_command.image(), timeout=200)
    # What a terminal would show in one order comes by one stream.
    shell = course.Shell([*ketch_engine.prefix, "lab", "sh", "-c", "exec bash 2>&1"])
    try:
        _try(shell, "README.md", "")
        yield shell
    finally:
        shell.end()
        ketch_engine("lab", "--rm", timeout=200)


@pytest.mark.parametrize("page", [page for page in course.PAGES if page != "README.md"])
def test_page(lab: course.Shell, page: str) -> None:
    unified = lab.type("[ -e /sys/fs/cgroup/cgroup.controllers ] && echo v2").startswith("v2")
    _try(lab, page, "v1" if unified else "v2")


LOOK = "hostname; id; pwd; ip -4 address | grep -o 'inet [^ ]*'; grep -e Cap /proc/self/status"
BY_HAND = {
    "none": (["--network", "none"], LOOK, "inet 127.0.0.1/8"),
    "host": (["--network", "host", "-w", "/new/place"], LOOK, "/new/place"),
    "port": (["-p", "8471:80"], f"{LOOK}; echo pong | timeout 20 nc -l -p 80",
             "CapEff:\t00000000a80425fb"),
    "memory": (["-m", "64m"], "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes || cat"
               " memory.max", "67108864"),
    "volume": (["-v", "kept:/data"], "cat /data/note; date > /data/made; ls /data", "was here"),
    "user": (["-u", "1000:7", "--cap-drop", "ALL", "--group-add", "5", "--ulimit", "nofile=64",
              "--security-opt", "no-new-privileges"],
             f"{LOOK}; ulimit -n; grep NoNew /proc/self/status", "uid=1000 gid=7 groups=5,7"),
    "read-only": (["--read-only", "--tmpfs", "/tmp"], "touch /new || touch /tmp/new; ls / /tmp",
                  "new"),
}  # fmt: skip
STARTED_BY = {  # each prints what the container's program does, and its status
    "ketch": "ketch run --rm --explain=commands {options} busybox sh -c {program} 2> /lab/script",
    "hand": "sh /lab/script 2> /lab/said",
}
ASK = """host=$(ketch network inspect --format '{{(index .IPAM.Config 0).Gateway}}' bridge)
for turn in $(seq 100); do
  busybox nc -w 5 $host 8471 < /dev/null && break
  sleep 0.1
done"""
LEFT = """for turn in $(seq 100); do ip -o link | grep -q veth || break; sleep 0.1; done
ip netns; ip -o link | grep veth; nft list table inet by-hand 2> /dev/null; grep rootfs /proc/mounts
find /sys/fs/cgroup -path '*/ketch/*' -type d; ls /var/lib/ketch/containers"""


@pytest.mark.parametrize("kind", BY_HAND)
def test_a_container_by_hand(lab: course.Shell, kind: str) -> None:
    """The script of ``--explain=commands``, run in the lab, makes a container that works."""
    options, program, seen = BY_HAND[kind]
    words = {
        "options": shlex.join(options),
        "program": shlex.quote(f"exec 2>&-; {program}; exit 3"),
    }
    lab.type("mkdir -p /lab/d; ketch volume create kept; ketch run --rm -v kept:/v busybox sh -c"
             " 'echo was here > /v/note; touch /v/made'")  # fmt: skip
    printed = {}
    for who, start in STARTED_BY.items():
        started = start.format(**words)
        if kind == "port":
            lab.type(f"({started}; echo status $?) > /lab/printed &")
            asked = lab.type(ASK)
            assert "pong" in asked, lab.type("cat /lab/printed /lab/said")
            printed[who] = lab.type("wait; cat /lab/printed")
        else:
            printed[who] = lab.type(f"{started}; echo status $?")
    assert printed["hand"] == printed["ketch"], lab.type("cat /lab/said")
    assert seen in printed["hand"]
    assert "status 3" in printed["hand"]
    assert lab.type(LEFT).startswith(course.END)


@pytest.mark.vm
@pytest.mark.skipif(
    not os.path.exists("/sys/fs/cgroup/cgroup.controllers"), reason="wants cgroup v2 alone"
)
def test_control_groups_of_the_second_version(ketch: Engine) -> None:
    """As on the page, in a lab of what this machine has: there is no mirror where it is tried."""
    own = {"/usr": "/usr", "/usr/bin": "/bin", "/usr/sbin": "/sbin", "/usr/lib": "/lib",
           "/usr/lib64": "/lib64", "/etc": "/etc",
           str(images.CHECKOUT): str(images.CHECKOUT)}  # fmt: skip
    shown = [f"--volume={place}:{at}:ro" for place, at in own.items()]
    path = f"{os.path.dirname(sys.executable)}:/usr/sbin:/usr/bin"
    name = ketch.ok("run", "-d", "--privileged", "--cgroupns", "private", "--init", "--tmpfs",
                    "/run", "-v", "/lab", "-v", "/var/lib/ketch", "-w", "/lab", "-e",
                    f"PATH={path}", "-e", "LC_ALL=C.UTF-8", *shown, "busybox",
                    "sleep", "infinity")  # fmt: skip
    shell = course.Shell([*ketch.prefix, "exec", "-i", name, "sh", "-c", "exec bash 2>&1"])
    try:
        _try(shell, "README.md", "")
        _try(shell, "05-control-groups.md", "v1")
    finally:
        shell.end()
        ketch.ok("rm", "-fv", name)


def _try(shell: course.Shell, page: str, left_out: str) -> None:
    for block in course.blocks(course.COURSE / page):
        if block.only != left_out or not left_out:
            printed = course.play(shell, block)
            wanted = course.expected(block)
            assert wanted.fullmatch(printed), course.shown(block, printed)
