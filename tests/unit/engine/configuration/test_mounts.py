from pathlib import Path

import pytest

from ketch.engine.configuration import mounts
from ketch.errors import InvalidArgumentError
from ketch.spec import mounts as options
from ketch.spec.mount_flag import mount


def test_only_v_makes_a_missing_source(tmp_path: Path) -> None:
    source = tmp_path / "a" / "b"
    strict = mount(f"type=bind,src={source},dst=/x")
    with pytest.raises(InvalidArgumentError) as caught:
        mounts.check_sources([strict])
    assert caught.value.message == (
        f'invalid mount config for type "bind": bind source path does not exist: {source}'
    )
    made = options.bind(f"{source}:/x")
    mounts.check_sources([made])
    assert not source.exists()
    mounts.prepare_sources([made])
    assert source.is_dir()
    mounts.check_sources([strict])


def test_a_source_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgumentError, match="error while creating mount source path"):
        mounts.prepare_sources([options.bind(f"{tmp_path}/file/below:/x")])


def test_a_file_stays_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mounts.prepare_sources([options.bind(f"{tmp_path}/file:/x")])
    assert (tmp_path / "file").is_file()


@pytest.mark.parametrize(
    ("tags", "mode", "reason"),
    [
        ("", "rshared", "a shared mount"),
        ("master:1", "shared", "a shared mount"),
        ("", "rslave", "a shared or slave mount"),
        ("shared:1", "rshared", ""),
        ("shared:1", "slave", ""),
        ("master:1", "slave", ""),
    ],
)
def test_propagation_needs_a_mount_that_has_it(
    tags: str, mode: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_mount_of", lambda path: ("/", tags.split()))
    bind = options.bind(f"{tmp_path}:/x:{mode}")
    if not reason:
        mounts.prepare_sources([bind])
        return
    with pytest.raises(InvalidArgumentError) as caught:
        mounts.prepare_sources([bind])
    assert caught.value.message == f"path {tmp_path} is mounted on / but it is not {reason}"


def test_the_mount_of_a_path_is_the_nearest_one() -> None:
    assert mounts._mount_of("/proc/self/status")[0] == "/proc"


def test_an_owners_files_appear_as_the_users_own() -> None:
    def appears(owner: int, user: int) -> dict[int, int]:
        maps = list(mounts._swapped(owner, user))
        return {
            number: entry["hostID"] + number - entry["containerID"]
            for number in (0, 1, 999, 1000, 1001, (1 << 32) - 2)
            for entry in maps
            if entry["containerID"] <= number < entry["containerID"] + entry["size"]
        }

    last = (1 << 32) - 2
    # Whoever is 1000 inside has no number on the disk, least of all root's.
    assert appears(1000, 0) == {1: 1, 999: 999, 1000: 0, 1001: 1001, last: last}
    assert appears(0, 1000) == {0: 1000, 1: 1, 999: 999, 1001: 1001, last: last}
    assert appears(1, 0) == {1: 0, 999: 999, 1000: 1000, 1001: 1001, last: last}
