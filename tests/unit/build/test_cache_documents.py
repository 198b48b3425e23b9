"""Caches as documents: what is written can be read, and what is odd is refused."""

import json
from typing import Any

import pytest

from ketch.build.cache import document
from ketch.build.cache.document import Entry
from ketch.errors import InvalidArgumentError

DIGEST = "sha256:" + "a" * 64
ENTRY = Entry(DIGEST, DIGEST, "", False, "RUN x", 5)


def test_what_is_written_is_read() -> None:
    entries = [ENTRY, Entry(DIGEST, DIGEST, DIGEST, True, "COPY", 0)]
    assert document.parse(document.encode(entries, [DIGEST])) == (entries, [DIGEST])


@pytest.mark.parametrize(
    "change",
    [
        {"key": 5}, {"key": "x"}, {"layer": None}, {"below": "sha256:1"}, {"alone": "yes"},
        {"description": 5}, {"created": -1}, {"created": True}, {"created": 1 << 70},
    ],
    ids=str,
)  # fmt: skip
def test_odd_entries_are_refused(change: dict[str, Any]) -> None:
    (step,) = document.plain([ENTRY])
    with pytest.raises(InvalidArgumentError):
        document.parse(json.dumps({"layers": [], "steps": [{**step, **change}]}).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b'{"layers": 5, "steps": []}', b'{"layers": ["x"], "steps": []}',
        b'{"layers": [], "steps": [5]}', b"[" * 100_000, b'{"layers": []}',
    ],
)  # fmt: skip
def test_what_is_no_cache_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match="build cache"):
        document.parse(content)


def test_there_are_as_many_blobs_as_layers() -> None:
    with pytest.raises(InvalidArgumentError, match="1 layers, and there are 0"):
        document.blobs([DIGEST], [])
