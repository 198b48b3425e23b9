"""Files by fsutil's protocol: what a sender tells of, a receiver makes, and nothing else."""

import contextlib
import os
import pathlib
import stat
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.api.buildkit import fsutil, schema
from ketch.api.buildkit.fsutil import Kind
from ketch.api.buildkit.grpc import Reader
from ketch.api.buildkit.receiving import Receiver
from ketch.api.buildkit.sending import Sender
from ketch.errors import InvalidArgumentError, KetchError, UnavailableError

session = schema.messages("session")
DIRECTORY, SYMLINK = 1 << 31, 1 << 27


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def transfer(source: pathlib.Path, target: pathlib.Path) -> list[int]:
    """Send all of a directory to another one; return the numbers of files that were asked for."""
    asked: list[int] = []
    with opened(source) as near, opened(target) as far, Receiver(far) as receiver:
        sender = Sender(near)
        told = list(sender.names())
        to_sender: list[bytes] = []
        to_receiver = [message for one in told for message in Reader().feed(one)]
        while to_receiver or to_sender:
            while to_receiver:
                to_sender += Reader().feed(receiver.take(to_receiver.pop(0)))
            for message in to_sender:
                packet = schema.decode(session.Packet, message)
                asked += [packet.ID] * (packet.type == Kind.REQ)
                for answer in sender.take(message):
                    to_receiver += Reader().feed(answer)
            to_sender.clear()
        assert receiver.is_finished
        assert sender.is_finished
    return asked


def described(top: pathlib.Path) -> dict[str, Any]:
    """All that the protocol carries of a directory's files."""
    found: dict[str, Any] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(top))] = (
            oct(status.st_mode), status.st_uid, status.st_mtime_ns, content,
            status.st_nlink if stat.S_ISREG(status.st_mode) else 0, status.st_rdev,
        )  # fmt: skip
    return found


def _tree(top: pathlib.Path) -> None:
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "deep").write_bytes(b"x" * 300_000)
    (top / "a" / "run").write_text("#!")
    (top / "a" / "run").chmod(0o4755)
    (top / "a.txt").write_text("after a/ in their order")
    (top / "empty").touch()
    os.link(top / "a.txt", top / "linked")
    (top / "sym").symlink_to("../outside")
    os.mkfifo(top / "fifo", 0o640)
    (top / os.fsdecode(b"odd \xff\n name")).write_text("")
    (top / "hole").touch()
    os.truncate(top / "hole", 1 << 20)
    (top / "closed").mkdir(mode=0o700)
    os.utime(top / "a", ns=(1, 2_000_000_001))


