"""Go templates: every expected text here is what the Docker command line, 28.2, made of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.spec.template import ParseError, Template
from ketch.spec.template_functions import Struct, to_json
from ketch.spec.template_nodes import TemplateError

DATA = Struct(
    {
        "Name": "/tt",
        "Args": ["-c", "a b"],
        "State": Struct({"Status": "created", "Running": False, "Pid": 0}),
        "Labels": {"k": "v", "a": "b"},
        "Mounts": [],
        "Count": 0,
        "Nothing": None,
        "Label": lambda name: f"label {name}",
    }
)


def execute(template: str, data: object = DATA) -> str:
    return Template(template).execute(data)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("{{.Name}} {{.Args}} {{.State.Running}}", "/tt [-c a b] false"),
        ("{{.State}} {{.Labels}}", "{created false 0} map[a:b k:v]"),
        ("{{.Labels.nope}}|{{.Labels.k}}", "<no value>|v"),
        ('{{index .Labels "nope"}}|{{index .Labels "k"}}', "|v"),
        ("{{json .Labels}} {{json .Args}} {{json .State.Pid}}", '{"a":"b","k":"v"} ["-c","a b"] 0'),
        ('{{json "a<b>&é"}}', '"a<b>&é"'),
        ('{{.Label "com.x"}}', "label com.x"),
        # Blocks
        ("{{range .Args}}[{{.}}]{{end}}", "[-c][a b]"),
        ("{{range $i,$e := .Args}}{{$i}}={{$e}};{{else}}none{{end}}", "0=-c;1=a b;"),
        ("{{range $i := .Args}}{{$i}}{{end}}", "-ca b"),
        ("{{range $k,$v := .Labels}}{{$k}}:{{$v}};{{end}}", "a:b;k:v;"),
        ("{{range .Mounts}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ('{{range .Args}}{{if eq . "a b"}}{{continue}}{{end}}{{.}}{{end}}', "-c"),
        ("{{range .Args}}{{.}}{{break}}{{end}}", "-c"),
        ('{{if eq .Name "x"}}yes{{else if eq .Count 0}}zero{{else}}no{{end}}', "zero"),
        ("{{if eq (len .Args) 2}}two{{end}}", "two"),
        ("{{with .State}}{{.Status}} {{$.Name}}{{end}}", "created /tt"),
        ("{{with .Mounts}}a{{else with .Name}}b{{.}}{{else}}c{{end}}", "b/tt"),
        ("{{if and .State (not .Mounts)}}x{{end}}", "x"),
        # Blanks and comments
        ("a {{- 3 -}} b", "a3b"),
        ("{{/* c */}}x", "x"),
        ("a {{- /* c */ -}} b", "ab"),
        ("{{ .Name -}}   ", "/tt"),
        # Variables
        ("{{$x := 3}}{{$x = 4}}{{$x}}", "4"),
        ("{{with $x := .Name}}{{$x}}{{end}}", "/tt"),
        ("{{$x := 1}}{{range .Args}}{{$x = 5}}{{end}}{{$x}}", "5"),
        # Literals
        ("{{\"a\\tb\\u00e9\\x41\"}}{{`raw\\n`}}{{'a'}}{{'\\n'}}", "a\tbéAraw\\n9710"),
        ("{{1e21}} {{1e20}} {{1.0}} {{0.1}} {{1e-7}} {{0x10}} {{010}} {{1_000}}",
         "1e+21 1e+20 1 0.1 1e-07 16 8 1000"),
        ("{{1000000.0}} {{999999.0}} {{1234567.5}} {{0.0001}} {{0.00001}} {{-2.5e10}} {{0.0}}",
         "1e+06 999999 1.2345675e+06 0.0001 1e-05 -2.5e+10 0"),
        # Pipes
        ('{{.Name | upper | printf "%10s|"}}', "       /TT|"),
        ('{{.Name|printf "%s %s" "a"}}', "a /tt"),
        ("{{(index .Args 0) | len}} {{ .Args | json | len }}", "2 12"),
        ('{{"a" | eq "a"}}', "true"),
        # Functions
        ("{{eq 1 2 3 1}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt \"b\" \"a\"}} {{ge 1 2}}",
         "true true true true true false"),
        ('{{or "" .Name}} {{or "" 0}} {{and 1 2}} {{and 0 1}}', "/tt 0 2 0"),
        ('{{join .Args "-"}} {{join (split "a,b,c" ",") "+"}}', "-c-a b a+b+c"),
        ('{{title "hello wORLD foo_bar foo-bar"}} {{lower "ABC"}}',
         "Hello WORLD Foo_bar Foo-Bar abc"),
        ('{{pad .Name 1 2}}|{{truncate .Name 2}}|{{pad "" 1 2}}|{{truncate "ab" 5}}',
         " /tt  |/t||ab"),
        ('{{println .Name .Count}}{{print 1 2 "a" "b" 3}}', "/tt 0\n1 2ab3"),
        ("{{slice .Name 1 3}} {{slice .Name 1}} {{slice .Name}}", "tt tt /tt"),
        ("{{html \"<a&'\\\">\"}} {{js \"it's <b>\"}} {{urlquery \"a b&c\"}}",
         "&lt;a&amp;&#39;&#34;&gt; it\\'s \\u003Cb\\u003E a+b%26c"),
        ('{{len "é"}}', "2"),
        ('{{index "abc" 1}}', "98"),
        # printf
        ('{{printf "%q %v %d %5d|%-5d|%05d %x %t" .Name .Args 3 4 5 6 255 true}}',
         '"/tt" [-c a b] 3     4|5    |00006 ff true'),
        ('{{printf "%d" "x"}} {{printf "%s" 3}} {{printf "%s"}} {{printf "a" 1}} {{printf "%z" 1}}',
         "%!d(string=x) %!s(int=3) %!s(MISSING) a%!(EXTRA int=1) %!z(int=1)"),
        ('{{printf "%!"}} {{printf "%"}} {{printf "%%"}}', "%!!(MISSING) %!(NOVERB) %"),
        ('{{printf "%.2f %v %g %e" 1.5 1.5 1.5 1.5}}', "1.50 1.5 1.5 1.500000e+00"),
        ('{{printf "%6.2f|%-8s|%8s|%.2s" 1.5 "ab" "cd" "xyz"}}', "  1.50|ab      |      cd|xy"),
        ('{{printf "%+d %c %U %o %b %X" 5 97 97 8 5 255}}', "+5 a U+0061 10 101 FF"),
        ('{{printf "%T %T %T" "a" 1 true}}', "string int bool"),
    ],
)  # fmt: skip
def test_text(template: str, expected: str) -> None:
    assert execute(template) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{", "template: :1: unclosed action"),
        ("{{.Name", "template: :1: unclosed action"),
        ("\n\n{{}}", "template: :3: missing value for command"),
        ("{{.Name | }}", "template: :1: missing value for command"),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ("{{if .Name}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{else}}", "template: :1: unexpected {{else}}"),
        ("{{foo}}", 'template: :1: function "foo" not defined'),
        ("{{.Name | 1}}", "template: :1: non executable command in pipeline stage 2"),
        ("{{$x := .Name}}{{$y}}", 'template: :1: undefined variable "$y"'),
        ("{{if $x := .Name}}{{end}}{{$x}}", 'template: :1: undefined variable "$x"'),
        ('{{"abc}}', "template: :1: unterminated quoted string"),
        ("{{3k}}", 'template: :1: bad number syntax: "3k"'),
        ("{{0x_}}", 'template: :1: bad number syntax: "0x_"'),
        ("{{ # }}", 'template: :1: unexpected "#" in command'),
        ("{{(.Name}}", "template: :1: unclosed left paren"),
        ("{{.Name)}}", "template: :1: unexpected right paren"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
    ],
)
def test_what_cannot_be_parsed(template: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        Template(template)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("template", "place", "message"),
    [
        ("{{.Nope}}", "1:2", 'at <.Nope>: map has no entry for key "Nope"'),
        ("{{.State.Nope}}", "1:8", 'at <.State.Nope>: map has no entry for key "Nope"'),
        ("\né{{.Nope}}", "2:4", 'at <.Nope>: map has no entry for key "Nope"'),
        ("{{index .Args 5}}", "1:2",
         "at <index .Args 5>: error calling index: index out of range: 5"),
        ('{{index .Args "a"}}', "1:2",
         'at <index .Args "a">: error calling index: cannot index slice/array with type string'),
        ("{{index 3 1}}", "1:2",
         "at <index 3 1>: error calling index: can't index item of type int"),
        ("{{upper}}", "1:2", "at <upper>: wrong number of args for upper: want 1 got 0"),
        ('{{upper "a" "b"}}', "1:2", "at <upper>: wrong number of args for upper: want 1 got 2"),
        ("{{or}}", "1:2", "at <or>: wrong number of args for or: want at least 1 got 0"),
        ("{{upper 3}}", "1:8", "at <3>: wrong type for value; expected string; got int"),
        ("{{3 | upper}}", "1:6", "at <upper>: wrong type for value; expected string; got int"),
        ("{{eq 1 1.0}}", "1:2",
         "at <eq 1 1.0>: error calling eq: incompatible types for comparison"),
        ("{{lt true false}}", "1:2",
         "at <lt true false>: error calling lt: invalid type for comparison"),
        ("{{eq .Args .Args}}", "1:2", "at <eq .Args .Args>: error calling eq: "
         "non-comparable type [-c a b]: []interface {}"),
        ("{{.Name.x}}", "1:7", "at <.Name.x>: can't evaluate field x in type interface {}"),
        ('{{.Name "x"}}', "1:2", "at <.Name>: Name is not a method but has arguments"),
        ("{{slice .Name 3 2}}", "1:2",
         "at <slice .Name 3 2>: error calling slice: invalid slice index: 3 > 2"),
        ("{{range 1.5}}{{end}}", "1:8", "at <1.5>: range can't iterate over 1.5"),
        ("{{len 3}}", "1:2", "at <len 3>: error calling len: len of type int"),
    ],
)  # fmt: skip
def test_what_cannot_be_executed(template: str, place: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        execute(template)
    assert caught.value.message == f'template: :{place}: executing "" {message}'
    assert not isinstance(caught.value, ParseError)


def test_a_named_type_is_named() -> None:
    with pytest.raises(TemplateError, match="can't evaluate field Nope in type row"):
        execute("{{.Nope}}", Struct({}, "row"))


@given(st.text().filter(lambda text: "{{" not in text))
def test_text_alone_stays_as_it_is(text: str) -> None:
    assert execute(text) == text


FRAGMENTS = st.sampled_from([
    "{{", "}}", "{{-", "-}}", "if", "range", "with", "end", "else", "break", "$x", ":=", "=", ".",
    ".Name", ".Args", ".Labels", ".Nothing", "|", "(", ")", '"a"', "`b`", "'c'", "3", "-1.5",
    "nil", "true", "index", "len", "printf", "join", "slice", "eq", "json", ",", "x", "/*", "*/",
    " ", " ", " ", "\n",
])  # fmt: skip


@given(st.lists(FRAGMENTS, max_size=14).map("".join))
def test_nonsense_is_refused_in_words(template: str) -> None:
    refusal = "template: :"
    try:
        execute(template)
    except TemplateError as error:
        refusal = error.message
    assert refusal.startswith("template: :")


@given(st.text(alphabet="%#+- 0123456789.dsvqtxXcUfgeobTz", max_size=12), st.integers(), st.text())
def test_printf_always_has_an_answer(verbs: str, number: int, word: str) -> None:
    data = Struct({"N": number % 0x110000, "W": word, "Verbs": verbs})
    assert isinstance(execute("{{printf .Verbs .N .W}}", data), str)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(VALUES)
def test_json_is_json(value: Any) -> None:
    assert json.loads(to_json(value)) == value
