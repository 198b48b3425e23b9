"""``run``: exit statuses, streams, names, environment, user, and what is left of it."""

import pathlib
import re
import signal
import subprocess
import time

import pexpect
import pytest

from tests.support.commands import Engine, finish

RUN = ("run", "--rm", "busybox")


@pytest.mark.parametrize("status", [0, 1, 3, 42, 125, 255])
def test_the_programs_exit_status_is_passed_on(engine: Engine, status: int) -> None:
    assert engine(*RUN, "sh", "-c", f"exit {status}").status == status


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV"])
def test_death_by_a_signal_is_128_and_its_number(engine: Engine, name: str) -> None:
    # PID 1 ignores signals that it does not handle, so a child dies and its shell tells of it.
    result = engine(*RUN, "sh", "-c", f"sh -c 'kill -{name} $$'; exit $?")
    assert result.status == 128 + signal.Signals[f"SIG{name}"]


@pytest.mark.parametrize("program", ["no-such-program", ""])
def test_a_missing_command_is_127(engine: Engine, program: str) -> None:
    result = engine(*RUN, program)
    assert result.status == 127
    assert f'"{program}": executable file not found in $PATH' in result.err
    assert result.out == ""


def test_a_missing_path_is_127(engine: Engine) -> None:
    result = engine(*RUN, "/no/such/path")
    assert result.status == 127
    assert "/no/such/path" in result.err


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc"])
def test_what_cannot_be_executed_is_126(engine: Engine, path: str) -> None:
    result = engine(*RUN, path)
    assert result.status == 126
    assert path in result.err


def test_an_unknown_flag_is_125(engine: Engine) -> None:
    result = engine("run", "--no-such-flag", "busybox")
    assert result.status == 125
    assert "--no-such-flag" in result.err


def test_standard_output_and_error_stay_apart(engine: Engine) -> None:
    result = engine(*RUN, "sh", "-c", "echo to-out; echo to-err >&2")
    assert (result.out, result.err, result.status) == ("to-out\n", "to-err\n", 0)


def test_output_is_passed_on_byte_for_byte(engine: Engine) -> None:
    octets = "".join(f"\\{n:03o}" for n in range(256))
    process = engine.start(*RUN, "printf", octets)
    out, _ = process.communicate(timeout=60)
    assert out == bytes(range(256))


@pytest.mark.user
def test_a_large_output_arrives_whole(engine: Engine) -> None:
    process = engine.start(*RUN, "sh", "-c", "yes 0123456789 | head -c 20000000")
    out, _ = process.communicate(timeout=60)
    assert out == (b"0123456789\n" * 1_818_182)[:20_000_000]


def test_standard_input_is_passed_on_with_i(engine: Engine) -> None:
    result = engine("run", "--rm", "-i", "busybox", "cat", stdin="first\nsecond\n")
    assert result.out == "first\nsecond\n"


def test_a_large_input_arrives_whole_and_ends(engine: Engine) -> None:
    data = bytes(range(256)) * 40_000
    result = engine("run", "--rm", "-i", "busybox", "md5sum", stdin=data)
    import hashlib

    assert result.out.split()[0] == hashlib.md5(data).hexdigest()


def test_standard_input_is_empty_without_i(engine: Engine) -> None:
    result = engine(*RUN, "cat", stdin="not for you\n")
    assert (result.out, result.status) == ("", 0)


def test_without_t_nothing_is_a_terminal(engine: Engine) -> None:
    result = engine(*RUN, "sh", "-c", "for n in 0 1 2; do test -t $n && echo $n; done; true")
    assert result.out == ""


@pytest.mark.served
def test_t_gives_a_terminal_with_the_callers_size(engine: Engine) -> None:
    child = engine.terminal("run", "--rm", "-it", "busybox", "sh", rows=41, columns=133)
    child.expect("# ")
    child.sendline("stty size; tty; echo TERM=$TERM")
    child.expect("41 133\r\n")
    child.expect("/dev/pts/0\r\n")
    child.expect("TERM=xterm\r\n")
    child.setwinsize(20, 60)
    child.expect("# ")
    time.sleep(0.3)
    child.sendline("stty size")
    child.expect("20 60\r\n")
    child.sendline("exit 7")
    assert finish(child) == 7


def test_the_callers_terminal_is_as_before_afterwards(engine: Engine) -> None:
    import termios

    child = engine.terminal("run", "--rm", "-it", "busybox", "sh")
    before = termios.tcgetattr(child.child_fd)
    child.expect("# ")
    assert termios.tcgetattr(child.child_fd) != before, "the terminal was never made raw"
    child.sendline("exit")
    child.expect("exit\r\n")
    deadline = time.monotonic() + 10
    while termios.tcgetattr(child.child_fd) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    after = termios.tcgetattr(child.child_fd)
    child.wait()
    assert after == before


