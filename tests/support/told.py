"""What ``--explain=json`` has told."""

import json
import subprocess
from pathlib import Path


def steps(text: str) -> "list[tuple[str, dict[str, list[str]]]]":
    """Return each step's words, and its values by name."""
    found = []
    for line in text.splitlines():
        step = json.loads(line)
        values: dict[str, list[str]] = {}
        for value in step["values"]:
            values.setdefault(value["name"], []).append(value["value"])
        found.append((step["step"], values))
    return found


def values_of(text: str, words: str) -> dict[str, list[str]]:
    """Return the values of the one step that begins so."""
    found = [values for said, values in steps(text) if said.startswith(words)]
    assert len(found) == 1, (words, [said for said, _ in steps(text)])
    return found[0]


def run_script(
    script: str, *words: str, cwd: Path | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run what ``--explain=commands`` has written."""
    return subprocess.run(
        ["sh", "-c", script, "sh", *words], capture_output=True, check=False, timeout=60, cwd=cwd
    )
