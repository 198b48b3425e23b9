"""What a mistyped word may have meant, and where other engines' commands are."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.cli import corrections, main
from ketch.cli.run import RUN
from ketch.errors import InvalidArgumentError
from ketch.spec import reference


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pss"], "did you mean ketch ps?"),
        (["contaner", "ls"], "did you mean ketch container?"),
        (["network", "creat", "x"], "did you mean ketch network create?"),
        (["run", "--nmae", "x", "busybox"], "did you mean --name?"),
        (["run", "-dti", "--plubish", "80", "busybox"], "did you mean --publish or"),
        (["ps", "--al"], "did you mean --all?"),
        (["-H", "tcp://x", "ps"], "DOCKER_HOST"),
        (["--host=tcp://x", "ps"], "DOCKER_HOST"),
        (["--context", "x", "ps"], "ssh HOST ketch"),
        (["-D", "ps"], "KETCH_DEBUG"),
        (["context", "ls"], "ssh HOST ketch"),
        (["swarm", "init"], "no cluster"),
        (["plugin", "ls"], "built in"),
        (["scan", "busybox"], "ketch save"),
        (["ls"], "ketch ps -a lists containers"),
        (["shell", "x"], "ketch exec -it CONTAINER sh"),
        (["up"], "ketch compose up"),
        (["delete", "x"], "ketch rm removes containers, ketch rmi images"),
        (["clean"], "ketch system prune"),
        (["network", "delete", "x"], "did you mean ketch network rm?"),
        (["system", "clean"], "did you mean ketch system prune?"),
        (["run", "--port", "80:80", "busybox"], "did you mean --publish?"),
        (["run", "--ram", "1g", "busybox"], "did you mean --memory?"),
        (["rm", "--yes", "x"], "did you mean --force?"),
        (["ns", "--json"], "did you mean --format json?"),
        (["volume", "create", "-n", "x"], "did you mean --name?"),
        (["rm", "-rf", "x"], "goes with all that is in it"),
    ],
)
def test_what_was_meant_is_said(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(words) != 0
    assert told in capsys.readouterr().err


def test_no_correction_names_a_command_that_there_is_not() -> None:
    known = {*main.COMMANDS, *main.GROUPS}
    others = {**corrections._COMMANDS, **corrections._SAID}
    assert not known & set(others)
    for text in {*others.values(), *corrections._OPTIONS.values()}:
        words = text.replace(",", " ").replace(":", " ").split()
        named = [after for word, after in itertools.pairwise(words) if word == "ketch"]
        assert {name for name in named if name.isalpha()} <= known | {
            "builds", "has", "is", "needs", "runs",
        }  # fmt: skip


@pytest.mark.parametrize("text", ["/bin/sh", "./x", "~/image"])
def test_a_path_for_an_image_is_told_what_comes_first(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid reference format") as caught:
        reference.parse(text)
    assert "the image comes first" in caught.value.hint


@given(st.text(max_size=2000))
def test_any_word_gets_an_answer_in_time(word: str) -> None:
    corrections.of_command(word, "", main.COMMANDS)
    corrections.of_flag("ketch run", word, RUN.longs)
