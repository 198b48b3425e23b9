"""One of the library's containers."""

import contextlib
import os
import threading
import time
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

from ketch.engine.containers import renaming, restarting, updating
from ketch.engine.files import committing, copying, files
from ketch.engine.requests import wire
from ketch.engine.views import following, inspection, process_list, statistics
from ketch.errors import (
    ConflictError,
    KetchError,
    NotFoundError,
    ProgramTimeoutError,
    UnavailableError,
)
from ketch.library import given, sessions
from ketch.library.archives import Archive
from ketch.library.docker_names import lines, paired, words
from ketch.library.images import Image
from ketch.library.options import read
from ketch.library.resources import Resource
from ketch.library.sessions import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime, timedelta
    from typing import Any, Unpack

    from ketch.engine.records.rows import Container as Record
    from ketch.images.tar import Stream
    from ketch.library.keywords import UpdateOptions
    from ketch.library.places import Places

    Command = str | Iterable[str] | None
    Lifetime = Literal["container", "process"]
    Moment = str | datetime | timedelta
    Path = str | os.PathLike[str]

_HEALTH_PAUSE_MS = 100
_KINDS: "tuple[Literal['changed', 'added', 'deleted'], ...]" = ("changed", "added", "deleted")


class Result(NamedTuple):
    """What a program ended with, and what it wrote."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class Change(NamedTuple):
    """One difference between a container's files and its image's."""

    kind: "Literal['changed', 'added', 'deleted']"
    path: str


class LogEntry(NamedTuple):
    """What a program wrote at once: a line, or a piece of a long one.

    Attributes:
        time_ns: when, in nanoseconds since the epoch.
        stream: ``stdout`` or ``stderr``.
        data: with the line's end.
        attributes: labels and variables that the log's options asked to keep.
    """

    time_ns: int
    stream: str
    data: bytes
    attributes: dict[str, str]


class Container(Resource):
    """One container. As a context manager, it is removed at the end, whatever it is doing.

    Attributes:
        id: 64 hexadecimal digits.
        attrs: its document, as it was when it was last read, in the Docker API's keys.
    """

    def __init__(self, places: "Places", record: "Record") -> None:
        super().__init__(places, record.id)
        self._show(inspection.document(places.engine, record))

    def _leave(self) -> None:
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

    @property
    def health(self) -> "Literal['starting', 'healthy', 'unhealthy', '']":
        """What its health check had found when it was last read; empty without a check."""
        found = self.attrs["State"].get("Health") or {}
        status = found.get("Status", "")
        return "" if status == "none" else status

    @property
    def ip(self) -> str:
        """Its address on its first network, when it was last read; empty where it has none."""
        networks = self.attrs["NetworkSettings"].get("Networks") or {}
        addresses = (
            one.get(key) for key in ("IPAddress", "GlobalIPv6Address") for one in networks.values()
        )
        return next((str(address) for address in addresses if address), "")

    def port(self, port: int | str) -> int:
        """Returns which port of the host leads to one of its own.

        Args:
            port: its own: ``80``, or ``"53/udp"``.

        Raises:
            NotFoundError: it publishes no such port, or does not run.
        """
        name = str(port) if "/" in str(port) else f"{port}/tcp"
        self.reload()
        for binding in self.ports.get(name) or ():
            return int(binding["HostPort"])
        raise NotFoundError(
            f"container {self.name} has no published port {name}",
            "publish it when it is made: publish={'0': 80}",
        )

    def reload(self) -> None:
        """Read it again.

        Raises:
            NotFoundError: it is gone.
        """
        engine = self._places.engine
        self._show(inspection.document(engine, engine.containers.find(self.id)))

    # What is done to it

    def start(self, *, lifetime: "Lifetime" = "container") -> None:
        """Start it.

        Args:
            lifetime: ``process`` has it end, and go, when this Python program does, even by
                SIGKILL.
        """
        fields: dict[str, wire.Value] = {
            "action": "start", "container": self.id, "lifetime": given.lifetime(lifetime),
        }  # fmt: skip
        sessions.start(self._places, fields, Session.close).close()
        self.reload()

    def stop(self, *, timeout: int | None = None, signal: str | int = "") -> None:
        """Ask its program to end, kill it when it does not, wait for its end.

        Args:
            timeout: how many seconds to wait before SIGKILL, -1 for ever; the container's own, or
                ten, where None.
            signal: what to ask with; the container's own, or SIGTERM, where empty.
        """
        self._places.engine.containers.stop(self.id, timeout, given.text("signal", signal))
        self._reread()

    def restart(self, *, timeout: int | None = None, signal: str | int = "") -> None:
        """Stop it, and start it again; one that goes once it ends does not go in between."""
        places, name = self._places, given.text("signal", signal)
        restarting.restart(places.settings, places.engine.containers, self.id, timeout, name)
        self._reread()

    def kill(self, signal: str | int = "KILL") -> None:
        """Send its first process a signal, by name or number; with SIGKILL, wait for its end."""
        self._places.engine.containers.kill(self.id, given.text("signal", signal) or "KILL")
        self._reread()

    def wait(
        self,
        condition: "Literal['not-running', 'next-exit', 'removed']" = "not-running",
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
        given.limits(timeout, None)
        wait = self._places.engine.containers.wait
        if timeout is None:
            return wait(self.id, condition)
        late = threading.Event()
        timer = threading.Timer(timeout, self._end_late, (late,))
        timer.daemon = True
        timer.start()
        try:
            status = wait(self.id, condition)
        finally:
            timer.cancel()
        if late.is_set():
            raise ProgramTimeoutError(
                f"container {self.name} had not ended after {timeout:g} s and was killed",
                exit_status=status,
            )
        return status

    def _end_late(self, late: threading.Event) -> None:
        """Kill it, in a thread of its own: which has a connection of its own to close."""
        with contextlib.closing(self._places), contextlib.suppress(KetchError):
            late.set()
            self._places.engine.containers.kill(self.id)

    def wait_healthy(self, *, timeout: float = 60.0) -> None:
        """Wait until its health check finds it healthy.

        Args:
            timeout: for how many seconds at most.

        Raises:
            ConflictError: it has no health check, or has ended.
            UnavailableError: it was not healthy in time; it goes on.
        """
        given.limits(timeout, None)
        deadline = time.monotonic() + timeout
        while True:
            self.reload()
            if not self.health:
                raise ConflictError(
                    f"container {self.name} has no health check",
                    "one comes with the image, or with health_cmd when it is made",
                )
            if self.health == "healthy":
                return
            if self.status in {"exited", "dead"}:
                raise ConflictError(
                    f"container {self.name} has ended with status {self.exit_status}"
                )
            if time.monotonic() >= deadline:
                checks = self.attrs["State"]["Health"].get("Log") or [{}]
                said = str(checks[-1].get("Output", "")).strip()
                raise UnavailableError(
                    f"container {self.name} is {self.health} after {timeout:g} s", said
                )
            self._places.patience.wait(_HEALTH_PAUSE_MS)

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

    def update(self, **options: "Unpack[UpdateOptions]") -> list[str]:
        """Change what it may use, and its restart policy, while it runs; returns warnings.

        Args:
            options: as those of ``ketch update``: ``memory="64m"``, ``cpus=0.5``,
                ``restart="always"``.
        """
        changes = updating.changes(*read(updating.OPTIONS, options))
        warnings = updating.update(self._places.engine, self.id, changes)
        self.reload()
        return warnings

    def commit(
        self,
        name: str = "",
        *,
        changes: "str | Iterable[str]" = (),
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
        engine = self._places.engine
        image_id = committing.commit(
            engine, self.id, name, changes=lines(changes), author=author, message=message,
            pause=pause,
        )  # fmt: skip
        return Image(self._places, engine.images.resolve(image_id))

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
        since: "Moment" = "",
        until: "Moment" = "",
    ) -> bytes:
        """Returns what its program wrote, as far as its log has kept it.

        Args:
            stdout: whether what it wrote to its standard output counts.
            stderr: whether what it wrote to its standard error counts.
            tail: how many lines from the end; None for all.
            since: leave out what is older: a time, or for how long back, ``10m`` or a timedelta.
            until: leave out what is newer, likewise.
        """
        wanted = {"stdout": stdout, "stderr": stderr}
        entries = self.log_entries(tail=tail, since=since, until=until)
        return b"".join(entry.data for entry in entries if wanted[entry.stream])

    def follow_logs(
        self, *, tail: int | None = None, since: "Moment" = "", until: "Moment" = ""
    ) -> "Iterator[tuple[str, bytes]]":
        """Yield what its program wrote and writes, until it does not run any more.

        Each item is a stream's name, ``stdout`` or ``stderr``, and a line. Arguments as for
        ``logs``.
        """
        for entry in self.log_entries(follow=True, tail=tail, since=since, until=until):
            yield entry.stream, entry.data

    def log_entries(
        self,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: "Moment" = "",
        until: "Moment" = "",
    ) -> "Iterator[LogEntry]":
        """Yield what its program wrote, with the times.

        Args:
            follow: whether to go on until it does not run any more.
            tail: as for ``logs``.
            since: as for ``logs``.
            until: as for ``logs``.
        """
        engine, now_ns = self._places.engine, time.time_ns()
        entries = following.entries(
            engine.containers,
            engine.containers.find(self.id),
            engine.settings.container_directory(self.id),
            follow=follow,
            tail=tail,
            since_ns=given.moment("since", since, now_ns),
            until_ns=given.moment("until", until, now_ns),
            patience=self._places.patience,
        )
        return (LogEntry(*entry) for entry in entries)

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
            self._places.patience.wait(int(interval * 1000))

    # Its files

    def copy_from(
        self,
        source: "Path",
        target: "Path",
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
        copying.out_of(
            self._places.engine, self.id, os.fspath(source), os.fspath(target),
            follow_link=follow_link, archive=archive, set_ids=set_ids,
        )  # fmt: skip

    def copy_to(
        self, source: "Path", target: "Path", *, follow_link: bool = False, archive: bool = False
    ) -> None:
        """Copy a file or a directory into it, as ``ketch cp`` does.

        Args:
            source: a path here; a directory's content alone is meant by ``/.`` at the end.
            target: a path in it: a directory to copy into, or what the copy is called.
            follow_link: whether, where the source is a symlink, what it leads to is copied.
            archive: whether all belongs to its user, where that is a number; else owners are kept.
        """
        copying.into(
            self._places.engine, self.id, os.fspath(source), os.fspath(target),
            follow_link=follow_link, archive=archive,
        )  # fmt: skip

    def get_archive(self, path: "Path") -> Archive:
        """Returns a file, or a directory with all that is in it, as a tar archive."""

        @contextlib.contextmanager
        def pieces() -> "Iterator[Iterator[bytes]]":
            with files.reading(self._places.engine, self.id, os.fspath(path)) as (_, found):
                yield found

        return Archive(pieces())

    def put_archive(self, path: "Path", archive: "bytes | Archive | Stream | IO[bytes]") -> None:
        """Unpack a tar archive, plain or compressed, into one of its directories.

        Args:
            path: the directory, which is there already.
            archive: its bytes, or what has a ``read`` method.
        """
        stream = given.file("archive", archive, "read")
        files.write_archive(self._places.engine, self.id, os.fspath(path), stream)

    def export(self) -> Archive:
        """Returns all its files as a tar archive, without what its volumes hold."""
        return Archive(files.exported(self._places.engine, self.id))

    def diff(self) -> "list[Change]":
        """Returns what it changed of its image's files."""
        return [
            Change(_KINDS[change.kind], f"/{os.fsdecode(change.path)}")
            for change in files.changes(self._places.engine, self.id)
        ]

    # What runs in it

    def exec(
        self,
        command: "Command",
        *,
        env: "Mapping[str, str] | Iterable[str] | None" = (),
        user: str | int | None = "",
        workdir: "str | os.PathLike[str] | None" = "",
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
        return self._exec("exec", command, env, user, workdir, tty=tty, stdin=stdin,
                          privileged=privileged)  # fmt: skip

    def _exec(
        self, action: str, command: "Command", env: "Mapping[str, str] | Iterable[str] | None",
        user: str | int | None, workdir: "str | os.PathLike[str] | None", *, tty: bool = False,
        stdin: bool = False, privileged: bool = False, ask: "sessions.Ask | None" = None,
    ) -> Session:  # fmt: skip
        """Run another program in it.

        Args:
            action: ``exec``, or ``exec-lasting`` for one that is expected to run for long: what
                watches over it is made smaller, which takes a moment more.
            command: as for ``exec``, like all that follows.
            env: as for ``exec``.
            user: as for ``exec``.
            workdir: as for ``exec``.
            tty: as for ``exec``.
            stdin: as for ``exec``.
            privileged: as for ``exec``.
            ask: who is asked first; what it returns None for is asked of the zygote.
        """
        fields: dict[str, wire.Value] = {
            "action": action, "arguments": [self.id, *words(command)],
            "--env": paired(() if env is None else env, "="), "--env-file": [],
            "--user": given.text("user", user), "--workdir": given.text("workdir", workdir),
            "--tty": tty, "--interactive": stdin, "--detach": False, "--privileged": privileged,
        }  # fmt: skip
        if ask is not None and (session := ask(fields)) is not None:
            return session
        return sessions.start(self._places, fields, Session._kill)

    def exec_run(
        self,
        command: "Command",
        *,
        env: "Mapping[str, str] | Iterable[str] | None" = (),
        user: str | int | None = "",
        workdir: "str | os.PathLike[str] | None" = "",
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
        given.limits(timeout, max_output)
        data = given.content("stdin", b"" if stdin is None else stdin)
        session = self.exec(
            command, env=env, user=user, workdir=workdir, tty=tty, privileged=privileged,
            stdin=bool(data),
        )  # fmt: skip
        with session:
            pieces = sessions.gather(
                session, data, timeout=timeout, max_output=max_output, end=session._kill
            )
        assert session.exit_status is not None
        return Result(
            session.exit_status, sessions.joined(pieces, "stdout"),
            sessions.joined(pieces, "stderr"),
        )  # fmt: skip

    def attach(self, *, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> Session:
        """Attach to its program's streams; what it wrote before is in its log."""
        session = sessions.attach(self._places, self.id, stdin=stdin, stdout=stdout, stderr=stderr)
        self._places.engine.containers.note(self.id, "attach")
        return session
