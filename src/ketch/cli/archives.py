"""``ketch save`` and ``ketch load``."""

import contextlib
import os
import stat
import sys

from ketch.cli.flags import Command, Flag, parse
from ketch.cli.progress import shown_on
from ketch.engine.images import archive as image_archive
from ketch.engine.images import saving
from ketch.engine.images.images import Images
from ketch.engine.records.store import Store
from ketch.errors import InvalidArgumentError, NotFoundError, UnavailableError
from ketch.images import archive
from ketch.images.registry.progress import Progress
from ketch.linux import sparse
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.engine.images.archive import PassedOver
    from ketch.engine.images.candidates import Loaded
    from ketch.engine.settings import Settings

# What is there and no file, in Docker's words.
_KINDS = {
    stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link directly",
    stat.S_IFIFO: "a named pipe (FIFO)", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device file", stat.S_IFBLK: "a block device file",
}  # fmt: skip
FORMATS = ("docker-archive", "oci-archive", "oci-dir")


def _format(text: str) -> str:
    if text not in FORMATS:
        raise InvalidArgumentError(f"unknown format {text!r}", f"formats: {', '.join(FORMATS)}")
    return text


_SAVE = Command(
    "ketch save [OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    [
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
    with contextlib.ExitStack() as stack:
        sink: saving.Sink
        if form == "oci-dir":
            if not target:
                raise InvalidArgumentError("a directory needs a name: use the -o flag")
            sink = archive.DirectorySink(target)
        else:
            descriptor = stack.enter_context(output(target, "save image"))
            sink = archive.TarSink(lambda content: write(descriptor, content), descriptor)
        saving.save(
            images,
            parsed.arguments,
            sink,
            platform=parsed.text("platform"),
            docker=form == "docker-archive",
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
        source: archive.Source
        if name and os.path.isdir(name):
            source = archive.DirectorySource(name)
        else:
            source = stack.enter_context(images.opened_archive(stack.enter_context(_input(name))))
        image_archive.load(images, source, platform=platform, done=tell, progress=progress)
    return 0


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


@contextlib.contextmanager
def output(name: str, doing: str) -> "Iterator[int]":
    """Open what is written to; a file appears under its name when all of it is written.

    Args:
        name: the file, empty for standard output.
        doing: what fails if it does, for errors.

    Raises:
        InvalidArgumentError: it is a terminal, no regular file, or cannot be made.
    """
    if not name:
        if sys.stdout.isatty():
            raise InvalidArgumentError(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect"
            )
        yield 1
        return
    directory = os.path.dirname(name) or "."
    if not os.path.isdir(directory):
        missing = f"stat {directory}: no such file or directory"
        raise InvalidArgumentError(f"failed to {doing}: invalid output path: {missing}")
    with contextlib.suppress(FileNotFoundError):
        kind = stat.S_IFMT(os.lstat(name).st_mode)
        if kind != stat.S_IFREG:
            raise InvalidArgumentError(
                f"failed to {doing}: cannot write to {_KINDS.get(kind, 'an irregular file')}",
                "leave -o out, and redirect the output there",
            )
    temporary = f"{directory}/.tmp-{os.path.basename(name)}{os.urandom(5).hex()}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
    except OSError as error:
        reason = f"open {name}: {(error.strerror or '').lower()}"
        raise InvalidArgumentError(f"failed to {doing}: {reason}") from error
    try:
        yield descriptor
        os.rename(temporary, name)
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def write(descriptor: int, content: bytes, *, holes: bool = False) -> None:
    """Write all of some bytes.

    Args:
        descriptor: where to.
        content: the bytes.
        holes: whether it is a file of our own making, in which many zeros become a hole.

    Raises:
        UnavailableError: the disk is full or failing.
    """
    rest = memoryview(content)
    try:
        if holes:
            sparse.append(descriptor, content)
            return
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UnavailableError(f"cannot write the archive: {error.strerror}") from error
