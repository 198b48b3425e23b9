import gc
import pathlib

import pytest

from tests.kernel.runtime.bundles import Bundle


@pytest.fixture
def bundle(tmp_path: pathlib.Path) -> Bundle:
    """A bundle whose path the root of a user namespace may go along."""
    gc.collect()  # a container begins with our descriptors, and may be allowed a few only
    for directory in (tmp_path, *tmp_path.parents):
        # A worker has a directory of its own in the run's.
        if directory.stat().st_uid == 0 and directory.name.startswith(("pytest-", "popen-")):
            directory.chmod(0o755)
    tmp_path.chmod(0o755)
    return Bundle(tmp_path)
