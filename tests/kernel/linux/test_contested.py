"""Whoever can write to a directory exchanges what was just made there: the host's file stays.

The race is won by appointment: right after the call that makes something, or looks at it, the name
means something else. What follows must not reach what it means by then.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from ketch.engine.configuration import selinux
from ketch.errors import KetchError
from ketch.images import extraction, filling
from ketch.linux import beneath, contested, inodeflags
from ketch.linux.chowntree import chown_tree
from ketch.linux.copytree import copy_tree
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned
from ketch.runtime.cli.handover import write_pid_file
from ketch.runtime.filesystem import MakeDevices
from ketch.runtime.process import _own_standard_streams
from tests.support.archives import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    REGULAR,
    SYMLINK,
    member,
    stream,
)

pytestmark = pytest.mark.root

_PATH = os.O_PATH | os.O_DIRECTORY
_NAME = "name"
_LATE = 2_000_000_000


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory that others write to."""
    directory = tmp_path / "place"
    directory.mkdir()
    return directory


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file outside, that must be at the end as it was."""
    file = tmp_path / "victim"
    file.write_text("kept")
    file.chmod(0o640)
    os.utime(file, ns=(1, 1))
    before = file.stat()
    yield file
    after = file.stat()
    for field in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_nlink", "st_size"):
        assert getattr(after, field) == getattr(before, field), field
    assert os.listxattr(file) == []


@pytest.fixture
def exchange(
    monkeypatch: pytest.MonkeyPatch, place: Path, victim: Path
) -> Iterator[Callable[..., None]]:
    """Have a name mean another thing as soon as one of these calls has been made for it."""

    def exchange(*calls: str, by: Callable[[Path], object] | None = None) -> None:
        def after(original: Callable[..., object]) -> Callable[..., object]:
            def wrapped(*arguments: object, **options: object) -> object:
                result = original(*arguments, **options)
                names = {os.fsdecode(a) for a in arguments if isinstance(a, str | bytes)}
                if _NAME in names and os.path.lexists(place / _NAME) and not done:
                    done.append(True)
                    os.rename(place / _NAME, place / "aside")
                    (by or (lambda path: path.symlink_to(victim)))(place / _NAME)
                return result

            return wrapped

        for call in calls:
            monkeypatch.setattr(os, call, after(getattr(os, call)))

    done: list[bool] = []
    yield exchange
    assert done, "nothing was exchanged"


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "fifo": (FIFO, {}),
    "character": (CHARACTER, {"device": (1, 3)}),
    "block": (BLOCK, {"device": (7, 99)}),
    "symlink": (SYMLINK, {"link": b"nowhere"}),
    "directory": (DIRECTORY, {}),
}
_PAX = {b"SCHILY.xattr.trusted.x": b"y"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_of_an_archive(place: Path, exchange: Callable[..., None], kind: str) -> None:
    """``cp`` and PUT archive into a running container."""
    letter, more = KINDS[kind]
    exchange("mknod", "symlink", "mkdir", "mkfifo")
    entry = member(_NAME.encode(), letter, mode=0o4777, uid=5, gid=6, mtime=_LATE, pax=_PAX, **more)
    with owned(os.open(place, _PATH)) as root, pytest.raises((KetchError, OSError)):
        extraction.extract(root, b"", stream(entry))


@pytest.mark.parametrize(
    ("kind", "how"), [("fifo", "linked"), ("character", "linked"), ("character", "moved")]
)
def test_a_node_is_not_taken_for_another_one(
    place: Path, tmp_path: Path, exchange: Callable[..., None], kind: str, how: str
) -> None:
    """One more name of the host's own, or one of another number: their modes are theirs."""
    letter, more = KINDS[kind]
    other = tmp_path / "other"
    number = 5 if how == "moved" else 3
    os.mknod(other, (stat.S_IFIFO if kind == "fifo" else stat.S_IFCHR) | 0o600,
             0 if kind == "fifo" else os.makedev(1, number))  # fmt: skip
    exchange("mknod", "mkfifo", by=lambda path: (os.link if how == "linked" else os.rename)(
        other, path))  # fmt: skip
    entry = member(_NAME.encode(), letter, mode=0o4777, uid=5, gid=6, mtime=_LATE, **more)
    with (
        owned(os.open(place, _PATH)) as root,
        pytest.raises(KetchError, match="exchanged"),
    ):
        extraction.extract(root, b"", stream(entry))
    status = (place / _NAME).lstat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, 0)


