"""What is typed after ``ketch build`` and ``ketch builder``, and what comes of it."""

import contextlib
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from ketch.linux.inotify import Inotify
from tests.support import images
from tests.support.archives import archive, member
from tests.support.commands import Engine, finish
from tests.support.registry import FakeRegistry, fake

pytestmark = pytest.mark.timeout(300)

IN_ACCESS, IN_OPEN = 0x1, 0x20

TEXT = "FROM busybox\nLABEL a=x b=kept\nCOPY file /\nRUN cat /file > /again\n"


@pytest.fixture
def context(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a directory to build from."""
    made = tmp_path / "context"
    made.mkdir()
    (made / "file").write_text("content\n")
    (made / "Dockerfile").write_text(TEXT)
    return made


@pytest.fixture(autouse=True)
def _cleared(ketch: Engine) -> Iterator[None]:
    yield
    ketch("builder", "prune", "--all", "--force")


def cached(ketch: Engine, *words: str) -> list[str]:
    """Build; return the steps that were found again."""
    done = ketch("build", "--progress", "plain", *words)
    assert done.status == 0, str(done)
    names = dict(re.findall(r"^(#\d+) \[\S* *\d+/\d+\] (.*)$", done.err, re.MULTILINE))
    found = [names[one] for one in re.findall(r"^(#\d+) CACHED$", done.err, re.MULTILINE)]
    return [one for one in found if not one.startswith("FROM ")]


def test_what_is_made_is_named_and_told_of(
    ketch: Engine, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    named = ["-t", "told:1", "-t", "also/told", "--label", "a=b", "--label", "c=d=e"]
    files = ["--iidfile", f"{tmp_path}/id", "--metadata-file", f"{tmp_path}/about"]
    done = ketch("build", *named, *files, "-f", "-", str(context), stdin=f"{TEXT}CMD true\n")
    assert done.status == 0, str(done)
    image = (tmp_path / "id").read_text()
    for name in ("told:1", "also/told:latest"):
        (found,) = json.loads(ketch.ok("inspect", name))
        assert found["Id"] == image
        assert found["Config"]["Labels"] == {"a": "b", "b": "kept", "c": "d=e"}
    about = json.loads((tmp_path / "about").read_text())
    assert about["containerimage.config.digest"] == image
    assert about["image.name"] == "docker.io/library/told:1,docker.io/also/told:latest"
    quiet = ketch("build", "-q", *named, "-f", "-", str(context), stdin=f"{TEXT}CMD true\n")
    assert (quiet.out, quiet.err) == (f"{image}\n", "")
    # The Dockerfile may lie elsewhere, and is no part of the context then.
    (context / "Dockerfile").unlink()
    (tmp_path / "elsewhere").write_text("FROM busybox\nCOPY . /all\nRUN ls /all\n")
    told = ketch("build", "--progress=plain", "-f", f"{tmp_path}/elsewhere", str(context))
    assert re.findall(r"^#\d+ [\d.]+ (\w+)$", told.err, re.MULTILINE) == ["file"]
    ketch.ok("rmi", "told:1", "also/told")


def test_results_go_several_ways_at_once(
    ketch: Engine, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    outputs = [
        f"type=local,dest={tmp_path}/files", f"type=tar,dest={tmp_path}/root.tar",
        f"type=oci,dest={tmp_path}/oci.tar", f"type=docker,dest={tmp_path}/docker.tar",
        "type=image",
    ]  # fmt: skip
    words = [word for one in outputs for word in ("-o", one)]
    ketch.ok("build", "-t", "several", *words, str(context))
    assert (tmp_path / "files/again").read_text() == "content\n"
    with tarfile.open(tmp_path / "root.tar") as root:
        assert root.getmember("again").size == len("content\n")
    image = ketch.ok("inspect", "-f", "{{.Id}}", "several")
    ketch.ok("rmi", "several")
    for form in ("oci", "docker"):
        assert "several" in ketch.ok("load", "-i", f"{tmp_path}/{form}.tar")
        assert ketch.ok("inspect", "-f", "{{.Id}}", "several") == image
        assert ketch.ok("run", "--rm", "several", "cat", "/again") == "content"
        ketch.ok("rmi", "several")
    # A directory, and standard output, by themselves.
    ketch.ok("build", "-o", f"{tmp_path}/short", str(context))
    assert (tmp_path / "short/file").exists()
    process = ketch.start("build", "-o", "-", str(context))
    told, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert told[257:262] == b"ustar"
    assert not ketch.ok("images", "-q", "several")


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake() as one:
        yield one


@pytest.mark.parametrize("kind", ["registry", "local", "inline"])
def test_results_travel(
    ketch: Engine, context: pathlib.Path, tmp_path: pathlib.Path, registry: FakeRegistry, kind: str
) -> None:
    image, place = f"{registry.host}/image:1", f"{registry.host}/cache:1"
    to, origin = {
        "registry": (f"type=registry,ref={place},mode=max", place),
        "local": (f"type=local,dest={tmp_path}/kept", f"type=local,src={tmp_path}/kept"),
        "inline": ("type=inline", image),
    }[kind]
    ketch.ok("build", "--push", "-t", image, "--cache-to", to, str(context))
    assert ("image", "1") in registry.manifests
    ketch("rmi", image)
    ketch.ok("builder", "prune", "-af")
    assert cached(ketch, "-t", "travelled", "--cache-from", origin, str(context)) == [
        "COPY file /", "RUN cat /file > /again",
    ]  # fmt: skip
    assert ketch.ok("run", "--rm", "travelled", "cat", "/again") == "content"
    ketch.ok("rmi", "travelled")


def test_a_base_is_asked_for_anew(
    ketch: Engine, context: pathlib.Path, registry: FakeRegistry
) -> None:
    name = f"{registry.host}/base:1"
    (context / "Dockerfile").write_text(f"FROM {name}\nCOPY file /\n")
    for content, options, wanted in ((b"1", (), b"1"), (b"2", (), b"1"), (b"2", ("--pull",), b"2")):
        registry.add_image("base", "1", archive(member(b"said", data=content)))
        process = ketch.start("build", "-o", "-", *options, str(context))
        told, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert (b"said" in told, told.count(wanted + bytes(511))) == (True, 1)
    ketch.ok("rmi", name)


def test_stages_are_made_anew_where_it_is_asked_for(ketch: Engine, context: pathlib.Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox AS one\nRUN echo 1 > /1\nFROM busybox AS two\nRUN echo 2 > /2\n"
        "FROM scratch\nCOPY --from=one /1 /\nCOPY --from=two /2 /\n"
    )
    every = {"RUN echo 1 > /1", "RUN echo 2 > /2", "COPY --from=one /1 /", "COPY --from=two /2 /"}
    assert cached(ketch, str(context)) == []
    assert {*cached(ketch, str(context))} == every
    again = {*cached(ketch, "--no-cache-filter", "one", str(context))}
    assert "RUN echo 1 > /1" in every - again
    assert "RUN echo 2 > /2" in again
    assert cached(ketch, "--no-cache", str(context)) == []
    told = ketch("build", "--explain", "--no-cache-filter=two", str(context)).err
    assert re.search(r"RUN echo 1 > /1: cached \(sha256:", told)
    assert "RUN echo 2 > /2: not looked for: it was asked to be made anew" in told


def test_agents_are_handed_in(ketch: Engine, context: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox\n"
        "RUN --mount=type=ssh stat -c %a,%u,%F $SSH_AUTH_SOCK\n"
        "RUN --mount=type=ssh,id=other,target=/s,uid=7,mode=0666 stat -c %a,%u,%F /s\n"
        "RUN --mount=type=ssh,id=none ls /run/buildkit 2>&1; echo ${SSH_AUTH_SOCK:-none}\n"
    )
    with contextlib.ExitStack() as held:
        given = []
        for name in ("default", "other"):
            listener = held.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(tmp_path / name))
            listener.listen()
            given += ["--ssh", f"{name}={tmp_path}/{name}"]
        done = ketch("build", "--progress=plain", *given, str(context))
        assert done.status == 0, str(done)
        assert re.findall(r"^#\d+ [\d.]+ (.*)$", done.err, re.MULTILINE) == [
            "600,0,socket", "666,7,socket", "ls: /run/buildkit: No such file or directory",
            "/run/buildkit/ssh_agent.0",
        ]  # fmt: skip
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=ssh,required true\n")
    assert 'no SSH key "default" forwarded' in ketch("build", str(context)).err


def test_how_it_goes_is_told(ketch: Engine, context: pathlib.Path) -> None:
    plain = ketch("build", "--progress=plain", "--no-cache", str(context))
    assert re.search(r"^#\d+ \[3/3\] RUN cat /file > /again$", plain.err, re.MULTILINE)
    assert re.search(r"^#\d+ DONE \d+\.\ds$", plain.err, re.MULTILINE)
    auto = ketch("build", "--no-cache", str(context))  # no terminal
    assert re.search(r"^#\d+ DONE \d+\.\ds$", auto.err, re.MULTILINE)
    raw = ketch("build", "--progress=rawjson", "--no-cache", str(context)).err.splitlines()
    names = [one["name"] for line in raw for one in json.loads(line).get("vertexes", ())]
    assert "[3/3] RUN cat /file > /again" in names
    assert ketch("build", "--progress=quiet", "--no-cache", str(context)).err == ""
    terminal = ketch.terminal("build", "--no-cache", str(context), rows=40, columns=100)
    terminal.expect(r"\[\+\] Building \d+\.\ds \(\d+/\d+\) FINISHED")
    terminal.expect(r" => \[3/3\] RUN cat /file > /again +\d+\.\ds")
    assert finish(terminal) == 0


def test_the_cache_is_counted_shown_and_removed(ketch: Engine, context: pathlib.Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox\nRUN head -c 3000000 /dev/urandom > /random\n"
        "RUN --mount=type=cache,target=/c head -c 5000 /dev/urandom > /c/random\n"
    )
    ketch.ok("build", "-o", "type=cacheonly", str(context))
    listed = ketch.ok("builder", "du")
    assert re.search(r"^\S+\s+true\s+3MB\s+.* ago$", listed, re.MULTILINE), listed
    assert re.search(r"^Total:\s+3\.\d+MB$", listed, re.MULTILINE), listed
    assert "RUN head -c 3000000" in ketch.ok("builder", "du", "--verbose")
    only = ketch.ok("builder", "du", "--filter", "type=exec.cachemount")
    assert len(re.findall(r"^\S+\*?\s+(true|false)\s", only, re.MULTILINE)) == 1, only
    assert re.search(r"^Build Cache +\d+ +\d+ +3\.\d+MB", ketch.ok("system", "df"), re.MULTILINE)
    assert ketch.ok("builder", "prune", "-f", "--filter", "until=24h").endswith(": 0B")
    assert ketch.ok("builder", "prune", "-af", "--keep-storage", "1gb").endswith(": 0B")
    pruned = ketch.ok("builder", "prune", "-af")
    assert re.search(r"^Total reclaimed space: 3\.\d+MB$", pruned, re.MULTILINE), pruned
    assert re.search(r"^Total:\s+0B$", ketch.ok("builder", "du"), re.MULTILINE)


@pytest.mark.parametrize("how", ["command", "served"])
def test_nothing_is_read_but_what_is_used(
    ketch: Engine, served_engine: Engine, context: pathlib.Path, how: str
) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nCOPY file d/used /\n")
    (context / "d").mkdir()
    (context / "d" / "used").write_text("used")
    (context / "unused").mkdir()
    others = [context / "large", context / "d" / "other", context / "unused" / "deep"]
    for other in others:
        with other.open("wb") as large:
            large.truncate(1 << 30)
    queue = Inotify()
    try:
        for place in others:
            queue.watch(str(place), IN_ACCESS | IN_OPEN)
        watch = queue.watch(str(context / "file"), IN_ACCESS)
        engine = ketch if how == "command" else served_engine
        engine.ok("build", "-q", str(context))
        told = queue.read()
        assert told
        # Of files there are no names in the events: all are of one size.
        assert {one[0] for one in struct.iter_unpack("iIII", told)} == {watch}
    finally:
        os.close(queue.fileno())


def test_the_same_files_are_the_same_archive(
    ketch: Engine, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made = []
    for number in range(2):
        os.utime(context / "file", (number + 5, number + 5))
        timed = Engine("ketch", ketch.prefix, {"SOURCE_DATE_EPOCH": "1000000000"})
        place = tmp_path / f"{number}.tar"
        timed.ok(
            "build", "--no-cache", "-o", f"type=oci,dest={place},rewrite-timestamp=true",
            str(context),
        )  # fmt: skip
        made.append(place.read_bytes())
    assert made[0] == made[1]


def test_steps_of_other_machines_want_an_emulator(ketch: Engine, context: pathlib.Path) -> None:
    if any(one.name.startswith("qemu-") for one in pathlib.Path(_EMULATORS).glob("*")):
        pytest.skip("this machine has emulators")
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, _S390X, 1, 1 << 22, 64, 0, 0, 64, 56, 0, 0, 0, 0)
    (context / "sh").write_bytes(header)
    (context / "sh").chmod(0o755)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY sh /bin/\nRUN true\n")
    done = ketch("build", "--platform", "linux/s390x", str(context))
    assert done.status == 1
    assert '"/bin/sh" is built for s390x, this machine is ' in done.err
    assert done.err.endswith("or register an emulator with binfmt_misc\n")
    # What needs no program can be made for any machine.
    ketch.ok("build", "--platform", "linux/s390x,linux/arm64", "-f", "-", str(context),
             stdin="FROM scratch\nCOPY sh /\n")  # fmt: skip


_EMULATORS = "/proc/sys/fs/binfmt_misc"
_S390X = 22  # elf(5)'s EM_S390


def test_the_cache_is_bounded_without_anybody_asking(
    ketch: Engine, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """At a tenth of the disk, or 2 GB where that is less; looked at once an hour."""
    place = tmp_path / "disk"
    place.mkdir()
    disk = ["mount", "-t", "tmpfs", "-o", "size=500m", "disk", str(place)]
    subprocess.run([*ketch.mounts, *disk], check=True)
    own = Engine("ketch", [ketch.prefix[0], "--root", f"{place}/root", "--state", f"{place}/state"])
    try:
        own.ok("import", str(images.busybox_archive()), "busybox")
        for name in ("older", "newer"):
            (context / "Dockerfile").write_text(f"FROM busybox\nRUN truncate -s 1200M /{name}\n")
            stamp = f"{place}/root/build-cache/collected"
            subprocess.run([*ketch.mounts, "touch", "-c", "-d", "@1", stamp], check=True)
            own.ok("build", "-o", "type=cacheonly", str(context))
        listed = own.ok("builder", "du", "--verbose")
        assert ("/newer" in listed, "/older" in listed) == (True, False)
    finally:
        own("system", "reset", "--force")
        subprocess.run([*ketch.mounts, "umount", "-l", str(place)], check=True)
