"""The state directory, without containers: its records, locks, and what crashes leave."""

import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest

from ketch.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError, UnavailableError
from ketch.runtime.state import CREATED, CREATING, RUNNING, STOPPED, Entry, Record, States

CONFIG: Any = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs"},
    "annotations": {"a": "b"},
    "process": {"args": ["true"], "cwd": "/"},
}


@pytest.fixture
def states(tmp_path: pathlib.Path) -> States:
    return States(str(tmp_path / "states"))


def create(states: States, name: str = "c", *, pid: int | None = None) -> Entry:
    """Make a container whose init is the process given, or that is still being made."""
    entry = states.create(name)
    record = Record(name, "/bundle", CONFIG)
    if pid is not None:
        record.born(pid)
    entry.write(record)
    return entry


def test_a_record_is_read_as_it_was_written(states: States) -> None:
    create(states, pid=os.getpid()).close()
    record = states.find("c")
    assert (record.id, record.bundle, record.rootfs) == ("c", "/bundle", "/bundle/rootfs")
    assert (record.pid, record.annotations, record.version) == (os.getpid(), {"a": "b"}, "1.0.2")
    assert record.is_alive()
    assert [each.id for each in states.all()] == ["c"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a b", "é", "../x"])
def test_identifiers_that_name_no_container(states: States, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid container ID format"):
        states.create(name)


def test_an_identifier_is_taken_once(states: States) -> None:
    create(states, pid=os.getpid()).close()
    with pytest.raises(AlreadyExistsError, match="container with given ID already exists"):
        states.create("c")


def test_what_does_not_exist(states: States) -> None:
    assert states.all() == []
    for ask in (states.find, states.lock):
        with pytest.raises(NotFoundError, match="container does not exist"):
            ask("c")


def test_status_follows_the_facts(states: States) -> None:
    child = subprocess.Popen(["sleep", "60"])
    with create(states, pid=child.pid) as entry:
        record = entry.record()
        assert states.status(record) == RUNNING
        reader = entry.make_fifo()
        assert states.status(record) == CREATED
        entry.release_fifo()
        assert os.read(reader, 8) == b"0"
        os.close(reader)
        assert states.status(record) == RUNNING
        child.kill()
        # A zombie has ended, whoever may reap it.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert states.status(record) == STOPPED
    child.wait()


def test_another_process_of_the_same_pid_is_not_the_container(states: States) -> None:
    with create(states, pid=os.getpid()) as entry:
        record = entry.record()
        record.start_time += 1
        assert states.status(record) == STOPPED
        record.start_time -= 1
        record.boot = "00000000-0000-0000-0000-000000000000"
        assert states.status(record) == STOPPED


def test_nobody_waits_on_the_fifo_any_more(states: States) -> None:
    with create(states, pid=os.getpid()) as entry:
        os.close(entry.make_fifo())
        with pytest.raises(UnavailableError, match="has ended"):
            entry.release_fifo()


def test_a_removed_container_leaves_nothing(states: States) -> None:
    with create(states, pid=os.getpid()) as entry:
        entry.write_config(b"{}")
        os.close(entry.make_fifo())
        entry.remove()
    assert os.listdir(states.root) == [".lock"]
    create(states).close()


def test_what_is_no_container_is_left_alone(states: States, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "states" / "other"
    other.mkdir(parents=True)
    (other / "precious").touch()
    assert states.all() == []
    with pytest.raises(NotFoundError):
        states.find("other")
    assert (other / "precious").exists()


# Locks are by process: another one has to hold or to ask for them.
PROGRAM = """
import os, signal, sys
from ketch.runtime.state import Record, States
states = States(sys.argv[1])
config = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}}
entry = states.create("c")
"""
RECORDED = 'entry.write(Record("c", "/bundle", config))\n'


def elsewhere(states: States, program: str) -> "subprocess.Popen[str]":
    child = subprocess.Popen(
        [sys.executable, "-c", program, states.root],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("steps", ["", RECORDED, RECORDED + "os.close(entry.make_fifo())\n"])
def test_a_killed_maker_leaves_what_the_next_command_removes(states: States, steps: str) -> None:
    maker = elsewhere(states, f"{PROGRAM}{steps}print('ready', flush=True)\nsys.stdin.read()")
    if steps:
        assert states.status(states.find("c")) == CREATING
    with pytest.raises(AlreadyExistsError):
        states.create("c")
    maker.send_signal(signal.SIGKILL)
    maker.communicate()
    with pytest.raises(NotFoundError):
        states.find("c")
    assert os.listdir(states.root) == [".lock"]


def test_a_created_container_outlives_its_maker(states: States) -> None:
    program = PROGRAM + (
        'record = Record("c", "/bundle", config); record.born(os.getppid()); entry.write(record)\n'
        "print('ready', flush=True)\n"
    )
    elsewhere(states, program).communicate()
    assert states.status(states.find("c")) == RUNNING


def test_who_waits_for_a_container_that_is_removed_finds_none(states: States) -> None:
    create(states, pid=os.getpid()).close()
    remover = elsewhere(
        states,
        "import sys\nfrom ketch.runtime.state import States\n"
        "entry = States(sys.argv[1]).lock('c')\nprint('ready', flush=True)\n"
        "sys.stdin.readline()\nentry.remove()\nentry.close()\n",
    )
    waiter = subprocess.Popen(
        [sys.executable, "-c",
         "import sys\nfrom ketch.errors import NotFoundError\n"
         "from ketch.runtime.state import States\n"
         "try: States(sys.argv[1]).lock('c')\n"
         "except NotFoundError: print('none')", states.root],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with pytest.raises(subprocess.TimeoutExpired):
        waiter.communicate(timeout=0.5)
    remover.communicate("go\n")
    assert waiter.communicate(timeout=20)[0] == "none\n"