def test_what_an_archive_replaces_leads_nowhere_any_more(place: Path) -> None:
    """A directory that was open, and then is a symlink: what follows goes where that leads."""
    entries = (
        member(b"one/", DIRECTORY, mode=0o755), member(b"one/two/", DIRECTORY, mode=0o755),
        member(b"one/two/first", REGULAR), member(b"other/two/", DIRECTORY, mode=0o755),
        member(b"one", SYMLINK, link=b"other"), member(b"one/two/second", REGULAR),
        member(b"one/third", REGULAR),
    )  # fmt: skip
    with owned(os.open(place, _PATH)) as root:
        extraction.extract(root, b"", stream(*entries), keep_kinds=False)
    assert sorted(os.listdir(place)) == ["one", "other"]
    assert sorted(os.listdir(place / "other")) == ["third", "two"]
    assert os.listdir(place / "other/two") == ["second"]


def test_a_directory_that_is_made_is_no_way_to_another(
    place: Path, tmp_path: Path, exchange: Callable[..., None]
) -> None:
    other = tmp_path / "other"
    other.mkdir(0o700)
    exchange("mkdir", by=lambda path: path.symlink_to(other))
    entry = member(b"name/", DIRECTORY, mode=0o4777, uid=7, mtime=_LATE, pax=_PAX)
    with owned(os.open(place, _PATH)) as root, pytest.raises((KetchError, OSError)):
        extraction.extract(root, b"", stream(entry))
    status = other.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, 0)


