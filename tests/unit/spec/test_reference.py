import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec import reference

HEX64 = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a"
DIGEST = f"sha256:{HEX64}"


@pytest.mark.parametrize(
    ("text", "normal", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("fooo/bar", "docker.io/fooo/bar", "fooo/bar"),
        ("library/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("index.docker.io/fooo/bar", "docker.io/fooo/bar", "fooo/bar"),
        ("index.docker.io/x", "docker.io/library/x", "x"),
        ("library/foo/bar", "docker.io/library/foo/bar", "library/foo/bar"),
        ("127.0.0.1:8000/private/base", "127.0.0.1:8000/private/base", None),
        ("localhost/x", "localhost/x", None),
        ("localhost:5000/x:y", "localhost:5000/x:y", None),
        ("example.com/x", "example.com/x", None),
        ("example:5000/x", "example:5000/x", None),
        ("Foo/bar", "Foo/bar", None),
        ("[fc00::1]:5000/docker", "[fc00::1]:5000/docker", None),
        ("[2001:db8::1]/repo:tag", "[2001:db8::1]/repo:tag", None),
        ("192.168.0.1:80", "docker.io/library/192.168.0.1:80", "192.168.0.1:80"),
        ("test_com/foo", "docker.io/test_com/foo", "test_com/foo"),
        ("a_b.c/d", "a_b.c/d", None),
        ("a__b/c---d", "docker.io/a__b/c---d", "a__b/c---d"),
        ("docker.io/" + HEX64, "docker.io/library/" + HEX64, HEX64),
        ("x:Upper_1.2-3", "docker.io/library/x:Upper_1.2-3", "x:Upper_1.2-3"),
        (f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}", f"x@{DIGEST}"),
        (f"x:y@{DIGEST}", f"docker.io/library/x:y@{DIGEST}", f"x:y@{DIGEST}"),
        ("xn--n3h.com/i:xn--n3h.com", "xn--n3h.com/i:xn--n3h.com", None),
        ("a/" * 127 + "a:tag", "docker.io/" + "a/" * 127 + "a:tag", "a/" * 127 + "a:tag"),
    ],
)
def test_names_come_into_dockers_normal_and_familiar_form(
    text: str, normal: str, familiar: str | None
) -> None:
    parsed = reference.parse(text)
    assert str(parsed) == normal
    assert parsed.familiar == (familiar or text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "invalid reference format"),
        ("/", "invalid reference format"),
        (":justtag", "invalid reference format"),
        (f"@{DIGEST}", "invalid reference format"),
        ("https://github.com/docker/docker", "invalid reference format"),
        ("BB", r"repository name \(library/BB\) must be lowercase"),
        ("docker/Docker", r"repository name \(docker/Docker\) must be lowercase"),
        ("docker.io/docker/Docker:T", r"repository name \(docker/Docker\) must be lowercase"),
        ("A_b/c", "repository name must be lowercase"),
        ("-docker", "invalid reference format"),
        ("docker-/docker", "invalid reference format"),
        ("docker///docker", "invalid reference format"),
        ("dock..er/docker", "invalid reference format"),
        ("dock_.er/docker", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("docker/", "invalid reference format"),
        ("[fc00::1]", "invalid reference format"),
        ("fc00::1:5000/debian", "invalid reference format"),
        ("[fe80::1%eth0]:5000/debian", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a@", "invalid reference format"),
        ("a:-b", "invalid reference format"),
        ("a:" + "b" * 129, "invalid reference format"),
        ("a:b\u00e9", "invalid reference format"),
        (HEX64, "cannot specify 64-byte hexadecimal strings"),
        ("a/" * 128 + "a", "more than 255 characters"),
        ("a@sha256:" + "f" * 34, "invalid checksum digest length"),
        ("a@sha1:" + "f" * 40, "unsupported digest algorithm"),
    ],
)
def test_what_docker_refuses_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        reference.parse(text)


def test_the_default_tag_goes_where_neither_tag_nor_digest_is() -> None:
    assert reference.parse("x").tagged().familiar == "x:latest"
    assert reference.parse("x:y").tagged().familiar == "x:y"
    assert reference.parse(f"x@{DIGEST}").tagged().familiar == f"x@{DIGEST}"


def test_an_identifier_and_a_digest_are_told_from_names() -> None:
    assert reference.parse_any(HEX64) == DIGEST
    assert reference.parse_any(DIGEST) == DIGEST
    assert reference.parse_any(HEX64[:-1]) == reference.parse(HEX64[:-1])
    assert reference.parse_any("sha256:abc") == reference.parse("sha256:abc")


def test_references_compare_by_their_normal_form() -> None:
    assert reference.parse("x:latest") == reference.parse("docker.io/library/x:latest")
    assert len({reference.parse("x"), reference.parse("library/x"), reference.parse("y")}) == 2
    assert reference.parse("x") != "docker.io/library/x"


def looks_like_a_host(parsed: reference.Reference) -> bool:
    """Whether the familiar form is ambiguous, in Docker as well: ``docker.io/a.b/c``."""
    first, slash, _ = parsed.familiar_name.partition("/")
    return parsed.domain == "docker.io" and bool(slash) and ("." in first or first == "localhost")


COMPONENT = st.from_regex(r"\A[a-z0-9]{1,5}((__|[._]|-{1,3})[a-z0-9]{1,5}){0,2}\Z")
DOMAIN = st.sampled_from(["localhost", "example.com", "h:5000", "docker.io", "[::1]:80", "A"])
TAG = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")


@given(DOMAIN, st.lists(COMPONENT, min_size=1, max_size=4), TAG)
def test_a_well_formed_reference_parses_to_its_parts_and_prints_stably(
    domain: str, path: list[str], tag: str
) -> None:
    parsed = reference.parse(f"{domain}/{'/'.join(path)}:{tag}")
    assert parsed.tag == tag
    assert parsed.domain == domain
    assert parsed.path.removeprefix("library/") == "/".join(path).removeprefix("library/")
    assert reference.parse(str(parsed)) == parsed
    if not looks_like_a_host(parsed):
        assert reference.parse(parsed.familiar) == parsed


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("foo", "foo:tag", True),
        ("foo:tag", "foo:tag", True),
        ("foo:t*", "foo:tag", True),
        ("f?o", "foo", True),
        ("*", "foo", True),
        ("*", "a/foo", False),
        ("*/f[a-o][^x]", "a/foo", True),
        ("*/f[^o]o", "a/foo", False),
        ("**/foo", "a/foo", True),
        ("f\\oo", "foo", True),
        ("f.o", "foo", False),
        ("docker.io/library/foo", "foo:tag", True),
        ("docker.io/library/foo:t*", "foo:tag", True),
        ("docker.io/*/*", "a/foo", True),
        ("docker.io/foo", "foo", False),
        ("library/foo", "foo", False),
        ("host:5/*", "host:5/foo", True),
        ("[z-a]oo", "foo", False),
    ],
)
def test_patterns_match_the_familiar_and_the_normal_form(
    pattern: str, name: str, expected: bool
) -> None:
    assert reference.matcher(pattern)(reference.parse(name)) is expected


