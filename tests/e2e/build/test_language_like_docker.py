"""Dockerfiles as ``ketch.spec.dockerfile`` reads them, and as BuildKit in dockerd does."""

import io
import json
import os
import pathlib
import random
import subprocess
import tarfile

import pytest

from ketch.spec.dockerfile import parsing, stages
from ketch.spec.dockerfile.errors import DockerfileError, report
from ketch.spec.dockerfile.expansion import Expander
from ketch.spec.dockerfile.instructions import Copy, Env, Instruction, Label, expand
from ketch.spec.ignore_patterns import IgnorePatterns, read
from tests.support.commands import Engine

ENVIRONMENT = {
    "name": "value", "empty": "", "path": "/usr/local/lib/x.tar.gz", "spaced": "two  words",
    "letters": "aXbXc",
}  # fmt: skip
HEAD = "FROM scratch\n" + "".join(f'ENV {name}="{value}"\n' for name, value in ENVIRONMENT.items())
PIECES = [
    "$name", "${name}", "$missing", "${missing:-", "${empty:-", "${name:+", "${empty:+",
    "${missing:?", "${name#v", "${path##*/", "${path%.", "${path%%.*}", "${letters/X/",
    "${letters//X/", "}", "}", "}", "a", "/", "*", "?", " ", "\\", "'", '"', "\\ ", "\\$", "$", "é",
    "{", "-", "=", ":", "#", "%", "$1", "[x]", '\\"', "\\\\", "${path%/*}",
]  # fmt: skip


@pytest.fixture(scope="module")
def docker(docker_engine: Engine) -> Engine:
    """Return docker with its buildx."""
    if docker_engine("buildx", "version").status:
        pytest.skip("buildx is not installed")
    return docker_engine


def evaluated(text: str) -> list[Instruction]:
    """The instructions of the first stage, with variables."""
    found = stages.read(parsing.parse(text.encode()))
    environment = dict(ENVIRONMENT)
    done = []
    for instruction in found.stages[0].instructions:
        try:
            done.append(expand(instruction, Expander(environment, found.dockerfile.escape)))
        except DockerfileError as error:
            error.at(source=found.dockerfile.source)
            raise
        if isinstance(done[-1], Env):
            environment |= {pair.name: pair.value for pair in done[-1].pairs}
    return done


def labels(text: str) -> dict[str, str]:
    found = [each for each in evaluated(text) if isinstance(each, Label)]
    return {pair.name: pair.value for label in found for pair in label.pairs}


def exported(docker: Engine, directory: pathlib.Path, text: str) -> dict[str, bytes | None]:
    """The files that docker makes of a Dockerfile, with their content; None for directories."""
    (directory / "Dockerfile").write_text(text)
    words = [*docker.prefix, "build", "-q", "--output", "type=tar,dest=-", str(directory)]
    environment = {**os.environ, **docker.environment}
    done = subprocess.run(words, env=environment, check=True, capture_output=True)
    archive = tarfile.open(fileobj=io.BytesIO(done.stdout))
    found: dict[str, bytes | None] = {}
    for member in archive:
        stream = archive.extractfile(member)
        found[member.name.rstrip("/")] = stream.read() if stream else None
    return found


def test_words_come_to_the_same(docker: Engine, tmp_path: pathlib.Path) -> None:
    chance = random.Random(20)
    lines: list[str] = []
    while len(lines) < 200:
        word = "".join(chance.choices(PIECES, k=chance.randint(1, 8)))
        line = f"LABEL l{len(lines)}={word}\n"
        # A backslash at the end goes on in the next line; docker 26 panics at an empty pattern.
        if word.rstrip().endswith("\\") or any(f"{sign}}}" in word for sign in "#%"):
            continue
        try:
            labels(HEAD + line)
        except DockerfileError:
            continue
        lines.append(line)
    text = HEAD + "".join(lines)
    (tmp_path / "Dockerfile").write_text(text)
    docker.ok("build", "-q", "-t", "words", str(tmp_path))
    there = json.loads(docker.ok("inspect", "words"))[0]["Config"]["Labels"]
    docker.ok("rmi", "words")
    assert labels(text) == there


