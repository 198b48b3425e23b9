"""Builds: what is made, what is found again, who waits for whom, and that nothing is left."""

import contextlib
import json
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ketch.build.cache import pruning, usage
from ketch.build.failures import BuildError
from ketch.build.files import unpacking
from ketch.build.request import LocalDirectory, Output
from ketch.engine.processes import Patience
from ketch.linux import procfs
from tests.support import builds
from tests.support.builds import Builder
from tests.support.commands import Engine

pytestmark = pytest.mark.in_process


@pytest.fixture
def build(ketch: Engine, tmp_path: pathlib.Path) -> Iterator[Builder]:
    with builds.on(ketch, tmp_path) as builder:
        yield builder


def out(ketch: Engine, image: str, *command: str) -> str:
    return ketch.ok("run", "--rm", image, *command)


STAGES = """
FROM busybox AS made
RUN echo made > /made
FROM busybox AS other
RUN echo other > /other
FROM busybox
ENV WHO=me
WORKDIR /w
COPY a b /w/
COPY --from=made /made /from/
COPY --from=other --chown=7:8 /other /from/
RUN echo "$WHO $(cat a b /from/made /from/other)" > /w/result && echo told
CMD ["cat", "/w/result"]
"""


def test_stages_steps_and_what_becomes_of_them(build: Builder, ketch: Engine) -> None:
    build.write(STAGES, a="first\n", b="second\n")
    built = build.build(tags=["stages"])
    assert built.output == "told\n"
    assert out(ketch, "stages") == "me first\nsecond\nmade\nother"
    assert out(ketch, "stages", "stat", "-c", "%u:%g", "/from/other") == "7:8"
    assert out(ketch, "stages", "ls", "-A", "/", "/dev").count(".dockerenv") == 1
    (found,) = json.loads(ketch.ok("inspect", "stages"))
    assert found["Id"] == built.id
    assert found["RepoTags"] == ["stages:latest"]
    assert found["Config"]["Env"][-1] == "WHO=me"
    shown = ketch.ok("history", "--no-trunc", "--format", "{{.CreatedBy}}", "stages")
    steps = shown.splitlines()
    assert steps[:7] == [
        'CMD ["cat" "/w/result"]',
        'RUN /bin/sh -c echo "$WHO $(cat a b /from/made /from/other)" > /w/result && echo told'
        " # buildkit",
        "COPY --chown=7:8 /other /from/ # buildkit",
        "COPY /made /from/ # buildkit",
        "COPY a b /w/ # buildkit",
        "WORKDIR /w",
        "ENV WHO=me",
    ]
    assert {"exporting layers", f"writing image {built.id}",
            "naming to docker.io/library/stages:latest"} <= {*built.statuses}  # fmt: skip
    assert not build.left_behind()
    again = build.build(tags=["stages"])
    assert again.id == built.id
    assert again.executed() == []


