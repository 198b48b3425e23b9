"""``ketch run --explain`` says what is done, in the order in which it is done."""

import pytest

from tests.support.commands import Engine

# Words of steps that every container with Docker's defaults has, in their order.
STEPS = [
    "CLONE_NEWNET",
    "rtnetlink(7)",
    "overlay",
    "make and limit the control group",
    "new PID namespace: the program will be its PID 1 · clone3(2) CLONE_NEWPID",
    "sethostname(2)",
    "mount proc on /proc",
    "mount tmpfs on /dev ",
    "make /dev/null",
    "hide /proc/",
    "pivot_root(2)",
    "seccomp(2)",
    "capset(2)",
    "become /bin/echo · execve(2)",
]


def test_steps_come_in_order_and_apart_from_the_program(ketch: Engine) -> None:
    result = ketch("run", "--rm", "--explain", "busybox", "echo", "hello")
    assert (result.status, result.out) == (0, "hello\n")
    found = []
    for line in result.err.splitlines():
        found += [step for step in STEPS if step in line]
    assert list(dict.fromkeys(found)) == STEPS


@pytest.mark.parametrize(
    ("options", "absent"),
    [
        (["--network", "host"], ["CLONE_NEWNET", "rtnetlink(7)"]),
        (["--network", "none"], ["rtnetlink(7), nft(8)"]),
        (["--privileged"], ["hide ", "seccomp(2)"]),
        (["--security-opt", "seccomp=unconfined"], ["seccomp(2)"]),
        (["--pid", "host"], ["CLONE_NEWPID"]),
    ],
)
def test_what_is_not_done_is_not_said(ketch: Engine, options: list[str], absent: list[str]) -> None:
    result = ketch("run", "--rm", "--explain", *options, "busybox", "true")
    assert result.status == 0
    assert "execve(2)" in result.err
    assert not [words for words in absent if words in result.err]


def test_only_what_is_there_is_hidden(ketch: Engine) -> None:
    script = "ls -d /proc/acpi /proc/asound /proc/kcore /proc/scsi /proc/keys 2>/dev/null"
    done = ketch("run", "--rm", "--explain", "busybox", "sh", "-c", f"{script}; ls /sys")
    hidden = [line.split()[1] for line in done.err.splitlines() if line.startswith("hide ")]
    assert hidden
    for path in ("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/scsi", "/proc/keys"):
        assert (path in hidden) is (path in done.out.split()), path


def test_a_read_only_mount_is_called_so(ketch: Engine) -> None:
    done = ketch("run", "--rm", "--explain", "-v", "/etc:/a:ro", "-v", "/etc:/b", "busybox", "true")
    binds = [line for line in done.err.splitlines() if line.startswith("bind /etc to ")]
    assert [line.partition(" · ")[0] for line in binds] == [
        "bind /etc to /a, read-only", "bind /etc to /b",
    ]  # fmt: skip
    done = ketch("run", "--rm", "--explain", "--tmpfs", "/t:ro", "--tmpfs", "/w", "busybox", "true")
    said = [line.partition(" · ")[0] for line in done.err.splitlines()]
    assert {
        "mount tmpfs on /t, read-only",
        "mount tmpfs on /w",
        "mount sysfs on /sys, read-only",
    } <= {*said}
    assert "mount_setattr(2)" in binds[0]
    assert "mount_setattr(2)" not in binds[1]
