"""Engines choose subnets one after the other, and no stranger keeps them from it."""

import os
import socket
import threading
import time

import pytest

from ketch.network import turns

pytestmark = pytest.mark.root

_STRANGER = 65534


def _take(user: int) -> tuple[int, int]:
    """Have a process of a user hold the name; returns it, and what keeps it alive while open."""
    reader, writer = os.pipe()
    taken, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.setresuid(user, user, user)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
            held.bind(turns._NAME)
            os.write(told, b"1")
            os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    os.close(told)
    assert os.read(taken, 1) == b"1"
    os.close(taken)
    return pid, writer


def test_a_stranger_who_has_the_name_is_not_waited_for() -> None:
    pid, writer = _take(_STRANGER)
    try:
        started = time.monotonic()
        with turns.turn():
            assert time.monotonic() - started < turns._PATIENCE_SECONDS / 2
    finally:
        os.close(writer)
        os.waitpid(pid, 0)


def test_another_engine_is_waited_for() -> None:
    pid, writer = _take(0)
    ended: list[float] = []

    def end() -> None:
        ended.append(time.monotonic())
        os.close(writer)

    timer = threading.Timer(0.5, end)
    timer.start()
    with turns.turn():
        assert ended
        assert time.monotonic() >= ended[0]
    timer.join()
    os.waitpid(pid, 0)
