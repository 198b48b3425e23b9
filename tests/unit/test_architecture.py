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


def test_types_are_named_in_one_way_on_the_start_path_and_in_one_off_it() -> None:
    # Importing typing takes longer than a command that starts a container may. These rooms load
    # asyncio, HTTP or dataclasses, and with them typing, in any case; so does what has a
    # NamedTuple.
    off = {"api", "build", "dockerfile", "library", "registry", "sandbox"}
    wrong = []
    for path in (CHECKOUT / "src").rglob("*.py"):
        text = path.read_text()
        spare = "\nTYPE_CHECKING = False\n" in text
        usual = "\nfrom typing import TYPE_CHECKING\n" in text
        is_off = not off.isdisjoint(path.relative_to(CHECKOUT).parts[:-1])
        if (spare if is_off else usual) or "from __future__" in text:
            wrong.append(str(path))
    assert wrong == []
