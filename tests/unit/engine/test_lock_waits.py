"""What somebody else keeps locked is waited for, but not without end; then there is a reason."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from ketch.build import place
from ketch.engine import resetting
from ketch.engine.files import at_rest, shared_root
from ketch.engine.requests import launch
from ketch.engine.settings import Settings
from ketch.engine.volumes import mounts
from ketch.errors import UnavailableError

_HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[2], os.O_RDWR if os.path.isfile(sys.argv[2]) else os.O_RDONLY)
getattr(fcntl, sys.argv[1])(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: pathlib.Path, lock: str = "flock") -> Iterator[None]:
    """Have another process hold a lock."""
    command = [sys.executable, "-c", _HOLD, lock, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.stdin.close()


def _start_service(state: pathlib.Path) -> None:
    directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        launch._start(str(state), directory, "zygote-x", [], 1)
    finally:
        os.close(directory)


def _reset(state: pathlib.Path) -> None:
    with ExitStack() as stack:
        resetting._lock_services(str(state), stack)


def _within(block: Callable[[pathlib.Path], AbstractContextManager[object]]) -> Callable[..., None]:
    def use(path: pathlib.Path) -> None:
        with block(path):
            pytest.fail("it was had")

    return use


@pytest.mark.parametrize(("module", "seconds", "file", "lock", "use"), [
    (at_rest, "_STARTING_SECONDS", "", "flock", _within(lambda path: at_rest.kept(str(path)))),
    (shared_root, "_MOUNTING_SECONDS", "mounted-by", "flock",
     _within(lambda path: shared_root._holders(str(path)))),
    (place, "_CLEANING_SECONDS", "builds", "flock",
     _within(lambda path: place.opened(str(path)))),
    (mounts, "_FILLING_SECONDS", "volumes/named", "flock",
     _within(lambda path: mounts.locked_name(Settings(str(path), str(path)), "named"))),
    (launch, "_STARTING_SECONDS", "services.lock", "lockf", _start_service),
    (resetting, "_STARTING_SECONDS", "services.lock", "lockf", _reset),
], ids=["at rest", "mounting", "builds", "volume", "services", "reset"])  # fmt: skip
def test_the_wait_ends_with_a_reason(
    module: object, seconds: str, file: str, lock: str, use: Callable[[pathlib.Path], None],
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / file
    if file in {"mounted-by", "services.lock"}:
        path.touch()
    else:
        path.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(module, seconds, 0.1)
    with held(path, lock), pytest.raises(UnavailableError, match="locked by another process"):
        use(tmp_path)
