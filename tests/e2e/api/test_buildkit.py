"""Debian's docker build, buildx and compose, unmodified, on the server's BuildKit API."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket as sockets
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.support import registry as registries
from tests.support.commands import Engine

DOCKERFILE = r"""# syntax=docker/dockerfile:1
ARG BASE=busybox
FROM ${BASE} AS made
ARG GIVEN
RUN --mount=type=secret,id=word,required=true \
    --mount=type=cache,target=/kept \
    test "$(cat /run/secrets/word)" = hidden && echo "$GIVEN" > /given && ls /kept > /before && \
    touch /kept/one
RUN --mount=type=ssh,required=true test -S "$SSH_AUTH_SOCK"
FROM busybox AS last
LABEL who=me
COPY --from=made /given /before /
COPY --chmod=640 sub /sub
COPY . /all
CMD ["cat", "/given"]
"""


@pytest.fixture
def docker(served_engine: Engine, ketch: Engine) -> Iterator[Engine]:
    """Return docker's command line with buildx on the server; its images go."""
    if served_engine("buildx", "version").status:
        pytest.skip("buildx is not installed (Debian: docker-buildx)")
    before = set(ketch.ok("images", "-aq").split())
    yield served_engine
    made = set(ketch.ok("images", "-aq").split()) - before
    if made:
        ketch("rmi", "-f", *made)


