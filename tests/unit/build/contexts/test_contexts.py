"""The contexts of a build: where the Dockerfile is, what is read, once, and what is refused."""

import bz2
import gzip
import io
import lzma
import os
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import zstandard

from ketch.build.contexts import reading
from ketch.build.request import (
    Archive,
    ImageInput,
    LocalDirectory,
    SessionDirectory,
)
from ketch.engine.processes import Patience
from ketch.errors import InvalidArgumentError, KetchError, NotFoundError, UnavailableError
from tests.support.archives import DIRECTORY, SYMLINK, archive, member
from tests.support.contexts import Opened, listed


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a directory with a Dockerfile, beside one that no context may reach."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("FROM secret\n")
    made = tmp_path / "context"
    made.mkdir()
    (made / "Dockerfile").write_text("FROM scratch\n")
    return made


# Directories


def test_a_directory_is_read_in_place(opened: Opened, folder: pathlib.Path) -> None:
    contexts = opened(LocalDirectory(str(folder)))
    tree = contexts.tree("context")
    assert os.path.samestat(os.fstat(tree.directory), folder.stat())
    assert (tree.identity, tree.owned) == ("", False)
    assert contexts.tree("context", ["other"]).directory == tree.directory
    assert contexts.dockerfile() == (b"FROM scratch\n", "Dockerfile")


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("missing", NotFoundError, "unable to prepare context: path '{}/missing' not found"),
        ("file", InvalidArgumentError,
         "unable to prepare context: context must be a directory: {}/file"),
        ("a\0b", InvalidArgumentError, "unable to prepare context: "),
    ],
)  # fmt: skip
def test_what_is_no_directory_is_said_as_docker_says_it(
    opened: Opened, tmp_path: pathlib.Path, path: str, error: type[KetchError], message: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(error) as caught:
        opened(LocalDirectory(f"{tmp_path}/{path}")).tree("context")
    assert caught.value.message.startswith(message.format(tmp_path))


def test_a_context_that_nobody_gave_or_that_is_an_image_has_no_files(opened: Opened) -> None:
    contexts = opened(contexts={"base": ImageInput("alpine")})
    with pytest.raises(NotFoundError, match="there is no build context 'context'"):
        contexts.dockerfile()
    with pytest.raises(InvalidArgumentError, match="'base' is an image"):
        contexts.tree("base")


# The Dockerfile


def test_the_dockerfile_is_found_where_it_was_said_to_be(
    opened: Opened, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    main = LocalDirectory(str(folder))
    (folder / "docker").mkdir()
    (folder / "docker" / "Two").write_text("FROM two\n")
    (tmp_path / "outside" / "Three").write_text("FROM three\n")
    outside = LocalDirectory(str(tmp_path / "outside"))
    assert opened(main, dockerfile="docker/Two").dockerfile() == (b"FROM two\n", "docker/Two")
    assert opened(main, dockerfile="Three", dockerfile_input=outside).dockerfile() == (
        b"FROM three\n",
        "Three",
    )
    assert opened(main, dockerfile_text=b"FROM four\n").dockerfile() == (
        b"FROM four\n",
        "Dockerfile",
    )


def test_small_letters_are_the_second_name_of_a_dockerfile_and_of_no_other(
    opened: Opened, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "dockerfile").write_text("FROM small\n")
    main = LocalDirectory(str(tmp_path))
    found = opened(main, dockerfile="sub/Dockerfile").dockerfile()
    assert found == (b"FROM small\n", "sub/dockerfile")
    with pytest.raises(NotFoundError, match="open sub/DOCKERFILE: no such file or directory"):
        opened(main, dockerfile="sub/DOCKERFILE").dockerfile()


def test_a_missing_dockerfile_is_said_as_docker_says_it(
    opened: Opened, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(NotFoundError) as caught:
        opened(LocalDirectory(str(tmp_path))).dockerfile()
    assert caught.value.message == (
        "failed to read dockerfile: open Dockerfile: no such file or directory"
    )


@pytest.mark.parametrize("link", ["{}/outside/secret", "../outside/secret", "up/outside/secret"])
def test_a_dockerfile_that_leads_out_of_its_context_is_not_followed(
    opened: Opened, folder: pathlib.Path, link: str
) -> None:
    (folder / "up").symlink_to("..")
    (folder / "Dockerfile").unlink()
    (folder / "Dockerfile").symlink_to(link.format(folder.parent))
    with pytest.raises(NotFoundError, match="open Dockerfile: no such file"):
        opened(LocalDirectory(str(folder))).dockerfile()
    with pytest.raises(NotFoundError, match=r"open ../outside/secret: no such file"):
        opened(LocalDirectory(str(folder)), dockerfile="../outside/secret").dockerfile()


def test_a_dockerfile_that_leads_on_within_its_context_is_followed(
    opened: Opened, folder: pathlib.Path
) -> None:
    (folder / "real").write_text("FROM real\n")
    (folder / "Link").symlink_to("/real")
    assert opened(LocalDirectory(str(folder)), dockerfile="Link").dockerfile().text == (
        b"FROM real\n"
    )


def test_what_is_no_file_is_not_opened(opened: Opened, folder: pathlib.Path) -> None:
    os.mkfifo(folder / "fifo")  # an opener would wait for ever
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    with (folder / "large").open("wb") as file:
        file.truncate(reading.SIZE_MAX + 1)
    for name, reason in {
        "fifo": "read fifo: not a regular file",
        "folder": "read folder: is a directory",
        "loop": "open loop: too many levels of symbolic links",
        "large": "large exceeds maximum allowed size of 16777216 bytes",
        "a\0b": "open a\\x00b: invalid argument",
    }.items():
        with pytest.raises(InvalidArgumentError) as caught:
            opened(LocalDirectory(str(folder)), dockerfile=name).dockerfile()
        assert caught.value.message == f"failed to read dockerfile: {reason}"


# Archives

CONTEXT = archive(
    member(b"Dockerfile", data=b"FROM tar\n"),
    member(b"./a/b", data=b"text", uid=12, gid=34),
    member(b"/absolute", data=b"inside"),
    member(b"a\nb\xff", data=b"odd"),
    member(b"n/" + b"x" * 200, data=b"long"),
    member(b"out", SYMLINK, link=b"/etc/passwd"),
    member(b".dockerignore", data=b"*\n"),
)


PACKED = {
    "plain": CONTEXT,
    "gzip": gzip.compress(CONTEXT),
    "bzip2": bz2.compress(CONTEXT),
    "xz": lzma.compress(CONTEXT),
    "zstd": zstandard.ZstdCompressor().compress(CONTEXT),
}


@pytest.mark.parametrize("kind", PACKED)
def test_an_archive_is_unpacked_once(opened: Opened, kind: str) -> None:
    told: list[tuple[str, int, int]] = []
    stream = io.BytesIO(PACKED[kind])
    contexts = opened(Archive(stream, owned=False))
    assert contexts.dockerfile(lambda *how: told.append(how)) == (b"FROM tar\n", "Dockerfile")
    tree = contexts.tree("context")
    names = [".dockerignore", "Dockerfile", "a", "a\nb\udcff", "absolute", "n", "out"]
    assert listed(tree.directory) == names
    assert os.readlink("out", dir_fd=tree.directory) == "/etc/passwd"
    # As BuildKit has it, nothing is left out of what comes as an archive.
    assert (tree.hidden, tree.owned) == (None, False)
    assert told[-1] == ("transferring context", len(stream.getvalue()), 0)


def test_members_belong_to_whom_the_archive_says_only_where_that_was_asked_for(
    opened: Opened,
) -> None:
    mine = archive(member(b"f", uid=os.geteuid(), gid=os.getegid()))
    assert opened(Archive(io.BytesIO(mine))).tree("context").owned
    tree = opened(Archive(io.BytesIO(CONTEXT), owned=False)).tree("context")
    status = os.stat("a/b", dir_fd=tree.directory)
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())


def test_a_dockerfile_may_come_by_itself(opened: Opened) -> None:
    contexts = opened(Archive(io.BytesIO(b"FROM lone\n")), dockerfile="elsewhere")
    assert contexts.dockerfile() == (b"FROM lone\n", "Dockerfile")
    assert listed(contexts.tree("context").directory) == []
    assert opened(Archive(io.BytesIO(b""))).dockerfile().text == b""
    with pytest.raises(InvalidArgumentError, match="exceeds maximum allowed size"):
        opened(Archive(io.BytesIO(b"#" * (reading.SIZE_MAX + 1)))).dockerfile()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (archive(member(b"../x")), "context entry '../x': leads out of the context"),
        (archive(member(b"a/../../x")), "leads out of the context"),
        (archive(member(b"x", "1", link=b"/etc/passwd")), "not in this context"),
        (archive(member(b"x" * 5000)), "file name too long"),
        (archive(member(b"x/" * 3000 + b"x")), "file name too long"),
        (archive(member(b".")), "the context's root is not a directory"),
        (archive(member(b"d", DIRECTORY), member(b"d", "9")), "unknown type '9'"),
        (CONTEXT[:700], "cut short"),
        (gzip.compress(CONTEXT)[:-20], "damaged gzip stream"),
        (gzip.compress(b"FROM packed\n" * 100), "malformed tar archive"),
        (b"x" * 257 + b"ustar" + bytes(600), "wrong checksum"),
    ],
)
def test_archives_that_lie_are_refused(opened: Opened, content: bytes, reason: str) -> None:
    contexts = opened(Archive(io.BytesIO(content), owned=False))
    with pytest.raises(InvalidArgumentError, match=reason):
        contexts.tree("context")
    # The stream is read; that it was bad stays so.
    with pytest.raises(InvalidArgumentError, match=reason):
        contexts.dockerfile()


