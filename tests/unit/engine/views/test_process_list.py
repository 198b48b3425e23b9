"""What is taken of ps's output."""

import os
import pathlib

import pytest

from ketch.engine.views import process_list
from ketch.errors import KetchError


def test_only_ones_own() -> None:
    output = (
        "UID   PID  PPID CMD\n"
        "root    1     0 /sbin/init splash\n"
        "root   12     1 sh -c   'sleep 5'\n"
        "root    -     - thread of 12\n"
        "root   13    12 sleep 5\n"
        "root    -     - thread of 13\n"
    )
    assert process_list.parse(output, {12}) == (
        ["UID", "PID", "PPID", "CMD"],
        [["root", "12", "1", "sh -c 'sleep 5'"], ["root", "-", "-", "thread of 12"]],
    )


def test_no_pid() -> None:
    with pytest.raises(KetchError, match="Couldn't find PID field in ps output"):
        process_list.parse("CMD\nsleep 5\n", {1})


def test_without_ps() -> None:
    titles, (row,) = process_list._without_ps({os.getpid()})
    assert titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert row[:3] == [str(os.getuid()), str(os.getpid()), str(os.getppid())]
    own = pathlib.Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
    assert row[7] == own.decode()
