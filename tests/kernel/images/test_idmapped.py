"""Mounts whose ids are mapped: what cannot be, and why."""

import errno
import os
from pathlib import Path

import pytest

from ketch.errors import SyscallError, UnsupportedError
from ketch.images import idmapped
from ketch.linux.scopes import owned
from tests.support.descriptors import open_now

pytestmark = pytest.mark.root


def test_only_a_file_system_that_cannot_is_said_to_be_at_fault(tmp_path: Path) -> None:
    before = len(open_now())
    with (
        owned(os.open("/proc/self/ns/user", os.O_RDONLY)) as own,
        pytest.raises(SyscallError) as refused,
    ):
        idmapped.clone(str(tmp_path), own)  # the host's own ids are no mapping
    assert refused.value.errno == errno.EPERM
    with owned(os.open("/dev/null", os.O_RDONLY)) as none, pytest.raises(UnsupportedError):
        idmapped.clone("/proc", none)
    assert len(os.listdir("/proc/self/fd")) == before
