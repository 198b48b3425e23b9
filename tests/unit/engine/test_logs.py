"""The log as other readers of Docker's format see it, and as ours reads it back."""

import errno
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.logs import json_file, local, reading
from ketch.engine.logs.reading import Reader
from ketch.spec.log_drivers import MAX_FILES, MAX_SIZE_BYTES, Rotation
from tests.support.descriptors import open_now

NOW = 1_136_214_245_000_000_000
TIME = "2006-01-02T15:04:05Z"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f"{tmp_path}/abc-json.log"


def opened(
    path: str,
    *,
    max_size_bytes: int = MAX_SIZE_BYTES,
    max_files: int = MAX_FILES,
    compress: bool = False,
    attributes: dict[str, str] | None = None,
) -> json_file.Writer | local.Writer:
    rotation = Rotation(max_size_bytes, max_files, compress=compress)
    if path.endswith(("json.log", "/log")):
        return json_file.Writer(path, rotation, attributes)
    return local.Writer(path, rotation)


def reader(path: str) -> Reader:
    is_local = path.endswith("container.log")
    return Reader(path, reading.Local() if is_local else reading.JsonFile())


def records(path: str) -> list[dict[str, Any]]:
    """Read the file as any JSON reader would."""
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def written(path: str, *chunks: bytes, stream: str = "stdout") -> list[str]:
    writer = opened(path)
    for chunk in chunks:
        writer.write(stream, chunk, NOW)
    writer.close(NOW)
    return [] if path.endswith("container.log") else [record["log"] for record in records(path)]


def output(path: str, **options: Any) -> bytes:
    return b"".join(data for _, _, data, _ in reader(path).entries(**options))


def test_the_file_is_dockers(path: str) -> None:
    writer = opened(path)
    writer.write("stdout", b'say "hi"\\\n', NOW)
    writer.write("stderr", b"\x1b[1m\t\0\r\n", NOW + 120_000_000)
    writer.close(NOW)
    assert path.endswith("/abc-json.log")
    assert Path(path).read_text().splitlines() == [
        '{"log":"say \\"hi\\"\\\\\\n","stream":"stdout","time":"2006-01-02T15:04:05Z"}',
        '{"log":"\\u001b[1m\\t\\u0000\\r\\n","stream":"stderr","time":"2006-01-02T15:04:05.12Z"}',
    ]


def test_lines_are_put_together_from_pieces(path: str) -> None:
    assert written(path, b"a", b"b\nc", b"\n", b"d\ne\nf") == ["ab\n", "c\n", "d\n", "e\n", "f"]


def test_streams_do_not_mix(path: str) -> None:
    writer = opened(path)
    writer.write("stdout", b"out", NOW)
    writer.write("stderr", b"err\n", NOW)
    writer.write("stdout", b"put\n", NOW)
    writer.close(NOW)
    assert [(r["stream"], r["log"]) for r in records(path)] == [
        ("stderr", "err\n"),
        ("stdout", "output\n"),
    ]


@pytest.mark.parametrize("extra", [0, 1, 5])
@pytest.mark.parametrize("chunk", [1000, 16384, 65536])
def test_a_long_line_is_cut_at_16_kib(path: str, extra: int, chunk: int) -> None:
    data = b"short\n" + b"x" * (2 * 16384 + extra) + b"\nshort\n"
    pieces = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    assert written(path, *pieces) == [
        "short\n", "x" * 16384, "x" * 16384, "x" * extra + "\n", "short\n",
    ]  # fmt: skip


def test_characters_cut_in_two_come_back_whole(path: str) -> None:
    data = "é".encode() * 20_000 + b"\n"
    written(path, b"x" + data)
    assert output(path) == b"x" + data


