"""criu's messages as bytes."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from ketch.spec import criu


def test_known_bytes() -> None:
    assert criu.request({"type": criu.NOTIFY, "notify_success": True}) == b"\x08\x06\x18\x01"
    assert criu.request({"type": criu.DUMP, "opts": {"pid": 300, "root": "/a"}}) == (
        b"\x08\x01\x12\x07\x10\xac\x02\x6a\x02/a"
    )
    options = {"external": ["a", "b"], "inherit_fd": [{"key": "k", "fd": 7}]}
    assert criu.request({"type": criu.RESTORE, "opts": options}) == (
        b"\x08\x02\x12\x10\xaa\x02\x01a\xaa\x02\x01b\xda\x01\x05\x0a\x01k\x10\x07"
    )
    answer = b"\x08\x06\x10\x01\x2a\x11\x0a\x0cpost-restore\x10\xd2\x09\x98\x06\x01"
    assert criu.response(answer) == {
        "type": criu.NOTIFY, "success": True, "notify": {"script": "post-restore", "pid": 1234},
    }  # fmt: skip


@given(st.binary(max_size=60))
def test_strange_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        criu.response(data)
