"""The installed ketch, as the end-to-end tests have it, and what attacks it."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest

# Fixtures, by their names.
from tests.e2e.conftest import ketch, root_engine, scratch  # noqa: F401
from tests.e2e.rootless.conftest import user  # noqa: F401
from tests.security.hostile import make_image
from tests.support.archives import SYMLINK, member
from tests.support.commands import Engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every attack needs root on the host, which is what it tries to get at.

    It is played on root's engine and, unless it says why not, on an ordinary user's.
    """
    for item in items:
        if pathlib.Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.root)
        marker = item.get_closest_marker("root_engine")
        called = getattr(item, "callspec", None)
        if marker is None or called is None or called.params.get("ketch_engine") != "user":
            continue
        if marker.kwargs.get("of", "") in called.id:
            item.add_marker(pytest.mark.skip(reason=marker.args[0]))


@pytest.fixture(scope="session", params=["root", "user"])
def ketch_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return root's engine, then an ordinary user's, for tests that can hold for one."""
    if request.param == "root":
        yield request.getfixturevalue("root_engine")
        return
    yield request.getfixturevalue("user").ketch


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, run_name: str) -> Iterator[pathlib.Path]:
    """Return a directory that is whose the engine is: pytest's are closed to all but root."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{run_name}-"))
    try:
        if "ketch_engine" in request.fixturenames:
            engine = request.getfixturevalue("ketch_engine")
            if engine.prefix[0] == "nsenter":
                own = request.getfixturevalue("user")
                os.chown(directory, own.uid, own.uid)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def attacker(ketch_engine: Engine) -> str:
    """Return the name of an image that runs the host's Python, when that is bound into it."""
    links = [member(name, SYMLINK, link=b"usr/" + name, mode=0o777) for name in (b"lib", b"lib64")]
    return make_image(ketch_engine, "attacker", *links)


@pytest.fixture
def shared(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a directory of the host that containers of the test share as a volume."""
    directory = tmp_path / "shared"
    directory.mkdir()
    return directory
