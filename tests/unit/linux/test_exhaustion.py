"""Who has no descriptor left cannot look, and says so: what he looked for is not gone for that."""

import errno
import os
import pathlib
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ketch.cgroups import absent
from ketch.engine.files import files
from ketch.engine.records import rows
from ketch.linux import beneath, descent, procfs


@contextmanager
def no_descriptors() -> Iterator[None]:
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


LOOKS: dict[str, Callable[[int], object]] = {
    "whether a process lives": lambda _: procfs.process_start_time(os.getpid()),
    "whose processes are a container's": lambda _: absent._stat(os.getpid()) is not None,
    "whether a container is paused": lambda root: rows._is_frozen(f"/proc/self/fd/{root}/frozen"),
    "what a tree takes": lambda root: descent.usage(f"/proc/self/fd/{root}"),
    "who is known in an image": lambda root: beneath.read_file(root, "passwd", 4096),
    "where a path leads": lambda root: files.evaluated(root, "/link/file"),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=list(LOOKS))
def test_what_cannot_be_looked_for_is_not_gone(
    tmp_path: pathlib.Path, look: Callable[[int], object]
) -> None:
    (tmp_path / "frozen").write_text("FROZEN\n")
    (tmp_path / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (tmp_path / "link").symlink_to("elsewhere")
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        found = look(root)
        assert found
        with no_descriptors(), pytest.raises(OSError, match="Too many open files") as failure:
            look(root)
        assert failure.value.errno == errno.EMFILE
        assert look(root) == found
    finally:
        os.close(root)
