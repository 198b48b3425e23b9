"""A step that is followed: what is told of it, and in which order."""

import json
import os
import pathlib
import socket
import threading

from ketch.build.steps.following import Following, Outcome
from ketch.engine.processes import ENDLESS
from ketch.engine.requests import wire


def test_agents_are_led_to_before_anything_that_is_said_is_passed_on(
    tmp_path: pathlib.Path,
) -> None:
    """Whoever hears it may wait for an agent; all of it may have come at once."""
    asked = str(tmp_path / "step")
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(asked)
        listener.listen()
        socket.send_fds(theirs, [wire.frame(wire.DESCRIPTORS)], [listener.fileno()])
        listener.close()
        output, program = os.pipe()
        os.write(program, b"said")
        os.close(program)
        ended = {"status": 0, "signal": 0, "oom": False, "connections": 0}
        told: list[bytes] = []

        def hear(_stream: int, data: bytes) -> None:
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(20)
                asking.connect(asked)
                told.append(data + b" " + asking.recv(100))
            theirs.sendall(wire.frame(wire.EXIT, json.dumps(ended).encode()))

        threading.Thread(target=_answer, args=(agent,), daemon=True).start()
        following = Following(ours, [output], hear, [agent.getsockname()])
        try:
            assert following.follow(ENDLESS) == Outcome(0)
        finally:
            following.close()
            os.close(output)
    assert told == [b"said answered"]


def _answer(agent: socket.socket) -> None:
    connection, _ = agent.accept()
    with connection:
        connection.sendall(b"answered")


def test_a_step_that_fails_before_it_has_handed_over_its_sockets_has_failed() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        output, program = os.pipe()
        theirs.close()
        following = Following(ours, [output], lambda *_: None, ["/nowhere"])
        assert following.follow(ENDLESS) is None
        following.close()
        os.close(output)
        os.close(program)
