"""Docker, which the tests with the fixture ``engine`` are held against."""

import shutil

import pytest

from tests.support.commands import Engine


@pytest.mark.skipif(
    not shutil.which("dockerd"),
    reason="docker is not installed (make peers): the end-to-end tests ask ketch alone",
)
def test_docker_is_docker(docker_engine: Engine) -> None:
    assert docker_engine.ok("run", "--rm", "busybox", "echo", "hello") == "hello"
