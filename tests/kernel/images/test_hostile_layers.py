"""Archives made to break out: whatever they hold, nothing outside the layer or context changes."""

import contextlib
import io
import os
import pathlib
import stat
import tempfile
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ketch.build.contexts import archives, reading
from ketch.errors import InvalidArgumentError, KetchError
from ketch.images import filling, layers, tar
from ketch.linux.removetree import remove_tree
from tests.support.archives import member, stream

pytestmark = pytest.mark.root

# Few names, so that members meet, replace and traverse each other.
NAMES = [b"a", b"b", b"l", b"m", b"..", b".", b"", b"outside", b"secret", b".wh.a", b".wh.l",
         b".wh..wh..opq", b".wh...", b".wh..", b"etc"]  # fmt: skip
TARGETS = [b"/", b"..", b"../..", b"../outside", b"../outside/secret", b"/etc/passwd", b"a", b"l",
           b"l/secret", b"m", b".", b"/proc/self/root", b"/proc/self/cwd/..", b"a/../../outside",
           b"OUTSIDE", b"OUTSIDE/secret", b"b/l"]  # fmt: skip

paths = st.builds(
    lambda lead, parts: lead + b"/".join(parts),
    st.sampled_from([b"", b"", b"/", b"./", b"../"]),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4),
)
members = st.fixed_dictionaries(
    {
        "name": paths,
        "kind": st.sampled_from([*"0123456", "2", "2", "5"]),
        "link": st.sampled_from(TARGETS) | paths,
        "data": st.sampled_from([b"", b"evil"]),
        "mode": st.sampled_from([0o644, 0o4755, 0, 0o7777]),
        "device": st.sampled_from([(0, 0), (1, 3), (5000, 1)]),
        "pax": st.dictionaries(
            st.sampled_from([b"SCHILY.xattr.trusted.overlay.opaque", b"SCHILY.xattr.user.x",
                             b"SCHILY.xattr.trusted.overlay.redirect"]),
            st.sampled_from([b"y", b"/../../outside"]),
            max_size=2,
        ),
    }
)  # fmt: skip