def test_a_file_that_grows_while_it_is_copied(
    build: Builder, ketch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.write("FROM busybox\nCOPY log /log\n", log="one\n")
    add = unpacking.add

    def grown(*arguments: Any, **options: Any) -> None:
        with (build.context / "log").open("a") as log:
            log.write("two\n")
        add(*arguments, **options)

    with monkeypatch.context() as growing:
        growing.setattr(unpacking, "add", grown)
        assert "made anew next time" in build.build(tags=["grown"]).output
    assert out(ketch, "grown", "cat", "/log") == "one\ntwo"
    # Nobody is told that this is what the file was before.
    (build.context / "log").write_text("one\n")
    assert build.build(tags=["grown"]).executed() == ["COPY log /log"]
    assert out(ketch, "grown", "cat", "/log") == "one"


def test_what_is_found_again(build: Builder, ketch: Engine) -> None:
    build.write(STAGES, a="first\n", b="second\n")
    build.build(tags=["again"])
    # Times are nothing that a step could see.
    os.utime(build.context / "a", (1, 1))
    assert build.build(tags=["again"]).executed() == []
    # One file: what copies it is made anew, and what lies on that.
    (build.context / "b").write_text("changed\n")
    assert [step.split()[0] for step in build.build(tags=["again"]).executed()] == [
        "COPY", "COPY", "COPY", "RUN",
    ]  # fmt: skip
    assert "changed" in out(ketch, "again")
    # A mode counts.
    (build.context / "a").chmod(0o600)
    assert len(build.build(tags=["again"]).executed()) == 4
    # A stage alone; all of it.
    assert build.build(tags=["again"], no_cache_filter=["made"]).executed()[:1] == [
        "RUN echo made > /made"
    ]
    assert len(build.build(tags=["again"], no_cache=True).executed()) >= 6
    # What an image was made of stays when the image goes.
    known = build.build(tags=["again"]).id
    ketch.ok("rmi", "-f", "again")
    rebuilt = build.build(tags=["again"])
    assert rebuilt.executed() == []
    assert rebuilt.id == known
    assert "changed" in out(ketch, "again")


def test_what_is_not_used_any_more_goes_with_the_build_that_knows(
    build: Builder, ketch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def layers() -> set[str]:
        return set(build.engine.images.snapshotter.chain_ids())

    build.write("FROM busybox\nRUN date +%N > /time\n")
    build.build(tags=["fresh"])
    build.engine.images.collect_garbage()
    before = layers()
    with monkeypatch.context() as cached:
        # What other images are there is nothing to a build.
        cached.setattr(type(build.engine.images), "list", None)
        assert build.build(tags=["fresh"]).executed() == []
    assert layers() == before
    ketch.ok("rmi", "fresh")
    build.build(outputs=[Output("cacheonly")], no_cache=True)
    assert len(layers()) == len(before)
    assert layers() != before
    # Who removes an image while others build leaves that to them.
    ketch.ok("build", "-q", "-t", "removed", "--no-cache", str(build.context))
    pruning.prune(build.engine, all=True)
    before = layers()
    build.write("FROM busybox\nRUN echo begun; sleep 2\n")
    process = build.start("going-on")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    ketch.ok("rmi", "removed")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert len(layers() & before) == len(before) - 1


def test_a_linked_copy_is_found_again_on_another_base(build: Builder, ketch: Engine) -> None:
    text = "FROM busybox\nRUN echo {} > /base\nCOPY --link a /deep/er/\n"
    build.write(text.format(1), a="linked")
    build.build(tags=["linked"])
    build.write(text.format(2))
    assert build.build(tags=["linked"]).executed() == ["RUN echo 2 > /base"]
    assert out(ketch, "linked", "cat", "/base", "/deep/er/a") == "2\nlinked"
    ketch.ok("rmi", "-f", "linked")
    assert build.build(tags=["linked"]).executed() == []
    ketch.ok("save", "-o", str(build.context / "archive"), "linked")


def test_archives_are_made_again_as_they_were(build: Builder, ketch: Engine) -> None:
    build.write(
        "FROM busybox AS made\nRUN mkdir /d && echo 1 > /d/f && ln /d/f /d/g && ln -s f /d/h "
        "&& mkfifo /d/p && chmod 4755 /d/f && touch -d @5 /d/f && rm /bin/vi && rm -r /var "
        "&& mkdir /var && touch /var/new\nRUN rm -r /d && mkdir /d && touch /d/again\n"
        "FROM scratch\nCOPY --from=made / /\nRUN chmod 700 / && touch /x\nWORKDIR /w\n"
        "COPY --link a /linked/\nFROM scratch\nCOPY a /\n",
        a="a",
    )
    for target in ("made", "1", ""):
        known = build.build(tags=["remade"], target=target).id
        ketch.ok("rmi", "-f", "remade")
        built = build.build(tags=["remade"], target=target)
        assert (built.executed(), built.id) == ([], known)
        ketch.ok("rmi", "-f", "remade")


def test_a_layer_that_has_changed_on_the_disk_is_made_anew(build: Builder, ketch: Engine) -> None:
    build.write("FROM busybox\nRUN echo right > /file\n")
    build.build(tags=["changed"])
    chain_id = build.engine.images.resolve("changed").chain_ids[-1]
    ketch.ok("rmi", "-f", "changed")
    snapshot = pathlib.Path(build.engine.images.snapshotter.path(chain_id))
    (snapshot / "diff" / "file").write_text("wrong\n")
    with pytest.raises(BuildError, match="has changed on the disk"):
        build.build(tags=["changed"])
    assert build.build(tags=["changed"]).executed() == ["RUN echo right > /file"]
    assert out(ketch, "changed", "cat", "/file") == "right"


def test_a_failure_says_what_and_where_and_calls_off_the_rest(build: Builder) -> None:
    build.write(
        "FROM busybox AS slow\nRUN sleep 120 && touch /s\nFROM busybox\nCOPY --from=slow /s /s\n"
        "# the one to blame\nRUN sleep 0.3; exit 7\n"
    )
    # The failing step does not wait for the slow one.
    build.write(
        "FROM busybox AS slow\nRUN sleep 120 && touch /s\nFROM busybox AS bad\n"
        "RUN sleep 0.3; exit 7\nFROM scratch\nCOPY --from=slow /s /s\nCOPY --from=bad /b /b\n"
    )
    begun = time.monotonic()
    with pytest.raises(BuildError) as caught:
        build.build()
    assert time.monotonic() - begun < 60
    assert caught.value.message == (
        'failed to solve: process "/bin/sh -c sleep 0.3; exit 7" did not complete successfully: '
        "exit code: 7"
    )
    assert caught.value.exit_status == 7
    assert ">>> RUN sleep 0.3; exit 7" in caught.value.excerpt
    assert caught.value.excerpt.startswith("Dockerfile:4\n")
    assert not build.left_behind()
    assert threading.active_count() == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM busybox\nCOPY nothing /\n", "nothing"),
        ("FROM busybox\nBOGUS x\n", "unknown instruction: BOGUS"),
        ("FROM busybox AS a\nCOPY --from=b x /\n", "b"),
        ("FROM busybox\nRUN --mount=type=secret,id=x,required cat /x\n", "x"),
        ("FROM busybox\nRUN [\"/no/such/program\"]\n",
         'process "/no/such/program" did not complete successfully: "/no/such/program": no such'),
        ("FROM busybox\nUSER nobody1\nRUN true\n",
         'process "/bin/sh -c true" did not complete successfully: unable to find user nobody1: '),
        ("", "the Dockerfile cannot be empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_built(build: Builder, text: str, message: str) -> None:
    build.write(text, a="a")
    with pytest.raises(BuildError, match=message) as caught:
        build.build(environment={"HOME": "/nonexistent"})
    assert caught.value.message.startswith("failed to solve: ")
    assert not build.left_behind()


def test_two_builders_at_once_make_each_step_once(build: Builder, ketch: Engine) -> None:
    build.write(
        "FROM busybox\nRUN --mount=type=cache,id=once,target=/c echo x >> /c/log; sleep 1; "
        "wc -l < /c/log > /count\nRUN cp /count /copy\n"
    )
    processes = [build.start(f"builder-{number}") for number in range(3)]
    ids = set()
    for process in processes:
        output, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
        ids.add(output.split()[-1])
    assert len(ids) == 1
    assert out(ketch, "builder-0", "cat", "/count", "/copy") == "1\n1"
    assert not build.left_behind()


def test_who_is_killed_leaves_nothing_but_cache(build: Builder, ketch: Engine) -> None:
    steps = "".join(f"RUN echo {number} > /f{number}\n" for number in range(6))
    build.write(f"FROM busybox\n{steps}COPY a /\nRUN cat /f? /a > /all\n", a="a\n")
    cut = {signal.SIGINT: 0, signal.SIGKILL: 0}
    for number in range(12):
        ended_by = signal.SIGINT if number < 6 else signal.SIGKILL
        process = ketch.start("build", "-q", "-t", "killed", str(build.context))
        time.sleep(0.25 + 0.15 * (number % 6))
        process.send_signal(ended_by)
        process.communicate(timeout=60)
        cut[ended_by] += process.returncode != 0
        if ended_by == signal.SIGINT:
            assert process.returncode in {0, 130, -signal.SIGINT}
            assert not build.left_behind()
    assert all(cut.values())
    built = build.build(tags=["killed"])
    assert out(ketch, "killed", "cat", "/all") == "0\n1\n2\n3\n4\n5\na"
    assert build.build(tags=["killed"]).id == built.id
    assert not build.left_behind()
    assert os.listdir(f"{build.settings.root}/snapshots/ingest") == []
    assert os.listdir(f"{build.settings.root}/ingest") == []


def test_a_signal_ends_a_build_and_its_steps(build: Builder) -> None:
    build.write("FROM busybox\nRUN echo begun; sleep 1000\n")
    process = build.start("signalled")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert not build.left_behind()


class CalledOffError(Exception):
    """A test does not want to wait any more."""


class Limited(Patience):
    """Waits for some time, and then no more."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def poll(self, milliseconds: int | None, *watched: tuple[int, int]) -> list[tuple[int, int]]:
        while time.monotonic() < self._end:
            if found := super().poll(20, *watched):
                return found
        raise CalledOffError


def descriptors() -> list[str]:
    """Tell what is open, but for the database, which SQLite keeps open for other connections."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(path for path in found if "ketch.db" not in path)


def test_whoever_waits_can_call_a_build_off(build: Builder) -> None:
    build.write("FROM busybox\nRUN sleep 1000\n")
    with pytest.raises(CalledOffError):
        build.build(patience=Limited(0))
    before = descriptors()
    begun = time.monotonic()
    with pytest.raises(CalledOffError):
        build.build(patience=Limited(2))
    assert time.monotonic() - begun < 30
    assert not build.left_behind()
    assert threading.active_count() == 1
    assert descriptors() == before


def test_after_a_power_cut_steps_are_made_again(
    build: Builder, ketch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The power is cut before anything of it is on the disk.
    monkeypatch.setattr(type(build.engine.images.snapshotter), "settle", lambda *_: None)
    build.write("FROM busybox\nRUN echo 1 > /one\nRUN exit 1\n")
    with pytest.raises(BuildError):
        build.build()
    monkeypatch.undo()
    build.write("FROM busybox\nRUN echo 1 > /one\n")
    boot_id = procfs.boot_id()
    monkeypatch.setattr("ketch.images.snapshots.procfs.boot_id", lambda: f"after {boot_id}")
    assert build.build(tags=["cut"]).executed() == ["RUN echo 1 > /one"]
    monkeypatch.undo()
    assert build.build(tags=["cut"]).executed() == []
    assert out(ketch, "cut", "cat", "/one") == "1"


def test_the_cache_is_listed_and_pruned(build: Builder, ketch: Engine) -> None:
    pruning.prune(build.engine, all=True)
    build.write(
        "FROM busybox\nRUN head -c 100000 /dev/zero > /zeros\n"
        "RUN --mount=type=cache,id=listed,target=/c head -c 5000 /dev/zero > /c/f\n"
    )
    build.build(tags=["pruned"])
    found = {one.description.partition("] ")[2] or one.description: one
             for one in usage.listed(build.engine)}  # fmt: skip
    zeros = found["RUN head -c 100000 /dev/zero > /zeros"]
    assert (zeros.size_bytes, zeros.type, zeros.uses, zeros.shared) == (100000, "regular", 1, True)
    mount = next(one for one in found.values() if one.type == "exec.cachemount")
    assert mount.size_bytes >= 5000
    # What images have is not reclaimable, unless all is meant.
    pruned = pruning.prune(build.engine)
    assert pruned.ids == [mount.id]
    assert pruned.freed_bytes == mount.size_bytes
    assert build.build(tags=["pruned"]).executed() == []
    ketch.ok("rmi", "-f", "pruned")
    assert pruning.prune(build.engine, ["until=1h"]).ids == []
    assert pruning.prune(build.engine, keep_bytes=1 << 40).ids == []
    assert zeros.id in pruning.prune(build.engine, [f"id=^{zeros.id}$"]).ids
    assert len(build.build(tags=["pruned"]).executed()) == 2
    pruning.prune(build.engine, all=True)
    assert usage.listed(build.engine) == []
    assert out(ketch, "pruned", "stat", "-c", "%s", "/zeros") == "100000"


def test_the_same_bytes_from_the_same_files(build: Builder) -> None:
    build.write("FROM busybox\nWORKDIR /w\nCOPY a .\nRUN echo b > b\n", a="a")
    asked: dict[str, Any] = {
        "build_args": {"SOURCE_DATE_EPOCH": "1000"},
        "outputs": [Output("image", {"rewrite-timestamp": "true", "name": "same"})],
        "no_cache": True,
    }
    first = build.build(**asked)
    os.utime(build.context / "a", (5, 5))
    assert build.build(**asked).result.digest == first.result.digest
    (found,) = json.loads(json.dumps([build.engine.images.resolve("same").document]))
    assert found["created"] == "1970-01-01T00:16:40Z"


def test_squashed_layers_are_one(build: Builder, ketch: Engine) -> None:
    build.write("FROM busybox\nRUN echo 1 > /one; echo 2 > /two\nRUN rm /one; rm /bin/vi\n")
    build.build(tags=["plain"])
    build.build(tags=["squashed"], squash=True)
    layers = {
        name: len(build.engine.images.resolve(name).chain_ids) for name in ("plain", "squashed")
    }
    assert layers["plain"] == layers["squashed"] + 1
    assert out(ketch, "squashed", "ls", "/two") == "/two"
    for name in ("/one", "/bin/vi"):
        assert ketch("run", "--rm", "squashed", "ls", name).status != 0
    assert "RUN /bin/sh -c rm /one; rm /bin/vi # buildkit" in ketch.ok(
        "history", "--no-trunc", "squashed"
    )


def test_several_platforms_and_outputs(build: Builder, tmp_path: pathlib.Path) -> None:
    build.write("FROM scratch\nCOPY a /\n", a="a")
    layout, files = tmp_path / "layout", tmp_path / "files"
    built = build.build(
        platforms=["linux/amd64", "linux/arm64"], tags=["both"],
        outputs=[
            Output(), Output("oci", {"tar": "false"}, directory=str(layout)),
            Output("local", directory=str(files)),
        ],
    )  # fmt: skip
    index = json.loads((layout / "index.json").read_bytes())
    (entry,) = index["manifests"]
    inner = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_bytes())
    assert [one["platform"]["architecture"] for one in inner["manifests"]] == ["amd64", "arm64"]
    assert sorted(path.name for path in files.iterdir()) == ["linux_amd64", "linux_arm64"]
    assert (files / "linux_arm64" / "a").read_text() == "a"
    assert build.engine.images.resolve("both").id == built.id
    assert built.result.digest


def test_a_stage_may_begin_with_a_whole_context(build: Builder, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other"
    (other / "d").mkdir(parents=True)
    (other / "d" / "f").write_text("f")
    build.write("FROM files\nCOPY --from=files d/f /g\n")
    contexts = {
        "context": LocalDirectory(str(build.context)), "files": LocalDirectory(str(other)),
    }  # fmt: skip
    files = tmp_path / "files"
    build.build(contexts=contexts, outputs=[Output("local", directory=str(files))])
    assert (files / "g").read_text() == (files / "d" / "f").read_text() == "f"
    assert build.build(contexts=contexts, outputs=[Output("cacheonly")]).executed() == []


def test_files_that_no_archive_can_hold_are_in_no_later_step(build: Builder, ketch: Engine) -> None:
    build.write(
        "FROM busybox\nRUN touch /.wh.odd /plain && mkdir /d && touch /d/.wh..wh..opq "
        "&& nc -lU /socket & sleep 0.5\nRUN ls -A / /d > /seen\n"
    )
    build.build(tags=["odd"])
    seen = out(ketch, "odd", "cat", "/seen")
    assert "plain" in seen
    assert ".wh." not in seen


def test_many_stages_at_once(build: Builder, ketch: Engine) -> None:
    stages = "".join(
        f"FROM busybox AS s{number}\nRUN echo {number} > /n{number}\n" for number in range(20)
    )
    copies = "".join(f"COPY --from=s{number} /n{number} /\n" for number in range(20))
    build.write(f"{stages}FROM busybox\n{copies}")
    build.build(tags=["many"])
    assert out(ketch, "many", "sh", "-c", "cat /n? /n??").split() == [str(n) for n in range(20)]
    assert not build.left_behind()


@pytest.fixture(autouse=True)
def cleared(build: Builder) -> Iterator[None]:
    yield
    with contextlib.suppress(FileNotFoundError):
        pruning.prune(build.engine, all=True)
