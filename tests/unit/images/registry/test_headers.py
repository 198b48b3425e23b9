import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.images.registry import headers

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.!", min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


def test_docker_hubs_challenge() -> None:
    (challenge,) = headers.challenges([
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
        'scope="repository:library/busybox:pull,push"'
    ])  # fmt: skip
    assert challenge.scheme == "bearer"
    assert challenge.parameters == {
        "realm": "https://auth.docker.io/token",
        "service": "registry.docker.io",
        "scope": "repository:library/busybox:pull,push",
    }


def test_several_challenges_in_one_field_and_in_several() -> None:
    found = headers.challenges(
        ['Basic realm="a, b", Bearer realm="c\\"d", x = y', "Negotiate abc="]
    )
    assert [(one.scheme, one.parameters) for one in found] == [
        ("basic", {"realm": "a, b"}),
        ("bearer", {"realm": 'c"d', "x": "y"}),
        ("negotiate", {}),
    ]


@given(TOKEN, st.dictionaries(TOKEN, VALUE, min_size=1, max_size=5))
def test_what_is_written_is_read(scheme: str, parameters: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    field = f"{scheme} " + ", ".join(
        f"{name}={quoted(value)}" for name, value in parameters.items()
    )
    (challenge,) = headers.challenges([field])
    assert challenge.scheme == scheme
    assert challenge.parameters == {name.lower(): value for name, value in parameters.items()}


@given(st.lists(st.text(max_size=200), max_size=3))
def test_any_text_is_read_without_an_error(fields: list[str]) -> None:
    for challenge in headers.challenges(fields):
        assert challenge.scheme
    for field in fields:
        headers.next_page(field)
        headers.content_range(field)
        headers.received_bytes(field)
        seconds = headers.retry_after_seconds(field, 30)
        assert seconds is None or 0 <= seconds <= 30


@pytest.mark.parametrize(
    "text", ["a" * 60_000, "a=" * 30_000, '"\\' * 30_000, "<" * 60_000, ", " * 30_000]
)
def test_long_text_takes_no_long_time(text: str) -> None:
    begun = time.monotonic()
    headers.challenges([f"Bearer {text}", text])
    headers.next_page(f"<x>{text}")
    headers.next_page(text)
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize(
    ("field", "target"),
    [
        ('</v2/x/tags/list?last=b&n=2>; rel="next"', "/v2/x/tags/list?last=b&n=2"),
        ('</a>; rel=prev, </b>; title="x"; rel=next', "/b"),
        ('</a>; rel="prev next"', "/a"),
        ("</a>; rel=nextish", ""),
        ("</a>", ""),
        ("nothing", ""),
    ],
)
def test_link_to_the_next_page(field: str, target: str) -> None:
    assert headers.next_page(field) == target


def test_retry_after_in_seconds_and_as_a_date() -> None:
    assert headers.retry_after_seconds("7", 60) == 7
    assert headers.retry_after_seconds("700000", 60) == 60
    assert headers.retry_after_seconds("Fri, 31 Dec 1999 23:59:59 GMT", 60) == 0
    assert headers.retry_after_seconds("Fri, 31 Dec 2199 23:59:59 GMT", 60) == 60
    for wrong in ("", "soon", "-1", "1.5", "Fri, 99 Foo 1999"):
        assert headers.retry_after_seconds(wrong, 60) is None


def test_ranges() -> None:
    assert headers.content_range("bytes 5-9/10") == (5, 9, 10)
    assert headers.content_range("bytes 5-9/*") == (5, 9, None)
    for wrong in ("bytes 5-4/10", "bytes 5-10/10", "bytes */10", "items 1-2/3", ""):
        assert headers.content_range(wrong) is None
    assert headers.received_bytes("0-9") == 10
    assert headers.received_bytes("bytes=0-9") == 10
    assert headers.received_bytes("0-0") == 0
    assert headers.received_bytes("3-9") is None