def test_a_tree_arrives_as_it_is_and_then_only_what_changed(tmp_path: pathlib.Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    _tree(source)
    assert len(transfer(source, target)) == 6
    assert described(target) == described(source)
    assert (target / "hole").stat().st_blocks == 0

    assert transfer(source, target) == []
    inode = (target / "a" / "run").stat().st_ino
    (source / "empty").write_text("not any more")
    (source / "a" / "b" / "deep").unlink()
    (source / "closed").rmdir()
    (source / "closed").write_text("a file now")
    (source / "sym").unlink()
    (source / "sym").mkdir()
    (target / "stranger").mkdir()
    (target / "stranger" / "file").touch()
    assert len(transfer(source, target)) == 2
    assert described(target) == described(source)
    assert (target / "a" / "run").stat().st_ino == inode


def test_half_a_file_is_asked_for_again(tmp_path: pathlib.Path) -> None:
    told = session.Stat(path=b"f", mode=0o644, size=6, modTime=7)
    with opened(tmp_path) as directory:
        with Receiver(directory) as receiver:
            assert receiver.take(_packet(Kind.STAT, told=told)) == fsutil.packet(Kind.REQ, 0)
            receiver.take(_packet(Kind.DATA, data=b"abc"))
        with Receiver(directory) as receiver:
            assert receiver.take(_packet(Kind.STAT, told=told)) == fsutil.packet(Kind.REQ, 0)
            receiver.take(_packet(Kind.DATA, data=b"abcdef"))
            assert receiver.take(_packet(Kind.DATA)) == b""
            assert receiver.take(_packet(Kind.STAT)) == fsutil.packet(Kind.FIN)
        assert (tmp_path / "f").read_bytes() == b"abcdef"
        with Receiver(directory) as receiver:
            assert receiver.take(_packet(Kind.STAT, told=told)) == b""


def test_many_files_are_asked_for_a_few_at_a_time(tmp_path: pathlib.Path) -> None:
    with opened(tmp_path) as directory, Receiver(directory) as receiver:
        asked = b"".join(
            receiver.take(_packet(Kind.STAT, told=session.Stat(path=b"%03d" % n, mode=0o600)))
            for n in range(200)
        )
        waiting = [schema.decode(session.Packet, one).ID for one in Reader().feed(asked)]
        assert len(waiting) == 32
        receiver.take(_packet(Kind.STAT))
        while waiting:
            more = receiver.take(_packet(Kind.DATA, waiting.pop(0)))
            waiting += [
                one.ID for one in (schema.decode(session.Packet, m) for m in Reader().feed(more))
                if one.type == Kind.REQ
            ]  # fmt: skip
        assert receiver.is_finished
    assert len(list(tmp_path.iterdir())) == 200


def _packet(kind: int, number: int = 0, data: bytes = b"", told: Any = None) -> bytes:
    return schema.encode(session.Packet(type=kind, ID=number, data=data, stat=told))


_LINK = {"path": b"l", "mode": SYMLINK, "linkname": b"/etc"}


@pytest.mark.parametrize(
    "files",
    [
        [{"path": b"../x"}], [{"path": b"/x"}], [{"path": b"a//b"}], [{"path": b"."}],
        [{"path": b""}], [{"path": b"a\0b"}], [{"path": b"x" * 256}], [{"path": b"a/b"}],
        [{"path": b"d", "mode": DIRECTORY}, {"path": b"d/../../x"}],
        [_LINK, {"path": b"l/x"}],
        [_LINK, {"path": b"l", "mode": DIRECTORY}],
        [{"path": b"x"}, {"path": b"x"}],
        [{"path": b"d", "mode": DIRECTORY}, {"path": b"e", "mode": DIRECTORY}, {"path": b"d/x"}],
        [{"path": b"x", "linkname": b"../../etc/passwd"}],
        [_LINK, {"path": b"x", "linkname": b"l/passwd"}],
        [{"path": b"x", "linkname": b"l"}, _LINK],
        [{"path": b"x", "linkname": b"nowhere"}],
        [{"path": b"l", "mode": SYMLINK}],
        [{"path": b"x", "size": -1}],
        [{"path": b"x", "uid": (1 << 32) - 1}],
    ],
)  # fmt: skip
def test_what_leads_out_or_cannot_be_is_refused(
    files: list[dict[str, Any]], tmp_path: pathlib.Path
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    told = [_packet(Kind.STAT, told=session.Stat(**{"mode": 0o644, **one})) for one in files]
    with opened(inside) as directory, Receiver(directory) as receiver, pytest.raises(KetchError):
        list(map(receiver.take, [*told, _packet(Kind.STAT)]))
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_content_that_nobody_asked_for_and_errors_are_refused(tmp_path: pathlib.Path) -> None:
    with opened(tmp_path) as directory, Receiver(directory) as receiver:
        with pytest.raises(InvalidArgumentError, match="nobody asked"):
            receiver.take(_packet(Kind.DATA, 7, b"x"))
        with pytest.raises(UnavailableError, match="cannot send its files: no!"):
            receiver.take(_packet(Kind.ERR, data=b"no!"))
        with pytest.raises(InvalidArgumentError, match="kind 3"):
            receiver.take(_packet(Kind.FIN))


_NAMES = st.sampled_from([b"a", b"b", b"a/b", b"a/b/c", b"b/a", b"..", b"a/..", b"c", b"/a", b""])
_STATS: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    path=_NAMES,
    mode=st.sampled_from([0o644, DIRECTORY | 0o755, SYMLINK | 0o777, 1 << 25, 1 << 24, 1 << 19]),
    linkname=st.one_of(st.just(b""), _NAMES, st.sampled_from([b"/", b"/etc/passwd", b"."])),
    size=st.integers(0, 3),
)
_PACKETS = st.one_of(
    st.builds(lambda fields: _packet(0, told=session.Stat(**fields)), _STATS),
    st.builds(_packet, st.integers(0, 5), st.integers(0, 4), st.binary(max_size=3)),
    st.binary(max_size=20),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(_PACKETS, max_size=12))
def test_no_packets_make_anything_outside(packets: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as top:
        inside = pathlib.Path(top) / "x" / "inside"
        inside.mkdir(parents=True)
        with (
            opened(inside) as directory,
            Receiver(directory) as receiver,
            contextlib.suppress(KetchError),
        ):
            list(map(receiver.take, packets))
        assert [path.name for path in pathlib.Path(top).iterdir()] == ["x"]
        assert [path.name for path in inside.parent.iterdir()] == ["inside"]
        for path in inside.rglob("*"):
            assert (
                path.lstat().st_nlink == 1
                or path.is_dir()
                or path.lstat().st_dev == (inside.stat().st_dev)
            )
    assert os.stat("/etc/passwd").st_nlink == 1


@given(st.integers(0, (1 << 32) - 1))
def test_modes_go_and_come_back(mode: int) -> None:
    posix = fsutil.posix_mode(mode)
    if posix:
        assert fsutil.posix_mode(fsutil.go_mode(posix)) == posix


def test_metadata_is_encoded_where_it_is_not_plain() -> None:
    assert fsutil.metadata({"include-patterns": ["a b", "c"]}) == [
        ("include-patterns", "a b"), ("include-patterns", "c"),
    ]  # fmt: skip
    assert fsutil.metadata({"x": ["ä b", "+"]}) == [
        ("x-encoded", "1"), ("x", "%C3%A4+b"), ("x", "%2B"),
    ]  # fmt: skip
