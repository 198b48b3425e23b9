"""Steps as they are told: across a socket and back, and in a shell's words."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec.told import TOPICS, Told, form, quote

WORDS = st.text(max_size=30)
NAMES = st.text(st.characters(exclude_characters=" \n\r"), min_size=1, max_size=9)
COMMANDS = st.lists(st.text(st.characters(exclude_characters="\0"), max_size=30), max_size=3)


def plain(text: str) -> str:
    return text.replace("\n", "\\n").replace("\r", "\\r")


@given(st.sampled_from(TOPICS), WORDS, st.lists(st.tuples(NAMES, WORDS)), COMMANDS, COMMANDS)
def test_a_step_comes_through_whole_and_a_line_break_in_it_parts_nothing(
    topic: str, words: str, values: list[tuple[str, str]], outside: list[str], inside: list[str]
) -> None:
    told = Told(topic, words, values, outside=outside, inside=inside)
    heard = Told.decode(told.encode())
    assert (heard.began_ns, heard.topic, heard.words) == (told.began_ns, topic, plain(words))
    assert heard.values == [(name, plain(value)) for name, value in values]
    assert heard.outside == outside, "a program's argument may have lines"
    assert heard.inside == inside


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_quoted_word_is_one_word_of_a_shell_s(text: str) -> None:
    assert shlex.split(quote(text)) == [text]


def test_forms() -> None:
    assert [form(text) for text in ("text", "json", "commands")] == ["text", "json", "commands"]
    assert [form(text) for text in ("true", "1", "T")] == ["text"] * 3
    assert [form(text) for text in ("false", "0", "F")] == [""] * 3
    with pytest.raises(InvalidArgumentError, match="must be one of text, json, commands"):
        form("yaml")
