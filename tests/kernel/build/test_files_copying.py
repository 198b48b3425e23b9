"""COPY into a root: BuildKit's rules for what goes where, and what becomes of it."""

import dataclasses
import os
import socket
import stat
from pathlib import Path

import pytest

from ketch.build.files import copying, digests
from ketch.errors import InvalidArgumentError
from tests.support import trees
from tests.support.build_files import copy, opened, selected
from tests.support.descriptors import open_now


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "root"
    directory.mkdir()
    return directory


def write(path: Path, content: str = "content", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


def facts(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


@pytest.mark.parametrize(
    ("paths", "target", "there"),
    [
        (["a"], "/b", ["b"]),
        (["a"], "/new/", ["new", "new/a"]),
        (["a"], "/new/b", ["new", "new/b"]),
        (["a"], "/", ["a"]),
        (["a"], "/.", ["a"]),
        (["./a"], "/x/.", ["x", "x/a"]),
        (["../../a"], "/b", ["b"]),
        (["a", "c"], "/new/", ["new", "new/a", "new/c"]),
        (["d"], "/new", ["new", "new/e", "new/e/f"]),
        (["d/"], "/new/", ["new", "new/e", "new/e/f"]),
        (["d", "a"], "/new/", ["new", "new/a", "new/e", "new/e/f"]),
        (["d/e/f"], "/", ["f"]),
        (["."], "/", ["a", "c", "d", "d/e", "d/e/f", "link"]),
        (["*"], "/x/", ["x", "x/a", "x/c", "x/e", "x/e/f", "x/f"]),
        (["?"], "/x/", ["x", "x/a", "x/c", "x/e", "x/e/f"]),
        (["[!d]", "[^d]"], "/x/", ["x", "x/a", "x/c", "x/e", "x/e/f"]),
        (["d/*/f"], "/x", ["x"]),
        (["link"], "/x", ["x", "x/f"]),
        (["link/f"], "/x", ["x"]),
        (["link"], "/a/b/", ["a", "a/b", "a/b/f"]),
    ],
)
def test_what_goes_where(
    source: Path, root: Path, paths: list[str], target: str, there: list[str]
) -> None:
    write(source / "a")
    write(source / "c")
    write(source / "d" / "e" / "f")
    (source / "link").symlink_to("/d/e")
    with selected(source, *paths) as chosen:
        copy(chosen, root, target)
    assert sorted(str(one.relative_to(root)) for one in root.rglob("*")) == there


def test_a_file_goes_by_the_name_of_the_link_that_led_to_it(source: Path, root: Path) -> None:
    write(source / "real", "real")
    (source / "sub").mkdir()
    (source / "sub" / "l1").symlink_to("../real")
    (source / "sub" / "l2").symlink_to("l1")
    with selected(source, "sub/l*") as chosen:
        copy(chosen, root, "/x/")
    assert sorted(os.listdir(root / "x")) == ["l1", "l2"]
    assert not (root / "x" / "l2").is_symlink()
    assert (root / "x" / "l2").read_text() == "real"


def test_links_inside_a_directory_stay_links(source: Path, root: Path) -> None:
    (source / "d").mkdir()
    (source / "d" / "out").symlink_to("/etc/passwd")
    (source / "d" / "nowhere").symlink_to("../../../nowhere")
    with selected(source, "d") as chosen:
        copy(chosen, root, "/x")
    assert os.readlink(root / "x" / "out") == "/etc/passwd"
    assert os.readlink(root / "x" / "nowhere") == "../../../nowhere"


def test_owners_of_a_context_are_not_kept_and_those_of_a_stage_are(
    source: Path, root: Path
) -> None:
    write(source / "d" / "f", mode=0o4751)
    (source / "d").chmod(0o710)
    for path in (source / "d", source / "d" / "f"):
        os.chown(path, 1000, 1001)
    (source / "d" / "f").chmod(0o4751)
    with selected(source, ".") as chosen:
        copy(chosen, root, "/context")
        copy(chosen, root, "/owned", owner=(5, 6))
    with selected(source, ".", owned=True) as chosen:
        copy(chosen, root, "/stage")
    assert facts(root / "context" / "d") == (0o710, 0, 0)
    assert facts(root / "context" / "d" / "f") == (0o4751, 0, 0)
    assert facts(root / "stage" / "d") == (0o710, 1000, 1001)
    assert facts(root / "stage" / "d" / "f") == (0o4751, 1000, 1001)
    assert facts(root / "owned" / "d" / "f") == (0o4751, 5, 6)
    # What was made for it is nobody's but root's, or whom it was made for.
    assert facts(root / "stage") == (0o755, 0, 0)
    assert facts(root / "owned") == (0o755, 5, 6)


def test_modes(source: Path, root: Path) -> None:
    write(source / "f", mode=0o640)
    write(source / "d" / "run", mode=0o750)
    with selected(source, "f") as chosen:
        copy(chosen, root, "/parent/f", mode="1777")
        copy(chosen, root, "/other/f", mode="go+r")
    with selected(source, "d") as chosen:
        copy(chosen, root, "/a", mode="600")
        copy(chosen, root, "/b", mode="u=rwX,go=rX")
    assert facts(root / "parent")[0] == facts(root / "a")[0] == 0o755
    assert facts(root / "parent" / "f")[0] == 0o1777
    assert facts(root / "other" / "f")[0] == 0o644
    assert facts(root / "a" / "run")[0] == 0o600
    assert facts(root / "b" / "run")[0] == 0o755


def test_a_directory_is_merged_into_what_is_there(source: Path, root: Path) -> None:
    write(source / "d" / "sub" / "new")
    write(source / "d" / "old", "replaced", mode=0o600)
    (source / "d" / "sub").chmod(0o700)
    os.utime(source / "d" / "sub", ns=(7, 7))
    os.utime(source / "d", ns=(8, 8))
    write(root / "app" / "old", "before", mode=0o666)
    write(root / "app" / "sub" / "kept", "kept")
    for path in (root / "app", root / "app" / "sub", root / "app" / "old"):
        os.chown(path, 500, 600)
    with selected(source, "d") as chosen:
        copy(chosen, root, "/app")
    assert facts(root / "app") == (0o755, 500, 600)
    assert (root / "app").stat().st_mtime_ns == 8
    assert facts(root / "app" / "sub") == (0o700, 0, 0)
    assert (root / "app" / "sub").stat().st_mtime_ns == 7
    assert facts(root / "app" / "old") == (0o600, 0, 0)
    assert (root / "app" / "old").read_text() == "replaced"
    assert (root / "app" / "sub" / "kept").read_text() == "kept"


def test_what_takes_the_place_of_what(source: Path, root: Path) -> None:
    write(source / "f", "new")
    (source / "l").symlink_to("target")
    outside = write(root.parent / "outside", "untouched")
    (root / "f").symlink_to(outside)
    write(root / "l")
    os.link(root / "l", root / "other")
    (root / "fifo").symlink_to("l")
    os.mkfifo(source / "fifo")
    with selected(source, ".") as chosen:
        copy(chosen, root, "/")
    assert (root / "f").read_text() == "new"
    assert not (root / "f").is_symlink()
    assert outside.read_text() == "untouched"
    assert os.readlink(root / "l") == "target"
    assert (root / "other").read_text() == "content"
    assert (root / "fifo").is_fifo()


def test_the_destinations_own_links_lead_somewhere_inside(source: Path, root: Path) -> None:
    write(source / "f", "new")
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "abs").symlink_to("/real")
    (root / "up").symlink_to(f"../../../..{outside}")
    (root / "file").symlink_to("/etc/conf")
    (root / "into").symlink_to("real")
    (root / "real").mkdir()
    for target in ("/abs/one", "/up/two", "/file", "/into/"):
        with selected(source, "f") as chosen:
            copy(chosen, root, target)
    assert (root / "real" / "one").read_text() == "new"
    assert root.joinpath(*outside.parts[1:], "two").read_text() == "new"
    assert os.listdir(outside) == []
    assert os.readlink(root / "file") == "/etc/conf"
    assert (root / "etc" / "conf").read_text() == "new"
    assert (root / "real" / "f").read_text() == "new"


@pytest.mark.parametrize(
    ("paths", "target", "message"),
    [
        (["f"], "/dir", "cannot replace to directory /dir/f with file"),
        (["d"], "/file", "cannot copy to non-directory: /file"),
        (["."], "/", "cannot copy to non-directory: /d"),
        (["f"], "/file/x", "mkdir /file: not a directory"),
        (["f"], "/file/", "mkdir /file: not a directory"),
        (["f"], "/loop/x", "/loop/x: too many symbolic links"),
    ],
)
def test_what_is_in_the_way(
    source: Path, root: Path, paths: list[str], target: str, message: str
) -> None:
    write(source / "f")
    write(source / "d" / "x")
    (root / "dir" / "f").mkdir(parents=True)
    write(root / "file")
    (root / "d").symlink_to("dir")
    (root / "loop").symlink_to("loop")
    with selected(source, *paths) as chosen, pytest.raises(InvalidArgumentError) as caught:
        copy(chosen, root, target)
    assert caught.value.message == message


def test_one_of_every_kind_of_file(source: Path, root: Path) -> None:
    trees.fill(source / "tree")
    expected = trees.listing(source / "tree")
    with selected(source, "tree", owned=True) as chosen:
        copy(chosen, root, "/x")
    found = trees.listing(root / "x")
    # A file that takes a socket's place has nothing in it.
    socket_copy = found.pop("socket")
    assert stat.S_ISREG(int(str(socket_copy[0])))
    assert found == expected
    sparse = (root / "x" / "sparse").stat()
    assert sparse.st_blocks * 512 < trees.SPARSE_BYTES // 2


def test_a_socket_becomes_an_empty_file(source: Path, root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
    (source / "socket").chmod(0o640)
    with selected(source, "socket") as chosen:
        copy(chosen, root, "/x")
    assert stat.S_ISREG((root / "x").lstat().st_mode)
    assert facts(root / "x")[0] == 0o640


def test_names_of_one_file_stay_so_within_a_source(source: Path, root: Path) -> None:
    write(source / "d" / "one")
    (source / "d" / "deep" / "er").mkdir(parents=True)
    os.link(source / "d" / "one", source / "d" / "deep" / "er" / "two")
    os.link(source / "d" / "one", source / "outside")
    write(root / "x" / "one")
    write(root / "x" / "deep" / "er" / "two")
    with selected(source, "d", "outside") as chosen:
        copy(chosen, root, "/x/")
    assert (root / "x" / "one").samefile(root / "x" / "deep" / "er" / "two")
    assert (root / "x" / "one").stat().st_nlink == 2


def test_a_tree_deeper_than_a_path_is_long(source: Path, root: Path) -> None:
    here = os.open(source, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("n" * 200, dir_fd=here)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("one", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.link("one", "two", src_dir_fd=here, dst_dir_fd=here)
    os.close(here)
    with selected(source, ".") as chosen:
        copy(chosen, root, "/x")
    here = os.open(root / "x", os.O_RDONLY)
    for _ in range(40):
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    assert os.stat("two", dir_fd=here).st_nlink == 2
    os.close(here)


def test_what_nobody_wants_any_more_is_left(source: Path, root: Path) -> None:
    for number in range(5):
        write(source / str(number))
    with (source / "large").open("wb") as file:
        file.write(b"x" * (1 << 20))

    class CalledOff(BaseException):
        pass

    left = 3

    def check() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise CalledOff

    descriptors = len(open_now())
    for paths in (["/"], ["large", "0", "1", "2"]):
        with selected(source, *paths) as chosen:
            asked = dataclasses.replace(chosen, check=check)
            with pytest.raises(CalledOff):
                digests.digest([asked])
            left = 3
            with opened(root) as directory:
                destination = copying.Destination(directory, "/x/")
                with pytest.raises(CalledOff):
                    copying.copy(asked, destination, digests.Version())
            left = 3
    assert len(os.listdir("/proc/self/fd")) == descriptors
