"""Hostile images and programs, and steps of a start without the rule that protects them.

Programs under ``inside/`` run in a container by the host's own Python, bound into it read-only:
they need system calls that no shell offers.
"""

import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
from typing import Any

from tests.support.commands import Engine
from tests.support.images import CHECKOUT, busybox_archive

PROGRAMS = pathlib.Path(__file__).with_name("inside")
PYTHON = os.path.realpath(sys.executable)

UP = "/.." * 24
"""Leads from any directory to the root that it can see."""


def make_image(
    engine: Engine, name: str, *members: bytes, without: tuple[str, ...] = (),
    change: tuple[str, ...] = (),
) -> str:  # fmt: skip
    """Import an image: busybox with some members added.

    Args:
        engine: where.
        name: the image's.
        members: from ``tests.support.archives.member``; they come last.
        without: members of busybox's archive to leave out, with all below them.
        change: Dockerfile instructions.

    Returns:
        The name.
    """
    kept = io.BytesIO()
    with (
        tarfile.open(busybox_archive()) as source,
        tarfile.open(fileobj=kept, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for entry in source:
            if not any(entry.name == path or entry.name.startswith(f"{path}/") for path in without):
                target.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
        end = kept.tell()
    content = kept.getvalue()[:end] + b"".join(members) + bytes(1024)
    options = [word for instruction in change for word in ("--change", instruction)]
    engine.ok("import", *options, "-", name, stdin=content)
    return name


def program(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a program of ``inside/`` in a container of the attacker's."""
    return [PYTHON, "-I", "-S", "-B", f"/attack/{name}.py", *arguments]


def volumes() -> list[str]:
    """Return the options that give a container the host's Python and the programs."""
    places = {"/usr", sys.base_prefix}
    binds = [f"{place}:{place}:ro" for place in places] + [f"{PROGRAMS}:/attack:ro"]
    return [word for bind in binds for word in ("-v", bind)]


def attack(
    engine: Engine, image: str, name: str, *arguments: str, options: tuple[str, ...] = ()
) -> Any:
    """Run a program of ``inside/`` in a new container; return the JSON that it prints."""
    text = engine.ok(
        "run", "--rm", "--network", "none", *volumes(), *options, image, *program(name, *arguments)
    )
    return json.loads(text)


def unprotected(script: str, *arguments: str, timeout: float = 30) -> str:
    """Run Python on the host, in mount and PID namespaces of its own; return what it prints.

    For what an attack does where a rule of ours is left out.
    """
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private",
         sys.executable, "-c", script, *arguments],
        check=False, capture_output=True, text=True, timeout=timeout, cwd=CHECKOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")
