"""What the resolver remembers, and how much of it."""

import pathlib

from ketch.network import resolver
from ketch.network.dns import Directory
from ketch.network.resolver import Answers


def test_long_questions_are_not_kept() -> None:
    answers, directory = Answers(), Directory([])
    short, long = bytes(2) + b"q" * 40, bytes(2) + b"q" * 4000
    answer = bytes(6) + (1).to_bytes(2, "big") + b"told"
    assert answers.find(directory, short) is None
    for question in (short, long):
        answers.keep(question, answer)
    assert answers.find(directory, b"\1\2" + short[2:]) == b"\1\2" + answer[2:]
    assert answers.find(directory, long) is None


def test_servers_on_a_loopback_that_is_not_the_callers_have_another_address(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.9\n")
    assert resolver.HostServers([str(path)], (), "192.0.0.3")() == ["192.0.0.3", "192.0.2.9"]
    assert resolver.HostServers([str(path)], ())() == ["127.0.0.53", "::1", "192.0.2.9"]
