"""What a container inherits: descriptors, working directories, the null device, terminals."""

import os
import pathlib
import pty
import shutil
import subprocess

import pytest

from tests.security.hostile import UP, attack, make_image, program, unprotected, volumes
from tests.support.commands import Engine

# More than any process of ketch's has open on its way into a container.
NUMBERS = range(3, 40)


@pytest.fixture
def running(ketch: Engine) -> str:
    """Return the name of a container that runs."""
    ketch.ok("run", "-d", "--name", "running", "--network", "none", "busybox", "sleep", "1000")
    return "running"


@pytest.mark.parametrize(
    ("how", "options"),
    [
        *((how, options) for how in ("run", "exec") for options in ((), ("-i",), ("-t",))),
        ("run", ("--init",)),
        ("exec", ("--privileged",)),
    ],
)
def test_a_program_has_its_standard_streams_alone(
    ketch: Engine, running: str, how: str, options: tuple[str, ...]
) -> None:
    """CVE-2024-21626, CVE-2016-9962: a descriptor of the host's is left open in the container."""
    words = [how, *options, *(["--rm", "busybox"] if how == "run" else [running])]
    # 3 is the directory that ls reads.
    listing = ["ls", "/proc/self/fd"]
    if "-t" in options:
        terminal = ketch.terminal(*words, *listing)
        text = terminal.read()
    else:
        text = ketch.ok(*words, *listing)
    ketch.ok("rm", "-f", running)
    assert text.split() == ["0", "1", "2", "3"]


# A start that keeps a directory of the host open until it executes: what runc did.
LEAKED = """
import os, sys
host, root, path = sys.argv[1:]
leaked = os.open(host, os.O_PATH | os.O_CLOEXEC)
os.chroot(root)
os.chdir("/")
try:
    os.stat(path.replace("N", str(leaked)))
    print("reached")
except OSError as error:
    print(error)
"""


def test_a_leaked_directory_leads_out(tmp_path: pathlib.Path) -> None:
    """CVE-2024-21626 where nothing is closed: close-on-exec comes too late for a path's look-up."""
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    subprocess.run(["mount", "--bind", "/proc", str(root / "proc")], check=True)
    try:
        path = f"/proc/self/fd/N{UP}{tmp_path}"
        assert unprotected(LEAKED, "/sys/kernel", str(root), path) == "reached"
    finally:
        subprocess.run(["umount", str(root / "proc")], check=True)


@pytest.fixture
def host_program(tmp_path: pathlib.Path) -> str:
    """Return the path of a program of the host's, at which no container has anything."""
    path = tmp_path / "busybox"
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, path)
    return str(path)


def test_exec_of_a_path_through_a_leaked_descriptor(
    ketch: Engine, running: str, host_program: str
) -> None:
    """CVE-2024-21626: the program's path leads over /proc/self/fd/N to a program of the host's.

    Every descriptor but the program's own is closed before anything is looked up in the container.
    """
    reached = []
    for number in NUMBERS:
        result = ketch("exec", running, f"/proc/self/fd/{number}{UP}{host_program}", "true")
        if "no such file" not in result.err and "not a directory" not in result.err:
            reached.append(str(result))
    ketch.ok("rm", "-f", running)
    assert reached == []


def test_an_entrypoint_through_a_leaked_descriptor(ketch: Engine, host_program: str) -> None:
    """CVE-2024-21626, in an image: whoever runs it runs a program of the host's."""
    reached = []
    for number in NUMBERS:
        path = f"/proc/self/fd/{number}{UP}{host_program}"
        result = ketch("run", "--rm", "--network", "none", "busybox", path, "true")
        if "no such file" not in result.err and "not a directory" not in result.err:
            reached.append(str(result))
    assert reached == []


