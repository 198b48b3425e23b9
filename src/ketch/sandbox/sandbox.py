"""A sandbox: a locked container without a program of its own, for programs that nobody has read."""

import contextlib
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from ketch.errors import InvalidArgumentError, KetchError, NotFoundError
from ketch.library import given
from ketch.library.engine import Engine
from ketch.sandbox import creation, forking, host, programs, project
from ketch.sandbox.attendance import Attendance
from ketch.sandbox.code import Interpreters
from ketch.sandbox.egress import attachment
from ketch.sandbox.files import Files
from ketch.sandbox.programs import OUTPUT_BYTES_MAX, Process, RunResult

if TYPE_CHECKING:
    import builtins
    from types import TracebackType
    from typing import Any, Self

    from ketch.library.container import Container, Lifetime
    from ketch.library.images import Image
    from ketch.sandbox.changes import ProjectChange
    from ketch.sandbox.code import CodeResult
    from ketch.sandbox.egress.record import Connection
    from ketch.sandbox.egress.secret import Secret


class Sandbox:
    """A container for programs that nobody has read. As a context manager, it is killed at the end.

    Made by ``create``; ``connect`` finds one that another process has made. Nothing of its image
    runs by itself. Programs run as an ordinary user without capabilities, with ids that nobody else
    on the machine has, behind a narrow system call filter (``spec/seccomp_sandbox.py``), without a
    network, on files that are read-only but for ``writable``, which is memory of bounded size.

    Attributes:
        files: its files.
    """

    def __init__(self, engine: Engine, container: "Container") -> None:
        self._engine = engine
        self._container = container
        self._attendance = Attendance(container)
        self._interpreters = Interpreters(container)
        self.files = Files(container)

    @classmethod
    def create(
        cls,
        image: "str | Image",
        *,
        name: str | None = None,
        user: str | None = None,
        memory: str | int | None = "512m",
        cpus: float | None = 1.0,
        pids: int | None = 128,
        disk: str | int = "256m",
        timeout: float | None = 300.0,
        idle_timeout: float | None = None,
        lifetime: "Lifetime" = "process",
        read_only: bool = True,
        workdir: str = "/workspace",
        writable: Iterable[str] = ("/workspace", "/tmp"),
        env: Mapping[str, str] | None = None,
        mounts: Mapping[str, str] | None = None,
        egress: Iterable[str] | None = (),
        secrets: "Iterable[Secret]" = (),
        ports: Iterable[int] = (),
        userns: str = "auto",
        engine: Engine | None = None,
        **options: "Any",
    ) -> "Self":
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
        reached = attachment.Wanted(egress, secrets, options.get("dns", ()))
        if reached.rules:
            options.pop("dns", None)
        engine = engine or Engine()
        if timeout is not None:
            given.seconds("timeout", timeout, some=True)
        creation.limit("cpus", cpus)
        creation.limit("pids", pids, whole=True)
        ports = creation.own_ports(ports)
        locked = {
            **creation.locked(
                reached, name=name, user=user, memory=memory, disk=disk, writable=writable,
                mounts=mounts, env=env, idle_timeout=idle_timeout,
                labels=options.pop("label", None) or {}, pids=pids, userns=userns,
            ),
            "workdir": workdir, "cpus": cpus, "read_only": read_only, "userns": userns,
            "network": creation.network(engine, ports, is_open=egress is None),
            "publish": creation.published(engine, ports),
        }  # fmt: skip
        container = engine.containers.run(
            image, [], detach=True, lifetime=lifetime, timeout=timeout, **{**locked, **options}
        )
        made = cls(engine, container)
        with made._killed_otherwise():
            reached.attach(container)
        return made

    @classmethod
    def host(
        cls,
        project: "str | os.PathLike[str]" = ".",
        *,
        memory: str | int | None = "2g",
        cpus: float | None = 2.0,
        pids: int | None = 512,
        disk: str | int = "1g",
        env: Mapping[str, str] | None = None,
        mounts: Mapping[str, str] | None = None,
        engine: Engine | None = None,
        **create: "Any",
    ) -> "Self":
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
        engine = engine or Engine()
        image, options = host.view(engine, project, creation.bytes_of("disk", disk))
        options["env"] |= env or {}
        options["mounts"] |= mounts or {}
        limits = {"memory": memory, "cpus": cpus, "pids": pids, "disk": disk}
        return cls.create(image, engine=engine, **{**options, **limits, **create})

    @classmethod
    def connect(cls, name: str, *, engine: Engine | None = None) -> "Self":
        """Find a sandbox by its name, or its container's ID.

        Raises:
            NotFoundError: there is none.
        """
        engine = engine or Engine()
        try:
            container = engine.containers.get(name)
        except NotFoundError as error:
            raise NotFoundError(f"No such sandbox: {name}") from error
        if creation.LABEL not in container.labels:
            raise NotFoundError(f"No such sandbox: {name}", "it is a container of another kind")
        return cls(engine, container)

    @classmethod
    def list(cls, *, engine: Engine | None = None) -> "list[Self]":
        """Returns the sandboxes that there are, of whatever process."""
        engine = engine or Engine()
        return [
            cls(engine, one) for one in engine.containers.list(filters={"label": creation.LABEL})
        ]

    def __repr__(self) -> str:
        """Its name."""
        return f"<Sandbox {self.name}>"

    def __enter__(self) -> "Self":
        """Nothing more than itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:  # fmt: skip
        """Kill it."""
        self.kill()

    # What it is

    @property
    def id(self) -> str:
        """Its container's ID."""
        return self._container.id

    @property
    def name(self) -> str:
        """Its name."""
        return self._container.name

    @property
    def is_running(self) -> bool:
        """Whether it is still there."""
        try:
            self._container.reload()
        except NotFoundError:
            return False
        return self._container.status in {"running", "paused"}

    def stats(self) -> "dict[str, Any]":
        """Returns what it uses, in the Docker API's keys."""
        return next(self._container.stats())

    def url(self, port: int) -> str:
        """Returns the address at which this machine reaches a server on one of its ``ports``.

        Raises:
            InvalidArgumentError: it was made without a network.
        """
        if not self._container.ip:
            raise InvalidArgumentError(
                f"{self.name} has no network", "name the port when it is made: ports=[...]"
            )
        if led := self._container.ports.get(f"{port}/tcp"):
            return f"http://{led[0]['HostIp']}:{led[0]['HostPort']}"
        return f"http://{self._container.ip}:{port}"

    # What it reaches

    def connections(self) -> "builtins.list[Connection]":
        """Returns what it has tried to reach, the last few thousand attempts, the oldest first.

        Raises:
            ConflictError: it was made without ``egress``, or has ended.
        """
        return attachment.connections(self._container)

    def allow(self, *rules: str) -> None:
        """Let it reach more from now on.

        Args:
            rules: as for ``egress`` of ``create``.

        Raises:
            ConflictError: it was made without ``egress``, or has ended.
            InvalidArgumentError: one of them is none.
        """
        attachment.ask(self._container, do="allow", rules=attachment.checked(rules))

    def deny(self, *rules: str) -> None:
        """Take rules away; connections that no other one allows end.

        Args:
            rules: as they were given; all of them where there are none.

        Raises:
            ConflictError: it was made without ``egress``, or has ended.
            NotFoundError: it has no such rule.
        """
        attachment.deny(self._container, rules)

    # What runs in it

    def run(
        self,
        command: "str | Iterable[str]",
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
        return programs.run(
            self._attendance, command, stdin, timeout=timeout, max_output=max_output, env=env,
            user=user, cwd=cwd,
        )  # fmt: skip

    def start(
        self,
        command: "str | Iterable[str]",
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
        session = programs.start(
            self._container, command, env=env, user=user, cwd=cwd, tty=tty, stdin=stdin
        )
        return Process(self._container._places, session)

    def run_code(
        self,
        code: str,
        language: "Literal['python', 'shell', 'node']" = "python",
        context: str = "default",
        *,
        timeout: float | None = 60.0,
        max_output: int = OUTPUT_BYTES_MAX,
    ) -> "CodeResult":
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
        return self._interpreters.run(
            code, language, context, timeout=timeout, max_output=max_output
        )

    def interrupt(
        self, language: "Literal['python', 'shell', 'node']" = "python", context: str = "default"
    ) -> None:
        """Interrupt what an interpreter does, from another thread: as Ctrl-C would."""
        self._interpreters.interrupt(language, context)

    # What is done to it

    def pause(self) -> None:
        """Freeze all that runs in it."""
        self._container.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._container.unpause()

    def set_timeout(self, seconds: float | None) -> None:
        """Have it live so many seconds from now on, whole ones; None for ever."""
        limit = 0
        if seconds is not None:
            given.seconds("seconds", seconds)
            record = self._container._places.engine.containers.find(self.id)
            lived = (time.time_ns() - record.started_ns) / 1e9
            limit = max(1, math.ceil(lived + seconds))
        self._container.update(timeout=limit)

    def kill(self) -> None:
        """End it: its programs are killed, and its files go with it."""
        with self._container._places.uninterrupted():
            self._interpreters.close()
            self._attendance.close()
            with contextlib.suppress(NotFoundError):
                self._container.remove(force=True, volumes=True)
            image = forking.image_of(self._container)
            if image:
                with contextlib.suppress(KetchError):  # another one of it is still there
                    self._engine.images.remove(image)

    # What it did to a project

    @property
    def project(self) -> str:
        """The directory that ``host`` was given; empty where it was made otherwise."""
        return project.directory(self._container)

    def changes(self) -> "builtins.list[ProjectChange]":
        """Returns what it did to its project, by path, compared with how that is now.

        Raises:
            ConflictError: it has ended, and its changes with it.
            InvalidArgumentError: it has no project.
        """
        return project.changed(self._container)

    def apply(self, *paths: str, overwrite: bool = False) -> "builtins.list[ProjectChange]":
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
        return project.apply(self._container, paths, overwrite=overwrite)

    # Others like it

    def snapshot(self, name: str = "") -> "Image":
        """Make an image of its files as they are now, for other sandboxes; memory is not kept.

        Args:
            name: the image's name, or empty for one without.
        """
        return forking.snapshot(self._engine, self._container, name)

    def fork(self, count: int = 1, *, lifetime: "Lifetime" = "process") -> "builtins.list[Self]":
        """Make sandboxes like this one, each with its own copy of the files as they are now.

        What lies in ``writable`` is not copied but shared for as long as nobody changes it, unless
        programs run in this one just now. What runs is not forked.

        Args:
            count: how many.
            lifetime: as for ``create``.

        Raises:
            InvalidArgumentError: there cannot be so many.
        """
        if count < 0:
            raise InvalidArgumentError(f"count={count}: a number from 0 on is wanted")
        self._attendance.end()
        fork = forking.Fork(self._engine, self._container, lifetime)
        made: list[Self] = []

        def undo() -> None:
            for one in made:
                one.kill()
            fork.let_go()

        try:
            for _ in range(count):
                made.append(type(self)(self._engine, fork.make()))
                fork.finish(made[-1]._container)
        except BaseException:
            undo()
            raise
        self._container._places.unless_delivered(undo)
        return made

    @contextlib.contextmanager
    def _killed_otherwise(self) -> "Iterator[None]":
        """Kill it where a block fails."""
        try:
            yield
        except BaseException:
            self.kill()
            raise
