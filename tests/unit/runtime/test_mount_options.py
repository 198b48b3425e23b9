from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.linux import mount
from ketch.runtime.mount_options import MountOptions
from ketch.runtime.mounts import MountOperation

ATTRIBUTES = {
    "ro": "rw", "nosuid": "suid", "nodev": "dev", "noexec": "exec", "nodiratime": "diratime",
    "nosymfollow": "symfollow", "noatime": "atime",
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "to_set", "to_clear"),
    [
        (["ro"], mount.MOUNT_ATTR_RDONLY, 0),
        (["rw"], 0, mount.MOUNT_ATTR_RDONLY),
        (["ro", "rw"], 0, mount.MOUNT_ATTR_RDONLY),
        (["rw", "ro"], mount.MOUNT_ATTR_RDONLY, 0),
        (["nosuid", "nodev"], mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV, 0),
        (["noatime"], mount.MOUNT_ATTR_NOATIME, mount.MOUNT_ATTR__ATIME),
        (["noatime", "strictatime"], mount.MOUNT_ATTR_STRICTATIME, mount.MOUNT_ATTR__ATIME),
        (["relatime"], 0, mount.MOUNT_ATTR__ATIME),
        (["defaults", ""], 0, 0),
    ],
)
def test_attributes(options: list[str], to_set: int, to_clear: int) -> None:
    parsed = MountOptions(options)
    times = mount.MOUNT_ATTR__ATIME | mount.MOUNT_ATTR_NODIRATIME
    assert parsed.set_attributes == to_set
    assert parsed.clear_attributes & ~times == to_clear & ~times
    recursive = MountOptions([f"r{option}" for option in options if option not in {"defaults", ""}])
    assert (recursive.set_recursive, recursive.clear_recursive) == (to_set, to_clear)
    assert (recursive.set_attributes, recursive.clear_attributes) == (0, 0)


ALL = (
    mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
    | mount.MOUNT_ATTR_NOEXEC | mount.MOUNT_ATTR_NOSYMFOLLOW
)  # fmt: skip
TIMES = mount.MOUNT_ATTR__ATIME | mount.MOUNT_ATTR_NODIRATIME


@pytest.mark.parametrize("how", ["bind", "remount"])
@pytest.mark.parametrize(
    ("options", "to_set", "to_clear"),
    [
        ([], 0, 0),
        (["rprivate"], 0, 0),
        (["rro"], 0, 0),
        (["nosuid", "nodev"], mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV,
         ALL & ~mount.MOUNT_ATTR_NOSUID & ~mount.MOUNT_ATTR_NODEV),
        (["acl", "defaults", "nobind"], 0, 0),
        *(([flag], 0, ALL) for flag in (
            "sync", "async", "dirsync", "iversion", "noiversion", "silent", "loud", "mand",
            "nomand", "lazytime", "nolazytime")),
        (["rw"], 0, ALL),
        (["exec"], 0, ALL),
        (["atime"], 0, ALL),
        (["norelatime"], 0, ALL),
        (["noatime", "atime"], 0, ALL),
        (["relatime"], 0, ALL | TIMES),
        (["noatime"], mount.MOUNT_ATTR_NOATIME, ALL | TIMES),
        (["nodiratime"], mount.MOUNT_ATTR_NODIRATIME, ALL | mount.MOUNT_ATTR__ATIME),
        (["strictatime", "relatime"], mount.MOUNT_ATTR_STRICTATIME, ALL | TIMES),
    ],
)  # fmt: skip
def test_a_bind_has_what_was_named_and_no_more(
    how: str, options: list[str], to_set: int, to_clear: int
) -> None:
    parsed = MountOptions([how, *options])
    assert (parsed.set_attributes, parsed.clear_attributes) == (to_set, to_clear)
    if how == "bind":
        parsed.keep_locked()
        assert parsed.clear_attributes == to_clear & ~(ALL & ~mount.MOUNT_ATTR_NOSYMFOLLOW)


@given(st.lists(st.sampled_from([*ATTRIBUTES, *ATTRIBUTES.values()])))
def test_the_last_word_on_an_attribute_wins(options: list[str]) -> None:
    parsed = MountOptions(options)
    for option, opposite in ATTRIBUTES.items():
        bits = MountOptions([option]).set_attributes
        said = [word for word in options if word in (option, opposite)]
        assert bool(parsed.set_attributes & bits) == (bool(said) and said[-1] == option)
        # mount_setattr(2) refuses a bit on both sides, but for the access times' own field.
        overlap = parsed.set_attributes & parsed.clear_attributes
        assert overlap & ~mount.MOUNT_ATTR__ATIME == 0


@given(st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1)))
def test_every_other_word_is_the_file_system_s(options: list[str]) -> None:
    known = MountOptions(options)
    assert [word for word in options if word in known.data] == known.data


def test_binds_propagation_and_ids() -> None:
    parsed = MountOptions(["rbind", "rprivate", "slave", "idmap"])
    assert parsed.bind
    assert parsed.recursive_bind
    assert parsed.propagation == [(mount.MS_PRIVATE, True), (mount.MS_SLAVE, False)]
    assert parsed.id_map == "idmap"
    assert not MountOptions(["bind"]).recursive_bind
    assert MountOptions(["ridmap"]).id_map == "ridmap"
    assert MountOptions(["tmpcopyup", "size=3"]).copy_up


def test_what_binds_cannot_change_is_passed_over() -> None:
    assert MountOptions(["bind", "sync", "lazytime", "mand"]).data == []
    assert MountOptions(["sync", "lazytime"]).data == ["sync", "lazytime"]


def test_type_bind_binds_all_below() -> None:
    operation = MountOperation({"destination": "/x", "source": "/y", "type": "bind"}, "mounts[0]")
    assert operation.options.recursive_bind
    assert (
        operation.describe().words == "bind /y to /x · open_tree(2) OPEN_TREE_CLONE, move_mount(2)"
    )


def test_maps_of_a_mount_mean_idmap() -> None:
    ids = [{"containerID": 0, "hostID": 7, "size": 1}]
    operation = MountOperation(
        {"destination": "/x", "source": "/y", "options": ["bind"], "uidMappings": ids,  # type: ignore[typeddict-item]
         "gidMappings": ids},  # type: ignore[typeddict-item]
        "mounts[0]",
    )  # fmt: skip
    assert operation.options.id_map == "idmap"
    assert "ids mapped" in operation.describe().words


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (["remount", "size=1m"], "tmpfs", "unknown for a remounted mount: size=1m"),
        ([], "", r"mounts\[4\]\.type: missing"),
    ],
)
def test_what_makes_no_sense_is_named(options: list[str], kind: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        MountOperation({"destination": "/x", "type": kind, "options": options}, "mounts[4]")


def test_a_bind_is_made_without_what_it_does_not_know_and_says_so() -> None:
    entry: Any = {"destination": "/x", "source": "/y", "options": ["rbind", "ro", "size=1m"]}
    operation = MountOperation(entry, "mounts[4]")
    assert operation.warning == "mounts[4].options: mean nothing to a bind mount: size=1m"
