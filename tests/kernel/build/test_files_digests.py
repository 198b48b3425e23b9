"""Digests of files: the same where a step could see no difference, another where it could."""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ketch.build.files import digests
from ketch.build.files.hashes import Hashes
from tests.support import trees
from tests.support.build_files import copy, opened, selected


def digest(source: Path, *paths: str, owned: bool = False) -> str:
    with selected(source, *(paths or ("/",)), owned=owned) as chosen:
        return digests.digest([chosen]).value


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    (directory / "d").mkdir(parents=True)
    (directory / "d" / "f").write_text("content")
    (directory / "g").write_text("more")
    (directory / "l").symlink_to("g")
    os.mkfifo(directory / "p")
    return directory


def test_times_and_contexts_owners_do_not_count(source: Path) -> None:
    before, owned = digest(source), digest(source, owned=True)
    for path in (source, source / "d", source / "d" / "f"):
        os.utime(path, ns=(1, 2))
        os.chown(path, 1000, 1000)
    assert digest(source) == before
    assert digest(source, owned=True) != owned


def test_the_directory_whose_contents_are_meant_does_not_count(source: Path) -> None:
    before = digest(source, "d")
    (source / "d").chmod(0o700)
    os.rename(source / "d", source / "other")
    assert digest(source, "other") == before
    assert digest(source, "g") != digest(source, "other/f")


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "g").write_text("less"),
        lambda source: (source / "g").write_text("more "),
        lambda source: (source / "g").chmod(0o600),
        lambda source: (source / "d").chmod(0o700),
        lambda source: (source / "g").rename(source / "h"),
        lambda source: (source / "g").rename(source / "d" / "g"),
        lambda source: (source / "d" / "f").unlink(),
        lambda source: (source / "new").mkdir(),
        lambda source: os.setxattr(source / "g", "user.x", b"1"),
        lambda source: os.setxattr(source / "d", "user.x", b""),
        lambda source: ((source / "l").unlink(), (source / "l").symlink_to("h")),
        lambda source: ((source / "l").unlink(), (source / "l").write_text("g")),
        lambda source: ((source / "p").unlink(), (source / "p").touch()),
        lambda source: os.mknod(source / "n", stat.S_IFCHR, os.makedev(1, 3)),
        lambda source: os.setxattr(source / "g", "security.capability", trees.CAPABILITY),
    ],
)
def test_what_could_be_seen_counts(source: Path, change: Callable[[Path], Any]) -> None:
    before = digest(source)
    change(source)
    assert digest(source) != before


def test_devices_numbers_count(source: Path) -> None:
    os.mknod(source / "n", stat.S_IFCHR, os.makedev(1, 3))
    before = digest(source)
    (source / "n").unlink()
    os.mknod(source / "n", stat.S_IFCHR, os.makedev(1, 5))
    assert digest(source) != before


def test_names_of_one_file_count_within_what_is_copied(source: Path) -> None:
    shutil.copy2(source / "g", source / "h")
    before = digest(source)
    os.link(source / "g", source.parent / "outside")
    assert digest(source) == before
    (source / "h").unlink()
    os.link(source / "g", source / "h")
    assert digest(source) != before
    # Each source is copied for itself.
    assert digest(source, "g", "h") == digest(source, "g", "outside/../h")


@st.composite
def _trees(draw: st.DrawFn) -> dict[str, Any]:
    """A tree: directories by name, files as content and mode."""
    leaf = st.one_of(
        st.tuples(st.sampled_from([b"", b"x", b"xy"]), st.sampled_from([0o644, 0o755])),
        st.text("ab", min_size=1, max_size=2),
    )
    nodes = st.recursive(
        leaf, lambda below: st.dictionaries(st.text("ab", min_size=1, max_size=2), below,
                                            max_size=3), max_leaves=6,
    )  # fmt: skip
    return draw(st.dictionaries(st.text("ab", min_size=1, max_size=2), nodes, max_size=3))


