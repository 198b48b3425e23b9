"""Builds' contexts."""

import pathlib
from collections.abc import Iterator

import pytest

from tests.support.contexts import Opened, opener


@pytest.fixture
def opened(tmp_path: pathlib.Path) -> Iterator[Opened]:
    """Return a function that opens a build's contexts until the test ends."""
    with opener(tmp_path) as function:
        yield function
