"""What a file's attribute says of whose it is to be: who may write the file may write that too."""

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.linux.owners import Remembered

LARGEST = (1 << 32) - 2


def read(value: bytes) -> tuple[int, int, int, int] | None:
    found = Remembered.read(value)
    return None if found is None else (found.uid, found.gid, found.kind, found.device)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"1:2:0755", (1, 2, 0, 0)),
        (b"007:08", (7, 8, 0, 0)),
        (b"%d:%d:0644:file" % (LARGEST, LARGEST), (LARGEST, LARGEST, 0, 0)),
        (b"1:2:0600:char-1-3", (1, 2, stat.S_IFCHR, os.makedev(1, 3))),
        (b"1:2:0600:block-4095-1048575", (1, 2, stat.S_IFBLK, os.makedev(4095, 1048575))),
        # Of no device that there can be, the owner is known all the same.
        (b"1:2:0600:block-4096-1", (1, 2, 0, 0)),
        (b"1:2:0600:block-1-1048576", (1, 2, 0, 0)),
        (b"1:2:0600:block-1", (1, 2, 0, 0)),
        (b"1:2:0600:block-" + b"9" * 5000 + b"-1", (1, 2, 0, 0)),
        (b"1:2:0600:socket-1-1", (1, 2, 0, 0)),
        (b"%d:0" % (LARGEST + 1), None),
        (b"0:%d" % (LARGEST + 1), None),
        (b"9" * 5000 + b":0:0755", None),
        (b"0:" + b"9" * 60_000, None),
        (b"-1:0", None),
        (b"1", None),
        (b"", None),
        ("\u00b2:0".encode(), None),
    ],
)
def test_what_is_remembered(value: bytes, expected: tuple[int, int, int, int] | None) -> None:
    assert read(value) == expected


@given(
    st.binary(max_size=40)
    | st.from_regex(rb"\A[0-9]{0,12}:[0-9]{1,12}:[0-7]*:(char|block)-[0-9]*-[0-9]*\Z")
)
def test_any_bytes_are_read_or_say_nothing(value: bytes) -> None:
    found = read(value)
    assert found is None or max(found[:2]) <= LARGEST
