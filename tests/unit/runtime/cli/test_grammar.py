import pytest

from ketch.errors import InvalidArgumentError
from ketch.runtime.cli import commands, grammar
from ketch.spec.flag import Flag

FLAGS = (
    Flag("bundle", "b"),
    Flag("detach", "d", "bool"),
    Flag("preserve-fds", "", "int"),
    Flag("env", "e", "list"),
)


def parse(*words: str, interspersed: bool = True) -> grammar.Parsed:
    return grammar.parse(FLAGS, words, interspersed=interspersed)


@pytest.mark.parametrize(
    "words",
    [
        ["--bundle", "x", "id"],
        ["-bundle", "x", "id"],
        ["--bundle=x", "id"],
        ["-b=x", "id"],
        ["id", "-b", "x"],
    ],
)
def test_one_dash_or_two_before_or_after(words: list[str]) -> None:
    parsed = parse(*words)
    assert (parsed.text("bundle"), parsed.arguments) == ("x", ["id"])


def test_a_bool_takes_no_further_word() -> None:
    parsed = parse("-d", "true")
    assert (parsed.enabled("detach"), parsed.arguments) == (True, ["true"])
    assert not parse("--detach=false").enabled("detach")


def test_the_first_argument_ends_the_flags_of_a_program() -> None:
    parsed = parse("-e", "A=b", "--env", "C", "id", "ls", "-d", interspersed=False)
    assert parsed.items("env") == ["A=b", "C"]
    assert parsed.arguments == ["id", "ls", "-d"]
    assert not parsed.enabled("detach")


def test_two_dashes_end_the_flags() -> None:
    assert parse("--", "-d").arguments == ["-d"]


def test_integers_in_any_base() -> None:
    assert parse("--preserve-fds", "0x10").number("preserve-fds") == 16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bad"], "flag provided but not defined: -bad"),
        (["-bad=1"], "flag provided but not defined: -bad"),
        (["--bundle"], "flag needs an argument: -bundle"),
        (["--detach=maybe"], 'invalid boolean value "maybe" for -detach: parse error'),
        (["--preserve-fds", "x"], 'invalid value "x" for flag -preserve-fds: parse error'),
        (["---d"], "bad flag syntax: ---d"),
    ],
)
def test_errors_in_gos_words(words: list[str], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse(*words)
    assert caught.value.message == message


def test_each_command_has_a_function_and_help() -> None:
    for name, (module, function) in commands.FUNCTIONS.items():
        imported = __import__(f"ketch.runtime.cli.{module}", fromlist=[function])
        assert callable(getattr(imported, function))
        text = grammar.help_text("ketch-oci", commands.command(name))
        assert text.startswith(f"NAME:\n   ketch-oci {name} - ")
