"""Image commands: the same words and figures from ketch, from docker, and over the API."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time

import pytest

from ketch.spec import sizes
from tests.support.archives import archive, member
from tests.support.commands import Engine, finish


@pytest.mark.served
def test_load_tells_a_terminal_how_far_it_is(engine: Engine, tmp_path: pathlib.Path) -> None:
    file = str(tmp_path / "image.tar")
    content = archive(member(b"file", data=os.urandom(3 << 20)))
    engine.ok("import", "-", "loading:1", stdin=content)
    layer = engine.ok("image", "inspect", "-f", "{{index .RootFS.Layers 0}}", "loading:1")
    engine.ok("save", "-o", file, "loading:1")
    engine.ok("rmi", "loading:1")

    terminal = engine.terminal("load", "-i", file, columns=150)
    terminal.expect("Loaded image: loading:1\r\n")
    steps = re.findall(rf"\r{layer[7:19]}: Loading layer \[(=*)> *\] +\S+/(\S+)\r",
                       str(terminal.before))  # fmt: skip
    assert finish(terminal) == 0
    assert len(steps) >= 2
    assert len(steps[0][0]) < len(steps[-1][0]) == 50  # cells of a full bar
    assert {size for _, size in steps} == {f"{len(content) / 1e6:.4g}MB"}

    # What is there already is not told of, nor is anything to a pipe or to who wants quiet.
    again = engine.terminal("load", "-i", file)
    assert finish(again) == 0
    assert str(again.before) == "Loaded image: loading:1\r\n"
    engine.ok("rmi", "loading:1")
    assert engine.ok("load", "-i", file) == "Loaded image: loading:1"
    engine.ok("rmi", "loading:1")
    quiet = engine.terminal("load", "-q", "-i", file)
    assert finish(quiet) == 0
    assert str(quiet.before) == "Loaded image: loading:1\r\n"

    # Whoever loses its name by it is told of, quiet or not.
    other = engine.ok("import", "-", "loading:1", stdin=archive(member(b"other")))
    assert engine.ok("load", "-q", "-i", file).splitlines() == [
        f"The image loading:1 already exists, renaming the old one with ID {other} to empty string",
        "Loaded image: loading:1",
    ]
    engine.ok("rmi", "loading:1", other)


def test_an_archive_with_a_hole_is_no_whole_one_and_an_image_may_name_no_user(
    engine: Engine,
) -> None:
    first, second = member(b"first", data=b"x"), member(b"second")
    refused = engine("import", "-", "hole", stdin=archive(first + bytes(512) + second))
    assert refused.status != 0
    assert "invalid tar header" in refused.err
    changed = engine.ok("import", "-c", 'USER ""', "-", "nobody", stdin=archive(first, second))
    config = json.loads(engine.ok("image", "inspect", "-f", "{{json .Config}}", "nobody"))
    assert config.get("User", "") == ""
    engine.ok("rmi", changed)


def test_a_container_outlives_its_image_and_cannot_be_committed(engine: Engine) -> None:
    identifier = engine.ok("import", "-", "gone", stdin=archive(member(b"file", data=b"content")))
    engine.ok("create", "--name", "orphan", "gone", "command")
    try:
        refused = engine("rmi", identifier)
        assert refused.status == 1
        assert "image is being used by stopped container" in refused.err
        assert engine.ok("rmi", "-f", "gone").splitlines() == [
            "Untagged: gone:latest", f"Deleted: {identifier}"
        ]  # fmt: skip
        assert engine.ok("ps", "-a", "--format", "{{.Image}}") == identifier[7:19]
        committed = engine("commit", "orphan", "back")
        assert (committed.status, committed.out) == (1, "")
        assert identifier in committed.err
        if engine.name == "ketch":
            assert "ketch export orphan | ketch import -" in committed.err
        assert engine("image", "inspect", "back").status == 1
        # Its files are all there, and can be an image's again.
        export = engine.start("export", "orphan")
        engine.ok("import", "-", "back", stdin=export.stdout)
        assert export.wait() == 0
        engine.ok("create", "--name", "orphan-2", "back", "command")
        assert b"content" in engine.ok("cp", "orphan-2:/file", "-").encode()
        engine.ok("rm", "orphan-2")
        engine.ok("rmi", "back")
    finally:
        engine.ok("rm", "orphan")


def test_disk_usage_is_dus_and_what_a_prune_frees(scratch: pathlib.Path) -> None:
    # Docker tells of unpacked layers alone, and takes those that several images have for free.
    program = str(pathlib.Path(sys.executable).with_name("ketch"))
    engine = Engine("ketch", [program, "--no-zygote", "--root", f"{scratch}/usage/root",
                              "--state", f"{scratch}/usage/state"])  # fmt: skip
    places = [f"{scratch}/usage/root/{part}/sha256" for part in ("blobs", "snapshots")]

    def taken() -> int:
        """Return what du(1) counts, in bytes, without the two directories themselves."""
        counted = subprocess.run(["du", "-B1", "-cs", *places], check=True, capture_output=True,
                                 text=True).stdout  # fmt: skip
        return int(counted.split()[-2]) - sum(os.stat(place).st_blocks * 512 for place in places)

    def told() -> list[str]:
        line = engine.ok("system", "df", "--format", "{{.Type}};{{.Size}};{{.Reclaimable}}")
        return line.splitlines()[0].split(";")[1:]

    base = archive(member(b"base", data=os.urandom(1_500_000)))
    engine.ok("import", "-", "used", stdin=base)
    engine.ok("create", "--name", "holder", "used", "command")
    engine.ok("create", "--name", "maker", "used", "command")
    engine.ok("commit", "-m", "shares its layers", "maker", "unused")
    engine.ok("import", "-", "orphaned", stdin=archive(member(b"o", data=os.urandom(700_000))))
    engine.ok("create", "--name", "orphan", "orphaned", "command")
    try:
        engine.ok("rmi", "-f", "orphaned")
        engine.ok("rm", "maker")
        engine.ok("import", "-", "other", stdin=archive(member(b"x", data=os.urandom(2_500_000))))
        before = taken()
        size, reclaimable = told()
        engine.ok("image", "prune", "-a", "-f")
        freed = before - taken()
        assert freed > 5_000_000  # the archive and its file
        assert size == sizes.size(before, 4)
        assert reclaimable == f"{sizes.size(freed, 4)} ({freed * 100 // before}%)"
        assert told() == [sizes.size(taken(), 4), "0B (0%)"]
    finally:
        engine.ok("rm", "holder", "orphan")


def test_events_tell_of_all_that_is_done(engine: Engine, tmp_path: pathlib.Path) -> None:
    file = str(tmp_path / "image.tar")
    begin = time.time()
    identifier = engine.ok("import", "-c", "LABEL a=b", "-", "happens:1",
                           stdin=archive(member(b"file", data=os.urandom(9))))  # fmt: skip
    engine.ok("tag", "happens:1", "happens:2")
    engine.ok("save", "-o", file, "happens:1")
    engine.ok("load", "-i", file)
    engine.ok("create", "--name", "happening", "happens:1", "command")
    committed = engine.ok("commit", "happening", "happens:3")
    engine.ok("rm", "happening")
    engine.ok("rmi", "happens:3", "happens:2")
    engine.ok("rmi", "-f", identifier)
    told = engine.ok("events", "--since", f"{begin:.6f}", "--until", f"{time.time():.6f}",
                     "--filter", "type=image", "--format",
                     "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes}}").splitlines()  # fmt: skip
    done = [("tag", identifier, "happens:1"), ("import", identifier, identifier),
            ("tag", identifier, "happens:2"), ("save", identifier, identifier),
            ("load", identifier, identifier), ("tag", committed, "happens:3"),
            ("untag", committed, committed), ("delete", committed, committed),
            ("untag", identifier, identifier), ("untag", identifier, identifier),
            ("delete", identifier, identifier)]  # fmt: skip
    assert told == [
        f"{action} {actor} map[{'' if action == 'delete' else 'a:b '}name:{name}]"
        for action, actor, name in done
    ]


# What is to be shown, in every form; ``made:2`` was committed on ``made:1``.
SHOWN = """
images
images -a
images -q
images -q --no-trunc
images --no-trunc
images --digests
images --digests --no-trunc
images made
images made:2
images ma*
images nothing
images --format json
images --format '{{json .}}' --no-trunc
images -f label=a
images -f label=a=c
images -f label=a=b
images -f before=made:2
images -f since=made:1
images -f since=nothing
images -f until=1h
images -f dangling=true
images -f dangling=false
images -f dangling=perhaps
images -f dangling=x -f dangling=y
images --filter=
images -f reference=ma* -f reference=busybox
images -f reference=made:*
images -f nothing=1
images -f nothing
images --format {{
images --nothing
images one two
history made:2
history --no-trunc made:2
history -q made:2
history -q --no-trunc made:2
history -H=false made:2
history --format json made:2
history --format '{{json .}}' made:2
history --platform linux/amd64 made:2
history nothing
history
image inspect made:1 made:2
image inspect nothing made:2
image inspect -f {{.Id}}{{.Config.Env}}{{.RepoTags}} made:2
image inspect -f json made:2
image inspect -f {{ made:2
image inspect --platform linux/mips made:2
inspect made:2
inspect -s --type image made:2
inspect -s made:2
inspect --type image nothing
system df -v
images --tree --quiet
images --tree --no-trunc
images --tree --format x
rmi nothing
rmi -f nothing
rmi
rmi --platform linux/mips made:2
tag nothing x
tag made:2 BAD
tag made:2 x:y:z
tag made:2 sha256:x
tag made:2 x@sha256:0000000000000000000000000000000000000000000000000000000000000000
tag made:2
save
save nothing
save -o /nothing/x made:2
save -o / made:2
save -o /dev/full made:2
export -o /dev/full nothing
load -i /nothing
load nothing
import /nothing
import -c NONSENSE - x
import --platform nonsense - x
import --platform a/b/c/d - x
import - BAD
import - x@sha256:0000000000000000000000000000000000000000000000000000000000000000
pull scratch
pull BAD:UPPER/x
pull UPPER
pull a:b:c
pull x@sha256:12
pull -a x:1
pull --platform nonsense x
pull
push -a x:1
push UPPER
push x@sha256:0000000000000000000000000000000000000000000000000000000000000000
push nothing.invalid/x
push
image prune -f --filter until=nonsense
image prune -f --filter nothing=1
image prune -f --filter label=nothing
image prune --filter dangling
image prune nothing
search --limit 101 x
search --filter stars=x x
search --filter is-official=x x
search --filter nothing=x x
login -u a
login -u a -p b --password-stdin x
login --password-stdin x
login a b
logout a b
manifest create
manifest create x
manifest inspect
manifest annotate x
manifest push nothing
manifest rm nothing other
"""


def test_what_is_shown_and_refused_is_what_dockers_command_line_says(
    ketch: Engine, served_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's command line shows what the server tells of the same images, in the same form."""
    monkeypatch.setenv("TZ", "UTC")
    ketch.ok("tag", "busybox", "made:1")
    script = "echo hello >/f; rm /bin/wget"
    ketch.ok("run", "--name", "maker", "made:1", "sh", "-c", script)
    changes = ["LABEL a=b", "ENV X=y", "EXPOSE 80", "USER nobody", "HEALTHCHECK CMD true"]
    ketch.ok("commit", "-m", "a message", "-a", "somebody", *(f"-c={one}" for one in changes),
             "maker", "made:2")  # fmt: skip
    ketch.ok("commit", "-m", "nameless", "maker")
    try:
        wrong = []
        for line in SHOWN.strip().splitlines():
            words = shlex.split(line)
            ours, theirs = ketch(*words, stdin=b""), served_engine(*words, stdin=b"")
            if ours.status != theirs.status or alike(ours.out) != alike(theirs.out):
                wrong.append(f"{ours}\n--- and docker\n{theirs}")
            elif ours.status or ours.err:
                said = re.sub(r"^(docker|Error( response from daemon)?): ", "", theirs.err)
                first = said.strip().split("\n")[0].replace("'docker ", "'ketch ")
                if first not in ours.err:
                    wrong.append(f"{ours}\n--- and docker\n{theirs}")
        assert not wrong, "\n\n".join(wrong)
    finally:
        ketch.ok("rm", "maker")
        nameless = ketch.ok("images", "-q", "-f", "dangling=true").split()
        ketch.ok("rmi", "made:2", "made:1", *nameless)


def alike(output: str) -> list[str]:
    """Return lines without what passes with the moment; names of one image are in any order."""
    output = re.sub(r"(Less than a|About an?|\d+) (second|minute|hour)s?( ago)?", "then", output)
    return sorted(re.sub(r" {2,}", "  ", line.rstrip()) for line in output.splitlines())