@pytest.mark.parametrize("pattern", ["[", "[a", "[]", "[^]", "[-a]", "a\\"])
def test_malformed_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgumentError, match="syntax error in pattern"):
        reference.matcher(pattern)


@given(st.text("ab*?[]^-\\/"), st.sampled_from(["a", "a/b:c", "host:5/a"]))
def test_any_text_is_a_pattern_or_a_clear_error(pattern: str, name: str) -> None:
    with contextlib.suppress(InvalidArgumentError):
        reference.matcher(pattern)(reference.parse(name))


@given(st.text("aA0._-/:@[]\n ") | st.text())
def test_any_text_is_a_reference_or_a_clear_error(text: str) -> None:
    try:
        parsed = reference.parse(text)
    except InvalidArgumentError:
        return
    assert reference.parse(str(parsed)) == parsed
    if not looks_like_a_host(parsed):
        assert reference.parse(parsed.familiar) == parsed


@pytest.mark.parametrize("piece", ["a", "a-", "a_", "a.", "-", "a/", "a:", "a@", "[", "a__", "1.-"])
def test_hostile_repetition_takes_no_time(piece: str) -> None:
    started = time.process_time()
    for end in ("", "!", "/x", "/X", ":x"):
        with contextlib.suppress(InvalidArgumentError):
            reference.parse(piece * 50_000 + end)
    assert time.process_time() - started < 2
