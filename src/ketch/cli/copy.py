"""``ketch cp``."""

import os
import sys

from ketch.cli.caller import explained
from ketch.cli.flags import Command, Flag, parse
from ketch.engine.engine import Engine
from ketch.engine.files import copying, files
from ketch.engine.files.appearing import write
from ketch.errors import InvalidArgumentError, on_one_line
from ketch.spec import copy_paths
from ketch.spec.flag import EXPLAIN
from ketch.spec.sizes import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.flags import Parsed
    from ketch.engine.settings import Settings

_CP = Command(
    "ketch cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n"
    "\tketch cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem\n\n"
    "Use '-' as the source to read a tar archive from stdin\n"
    "and extract it to a directory destination in a container.\n"
    "Use '-' as the destination to stream a tar archive of a\n"
    "container source to stdout.",
    [
        Flag("archive", "a", "bool", "Archive mode (copy all uid/gid information)"),
        EXPLAIN,
        Flag("follow-link", "L", "bool", "Always follow symbol link in SRC_PATH"),
        Flag("quiet", "q", "bool", "Suppress progress output during copy"),
    ],
    minimum_arguments=2,
    maximum_arguments=2,
)


def cp(settings: "Settings", arguments: list[str]) -> int:
    """Copy files into or out of a container."""
    parsed = parse(_CP, arguments)
    source_container, source = _split(parsed.arguments[0])
    target_container, target = _split(parsed.arguments[1])
    if source_container and target_container:
        raise InvalidArgumentError(
            "copying between containers is not supported",
            "ketch cp CONTAINER:PATH - | ketch cp - OTHER:DIRECTORY goes by a pipe",
        )
    if not source_container and not target_container:
        raise InvalidArgumentError(
            "must specify at least one container source",
            "a path in a container is CONTAINER:PATH, as in ketch cp file web:/tmp",
        )
    for text in (source, target):
        if not text:
            raise InvalidArgumentError("source or destination can not be empty")
    engine = Engine(settings)
    with explained(settings, parsed):
        if source_container:
            _out(engine, source_container, source, target, parsed)
        else:
            _into(engine, target_container, source, target, parsed)
    return 0


def _out(engine: Engine, container: str, source: str, target: str, parsed: "Parsed") -> None:
    follow = parsed.enabled("follow-link")
    if target == "-":
        if follow and (found := files.stat_path(engine, container, source)).link_target:
            source = copy_paths.followed(source, found.link_target)[0]
        with files.reading(engine, container, source) as (_, pieces):
            for piece in files.told_archive(engine, container, source, pieces):
                write(1, piece)
        return
    archive = parsed.enabled("archive")
    size_bytes = copying.out_of(
        engine, container, source, target, follow_link=follow, archive=archive
    )
    _tell(parsed, size_bytes, copying.absolute(target))


def _into(engine: Engine, container: str, source: str, target: str, parsed: "Parsed") -> None:
    follow, archive = parsed.enabled("follow-link"), parsed.enabled("archive")
    info = copying.target_in(engine, container, target)
    if source == "-":
        if not info.is_directory:
            raise InvalidArgumentError(f'destination "{container}:{target}" must be a directory')
        files.write_archive(engine, container, info.path, _Input(), keep_kinds=True, chown=archive)
        return
    size_bytes = copying.into(
        engine, container, source, info.path, follow_link=follow, archive=archive
    )
    _tell(parsed, size_bytes, f"{container}:{info.path}")


def _split(text: str) -> tuple[str, str]:
    """Returns an argument's container, empty for a local path, and its path."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith("/") or container.startswith("."):
        return "", text
    return container, path


def _tell(parsed: "Parsed", size_bytes: int, place: str) -> None:
    quiet = parsed.enabled("quiet") if "quiet" in parsed.given else not sys.stdout.isatty()
    if not quiet:
        told = on_one_line(f"Successfully copied {size(size_bytes)} to {place}")
        print(told, file=sys.stderr)


class _Input:
    """Standard input as a stream."""

    def read(self, amount: int, /) -> bytes:
        return os.read(0, amount)
