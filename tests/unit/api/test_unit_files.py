"""What a package gives to systemd is what `ketch serve --install-unit` writes."""

from scripts import unit_files


def test_the_files_are_up_to_date() -> None:
    found = {
        str(path.relative_to(unit_files.PLACE)): path.read_text(encoding="utf-8")
        for path in unit_files.PLACE.rglob("*.*")
        if path.is_file()
    }
    assert found == unit_files.pages(), "run scripts/unit_files.py"
