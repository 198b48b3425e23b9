"""``ketch save`` and ``ketch load``."""

import contextlib
import os
import sys

from ketch.cli.caller import explained
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.progress import shown_on
from ketch.engine.files.appearing import output, write
from ketch.engine.images import archive as image_archive
from ketch.engine.images import saving
from ketch.engine.images.images import Images
from ketch.engine.records.store import Store
from ketch.errors import InvalidArgumentError, NotFoundError
from ketch.images import archive
from ketch.images.registry.progress import Progress
from ketch.linux.scopes import owned
from ketch.spec.flag import EXPLAIN
from ketch.spec.told import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.engine.images.archive import PassedOver
    from ketch.engine.images.candidates import Loaded
    from ketch.engine.settings import Settings

FORMATS = ("docker-archive", "oci-archive", "oci-dir")


def _format(text: str) -> str:
    if text not in FORMATS:
        raise InvalidArgumentError(f"unknown format {text!r}", f"formats: {', '.join(FORMATS)}")
    return text


_SAVE = Command(
    "ketch save [OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    [
        EXPLAIN,
        Flag("format", "", "string",
             "Write docker-archive (an OCI archive as well), oci-archive or oci-dir",
             default="docker-archive", convert=_format),
        Flag("output", "o", "string", "Write to a file, instead of STDOUT"),
        Flag("platform", "", "string", "Save only this platform variant (os[/arch[/variant]])"),
    ],
    minimum_arguments=1,
)  # fmt: skip
_LOAD = Command(
    "ketch load [OPTIONS]",
    "Load an image from a tar archive or STDIN",
    [
        EXPLAIN,
        Flag("input", "i", "string", "Read from a tar archive or OCI directory, instead of STDIN"),
        Flag("platform", "", "string", "Load only this platform variant (os[/arch[/variant]])"),
        Flag("quiet", "q", "bool", "Suppress the load output"),
    ],
    maximum_arguments=0,
)


def save(settings: "Settings", arguments: list[str]) -> int:
    """Write images to an archive."""
    parsed = parse(_SAVE, arguments)
    images = Images(settings, Store(settings.root))
    target, form = parsed.text("output"), parsed.text("format")
    # By hand it is collected in a directory, and what that has is in no archive of the other form.
    place, ending = "saved", [f"tar -C saved -cf {quote(target or '-')} $(ls saved)"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(explained(settings, parsed))
        sink: saving.Sink
        if form == "oci-dir":
            if not target:
                raise InvalidArgumentError("a directory needs a name: use the -o flag")
            sink = archive.DirectorySink(target)
            place, ending = target, []
        else:
            descriptor = stack.enter_context(output(target, "save image"))
            sink = archive.TarSink(lambda content: write(descriptor, content), descriptor)
        saving.save(
            images,
            parsed.arguments,
            sink,
            platform=parsed.text("platform"),
            docker=form == "docker-archive",
            by_hand=(place, ending),
        )
    return 0


def load(settings: "Settings", arguments: list[str]) -> int:
    """Take images from an archive."""
    parsed = parse(_LOAD, arguments)
    images = Images(settings, Store(settings.root))
    name, platform = parsed.text("input"), parsed.text("platform")
    if not name and sys.stdin is not None and sys.stdin.isatty():
        raise InvalidArgumentError("requested load from stdin, but stdin is empty")
    # As docker: how far it is concerns people at a terminal alone, what came of it everybody.
    lines = shown_on(sys.stdout)
    progress = Progress() if parsed.enabled("quiet") or not sys.stdout.isatty() else lines

    def tell(loaded: "Loaded | PassedOver") -> None:
        for line in loaded.lines():
            lines.say("", line)

    with contextlib.ExitStack() as stack:
        stack.enter_context(explained(settings, parsed))
        source: archive.Source
        if name and os.path.isdir(name):
            source = archive.DirectorySource(name)
        else:
            source = stack.enter_context(images.opened_archive(stack.enter_context(_input(name))))
        image_archive.load(
            images, source, platform=platform, done=tell, progress=progress,
            by_hand=lambda member: _by_hand(name, member),
        )  # fmt: skip
    return 0


def _by_hand(name: str, member: str) -> str:
    """A command that writes a member of the archive; one from standard input is named to it."""
    if name and os.path.isdir(name):
        return f"cat {quote(f'{name}/{member}')}"
    archive_name = quote(name) if name else '"${1:?which archive?}"'
    return f"tar -xOf {archive_name} {quote(member)}"


@contextlib.contextmanager
def _input(name: str) -> "Iterator[int]":
    if not name:
        yield 0
        return
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError(f"open {name}: no such file or directory") from error
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise InvalidArgumentError(f"open {name}: {reason}") from error
    with owned(descriptor):
        yield descriptor
