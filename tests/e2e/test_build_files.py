"""What COPY and ADD do to files, held against docker's BuildKit: the same lines, the same files."""

import os
import pathlib
import re
import stat
import tarfile

import pytest

from ketch.build.files import copying, digests, inline, unpacking
from ketch.build.files.selection import select
from ketch.build.graph import ContextSource, CopyItem, InlineSource
from ketch.build.trees import Tree
from ketch.errors import KetchError
from ketch.spec import modes
from ketch.spec.path_match import has_wildcards
from tests.support import archives
from tests.support.build_files import Left, opened
from tests.support.commands import Engine

_OLD = 1_000_000_000
"""When the context's files were changed: what has this time has it from there."""

_ARCHIVE = archives.archive(
    archives.member(b"./", archives.DIRECTORY, mode=0o700),
    archives.member(b"top/", archives.DIRECTORY, mode=0o750, uid=3, gid=4),
    archives.member(b"top/file", data=b"unpacked", mode=0o4711, uid=5, gid=6),
    archives.member(b"top/link", archives.SYMLINK, link=b"/etc"),
    archives.member(b"hard", archives.HARD_LINK, link=b"top/file", mode=0o4711, uid=5, gid=6),
    archives.member(b"implied/file", data=b"x"),
    archives.member(b"e", data=b"in place of a directory"),
)

