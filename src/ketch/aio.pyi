"""The types of ``ketch.aio``: the library's, with methods that are awaited.

Made from the library's classes by ``scripts/library_types.py``; change them, not this.
"""

import builtins
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import IO, Any, Literal, Self, TypeVar, Unpack, overload

from ketch.build.progress import Event
from ketch.engine.images.removal import Events
from ketch.images.registry.credentials import Credentials
from ketch.images.registry.progress import Progress
from ketch.images.registry.search import Found
from ketch.images.tar import Stream
from ketch.library.building import BuildEvent
from ketch.library.container import Change, LogEntry, Result
from ketch.library.keywords import BuildOptions, RunOptions, UpdateOptions
from ketch.sandbox.changes import ProjectChange
from ketch.sandbox.code import CodeResult
from ketch.sandbox.egress.record import Connection
from ketch.sandbox.egress.secret import Secret
from ketch.sandbox.files import Entry
from ketch.sandbox.programs import RunResult
from ketch.sandbox.watching import FileEvent

Command = str | Iterable[str] | None
Lifetime = Literal["container", "process"]
Moment = str | datetime | timedelta
Path = str | os.PathLike[str]
READ_BYTES_MAX = 64 << 20
OUTPUT_BYTES_MAX = 8 << 20
Given = TypeVar("Given")
Made = TypeVar("Made")

class Archive:
    """A tar archive of a container's files: iterate over its pieces, or read as from a file.

    What it is made of is held until it has been read, or closed; as a context manager it is closed
    at the end.

    Args:
        source: what gives the pieces for the length of a block.
    """
    async def __aenter__(self) -> Archive:
        """Nothing more than itself."""
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield its pieces; it is closed at the end."""
    async def read(self, size: int = -1, /) -> bytes:
        """Returns ``size`` bytes, or all that is left where it is negative; fewer at the end."""
    async def close(self) -> None:
        """Let go of what it is made of."""

class Session:
    """A connection to a program in a container: iterate over it for the program's output.

    Each item is a stream's name, ``stdout`` or ``stderr``, and bytes; at the end ``exit_status``
    says what the program ended with. As a context manager it lets go of the program at the end,
    which goes on. One thread may write while another reads.

    Attributes:
        id: of the container or the exec.
        exit_status: None while the program runs.
        warnings: what the engine had to say of the request.
    """

    id: str
    exit_status: int | None
    warnings: list[str]
    async def __aenter__(self) -> Session:
        """Nothing more than itself."""
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the program."""
    def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield output as it comes, until the program ends.

        Raises:
            UnavailableError: the process that watches the program has gone.
        """
    async def read(self) -> tuple[bytes, bytes]:
        """Returns all of the program's output, on stdout and on stderr, once it has ended."""
    async def communicate(self, data: bytes = b"") -> tuple[bytes, bytes]:
        """Give the program input, and the end of it, while its output is read.

        A program may end, or close its input, before it has read all of that.

        Returns:
            All of its output, on stdout and on stderr, once it has ended.
        """
    async def wait(self) -> int:
        """Wait for the program's end, whatever it writes; returns its exit status."""
    async def write(self, data: bytes) -> None:
        """Give the program input; waits for as long as it takes none."""
    async def end_input(self) -> None:
        """Tell the program that no more input will come."""
    async def resize(self, rows: int, columns: int) -> None:
        """Tell the program's terminal its size."""
    async def kill(self, signal: str = "KILL") -> None:
        """Send the program a signal; how it ends is told to whoever reads or waits.

        Args:
            signal: its name, with or without ``SIG``, or its number as text.

        Raises:
            InvalidArgumentError: there is no such signal.
        """
    async def close(self) -> None:
        """Let go of the program."""
    async def expect(self, *kinds: int) -> bytes:
        """Returns the next frame of one of these kinds; warnings before it are kept."""