@pytest.mark.parametrize(
    "text",
    [
        "FRM a\n",
        "FROM a AS 1b\n",
        "FROM scratch\nCOPY a\n",
        "FROM scratch\nCOPY a <<b\nb\n",
        "FROM scratch\nHEALTHCHECK --retries=x CMD a\n",
        "FROM scratch\nONBUILD ONBUILD RUN a\n",
        "FROM scratch\nENV b=c d\n",
        "FROM scratch\nCOPY <<E /b\nx\n",
        "FROM scratch\nRUN x\nRUN y \\\n\n # z\n z\nBAD q\nRUN x\nRUN y\nRUN z\n",
        "FROM scratch\nWORKDIR \\\n  ${x:?is needed}\n",
        "FROM scratch\nRUN --mount=type=cach,target=/x x\n",
        "RUN a\n",
    ],
)
def test_refusals_are_shown_alike(docker: Engine, tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    done = docker("build", "-q", str(tmp_path))
    assert done.status == 1
    with pytest.raises(DockerfileError) as caught:
        evaluated(text)
    assert report(caught.value, "ERROR: failed to solve: ").strip() == done.err.strip()


def test_heredocs_come_to_the_same(docker: Engine, tmp_path: pathlib.Path) -> None:
    text = HEAD + (
        "COPY <<A <<'B' <<\"C\" <<-D <<-'E' /o/\n"
        "$name '$empty' \"${missing:-x y}\" \\$name \\\\ ${letters//X/-} `é`\nA\n"
        "$name \\$name\nB\n\n\nC\n\t\t$path\n\t\tD\n\tx\n \tE\n\tE\n"
    )
    files = {
        name: body for name, body in exported(docker, tmp_path, text).items() if body is not None
    }
    (copy,) = (each for each in evaluated(text) if isinstance(each, Copy))
    assert {f"o/{each.name}": each.text.encode() for each in copy.contents} == files


@pytest.mark.parametrize(
    "patterns",
    [
        ["*", "!a/b", "!d/**/a.o"],
        ["**/b", "!d/b/b", "*.o", "/d/a/"],
        ["d/*/[ab]", "!d/a/a/ab", "**/?*.o"],
        ["d", "!d/a*", "d/ab/b", "x\\ y", ".h"],
        ["d/**", "!**/ab", "a**"],
    ],
)
def test_the_same_is_ignored(docker: Engine, tmp_path: pathlib.Path, patterns: list[str]) -> None:
    names = ("a", "b", "ab", "a.o", "x y", ".h")
    for name in names:
        for inner in names[:4]:
            (tmp_path / "d" / name / inner).mkdir(parents=True)
            for file in names[:4]:
                (tmp_path / "d" / name / inner / file).touch()
        (tmp_path / name).mkdir()
        (tmp_path / name / "b").touch()
    content = "\n".join(patterns)
    (tmp_path / ".dockerignore").write_text(content)
    there = set(exported(docker, tmp_path, "FROM scratch\nCOPY . /\n"))
    matcher = IgnorePatterns(read(content.encode()))
    assert left(matcher, tmp_path) == there


def left(
    matcher: IgnorePatterns,
    root: pathlib.Path,
    directory: str = "",
    state: tuple[bool, ...] | None = None,
) -> set[str]:
    """What patterns leave, to one who walks and does not go where nothing can be left."""
    found: set[str] = set()
    for name in os.listdir(root / directory):
        path = f"{directory}/{name}".lstrip("/")
        ignored, inner = matcher.step(path, state)
        if not (root / path).is_dir():
            found |= set() if ignored else {path}
        elif not ignored or matcher.may_except_beneath(path):
            below = left(matcher, root, path, inner)
            found |= below | ({path} if below or not ignored else set())
    return found
