"""``ketch diff``, ``commit`` and ``export``."""

import contextlib
import os
import sys

from ketch.cli.caller import explained
from ketch.cli.flags import Command, Flag, parse
from ketch.engine.engine import Engine
from ketch.engine.files import committing
from ketch.engine.files import files as engine_files
from ketch.engine.files.appearing import output, write
from ketch.errors import on_one_line
from ketch.linux import sparse
from ketch.spec.flag import EXPLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

_DIFF = Command(
    "ketch diff [OPTIONS] CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    [EXPLAIN],
    minimum_arguments=1,
    maximum_arguments=1,
)
_EXPORT = Command(
    "ketch export [OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    [EXPLAIN, Flag("output", "o", "string", "Write to a file, instead of STDOUT")],
    minimum_arguments=1,
    maximum_arguments=1,
)
_COMMIT = Command(
    "ketch commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    [
        Flag("author", "a", "string", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
        Flag("change", "c", "list", "Apply Dockerfile instruction to the created image"),
        EXPLAIN,
        Flag("message", "m", "string", "Commit message"),
        Flag("pause", "p", "bool", "Pause container during commit", default=True),
    ],
    minimum_arguments=1,
    maximum_arguments=2,
)
_KINDS = "CAD"  # the API's numbers


def diff(settings: "Settings", arguments: list[str]) -> int:
    """List what a container changed."""
    parsed = parse(_DIFF, arguments)
    engine = Engine(settings)
    with explained(settings, parsed):
        for change in engine_files.changes(engine, parsed.arguments[0]):
            path = on_one_line(os.fsdecode(change.path))  # which the container has chosen
            sys.stdout.write(f"{_KINDS[change.kind]} /{path}\n")
    return 0


def export(settings: "Settings", arguments: list[str]) -> int:
    """Write a container's files to an archive."""
    parsed = parse(_EXPORT, arguments)
    engine = Engine(settings)
    with contextlib.ExitStack() as stack:
        stack.enter_context(explained(settings, parsed))
        name = parsed.text("output")
        descriptor = stack.enter_context(output(name, "export container"))
        holes = bool(name) and sparse.is_at_end(descriptor)
        pieces = stack.enter_context(engine_files.exported(engine, parsed.arguments[0]))
        for piece in pieces:
            write(descriptor, piece, holes=holes)
    return 0


def commit(settings: "Settings", arguments: list[str]) -> int:
    """Make an image from a container, and print its ID."""
    parsed = parse(_COMMIT, arguments)
    with explained(settings, parsed):
        image_id = committing.commit(
            Engine(settings),
            *parsed.arguments,
            changes=parsed.items("change"),
            author=parsed.text("author"),
            message=parsed.text("message"),
            pause=parsed.enabled("pause"),
        )
    print(image_id)
    return 0
