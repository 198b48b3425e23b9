"""An ordinary user is root in namespaces of its own, and its engine is where its files are."""

import pathlib

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
