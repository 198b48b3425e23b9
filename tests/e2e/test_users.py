"""Who a container's processes are: numbers are ids and names are names, whatever the image says."""

import pytest

from tests.security.hostile import make_image
from tests.support.archives import member
from tests.support.commands import Engine
from tests.support.users import UsersEngine

# Names that are numbers, and lead to root and to another group.
PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
1000:x:0:0::/evil:/bin/sh
4294967296:x:0:0::/evil:/bin/sh
99999999999999999999:x:0:0::/evil:/bin/sh
wide:x:99999999999999999999:0::/:/bin/sh
bob:x:2000:2001::/home/bob:/bin/sh
"""
GROUP = b"""\
root:x:0:
50:x:77:
99999999999999999999:x:0:
crew:x:3000:bob
"""
WHO = ("sh", "-c", 'echo "$(id -u) $(id -g) $(id -G) $HOME"')


@pytest.fixture
def poisoned(engine: Engine) -> str:
    """Return an image whose account files name users and groups by other ids' numbers."""
    files = [member(b"etc/passwd", data=PASSWD), member(b"etc/group", data=GROUP)]
    return make_image(engine, "poisoned", *files, without=("etc/passwd", "etc/group"))


@pytest.mark.many_ids("every id can be had, since all are the user's")
@pytest.mark.user
def test_a_number_is_nobodys_name(engine: Engine, poisoned: str) -> None:
    expected = {
        "1000": "1000 0 0 /",
        "1000:1000": "1000 1000 1000 /",
        "2000": "2000 2001 2001 3000 /home/bob",
        "+2000:crew": "2000 3000 3000 /home/bob",
        "2147483647:2147483647": "2147483647 2147483647 2147483647 /",
    }
    if isinstance(engine, UsersEngine):  # who has not so many ids
        beyond = expected.popitem()[0]
        refused = engine("run", "--rm", "--net", "none", "-u", beyond, poisoned, "true")
        assert refused.status == 125
        assert "groups 2147483647: this user namespace has not all of these" in refused.err
    ran = {
        user: engine.ok("run", "--rm", "--net", "none", "-u", user, poisoned, *WHO)
        for user in expected
    }
    assert ran == expected
    box = engine.ok("run", "-d", "--net", "none", poisoned, "sleep", "1000")
    assert {user: engine.ok("exec", "-u", user, box, *WHO) for user in expected} == expected
    engine.ok("rm", "-f", box)
    # As an image's own USER, and of a health check, which runs as the container's user.
    made = engine.ok("create", poisoned, "true")
    engine.ok("commit", "-c", "USER 1000:1000", made, "poisoned-user")
    assert engine.ok("run", "--rm", "--net", "none", "poisoned-user", *WHO) == "1000 1000 1000 /"
    checked = engine.ok("run", "-d", "--net", "none", "--health-cmd", "id -u > /dev/shm/who",
                        "--health-interval", "1s", "poisoned-user", "sleep", "1000")  # fmt: skip
    wait = "while ! [ -s /dev/shm/who ]; do sleep 0.1; done; cat /dev/shm/who"
    assert engine.ok("exec", checked, "timeout", "30", "sh", "-c", wait) == "1000"
    engine.ok("rm", "-f", made, checked)
    engine.ok("rmi", "poisoned-user")


@pytest.mark.parametrize("user", ["4294967296", "2147483648", "0:4294967295", "-1", "²", "0:²"])
def test_what_is_no_id_is_refused(engine: Engine, poisoned: str, user: str) -> None:
    run = engine("run", "--rm", "--net", "none", "-u", user, poisoned, *WHO)
    assert (run.status, run.out) == (125, "")
    said = "unable to find" if "²" in user else "uids and gids must be in range 0-2147483647"
    assert said in run.err


@pytest.mark.ketch_only("dockerd takes some groups, and numbers beyond 64 bits, for names")
def test_beyond_64_bits_and_added_groups(engine: Engine, poisoned: str) -> None:
    run = ("run", "--rm", "--net", "none")
    assert engine.ok(*run, "-u", "bob:50", poisoned, *WHO) == "2000 50 50 /home/bob"
    assert engine.ok(*run, "--group-add", "50", poisoned, "id", "-G") == "0 50"
    beyond = "9" * 20
    for options in (("-u", beyond), ("-u", f"0:{beyond}"), ("--group-add", beyond)):
        refused = engine(*run, *options, poisoned, *WHO)
        assert (refused.status, refused.out) == (125, "")
        assert "uids and gids must be in range 0-2147483647" in refused.err
    unknown = engine(*run, "-u", "wide", poisoned, *WHO)
    assert (unknown.status, unknown.out) == (125, "")
    box = engine.ok("create", "-u", "²", poisoned, "true")
    engine.ok("cp", "-a", "/etc/hostname", f"{box}:/tmp/file")
    engine.ok("rm", box)