def seen(root: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """List what an intruder could have changed in a tree, times of change included."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (
            status.st_ino, status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns,
            status.st_ctime_ns, content, tuple(os.listxattr(path, follow_symlinks=False)),
        )  # fmt: skip
    return found


def unpack_context(directory: int, archive: io.BytesIO) -> None:
    """Unpack a build's context, and read it: no name of it leads to a secret."""
    try:
        archives.unpack(archive, directory, owned=True)
    finally:
        for path in ("l", "l/secret", "m/passwd", "a", "b/l/secret", "../secret", "l/../secret"):
            with contextlib.suppress(KetchError):
                assert reading.read(directory, path) in {None, b"", b"evil"}


UNPACKERS: dict[str, Callable[[int, io.BytesIO], object]] = {
    "layer": layers.apply,
    "context": unpack_context,
}


def attack(kind: str, contents: list[dict[str, object]]) -> None:
    base = pathlib.Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        outside = base / "outside"
        (outside / "d").mkdir(parents=True)
        (outside / "secret").write_bytes(b"secret")
        (outside / "d" / "f").write_bytes(b"f")
        tree = base / "layers" / "layer"
        tree.mkdir(parents=True)
        (base / "layers" / "secret").write_bytes(b"a neighbour")
        built = []
        for given in contents:
            link = given["link"]
            assert isinstance(link, bytes)
            real_link = link.replace(b"OUTSIDE", os.fsencode(outside))
            built.append(member(**{**given, "link": real_link}))  # type: ignore[arg-type]
        before = seen(outside) | seen(base / "layers")
        passwd = os.stat("/etc/passwd")
        descriptors = set(os.listdir("/proc/self/fd"))
        descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
        try:
            UNPACKERS[kind](descriptor, stream(*built))
        except KetchError as error:
            assert error.message  # noqa: PT017 - either outcome is right
        finally:
            os.close(descriptor)
        # Not open_now: to collect garbage for each example takes longer than all the rest.
        assert set(os.listdir("/proc/self/fd")) <= descriptors
        after = seen(outside) | seen(base / "layers")
        inside = str(tree)
        assert {k: v for k, v in after.items() if not k.startswith(inside)} == {
            k: v for k, v in before.items() if not k.startswith(inside)
        }
        assert os.stat("/etc/passwd") == passwd
        for path in tree.rglob("*"):
            assert not (_is_plain(path) and path.read_bytes() == b"secret")
    finally:
        remove_tree(str(base))


def _is_plain(path: pathlib.Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def given_member(name: bytes, kind: str = tar.REGULAR, link: bytes = b"") -> dict[str, object]:
    return {"name": name, "kind": kind, "link": link, "data": b"evil" if kind == "0" else b""}


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(members, min_size=1, max_size=8))
@example([given_member(b"l", "2", b"OUTSIDE"), given_member(b"l/secret")])
@example([given_member(b"l", "2", b"OUTSIDE"), given_member(b"l", "5"), given_member(b"l/secret")])
@example([given_member(b"l", "2", b"../../outside"), given_member(b"l/d/new/f")])
@example([given_member(b"l", "2", b"OUTSIDE"), given_member(b"l/.wh.secret")])
@example([given_member(b"l", "2", b"OUTSIDE"), given_member(b"l/.wh..wh..opq")])
@example([given_member(b"h", "1", b"../../outside/secret"), given_member(b"h")])
@example([given_member(b"l", "2", b"OUTSIDE"), given_member(b"h", "1", b"l/secret")])
@example(
    [given_member(b"l", "2", b"OUTSIDE/secret"), given_member(b"h", "1", b"l"), given_member(b"h")]
)
@example([given_member(b"l", "2", b"OUTSIDE/secret"), given_member(b"l")])
@example(
    [
        given_member(b"a", "5"),
        given_member(b"a/x"),
        given_member(b"a", "2", b"OUTSIDE"),
        given_member(b"a/secret"),
    ]
)
@example([given_member(b"a", "5"), given_member(b"a", "2", b"OUTSIDE"), given_member(b"a", "5")])
@example(
    [
        given_member(b"a/b", "5"),
        given_member(b"a", "2", b"../../outside"),
        given_member(b"a/d", "5"),
        given_member(b"a/d/f"),
    ]
)
@example([given_member(b"l", "2", b"/proc/self/cwd"), given_member(b"l/x")])
@example([given_member(b"", "5"), given_member(b"/", "2", b"OUTSIDE")])
@example([given_member(b".wh..."), given_member(b"a/.wh...")])
def test_nothing_outside_changes(contents: list[dict[str, object]]) -> None:
    for kind in UNPACKERS:
        attack(kind, contents)


def test_depth_beyond_any_path_can_be_made_and_removed(tmp_path: pathlib.Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    deep = b"d/" * 1500
    built = []
    for number in range(2):
        lead = b"l%d/" % (number - 1) if number else b""
        built += [member(lead + deep, tar.DIRECTORY),
                  member(b"l%d" % number, tar.SYMLINK, link=b"/" + lead + deep)]  # fmt: skip
    descriptor = os.open(tree, os.O_RDONLY)
    try:
        layers.apply(descriptor, stream(*built))
    except KetchError as error:
        assert error.message  # noqa: PT017 - either outcome is right
    finally:
        os.close(descriptor)
        remove_tree(str(tree))  # pytest's own way to remove it would exceed its stack
    assert not tree.exists()


def test_attributes_of_directories_do_not_fill_the_memory(tmp_path: pathlib.Path) -> None:
    # They are set last, so they are held until then; compressed, such an archive is tiny.
    attributes = {b"SCHILY.xattr.user.%d" % number: b"v" * 900 for number in range(900)}
    each = sum(map(len, attributes)) + 900 * 900
    count = filling.DIRECTORIES_BYTES_MAX // each + 1
    archive = io.BytesIO(b"".join(
        member(b"d%d" % number, tar.DIRECTORY, pax=attributes) for number in range(count)
    ))  # fmt: skip
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(InvalidArgumentError, match="directories take more than 64 MiB"):
            layers.apply(descriptor, archive)
    finally:
        os.close(descriptor)
