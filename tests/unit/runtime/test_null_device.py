"""What is handed to containers as the null device is that one (CVE-2025-31133)."""

import os
import pathlib

import pytest

from ketch.errors import UnavailableError
from ketch.runtime import null_device


def test_only_the_null_device_is_taken_for_it(tmp_path: pathlib.Path) -> None:
    null_device._check(os.stat("/dev/null"))
    (tmp_path / "null").touch()
    for other in ("/dev/zero", "/dev", str(tmp_path / "null")):
        with pytest.raises(UnavailableError, match="is not the null device"):
            null_device._check(os.stat(other))
