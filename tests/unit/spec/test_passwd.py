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


@given(st.text(max_size=30), st.text(), st.text())
def test_hostile_files_do_no_harm(specification: str, users: str, groups: str) -> None:
    with contextlib.suppress(InvalidArgumentError):
        user = passwd.look_up(specification, users, groups)
        assert user.uid >= 0
        assert user.gid >= 0
