import pytest

from ketch.errors import InvalidArgumentError
from ketch.spec import environment


def test_a_file_is_read_line_by_line() -> None:
    content = b'\xef\xbb\xbfA="q"\n# c\n  B=x y \nHOME\nNOPE\nC=\n\n'
    assert environment.read_file("f", content, {"HOME": "/me"}) == [
        'A="q"', "B=x y ", "HOME=/me", "C=",
    ]  # fmt: skip


def test_names_stand_alone_in_a_label_file() -> None:
    assert environment.read_file("f", b"a=1\nb\n") == ["a=1", "b"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"A B=1\n", "variable 'A B' contains whitespaces"),
        (b"=1\n", "no variable name on line '=1'"),
        (b"A=\xff\n", "invalid utf8 bytes at line 1: [65 61 255]"),
    ],
)
def test_malformed_files(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        environment.read_file("ef", content, {})
    assert caught.value.message == f"invalid env file (ef): {reason}"


def test_bare_variables_take_the_callers_value() -> None:
    given = ["A=1", "HOME", "GONE"]
    assert environment.resolve(given, {"HOME": "/me"}) == ["A=1", "HOME=/me", "GONE"]


def test_variables_and_labels_need_names() -> None:
    assert environment.variable("A") == "A"
    with pytest.raises(InvalidArgumentError, match="invalid environment variable: =x"):
        environment.variable("=x")
    assert environment.label("a=b c") == "a=b c"
    with pytest.raises(InvalidArgumentError, match="invalid label '': empty name"):
        environment.label("")
    with pytest.raises(InvalidArgumentError, match="label 'a b' contains whitespaces"):
        environment.label("a b=c")


def test_a_container_starts_with_defaults_that_its_own_replace() -> None:
    assert environment.of_container([], hostname="h", home="/root", terminal=False) == [
        f"PATH={environment.DEFAULT_PATH}", "HOSTNAME=h", "HOME=/root",
    ]  # fmt: skip
    given = ["A=1", "TERM=foo", "PATH=/x", "A=2", "HOME=/h"]
    assert environment.of_container(given, hostname="hh", home="/root", terminal=True) == [
        "PATH=/x", "HOSTNAME=hh", "TERM=foo", "A=2", "HOME=/h",
    ]  # fmt: skip


def test_a_bare_name_unsets_a_default_and_an_empty_home_is_none() -> None:
    made = environment.of_container(["HOSTNAME", "HOME="], hostname="h", home="/r", terminal=True)
    assert made == [f"PATH={environment.DEFAULT_PATH}", "TERM=xterm", "HOME=/r"]
