"""Files that ketch makes while a hostile container is at work in the same directory."""

import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.security.hostile import make_image, program, volumes
from tests.support import serving
from tests.support.archives import CHARACTER, DIRECTORY, FIFO, archive, member
from tests.support.commands import Engine, finish
from tests.support.images import busybox_archive


@pytest.fixture
def victim(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Return a program of the host's, whose mode, owner and times are the same at the end."""
    file = tmp_path / "victim"
    file.write_text("#!/bin/sh\n", encoding="ascii")
    file.chmod(0o750)
    os.utime(file, ns=(1, 1))
    yield file
    assert unchanged(file)


def unchanged(file: pathlib.Path) -> bool:
    status = file.stat()
    return (status.st_mode & 0o7777, status.st_uid, status.st_mtime_ns) == (0o750, 0, 1)


@pytest.fixture
def racer(
    ketch: Engine, attacker: str, shared: pathlib.Path, victim: pathlib.Path
) -> Iterator[str]:
    """Return a container that keeps putting symlinks to the host's file at /shared/node."""
    mount = ["-v", f"{shared}:/shared"]
    ketch.ok("run", "-d", "--name", "racer", "--network", "none", *mount, *volumes(),
             attacker, *program("relink", "/shared/node", str(victim)))  # fmt: skip
    yield "racer"
    ketch.ok("rm", "-f", "racer")


@pytest.mark.root_engine("the races of a copy are the same for whoever copies, and take long")
def test_the_target_of_a_copy_is_exchanged(ketch: Engine, racer: str, victim: pathlib.Path) -> None:
    """A symlink comes in place of what ``cp`` has made: mode and owner must not go where it leads.

    What is made is opened at once, checked, and meant by its descriptor.
    """
    kinds = (FIFO, 0o4777, (0, 0)), (CHARACTER, 0o6777, (1, 3)), (DIRECTORY, 0o2777, (0, 0))
    begun = time.monotonic()
    reasons = set()
    exchanged = False
    # On a busy machine the two meet less often.
    while unchanged(victim) and time.monotonic() < begun + (3 if exchanged else 60):
        for kind, mode, device in kinds:
            made = member(b"node", kind, mode=mode, uid=5, mtime=7, device=device)
            result = ketch("cp", "-", f"{racer}:/shared", stdin=archive(*[made] * 10))
            assert result.status in {0, 1}, str(result)
            reasons.add(result.err)
            exchanged = exchanged or "exchanged by somebody else" in result.err
    assert exchanged, reasons


def test_the_place_of_a_device_is_exchanged(
    ketch: Engine, racer: str, shared: pathlib.Path, victim: pathlib.Path
) -> None:
    """A neighbour does the same where ``--device`` makes a node in a volume that both have."""
    until = time.monotonic() + 3
    while time.monotonic() < until and unchanged(victim):
        result = ketch("run", "--rm", "--network", "none", "-v", f"{shared}:/volume",
                       "--device", "/dev/zero:/volume/node", "busybox", "true")  # fmt: skip
        assert result.status in {0, 125}, str(result)
    assert racer


@pytest.mark.root_engine("an ordinary user's image has no device nodes")
def test_nodes_of_the_host_stay_as_they_are(ketch: Engine, tmp_path: pathlib.Path) -> None:
    """What is bound over a default node is the host's own, and no mode is set on it."""
    node = tmp_path / "zero"
    os.mknod(node, 0o020640, os.makedev(1, 5))
    node.chmod(0o640)
    os.chown(node, 0, 6)
    for options in (
        ["-v", f"{node}:/dev/zero"],
        ["-v", f"{node}:/dev/zero", "--device", "/dev/zero"],
        ["-v", f"{node}:/dev/zero", "--privileged"],
        ["-v", f"{node}:/dev/zero", "--device", f"{node}:/dev/zero"],
    ):
        script = "stat -c %a:%g /dev/zero; head -c 1 /dev/zero | wc -c"
        text = ketch.ok("run", "--rm", "--network", "none", *options, "busybox", "sh", "-c", script)
        assert text.splitlines() == ["640:6", "1"], options
        status = node.stat()
        assert (status.st_mode, status.st_gid) == (0o020640, 6), options


@pytest.mark.root_engine("the test opens an engine of root's own")
def test_an_open_root_is_closed_to_other_users(ketch: Engine, scratch: pathlib.Path) -> None:
    """Another user runs no setuid program of a volume and reads no blob: CVE-2021-41091.

    A directory that somebody else made open is closed whenever the engine opens it.
    """
    root, state = scratch / "open-root", scratch / "open-state"
    for path in (root, state):
        path.mkdir()
        path.chmod(0o755)
    own = Engine("ketch", [ketch.prefix[0], "--root", str(root), "--state", str(state)])
    scratch.chmod(0o755)
    own.ok("import", str(busybox_archive()), "busybox")
    assert root.stat().st_mode & 0o777 == 0o710
    root.chmod(0o755)
    own.ok("run", "--rm", "--network", "none", "-v", "vv:/v", "busybox",
           "sh", "-c", "cp /bin/busybox /v/sh && chmod 4755 /v/sh")  # fmt: skip
    assert (root.stat().st_mode & 0o777, state.stat().st_mode & 0o777) == (0o710, 0o710)
    program = root / "volumes" / "vv" / "_data" / "sh"
    assert program.stat().st_mode & 0o7777 == 0o4755
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for words in (f"ls {root}", f"{program} true", f"ls {root}/blobs"):
        command = [*other, "sh", "-c", words]
        refused = subprocess.run(command, check=False, capture_output=True, text=True)
        assert "denied" in refused.stderr, words
    # What is beneath it is closed by itself as well.
    for name in ("blobs", "containers", "ingest", "snapshots", "volumes", "volumes/vv"):
        assert (root / name).stat().st_mode & 0o777 == 0o700, name
    own.ok("volume", "rm", "vv")
    # A server closes them as well, before anybody has asked for anything.
    for path in (root, state):
        path.chmod(0o755)
    with serving.served(own.prefix, scratch / "open.sock", scratch / "open.log"):
        assert (root.stat().st_mode & 0o777, state.stat().st_mode & 0o777) == (0o710, 0o710)
    scratch.chmod(0o700)


def test_names_do_not_speak_to_the_terminal(ketch: Engine) -> None:
    """Files of a container, labels of an image: shown as what they are, not obeyed."""
    evil = "\x1b]0;owned\x07\x1b[2Jx\x9b31m\ny"
    make_image(ketch, "speaking", change=(f'LABEL evil="{evil[:-2]}"',))
    ketch.ok("run", "--name", "box", "--network", "none", "speaking", "sh", "-c",
             f"mkdir '/tmp/{evil}'; touch \"/tmp/$(printf 'raw\\233')\"")  # fmt: skip
    lines = ketch.ok("diff", "box").splitlines()
    shown = r"\x1b]0;owned\x07\x1b[2Jx\x9b31m"
    assert f"A /tmp/{shown}\\ny" in lines
    assert r"A /tmp/raw\x9b" in lines
    template = '{{index .Config.Labels "evil"}}'
    assert ketch.ok("inspect", "-f", template, "box") == evil[:-2]  # a program gets it as it is
    terminal = ketch.terminal("inspect", "-f", template, "box")
    assert terminal.read().strip() == shown
    finish(terminal)
    terminal = ketch.terminal("ps", "-a", "--format", "{{.Labels}}")
    assert f"evil={shown}" in terminal.read()
    finish(terminal)
    ketch.ok("rm", "box")
    told = ketch.ok("events", "--since", "5m", "--until", "0s")
    assert f"evil={shown}" in told
    assert "\x1b" not in told
    assert "\x9b" not in told
