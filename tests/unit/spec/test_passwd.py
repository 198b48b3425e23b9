import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec import passwd

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment
bin:x:2:2:bin:/bin:/bin/sh
games:x:5:60:games:/usr/games:/bin/sh
short:x:7
broken:x:seven:7::/:
"""
GROUP = """\
root:x:0:
bin:x:2:
games:x:60:
audio:x:29:games,bin
"""


@pytest.mark.parametrize(
    ("specification", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, [], "/root"),
        ("root", 0, 0, [], "/root"),
        ("games", 5, 60, [29], "/usr/games"),
        ("5", 5, 60, [29], "/usr/games"),
        ("games:29", 5, 29, [], "/usr/games"),
        ("5:bin", 5, 2, [], "/usr/games"),
        ("bin:", 2, 2, [29], "/bin"),
        (":bin", 0, 2, [], "/root"),
        ("1000", 1000, 0, [], "/"),
        ("1000:1001", 1000, 1001, [], "/"),
        ("0:0:0", 0, 0, [], "/root"),
        ("0005", 5, 60, [29], "/usr/games"),
        ("+5:+29", 5, 29, [], "/usr/games"),
        ("-0", 0, 0, [], "/root"),
        ("2147483647:2147483647", 2147483647, 2147483647, [], "/"),
    ],
)
def test_users_are_those_of_the_image(
    specification: str, uid: int, gid: int, groups: list[int], home: str
) -> None:
    user = passwd.look_up(specification, PASSWD, GROUP)
    assert (user.uid, user.gid, user.groups, user.home) == (uid, gid, groups, home)


def test_an_image_without_files_has_root_and_numbers() -> None:
    user = passwd.look_up("", "", "")
    assert (user.uid, user.gid, user.groups, user.home) == (0, 0, [], "/")
    assert passwd.look_up("7:8", "", "").gid == 8


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("nobodyx", "unable to find user nobodyx: no matching entries in passwd file"),
        ("short", "unable to find user short: no matching entries in passwd file"),
        ("broken", "unable to find user broken: no matching entries in passwd file"),
        ("games:nope", "unable to find group nope: no matching entries in group file"),
        ("-1", "uids and gids must be in range 0-2147483647"),
        ("5000000000", "uids and gids must be in range 0-2147483647"),
        ("0:5000000000", "uids and gids must be in range 0-2147483647"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("0:2147483648", "uids and gids must be in range 0-2147483647"),
        ("4294967295", "uids and gids must be in range 0-2147483647"),
        ("4294967296", "uids and gids must be in range 0-2147483647"),
        ("9" * 5000, "uids and gids must be in range 0-2147483647"),
        ("5:-60", "uids and gids must be in range 0-2147483647"),
        ("\u00b2", "unable to find user \u00b2: no matching entries in passwd file"),
        ("\u0661:0", "unable to find user \u0661: no matching entries in passwd file"),
        ("1_0", "unable to find user 1_0: no matching entries in passwd file"),
        (" 5", "unable to find user  5: no matching entries in passwd file"),
        ("games:\u00b2", "unable to find group \u00b2: no matching entries in group file"),
    ],
)
def test_refusals_have_dockers_words(specification: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        passwd.look_up(specification, PASSWD, GROUP)
    assert caught.value.message == message


def test_added_groups() -> None:
    assert passwd.group_ids(["audio", "77"], GROUP) == [29, 77]
    with pytest.raises(InvalidArgumentError, match="Unable to find group nope"):
        passwd.group_ids(["nope"], GROUP)


@pytest.mark.parametrize("other", ["5", "audio", "keep-group", "keep-groups2"])
def test_kept_groups_stand_alone(other: str) -> None:
    assert passwd.group_ids(["keep-groups"], GROUP) == []
    assert passwd.group_ids(iter(["keep-groups", "keep-groups"]), GROUP) == []
    for given_ in (["keep-groups", other], [other, "keep-groups"]):
        with pytest.raises(InvalidArgumentError, match="not allowed with any other --group-add"):
            passwd.group_ids(given_, GROUP)


def test_no_groups_are_kept_by_another_word() -> None:
    for word in ("Keep-groups", "keep-groups ", ""):
        with pytest.raises(InvalidArgumentError, match="Unable to find group"):
            passwd.group_ids([word], GROUP)


# Names that are numbers, entries whose ids are out of range, and two for one number.
_POISONED_PASSWD = """\
1000:x:0:0::/evil:/bin/sh
4294967296:x:0:0::/evil:/bin/sh
-1:x:0:0::/evil:/bin/sh
+7:x:0:0::/evil:/bin/sh
wide:x:4294967296:0::/:/bin/sh
tall:x:9:4294967296::/:/bin/sh
long:x:99999999999999999999:0::/:/bin/sh
second:x:050:51::/second:/bin/sh
third:x:50:0::/third:/bin/sh
member:x:60:60::/:/bin/sh
"""
_POISONED_GROUP = """\
50:x:0:
4294967296:x:0:
named:x:4294967296:
second:x:52:second
1000:x:0:1000
far:x:4294967296:member
"""


@pytest.mark.parametrize(
    ("specification", "uid", "gid", "groups", "home"),
    [
        ("1000", 1000, 0, [], "/"),
        ("1000:1000", 1000, 1000, [], "/"),
        ("0:50", 0, 50, [], "/evil"),
        ("7", 7, 0, [], "/"),
        ("50", 50, 51, [52], "/second"),
        ("second:second", 50, 52, [], "/second"),
        ("tall:5", 9, 5, [], "/"),
    ],
)
def test_a_number_is_an_id_whoever_is_named_so(
    specification: str, uid: int, gid: int, groups: list[int], home: str
) -> None:
    user = passwd.look_up(specification, _POISONED_PASSWD, _POISONED_GROUP)
    assert (user.uid, user.gid, user.groups, user.home) == (uid, gid, groups, home)
    assert passwd.home(user.uid, _POISONED_PASSWD) == home


@pytest.mark.parametrize(
    "specification", ["4294967296", "-1", "wide", "tall", "0:named", "0:4294967296", "member"]
)
def test_no_entry_leads_around_the_largest_id(specification: str) -> None:
    with pytest.raises(InvalidArgumentError, match="must be in range 0-2147483647"):
        passwd.look_up(specification, _POISONED_PASSWD, _POISONED_GROUP)


def test_added_groups_are_ids_too() -> None:
    assert passwd.group_ids(["50", "second", "2147483647"], _POISONED_GROUP) == [50, 52, 2147483647]
    for beyond in ("4294967296", "2147483648", "-1", "named"):
        with pytest.raises(InvalidArgumentError, match="must be in range 0-2147483647"):
            passwd.group_ids([beyond], _POISONED_GROUP)


def test_comments_and_lines_with_a_nul_are_no_entries() -> None:
    """A NUL would cut the environment's HOME short, or the environment itself."""
    users = "#x:x:1000:0::/comment:/\nsly:x:1000:0::/a\0b:/\nsly2:x:1000:5::/home:/\n"
    user = passwd.look_up("1000", users, "#g:x:70:sly2\ng\0:x:71:sly2\nh:x:72:sly2\n")
    assert (user.gid, user.home, user.groups) == (5, "/home", [72])
    for name in ("#x", "sly"):
        with pytest.raises(InvalidArgumentError, match="unable to find user"):
            passwd.look_up(name, users, "")


def test_a_line_ends_where_the_file_says() -> None:
    sly = "a:x:3:3:\x85root2:x:0:0::/:\u2028root3:x:0:0::/\x0broot4:x:0:0\n"
    for name in ("root2", "root3", "root4"):
        with pytest.raises(InvalidArgumentError, match="unable to find user"):
            passwd.look_up(name, sly, "")


@given(st.text(max_size=30), st.text(), st.text())
def test_hostile_files_do_no_harm(specification: str, users: str, groups: str) -> None:
    with contextlib.suppress(InvalidArgumentError):
        user = passwd.look_up(specification, users, groups)
        assert user.uid >= 0
        assert user.gid >= 0
