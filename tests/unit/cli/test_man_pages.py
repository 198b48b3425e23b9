"""The manual pages say what the commands say of themselves."""

import pathlib

import pytest

from ketch.cli import main
from scripts import man_pages


def test_the_pages_are_up_to_date() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in man_pages.PLACE.iterdir()}
    assert found == man_pages.pages(), "run scripts/man_pages.py"


@pytest.mark.parametrize("name", sorted({*main.COMMANDS, *main.GROUPS}))
def test_every_command_has_one_of_whole_requests(name: str) -> None:
    text = pathlib.Path(man_pages.PLACE, f"ketch-{name}.1").read_text(encoding="utf-8")
    assert text.startswith('.\\" Made by')
    assert "\n.SH NAME\n" in text
    requests = {line.split(" ")[0] for line in text.splitlines() if line.startswith((".", "'"))}
    assert requests <= {'.\\"', ".TH", ".SH", ".TP"}