@pytest.fixture
def context(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a directory with a Dockerfile and what it copies."""
    directory = tmp_path / "context"
    (directory / "sub").mkdir(parents=True)
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "sub" / "odd name ä").write_text("odd")
    (directory / "sub" / "link").symlink_to("../../../../etc/passwd")
    os.link(directory / "sub" / "odd name ä", directory / "sub" / "same")
    (directory / "large").write_bytes(b"x" * 3_000_000)
    (directory / ".dockerignore").write_text("large\nDocker*\n.docker*\n")
    return directory


@pytest.fixture
def agent(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Return the socket of an ssh agent that says nothing."""
    path = tmp_path / "agent"
    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield path


def _build(engine: Engine, context: pathlib.Path, *options: str) -> str:
    """Build; return what was told on the way."""
    done = engine("build", "--progress=plain", *options, str(context))
    assert done.status == 0, str(done)
    return done.err


def test_docker_build_with_secret_agent_cache_and_labels(
    docker: Engine,
    ketch: Engine,
    context: pathlib.Path,
    tmp_path: pathlib.Path,
    agent: pathlib.Path,
) -> None:
    (tmp_path / "word").write_text("hidden")
    options = ["--secret", f"id=word,src={tmp_path}/word", "--ssh", f"default={agent}",
               "--build-arg", "GIVEN=here", "--label", "more=1", "-t", "bk/x:1", "-t", "bk/y",
               "--iidfile", f"{tmp_path}/id", "--metadata-file", f"{tmp_path}/about"]  # fmt: skip
    told = _build(docker, context, *options)
    # What .dockerignore leaves out is not even sent.
    assert re.search(r"transferring context: [\d.]+k?B", told)
    assert not re.search(r"transferring context: [\d.]+MB", told), told
    image = (tmp_path / "id").read_text()
    assert json.loads((tmp_path / "about").read_text())["containerimage.config.digest"] == image
    for name in ("bk/x:1", "bk/y"):
        assert ketch.ok("images", "-q", "--no-trunc", name) == image
    assert ketch.ok("run", "--rm", "bk/x:1") == "here"
    listing = ketch.ok("run", "--rm", "bk/y", "ls", "-l", "/sub", "/all/sub")
    assert "link -> ../../../../etc/passwd" in listing
    assert listing.count("-rw-r-----") == 2
    assert ketch.ok("run", "--rm", "bk/y", "cat", "/all/sub/odd name ä") == "odd"
    labels = json.loads(ketch.ok("inspect", "-f", "{{json .Config.Labels}}", "bk/x:1"))
    assert labels == {"who": "me", "more": "1"}
    assert "hidden" not in ketch.ok("history", "--no-trunc", "bk/x:1")

    told = _build(docker, context, *options)
    assert len(re.findall(r"^#\d+ CACHED$", told, re.MULTILINE)) >= 6
    assert (tmp_path / "id").read_text() == image
    (context / "sub" / "new").touch()
    told = _build(docker, context, *options, "--no-cache-filter=last")
    assert "/before" in ketch.ok("run", "--rm", "bk/x:1", "ls", "-d", "/before")
    assert (tmp_path / "id").read_text() != image


def test_results_as_files_archives_and_layouts(
    docker: Engine, tmp_path: pathlib.Path, context: pathlib.Path
) -> None:
    text = "FROM busybox AS a\nRUN echo 1 >/one\nFROM scratch\nCOPY --from=a /one /\nCOPY sub /\n"
    (context / "Dockerfile").write_text(text)
    _build(docker, context, "-o", f"{tmp_path}/files")
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == [
        "link", "odd name ä", "one", "same",
    ]  # fmt: skip
    assert (tmp_path / "files" / "link").is_symlink()
    archive = docker("build", "-q", "-o", f"type=tar,dest={tmp_path}/tar", str(context))
    assert archive.status == 0, str(archive)
    assert tarfile.open(tmp_path / "tar").getmember("one").size == 2
    _build(docker, context, "--target", "a", "-o", f"type=oci,tar=false,dest={tmp_path}/layout")
    (context / "Dockerfile").write_text("FROM given\nRUN test $(cat /one) = 1\n")
    _build(docker, context, "--build-context", f"given=oci-layout://{tmp_path}/layout")
    _build(docker, context, "--build-context", f"given=oci-layout://{tmp_path}/layout",
           "-o", f"type=docker,dest={tmp_path}/docker.tar", "-t", "bk/loaded")  # fmt: skip
    assert "bk/loaded" in docker.ok("load", "-i", f"{tmp_path}/docker.tar")


def test_a_cache_in_a_directory_of_the_client(
    docker: Engine, tmp_path: pathlib.Path, context: pathlib.Path
) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN cat /proc/uptime > /when\n")
    place = tmp_path / "cache"
    _build(docker, context, "-t", "bk/c", "--cache-to", f"type=local,dest={place}")
    when = docker.ok("run", "--rm", "bk/c", "cat", "/when")
    docker.ok("rmi", "-f", "bk/c")
    docker.ok("buildx", "prune", "-af")
    told = _build(docker, context, "-t", "bk/c", "--cache-from", f"type=local,src={place}")
    assert re.search(r"\[2/2\] RUN cat.*\n#\d+ CACHED", told), told
    assert docker.ok("run", "--rm", "bk/c", "cat", "/when") == when


@pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is not installed")
def test_images_and_caches_at_a_registry_that_wants_the_clients_password(
    docker: Engine, tmp_path: pathlib.Path, context: pathlib.Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "cli-plugins").symlink_to(
        pathlib.Path(docker.environment["DOCKER_CONFIG"]) / "cli-plugins"
    )
    mine = replace(docker, environment={**docker.environment, "DOCKER_CONFIG": str(own)})
    (context / "Dockerfile").write_text("FROM busybox\nRUN cat /proc/uptime > /when\n")
    with registries.docker_registry(tmp_path / "registry", password=True) as host:
        refused = mine("build", "--push", "-t", f"{host}/x", str(context))
        assert refused.status == 1, str(refused)
        assert re.search("(?i)unauthorized|authentication|credentials", refused.err), refused.err
        mine.ok("login", "-u", registries.USER, "--password-stdin", host,
                stdin=registries.PASSWORD.encode())  # fmt: skip
        cache = f"type=registry,ref={host}/cache,mode=max"
        _build(mine, context, "--push", "-t", f"{host}/x", "--cache-to", cache)
        when = mine.ok("run", "--rm", f"{host}/x", "cat", "/when")
        mine.ok("rmi", "-f", f"{host}/x")
        mine.ok("buildx", "prune", "-af")
        told = _build(mine, context, "-t", "bk/r", "--cache-from", cache)
        assert re.search(r"\[2/2\] RUN cat.*\n#\d+ CACHED", told), told
        (context / "Dockerfile").write_text(f"FROM {host}/x\nRUN test -s /when\n")
        _build(mine, context, "--pull", "-t", "bk/r")
        assert mine.ok("run", "--rm", "bk/r", "cat", "/when") == when


def test_contexts_from_standard_input_and_elsewhere(
    docker: Engine, tmp_path: pathlib.Path, context: pathlib.Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "f").write_text("elsewhere")
    text = "FROM busybox\nCOPY --from=there f /\nRUN test $(cat /f) = elsewhere\n"
    told = docker("build", "--progress=plain", "--build-context", f"there={other}", "-f", "-",
                  str(context), stdin=text)  # fmt: skip
    assert told.status == 0, str(told)
    with tarfile.open(tmp_path / "c.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(other, "x")
        (tmp_path / "D").write_text("FROM busybox\nCOPY x/f /\n")
        archive.add(tmp_path / "D", "Dockerfile")
    done = docker("build", "-q", "-", stdin=(tmp_path / "c.tar").read_bytes())
    assert done.status == 0, str(done)
    assert docker.ok("run", "--rm", done.out.strip(), "cat", "/f") == "elsewhere"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM busybox\nRUN echo told; exit 3\n",
         ["told", "Dockerfile:2", ">>> RUN echo told", "exit code: 3"]),
        ("FROM busybox\nCOPY missing /\n", ["Dockerfile:2", '"/missing": not found']),
        ("FROM busybox\nRUM x\n", ["Dockerfile:2", "unknown instruction: RUM"]),
        ("FROM busybox\nRUN --mount=type=secret,id=n,required=true true\n", ["n", "not found"]),
    ],
    ids=["step", "copy", "parse", "secret"],
)  # fmt: skip
def test_failures_name_the_lines(
    text: str, said: list[str], docker: Engine, context: pathlib.Path
) -> None:
    (context / "Dockerfile").write_text(text)
    done = docker("build", "--progress=plain", str(context))
    assert done.status == 1, str(done)
    assert [words for words in said if words not in done.err] == [], done.err
    assert done.err.count("failed to solve") == 1


