"""Words of a Dockerfile: quotes, escapes, variables and their modifiers."""

import shutil
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.expansion import Expander, Lexer, process_word
from ketch.spec.dockerfile.substitution import EXPANDED_MAX

ENVIRONMENT = {
    "name": "value",
    "empty": "",
    "path": "/usr/local/lib/x.tar.gz",
    "spaced": "two  words",
    "quote": "it's",
    "other": "name",
    "star": "a*b?c\\d",
    "letters": "aXbXc",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("'single $name'", "single $name"),
        ('"double $name"', "double value"),
        ('"it\'s"', "it's"),
        (r"a\ b\$name\"", 'a b$name"'),
        (r'"\$name \n \" \\"', r'$name \n " ' + "\\"),
        ("back\\", "back"),
        ('"back\\"', None),
        ("$name", "value"),
        ("${name}", "value"),
        ("$name.$missing.$empty", "value.."),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$1x $10x", "x x"),
        ("$äöx", ""),
        ("${missing:-word}", "word"),
        ("${empty:-word}", "word"),
        ("${empty-word}", ""),
        ("${missing-word}", "word"),
        ("${name:-word}", "value"),
        ("${name:+word}${empty:+no}${missing:+no}", "word"),
        ("${empty+word}${missing+no}", "word"),
        ("${missing:-${other}s}", "names"),
        ("${missing:-a ${empty:-$name} b}", "a value b"),
        ("${missing:-'}'}", "}"),
        (r"${missing:-\}}", "}"),
        ("${name:?no}", "value"),
        ("${empty?no}", ""),
        ("${path#*/}", "usr/local/lib/x.tar.gz"),
        ("${path##*/}", "x.tar.gz"),
        ("${path%/*}", "/usr/local/lib"),
        ("${path%%/*}", ""),
        ("${path%.*}", "/usr/local/lib/x.tar"),
        ("${path%%.*}", "/usr/local/lib/x"),
        ("${path#/???}", "/local/lib/x.tar.gz"),
        ("${path:#/}", "usr/local/lib/x.tar.gz"),
        ("${path#nothing}", "/usr/local/lib/x.tar.gz"),
        (r"${star#a\*}", "b?c\\d"),
        (r"${star%\?*}", "a*b"),
        (r"${star#*\\}", "d"),
        (r"${path#\/usr}", "/local/lib/x.tar.gz"),
        ("${path/lib/LIB}", "/usr/local/LIB/x.tar.gz"),
        ("${path//\\//.}", ".usr.local.lib.x.tar.gz"),
        ("${path//l*l/-}", "/usr/-ib/x.tar.gz"),
        ("${letters/X*X/-}", "a-c"),
        ("${letters//X/$name}", "avaluebvaluec"),
        ("${letters//X/}", "abc"),
        ("${letters///-}", "-a-X-b-X-c-"),
        ("${letters//?/.}", "....."),
        ("${letters//*/.}", "."),
        ("${missing//*/.}", "."),
        ("${missing/x/y}", ""),
        ("${missing#x}", ""),
    ],
)
def test_a_word_comes_to_what_buildkit_makes_of_it(text: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(DockerfileError):
            process_word(text, ENVIRONMENT)
    else:
        assert process_word(text, ENVIRONMENT) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ('"a', "unexpected end of statement while looking for matching double-quote"),
        ("${", "syntax error: missing '}'"),
        ("${name", "syntax error: missing '}'"),
        ("${name:-x", "syntax error: missing '}'"),
        ("${name:-'x}", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:-x}", "syntax error: bad substitution"),
        ("${{x}}", "syntax error: bad substitution"),
        ("${name^^}", r"unsupported modifier \(\^\) in substitution"),
        ("${name:=x}", r"unsupported modifier \(:=\) in substitution"),
        ("${missing?}", "missing: is not allowed to be unset"),
        ("${missing:?}", "missing: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${missing?set $other}", "missing: set name"),
        ("${name/x}", "syntax error: missing '/' in"),
        ("${name/x/y", "syntax error: missing '}'"),
        (r"${name#\a}", r"invalid pattern \(\\a\) in substitution: invalid escape '\\a'"),
        ("${x:-" * 200 + "}" * 200, "variables nested more than 100 deep"),
    ],
)
def test_what_is_malformed_is_refused_with_the_text_and_the_reason(text: str, reason: str) -> None:
    with pytest.raises(DockerfileError, match=f'^failed to process ".*": {reason}'):
        process_word(text, ENVIRONMENT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", ["a", "b"]),
        ("  a\t b ", ["a", "b"]),
        ("'a b' c", ["a b", "c"]),
        ("$spaced", ["two", "words"]),
        ('"$spaced"', ["two  words"]),
        ("x$spaced'y z'", ["xtwo", "wordsy z"]),
        ("${missing:-a b}", ["a", "b"]),
        (r"a\ b", ["a b"]),
        ("''", []),
        ("$missing", []),
    ],
)
def test_words_are_split_after_variables_are_in(text: str, expected: list[str]) -> None:
    assert [*Lexer("\\").process(text, ENVIRONMENT).words] == expected


