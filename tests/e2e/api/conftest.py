"""A server on the engine of this run, and clients that speak to it."""

import pathlib
from collections.abc import Callable, Iterator

import docker  # type: ignore[import-untyped]
import pytest

from tests.support import serving
from tests.support.commands import Engine


@pytest.fixture
def socket(served_engine: Engine) -> pathlib.Path:
    """Return the server's socket."""
    return pathlib.Path(served_engine.prefix[2].removeprefix("unix://"))


@pytest.fixture
def ask(socket: pathlib.Path, ketch: Engine) -> Callable[..., tuple[int, bytes]]:
    """Return what asks the server; the test must take away what it starts."""
    return lambda *given, **named: serving.Connection(socket).ask(*given, **named)


@pytest.fixture
def client(socket: pathlib.Path, ketch: Engine) -> Iterator[docker.DockerClient]:
    """Return docker-py, speaking to the server."""
    found = docker.DockerClient(base_url=f"unix://{socket}", version="auto", timeout=60)
    yield found
    found.close()
