"""Programs that a sandbox's attendant runs: as any other's, and nothing inside reaches it."""

import contextlib
import os
import pathlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

import ketch
from ketch import Pool, Sandbox
from ketch.errors import ConflictError, KetchError, StartError, UnavailableError
from ketch.linux import procfs

_TIMEOUT = 60


@pytest.fixture
def attended(library: ketch.Engine) -> Iterator[Sandbox]:
    with Sandbox.create("busybox", engine=library, timeout=None) as made:
        assert made.run(["true"]).status == 0
        assert made.run(["true"]).status == 0  # from here on it is
        yield made


@pytest.fixture(scope="module")
def kept(library: ketch.Engine) -> Iterator[Sandbox]:
    with Sandbox.create("busybox", engine=library, timeout=None) as made:
        made.run(["true"])
        yield made


def gates(sandbox: Sandbox) -> list[int]:
    """What is in a sandbox's control group and in none of its process namespace."""
    engine = sandbox._container._places.engine
    record = engine.containers.find(sandbox.id)
    inside = os.stat(f"/proc/{record.init_pid}/ns/pid").st_ino
    found = []
    for pid in engine.containers.cgroup(record).processes():
        with contextlib.suppress(FileNotFoundError):
            if os.stat(f"/proc/{pid}/ns/pid").st_ino != inside:
                found.append(pid)
    return found


def parent(pid: int) -> int:
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[1])


def awaited(condition: Any) -> bool:
    until = time.monotonic() + _TIMEOUT
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.vm
def test_one_stays_for_the_programs_that_follow_the_first(library: ketch.Engine) -> None:
    with Sandbox.create("busybox", engine=library, timeout=None) as sandbox:
        sandbox.run(["true"])
        assert gates(sandbox) == []  # one program alone is not worth it
        sandbox.run(["true"])
        first = gates(sandbox)
        assert len(first) == 1
        for number in range(5):
            assert sandbox.run(["echo", str(number)]).text == f"{number}\n"
        assert gates(sandbox) == first
        start = procfs.process_start_time(first[0])
    assert awaited(lambda: procfs.process_start_time(first[0]) != start)


