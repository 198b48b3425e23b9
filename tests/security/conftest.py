"""The installed ketch, as the end-to-end tests have it, and what attacks it."""

import pathlib

import pytest

from tests.e2e.conftest import ketch, ketch_engine, scratch  # noqa: F401 - fixtures by their names
from tests.security.hostile import make_image
from tests.support.archives import SYMLINK, member
from tests.support.commands import Engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every attack needs root on the host, which is what it tries to get at."""
    for item in items:
        if pathlib.Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def attacker(ketch_engine: Engine) -> str:  # noqa: F811
    """Return the name of an image that runs the host's Python, when that is bound into it."""
    links = [member(name, SYMLINK, link=b"usr/" + name, mode=0o777) for name in (b"lib", b"lib64")]
    return make_image(ketch_engine, "attacker", *links)


@pytest.fixture
def shared(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a directory of the host that containers of the test share as a volume."""
    directory = tmp_path / "shared"
    directory.mkdir()
    return directory