def test_a_bomb_ends_where_there_is_no_more_room(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = os.statvfs("/")
    limited = os.statvfs_result((*facts[:3], 2, 2, *facts[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: limited)
    bomb = gzip.compress(archive(member(b"zeros", data=bytes(1 << 22))))
    with pytest.raises(InvalidArgumentError, match="for which there is no room"):
        opened(Archive(io.BytesIO(bomb), owned=False)).tree("context")


def test_waiting_for_an_archive_can_be_called_off(opened: Opened) -> None:
    class CalledOffError(BaseException):
        """As the library's."""

    class Short(Patience):
        def poll(self, milliseconds: int | None, *watched: tuple[int, int]) -> Any:
            raise CalledOffError

    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as stream, open(writer, "wb"):
        contexts = opened(Archive(stream), patience=Short())
        with pytest.raises(CalledOffError):
            contexts.tree("context")


def test_threads_that_ask_at_once_get_the_same(opened: Opened) -> None:
    contexts = opened(Archive(io.BytesIO(CONTEXT), owned=False))
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(contexts.tree("context").directory))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


# What a client keeps


class FakeSession:
    """A client with a directory.

    Args:
        files: of its directory, by path.
        key: what it is called.
    """

    def __init__(self, files: Mapping[str, bytes], key: str = "") -> None:
        self.files = files
        self.key = key
        self.asked: list[tuple[str, tuple[str, ...], tuple[str, ...], list[str]]] = []

    def fetch(
        self,
        name: str,
        directory: int,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        follow: Sequence[str] = (),
        tell: Callable[[int], object] | None = None,
    ) -> None:
        assert not include
        self.asked.append((name, tuple(follow), tuple(exclude), listed(directory)))
        for path, content in self.files.items():
            if follow and path not in follow:
                continue
            with open(path, "wb", opener=lambda p, f: os.open(p, f, dir_fd=directory)) as file:
                file.write(content)
            if tell:
                tell(len(content))


def test_a_client_is_asked_for_what_is_wanted_alone(opened: Opened) -> None:
    session = FakeSession({"Dockerfile": b"FROM client\n", "a": b"1", "b": b"2"})
    contexts = opened(
        SessionDirectory(session, "context"),
        dockerfile_input=SessionDirectory(session, "dockerfile"),
    )
    assert contexts.dockerfile() == (b"FROM client\n", "Dockerfile")
    told: list[tuple[str, int, int]] = []
    tree = contexts.tree("context", ["/a", "./sub/../a"], lambda *how: told.append(how))
    assert listed(tree.directory) == ["a"]
    assert tree.owned
    assert told[-1] == ("transferring context", 1, 0)
    assert session.asked == [
        ("dockerfile", ("Dockerfile", "dockerfile", "Dockerfile.dockerignore"), (), []),
        ("context", (".dockerignore",), (), []),
        ("context", ("a",), (), []),
    ]
    assert contexts.tree("context", ["a"]) == tree
    assert len(session.asked) == 3
    # What was not wanted before is sent then.
    assert listed(contexts.tree("context", ["b"]).directory) == ["a", "b"]
    assert session.asked[-1][1] == ("a", "b")
    contexts.tree("context")
    contexts.tree("context", ["other"])
    assert [follow for _, follow, _, _ in session.asked[4:]] == [()]


def test_what_a_client_sent_is_there_for_the_next_build_of_the_same(
    opened: Opened, tmp_path: pathlib.Path
) -> None:
    def sent(key: str, *, close: bool = True) -> list[str]:
        session = FakeSession({"Dockerfile": b"", "a": b"1"}, key)
        contexts = opened(SessionDirectory(session, "context"))
        contexts.tree("context", ["."])
        if close:
            contexts.__exit__()
        name, follow, _, there = session.asked[-1]
        assert (name, follow) == ("context", ())
        return there

    assert sent("one") == []
    assert sent("one") == ["Dockerfile", "a"]
    assert sent("two") == []
    assert sent("") == []
    assert sent("") == []
    # While one build is at it, another one has a place of its own.
    assert sent("one", close=False) == ["Dockerfile", "a"]
    assert sent("one") == []
    assert oct((tmp_path / "cache" / "session").stat().st_mode)[-3:] == "700"


def test_a_client_that_fails_is_said_to(opened: Opened) -> None:
    class Gone(FakeSession):
        def fetch(self, *_: Any, **__: Any) -> None:
            raise UnavailableError("the client has gone")

    with pytest.raises(UnavailableError, match="the client has gone"):
        opened(SessionDirectory(Gone({}), "context")).dockerfile()


# What is left out


def test_what_is_ignored_is_told_and_not_looked_at(opened: Opened, folder: pathlib.Path) -> None:
    (folder / ".dockerignore").write_text("#c\n*.log\nnode\n!node/keep\n**/secret\n")
    hidden = opened(LocalDirectory(str(folder))).tree("context").hidden
    assert hidden is not None
    deep = "d/" * 5000
    for path in ("a.log", "node", "node/x", "node/x/y", "secret", "a/secret/b", f"{deep}secret"):
        assert hidden.hides(path), path
    for path in ("a", "d/a.log", "node/keep", "node/keep/x", f"{deep}x"):
        assert not hidden.hides(path), path
    assert hidden.may_show_below("node")
    assert not hidden.may_show_below("other")


def test_what_is_ignored_beside_the_dockerfile_counts_instead(
    opened: Opened, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    main = LocalDirectory(str(folder))
    assert opened(main).tree("context").hidden is None
    (folder / ".dockerignore").write_text("general\n")
    (folder / "Dockerfile.dockerignore").write_text("special\n")
    (tmp_path / "outside" / "Other").write_text("FROM x\n")
    (tmp_path / "outside" / "Other.dockerignore").write_text("")
    (tmp_path / "outside" / ".dockerignore").write_text("its own\n")
    outside = LocalDirectory(str(tmp_path / "outside"))

    def hides(path: str, **request: Any) -> bool:
        hidden = opened(main, **request).tree("context").hidden
        return hidden is not None and hidden.hides(path)

    assert (hides("special"), hides("general")) == (True, False)
    assert hides("general", dockerfile="missing")
    assert hides("general", dockerfile_text=b"FROM x\n")
    # An empty one is one, too.
    assert not hides("general", dockerfile="Other", dockerfile_input=outside)
    # Another context has what it ignores itself.
    named = opened(main, contexts={"named": outside}).tree("named").hidden
    assert named is not None
    assert named.hides("its own")
    assert not named.hides("special")


def test_what_says_what_is_ignored_is_hostile_as_well(
    opened: Opened, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    ignore = folder / ".dockerignore"
    for content, reason in ((b"a[", "."), (b"!\n", "."), (b"#" * ((16 << 20) + 1), "exceeds")):
        ignore.write_bytes(content)
        with pytest.raises(InvalidArgumentError, match=reason):
            opened(LocalDirectory(str(folder))).tree("context")
    ignore.unlink()
    ignore.symlink_to(tmp_path / "outside" / "secret")
    assert opened(LocalDirectory(str(folder))).tree("context").hidden is None
    ignore.unlink()
    os.mkfifo(ignore)
    with pytest.raises(InvalidArgumentError, match="not a regular file"):
        opened(LocalDirectory(str(folder))).tree("context")


def test_a_client_is_told_what_is_ignored(opened: Opened) -> None:
    session = FakeSession({".dockerignore": b"a\n!/b/\n", "Dockerfile": b""})
    opened(SessionDirectory(session, "context")).tree("context")
    assert [exclude for _, _, exclude, _ in session.asked] == [(), (), ("a", "!b")]
    bad = FakeSession({".dockerignore": b"a[\n", "Dockerfile": b""})
    with pytest.raises(InvalidArgumentError):
        opened(SessionDirectory(bad, "context")).tree("context")