class Image:
    """One image, as it was when it was last read. A ``with`` block takes its names away at the end.

    Attributes:
        id: digest of its configuration.
        attrs: its document, in the Docker API's keys.
    """

    id: str
    attrs: dict[str, Any]
    @property
    def name(self) -> str:
        """Its first name with a tag, or the start of its ID where it has none."""
    @property
    def short_id(self) -> str:
        """The start of its ID that people are shown."""
    @property
    def tags(self) -> list[str]:
        """Its names with a tag."""
    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
    async def reload(self) -> None:
        """Read it again."""
    async def tag(self, name: str) -> None:
        """Give it one more name; whatever had that name loses it."""
    async def history(self) -> list[dict[str, Any]]:
        """Returns the steps by which it came about, the newest first."""
    async def save(self, output: str | os.PathLike[str] | IO[bytes], *, platform: str = "") -> None:
        """Write it, with all its names, to an archive. Arguments as for ``Images.save``."""
    async def push(
        self, *, credentials: Credentials | None = None, progress: Progress | None = None
    ) -> builtins.list[str]:
        """Push each of its names to its registry; returns the manifests' digests."""
    async def remove(self, *, force: bool = False) -> Events:
        """Remove it; returns what happened: ``("Untagged", NAME)``, ``("Deleted", DIGEST)``."""
    async def __aenter__(self) -> Self:
        """Nothing more than itself."""
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove it, unless it has gone."""

class Images:
    """The images of an engine."""
    async def get(self, name: str) -> Image:
        """Returns the image with this name, ID, or unique start of an ID.

        Raises:
            NotFoundError: there is none.
        """
    async def exists(self, name: str) -> bool:
        """Whether there is such an image."""
    async def list(
        self, name: str = "", *, all: bool = False, filters: Mapping[str, Any] | None = None
    ) -> list[Image]:
        """Returns the images, newest first.

        Args:
            name: only those with a name that fits, ``*`` and ``?`` included.
            all: those without a name that others were committed on as well.
            filters: as those of ``ketch images``; a value may be a list.
        """
    async def import_(
        self,
        source: str | os.PathLike[str] | bytes | Stream | IO[bytes],
        name: str = "",
        *,
        changes: str | Iterable[str] = (),
        message: str = "",
        platform: str = "",
    ) -> Image:
        """Make an image of one layer from a root file system's tar archive.

        Args:
            source: a file's path, the archive itself, or what has a ``read`` method.
            name: its name, or empty for an image without one.
            changes: Dockerfile instructions that change its configuration.
            message: a comment, kept in its history.
            platform: ``os[/architecture[/variant]]``; this machine's where empty.
        """
    async def build(
        self,
        path: str | os.PathLike[str] | IO[bytes] = ".",
        *,
        dockerfile: str = "",
        dockerfile_text: str | bytes | None = None,
        secrets: Mapping[str, Secret] | None = None,
        ssh: Mapping[str, str | os.PathLike[str]] | None = None,
        credentials: Credentials | None = None,
        progress: Callable[[Event], object] | None = None,
        **options: Unpack[BuildOptions],
    ) -> Image:
        """Build an image from a Dockerfile.

        Args:
            path: the context: a directory, an address, or an archive to read.
            dockerfile: where the Dockerfile is in the context.
            dockerfile_text: the Dockerfile itself, in place of a file.
            secrets: what ``RUN --mount=type=secret`` finds, by id: contents, or path objects that
                lead to files.
            ssh: sockets of agents, or private keys, for ``RUN --mount=type=ssh``.
            credentials: who asks registries; Docker's ``config.json`` says it where None.
            progress: is given each event (``ketch.build.progress``), from any thread, one at a
                time.
            options: those of ``ketch build``, with ``_`` for ``-``.

        Raises:
            UnavailableError: the result goes elsewhere than into the store: see ``follow_build``.
            KetchError: it cannot be built.
        """
    def follow_build(
        self,
        path: str | os.PathLike[str] | IO[bytes] = ".",
        *,
        dockerfile: str = "",
        dockerfile_text: str | bytes | None = None,
        secrets: Mapping[str, Secret] | None = None,
        ssh: Mapping[str, str | os.PathLike[str]] | None = None,
        credentials: Credentials | None = None,
        **options: Unpack[BuildOptions],
    ) -> AsyncIterator[BuildEvent]:
        """Build an image, and yield what is told of that; ``Built`` at last. Arguments as above.

        Who closes the iterator before its end calls the build off.
        """
    async def remove(self, name: str, *, force: bool = False) -> Events:
        """Take away a name, and the image with its last one; returns what happened."""
    async def prune(
        self, *, all: bool = False, filters: Mapping[str, Any] | None = None
    ) -> tuple[Events, int]:
        """Remove images that nobody uses; returns what happened, and the bytes reclaimed."""
    async def pull(
        self,
        name: str,
        *,
        platform: str = "",
        credentials: Credentials | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Pull an image from a registry.

        Args:
            name: its name; with the tag ``latest`` where it has neither tag nor digest.
            platform: ``os[/architecture[/variant]]``; this machine's where empty.
            credentials: who asks; Docker's ``config.json`` says it where None.
            progress: who is told how far it is.
        """
    async def push(
        self, name: str, *, credentials: Credentials | None = None, progress: Progress | None = None
    ) -> str:
        """Push an image to its registry; returns its manifest's digest. Arguments as for pull."""
    async def save(
        self,
        names: str | Iterable[str],
        output: str | os.PathLike[str] | IO[bytes],
        *,
        platform: str = "",
    ) -> None:
        """Write images to an archive, which ``load`` and ``docker load`` take.

        Args:
            names: names and IDs.
            output: where it is written: a file's path, or what has a ``write`` method.
            platform: the platform they must be of, or empty.
        """
    async def load(
        self,
        source: str | os.PathLike[str] | bytes | IO[bytes],
        *,
        platform: str = "",
        progress: Progress | None = None,
    ) -> builtins.list[Image]:
        """Take images from an archive.

        Args:
            source: a file's path, the archive itself, or an open file, pipe or socket.
            platform: which of an image's platforms is taken; this machine's where empty.
            progress: who is told how far it is.
        """
    async def search(
        self, term: str, *, limit: int = 0, filters: Mapping[str, Any] | None = None
    ) -> builtins.list[Found]:
        """Ask Docker Hub, or the registry that the term begins with, for images.

        Args:
            term: what to look for.
            limit: no more than so many; 0 for the registry's own limit.
            filters: as those of ``ketch search``; a value may be a list.
        """