def test_bytes_that_are_no_text_look_to_others_like_dockers(path: str) -> None:
    (text,) = written(path, b"a\xff\xfeb\n")
    assert text == "a\udcff\udcfeb\n"
    assert output(path) == b"a\xff\xfeb\n"


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_every_byte_comes_back(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    path = str(tmp_path_factory.mktemp("log") / "log")
    written(path, *chunks)
    entries = [data for _, _, data, _ in reader(path).entries()]
    assert b"".join(entries) == b"".join(chunks)
    assert all(data.find(b"\n") in {-1, len(data) - 1} for data in entries)
    for line in Path(path).read_bytes().splitlines():
        assert line.isascii() or line.decode()


@given(st.text(max_size=60))
def test_text_is_json_to_others(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = str(tmp_path_factory.mktemp("log") / "log")
    data = text.encode("utf-8", "surrogatepass")
    found = "".join(written(path, data))
    assert found.encode("utf-8", "surrogateescape") == data


def numbered(path: str, count: int, **options: Any) -> None:
    writer = opened(path, **options)
    for number in range(count):
        writer.write("stdout", b"%06d\n" % number, NOW + number)
    writer.close(NOW)


def numbers(path: str, **options: Any) -> list[int]:
    return [int(data) for _, _, data, _ in reader(path).entries(**options)]


def test_files_turn_over_and_the_oldest_go(path: str) -> None:
    numbered(path, 1000, max_size_bytes=10_000, max_files=3)
    directory = os.path.dirname(path)
    assert sorted(os.listdir(directory)) == ["abc-json.log", "abc-json.log.1", "abc-json.log.2"]
    assert all(os.path.getsize(f"{directory}/{name}") < 10_200 for name in os.listdir(directory))
    found = numbers(path)
    assert found == list(range(found[0], 1000)), "nothing is missing but the oldest"
    assert 200 < len(found) < 1000


def test_one_file_alone(path: str) -> None:
    numbered(path, 1000, max_size_bytes=10_000, max_files=1)
    assert os.listdir(os.path.dirname(path)) == ["abc-json.log"]
    assert numbers(path)[-1] == 999


@pytest.mark.parametrize("count", [0, 1, 2, 139, 140, 141, 250, 399, 400, 5000])
def test_tail_across_files(path: str, count: int) -> None:
    numbered(path, 400, max_size_bytes=10_000, max_files=9)
    assert len(os.listdir(os.path.dirname(path))) > 2
    assert numbers(path, tail=count) == list(range(max(0, 400 - count), 400))


def test_tail_in_blocks(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 100)
    numbered(path, 30)
    for count in range(32):
        assert numbers(path, tail=count) == list(range(max(0, 30 - count), 30))


def test_since_and_until(path: str) -> None:
    numbered(path, 10)
    assert numbers(path, since_ns=NOW + 7) == [7, 8, 9]
    assert numbers(path, until_ns=NOW + 2) == [0, 1, 2]
    assert numbers(path, since_ns=NOW + 3, until_ns=NOW + 4) == [3, 4]
    assert numbers(path, tail=2, since_ns=NOW + 3) == [8, 9]


def test_no_log_is_an_empty_one(path: str) -> None:
    assert numbers(path) == []
    assert numbers(path, tail=3) == []


def test_half_an_entry_at_the_end_is_passed_over(path: str) -> None:
    numbered(path, 3)
    with open(path, "ab") as file:
        file.write(b'{"log":"half')
    assert numbers(path) == [0, 1, 2]
    assert numbers(path, tail=1) == [2]
    writer = opened(path)  # the container is started again
    writer.write("stdout", b"000003\n", NOW)
    writer.close(NOW)
    assert numbers(path) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "line", [b"", b"nonsense", b"[]", b"{}", b'{"log":1,"stream":"stdout","time":"x"}', b"\xff\r"]
)
def test_what_is_no_entry_is_passed_over(path: str, line: bytes) -> None:
    numbered(path, 1)
    with open(path, "ab") as file:
        file.write(line + b"\n")
    numbered(path, 1)
    assert numbers(path) == [0, 0]


def test_entries_of_other_writers(path: str) -> None:
    Path(path).write_text(
        '{"log":"a\\u003cb\\ufffd\\n","stream":"stderr","attrs":{"x":"y"},'
        '"time":"2006-01-02T15:04:05.5+01:00"}\n'
    )
    (entry,) = reader(path).entries()
    assert entry == (
        NOW - 3600 * 10**9 + 5 * 10**8, "stderr", "a<b\ufffd\n".encode(), {"x": "y"},
    )  # fmt: skip


class Following:
    """A thread that follows a log, as ``logs --follow`` does."""

    def __init__(self, path: str, **options: Any) -> None:
        self.ended = threading.Event()
        self.found: list[int] = []
        self._thread = threading.Thread(target=self._run, args=(path, options))
        self._thread.start()

    def _run(self, path: str, options: dict[str, Any]) -> None:
        for _, _, data, _ in reader(path).entries(ended=self.ended.is_set, **options):
            self.found.append(int(data))

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while len(self.found) < count:
            assert time.monotonic() < deadline, self.found
            time.sleep(0.005)

    def end(self) -> list[int]:
        self.ended.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self.found


def test_following(path: str) -> None:
    numbered(path, 5)
    following = Following(path, tail=2)
    following.wait_for(2)
    writer = opened(path)
    writer.write("stdout", b"000005\n00", NOW)
    following.wait_for(3)
    writer.write("stdout", b"0006\n", NOW)
    writer.close(NOW)
    assert following.end() == [3, 4, 5, 6], "what was there before the end is read"


def test_following_from_before_the_first_line(path: str) -> None:
    following = Following(path)
    numbered(path, 3)
    following.wait_for(3)
    assert following.end() == [0, 1, 2]


def test_following_while_files_turn_over(path: str) -> None:
    writer = opened(path, max_size_bytes=2_000, max_files=4)
    following = Following(path)
    for number in range(3000):
        writer.write("stdout", b"%06d\n" % number, NOW + number)
        if number % 20 == 0:
            following.wait_for(number - 20)  # the follower may lag by two files, not by four
    writer.close(NOW)
    assert following.end() == list(range(3000))


def test_a_follower_that_is_overtaken_goes_on_with_what_is_left(path: str) -> None:
    writer = opened(path, max_size_bytes=1_000, max_files=2)
    writer.write("stdout", b"000000\n", NOW)
    done: list[bool] = []
    entries = reader(path).entries(ended=lambda: bool(done))
    assert int(next(entries)[2]) == 0
    for number in range(1, 200):
        writer.write("stdout", b"%06d\n" % number, NOW)
    writer.close(NOW)
    done.append(True)
    found = [int(data) for _, _, data, _ in entries]
    own = next(n for n, number in enumerate(found) if number != n + 1)
    assert own > 5, "its own file is read to the end"
    assert found[own:] == list(range(found[own], 200))
    assert 10 < len(found[own:]) < 60


def test_following_ends_at_until(path: str) -> None:
    numbered(path, 3)
    begin = time.monotonic()
    found = numbers(path, ended=lambda: False, until_ns=time.time_ns() + 200_000_000)
    assert found == [0, 1, 2]
    assert time.monotonic() - begin < 5


def test_an_emptied_file_is_read_on(path: str) -> None:
    writer = opened(path)
    writer.write("stdout", b"000000\n000001\n", NOW)
    following = Following(path)
    following.wait_for(2)
    os.truncate(path, 0)
    writer.write("stdout", b"000002\n", NOW)
    following.wait_for(3)
    writer.close(NOW)
    assert following.end() == [0, 1, 2]


@pytest.mark.parametrize("name", ["abc-json.log", "container.log"])
def test_a_full_disk_loses_entries_and_the_log_tells_of_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{tmp_path}/{name}"
    writer = opened(path)
    writer.write("stdout", b"000000\n", NOW)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def nearly_full(descriptor: int, pieces: tuple[bytes, ...]) -> int:
        return os.pwrite(descriptor, pieces[0][:5], 0)

    with monkeypatch.context() as patched:
        patched.setattr("os.writev", nearly_full)
        patched.setattr("os.write", full)
        writer.write("stdout", b"000001\n000002\n", NOW)
        writer.write("stdout", b"000003\n", NOW)
    assert writer.lost_bytes > 0
    writer.write("stdout", b"000004\n", NOW)
    writer.write("stdout", b"000005\n", NOW)
    writer.close(NOW)
    first, told, *rest = [(stream, data) for _, stream, data, _ in reader(path).entries()]
    assert [first, *rest] == [("stdout", b"%06d\n" % number) for number in (0, 4, 5)]
    assert told[0] == "stderr"
    assert told[1].startswith(b"ketch: 3 entries of this log were lost here")


def test_what_was_lost_last_is_told_when_the_log_is_closed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = opened(path)

    def full(descriptor: int, pieces: tuple[bytes, ...]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.writev", full)
        writer.write("stdout", b"000001\n", NOW)
    assert isinstance(writer, json_file.Writer)
    stdout, stderr, lost = writer.suspend()
    assert (stdout, stderr, lost) == (b"", b"", 0)
    (told,) = records(path)
    assert told["log"].startswith("ketch: 1 entries of this log were lost here")


def test_no_descriptor_stays_open(path: str) -> None:
    before = len(open_now())
    numbered(path, 400, max_size_bytes=5_000)
    numbers(path, tail=3)
    next(reader(path).entries())
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_removed_directory_does_not_stop_the_writer(tmp_path: Path) -> None:
    directory = tmp_path / "container"
    directory.mkdir()
    writer = opened(str(directory / "log"), max_size_bytes=10)
    writer.write("stdout", b"000000\n", NOW)
    (directory / "log").unlink()
    directory.rmdir()
    writer.write("stdout", b"000001\n", NOW)
    writer.close(NOW)
    assert writer.lost_bytes > 0


# Docker's local format, and files that are compressed


@pytest.fixture
def local_path(tmp_path: Path) -> str:
    return f"{tmp_path}/container.log"


def test_the_local_format_is_dockers(local_path: str) -> None:
    written(local_path, b"hi\n")  # as bytes: docker 20.10 wrote the same, but for the time
    stamp = local.varint(NOW)
    body = b"\n\x06stdout\x10" + stamp + b"\x1a\x02hi"
    size = len(body).to_bytes(4, "big")
    assert Path(local_path).read_bytes() == size + body + size


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_every_byte_comes_back_from_the_local_format(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    path = f"{tmp_path_factory.mktemp('log')}/container.log"
    written(path, *chunks)
    data = b"".join(chunks)
    # A last line that the program did not end gets an end, as in Docker.
    assert output(path) in {data, data + b"\n"}


@pytest.mark.parametrize("size", [16383, 16384, 16385, 32768, 40000])
def test_pieces_of_a_long_line_tell_their_place(local_path: str, size: int) -> None:
    data = b"x" * size + b"\nshort\n"
    written(local_path, *(data[start : start + 10_000] for start in range(0, len(data), 10_000)))
    entries = [data for _, _, data, _ in reader(local_path).entries()]
    assert b"".join(entries) == data
    assert [len(entry) for entry in entries[:-2]] == [16384] * (size // 16384)


@pytest.mark.parametrize("count", [0, 1, 3, 150, 399, 400, 500])
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", ["container.log", "abc-json.log"])
def test_tail_across_compressed_files(
    tmp_path: Path, name: str, compress: bool, count: int
) -> None:
    path = f"{tmp_path}/{name}"
    writer = opened(path, max_size_bytes=10_000, max_files=9, compress=compress)
    for number in range(400):
        writer.write("stdout", b"%06d %s\n" % (number, b"x" * 50), NOW + number)
        if number % 40 == 0:
            time.sleep(0.01)
    writer.close(NOW)
    if compress:
        await_compressed(tmp_path)
    found = [int(data[:6]) for _, _, data, _ in reader(path).entries(tail=count)]
    assert found == list(range(max(0, 400 - count), 400))


def await_compressed(directory: Path) -> None:
    deadline = time.monotonic() + 10
    while not list(directory.glob("*.gz")) or list(directory.glob("*.tmp")):
        assert time.monotonic() < deadline, os.listdir(directory)
        time.sleep(0.01)


def test_a_killed_writers_half_record_goes(local_path: str) -> None:
    numbered(local_path, 3)
    with open(local_path, "ab") as file:
        file.write(b"\0\0\0\x20half")
    assert numbers(local_path) == [0, 1, 2]
    numbered(local_path, 1)
    assert numbers(local_path) == [0, 1, 2, 0]


def test_following_while_files_turn_over_and_are_compressed(tmp_path: Path) -> None:
    path = f"{tmp_path}/container.log"
    writer = opened(path, max_size_bytes=4_000, max_files=4, compress=True)
    following = Following(path)
    for number in range(1500):
        writer.write("stdout", b"%06d\n" % number, NOW + number)
        if number % 20 == 0:
            following.wait_for(number - 20)
    writer.close(NOW)
    assert following.end() == list(range(1500))


def test_attributes(path: str) -> None:
    writer = opened(path, attributes={"tag": 'a"b'})
    writer.write("stdout", b"x\n", NOW)
    writer.close(NOW)
    assert records(path)[0]["attrs"] == {"tag": 'a"b'}
    assert [entry[3] for entry in reader(path).entries()] == [{"tag": 'a"b'}]


def test_a_backslash_among_bytes_that_are_no_text(path: str) -> None:
    data = b"\xff\\n\\\\uffff\\\n\xef\xbf\xbf\\n\n\0\\n\n\\uffff\n"
    written(path, data)
    assert output(path) == data
