"""The page about options says what the table says."""

import importlib.util
import pathlib

SCRIPT = pathlib.Path(__file__).parents[3] / "scripts" / "option_docs.py"


def test_the_page_is_made_from_the_table() -> None:
    specification = importlib.util.spec_from_file_location("option_docs", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run scripts/option_docs.py"