class Container:
    """One container. As a context manager, it is removed at the end, whatever it is doing.

    Attributes:
        id: 64 hexadecimal digits.
        attrs: its document, as it was when it was last read, in the Docker API's keys.
    """

    id: str
    attrs: dict[str, Any]
    @property
    def short_id(self) -> str:
        """The start of its ID that people are shown."""
    @property
    def name(self) -> str:
        """Its name."""
    @property
    def status(self) -> str:
        """What it was doing when it was last read: ``created``, ``running``, ``exited``, ..."""
    @property
    def exit_status(self) -> int:
        """What it last ended with, when it was last read."""
    @property
    def image(self) -> str:
        """Its image, as it was named."""
    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
    @property
    def ports(self) -> dict[str, Any]:
        """Its published ports, by ``80/tcp``."""
    @property
    def health(self) -> Literal["starting", "healthy", "unhealthy", ""]:
        """What its health check had found when it was last read; empty without a check."""
    @property
    def ip(self) -> str:
        """Its address on its first network, when it was last read; empty where it has none."""
    async def port(self, port: int | str) -> int:
        """Returns which port of the host leads to one of its own.

        Args:
            port: its own: ``80``, or ``"53/udp"``.

        Raises:
            NotFoundError: it publishes no such port, or does not run.
        """
    async def reload(self) -> None:
        """Read it again.

        Raises:
            NotFoundError: it is gone.
        """
    async def start(self, *, lifetime: Lifetime = "container") -> None:
        """Start it.

        Args:
            lifetime: ``process`` has it end, and go, when this Python program does, even by
                SIGKILL.
        """
    async def stop(self, *, timeout: int | None = None, signal: str | int = "") -> None:
        """Ask its program to end, kill it when it does not, wait for its end.

        Args:
            timeout: how many seconds to wait before SIGKILL, -1 for ever; the container's own, or
                ten, where None.
            signal: what to ask with; the container's own, or SIGTERM, where empty.
        """
    async def restart(self, *, timeout: int | None = None, signal: str | int = "") -> None:
        """Stop it, and start it again; one that goes once it ends does not go in between."""
    async def kill(self, signal: str | int = "KILL") -> None:
        """Send its first process a signal, by name or number; with SIGKILL, wait for its end."""
    async def wait(
        self,
        condition: Literal["not-running", "next-exit", "removed"] = "not-running",
        *,
        timeout: float | None = None,
    ) -> int:
        """Wait for its end; returns its exit status.

        Args:
            condition: ``not-running``, which may be so already; ``next-exit``, the next time that
                it ends; ``removed``.
            timeout: how many seconds it may take; then it is killed. None for ever.

        Raises:
            ProgramTimeoutError: it had not ended in time.
        """
    async def wait_healthy(self, *, timeout: float = 60.0) -> None:
        """Wait until its health check finds it healthy.

        Args:
            timeout: for how many seconds at most.

        Raises:
            ConflictError: it has no health check, or has ended.
            UnavailableError: it was not healthy in time; it goes on.
        """
    async def pause(self) -> None:
        """Freeze all its processes."""
    async def unpause(self) -> None:
        """Let its processes go on."""
    async def rename(self, name: str) -> None:
        """Give it another name."""
    async def update(self, **options: Unpack[UpdateOptions]) -> list[str]:
        """Change what it may use, and its restart policy, while it runs; returns warnings.

        Args:
            options: as those of ``ketch update``: ``memory="64m"``, ``cpus=0.5``,
                ``restart="always"``.
        """
    async def commit(
        self,
        name: str = "",
        *,
        changes: str | Iterable[str] = (),
        author: str = "",
        message: str = "",
        pause: bool = True,
    ) -> Image:
        """Make an image of its files and its configuration.

        Args:
            name: the image's name, or empty for one without.
            changes: Dockerfile instructions that change the configuration.
            author: who made it.
            message: a comment, kept in its history.
            pause: whether it stands still while its files are read.
        """
    async def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it: its writable layer, its log, its record.

        Args:
            force: whether to kill it first if it runs.
            volumes: whether its anonymous volumes go too.
        """
    async def logs(
        self,
        *,
        stdout: bool = True,
        stderr: bool = True,
        tail: int | None = None,
        since: Moment = "",
        until: Moment = "",
    ) -> bytes:
        """Returns what its program wrote, as far as its log has kept it.

        Args:
            stdout: whether what it wrote to its standard output counts.
            stderr: whether what it wrote to its standard error counts.
            tail: how many lines from the end; None for all.
            since: leave out what is older: a time, or for how long back, ``10m`` or a timedelta.
            until: leave out what is newer, likewise.
        """
    def follow_logs(
        self, *, tail: int | None = None, since: Moment = "", until: Moment = ""
    ) -> AsyncIterator[tuple[str, bytes]]:
        """Yield what its program wrote and writes, until it does not run any more.

        Each item is a stream's name, ``stdout`` or ``stderr``, and a line. Arguments as for
        ``logs``.
        """
    def log_entries(
        self,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: Moment = "",
        until: Moment = "",
    ) -> AsyncIterator[LogEntry]:
        """Yield what its program wrote, with the times.

        Args:
            follow: whether to go on until it does not run any more.
            tail: as for ``logs``.
            since: as for ``logs``.
            until: as for ``logs``.
        """
    async def top(self, arguments: str = "") -> tuple[list[str], list[list[str]]]:
        """Returns the titles and the rows of its processes; ``arguments`` are those of ps."""
    def stats(self, *, interval: float = 1.0) -> AsyncIterator[dict[str, Any]]:
        """Yield what it uses, in the Docker API's keys, one document each ``interval`` seconds."""
    async def copy_from(
        self,
        source: Path,
        target: Path,
        *,
        follow_link: bool = False,
        archive: bool = False,
        set_ids: bool = True,
    ) -> None:
        """Copy a file or a directory out of it, as ``ketch cp`` does.

        Args:
            source: a path in it; a directory's content alone is meant by ``/.`` at the end.
            target: a path here: a directory to copy into, or what the copy is called.
            follow_link: whether, where the source is a symlink, what it leads to is copied.
            archive: whether owners are kept; else all belongs to the caller.
            set_ids: whether programs stay that run as whom they belong to, which is the caller
                then: of a container that nobody trusts, False is wanted.
        """
    async def copy_to(
        self, source: Path, target: Path, *, follow_link: bool = False, archive: bool = False
    ) -> None:
        """Copy a file or a directory into it, as ``ketch cp`` does.

        Args:
            source: a path here; a directory's content alone is meant by ``/.`` at the end.
            target: a path in it: a directory to copy into, or what the copy is called.
            follow_link: whether, where the source is a symlink, what it leads to is copied.
            archive: whether all belongs to its user, where that is a number; else owners are kept.
        """
    async def get_archive(self, path: Path) -> Archive:
        """Returns a file, or a directory with all that is in it, as a tar archive."""
    async def put_archive(self, path: Path, archive: bytes | Archive | Stream | IO[bytes]) -> None:
        """Unpack a tar archive, plain or compressed, into one of its directories.

        Args:
            path: the directory, which is there already.
            archive: its bytes, or what has a ``read`` method.
        """
    async def export(self) -> Archive:
        """Returns all its files as a tar archive, without what its volumes hold."""
    async def diff(self) -> list[Change]:
        """Returns what it changed of its image's files."""
    async def exec(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | Iterable[str] | None = (),
        user: str | int | None = "",
        workdir: str | os.PathLike[str] | None = "",
        tty: bool = False,
        privileged: bool = False,
        stdin: bool = False,
    ) -> Session:
        """Run another program in it; returns its streams, to iterate over.

        Args:
            command: the program and its arguments; one text is split at its blanks.
            env: variables besides the container's, ``NAME=VALUE`` or by name.
            user: who runs it, ``NAME|UID[:GROUP|GID]``; whom the container has where it is empty.
            workdir: where it starts.
            tty: whether it gets a terminal.
            privileged: whether it gets all capabilities.
            stdin: whether input will be written to it.
        """
    async def exec_run(
        self,
        command: Command,
        *,
        env: Mapping[str, str] | Iterable[str] | None = (),
        user: str | int | None = "",
        workdir: str | os.PathLike[str] | None = "",
        tty: bool = False,
        privileged: bool = False,
        stdin: bytes | None = b"",
        timeout: float | None = None,
        max_output: int | None = None,
    ) -> Result:
        """Run another program in it to its end.

        Where waiting for it is interrupted, the program is killed.

        Args:
            command: as for ``exec``, like all that is not named here.
            env: as for ``exec``.
            user: as for ``exec``.
            workdir: as for ``exec``.
            tty: as for ``exec``.
            privileged: as for ``exec``.
            stdin: what the program gets to read.
            timeout: how many seconds it may take; then it is killed. None for ever.
            max_output: how many bytes it may write, to both streams together; then it is killed.

        Raises:
            ProgramTimeoutError: it had not ended in time.
            ProgramOutputError: it wrote more than it was to.
        """
    async def attach(
        self, *, stdin: bool = False, stdout: bool = True, stderr: bool = True
    ) -> Session:
        """Attach to its program's streams; what it wrote before is in its log."""
    async def __aenter__(self) -> Self:
        """Nothing more than itself."""
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove it, unless it has gone."""

class Containers:
    """The containers of an engine."""
    @overload
    async def run(
        self,
        image: str | Image,
        command: Command = ...,
        *,
        detach: Literal[True],
        stdin: bytes | None = ...,
        stdout: bool = ...,
        stderr: bool = ...,
        timeout: float | None = ...,
        max_output: int | None = ...,
        lifetime: Lifetime | None = ...,
        **options: Unpack[RunOptions],
    ) -> Container: ...
    @overload
    async def run(
        self,
        image: str | Image,
        command: Command = ...,
        *,
        detach: Literal[False] = ...,
        stdin: bytes | None = ...,
        stdout: bool = ...,
        stderr: bool = ...,
        timeout: float | None = ...,
        max_output: int | None = ...,
        lifetime: Lifetime | None = ...,
        **options: Unpack[RunOptions],
    ) -> bytes: ...
    async def start(
        self,
        image: str | Image,
        command: Command = None,
        *,
        lifetime: Lifetime = "container",
        timeout: float | None = None,
        **options: Unpack[RunOptions],
    ) -> Session:
        """Create a container and start it, attached: iterate over the result for its output.

        Args:
            image: its image, by name or as an ``Image``.
            command: the program and its arguments; the image's where None.
            lifetime: as for ``run``.
            timeout: how many seconds the container may run; then it is killed. None for ever.
            options: as for ``run``; with ``interactive=True`` input can be written.
        """
    async def create(
        self,
        image: str | Image,
        command: Command = None,
        *,
        timeout: float | None = None,
        **options: Unpack[RunOptions],
    ) -> Container:
        """Create a container without starting it; arguments as for ``start``."""
    async def get(self, name: str) -> Container:
        """Returns the container with this name, ID, or unique start of an ID.

        Raises:
            NotFoundError: there is none.
        """
    async def list(
        self, *, all: bool = False, limit: int = 0, filters: Mapping[str, Any] | None = None
    ) -> list[Container]:
        """Returns the containers, newest first.

        Args:
            all: those that do not run as well.
            limit: no more than so many, whatever they are doing; 0 for no such limit.
            filters: as those of ``ketch ps``; a value may be a list.
        """
    async def prune(
        self, *, filters: Mapping[str, Any] | None = None
    ) -> tuple[builtins.list[str], int]:
        """Remove those that do not run; returns their identifiers, and the bytes reclaimed."""

class Network:
    """One network. As a context manager, it is removed at the end, its containers let go of.

    Attributes:
        id: 64 hexadecimal digits.
        attrs: its document, as it was when it was last read, in the Docker API's keys.
    """

    id: str
    attrs: dict[str, Any]
    @property
    def name(self) -> str:
        """Its name."""
    @property
    def containers(self) -> builtins.list[str]:
        """The identifiers of the running containers on it, when it was last read."""
    async def reload(self) -> None:
        """Read it again."""
    async def connect(
        self,
        container: str | Container,
        *,
        aliases: str | Iterable[str] = (),
        ipv4: str = "",
        ipv6: str = "",
        links: str | Iterable[str] | Mapping[str, str | None] = (),
        link_local: str | Iterable[str] = (),
        options: Mapping[str, str] | None = None,
        gateway_priority: int = 0,
    ) -> None:
        """Connect a container, running or not.

        Args:
            container: it, or its name or ID.
            aliases: names that it gets on this network besides its own.
            ipv4: the address that it is to have; one is leased where empty.
            ipv6: likewise.
            links: ``NAME[:ALIAS]`` of containers that it gets to know by these names, or a mapping
                of the one to the other.
            link_local: link-local addresses that it gets as well.
            options: the driver's, for this connection.
            gateway_priority: the network with the highest one leads it elsewhere.
        """
    async def disconnect(self, container: str | Container, *, force: bool = False) -> None:
        """Disconnect a container: it, or its name or ID."""
    async def remove(self) -> None:
        """Remove it."""
    async def __aenter__(self) -> Self:
        """Nothing more than itself."""
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove it, unless it has gone."""
    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""

