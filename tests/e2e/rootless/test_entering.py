"""An ordinary user is root in namespaces of its own, and its engine is where its files are."""

import pathlib

from tests.support import images
from tests.support.users import User


def test_the_engine_is_in_the_users_directories(user: User) -> None:
    assert "busybox" in user.ketch.ok("images")
    assert (user.home / ".local/share/ketch/ketch.db").exists()
    assert user.run("ls", f"{user.session}/ketch").out.split() != []
    assert not pathlib.Path(f"/tmp/ketch-{user.uid}").exists()


def test_without_a_session_there_is_a_directory_of_the_users_own(user: User) -> None:
    directory = pathlib.Path(f"/tmp/ketch-{user.uid}")
    listed = user.run("ketch", "ps", XDG_RUNTIME_DIR="")
    assert listed.status == 0, str(listed)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_directory_of_somebody_elses_is_not_used(user: User) -> None:
    result = user.ketch("--state", "/tmp", "ps")
    assert result.status == 1
    assert "belongs to user 0" in result.err


def test_an_engine_of_roots_in_the_namespaces_has_all_their_ids(user: User) -> None:
    """``ketch unshare`` and another engine in it, as a program has it that uses the library."""
    archive = images.busybox_archive()
    script = f"""
        places="--root $HOME/another --state $HOME/anothers"
        ketch $places import {archive} busybox >&2
        cat /proc/self/uid_map /proc/self/gid_map | tr -s ' ' | cut -d' ' -f 4 | sort
        ketch $places run --rm busybox sh -c \
            "cat /proc/self/uid_map /proc/self/gid_map" | tr -s ' ' | cut -d' ' -f 4 | sort
        ketch $places run --rm --user 33:33 busybox id -u
        ketch $places system reset --force >&2
    """
    told = user.run("ketch", "unshare", "sh", "-c", script)
    counts = told.out.split()
    assert counts[-1] == "33", told
    assert len(counts) == 9, told  # each map has the user's own id, and those of subuid(5)
    assert counts[:4] == counts[4:8], told
