"""A program in C and a wheel in Python, built with Debian's packages: as docker and buildah do."""

import pathlib

import pytest

from tests.support import built, images
from tests.support.commands import Engine

pytestmark = pytest.mark.timeout(900)

TOOLS = r"""FROM debian
RUN rm -f /etc/apt/apt.conf.d/docker-clean
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends \
        gcc libc6-dev python3-pip python3-setuptools python3-wheel && \
    rm -r /usr/share/doc /usr/share/locale /usr/share/man
"""

DOCKERFILE = r"""FROM tools AS compiled
WORKDIR /src
COPY main.c .
RUN gcc -static -o /main main.c

FROM tools AS wheel
# What a wheel's members have for their times.
ENV SOURCE_DATE_EPOCH=1700000000
COPY pyproject.toml greeting.py /src/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --no-build-isolation --no-index -w /wheels /src

FROM scratch AS program
COPY --from=compiled /main /main
ENTRYPOINT ["/main"]

FROM tools AS installed
# Compiled modules tell when their sources were written.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-compile --break-system-packages --no-index /wheels/*.whl
USER nobody
CMD ["python3", "-c", "import greeting; print(greeting.greet())"]

FROM scratch AS packages
COPY --from=installed /usr/local/ /
"""
PROJECT = """[project]
name = "greeting"
version = "1.0"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
"""

# Limits that docker's own defaults exceed where a container's root may not raise them.
_LIMITED = ["--ulimit", "nofile=1024:1024"]


def test_programs(
    ketch: Engine, docker_engine: Engine, podman_engine: Engine, tmp_path: pathlib.Path
) -> None:
    if not images.packages_reachable():
        pytest.skip("Debian's packages cannot be fetched from here")
    if "debian" not in ketch.ok("images"):
        ketch.ok("import", str(images.debian_archive()), "debian", timeout=120)
    context = tmp_path / "context"
    context.mkdir()
    for name, text in (
        ("tools", TOOLS), ("Dockerfile", DOCKERFILE), ("pyproject.toml", PROJECT),
        ("main.c", '#include <stdio.h>\nint main(void) { puts("hello from C"); }'),
        ("greeting.py", 'def greet(): return "hello from a wheel"\n'),
    ):  # fmt: skip
        (context / name).write_text(text)
    tools = ("build", "--progress", "plain", "-f", str(context / "tools"), "-t", "tools")
    ketch.ok(*tools, str(context), timeout=500)
    again = ketch(*tools, str(context))
    installed = next(line for line in again.err.splitlines() if "apt-get update" in line)
    assert f"{installed.partition(' ')[0]} CACHED" in again.err
    # They stayed in the cache mount.
    assert "Packages" not in ketch.ok("run", "--rm", "tools", "ls", "/var/lib/apt/lists")
    archive = tmp_path / "tools.tar"
    ketch.ok("save", "-o", str(archive), "tools", timeout=100)
    for engine in (docker_engine, podman_engine):  # installed once, for all
        engine.ok("load", "-i", str(archive), timeout=300)
    archive.unlink()
    for target, said in (("program", "hello from C"), ("installed", "hello from a wheel")):
        ketch.ok("build", "--target", target, "-q", "-t", target, str(context), timeout=300)
        assert ketch.ok("run", "--rm", target) == said
        ketch.ok("rmi", target)
    for target in ("program", "packages"):
        found = {}
        for engine in (ketch, docker_engine, podman_engine):
            words = ["--target", target, "-q", "-t", target, str(context)]
            words += [] if engine is ketch else _LIMITED
            words += [] if engine is podman_engine else ["--provenance=false"]
            engine.ok("build", *words, timeout=300)
            found[engine.name] = built.image(engine, target, tmp_path)
            engine.ok("rmi", target)
        assert found["ketch"] == found["docker"]
        assert built.files(found["ketch"]) == built.files(found["podman"])
    for engine in (ketch, docker_engine, podman_engine):
        engine.ok("rmi", "-f", "tools")
