"""An ordinary user, who has the installed ketch and nothing that root has set up for it."""

from collections.abc import Iterator

import pytest

from tests.support import images, users


@pytest.fixture(scope="session")
def user(run_name: str) -> Iterator[users.User]:
    """Return a user with subordinate ids, whose engine has the image ``busybox``."""
    yield from _with_image(run_name, subordinate_ids=True)


@pytest.fixture(scope="session")
def lone_user(run_name: str) -> Iterator[users.User]:
    """Return a user who has no id but its own, whose engine has the image ``busybox``."""
    yield from _with_image(run_name, subordinate_ids=False)


def _with_image(run_name: str, *, subordinate_ids: bool) -> Iterator[users.User]:
    archive = images.busybox_archive().read_bytes()
    with users.made(run_name, subordinate_ids=subordinate_ids) as user:
        user.ketch.ok("import", "-", "busybox", stdin=archive)
        yield user
        user.ketch("system", "reset", "--force")
