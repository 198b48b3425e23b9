import os
from pathlib import Path

import pytest

from ketch.engine.configuration import selinux
from ketch.errors import InvalidArgumentError


def test_what_is_in_a_directory_gets_the_label_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled: dict[str, bytes] = {}

    def record(path: str, name: str, value: bytes, *, follow_symlinks: bool) -> None:
        assert name == "security.selinux"
        assert not follow_symlinks
        labelled[os.path.relpath(path, tmp_path)] = value

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
