import os
from pathlib import Path

import pytest

from ketch.engine.configuration import selinux
from ketch.errors import InvalidArgumentError


def test_what_is_in_a_directory_gets_the_label_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled: dict[str, bytes] = {}

    def record(path: bytes, name: str, value: bytes) -> None:
        assert name == "security.selinux"
        assert path.startswith(b"/proc/self/fd/")  # the link is labelled itself
        labelled[os.path.relpath(os.fsdecode(os.readlink(path)), tmp_path)] = value

    monkeypatch.setattr(os, "setxattr", record)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    (tmp_path / "a" / "link").symlink_to("/etc")
    (tmp_path / "beside").touch()
    selinux.relabel(str(tmp_path / "a"))
    assert set(labelled) == {"a", "a/b", "a/b/file", "a/link"}
    assert set(labelled.values()) == {b"system_u:object_r:container_file_t:s0\0"}


@pytest.mark.parametrize("path", ["/", "/usr", "/etc/../etc"])
def test_the_host_is_not_relabelled(path: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is not allowed"):
        selinux.relabel(path)