def test_where_there_can_be_none_programs_run_in_the_usual_way(
    library: ketch.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise UnavailableError("there can be none")

    with Sandbox.create("busybox", engine=library, timeout=None) as sandbox:
        monkeypatch.setattr(sandbox._attendance, "_opened", refuse)
        for number in range(3):
            assert sandbox.run(["echo", str(number)]).text == f"{number}\n"
        assert gates(sandbox) == []


@pytest.mark.vm
def test_nobody_inside_sees_it(attended: Sandbox) -> None:
    assert len(gates(attended)) == 1
    listed = attended.run("for one in /proc/[0-9]*; do cat $one/comm; done").text.split()
    assert sorted(listed) in (["cat", "docker-init", "sh"], ["docker-init", "sh"])
    told = attended.run("grep -c . /proc/self/status; ls -l /proc/self/fd | grep -c -e socket")
    assert told.text.split()[-1] == "0"


_CASES: dict[str, dict[str, Any]] = {
    "streams": {"command": "echo out; echo err >&2; exit 3"},
    "input": {"command": ["wc", "-c"], "stdin": b"x" * 300_000},
    "no input": {"command": ["cat"]},
    "directory": {"command": "pwd", "cwd": "/tmp"},
    "no directory": {"command": ["pwd"], "cwd": "/nosuch"},
    "relative directory": {"command": ["pwd"], "cwd": "tmp"},
    "closed directory": {"command": ["pwd"], "cwd": "/root"},
    "environment": {"command": "env | sort | grep -v HOSTNAME", "env": {"A": "b c\n", "E": ""}},
    "user": {"command": "id; grep -e Cap -e Seccomp: -e NoNew /proc/self/status", "user": "1:2"},
    "root": {"command": "id; touch /x", "user": "root"},
    "no user": {"command": ["id"], "user": "nosuch"},
    "confined": {"command": "id; grep -e Cap -e Seccomp: -e NoNew /proc/self/status; ulimit -a"},
    "signal": {"command": "kill -SEGV $$"},
    "missing": {"command": ["nosuch"]},
    "no path": {"command": ["/nosuch"]},
    "not executable": {"command": ["/etc/passwd"]},
    "a directory": {"command": ["/etc"]},
    "bytes": {"command": ["printf", "%s", "\udcff\u00e9"]},
    "many words": {"command": ["sh", "-c", "echo $#", "sh", *["word"] * 5000]},
    "a long word": {"command": ["sh", "-c", 'printf %s "$1" | wc -c', "sh", "x" * 120_000]},
    "too long a word": {"command": ["echo", "x" * 200_000]},
    "nothing": {"command": []},
    "too late": {"command": "sleep 100 & sleep 100", "timeout": 0.5},
    "too much": {"command": ["yes"], "max_output": 1000},
    "nul": {"command": ["echo", "a\0b"]},
}


@pytest.mark.parametrize("case", _CASES.values(), ids=_CASES)
def test_it_makes_no_difference(kept: Sandbox, case: dict[str, Any]) -> None:
    def outcome(sandbox: Sandbox) -> object:
        try:
            told = sandbox.run(**case)
        except KetchError as error:
            return type(error), error.message, getattr(error, "exit_status", None)
        return told._replace(duration=0.0)

    kept._attendance.close()
    kept._attendance._is_wanted = False
    usual = outcome(kept)
    kept.run(["true"])  # whatever came of that
    kept._attendance._is_wanted = True
    kept.run(["true"])
    before = gates(kept)
    assert len(before) == 1
    assert outcome(kept) == usual
    assert kept.run("ps | grep -c '[s]leep 100' || true").text == "0\n"


def test_what_cannot_be_run_leaves_it_as_it_is(attended: Sandbox) -> None:
    before = gates(attended)
    with pytest.raises(StartError, match="nosuch"):
        attended.run(["nosuch"])
    assert attended.run(["true"]).status == 0
    assert gates(attended) == before


@pytest.mark.parametrize("script", ["kill -9 -1", "kill -STOP -1; kill -9 -1"])
def test_who_kills_all_that_he_sees_does_not_reach_it(attended: Sandbox, script: str) -> None:
    before = gates(attended)
    for _ in range(3):
        attended.run(["sh", "-c", script], timeout=20)
        assert attended.run(["echo", "there"]).text == "there\n"
    assert gates(attended) == before


def test_at_the_limit_of_processes_it_says_so_and_goes_on(attended: Sandbox) -> None:
    before = gates(attended)
    attended._container.update(pids_limit=2)  # its first process, and the gate
    with pytest.raises(KetchError, match="as many processes as it may have"):
        attended.run(["true"])
    attended._container.update(pids_limit=128)
    assert attended.run(["echo", "there"]).text == "there\n"
    assert gates(attended) == before


def test_a_gate_that_is_killed_is_made_again(attended: Sandbox) -> None:
    (gate,) = gates(attended)
    os.kill(gate, signal.SIGKILL)
    assert attended.run(["echo", "there"]).text == "there\n"
    (other,) = gates(attended)
    assert other != gate


def test_an_attendant_that_is_killed_is_replaced(attended: Sandbox) -> None:
    (gate,) = gates(attended)
    attendant = int(
        pathlib.Path(f"/proc/{gate}/stat").read_text("utf-8").rpartition(")")[2].split()[1]
    )
    start = procfs.process_start_time(attendant)
    os.kill(attendant, signal.SIGKILL)
    assert awaited(lambda: procfs.process_start_time(attendant) != start)
    assert attended.run(["echo", "there"]).text == "there\n"
    assert attended.run(["echo", "there"]).text == "there\n"
    assert awaited(lambda: gate not in gates(attended))


def test_one_that_is_killed_at_work_is_told_of(attended: Sandbox) -> None:
    (gate,) = gates(attended)
    attendant = int(
        pathlib.Path(f"/proc/{gate}/stat").read_text("utf-8").rpartition(")")[2].split()[1]
    )
    threading.Timer(1, os.kill, (attendant, signal.SIGKILL)).start()
    with pytest.raises(UnavailableError, match="has gone"):
        attended.run(["sleep", "1000"])
    assert attended.run(["echo", "there"]).text == "there\n"


def test_it_leaves_when_nobody_asks_and_is_asked_for_again(library: ketch.Engine) -> None:
    with Sandbox.create("busybox", engine=library, timeout=None) as sandbox:
        sandbox._attendance.begin(idle_seconds=1)
        assert len(gates(sandbox)) == 1
        assert awaited(lambda: not gates(sandbox))
        assert sandbox.run(["echo", "there"]).text == "there\n"
        assert sandbox.run(["echo", "there"]).text == "there\n"
        assert len(gates(sandbox)) == 1


def test_half_a_request_is_no_program(attended: Sandbox) -> None:
    control = attended._attendance._control
    assert control is not None
    from ketch.engine.requests import wire
    from ketch.linux import process

    for words in (b"", b"\3\0\0\0", b"\3\0\0\0\0\0\0\5ab", b"\0" * 64, os.urandom(64)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            control._socket.sendmsg([wire.frame(wire.DESCRIPTORS)], process.rights(theirs.fileno()))
            ours.sendall(words)
    assert attended.run(["echo", "there"]).text == "there\n"
    control._socket.sendall(b"nonsense")
    assert attended.run(["echo", "there"]).text == "there\n"
    assert attended.run(["echo", "there"]).text == "there\n"


def test_several_threads_have_their_programs_at_the_same_time(attended: Sandbox) -> None:
    told: list[str] = []
    meeting = "echo > /workspace/{0}; until [ -e /workspace/{1} ]; do sleep 0.05; done; echo {0}"
    threads = [
        threading.Thread(
            target=lambda pair=pair: told.append(attended.run(meeting.format(*pair)).text)
        )
        for pair in (("a", "b"), ("b", "a"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_TIMEOUT)
    assert sorted(told) == ["a\n", "b\n"]


def test_a_paused_one_runs_nothing_and_goes_on_later(attended: Sandbox) -> None:
    attended.pause()
    with pytest.raises(ConflictError, match="paused"):
        attended.run(["true"])
    attended.resume()
    assert attended.run(["echo", "there"]).text == "there\n"


def test_each_of_its_programs_is_on_record(attended: Sandbox, library: ketch.Engine) -> None:
    since = datetime.now()
    attended.run(["sh", "-c", "exit 7"])
    names = []
    for event in library.events(since=since, until=datetime.now()):
        if event["Actor"]["ID"] == attended.id and event["Action"].startswith("exec_"):
            names.append(event["Action"].partition(":")[0])
            last = event
    assert names == ["exec_create", "exec_start", "exec_die"]
    assert last["Actor"]["Attributes"]["exitCode"] == "7"


def test_a_fork_shares_what_one_has_in_memory(attended: Sandbox) -> None:
    attended.run("dd if=/dev/urandom of=/workspace/data bs=1M count=1")
    (fork,) = attended.fork()
    with fork:
        assert not fork._container.labels.get("org.ketch.sandbox.fork")
        same = [one.run(["md5sum", "data"]).text for one in (attended, fork)]
        assert same[0] == same[1]


def test_those_of_a_pool_have_one_at_once(library: ketch.Engine) -> None:
    with Pool(1, "busybox", engine=library) as pool, pool.acquire() as sandbox:
        (gate,) = gates(sandbox)
        assert sandbox.run(["echo", "there"]).text == "there\n"
        assert gates(sandbox) == [gate]
