"""A process's memory in a file: what its children give back and keep, who may write to it."""

import os
import pathlib
import platform
import shutil
import subprocess
import sys

import pytest

from ketch.linux import memory_image

ROOT = pathlib.Path(__file__).parents[3]
_SOURCE = ROOT / "scripts" / "memory_image_x86_64.s"
_has_code = pytest.mark.skipif(
    platform.machine() not in memory_image._CODE, reason="there is no code for this machine"
)

# In a process of its own: what has an image of its memory has it for good.
_BEGINNING = """
import gc, json, os, pathlib, select, sys
from ketch.linux.memory_image import Image

def private_kb():
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

def child(work):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

many = [{"number": number, "text": f"text {number}"} for number in range(20_000)]
told = json.dumps(many)
image = Image()
image.load()
gc.collect()
gc.freeze()
"""


def _run(script: str) -> None:
    subprocess.run(
        [sys.executable, "-c", _BEGINNING + script],
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )


@_has_code
def test_what_reads_as_before_is_given_back_and_what_does_not_is_kept() -> None:
    _run("""
image.take()
assert image._count

def work():
    for entry in many:  # counts the users of each up and down
        for each in entry.values():
            pass
    many[7]["text"] = "another text"
    before = private_kb()
    image.restore()
    after = private_kb()
    assert after < before / 2, (before, after)
    assert many[7] == {"number": 7, "text": "another text"}
    many[7]["text"] = "text 7"
    assert json.dumps(many) == told
    # It goes on as any process does: makes, frees, collects, loads, forks.
    made = [bytes(size) for size in range(3000)]
    image.restore()
    assert [len(each) for each in made] == [*range(3000)]
    del made
    gc.unfreeze()
    gc.collect()
    import decimal
    image.restore()
    assert decimal.Decimal(2).sqrt() ** 2 < 3
    child(lambda: json.loads(told) == many or os.abort())

for _ in range(3):
    child(work)
assert json.dumps(many) == told  # nothing of that has come here
""")


@_has_code
def test_memory_that_was_mapped_anew_is_kept_though_it_reads_as_before() -> None:
    """As a heap's end is that shrinks and grows: madvise(2) empties what is no file's."""
    _run("""
import ctypes, mmap
from ketch.linux import memory_image

size = 1 << 20
kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
memory = mmap.mmap(-1, size, flags=kind)
pattern = bytes(range(256)) * (size // 256)
memory[:] = pattern
place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
image.take()
regions = [*zip(*[iter(image._regions)] * 4)]
assert any(begin <= place < begin + length for begin, length, *_ in regions)
MAP_FIXED = 0x10
assert memory_image._mmap(place, size, 3, kind | MAP_FIXED, -1, 0) == place
memory[:] = pattern
image.restore()
assert memory[:] == pattern
""")


@_has_code
def test_nobody_can_write_to_the_file() -> None:
    _run("""
image.take()
lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
places = [
    "-".join(f"{int(end, 16):x}" for end in line.split()[0].split("-"))
    for line in lines
    if "/memfd:ketch-memory" in line
]
assert places
for place in places:
    file = os.open(f"/proc/self/map_files/{place}", os.O_RDWR)
    for change in (lambda: os.write(file, b"!"), lambda: os.ftruncate(file, 0)):
        try:
            change()
        except PermissionError:
            continue
        raise AssertionError(place)
    os.close(file)
""")


@_has_code
@pytest.mark.parametrize("kind", ["RLIMIT_FSIZE", "RLIMIT_AS"])
def test_without_the_room_all_stays_as_it_is(kind: str) -> None:
    _run(f"""
import resource
has = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
size = {{"RLIMIT_FSIZE": 1 << 16, "RLIMIT_AS": has + (4 << 20)}}["{kind}"]
resource.setrlimit(resource.{kind}, (size, size))
image.take()
assert not image._count
image.restore()
child(image.restore)
assert json.dumps(many) == told
""")


@pytest.mark.parametrize("loaded", [pytest.param(True, marks=_has_code), False])
def test_waiting_is_as_by_poll(loaded: bool) -> None:
    _run(f"""
if {loaded}:
    image.take()
else:
    image = Image()
reader, writer = os.pipe()
import signal, time

def work():
    begun = time.monotonic()
    assert image.wait([(reader, select.POLLIN)], 50) == []
    assert 0.05 <= time.monotonic() - begun < 10
    assert image.wait([(reader, select.POLLIN), (writer, select.POLLOUT)]) == [
        (writer, select.POLLOUT)]
    signal.signal(signal.SIGALRM, lambda *_: os.write(writer, b"word"))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    assert image.wait([(reader, select.POLLIN)]) == [(reader, select.POLLIN)]
    assert image.wait([(1000, select.POLLIN)]) == [(1000, select.POLLNVAL)]

child(work)
""")


def test_runs_of_pages() -> None:
    page, none = 1 << 63, 0
    apart = [none] * memory_image._APART_PAGES
    close = apart[1:]
    for entries, runs in (
        ([], []), (apart, []), ([page], [(0, 1)]), ([none, page, page, none], [(1, 3)]),
        ([page, *close, page], [(0, len(close) + 2)]),
        ([page, *apart, page], [(0, 1), (len(apart) + 1, len(apart) + 2)]),
    ):  # fmt: skip
        found = memory_image._runs(memoryview(b"".join(each.to_bytes(8, sys.byteorder)
                                                       for each in entries)).cast("Q"))  # fmt: skip
        assert [*found] == runs, entries


def test_the_bytes_are_those_of_the_source(tmp_path: pathlib.Path) -> None:
    assembler = shutil.which("as")
    if platform.machine() != "x86_64" or assembler is None or shutil.which("objcopy") is None:
        pytest.skip("needs binutils for x86_64")
    subprocess.run([assembler, _SOURCE, "-o", tmp_path / "o"], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", tmp_path / "o", tmp_path / "bytes"],
                   check=True)  # fmt: skip
    code, second = memory_image._CODE["x86_64"]
    assert (tmp_path / "bytes").read_bytes() == code
    symbols = subprocess.run(
        ["nm", tmp_path / "o"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert f"{second:016x} t restore" in symbols


@_has_code
def test_what_is_wiped_when_the_process_forks_still_is() -> None:
    """glibc keeps the state of its random numbers so, which no two processes may share."""
    _run("""
import mmap
page = mmap.mmap(-1, 4 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
page.madvise(18)  # MADV_WIPEONFORK, since Linux 4.14
page[:4] = b"here"
image.take()
assert image._count

def work():
    assert page[:4] == bytes(4), page[:4]

assert page[:4] == b"here"
child(work)
""")


@_has_code
def test_no_two_children_draw_the_same_random_numbers() -> None:
    _run("""
os.urandom(16)
image.take()
drawn = set()
for _ in range(8):
    reader, writer = os.pipe()
    child(lambda: os.write(writer, os.urandom(16)))
    drawn.add(os.read(reader, 16))
assert len(drawn) == 8
""")