def test_a_directory_is_not_taken_for_another(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the end its path may lead to another one; a number is one of its own file system."""
    other = tmp_path / "other"
    other.mkdir(0o700)
    original = extraction._Extractor._finish

    def exchange_and_finish(self: extraction._Extractor) -> None:
        (place / _NAME).rename(place / "aside")
        (place / _NAME).symlink_to("../other")
        original(self)

    monkeypatch.setattr(extraction._Extractor, "_finish", exchange_and_finish)
    with owned(os.open(tmp_path, _PATH)) as root:
        entry = member(b"name/", DIRECTORY, mode=0o777, uid=7)
        extraction.extract(root, b"place", stream(entry))
        status = os.fstat(root)
        assert filling._identity(root) == (status.st_dev, status.st_ino)
    assert (stat.S_IMODE(other.stat().st_mode), other.stat().st_uid) == (0o700, 0)
    assert (place / "aside").stat().st_uid == 7


def test_directories_that_an_archive_does_not_mention_belong_to_the_copys_owner(
    place: Path,
) -> None:
    with owned(os.open(place, _PATH)) as root:
        content = stream(member(b"made/down/file", uid=1, gid=2))
        extraction.extract(root, b"", content, owned=lambda uid, gid: (uid + 40, gid + 50))
    for name, ids in (("made", (40, 50)), ("made/down", (40, 50)), ("made/down/file", (41, 52))):
        status = (place / name).stat()
        assert (status.st_uid, status.st_gid) == ids, name


@pytest.mark.parametrize("kind", ["fifo", "character", "symlink", "directory"])
def test_a_copied_tree(
    tmp_path: Path, place: Path, exchange: Callable[..., None], kind: str
) -> None:
    """A volume that is filled while others have it mounted."""
    source = tmp_path / "source"
    source.mkdir()
    match kind:
        case "fifo":
            os.mkfifo(source / _NAME)
        case "character":
            os.mknod(source / _NAME, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        case "symlink":
            (source / _NAME).symlink_to("nowhere")
        case "directory":
            (source / _NAME).mkdir()
    os.chown(source / _NAME, 5, 6, follow_symlinks=False)
    exchange("mknod", "symlink", "mkdir")
    with (
        owned(os.open(source, os.O_RDONLY)) as read,
        owned(os.open(place, os.O_RDONLY)) as write,
        pytest.raises(OSError, match="exchanged"),
    ):
        copy_tree(read, write)


def test_a_directory_full_of_secrets_is_not_filled(
    tmp_path: Path, place: Path, exchange: Callable[..., None]
) -> None:
    """Whoever may rename a directory, and not change it, gives it the name of the new one."""
    secret = place / "secret"
    secret.mkdir(0o700)
    (secret / "key").touch()
    source = tmp_path / "source"
    (source / _NAME).mkdir(parents=True)
    os.chown(source / _NAME, 1000, 1000)
    exchange("mkdir", by=secret.rename)
    with (
        owned(os.open(source, os.O_RDONLY)) as read,
        owned(os.open(place, os.O_RDONLY)) as write,
        pytest.raises(OSError, match="exchanged"),
    ):
        copy_tree(read, write)
    assert (place / _NAME).stat().st_uid == 0


@pytest.mark.parametrize("what", ["file", "fifo"])
def test_a_file_that_is_copied_is_a_file(
    tmp_path: Path, place: Path, exchange: Callable[..., None], what: str
) -> None:
    """A fifo in its place would keep the copy waiting; one that was moved aside is no file."""
    (place / _NAME).write_text("x")
    target = tmp_path / "target"
    target.mkdir()
    exchange("stat", by=os.mkfifo if what == "fifo" else None)
    with (
        owned(os.open(place, os.O_RDONLY)) as read,
        owned(os.open(target, os.O_RDONLY)) as write,
        pytest.raises(OSError, match="exchanged"),
    ):
        copy_tree(read, write)
    assert os.listdir(target) == []


def _copy_or_not(source: Path, target: Path) -> None:
    with (
        owned(os.open(source, os.O_RDONLY)) as read,
        owned(os.open(target, os.O_RDONLY)) as write,
        suppress(OSError),
    ):
        copy_tree(read, write)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory outside, empty but for a file, that must be at the end as it was."""
    directory = tmp_path / "outside"
    directory.mkdir(0o700)
    (directory / "inner").touch(0o600)
    yield directory
    assert os.listdir(directory) == ["inner"]
    for path, mode in ((directory, 0o700), (directory / "inner", 0o600)):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, 0, 0)
        assert os.listxattr(path) == []


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        *(
            (how, kind)
            for how in ("archive", "copy")
            for kind in ("fifo", "character", "symlink", "directory", "file")
        ),
        ("device", "character"),
    ],
)
def test_what_is_open_is_meant_whatever_its_name_means(
    tmp_path: Path, place: Path, outside: Path, exchange: Callable[..., None], kind: str, how: str
) -> None:
    """Who comes a call later, when the name has been looked up, has the host's file as little."""
    exchange(
        "open", by=lambda path: path.symlink_to(outside / ("" if kind == "directory" else "inner"))
    )
    if how == "device":
        node = {"path": f"/{_NAME}", "type": "c", "major": 1, "minor": 5, "fileMode": 0o4606,
                "uid": 5}  # fmt: skip
        with owned(os.open(place, _PATH)) as root:
            MakeDevices([node], bind=False).execute(root)  # type: ignore[list-item]
    elif how == "archive":
        letter, more = {**KINDS, "file": (REGULAR, {})}[kind]
        entry = member(_NAME.encode(), letter, mode=0o606, uid=5, mtime=_LATE, pax=_PAX, **more)
        # A directory is looked for once more in the end, and then is no more where it was.
        with owned(os.open(place, _PATH)) as root, suppress(KetchError):
            extraction.extract(root, b"", stream(entry))
    else:
        source = tmp_path / "source"
        source.mkdir()
        _make(source / _NAME, kind)
        _copy_or_not(source, place)
    made = (place / "aside").lstat()
    assert made.st_uid == 5
    if kind != "symlink":
        assert stat.S_IMODE(made.st_mode) == (0o4606 if how == "device" else 0o606)