@pytest.mark.parametrize("suffix", ["", UP], ids=["itself", "above"])
def test_exec_in_a_leaked_directory(ketch: Engine, running: str, suffix: str) -> None:
    """CVE-2024-21626: `exec --workdir /proc/self/fd/N`, which ends in a directory of the host's."""
    entered = []
    for number in NUMBERS:
        path = f"/proc/self/fd/{number}{suffix}"
        result = ketch("exec", "--workdir", path, running, "ls", "-a")
        if result.status == 0:
            entered.append(str(result))
    ketch.ok("rm", "-f", running)
    assert entered == []


def test_an_image_that_begins_in_a_leaked_directory(ketch: Engine) -> None:
    """CVE-2024-21626: `WORKDIR /proc/self/fd/N` in an image."""
    for number in (3, 7, 8, 16):
        make_image(ketch, "begins", change=(f"WORKDIR /proc/self/fd/{number}",))
        result = ketch("run", "--rm", "--network", "none", "begins", "ls", "-a")
        assert result.status == 125, str(result)
        assert result.out == ""


def test_a_link_to_a_leaked_directory(ketch: Engine, running: str) -> None:
    """CVE-2024-21626 by way of a symlink, which a check of the path's text would miss."""
    script = "for n in $(seq 3 39); do ln -s /proc/self/fd/$n /tmp/link$n; done"
    ketch.ok("exec", running, "sh", "-c", script)
    entered = [
        number
        for number in NUMBERS
        if ketch("exec", "--workdir", f"/tmp/link{number}", running, "true").status == 0
    ]
    ketch.ok("rm", "-f", running)
    assert entered == []


NULL_PLACES = ("/proc/self/fd/0", "/proc/kcore", "/proc/keys", "/proc/interrupts", "/dev/null")


@pytest.mark.parametrize("how", ["run", "exec"])
def test_the_hosts_null_device_keeps_its_mode(ketch: Engine, attacker: str, how: str) -> None:
    """A container's root owns what it is given of the host: chmod 0 /proc/self/fd/0, /proc/kcore.

    The host's null device is handed in through a read-only mount, whose inode cannot be changed;
    runc opens the container's own in its place (reOpenDevNull).
    """
    before = os.stat("/dev/null")
    # The device's own mode: even where the attack works, nothing changes.
    script = "; ".join(
        f"[ -e {place} ] && stat -Lc %d:%i {place} && "
        f"{{ chmod {before.st_mode & 0o777:o} {place} 2>/dev/null; echo {place}=$?; }}"
        for place in NULL_PLACES
    )
    if how == "run":
        text = ketch.ok("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    else:
        ketch.ok("run", "-d", "--name", "null", "--network", "none", "busybox", "sleep", "1000")
        text = ketch.ok("exec", "null", "sh", "-c", script)
        ketch.ok("rm", "-f", "null")
    lines = text.split()
    assert len(lines) >= 6, text
    host = f"{before.st_dev}:{before.st_ino}"
    devices, outcomes = lines[::2], lines[1::2]
    changed = [
        outcome
        for device, outcome in zip(devices, outcomes, strict=True)
        if device == host and outcome.endswith("=0")
    ]
    assert changed == []


def test_typing_into_the_callers_terminal(ketch: Engine, attacker: str) -> None:
    """CVE-2016-2568 and its kin: TIOCSTI puts characters into a terminal's input.

    With -t the container has a terminal of its own; what it types there, it types to itself.
    """
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [*ketch.prefix, "run", "--rm", "-t", "--network", "none", *volumes(), attacker,
             *program("type_into", "evil\n")],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        assert process.wait(timeout=20) == 0
        os.set_blocking(slave, False)
        with pytest.raises(BlockingIOError):
            os.read(slave, 100)
        # The pseudo-terminal's own way: the same test can see that somebody typed.
        os.write(master, b"seen\n")
        assert os.read(slave, 100) == b"seen\n"
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("options", [(), ("-i",)])
def test_no_terminal_without_asking(ketch: Engine, attacker: str, options: tuple[str, ...]) -> None:
    """Without -t the streams are pipes, whatever the caller's are."""
    found = attack(ketch, attacker, "describe_streams", options=options)
    assert found["terminals"] == []
    assert found["controlling"] is False