class Networks:
    """The networks of an engine."""
    async def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnets: Iterable[Mapping[str, str]] = (),
        internal: bool = False,
        attachable: bool = False,
        ipv4: bool = True,
        ipv6: bool = False,
        config_only: bool = False,
        config_from: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Network:
        """Make a network.

        Args:
            name: its name.
            driver: ``bridge``, ``macvlan`` or ``ipvlan``.
            subnets: ``{"Subnet": ..., "Gateway": ..., "IPRange": ...}`` each; one is chosen where
                there is none.
            internal: whether it leads nowhere else.
            attachable: for swarms; kept and shown.
            ipv4: whether it has IPv4 addresses.
            ipv6: whether it has IPv6 addresses.
            config_only: whether it is only the settings of others that are made from it.
            config_from: the name of a network that is only settings, to make it from.
            options: the driver's.
            labels: its labels.
        """
    async def get(self, name: str) -> Network:
        """Returns the network with this name, id, or unique start of an id."""
    async def list(self, *, filters: Mapping[str, Any] | None = None) -> builtins.list[Network]:
        """Returns the networks, by name; filters as those of ``ketch network ls``."""
    async def prune(self, *, filters: Mapping[str, Any] | None = None) -> builtins.list[str]:
        """Remove those that nobody is on; returns their names."""