def _make(path: Path, kind: str) -> None:
    """Make something that belongs to user 5 and has mode 0606."""
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "character":
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        case "symlink":
            path.symlink_to("nowhere")
        case "directory":
            path.mkdir()
        case "file":
            path.touch()
    os.chown(path, 5, 0, follow_symlinks=False)
    if kind != "symlink":
        path.chmod(0o606)


def test_a_copied_directory_is_no_way_to_an_empty_one(
    tmp_path: Path, place: Path, exchange: Callable[..., None]
) -> None:
    """Else what a volume is filled with would go there."""
    source, other = tmp_path / "source", tmp_path / "other"
    (source / _NAME).mkdir(parents=True)
    (source / _NAME / "file").touch()
    other.mkdir(0o700)
    exchange("mkdir", by=lambda path: path.symlink_to(other))
    _copy_or_not(source, place)
    assert (os.listdir(other), stat.S_IMODE(other.stat().st_mode)) == ([], 0o700)


def test_a_file_that_is_copied_is_the_one_that_was_looked_at(
    tmp_path: Path, place: Path, victim: Path, exchange: Callable[..., None]
) -> None:
    """Of a volume, or of a stopped container's root, that others write to meanwhile."""
    (place / _NAME).write_text("its own")
    target = tmp_path / "target"
    target.mkdir()
    exchange("open")
    _copy_or_not(place, target)
    assert (target / _NAME).read_text() == "its own"


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_tree_that_is_given_to_a_user_leads_nowhere(
    place: Path, outside: Path, exchange: Callable[..., None], kind: str
) -> None:
    """``--mount chown``, podman's ``:U``, of a directory that others have as well."""
    target = outside / ("inner" if kind == "file" else "")
    (place / "elsewhere").symlink_to(target)
    _make(place / _NAME, kind)
    exchange("open", by=lambda path: path.symlink_to(target))
    with owned(os.open(place, os.O_RDONLY | os.O_DIRECTORY)) as top, suppress(OSError):
        chown_tree(top, 7, 8)
    for name in ("", "aside", "elsewhere"):
        status = (place / name).lstat()
        assert (status.st_uid, status.st_gid) == (7, 8)


@pytest.mark.parametrize("owner", [0, 33])
def test_a_device_node(place: Path, exchange: Callable[..., None], owner: int) -> None:
    """``--device /dev/zero:/volume/name`` where a neighbour has the volume too."""
    exchange("mknod")
    node = {"path": f"/{_NAME}", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666,
            "uid": owner}  # fmt: skip
    with owned(os.open(place, _PATH)) as root, pytest.raises(KetchError, match="exchanged"):
        MakeDevices([node], bind=False).execute(root)  # type: ignore[list-item]


@pytest.mark.parametrize("there", ["node", "other", "file", "symlink"])
def test_a_node_that_is_there_stays_as_it_is(place: Path, victim: Path, there: str) -> None:
    """It may be the host's, bound there: ``-v /dev/zero:/dev/zero``, ``--device``, ``-v /dev``."""
    path = place / "zero"
    match there:
        case "node" | "other":
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5 if there == "node" else 3))
            path.chmod(0o600)
            os.chown(path, 7, 8)
        case "file":
            os.link(victim, path)
            os.unlink(path)
            path.touch(0o600)
        case "symlink":
            path.symlink_to(victim)
    before = path.lstat()
    node = {"path": "/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666, "uid": 5}
    with owned(os.open(place, _PATH)) as root:
        MakeDevices([node], bind=False).execute(root)  # type: ignore[list-item]
    after = path.lstat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode, before.st_uid, before.st_gid,
    )  # fmt: skip


