"""A program in C and a wheel in Python, built from Debian's packages with cache mounts."""

import pathlib

import pytest

from tests.support import images
from tests.support.commands import Engine

pytestmark = pytest.mark.timeout(600)

DOCKERFILE = r"""FROM debian AS tools
RUN rm -f /etc/apt/apt.conf.d/docker-clean
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends \
        gcc libc6-dev python3-pip python3-setuptools python3-wheel

FROM tools AS compiled
WORKDIR /src
COPY --link main.c .
RUN gcc -static -o /main main.c

FROM tools AS wheel
COPY <<EOF /src/pyproject.toml
[project]
name = "greeting"
version = "1.0"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
EOF
COPY <<EOF /src/greeting.py
def greet(): return "hello from a wheel"
EOF
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --no-build-isolation --no-index -w /wheels /src

FROM scratch AS program
COPY --from=compiled /main /main
ENTRYPOINT ["/main"]

FROM tools
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --break-system-packages --no-index /wheels/*.whl
USER nobody
CMD ["python3", "-c", "import greeting; print(greeting.greet())"]
"""


def test_programs(ketch: Engine, tmp_path: pathlib.Path) -> None:
    if not images.packages_reachable():
        pytest.skip("Debian's packages cannot be fetched from here")
    if "debian" not in ketch.ok("images"):
        ketch.ok("import", str(images.debian_archive()), "debian", timeout=120)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "main.c").write_text('#include <stdio.h>\nint main(void) { puts("hello from C"); }')
    ketch.ok("build", "-q", "--target", "program", "-t", "program", str(tmp_path), timeout=500)
    assert ketch.ok("run", "--rm", "program") == "hello from C"
    told = ketch("build", "--progress", "plain", "-t", "wheel", str(tmp_path), timeout=500)
    assert told.status == 0, str(told)
    installed = next(line for line in told.err.splitlines() if "apt-get update" in line)
    assert f"{installed.partition(' ')[0]} CACHED" in told.err
    assert ketch.ok("run", "--rm", "wheel") == "hello from a wheel"
    lists = ketch.ok("run", "--rm", "--entrypoint", "ls", "wheel", "/var/lib/apt/lists")
    assert "Packages" not in lists  # they stayed in the cache mount
    ketch.ok("rmi", "program", "wheel")
