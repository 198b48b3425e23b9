"""What the resolver remembers, and how much of it."""

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