class Volume:
    """One volume. As a context manager, it is removed at the end.

    Attributes:
        id: its name.
        attrs: its document, as it was when it was last read, in the Docker API's keys.
    """

    id: str
    attrs: dict[str, Any]
    @property
    def name(self) -> str:
        """Its name."""
    async def reload(self) -> None:
        """Read it again."""
    @property
    def mountpoint(self) -> str:
        """Where its data is."""
    async def remove(self, *, force: bool = False) -> None:
        """Remove it, and its data."""
    async def __aenter__(self) -> Self:
        """Nothing more than itself."""
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove it, unless it has gone."""
    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""

class Volumes:
    """The volumes of an engine."""
    async def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume; one of that name that exists already is returned as it is.

        Args:
            name: its name; one is made up where this is empty.
            driver: ``local`` is the only one.
            options: ``type``, ``device`` and ``o`` as mount(8) has them.
            labels: its labels.
        """
    async def get(self, name: str) -> Volume:
        """Returns the volume with this name."""
    async def list(self, *, filters: Mapping[str, Any] | None = None) -> builtins.list[Volume]:
        """Returns the volumes, by name; filters as those of ``ketch volume ls``."""
    async def prune(
        self, *, all: bool = False, filters: Mapping[str, Any] | None = None
    ) -> tuple[builtins.list[str], int]:
        """Remove anonymous ones, or all, that no container has; returns names and bytes."""