def test_nodes_have_their_mode_whatever_the_umask(place: Path) -> None:
    node = {"path": "/made/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o626,
            "uid": 5, "gid": 6}  # fmt: skip
    before = os.umask(0o077)
    try:
        with owned(os.open(place, _PATH)) as root:
            MakeDevices([node], bind=False).execute(root)  # type: ignore[list-item]
            beneath.make_file(root, "/deep/down/file")
    finally:
        assert os.umask(before) == 0o077
    status = (place / "made" / "zero").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o626, 5, 6)
    assert stat.S_IMODE((place / "dev" / "null").stat().st_mode) == 0o666
    for made in ("made", "deep", "deep/down"):
        assert stat.S_IMODE((place / made).stat().st_mode) == 0o755
    assert stat.S_IMODE((place / "deep/down/file").stat().st_mode) == 0o644


@pytest.mark.parametrize("make", [beneath.make_directories, beneath.make_file])
@pytest.mark.parametrize("by", ["symlink", "dangling", "fifo", "secret"])
def test_a_mount_point(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    victim: Path,
    outside: Path,
    make: Callable[..., int],
    by: str,
) -> None:
    """A neighbour puts something in the way, right before the name is made or right after."""
    secret = place / "secret"
    secret.mkdir(0o700)
    for moment in ("before", "after"):
        call = "mkdir" if make is beneath.make_directories else "open"
        original = getattr(os, call)

        def wrapped(
            *arguments: object,
            original: Callable[..., object] = original,
            moment: str = moment,
            **options: object,
        ) -> object:
            result = original(*arguments, **options) if moment == "after" else None
            if arguments[0] == _NAME:
                monkeypatch.undo()
                if moment == "after":
                    os.rename(place / _NAME, place / "aside")
                if by == "symlink":
                    (place / _NAME).symlink_to(
                        outside if make is beneath.make_directories else victim
                    )
                elif by == "dangling":
                    (place / _NAME).symlink_to(outside / "new")
                elif by == "fifo":
                    os.mkfifo(place / _NAME)
                else:
                    secret.rename(place / _NAME)
            return result if moment == "after" else original(*arguments, **options)

        monkeypatch.setattr(os, call, wrapped)
        with owned(os.open(place, _PATH)) as root, ExitStack() as held, suppress(OSError):
            made = make(root, f"/{_NAME}")
            held.callback(os.close, made)
            assert Path(os.readlink(contested.path(made)).decode()).parent == place
        monkeypatch.undo()
        if by == "secret":
            assert stat.S_IMODE((place / _NAME).stat().st_mode) == 0o700
            (place / _NAME).rename(secret)
        else:
            (place / _NAME).unlink()
        with ExitStack() as tidy:
            if (place / "aside").exists():
                tidy.callback(
                    (place / "aside").rmdir if (place / "aside").is_dir() else
                    (place / "aside").unlink
                )  # fmt: skip


@pytest.mark.parametrize("there", ["symlink", "fifo"])
def test_a_pid_file(place: Path, victim: Path, there: str) -> None:
    """Its directory may be /tmp, where others have prepared names that can be guessed."""
    for name in ("pid", ".pid"):
        if there == "symlink":
            (place / name).symlink_to(victim)
        else:
            os.mkfifo(place / name)
    write_pid_file(str(place / "pid"), 42)
    assert (place / "pid").read_text() == "42"
    assert not (place / "pid").is_symlink()
    assert sorted(os.listdir(place)) == [".pid", "pid"]


