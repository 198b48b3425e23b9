"""``--explain`` of every command that does something to the kernel: in words, as JSON, as a script.

What single steps say is in test_explain*.py beside this; here are the forms, which hold for all.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ketch.cli import complete, main, overview
from ketch.spec.told import TOPICS
from tests.support import images
from tests.support.commands import Engine, Result

pytestmark = pytest.mark.root_engine("what is told is looked up on the host")

# A command, and a topic that it has something to tell of. {c} is a running container, {s} one that
# has ended, {n} a name that nobody has, {i} an image of that name, {d} a directory.
COMMANDS = {
    "run --rm busybox true": "namespaces",
    "run --rm --network none --read-only --memory 64m busybox true": "limits",
    "create busybox true": "record",
    "start {s}": "program",
    "exec {c} true": "privileges",
    "stop -t 0 {c}": "program",
    "kill {c}": "program",
    "restart -t 0 {c}": "program",
    "rm {s}": "record",
    "rm -f {c}": "limits",
    "pause {c}": "limits",
    "unpause {c}": "limits",
    "update --memory 64m --memory-swap 64m {c}": "limits",
    "rename {s} {n}": "record",
    "network create {n}": "network",
    "network connect {net} {c}": "network",
    "network disconnect bridge {c}": "network",
    "network rm {net}": "network",
    "network prune -f": "network",
    "volume create {n}": "files",
    "volume rm {vol}": "record",
    "volume prune -af": "record",
    "commit {c} {n}": "image",
    "cp {c}:/etc/passwd {d}/copy": "files",
    "cp {d}/file {s}:/file": "files",
    "diff {c}": "files",
    "export -o {d}/tar {s}": "files",
    "import {archive} {n}": "image",
    "load -i {saved}": "record",
    "save -o {d}/saved {i}": "image",
    "tag {i} {n}:second": "record",
    "rmi {i}": "image",
    "build -q -t {n} {d}": "image",
    "container prune -f": "record",
    "mount {s}": "files",
    "umount {s}": "files",
}
PRUNED = {
    "network prune -f": "network create {name}-net",
    "volume prune -af": "volume create {name}-vol",
    "container prune -f": "create busybox true",
}
# Commands of which others have the test: a registry, criu and Compose are needed.
ELSEWHERE = {
    "pull", "push", "checkpoint create", "checkpoint rm", "compose", "image mount", "image umount",
    "builder prune", "image prune", "system prune", "cp", "attach",
}  # fmt: skip


class Scene:
    """What a command is typed on, made for it alone: what its words name, and nothing else."""

    def __init__(self, ketch: Engine, name: str, directory: Path) -> None:
        self._ketch = ketch
        self._name = name
        self._directory = directory
        (directory / "file").write_text("x\n")
        (directory / "Dockerfile").write_text("FROM busybox\nRUN echo a > /a\n")

    def words(self, command: str) -> list[str]:
        """Returns a command's words, with what they name in place of the names here."""
        made = {
            "n": lambda: f"{self._name}-new",
            "d": lambda: str(self._directory),
            "archive": lambda: str(images.busybox_archive()),
            "c": lambda: self._ketch.ok("run", "-d", "busybox", "sleep", "1000"),
            "s": lambda: self._ketch.ok("create", "busybox", "true"),
            "net": lambda: (
                self._ketch.ok("network", "create", f"{self._name}-net") and f"{self._name}-net"
            ),
            "vol": lambda: self._ketch.ok("volume", "create", f"{self._name}-vol"),
            "i": self._image,
            "saved": self._saved,
        }
        found = {name: make() for name, make in made.items() if f"{{{name}}}" in command}
        if "prune" in command:
            self._ketch.ok(*PRUNED[command].format(name=self._name).split())
        if command.startswith("unpause"):
            self._ketch.ok("pause", found["c"])
        if command.startswith("umount"):
            self._ketch.ok("mount", found["s"])
        return command.format(**found).split()

    def _image(self) -> str:
        name = f"{self._name}-image"
        self._ketch.ok("commit", container := self._ketch.ok("create", "busybox", "ls"), name)
        self._ketch.ok("rm", container)
        return name

    def _saved(self) -> str:
        path = self._directory / "image.tar"
        self._ketch.ok("save", "-o", str(path), name := self._image())
        self._ketch.ok("rmi", name)
        return str(path)

    def clear(self) -> None:
        """Take it all away."""
        ketch, name = self._ketch, self._name
        for container in ketch.ok("ps", "-aq", "--no-trunc").split():
            ketch("umount", container)
            ketch("rm", "-fv", container)
        for one in ketch.ok("images", "--format", "{{.Repository}}:{{.Tag}}").split():
            if one.startswith(name):
                ketch("rmi", "-f", one)
        for kind in ("net", "new"):
            ketch("network", "rm", f"{name}-{kind}")
        for kind in ("vol", "new"):
            ketch("volume", "rm", "-f", f"{name}-{kind}")


@pytest.fixture
def typed(ketch: Engine, run_name: str, tmp_path: Path) -> "Callable[[str, str], Result]":
    """Return what types a command with ``--explain`` on things made for it alone."""

    def type_(command: str, form: str) -> Result:
        scene = Scene(ketch, run_name, tmp_path)
        try:
            words = scene.words(command)
            at = 2 if words[0] in main.GROUPS else 1
            return ketch(*words[:at], f"--explain{form}", *words[at:])
        finally:
            scene.clear()

    return type_


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_tells_in_every_form(
    typed: "Callable[[str, str], Result]", command: str
) -> None:
    told = typed(command, "=json")
    assert told.status == 0, told
    lines = [json.loads(line) for line in told.err.splitlines()]
    assert COMMANDS[command] in {line["topic"] for line in lines}, told
    for line in lines:
        assert {*line} == {"topic", "step", "calls", "values", "elapsedNs"}
        assert line["topic"] in TOPICS
        assert line["step"].strip()
        assert all(one["name"] and " " not in one["name"] for one in line["values"])
        assert all(isinstance(one["value"], str) for one in line["values"])
    times = [line["elapsedNs"] for line in lines]
    assert times[-1] is None
    # The last step before a program runs takes as long as that does.
    assert times.count(None) <= 1 + (command.startswith(("run", "start")))
    assert all(0 <= one < 60e9 for one in times if one is not None)

    plain = typed(command, "")
    assert plain.status == 0
    said = [line["step"] for line in lines]
    assert "\x1b" not in plain.err
    lines_said = [line.partition(" · ")[0] for line in plain.err.splitlines()]
    assert len([one for one in lines_said if not one.startswith("  ")]) >= len(said) / 3, plain

    script = typed(command, "=commands")
    assert script.status == 0
    assert script.err.startswith("#!/bin/sh\n")
    checked = subprocess.run(
        ["sh", "-n"], input=script.err, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, ""), script.err


def test_no_command_that_explains_is_left_out() -> None:
    """What has the option is above, or has a test of its own."""
    named = [[name] for name in main.COMMANDS]
    named += [[group, name] for group, members in main.GROUPS.items()
              for name, member in members.items()
              if not isinstance(member, str) and name not in overview.ALIASES]  # fmt: skip
    has = {
        " ".join(words)
        for words in named
        if any(flag.name == "explain" for flag in complete.accepted(words)[0].flags)
    }
    typed = {
        " ".join(words.split()[: 2 if words.split()[0] in main.GROUPS else 1]) for words in COMMANDS
    }
    assert has - typed - ELSEWHERE == set()
