"""criu's messages as bytes."""

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ketch.spec import criu

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(2**31), 2**31 - 1)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "images_dir_fd": NUMBERS,
        "pid": NUMBERS,
        "leave_running": st.booleans(),
        "root": TEXT,
        "ps": st.fixed_dictionaries({"address": TEXT, "port": NUMBERS}),
        "external": st.lists(TEXT, min_size=1, max_size=3),
        "inherit_fd": st.lists(
            st.fixed_dictionaries({"key": TEXT, "fd": NUMBERS}), min_size=1, max_size=3
        ),
    },
)


@given(st.sampled_from([criu.DUMP, criu.RESTORE]), OPTIONS)
def test_requests_come_back(kind: int, options: dict[str, Any]) -> None:
    fields = {"type": kind, "opts": options}
    assert criu.decode_request(criu.request(fields)) == fields


def test_known_bytes() -> None:
    assert criu.request({"type": criu.NOTIFY, "notify_success": True}) == b"\x08\x06\x18\x01"
    assert criu.request({"type": criu.DUMP, "opts": {"pid": 300, "root": "/a"}}) == (
        b"\x08\x01\x12\x07\x10\xac\x02\x6a\x02/a"
    )
    answer = b"\x08\x06\x10\x01\x2a\x11\x0a\x0cpost-restore\x10\xd2\x09\x98\x06\x01"
    assert criu.response(answer) == {
        "type": criu.NOTIFY, "success": True, "notify": {"script": "post-restore", "pid": 1234},
    }  # fmt: skip


@given(st.binary(max_size=60))
def test_strange_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        criu.response(data)