def test_labels_of_a_volume_in_use(
    place: Path, exchange: Callable[..., None], victim: Path
) -> None:
    """``-v volume:/target:z`` while another container has it: nothing outside is labelled."""
    outside = victim.parent / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (place / _NAME).mkdir()
    (place / _NAME / "file").touch()
    exchange("stat", by=lambda path: path.symlink_to(outside))
    selinux.relabel(str(place))
    for path in (outside, outside / "file"):
        assert os.listxattr(path) == []


def test_standard_streams_that_are_devices_stay_whose_they_are(tmp_path: Path) -> None:
    """What the caller's streams lead to may be /dev/zero, which is everybody's."""
    node = tmp_path / "zero"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    plain = tmp_path / "plain"
    plain.touch()
    child = os.fork()
    if not child:
        for number, path in enumerate((node, plain, plain)):
            os.dup2(os.open(path, os.O_RDWR), number)
        _own_standard_streams(1000)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (node.stat().st_uid, plain.stat().st_uid) == (0, 1000)


def test_a_path_of_a_descriptor_leads_to_a_symlink_itself(place: Path, victim: Path) -> None:
    """What the rules above stand on: procfs leads to what was opened, and no further."""
    with (
        owned(os.open(place, os.O_RDONLY)) as directory,
        owned(contested.symlink(str(victim), b"link", directory)) as link,
    ):
        os.chown(contested.path(link), 5, 6)
        os.utime(contested.path(link), ns=(7, 7))
        os.setxattr(contested.path(link), "trusted.x", b"y")
    status = (place / "link").lstat()
    assert (status.st_uid, status.st_gid, status.st_mtime_ns) == (5, 6, 7)


def test_a_regular_member_is_made_anew(place: Path, victim: Path) -> None:
    (place / _NAME).symlink_to(victim)
    with owned(os.open(place, _PATH)) as root:
        extraction.extract(root, b"", stream(member(_NAME.encode(), REGULAR, b"new", mode=0o777)))
    assert not (place / _NAME).is_symlink()


def test_a_directory_that_is_emptied_is_no_way_to_another(
    place: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / _NAME).mkdir()
    (place / _NAME / "file").touch()
    original = os.rmdir

    def rmdir(path: str, *, dir_fd: int | None = None) -> None:
        try:
            original(path, dir_fd=dir_fd)
        except OSError:
            if not (place / "aside").exists():
                (place / _NAME).rename(place / "aside")
                (place / _NAME).symlink_to(outside)
            raise

    monkeypatch.setattr(os, "rmdir", rmdir)
    with suppress(OSError):
        remove_tree(str(place))
    assert (place / "aside").exists()


@pytest.mark.parametrize("by", ["fifo", "symlink"])
def test_a_flag_is_taken_off_what_cannot_be_removed(
    place: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Not off what its name means next."""
    (place / _NAME).write_text("x")
    original = os.unlink
    tries: list[str] = []
    flags: list[tuple[int, int]] = []

    def unlink(name: str, *, dir_fd: int) -> None:
        tries.append(name)
        if len(tries) == 1:
            raise PermissionError(errno.EPERM, "immutable", name)
        original(name, dir_fd=dir_fd)

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if len(tries) == 1 and stat.S_ISREG(status.st_mode):
            tries.append("exchanged")
            (place / _NAME).rename(place / "aside")
            if by == "fifo":
                os.mkfifo(place / _NAME)
            else:
                (place / _NAME).symlink_to(victim)
        return status

    def change(descriptor: int, **_: int) -> None:
        status = os.stat(descriptor)
        flags.append((status.st_dev, status.st_ino))

    real = os.fstat
    monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.setattr(os, "fstat", fstat)
    monkeypatch.setattr(inodeflags, "change", change)
    file = (place / _NAME).stat()
    remove_tree(str(place))
    assert not place.exists()
    assert (file.st_dev, file.st_ino) in flags
    outside = victim.stat()
    assert (outside.st_dev, outside.st_ino) not in flags