_LINES = [
    "COPY a /one",
    "COPY a /two/",
    "COPY a /deep/er/b",
    "COPY a c /three/",
    "COPY . /all",
    "COPY d /d1",
    "COPY d/ /d2/",
    "COPY d/. /d3/x",
    "COPY d a /d4/",
    "COPY [a-e]* /stars/",
    "COPY d/* /below/",
    "COPY */f /matched/",
    "COPY d/*/f /onlyfile",
    "COPY [ac] /class/",
    "COPY nothing* a /some/",
    "COPY nothing* /none/",
    "COPY to-d /linked",
    "COPY to-f /linked-file",
    "COPY d/to-* /linked-files/",
    "COPY to-d/f /through",
    "COPY ../../../a /climbing",
    "COPY a /all/d/e/f",
    "COPY d /all/d/e",
    "COPY e /merged/e",
    "COPY d /merged",
    "COPY to-f /merged/to-f",
    "COPY --chown=7:8 d /owned/deep",
    "COPY --chown=9 a /owned/deep/",
    "COPY --chown=nobody:nogroup a /unknown",
    "COPY --chmod=750 d /modes/deep",
    "COPY --chmod=4711 a /modes/suid",
    "COPY hard /hard",
    "COPY odd /odd",
    "ADD archive.tar /unpacked/",
    "ADD archive.tar /unpacked/again",
    "ADD e /unpacked/again/e2",
    "ADD archive.tar /all/",
    "ADD a d /added/",
    "COPY archive.tar /copied",
    'COPY ["with space", "/spaces here/"]',
]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    context = tmp_path_factory.mktemp("context")
    for path, mode in (("a", 0o640), ("c", 0o755), ("d/f", 0o600), ("d/e/f", 0o644),
                       ("e/f", 0o4755), ("hidden/x", 0o644), ("hidden/shown/y", 0o644),
                       ("hard/one", 0o644), ("with space", 0o644)):  # fmt: skip
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        (context / path).write_text(path)
        (context / path).chmod(mode)
    (context / "d").chmod(0o710)
    (context / "d" / "e").chmod(0o700)
    (context / "to-d").symlink_to("d/e")
    (context / "to-f").symlink_to("/d/f")
    (context / "d" / "to-f").symlink_to("f")
    (context / "d" / "to-c").symlink_to("../c")
    os.link(context / "hard" / "one", context / "hard" / "two")
    (context / "odd").mkdir()
    # Where a pattern matches what this is in, docker 26 follows it, and fails.
    (context / "odd" / "dangling").symlink_to("/no/where")
    os.mkfifo(context / "odd" / "fifo", 0o620)
    os.mknod(context / "odd" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (context / "odd" / "empty").mkdir(mode=0o500)
    (context / "archive.tar").write_bytes(_ARCHIVE)
    (context / ".dockerignore").write_text("hidden\n!hidden/shown\nDockerfile\n.dockerignore\n")
    for file in context.rglob("*"):
        os.chown(file, 1000, 1000, follow_symlinks=False)
    (context / "e" / "f").chmod(0o4755)  # which the change of owner took away
    for file in context.rglob("*"):
        os.utime(file, (_OLD, _OLD), follow_symlinks=False)
    return context


def ours(context: pathlib.Path, root: pathlib.Path, line: str) -> None:
    """Do what one line says."""
    words = re.findall(r'"([^"]*)"', line) if '"' in line else line.split()[1:]
    flags = dict(word[2:].split("=") for word in words if word.startswith("--"))
    *sources, target = [word for word in words if not word.startswith("--")]
    hidden = Left("hidden", "Dockerfile", ".dockerignore", but=("hidden/shown",))
    source = ContextSource(name="context", context="context")
    version = digests.Version()
    user, _, group = flags.get("chown", "").partition(":")
    owner = None
    if user:
        owner = (int(user), int(group or user)) if user.isdigit() else (0, 0)
    mode = modes.parse(flags["chmod"]) if "chmod" in flags else None
    with opened(context) as directory, opened(root) as top:
        destination = copying.Destination(top, target, owner, mode)
        for path in sources:
            item = CopyItem(source, (path,), line.startswith("ADD"), not has_wildcards(path))
            chosen = select(Tree(directory, hidden, owned=False), item)
            unpacking.add(chosen, destination, version, unpack=unpacking.unpacks(item))


def facts(root: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """Return what there is of each file, by path."""
    found: dict[str, tuple[object, ...]] = {}
    names: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        what: object = ""
        if stat.S_ISREG(status.st_mode):
            what = path.read_bytes()
        elif path.is_symlink():
            what = os.readlink(path)
        elif not path.is_dir():
            what = status.st_rdev
        first = names.setdefault(status.st_ino, name)
        mode = 0o777 if path.is_symlink() else stat.S_IMODE(status.st_mode)
        found[name] = (stat.S_IFMT(status.st_mode), mode, status.st_uid, status.st_gid, what,
                       first, int(status.st_mtime) == _OLD)  # fmt: skip
    return found


def dockers_facts(archive: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """Return the same of an archive that BuildKit wrote."""
    kinds = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK,
             tarfile.FIFOTYPE: stat.S_IFIFO, tarfile.CHRTYPE: stat.S_IFCHR}  # fmt: skip
    found: dict[str, tuple[object, ...]] = {}
    links: dict[str, list[str]] = {}
    with tarfile.open(archive) as members:
        for member in members:
            name = member.name.strip("/")
            if member.islnk():
                links.setdefault(member.linkname.strip("/"), []).append(name)
                continue
            what: object = ""
            if member.isreg():
                file = members.extractfile(member)
                assert file is not None
                what = file.read()
            elif member.issym():
                what = member.linkname
            elif not member.isdir():
                what = os.makedev(member.devmajor, member.devminor)
            mode = 0o777 if member.issym() else member.mode
            found[name] = (kinds.get(member.type, stat.S_IFREG), mode, member.uid, member.gid, what,
                           name, int(member.mtime) == _OLD)  # fmt: skip
    for target, others in links.items():
        first = min(target, *others)
        for name in (target, *others):
            found[name] = (*found[target][:5], first, found[target][6])
    return found


def build(docker: Engine, context: pathlib.Path, dockerfile: str, output: str) -> str:
    """Build by docker; return what it says, the last line first where it fails."""
    done = docker("build", "--progress=plain", "--file", "-", "--output", output, str(context),
                  stdin=dockerfile)  # fmt: skip
    errors = [line for line in done.err.splitlines() if "ERROR" in line]
    return "\n".join(errors) if done.status else ""


def test_the_same_lines_give_the_same_files(
    docker_engine: Engine, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    archive = tmp_path / "docker.tar"
    dockerfile = "\n".join(["FROM scratch", *_LINES, ""])
    assert build(docker_engine, context, dockerfile, f"type=tar,dest={archive}") == ""
    root = tmp_path / "root"
    root.mkdir()
    for line in _LINES:
        ours(context, root, line)
    expected, found = dockers_facts(archive), facts(root)
    differing = {name for name in {*expected, *found} if expected.get(name) != found.get(name)}
    shown = [f"{name}: {expected.get(name)} != {found.get(name)}" for name in sorted(differing)]
    assert not differing, "\n".join(shown)


@pytest.mark.parametrize(
    "lines",
    [
        ["COPY nothing /x"],
        ["COPY odd/dangling /x"],
        ["COPY odd/dangling/x /x"],
        ["COPY hidden/x /x"],
        ["COPY a /d/e/x", "COPY e /x", "COPY e /d/x"],
        ["COPY a /x/f/y", "COPY d/f /x/"],
        ["COPY a /x", "COPY d /x"],
        ["COPY a /x", "COPY a /x/y"],
        ["COPY a /x", "COPY a /x/"],
        ["COPY to-f /x/e", "COPY d /x"],
    ],
)
def test_the_same_lines_fail_in_the_same_words(
    docker_engine: Engine, context: pathlib.Path, tmp_path: pathlib.Path, lines: list[str]
) -> None:
    dockerfile = "\n".join(["FROM scratch", *lines, ""])
    said = build(docker_engine, context, dockerfile, "type=cacheonly")
    root = tmp_path / "root"
    root.mkdir()
    message = ""
    for line in lines:
        try:
            ours(context, root, line)
        except KetchError as error:
            message = error.message
    # Where its mounts are, and what it calls a context, is no concern of who builds.
    said = re.sub(r"/\S*/merged", "", re.sub(r"of ref \S+: ", "of ref source: ", said))
    assert (message in said) if message else not said, said


def test_files_of_the_dockerfile_itself(
    docker_engine: Engine, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    archive = tmp_path / "docker.tar"
    dockerfile = "FROM scratch\nCOPY <<one <<two /x/\n1\none\n2\ntwo\nCOPY <<one /y\n3\none\n"
    assert build(docker_engine, context, dockerfile, f"type=tar,dest={archive}") == ""
    root = tmp_path / "root"
    root.mkdir()
    with opened(root) as top:
        for files, target in (({"one": b"1\n", "two": b"2\n"}, "/x/"), ({"one": b"3\n"}, "/y")):
            item = CopyItem(InlineSource(name="inline", files=files), tuple(files))
            with inline.tree(files, str(tmp_path)) as tree:
                destination = copying.Destination(top, target)
                copying.copy(select(tree, item), destination, digests.Version())
    assert facts(root) == dockers_facts(archive)