def test_the_escape_character_may_be_a_backtick() -> None:
    assert process_word('C:\\dir\\`$name `` "`""', ENVIRONMENT, "`") == 'C:\\dir\\$name ` "'


def test_quotes_escapes_and_missing_variables_may_stay() -> None:
    text = r"""'a' "$name" \x $missing ${missing} ${missing:-$name} ${missing/a/b} ${name}"""
    lexer = Lexer(keep_quotes=True, keep_escapes=True, keep_missing=True)
    assert lexer.process(text, ENVIRONMENT).text == (
        r"""'a' "value" \x $missing ${missing} ${missing:-value} ${missing/a/b} value"""
    )


def test_it_is_noted_which_variables_were_set_and_which_were_not() -> None:
    expander = Expander({"a": "1", "b": "2"})
    assert expander.word("$a ${b:+$c} '$d' ${e:-x} \\$f") == "1  $d x $f"
    assert expander.raw("'$a' \"$g\"") == "'1' \"\""
    assert expander.words("$h") == ()
    assert (expander.used, expander.missing) == ({"a", "b"}, {"c", "e", "g"})


def test_what_grows_without_end_is_refused() -> None:
    environment = {"x": "y" * 200_000}
    with pytest.raises(DockerfileError, match="come to more than"):
        process_word("$x" * 10, environment)
    with pytest.raises(DockerfileError, match="come to more than"):
        process_word('"' + "$x" * 10 + '"', environment)
    with pytest.raises(DockerfileError, match="come to more than"):
        process_word("${x//y/" + "z" * 100 + "}", environment)
    assert len(process_word("$x" * 5, environment)) <= EXPANDED_MAX
    expander = Expander(environment)
    with pytest.raises(DockerfileError, match="come to more than"):
        [expander.word("$x") for _ in range(100)]


def test_what_is_large_in_itself_is_not() -> None:
    text = "line of $name 'and' \"more\"\n" * 100_000
    assert len(Expander(ENVIRONMENT).raw(text)) == len(text)


def test_patterns_made_to_take_for_ever_do_not() -> None:
    environment = {"x": "a" * 20_000 + "c"}
    stars = "*a" * 50 + "b"
    start = time.monotonic()
    for text in (f"${{x#{stars}}}", f"${{x%%{stars}}}", f"${{x//{stars}/y}}"):
        assert process_word(text, environment) == environment["x"]
    assert time.monotonic() - start < 10


@given(
    st.text("ab$\\\"'`{}:-+?#%/*_1 \n") | st.text(),
    st.dictionaries(st.text("ab", min_size=1), st.text()),
)
def test_any_text_is_expanded_or_refused(text: str, environment: dict[str, str]) -> None:
    try:
        expanded = Lexer().process(text, environment)
    except DockerfileError as error:
        assert error.message  # noqa: PT017 - either outcome is right
    else:
        assert expanded.used <= set(environment)
        assert not expanded.missing & set(environment)


WORD = st.text("ab", max_size=3)
PATTERN = st.lists(st.sampled_from(["a", "b", "*", "?"]), max_size=5).map("".join)
MODIFIED = st.one_of(
    st.tuples(st.sampled_from([":-", "-", ":+", "+"]), WORD).map("".join),
    st.tuples(st.sampled_from(["#", "##", "%", "%%"]), PATTERN).map("".join),
)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from("xyz"), MODIFIED), min_size=30, max_size=60), WORD)
def test_modifiers_do_what_they_do_in_a_shell(uses: list[tuple[str, str]], value: str) -> None:
    environment = {"x": value, "y": ""}
    texts = [f"${{{name}{modifier}}}" for name, modifier in uses]
    script = "\n".join(f'printf "%s\\n" "{text}"' for text in texts)
    done = subprocess.run(
        ["/bin/sh", "-c", script], env=environment, check=True, capture_output=True, text=True
    )
    assert [process_word(text, environment) for text in texts] == done.stdout.split("\n")[:-1]


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.sampled_from(["/", "//"]), PATTERN, WORD), min_size=20, max_size=40),
    st.text("ab", max_size=8),
)
def test_replacements_do_what_they_do_in_bash(uses: list[tuple[str, str, str]], value: str) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    # An empty pattern, and one that matches nothing at the end, is where Go and bash differ.
    uses = [use for use in uses if use[1].strip("*")]
    texts = [f"${{x{slashes}{pattern}/{word}}}" for slashes, pattern, word in uses]
    script = "\n".join(f'printf "%s\\n" "{text}"' for text in texts)
    done = subprocess.run(
        [bash, "-c", script], env={"x": value}, check=True, capture_output=True, text=True
    )
    assert [process_word(text, {"x": value}) for text in texts] == done.stdout.split("\n")[:-1]
