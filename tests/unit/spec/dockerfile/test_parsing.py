"""From a Dockerfile's bytes to nodes with their places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.spec.dockerfile import parsing
from ketch.spec.dockerfile.errors import DockerfileError, Place, report
from ketch.spec.dockerfile.heredocs import Heredoc
from ketch.spec.dockerfile.parsing import Dockerfile, Node, directive, parse
from ketch.spec.dockerfile.words import Pair


def read(text: str) -> Dockerfile:
    return parse(text.encode())


def only(text: str) -> Node:
    (node,) = read(text).nodes
    return node


def refused(text: str) -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        read(text)
    return caught.value


def test_lines_comments_and_continuations() -> None:
    found = read(
        "\ufeff# comment\n\nFROM a\r\n  run one \\\n  # within\n  two \\  \n\tthree\\\n\\\nfour\n"
        "RUN x\\\\\nRUN \\\n\n  # c\n\n y\n"
    )
    assert [(node.text, node.place.first, node.place.last) for node in found.nodes] == [
        ("FROM a", 3, 3),
        ("run one   two \tthreefour", 4, 9),
        ("RUN x\\\\", 10, 10),
        ("RUN  y", 11, 15),
    ]
    assert found.empty_continuations == (Place(15, 15),)


@pytest.mark.parametrize(
    ("text", "flags", "arguments", "json"),
    [
        ("RUN a  b ", (), ("a  b",), False),
        ("RUN", (), (), False),
        ('RUN ["a", "b c"]', (), ("a", "b c"), True),
        ("RUN ['a']", (), ("['a']",), False),
        ('RUN ["a"] x', (), ('["a"] x',), False),
        (r'CMD ["\u00e4", "\ud800", "\ud83d\ude00"]', (), ("ä", "\ufffd", "😀"), True),
        ("CMD []", (), (), True),
        ("COPY a  b\tc", (), ("a", "b", "c"), False),
        ('COPY ["a b", "c"]', (), ("a b", "c"), True),
        ('COPY "a b" c', (), ('"a', 'b"', "c"), False),
        ("COPY --from=x --link a b", ("--from=x", "--link"), ("a", "b"), False),
        ("COPY --a=\"b c\"'d e'\\ f a b", ("--a=b cd e f",), ("a", "b"), False),
        ("COPY -- --a b", (), ("--a", "b"), False),
        ("COPY --link -- a b", ("--link",), ("a", "b"), False),
        ("RUN --mount=type=cache", ("--mount=type=cache",), (), False),
        ("RUN - x", (), ("- x",), False),
        ('HEALTHCHECK --interval=1s CMD ["a"]', ("--interval=1s",), ("CMD", "a"), True),
        ("HEALTHCHECK CMD a  b", (), ("CMD", "a  b"), False),
        ("HEALTHCHECK NONE", (), ("NONE",), False),
        ("ARG a b=c d=\"e f\" 'g'=h\\ i", (), ("a", "b=c", 'd="e f"', "'g'=h\\ i"), False),
        ("USER a b", (), ("a b",), False),
        ('VOLUME ["/a"]', (), ("/a",), True),
        ("EXPOSE 80 81/udp", (), ("80", "81/udp"), False),
        ("NONSENSE a", (), (), False),
        ('SHELL ["a"]', (), ("a",), True),
    ],
)
def test_an_instructions_line_falls_into_flags_and_arguments(
    text: str, flags: tuple[str, ...], arguments: tuple[str, ...], json: bool
) -> None:
    node = only(text)
    assert (node.flags, node.arguments, node.json) == (flags, arguments, json)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("ENV a=b", [Pair("a", "b")]),
        ("ENV a=b=c d=", [Pair("a", "b=c"), Pair("d", "")]),
        ("ENV a=\"b c\" 'd e'=f\\ g", [Pair("a", '"b c"'), Pair("'d e'", "f\\ g")]),
        ("LABEL a b  c=d", [Pair("a", "b  c=d", legacy=True)]),
        ("ENV a= b", None),
        ("ENV", []),
        ("ENV a='b\\' c=d", [Pair("a", "'b\\'"), Pair("c", "d")]),
    ],
)
def test_names_and_values(text: str, pairs: list[Pair] | None) -> None:
    if pairs is None:
        assert 'can\'t find = in "b"' in refused(text).message
    else:
        assert [*only(text).pairs] == pairs


def test_the_escape_character_is_that_of_continuations_and_words_too() -> None:
    found = read(
        "# syntax = a/b:1 x\n#Escape=`\nFROM a\\\nRUN b `\n c\nENV a=b` c\nCOPY --x=a` b c d"
    )
    assert found.escape == "`"
    assert [(each.name, each.value) for each in found.directives] == [
        ("syntax", "a/b:1 x"),
        ("escape", "`"),
    ]
    assert [node.text for node in found.nodes][:2] == ["FROM a\\", "RUN b  c"]
    assert found.nodes[2].pairs == (Pair("a", "b` c"),)
    assert found.nodes[3].flags == ("--x=a b",)


@pytest.mark.parametrize("before", ["# comment\n", "\n", "FROM a\n", "# other=x\n", "#!/bin/sh\n"])
def test_a_directive_after_anything_else_is_a_comment(before: str) -> None:
    assert read(f"{before}# escape=`\nFROM a\nRUN b\\\nc").escape == "\\"


def test_directives_can_be_had_without_the_rest() -> None:
    assert directive(b"#!/usr/bin/x\n# check=skip=a,b;error=true more\nFROM", "check") == (
        "skip=a,b;error=true"
    )
    assert directive(b"\xef\xbb\xbf# escape=`\n# syntax=a\n", "syntax") == "a"
    assert directive(b"FROM a\n# check=skip=all", "check") == ""
    assert directive(b"", "check") == ""


def test_comments_belong_to_what_follows_at_once() -> None:
    found = read(
        "# syntax=x\n# one\n# two\nFROM a\n# three\n#\n# four\nRUN b\n"
        "# five\n\n  #six\nRUN c\nRUN d"
    )
    assert [node.comments for node in found.nodes] == [("one", "two"), ("four",), ("six",), ()]


def test_heredocs() -> None:
    found = read(
        "FROM x\n"
        "COPY <<a <<-'b c' 3<<\"D\" /to/\n$x\r\na\n\t\t$y\n\tb c\n\t$z\nD\n"
        "RUN <<EOF\n#!/bin/sh\n# no comment \\\n\nEOF\n"
        "RUN cat <<1 | cat <<2\none\n1\ntwo\n2\n"
        "ONBUILD ADD <<E /x\n1\nE\n"
        'RUN ["<<EOF"]\n'
        "RUN echo <<< x << y '<<z' $((1<<2)) <<$a\n"
        "z\n$a\n"
        "ENV a=<<b\n"
    )
    assert [node.heredocs for node in found.nodes] == [
        (),
        (
            Heredoc("a", True, False, 0, "$x\r\n"),
            Heredoc("b c", False, True, 0, "\t\t$y\n"),
            Heredoc("D", False, False, 3, "\t$z\n"),
        ),
        (Heredoc("EOF", True, False, 0, "#!/bin/sh\n# no comment \\\n\n"),),
        (Heredoc("1", True, False, 0, "one\n"), Heredoc("2", True, False, 0, "two\n")),
        (Heredoc("E", True, False, 0, "1\n"),),
        (),
        (Heredoc("$a", True, False, 0, "z\n"),),
        (),
    ]
    assert found.nodes[1].heredocs[1].text == "$y\n"
    assert found.nodes[1].place == Place(2, 8)
    assert found.nodes[4].place == Place(19, 21)


def test_onbuild_holds_an_instruction() -> None:
    node = only('ONBUILD COPY --link ["a", "b"]')
    assert node.trigger is not None
    assert (node.trigger.keyword, node.trigger.flags) == ("COPY", ("--link",))
    assert (node.trigger.arguments, node.trigger.json) == (("a", "b"), True)
    assert only("ONBUILD " * 5000 + "RUN x").trigger is not None


@pytest.mark.parametrize(
    ("text", "message", "lines"),
    [
        ("", "file with no instructions", (0, 0)),
        ("# only\n\n", "file with no instructions", (2, 2)),
        ("FROM a\nENV b\n", "ENV must have two arguments", (2, 2)),
        ("FROM a\nLABEL \\\n b\n", "LABEL must have two arguments", (2, 3)),
        ("FROM a\nENV b=c d\n",
         "Syntax error - can't find = in \"d\". Must be of the form: name=value", (2, 2)),
        ("RUN [1]",
         "when using JSON array syntax, arrays must be comprised of strings only", (1, 1)),
        ("FROM a\nCOPY <<E /b\nx\n", "unterminated heredoc", (2, 3)),
        ("# escape=x\nFROM a", "invalid escape token 'x' does not match ` or \\", (1, 1)),
        ("# escape=`\n# escape=`\nFROM a", "only one escape parser directive can be used", (2, 2)),
        ("FROM a\nRUN " + "x" * 65_532,
         "dockerfile line greater than max allowed size of 65535", (2, 2)),
        ("A\n" * 10_001, "more than 10000 instructions", (10_001, 10_001)),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused_with_its_lines(
    text: str, message: str, lines: tuple[int, int]
) -> None:
    error = refused(text)
    assert error.message == message
    assert [(place.first, place.last) for place in error.places] == [lines]


def test_limits_are_limits() -> None:
    assert only("RUN " + "x" * 65_531).arguments == ("x" * 65_531,)
    with pytest.raises(DockerfileError, match="exceeds maximum allowed size"):
        parse(b"\n" * (parsing.FILE_SIZE_MAX + 1), "-")


def test_an_error_is_shown_with_the_lines_around_it() -> None:
    text = "FROM a\n\nRUN b\nENV \\\n c\nRUN d\x1b[2J\nRUN e\n"
    assert report(refused(text)) == (
        "Dockerfile:4\n"
        "--------------------\n"
        "   3 |     RUN b\n"
        "   4 | >>> ENV \\\n"
        "   5 | >>>  c\n"
        "   6 |     RUN d\\x1b[2J\n"
        "--------------------\n"
        "ERROR: ENV must have two arguments\n"
    )


def test_bytes_that_are_no_text_stay_what_they_are() -> None:
    (node,) = parse(b"RUN echo \xff\xe4").nodes
    assert node.arguments[0].encode(errors="surrogateescape") == b"echo \xff\xe4"


PIECES = st.sampled_from(
    [*"\\\"'`[]{}$=#<-\n\r\t ", "\n", "FROM a\n", "RUN ", "COPY ", "ENV ", "ONBUILD ", "<<E",
     "\nE\n", "# escape=`\n", "--x", "ARG ", "HEALTHCHECK ", "CMD ", "LABEL "]
)  # fmt: skip


@given(st.lists(PIECES, max_size=30).map("".join).map(str.encode) | st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    lines = content.count(b"\n") + 1
    try:
        found = parse(content)
    except DockerfileError as error:
        assert error.message  # noqa: PT017 - either outcome is right
        assert all(0 <= place.first <= place.last <= lines for place in error.places)  # noqa: PT017
        assert error.source  # noqa: PT017
    else:
        ends = [0, *(node.place.last for node in found.nodes)]
        for node, before in zip(found.nodes, ends, strict=False):
            assert before < node.place.first <= node.place.last <= lines