@pytest.mark.user
@pytest.mark.served
def test_interrupt_on_a_terminal_reaches_the_program(engine: Engine) -> None:
    child = engine.terminal("run", "--rm", "-it", "busybox", "sh")
    child.expect("# ")
    # It says so itself: between a word of the shell's and its fork, the shell loses the signal.
    child.sendline("sh -c 'echo begun; exec sleep 1000'")
    child.expect("begun\r\n")
    child.sendintr()
    child.expect("# ")
    child.sendline("echo status $?")
    child.expect("status 130\r\n")
    child.expect("# ")  # until then the terminal is not the shell's to read an end from
    child.sendeof()
    assert finish(child) == 0


def test_t_without_a_terminal_is_refused(engine: Engine) -> None:
    result = engine("run", "--rm", "-it", "busybox", "true", stdin="")
    assert result.status == 1
    assert "the input device is not a TTY" in result.err


def test_d_prints_the_id_and_returns(engine: Engine) -> None:
    started = time.monotonic()
    identity = engine.ok("run", "-d", "busybox", "sleep", "30")
    assert time.monotonic() - started < 10
    assert re.fullmatch("[0-9a-f]{64}", identity)
    assert identity.startswith(engine.ok("ps", "-q"))
    engine.ok("rm", "-f", identity)


def test_d_and_rm_removes_at_the_end(engine: Engine) -> None:
    engine.ok("run", "-d", "--rm", "busybox", "true")
    deadline = time.monotonic() + 10
    while engine.ok("ps", "-aq") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert engine.ok("ps", "-aq") == ""


def test_without_rm_the_container_stays(engine: Engine) -> None:
    engine.ok("run", "--name", "stays", "busybox", "true")
    assert "Exited (0)" in engine.ok("ps", "-a")
    assert engine.ok("rm", "stays") == "stays"


def test_a_name_can_be_used_again_after_rm(engine: Engine) -> None:
    for _ in range(2):
        engine.ok("run", "--rm", "--name", "again", "busybox", "true")


def test_environment(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "-e", "A=one two", "--env", "B=", "-e", "A=last",
                    "busybox", "env")  # fmt: skip
    lines = out.splitlines()
    assert "A=last" in lines
    assert "A=one two" not in lines
    assert "B=" in lines


def test_an_environment_variable_without_value_is_the_callers(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_CALLER", "its value")
    monkeypatch.delenv("NOT_SET", raising=False)
    out = engine.ok("run", "--rm", "-e", "FROM_CALLER", "-e", "NOT_SET", "busybox", "env")
    assert "FROM_CALLER=its value" in out.splitlines()
    assert "NOT_SET" not in out


def test_environment_file(
    engine: Engine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_CALLER", "its value")
    file = tmp_path / "environment"
    file.write_text('# comment\n\nA=1=2\nB="quoted"\n  C=indented\nFROM_CALLER\nD=file\n')
    out = engine.ok("run", "--rm", "--env-file", str(file), "-e", "D=flag", "busybox", "env")
    lines = out.splitlines()
    assert {"A=1=2", 'B="quoted"', "C=indented", "FROM_CALLER=its value", "D=flag"} <= set(lines)
    assert "D=file" not in lines


def test_the_default_environment(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "-h", "boat", "busybox", "/bin/busybox", "env")
    assert sorted(out.splitlines()) == [
        "HOME=/root",
        "HOSTNAME=boat",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]


def test_the_host_name_is_the_short_id_without_h(engine: Engine) -> None:
    identity = engine.ok("run", "-d", "busybox", "hostname")
    deadline = time.monotonic() + 10
    while not engine.ok("logs", identity) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert engine.ok("logs", identity) == identity[:12]
    engine.ok("rm", "-f", identity)


@pytest.mark.many_ids("all files are those of whom the program runs as")
def test_the_working_directory_is_made_when_missing(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "-w", "/srv/deep/down", "-u", "1000", "busybox", "sh", "-c",
                    "pwd; stat -c '%U %a' .")  # fmt: skip
    assert out.splitlines() == ["/srv/deep/down", "root 755"]


_SUPPLEMENTARY = pytest.mark.many_ids("supplementary groups of an image's users are left out")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("nobody", "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)"),
        pytest.param(
            "www-data", "uid=33(www-data) gid=33(www-data) groups=4(adm),33(www-data),50(staff)",
            marks=_SUPPLEMENTARY,
        ),
        pytest.param(
            "33", "uid=33(www-data) gid=33(www-data) groups=4(adm),33(www-data),50(staff)",
            marks=_SUPPLEMENTARY,
        ),
        ("1234", "uid=1234 gid=0(root) groups=0(root)"),
        ("1234:5678", "uid=1234 gid=5678 groups=5678"),
        ("www-data:staff", "uid=33(www-data) gid=50(staff) groups=50(staff)"),
        (":daemon", "uid=0(root) gid=1(daemon) groups=1(daemon)"),
    ],
)  # fmt: skip
def test_users_and_groups_are_looked_up_in_the_image(
    engine: Engine, user: str, expected: str
) -> None:
    assert engine.ok("run", "--rm", "-u", user, "busybox", "id") == expected