class Engine:
    """One engine: its containers, images, networks and volumes.

    The same that the command line shows, and the API: there is no server in between, and none is
    needed. It can be used from several threads.

    Args:
        root: directory of what lasts; ``/var/lib/ketch``, an ordinary user's
            ``~/.local/share/ketch``, or what KETCH_ROOT says, where None.
        state: directory of what a reboot may lose; ``/run/ketch``, an ordinary user's
            ``$XDG_RUNTIME_DIR/ketch``, or KETCH_STATE, where None.
        zygote: whether starts may be asked of a warm helper process.

    Attributes:
        containers: the containers.
        images: the images.
        networks: the networks.
        volumes: the volumes.

    Raises:
        UnavailableError: an ordinary user's process cannot enter the user's namespaces, as the
            first engine of a process has it do: it has threads already, or there can be none.
    """

    containers: Containers
    images: Images
    networks: Networks
    volumes: Volumes
    def __init__(
        self, root: str | None = None, state: str | None = None, *, zygote: bool = True
    ) -> None: ...
    async def __aenter__(self) -> Engine:
        """Nothing more than itself."""
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close this thread's connection."""
    async def close(self) -> None:
        """Close this thread's connection to the database; the next use opens another."""
    async def version(self) -> dict[str, Any]:
        """Returns the document of ``version``, in the Docker API's keys."""
    async def info(self) -> dict[str, Any]:
        """Returns the document of ``info``, in the Docker API's keys."""
    async def disk_usage(self) -> dict[str, Any]:
        """Returns what takes up room, in the Docker API's keys."""
    async def prune(
        self, *, all: bool = False, volumes: bool = False, filters: Mapping[str, Any] | None = None
    ) -> int:
        """Remove what nobody uses: containers that do not run, networks, images.

        Args:
            all: images that have a name as well.
            volumes: anonymous volumes as well.
            filters: as those of ``ketch system prune``; a value may be a list.

        Returns:
            How many bytes that gave back.
        """
    async def login(self, user: str, password: str, registry: str = "") -> None:
        """Show credentials to a registry and keep them where ``docker login`` does.

        Args:
            user: the user's name there.
            password: a password or an access token.
            registry: its host; Docker Hub where empty.

        Raises:
            UnauthenticatedError: the registry does not believe them.
        """
    async def logout(self, registry: str = "") -> None:
        """Forget the credentials for a registry; for Docker Hub where empty."""
    def events(
        self, *, since: Moment = "", until: Moment = "", filters: Mapping[str, Any] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield events as they happen, in the Docker API's keys.

        Args:
            since: replay from this time on, or for how long back, ``10m`` or a timedelta.
            until: end at this time; never where empty.
            filters: as those of ``ketch events``; a value may be a list.
        """

class Files:
    """The files of a sandbox. Paths are absolute, or relative to the directory it starts in."""
    async def read(self, path: Path, *, max_bytes: int = READ_BYTES_MAX) -> bytes:
        """Returns a file's content; of a link, that of what it leads to in the sandbox.

        Args:
            path: the file.
            max_bytes: how many bytes it may have.

        Raises:
            NotFoundError: there is none.
            InvalidArgumentError: it is no file, or larger.
        """
    async def write(self, path: Path, content: bytes | str, *, mode: int = 420) -> None:
        """Write a file; directories above it are made.

        Args:
            path: the file.
            content: what is to be in it; text in UTF-8.
            mode: its permissions.
        """
    async def list(self, path: Path = ".", *, recursive: bool = False) -> list[Entry]:
        """Returns what is in a directory, by path.

        Args:
            path: the directory.
            recursive: whether what is in its directories is told as well.

        Raises:
            NotFoundError: there is none.
            InvalidArgumentError: it has too many entries to be told.
        """
    def watch(self, path: Path = ".", *, recursive: bool = False) -> AsyncIterator[FileEvent]:
        """Yield what happens in a directory from the first wait for it on, until the sandbox ends.

        Args:
            path: the directory.
            recursive: whether what happens in its directories is told as well.

        Raises:
            NotFoundError: there is no such directory.
            InvalidArgumentError: there are too many directories.
        """
    async def stat(self, path: Path) -> Entry:
        """Returns what is at a path; of a link, the link.

        Raises:
            NotFoundError: there is nothing.
        """
    async def upload(self, source: Path, target: Path = ".") -> None:
        """Copy a file or a tree of this machine's into the sandbox, to belong to its user.

        Args:
            source: a path here; a directory's content alone is meant by ``/.`` at the end.
            target: a directory to copy into, or what the copy is called.
        """
    async def download(self, source: Path, target: Path) -> None:
        """Copy a file or a tree out of the sandbox, to belong to the caller.

        Links come as links and lead where they say: look before following one. No program comes as
        one that runs as the caller whoever starts it (set-user-id).

        Args:
            source: a path in the sandbox; a directory's content alone is meant by ``/.``.
            target: a path here: a directory to copy into, or what the copy is called.
        """
    async def remove(self, path: Path) -> None:
        """Remove a file, or a directory with all that is in it; it may have gone already."""
    async def move(self, source: Path, target: Path) -> None:
        """Rename something, or move it into a directory."""
    async def make_directory(self, path: Path) -> None:
        """Make a directory, and those above it; it may be there already."""

class Process:
    """A program that runs in a sandbox: iterate over it for its output, until it ends.

    Each item is a stream's name, ``stdout`` or ``stderr``, and bytes. As a context manager it lets
    go of the program at the end, which goes on as long as the sandbox does. One thread may write
    while another reads.
    """
    async def __aenter__(self) -> Process:
        """Nothing more than itself."""
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the program."""
    def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield output as it comes, until the program ends."""
    @property
    def id(self) -> str:
        """The ID under which the engine has it."""
    @property
    def exit_status(self) -> int | None:
        """What it ended with, 128 + n for signal n; None until its end has been read."""
    def stream(self, *, timeout: float | None = None) -> AsyncIterator[tuple[str, bytes]]:
        """Yield output as it comes, until the program ends.

        Args:
            timeout: how many seconds that may take; then the program is killed. None for ever.

        Raises:
            ProgramTimeoutError: it had not ended in time.
        """
    async def read(self) -> tuple[bytes, bytes]:
        """Returns all of the program's output, on stdout and on stderr, once it has ended."""
    async def communicate(self, data: bytes = b"") -> tuple[bytes, bytes]:
        """Give the program input, and the end of it, while its output is read.

        Returns:
            All of its output, on stdout and on stderr, once it has ended.
        """
    async def wait(self, *, timeout: float | None = None) -> int:
        """Wait for the program's end, whatever it writes; returns its exit status.

        Args:
            timeout: how many seconds that may take; then the program is killed. None for ever.

        Raises:
            ProgramTimeoutError: it had not ended in time.
        """
    async def write(self, data: bytes) -> None:
        """Give the program input; waits for as long as it takes none."""
    async def end_input(self) -> None:
        """Tell the program that no more input will come."""
    async def resize(self, rows: int, columns: int) -> None:
        """Tell the program's terminal its size."""
    async def signal(self, signal: str) -> None:
        """Send the program a signal; how it ends is told to whoever reads or waits.

        Args:
            signal: its name, with or without ``SIG``, or its number as text.

        Raises:
            InvalidArgumentError: there is no such signal.
        """
    async def kill(self) -> None:
        """Kill the program, and what it has started unless that leads a session of its own."""
    async def close(self) -> None:
        """Let go of the program, which goes on."""

class Sandbox:
    """A container for programs that nobody has read. As a context manager, it is killed at the end.

    Made by ``create``; ``connect`` finds one that another process has made. Nothing of its image
    runs by itself. Programs run as an ordinary user without capabilities, with ids that nobody else
    on the machine has, behind a narrow system call filter (``spec/seccomp_sandbox.py``), without a
    network, on files that are read-only but for ``writable``, which is memory of bounded size.

    Attributes:
        files: its files.
    """

    files: Files
    @classmethod
    async def create(
        cls,
        image: str | Image,
        *,
        name: str | None = None,
        user: str | None = None,
        memory: str | int | None = "512m",
        cpus: float | None = 1.0,
        pids: int | None = 128,
        disk: str | int = "256m",
        timeout: float | None = 300.0,
        idle_timeout: float | None = None,
        lifetime: Lifetime = "process",
        read_only: bool = True,
        workdir: str = "/workspace",
        writable: Iterable[str] = ("/workspace", "/tmp"),
        env: Mapping[str, str] | None = None,
        mounts: Mapping[str, str] | None = None,
        egress: Iterable[str] | None = (),
        secrets: Iterable[Secret] = (),
        ports: Iterable[int] = (),
        userns: str = "auto",
        engine: Engine | None = None,
        **options: Any,
    ) -> Self:
        """Make a sandbox and start it.

        Args:
            image: its files, by name or as an ``Image``; pulled where it is not there.
            name: what it is called; a name of its own where None.
            user: who programs run as, a number or a name in the image; where None 65534, or 1000
                where the engine is an ordinary user's, who has fewer ids.
            memory: how much programs may use, in bytes or as ``512m``, together with what lies in
                ``writable``. None, here and for what follows, for no limit: an ordinary user's
                engine can set none where cgroups are of version 1.
            cpus: how many processors' time they may use together.
            pids: how many processes and threads there may be.
            disk: how large each directory of ``writable`` may become.
            timeout: how many seconds it lives, whole ones; None for ever.
            idle_timeout: how many seconds it lives without being used.
            lifetime: ``process``: no longer than this Python program; ``container``: by itself.
            read_only: whether nothing but ``writable`` can be written to.
            workdir: where programs start.
            writable: directories that are empty and can be written to.
            env: variables that programs find.
            mounts: directories of the host, to where they are seen, read-only; with ``:rw`` at the
                end of that they can be written to.
            egress: what it may reach, by name or address: ``packages.example``,
                ``*.files.example:443``, ``index.example@10.0.0.7:8080``, ``10.1.0.0/16:5432``; see
                docs/sandbox.md. ``()`` for nothing, None for everything.
            secrets: values that programs use and do not have; whom they are for may be reached.
            ports: what ``url`` can be asked for: its own ports on which programs will listen.
            userns: as ``ketch run --userns``.
            engine: where it is made; the machine's own engine where None.
            options: more, as those of ``ketch run``. With ``egress``, ``dns`` says which name
                servers are asked where names are.

        Raises:
            NotFoundError: there is no such image.
            UnavailableError: what is needed is not there: for ``egress`` the program nft, for
                ``secrets`` the package cryptography.
            InvalidArgumentError: a value cannot be.
        """
    @classmethod
    async def host(
        cls,
        project: str | os.PathLike[str] = ".",
        *,
        memory: str | int | None = "2g",
        cpus: float | None = 2.0,
        pids: int | None = 512,
        disk: str | int = "1g",
        env: Mapping[str, str] | None = None,
        mounts: Mapping[str, str] | None = None,
        engine: Engine | None = None,
        **create: Any,
    ) -> Self:
        """Make a sandbox of the host's own programs and one directory, from no image at all.

        Both are seen where they are. What is written to the project goes to memory:
        ``changes`` tells of it, ``apply`` takes it over. Nothing else of the host is seen; the
        caller's home is empty.

        Args:
            project: the directory.
            memory: as for ``create``; what is written counts to it.
            cpus: as for ``create``.
            pids: as for ``create``.
            disk: how much may be written to the project, and to each other place.
            env: variables that programs find, besides those of language and terminal.
            mounts: what else is seen, as for ``create``.
            engine: as for ``create``.
            create: further arguments of that.

        Raises:
            InvalidArgumentError: the project cannot be one.
            UnsupportedError: the project's file system can have no overlay, or no ids mapped.
        """
    @classmethod
    async def connect(cls, name: str, *, engine: Engine | None = None) -> Self:
        """Find a sandbox by its name, or its container's ID.

        Raises:
            NotFoundError: there is none.
        """
    @classmethod
    async def list(cls, *, engine: Engine | None = None) -> list[Self]:
        """Returns the sandboxes that there are, of whatever process."""
    async def __aenter__(self) -> Self:
        """Nothing more than itself."""
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill it."""
    @property
    def id(self) -> str:
        """Its container's ID."""
    @property
    def name(self) -> str:
        """Its name."""
    @property
    def is_running(self) -> bool:
        """Whether it is still there."""
    async def stats(self) -> dict[str, Any]:
        """Returns what it uses, in the Docker API's keys."""
    async def url(self, port: int) -> str:
        """Returns the address at which this machine reaches a server on one of its ``ports``.

        Raises:
            InvalidArgumentError: it was made without a network.
        """
    async def connections(self) -> builtins.list[Connection]:
        """Returns what it has tried to reach, the last few thousand attempts, the oldest first.

        Raises:
            ConflictError: it was made without ``egress``, or has ended.
        """
    async def allow(self, *rules: str) -> None:
        """Let it reach more from now on.

        Args:
            rules: as for ``egress`` of ``create``.

        Raises:
            ConflictError: it was made without ``egress``, or has ended.
            InvalidArgumentError: one of them is none.
        """
    async def deny(self, *rules: str) -> None:
        """Take rules away; connections that no other one allows end.

        Args:
            rules: as they were given; all of them where there are none.

        Raises:
            ConflictError: it was made without ``egress``, or has ended.
            NotFoundError: it has no such rule.
        """
    async def run(
        self,
        command: str | Iterable[str],
        *,
        stdin: bytes = b"",
        timeout: float | None = 60.0,
        max_output: int | None = OUTPUT_BYTES_MAX,
        env: Mapping[str, str] | None = None,
        user: str = "",
        cwd: str = "",
    ) -> RunResult:
        """Run a program to its end.

        Args:
            command: the program and its arguments; one text is what the image's shell is to do.
            stdin: what it gets to read.
            timeout: how many seconds it may take; then it is killed, and what it has started with
                it, unless that leads a session of its own. None for as long as it likes.
            max_output: how many bytes it may write; then it is killed likewise. None for any
                number.
            env: variables besides the sandbox's own.
            user: who runs it; the sandbox's user where empty.
            cwd: where it starts; the sandbox's directory where empty.

        Raises:
            ConflictError: the sandbox has ended.
            StartError: there is no such program.
        """
    async def start(
        self,
        command: str | Iterable[str],
        *,
        env: Mapping[str, str] | None = None,
        user: str = "",
        cwd: str = "",
        tty: bool = False,
        stdin: bool = False,
    ) -> Process:
        """Run a program and return it: to iterate over, write to, resize, signal, wait for.

        Args:
            command: as for ``run``, like all that is not named here.
            env: as for ``run``.
            user: as for ``run``.
            cwd: as for ``run``.
            tty: whether it gets a terminal.
            stdin: whether input will be written to it.
        """
    async def run_code(
        self,
        code: str,
        language: Literal["python", "shell", "node"] = "python",
        context: str = "default",
        *,
        timeout: float | None = 60.0,
        max_output: int = OUTPUT_BYTES_MAX,
    ) -> CodeResult:
        """Have an interpreter of the image run some code; it keeps its state between calls.

        Args:
            code: what to run.
            language: whose it is.
            context: of several interpreters of a language, the name of this one.
            timeout: how many seconds it may take; then it is interrupted, and killed where that
                does not help. None for as long as it likes.
            max_output: how many bytes it may write before it is killed.

        Raises:
            ConflictError: the sandbox has ended.
            StartError: the image has no such interpreter.
        """
    async def interrupt(
        self, language: Literal["python", "shell", "node"] = "python", context: str = "default"
    ) -> None:
        """Interrupt what an interpreter does, from another thread: as Ctrl-C would."""
    async def pause(self) -> None:
        """Freeze all that runs in it."""
    async def resume(self) -> None:
        """Let it go on."""
    async def set_timeout(self, seconds: float | None) -> None:
        """Have it live so many seconds from now on, whole ones; None for ever."""
    async def kill(self) -> None:
        """End it: its programs are killed, and its files go with it."""
    @property
    def project(self) -> str:
        """The directory that ``host`` was given; empty where it was made otherwise."""
    async def changes(self) -> builtins.list[ProjectChange]:
        """Returns what it did to its project, by path, compared with how that is now.

        Raises:
            ConflictError: it has ended, and its changes with it.
            InvalidArgumentError: it has no project.
        """
    async def apply(self, *paths: str, overwrite: bool = False) -> builtins.list[ProjectChange]:
        """Take over what it did to its project: all of it, or what is at or below some paths.

        What is refused (``ProjectChange.refused``), what somebody else has changed in the project
        since the sandbox began (``conflict``), and what Git keeps in ``.git`` unless that is named,
        is left.

        Args:
            paths: from the project on.
            overwrite: whether the sandbox's takes the place of what was changed in the project.

        Returns:
            What was taken over.

        Raises:
            ConflictError: it has ended, and its changes with it; or what was named was changed in
                the project as well.
            NotFoundError: nothing was changed at one of the paths.
            PermissionDeniedError: what was named is refused, or cannot be written.
        """
    async def snapshot(self, name: str = "") -> Image:
        """Make an image of its files as they are now, for other sandboxes; memory is not kept.

        Args:
            name: the image's name, or empty for one without.
        """
    async def fork(self, count: int = 1, *, lifetime: Lifetime = "process") -> builtins.list[Self]:
        """Make sandboxes like this one, each with its own copy of the files as they are now.

        What lies in ``writable`` is not copied but shared for as long as nobody changes it, unless
        programs run in this one just now. What runs is not forked.

        Args:
            count: how many.
            lifetime: as for ``create``.

        Raises:
            InvalidArgumentError: there cannot be so many.
        """

class Pool:
    """Keeps sandboxes ready, from its first use on.

    As a context manager, it begins at once, and removes those that nobody took at its end.

    Args:
        size: how many are ready.
        image: as for ``Sandbox.create``.
        create: further arguments of that.
    """
    def __init__(self, size: int, image: str | Image, **create: Any) -> None: ...
    async def __aenter__(self) -> Self:
        """Begin to make them."""
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what nobody took."""
    async def acquire(self) -> Sandbox:
        """Returns one that nobody has used; it is the caller's, who kills it.

        Raises:
            ConflictError: the pool is closed.
            KetchError: none can be made.
        """
    def map(
        self, function: Callable[[Sandbox, Given], Awaitable[Made]], items: Iterable[Given]
    ) -> AsyncIterator[Made]:
        """Await a function for each item, each with a sandbox of its own, several at once.

        Args:
            function: is given a sandbox, which is killed when it has returned, and an item.
            items: the items; so many are taken at a time as the pool has ready.

        Yields:
            What it returned, in the items' order.
        """
    async def close(self) -> None:
        """Remove what nobody took, and make no more."""