def test_a_build_that_is_interrupted_leaves_no_step(docker: Engine, context: pathlib.Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN sleep 4711\n")
    building = subprocess.Popen(
        [*docker.prefix, "build", str(context)], env={**os.environ, **docker.environment},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _await(lambda: _runs("sleep\x004711"))
    building.send_signal(signal.SIGINT)
    assert building.wait(30) != 0
    _await(lambda: not _runs("sleep\x004711"))


def _runs(words: str) -> bool:
    for process in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words in process.read_text(errors="replace"):
                return True
        except OSError:
            continue
    return False


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


BAKE = """
group "default" { targets = ["app", "tool"] }
target "base" { dockerfile-inline = "FROM busybox\\nRUN echo b > /base\\nENV B=1\\n" }
target "app" {
  contexts = { base = "target:base" }
  dockerfile-inline = "FROM base\\nRUN test $(cat /base)$B = b1\\nCMD cat /base\\n"
  tags = ["bk/app"]
}
target "tool" {
  dockerfile-inline = "FROM busybox\\nCOPY --chmod=755 sub /sub\\n"
  tags = ["bk/tool"]
}
"""


def test_bake_builds_linked_targets(docker: Engine, context: pathlib.Path) -> None:
    (context / "docker-bake.hcl").write_text(BAKE)
    done = subprocess.run(
        [*docker.prefix, "buildx", "bake", "--progress=plain"], cwd=context, check=False,
        capture_output=True, text=True, env={**os.environ, **docker.environment}, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert docker.ok("run", "--rm", "bk/app") == "b"
    assert "same" in docker.ok("run", "--rm", "bk/tool", "ls", "/sub")


COMPOSE = """
services:
  web:
    build:
      context: .
      dockerfile_inline: |
        FROM busybox
        ARG WORD
        RUN --mount=type=secret,id=word echo "$$WORD $$(cat /run/secrets/word)" > /said
      args: {WORD: said}
      secrets: [word]
    command: cat /said
secrets:
  word: {file: ./word}
"""


def test_compose_builds(docker: Engine, context: pathlib.Path) -> None:
    if docker("compose", "version").status:
        pytest.skip("docker compose is not installed (Debian: docker-compose)")
    (context / "compose.yaml").write_text(COMPOSE)
    (context / "word").write_text("quietly")
    project = ("compose", "-f", str(context / "compose.yaml"), "-p", "bkproject")
    try:
        done = docker(*project, "build", timeout=100)
        assert done.status == 0, str(done)
        assert docker.ok(*project, "run", "--rm", "web").splitlines()[-1] == "said quietly"
    finally:
        docker(*project, "down", "-t", "0")


def test_the_cache_is_shown_and_pruned(docker: Engine, context: pathlib.Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo to be pruned > /p\n")
    _build(docker, context)
    shown = docker.ok("buildx", "du", "--verbose")
    assert "RUN echo to be pruned > /p" in shown
    assert "Total:" in docker.ok("buildx", "prune", "-af", "--filter", "until=10h")
    assert "to be pruned" in docker.ok("buildx", "du", "--verbose")
    assert "Total:" in docker.ok("buildx", "prune", "-af")
    assert "to be pruned" not in docker.ok("buildx", "du", "--verbose")
    told = docker.ok("buildx", "inspect")
    assert re.search(r"^Driver: +docker$", told, re.MULTILINE)
    assert "linux/" in told


def test_a_dockerfile_is_checked(docker: Engine, context: pathlib.Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox as One\nRUN false\n")
    environment = {**docker.environment, "BUILDX_EXPERIMENTAL": "1"}
    asking = Engine("served", docker.prefix, environment)
    new = "--call=check" if "--call" in asking.ok("buildx", "build", "--help") else "--print=lint"
    done = asking("buildx", "build", new, str(context))
    assert "FromAsCasing" in done.out, str(done)
