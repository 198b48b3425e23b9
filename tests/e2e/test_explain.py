"""``ketch run --explain`` says what is done, in the order in which it is done."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import Engine, finish

_LIMITED = "make and limit the control group"

# Words of steps that every container with Docker's defaults has, in their order.
STEPS = [
    "CLONE_NEWNET",
    "rtnetlink(7)",
    "overlay",
    _LIMITED,
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
    assert list(dict.fromkeys(found)) == [
        step for step in STEPS if step != _LIMITED or ketch.limits
    ]


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


def test_steps_come_with_what_they_set(ketch: Engine) -> None:
    limited = ["-m", "64m"] if ketch.limits else []
    done = ketch(
        "run", "--rm", "--explain", *limited, "--cap-drop", "ALL", "--cap-add", "CHOWN",
        "--ulimit", "core=0", "-u", "7:8", "busybox", "sh", "-c",
        "grep ' / ' /proc/self/mountinfo; ip -4 address show eth0; ip route",
    )  # fmt: skip
    assert done.status == 0
    values = {}
    for line in done.err.splitlines():
        name, equals, value = line.strip().partition(" = ")
        if line.startswith("  ") and equals:
            values[name.rpartition("/")[2]] = value
    told = {name for name in ("memory.limit_in_bytes", "memory.max") if name in values}
    assert [values[name] for name in told] == (["67108864"] if limited else [])
    assert values["effective"] == values["permitted"] == "none"
    assert values["bounding"] == "CAP_CHOWN"
    assert "mount" in values["refused"].split()
    upper = re.search("upperdir=([^, ]*)", done.out)
    assert upper is not None
    assert values["upperdir"] == upper[1]
    assert values["lowerdir"].split(":")
    gateway = re.search("default via (\\S+) dev eth0", done.out)
    assert gateway is not None
    assert values["route"] == f"default via {gateway[1]} dev eth0"
    address = re.search("inet (\\S+) ", done.out)
    assert address is not None
    assert f"address {address[1]}" in done.err
    assert "limit RLIMIT_CORE to 0:0" in done.err
    assert "become uid 7, gid 8" in done.err


def test_the_way_of_a_published_port_is_told(ketch: Engine) -> None:
    done = ketch("run", "--rm", "--explain", "-p", "127.0.0.1::80", "busybox", "true")
    assert done.status == 0
    host = re.search(r"publish 127\.0\.0\.1:(\d+)->80/tcp", done.err)
    assert host is not None
    address = re.search(r"address ([\d.]+)/", done.err)
    assert address is not None
    assert re.search(rf"element = .*{host[1]} : {re.escape(address[1])} \. 80", done.err)
    assert "masquerade = " in done.err


def test_the_end_is_told_as_well(ketch: Engine) -> None:
    done = ketch("run", "--rm", "--explain", "busybox", "sh", "-c", "echo word >&2; exit 3")
    assert done.status == 3
    told = done.err[done.err.index("word\n") :].splitlines()
    words = [line.partition(" · ")[0] for line in told if not line.startswith("  ")]
    identifier = re.search(r"remove the container and (\S+)", done.err)
    assert identifier is not None
    container = identifier[1].rpartition("/")[2]
    assert words == [
        "word",
        "the program has ended with status 3; its namespaces go with their last process",
        *([f"remove the control group /ketch/{container}"] if ketch.limits else []),
        "take eth0 off network bridge",
        "change sets and maps of the packet filter",
        "record the end",
        f"remove the container and {identifier[1]}",
    ]
    kept = ketch("run", "--name", "kept", "--explain", "busybox", "true")
    assert "record the end" in kept.err
    assert "remove the container" not in kept.err
    ketch.ok("rm", "kept")


def test_steps_for_programs(ketch: Engine) -> None:
    done = ketch("run", "--rm", "--explain=json", "--name", "told", "busybox", "echo", "hello")
    assert (done.status, done.out) == (0, "hello\n")
    steps = [json.loads(line) for line in done.err.splitlines()]
    assert {step["topic"] for step in steps} == {
        "namespaces", "network", "files", "limits", "privileges", "program", "record",
    }  # fmt: skip
    program = next(step for step in steps if step["step"] == "become /bin/echo")
    assert program["calls"] == ["execve(2)"]
    assert {"name": "arguments", "value": "echo hello"} in program["values"]
    took = [step["elapsedNs"] for step in steps]
    assert None in took, "nobody knows how long the last step takes"
    assert all(time is None or time >= 0 for time in took)


def test_a_terminal_has_topics_and_times(ketch: Engine) -> None:
    terminal = ketch.terminal("run", "--rm", "--explain", "busybox", "echo", "hello")
    terminal.expect("network")
    terminal.expect(r" \d+\.\d\d ms")
    terminal.expect("link eth0 to bridge")
    terminal.expect("files")
    terminal.expect("privileges")
    terminal.expect("hello")
    terminal.expect("record the end")
    assert finish(terminal) == 0


@pytest.mark.root_engine("the script does the same by hand, on the host")
@pytest.mark.parametrize("network", ["bridge", "none", "host"])
def test_the_same_by_hand(ketch: Engine, tmp_path: Path, network: str) -> None:
    """The script makes a container that sees what ketch's sees, and leaves as little behind."""
    look = (
        "exec 2> /dev/null; cat; id; hostname; cat /etc/hosts /etc/resolv.conf; ls / /dev; pwd;"
        " cat /v/*; touch /v/new; ls /proc/1;"
        " grep -e Cap -e NoNewPrivs /proc/1/status; grep -c . /proc/self/mountinfo; umask;"
        " ip -4 address | grep inet | sed 's/ brd [^ ]*//'; ip route; env | sort;"
        " cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; exit 3"
    )
    bound = tmp_path / "bound"
    bound.mkdir(0o755)
    (bound / "file").write_text("bound\n")
    own = ["--network", "host"] if network == "host" else ["--network", network]
    done = ketch(
        "run", "--rm", "--explain=commands", *own, "-v", f"{bound}:/v:ro", "-m", "64m",
        "--cap-drop", "CHOWN", "-e", "quoted=it's $HOME", "-u", "7:8", "busybox", "sh", "-c", look,
    )  # fmt: skip
    script = tmp_path / "by-hand"
    script.write_text(done.err)
    apart = f"mount -t tmpfs tmpfs /run; sh {script}; status=$?; ls /run/netns >&2; exit $status"
    unshared = ["unshare", "--mount", *(["--net"] if network != "host" else []), "sh", "-c", apart]
    by_hand = subprocess.run(
        unshared, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert by_hand.returncode == done.status == 3, by_hand.stderr
    assert by_hand.stdout == done.out
    assert not [line for line in by_hand.stderr.splitlines() if re.fullmatch("[0-9a-f]{12}", line)]
    made = re.findall(r"^mkdir -p (/sys/fs/cgroup/\S+)$", done.err, re.MULTILINE)
    assert made
    assert not [directory for directory in made if Path(directory).exists()]


def test_a_form_that_there_is_not(ketch: Engine) -> None:
    done = ketch("run", "--rm", "--explain=poem", "busybox", "true")
    assert done.status == 125
    assert (
        'invalid argument "poem" for "--explain" flag: must be one of text, json, commands'
        in done.err
    )
    assert ketch("run", "--rm", "--explain=false", "busybox", "true").err == ""


def test_exec_and_start_tell_as_well(ketch: Engine) -> None:
    container = ketch.ok("create", "busybox", "sleep", "60").strip()
    started = ketch("start", "--explain", "-a", container[:4] + "x")
    assert started.status == 1
    done = ketch("start", "--explain", container)
    assert "link eth0 to bridge" in done.err
    assert done.out == f"{container}\n"
    done = ketch("exec", "--explain", "-u", "7:8", "-w", "/tmp", "-e", "A=b c", container, "id")
    assert done.out.startswith("uid=7 gid=8")
    steps = done.err.splitlines()
    assert steps[0] == "enter the container's namespaces · setns(2)"
    assert "  environment = A=b c" in steps
    assert "  directory = /tmp" in steps
    by_hand = ketch("exec", "--explain=commands", "-w", "/tmp", "-e", "A=b c", container, "env").err
    shown = subprocess.run(["sh", "-c", by_hand], capture_output=True, text=True, check=True)
    assert "A=b c" in shown.stdout.splitlines()
    told = ketch("exec", "--explain=json", container, "true").err.splitlines()
    assert all(json.loads(line)["topic"] for line in told)
    ketch.ok("rm", "-f", container)


@pytest.mark.user
def test_whose_engine_it_is_hears_of_its_own(ketch: Engine, run_name: str) -> None:
    """A user's commands are told of the same, and say in which namespaces they are done by hand."""
    container = ketch.ok("run", "-d", "busybox", "sh", "-c", "trap 'exit 4' TERM; sleep 60 & wait")
    stopped = ketch("stop", "--explain", container)
    assert "send SIGTERM to the container's first process" in stopped.err
    assert "take eth0 off network bridge" in stopped.err
    assert "record the end" in stopped.err
    ketch.ok("rm", container)
    script = ketch("volume", "create", "--explain=commands", run_name).err
    end = ketch("volume", "rm", "--explain=commands", run_name).err
    assert ("ketch unshare --rootless-netns" in script) is _is_users(ketch)
    again = ketch("volume", "create", "--explain", run_name).err
    place = re.search("mountpoint = (.*)", again)
    assert place is not None
    ketch.ok("volume", "rm", run_name)
    enter = [*ketch.prefix, "unshare", "--rootless-netns"] if _is_users(ketch) else []
    for text, there in ((script, 0), (end, 1)):
        done = subprocess.run([*enter, "sh", "-c", f"({text}); test -d {place[1]}"], check=False)
        assert done.returncode == there


def _is_users(ketch: Engine) -> bool:
    return ketch("unshare", "true").status == 0
