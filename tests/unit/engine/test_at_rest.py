"""Who works on a container's files, and who starts it, keep out of each other's way."""

from pathlib import Path

import pytest

from ketch.engine.files import at_rest


class GivenUpError(Exception):
    """Raised by who waits no longer."""


def give_up() -> None:
    raise GivenUpError


def test_many_may_work_on_its_files_at_once(tmp_path: Path) -> None:
    with at_rest.kept(str(tmp_path)), at_rest.kept(str(tmp_path)):
        pass


def test_a_start_waits_for_them_and_looks_meanwhile(tmp_path: Path) -> None:
    looked: list[bool] = []

    def look() -> None:
        looked.append(True)
        if len(looked) == 3:
            held.__exit__(None, None, None)

    held = at_rest.kept(str(tmp_path))
    held.__enter__()
    with at_rest.left(str(tmp_path), look):
        assert len(looked) == 3
    with (
        at_rest.kept(str(tmp_path)),
        pytest.raises(GivenUpError),
        at_rest.left(str(tmp_path), give_up),
    ):
        pytest.fail("started amid a copy")


def test_one_start_at_a_time(tmp_path: Path) -> None:
    with (
        at_rest.left(str(tmp_path), give_up),
        pytest.raises(GivenUpError),
        at_rest.left(str(tmp_path), give_up),
    ):
        pytest.fail("started twice")