def _make(directory: Path, tree: dict[str, Any]) -> None:
    for name, node in tree.items():
        if isinstance(node, dict):
            (directory / name).mkdir()
            _make(directory / name, node)
        elif isinstance(node, str):
            (directory / name).symlink_to(node)
        else:
            (directory / name).write_bytes(node[0])
            (directory / name).chmod(node[1])


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(one=_trees(), other=_trees(), below=_trees())
def test_digests_are_equal_where_what_is_copied_is(
    one: dict[str, Any], other: dict[str, Any], below: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        found = []
        for number, tree in enumerate((one, other, {**one})):
            place = Path(scratch, str(number))
            (place / "source").mkdir(parents=True)
            (place / "root").mkdir()
            _make(place / "source", tree)
            with selected(place / "source", "/") as chosen:
                copy(chosen, place / "root", "/x")
            assert _seen(place / "root" / "x") == _seen(place / "source")
            found.append((digest(place / "source"), _seen(place / "source")))
        assert (found[0][0] == found[1][0]) == (found[0][1] == found[1][1])
        assert found[0][0] == found[2][0]
        # And into what is there: a model that knows dictionaries alone.
        place = Path(scratch, "merged")
        place.mkdir()
        _make(place, below)
        merged = _merged(below, one)
        with selected(Path(scratch, "0", "source"), "/") as chosen:
            if merged is None:
                with pytest.raises(Exception, match="cannot"):
                    copy(chosen, place, "/")
            else:
                copy(chosen, place, "/")
                expected = Path(scratch, "expected")
                expected.mkdir()
                _make(expected, merged)
                assert _seen(place) == _seen(expected)


def _seen(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what can be seen of a tree, but for times."""
    return {path: facts[:-1] for path, facts in trees.listing(root).items()}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any] | None:
    merged = dict(below)
    for name, node in above.items():
        old = merged.get(name)
        if old is not None and isinstance(old, dict) != isinstance(node, dict):
            return None
        if isinstance(node, dict):
            inner = _merged(old or {}, node)
            if inner is None:
                return None
            merged[name] = inner
        else:
            merged[name] = node
    return merged


def _settle(directory: Path) -> None:
    """Wait until what is there is no longer new."""
    newest = max(path.lstat().st_ctime for path in [directory, *directory.rglob("*")])
    time.sleep(max(0.0, newest + 2.05 - time.time()))


class Counting(Hashes):
    """Counts what it did not know."""

    asked = unknown = 0

    def get(self, status: os.stat_result) -> bytes | None:
        found = super().get(status)
        self.asked += 1
        self.unknown += found is None
        return found


def test_what_was_read_is_read_again_only_where_it_changed(source: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()

    def once() -> tuple[str, int]:
        with opened(kept) as directory, selected(source, "/") as chosen:
            hashes = Counting(directory, "one")
            value = digests.digest([chosen], hashes).value
            hashes.save()
        return value, hashes.unknown

    # Just written files may change again in the same tick of the clock: they are not remembered.
    before, unknown = once()
    assert unknown == once()[1] == 4
    _settle(source)
    assert once() == (before, 4)
    assert once() == (before, 0)
    (source / "g").write_text("news")
    os.utime(source / "g", ns=(1, 1))
    after, unknown = once()
    assert after != before
    assert unknown == 1
    os.setxattr(source / "d" / "f", "user.x", b"1")
    assert once()[1] == 2
    # Whatever happens to what is kept, it is nothing to trust.
    for damage in (b"", b"x", (kept / "one").read_bytes()[:-1], os.urandom(1000)):
        (kept / "one").write_bytes(damage)
        with opened(kept) as directory, selected(source, "/") as chosen:
            hashes = Counting(directory, "one")
            digests.digest([chosen], hashes)
            assert hashes.unknown == hashes.asked
    assert os.listdir(kept) == ["one"]
    assert stat.S_IMODE((kept / "one").stat().st_mode) == 0o600


def test_a_file_that_is_changed_after_its_digest_shows_in_the_version(
    source: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with selected(source, "/") as chosen:
        (source / "g").write_text("mote")
        copy(chosen, root, "/a")
        before = digests.digest([chosen])
        time.sleep(0.02)  # ticks of the clock that files' times are of
        (source / "g").write_text("less")
        os.utime(source / "g", ns=(1, 1))
        after = digests.digest([chosen])
    assert before.version != after.version
    assert before.value != after.value
