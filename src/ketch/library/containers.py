"""The library's containers."""

import contextlib
import json
import time
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

from ketch.engine import creation, pruning, renaming, wire
from ketch.engine.logs import following
from ketch.engine.views import inspection, listing, process_list, statistics
from ketch.errors import NotFoundError, ProgramFailedError
from ketch.library import sessions
from ketch.library.options import as_filters, make_request
from ketch.spec import timestamps
from ketch.spec.filters import Filters

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Any

    from ketch.engine.logs.reading import Entry
    from ketch.engine.records import Container as Record
    from ketch.library.options import Given
    from ketch.library.places import Places
    from ketch.library.sessions import Session

    Command = str | Iterable[str] | None


class Result(NamedTuple):
    """What a program ended with, and what it wrote."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class Container:
    """One container. As a context manager, it is removed at the end, whatever it is doing.

    Attributes:
        id: 64 hexadecimal digits.
        attrs: its document, as it was when it was last read, in the Docker API's keys.
    """

    def __init__(self, places: "Places", record: "Record") -> None:
        self._places = places
        self.id = record.id
        self.attrs: dict[str, Any] = inspection.document(places.engine, record)

    def __repr__(self) -> str:
        """Its name."""
        return f"<Container {self.name}>"

    def __eq__(self, other: object) -> bool:
        """Whether both are the same container."""
        return isinstance(other, Container) and other.id == self.id

    def __hash__(self) -> int:
        """Of its identifier."""
        return hash(self.id)

    def __enter__(self) -> "Container":
        """Nothing more than itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:  # fmt: skip
        """Remove it, whatever it is doing."""
        with contextlib.suppress(NotFoundError):
            self.remove(force=True)

    # What it is

    @property
    def short_id(self) -> str:
        """The start of its ID that people are shown."""
        return self.id[:12]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.attrs["Name"]).removeprefix("/")

    @property
    def status(self) -> str:
        """What it was doing when it was last read: ``created``, ``running``, ``exited``, ..."""
        return str(self.attrs["State"]["Status"])

    @property
    def exit_status(self) -> int:
        """What it last ended with, when it was last read."""
        return int(self.attrs["State"]["ExitCode"])

    @property
    def image(self) -> str:
        """Its image, as it was named."""
        return str(self.attrs["Config"]["Image"])

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self.attrs["Config"].get("Labels") or {})

    @property
    def ports(self) -> "dict[str, Any]":
        """Its published ports, by ``80/tcp``."""
        return dict(self.attrs["NetworkSettings"].get("Ports") or {})

    def reload(self) -> None:
        """Read it again.

        Raises:
            NotFoundError: it is gone.
        """
        engine = self._places.engine
        self.attrs = inspection.document(engine, engine.containers.find(self.id))

    # What is done to it

    def start(self) -> None:
        """Start it."""
        fields = {"action": "start", "container": self.id}
        sessions.start(self._places.settings, fields).close()
        self.reload()

    def stop(self, *, timeout: int | None = None, signal: str = "") -> None:
        """Ask its program to end, kill it when it does not, wait for its end.

        Args:
            timeout: how many seconds to wait before SIGKILL, -1 for ever; the container's own, or
                ten, where None.
            signal: what to ask with; the container's own, or SIGTERM, where empty.
        """
        self._places.engine.containers.stop(self.id, timeout, signal)
        self._reread()

    def restart(self, *, timeout: int | None = None, signal: str = "") -> None:
        """Stop it, and start it again."""
        self.stop(timeout=timeout, signal=signal)
        self.start()

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal to its first process; with SIGKILL, wait for its end."""
        self._places.engine.containers.kill(self.id, signal)
        self._reread()

    def wait(self) -> int:
        """Wait until it does not run any more; returns its exit status."""
        return self._places.engine.containers.wait(self.id)

    def pause(self) -> None:
        """Freeze all its processes."""
        self._places.engine.containers.pause(self.id)
        self.reload()

    def unpause(self) -> None:
        """Let its processes go on."""
        self._places.engine.containers.unpause(self.id)
        self.reload()

    def rename(self, name: str) -> None:
        """Give it another name."""
        engine = self._places.engine
        renaming.rename(engine.store, engine.containers, self.id, name)
        self.reload()

    def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it: its writable layer, its log, its record.

        Args:
            force: whether to kill it first if it runs.
            volumes: whether its anonymous volumes go too.
        """
        self._places.engine.containers.remove(self.id, force=force, volumes=volumes)

    def _reread(self) -> None:
        """Read it again, unless it went as it ended."""
        with contextlib.suppress(NotFoundError):
            self.reload()

    # What is seen of it

    def logs(
        self,
        *,
        stdout: bool = True,
        stderr: bool = True,
        tail: int | None = None,
        since: str = "",
        until: str = "",
    ) -> bytes:
        """Returns what its program wrote, as far as its log has kept it.

        Args:
            stdout: whether what it wrote to its standard output counts.
            stderr: whether what it wrote to its standard error counts.
            tail: how many lines from the end; None for all.
            since: leave out what is older: a time, or ``10m`` for ten minutes ago.
            until: leave out what is newer.
        """
        wanted = {"stdout": stdout, "stderr": stderr}
        entries = self._entries(follow=False, tail=tail, since=since, until=until)
        return b"".join(data for _, stream, data, _ in entries if wanted[stream])

    def follow_logs(
        self, *, tail: int | None = None, since: str = "", until: str = ""
    ) -> "Iterator[tuple[str, bytes]]":
        """Yield what its program wrote and writes, until it does not run any more.

        Each item is a stream's name, ``stdout`` or ``stderr``, and a line. Arguments as for
        ``logs``.
        """
        for _, stream, data, _ in self._entries(follow=True, tail=tail, since=since, until=until):
            yield stream, data

    def _entries(
        self, *, follow: bool, tail: int | None, since: str, until: str
    ) -> "Iterator[Entry]":
        engine, now_ns = self._places.engine, time.time_ns()
        return following.entries(
            engine.containers,
            engine.containers.find(self.id),
            engine.settings.container_directory(self.id),
            follow=follow,
            tail=tail,
            since_ns=timestamps.moment(since, now_ns) if since else None,
            until_ns=timestamps.moment(until, now_ns) if until else None,
        )

    def top(self, arguments: str = "") -> tuple[list[str], list[list[str]]]:
        """Returns the titles and the rows of its processes; ``arguments`` are those of ps."""
        return process_list.top(self._places.engine, self.id, arguments)

    def stats(self, *, interval: float = 1.0) -> "Iterator[dict[str, Any]]":
        """Yield what it uses, in the Docker API's keys, one document each ``interval`` seconds."""
        sampler = statistics.Sampler(self._places.settings)
        while True:
            try:
                record = self._places.engine.containers.find(self.id)
            except NotFoundError:
                return
            yield sampler.sample(record)
            time.sleep(interval)

    # What runs in it

    def exec(
        self,
        command: "Command",
        *,
        env: "Mapping[str, str] | Iterable[str]" = (),
        user: str = "",
        workdir: str = "",
        tty: bool = False,
        privileged: bool = False,
        stdin: bool = False,
    ) -> "Session":
        """Run another program in it; returns its streams, to iterate over.

        Args:
            command: the program and its arguments.
            env: variables besides the container's, ``NAME=VALUE`` or by name.
            user: who runs it, ``NAME|UID[:GROUP|GID]``.
            workdir: where it starts.
            tty: whether it gets a terminal.
            privileged: whether it gets all capabilities.
            stdin: whether input will be written to it.
        """
        arguments = [command] if isinstance(command, str) else list(command or ())
        pairs = [f"{k}={v}" for k, v in env.items()] if hasattr(env, "items") else list(env)
        fields: dict[str, wire.Value] = {
            "action": "exec", "arguments": [self.id, *arguments], "--env": pairs,
            "--env-file": [], "--user": user, "--workdir": workdir, "--tty": tty,
            "--interactive": stdin, "--detach": False, "--privileged": privileged,
        }  # fmt: skip
        return sessions.start(self._places.settings, fields)

    def exec_run(self, command: "Command", **options: "Any") -> Result:
        """Run another program in it to its end; options as for ``exec``."""
        with self.exec(command, **options) as session:
            session.end_input()
            stdout, stderr = session.read()
            assert session.exit_status is not None
            return Result(session.exit_status, stdout, stderr)

    def attach(self, *, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> "Session":
        """Attach to its program's streams; what it wrote before is in its log."""
        return sessions.attach(
            self._places.settings, self.id, stdin=stdin, stdout=stdout, stderr=stderr
        )


class Containers:
    """The containers of an engine."""

    def __init__(self, places: "Places") -> None:
        self._places = places

    @overload
    def run(
        self, image: str, command: "Command" = ..., *, detach: Literal[True],
        stdin: bytes | None = ..., lifetime: str = ..., **options: "Given",
    ) -> Container: ...  # fmt: skip
    @overload
    def run(
        self, image: str, command: "Command" = ..., *, detach: Literal[False] = ...,
        stdin: bytes | None = ..., lifetime: str = ..., **options: "Given",
    ) -> bytes: ...  # fmt: skip
    def run(
        self,
        image: str,
        command: "Command" = None,
        *,
        detach: bool = False,
        stdin: bytes | None = None,
        lifetime: str = "container",
        **options: "Given",
    ) -> Container | bytes:
        """Create a container and start it.

        Args:
            image: its image.
            command: the program and its arguments; the image's where None.
            detach: whether to return as soon as the program runs; else its output is waited for.
            stdin: what the program gets to read.
            lifetime: ``process`` binds the container's life to this Python program's: when that
                ends, even by SIGKILL, the container is killed, and removed with ``rm=True``.
            options: as those of ``ketch run``, with ``_`` for ``-``: ``memory="64m"``,
                ``env={"A": "b"}``, ``volume=["/data:/data"]``, ``rm=True``.

        Returns:
            The container with ``detach``, else what the program wrote to its standard output.

        Raises:
            ProgramFailedError: the program that was waited for ended with another status than 0.
            KetchError: the container cannot be made or started.
        """
        if detach:
            session = self._run(image, command, {**options, "detach": True}, lifetime)
            session.close()
            return self.get(session.id)
        given = {**options, **({} if stdin is None else {"interactive": True})}
        with self._run(image, command, given, lifetime) as session:
            if stdin is not None:
                session.write(stdin)
                session.end_input()
            stdout, stderr = session.read()
        if session.exit_status:
            raise ProgramFailedError(
                f"container {session.id[:12]}: the program ended with status {session.exit_status}",
                exit_status=session.exit_status, stdout=stdout, stderr=stderr,
            )  # fmt: skip
        return stdout

    def start(
        self,
        image: str,
        command: "Command" = None,
        *,
        lifetime: str = "container",
        **options: "Given",
    ) -> "Session":
        """Create a container and start it, attached: iterate over the result for its output.

        Args:
            image: its image.
            command: the program and its arguments; the image's where None.
            lifetime: as for ``run``.
            options: as for ``run``; with ``interactive=True`` input can be written.
        """
        return self._run(image, command, options, lifetime)

    def _run(
        self, image: str, command: "Command", options: "Mapping[str, Given]", lifetime: str
    ) -> "Session":
        request, name = make_request(image, command, options)
        fields: dict[str, wire.Value] = {
            "action": "run", "request": json.dumps(request), "--name": name, "lifetime": lifetime,
            "--detach": bool(options.get("detach")),
        }  # fmt: skip
        return sessions.start(self._places.settings, fields)

    def create(self, image: str, command: "Command" = None, **options: "Given") -> Container:
        """Create a container without starting it; options as for ``run``."""
        request, name = make_request(image, command, options)
        engine = self._places.engine
        return Container(self._places, creation.create(engine, request, name=name))

    def get(self, name: str) -> Container:
        """Returns the container with this name, ID, or unique start of an ID.

        Raises:
            NotFoundError: there is none.
        """
        return Container(self._places, self._places.engine.containers.find(name))

    def list(
        self,
        *,
        all: bool = False,  # noqa: A002 - Docker's word
        limit: int = 0,
        filters: "Mapping[str, Any] | None" = None,
    ) -> list[Container]:
        """Returns the containers, newest first.

        Args:
            all: those that do not run as well.
            limit: no more than so many, whatever they are doing; 0 for no such limit.
            filters: as those of ``ketch ps``; a value may be a list.
        """
        chosen = Filters(as_filters(filters), listing.FILTERS)
        found = listing.select(self._places.engine, chosen, everything=all, last=limit)
        return [Container(self._places, record) for record in found]

    def prune(
        self, *, filters: "Mapping[str, Any] | None" = None
    ) -> "tuple[builtins.list[str], int]":
        """Remove those that do not run; returns their identifiers, and the bytes reclaimed."""
        return pruning.containers(self._places.engine, as_filters(filters))
