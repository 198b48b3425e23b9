"""Builds of many steps, many stages and many files, beside docker's and buildah's."""

import pathlib
from collections.abc import Callable

import pytest

from tests.support import built
from tests.support.commands import Engine

pytestmark = pytest.mark.timeout(600)

Make = Callable[[pathlib.Path], str]

# Limits that docker's own defaults exceed where a container's root may not raise them.
_LIMITED = ["--ulimit", "nofile=1024:1024"]

STEPS, STAGES, FILES = 200, 30, 10_000


def steps(directory: pathlib.Path) -> str:
    """Write files in steps of which every eighth runs a program."""
    (directory / "file").write_text("copied")
    return "FROM busybox\n" + "".join(
        f"RUN echo {number} >> /log\n" if number % 8 == 0 else f"COPY file /files/{number}\n"
        for number in range(STEPS)
    )


def stages(_: pathlib.Path) -> str:
    """Make stages that know nothing of each other, and one of all of them."""
    apart = "".join(
        f"FROM busybox AS s{number}\nRUN mkdir /out && echo {number} > /out/{number}\n"
        for number in range(STAGES)
    )
    copies = "".join(f"COPY --from=s{number} /out /all\n" for number in range(STAGES))
    return f"{apart}FROM scratch\n{copies}"


def files(directory: pathlib.Path) -> str:
    """Copy many small files, and take some of them away again."""
    for number in range(FILES):
        place = directory / "files" / str(number // 100)
        place.mkdir(parents=True, exist_ok=True)
        (place / str(number)).write_text(f"{number}\n")
    return "FROM busybox\nCOPY files /files/\nRUN rm -r /files/7 && chown -R 5:6 /files/8\n"


def test_two_hundred_steps(ketch: Engine, tmp_path: pathlib.Path) -> None:
    # Docker's driver stacks no more than 125 layers, and buildah takes a second for each step.
    (tmp_path / "Dockerfile").write_text(steps(tmp_path))
    ketch.ok("build", "-q", "-t", "steps", str(tmp_path), timeout=300)
    found = built.image(ketch, "steps", tmp_path)
    assert len(found["layers"]) == STEPS + 1
    log = ketch.ok("run", "--rm", "steps", "cat", "/log").split()
    assert log == [str(number) for number in range(0, STEPS, 8)]
    assert sum(name.startswith("files/") for name in built.files(found)) == STEPS - len(log)
    again = ketch("build", "--progress", "plain", "-t", "steps", str(tmp_path), timeout=100)
    assert again.err.count(" CACHED\n") == STEPS + 1
    ketch.ok("rmi", "steps")


@pytest.mark.parametrize("make", [stages, files])
def test_the_files_are_the_same(
    ketch: Engine, docker_engine: Engine, podman_engine: Engine, make: Make, tmp_path: pathlib.Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(make(context))
    found = {}
    for engine in (ketch, docker_engine, podman_engine):
        limited = [] if engine is ketch else _LIMITED
        flags = ["--provenance=false"] if engine is not podman_engine else []
        name = f"many-{make.__name__}"
        engine.ok("build", *flags, *limited, "-q", "-t", name, str(context), timeout=500)
        found[engine.name] = built.files(built.image(engine, name, tmp_path))
        engine.ok("rmi", name)
    ours = found.pop("ketch")
    assert len(ours) > {"stages": STAGES, "files": FILES - 100}[make.__name__]
    for name, theirs in found.items():
        # What they mount a step's /etc and /run with leaves marks there.
        theirs = {path: what for path, what in theirs.items() if path in ours or path not in _MARKS}  # noqa: PLW2901
        assert ours == theirs, name


_MARKS = {"etc", "run", "dev", "proc", "sys", "etc/hosts", "etc/resolv.conf", "etc/hostname"}
