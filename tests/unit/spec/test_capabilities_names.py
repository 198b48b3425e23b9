import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec.capabilities import DEFAULT, NAMES, choose, mask, resolve, spelt_out, to_names

EVERY = (1 << len(NAMES)) - 1


def test_numbers_are_the_kernels() -> None:
    # Spot checks against <linux/capability.h>; the last is CAP_LAST_CAP of Linux 5.9 to 6.18.
    for name, number in (
        ("CAP_CHOWN", 0), ("CAP_KILL", 5), ("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21),
        ("CAP_MKNOD", 27), ("CAP_SYSLOG", 34), ("CAP_CHECKPOINT_RESTORE", 40),
    ):  # fmt: skip
        assert mask([name]) == 1 << number


def test_docker_default_is_fourteen() -> None:
    # The mask that a container of Docker shows in /proc/self/status.
    assert DEFAULT == 0xA80425FB
    assert len(to_names(DEFAULT)) == 14


@given(st.sets(st.sampled_from(NAMES)))
def test_names_round_trip(names: set[str]) -> None:
    assert set(to_names(mask(names))) == names


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], DEFAULT),
        (["net_admin"], [], DEFAULT | mask(["CAP_NET_ADMIN"])),
        (["CAP_SYS_PTRACE"], ["Chown"], DEFAULT & ~1 | mask(["CAP_SYS_PTRACE"])),
        (["ALL"], [], EVERY),
        (["all"], ["SYS_ADMIN"], EVERY & ~mask(["CAP_SYS_ADMIN"])),
        ([], ["ALL"], 0),
        (["NET_RAW"], ["ALL"], mask(["CAP_NET_RAW"])),
        (["ALL"], ["ALL"], EVERY),
        (["CHOWN"], ["CHOWN"], DEFAULT),
    ],
)
def test_choose_as_docker(add: list[str], drop: list[str], expected: int) -> None:
    assert choose(add, drop, EVERY) == expected


def test_a_command_line_s_names_are_spelt_out() -> None:
    given = ["net_admin", "CAP_sys_time", " chown ", "NET_ADMIN", "all", "bogus"]
    assert spelt_out(given) == ["ALL", "CAP_BOGUS", "CAP_CHOWN", "CAP_NET_ADMIN", "CAP_SYS_TIME"]


def test_unknown_and_unavailable_are_refused_in_dockers_words() -> None:
    with pytest.raises(InvalidArgumentError, match=r'^invalid CapAdd: unknown .* "CAP_BOGUS"$'):
        choose(["bogus"], [], EVERY)
    with pytest.raises(InvalidArgumentError, match=r"^invalid CapDrop: unknown capability"):
        choose([], [""], EVERY)
    with pytest.raises(InvalidArgumentError, match="not supported by your kernel or not available"):
        choose(["SYS_RESOURCE"], [], EVERY & ~mask(["CAP_SYS_RESOURCE"]))


def test_resolve_grants_what_it_can_and_names_the_rest() -> None:
    sets, warnings = resolve(
        {
            "bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE", "chown"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN", "CAP_FOWNER"],
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_KILL", "CAP_CHOWN"],
        },
        EVERY & ~mask(["CAP_SYS_RESOURCE"]),
    )
    assert sets.bounding == mask(["CAP_CHOWN"])
    assert sets.permitted == mask(["CAP_CHOWN", "CAP_KILL"])
    assert sets.effective == mask(["CAP_CHOWN"])
    assert sets.ambient == mask(["CAP_KILL"])
    assert warnings == [
        "process.capabilities.bounding: CAP_SYS_RESOURCE is not available here",
        "process.capabilities.bounding: chown is not available here",
        "process.capabilities.effective: CAP_FOWNER is not permitted",
        "process.capabilities.ambient: CAP_CHOWN is not permitted and inheritable",
    ]
    sets, warnings = resolve({}, EVERY)
    assert (sets.bounding, sets.permitted, sets.ambient, warnings) == (0, 0, 0, [])