@pytest.mark.parametrize("user", ["no-such-user", "root:no-such-group"])
def test_an_unknown_user_is_an_error(engine: Engine, user: str) -> None:
    result = engine("run", "--rm", "-u", user, "busybox", "id")
    assert result.status in {125, 126}
    assert user.rpartition(":")[2] in result.err


def test_home_is_the_users(engine: Engine) -> None:
    assert engine.ok("run", "--rm", "-u", "nobody", "busybox", "sh", "-c", "echo $HOME") == "/home"


def test_entrypoint(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "--entrypoint", "echo", "busybox", "a", "b c")
    assert out == "a b c"


def test_labels_and_init_and_read_only(engine: Engine) -> None:
    out = engine(
        "run", "--rm", "-l", "a=b", "--label", "c", "--read-only", "busybox", "touch", "/x"
    )
    assert out.status == 1
    assert "Read-only file system" in out.err


@pytest.mark.ketch_only("docker needs its own docker-init, which Debian has as tini")
def test_init_reaps_orphans_and_passes_signals_and_status_on(engine: Engine) -> None:
    script = "(sleep 0.1 &); sleep 0.5; ps -o stat,args | grep -c '^Z'; exit 9"
    result = engine("run", "--rm", "--init", "busybox", "sh", "-c", script)
    assert (result.out.strip(), result.status) == ("0", 9)
    pid = engine.ok("run", "--rm", "--init", "busybox", "sh", "-c", "echo $$")
    assert int(pid) > 1
    told = ("cat", "/proc/1/cmdline", "/proc/1/environ")
    words = engine.ok("run", "--rm", "--init", "-e", "A=b", "busybox", *told).split("\0")
    assert words[:5] == ["/sbin/docker-init", "--", *told]
    assert "A=b" in words
    killed = engine("run", "--rm", "--init", "busybox", "sh", "-c", "kill -TERM 1; sleep 20")
    assert killed.status == 128 + signal.SIGTERM


@pytest.mark.ketch_only("docker needs its own docker-init, which Debian has as tini")
def test_the_terminal_under_init_is_the_programs(engine: Engine) -> None:
    child = engine.terminal("run", "--rm", "-it", "--init", "busybox", "sh", "-c",
                            "trap 'echo interrupted; exit 4' INT; echo there > /dev/tty; "
                            "while :; do sleep 0.1; done")  # fmt: skip
    child.expect("there")
    child.sendintr()
    child.expect("interrupted")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 4


def test_pid_1_is_the_users_program(engine: Engine) -> None:
    assert engine.ok(*RUN, "sh", "-c", "echo $$; cat /proc/1/comm; true") == "1\nsh"


def test_cidfile(engine: Engine, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "cid"
    engine.ok("run", "--cidfile", str(file), "--name", "with-cidfile", "busybox", "true")
    assert re.fullmatch("[0-9a-f]{64}", file.read_text())
    again = engine("run", "--cidfile", str(file), "busybox", "true")
    assert again.status == 125
    assert str(file) in again.err
    engine.ok("rm", "with-cidfile")


@pytest.mark.parametrize("name", ["TERM", "INT", "USR1", "HUP"])
def test_signals_to_the_command_reach_the_program(engine: Engine, name: str) -> None:
    script = f"trap 'echo got {name}; exit 5' {name}; echo ready; while :; do sleep 0.1; done"
    process = engine.start("run", "--rm", "busybox", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.Signals[f"SIG{name}"])
    assert process.stdout.readline() == f"got {name}\n".encode()
    assert process.wait(10) == 5
    process.communicate()


def test_a_closed_output_does_not_hang(engine: Engine) -> None:
    process = engine.start("run", "--rm", "busybox", "yes", stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    running = engine.ok("ps", "-q").split()
    engine("rm", "-f", *running)


def test_many_at_once(engine: Engine) -> None:
    processes = [engine.start(*RUN, "echo", str(n)) for n in range(6)]
    assert [process.communicate(timeout=60)[0] for process in processes] == [
        f"{n}\n".encode() for n in range(6)
    ]
    assert [process.returncode for process in processes] == [0] * 6


def test_usage_is_told(engine: Engine) -> None:
    result = engine("run")
    assert result.status in {1, 125}
    assert "requires at least 1 argument" in result.err
    helped = engine("run", "--help")
    assert helped.status == 0
    assert "--cpus" in helped.out
    assert "IMAGE [COMMAND] [ARG...]" in helped.out
