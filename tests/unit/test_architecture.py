"""The house's rules, held by tools: form, types, import contracts, names."""

import pathlib
import subprocess
import sys

import pytest

CHECKOUT = pathlib.Path(__file__).parents[2]
BIN = pathlib.Path(sys.executable).parent


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=" ".join,
)
def test_tool_is_content(command: list[str]) -> None:
    tool = BIN / command[0]
    if not tool.exists():
        pytest.skip(f"{command[0]} is not installed beside this interpreter")
    done = subprocess.run(
        [str(tool), *command[1:]], cwd=CHECKOUT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "shared"}
    modules = (CHECKOUT / "src").rglob("*.py")
    assert [str(path) for path in modules if path.stem in drawers] == []
