"""What holds for every test: root where it is needed, and the machine left as it was found."""

import os
import secrets
from collections.abc import Iterator

import pytest

from tests.support import leftovers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root where there is none."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root") or "/e2e/" in str(item.path):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def run_name() -> str:
    """Return the name by which this run's processes and directories can be told from others."""
    return os.environ.setdefault(leftovers.RUN_VARIABLE, f"ketch-test-{secrets.token_hex(4)}")


@pytest.fixture(scope="session", autouse=True)
def _leave_the_machine_as_it_was(run_name: str) -> Iterator[None]:
    """Compare mounts, links, rules, cgroups, processes and paths before and after the run."""
    before = leftovers.state(run_name)
    yield
    found = leftovers.left(before, run_name)
    if found:
        pytest.fail("the tests left behind:\n  " + "\n  ".join(found), pytrace=False)
