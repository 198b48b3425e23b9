"""openat2(2): what the kernel would misread is not shown to it."""

import errno
import os
import pathlib

import pytest

from ketch.errors import SyscallError
from ketch.linux.openat2 import openat2
from ketch.linux.scopes import owned


def test_a_name_with_a_nul_is_no_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").touch()
    with owned(os.open(tmp_path, os.O_PATH)) as directory:
        with pytest.raises(SyscallError) as caught:
            openat2(directory, "a\0b", os.O_PATH)
        assert caught.value.errno == errno.EINVAL
        os.close(openat2(directory, "a", os.O_PATH))
