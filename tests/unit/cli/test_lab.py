"""``ketch lab``: what its image is made of, and whose it is."""

import pathlib

import pytest

from ketch.cli import lab
from ketch.engine.settings import Settings
from ketch.errors import UnavailableError
from tests.support import images


def test_its_image_has_another_name_when_it_is_made_of_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = lab.image()
    assert before == lab.image()
    monkeypatch.setattr(lab, "PACKAGES", (*lab.PACKAGES, "vim"))
    assert lab.image() != before
    assert any(word.startswith("--include=") and word.endswith(",vim") for word in lab.recipe(""))


def test_packages_come_from_where_one_says() -> None:
    assert lab.recipe("http://mirror.test/")[-2:] == ["-", "deb http://mirror.test/ bookworm main"]


def test_an_ordinary_user_has_none() -> None:
    with pytest.raises(UnavailableError, match="root's") as told:
        lab.lab(Settings(home="/home/somebody/.config/ketch"), [])
    assert told.value.hint == "sudo ketch lab"


def test_the_course_is_found_where_pip_puts_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    assert lab.course() == str(images.CHECKOUT / "docs" / "course")
    package = tmp_path / "lib" / "python3.11" / "site-packages" / "ketch"
    package.mkdir(parents=True)
    monkeypatch.setattr(lab, "_package", lambda _name: str(package))
    assert lab.course() == ""
    (tmp_path / "share" / "ketch" / "course").mkdir(parents=True)
    assert lab.course() == str(tmp_path / "share" / "ketch" / "course")
