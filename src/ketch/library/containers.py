"""The library's containers."""

import contextlib
import json
from typing import TYPE_CHECKING, Literal, overload

from ketch.engine import pruning
from ketch.engine.containers import creation
from ketch.engine.requests import wire
from ketch.engine.views import listing
from ketch.errors import (
    ImageNotFoundError,
    InvalidArgumentError,
    KetchError,
    ProgramFailedError,
    on_one_line,
)
from ketch.library import given, sessions
from ketch.library.container import Container
from ketch.library.options import as_filters, make_request
from ketch.library.resources import Collection
from ketch.spec import reference as references
from ketch.spec.filters import Filters
from ketch.spec.options import pull_policy

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar, Unpack

    from ketch.engine.records.rows import Container as Record
    from ketch.library.container import Command, Lifetime
    from ketch.library.images import Image, Images
    from ketch.library.keywords import RunOptions
    from ketch.library.places import Places
    from ketch.library.sessions import Session
    from ketch.spec.container import Request

    T = TypeVar("T")

_LAST_WORDS = 200  # characters of a program's last line that its error repeats


class Containers(Collection):
    """The containers of an engine."""

    def __init__(self, places: "Places", images: "Images") -> None:
        super().__init__(places)
        self._images = images

    @overload
    def run(
        self, image: "str | Image", command: "Command" = ..., *, detach: Literal[True],
        stdin: bytes | None = ..., stdout: bool = ..., stderr: bool = ...,
        timeout: float | None = ..., max_output: int | None = ...,
        lifetime: "Lifetime | None" = ..., **options: "Unpack[RunOptions]",
    ) -> Container: ...  # fmt: skip
    @overload
    def run(
        self, image: "str | Image", command: "Command" = ..., *, detach: Literal[False] = ...,
        stdin: bytes | None = ..., stdout: bool = ..., stderr: bool = ...,
        timeout: float | None = ..., max_output: int | None = ...,
        lifetime: "Lifetime | None" = ..., **options: "Unpack[RunOptions]",
    ) -> bytes: ...  # fmt: skip
    def run(
        self,
        image: "str | Image",
        command: "Command" = None,
        *,
        detach: bool = False,
        stdin: bytes | None = None,
        stdout: bool = True,
        stderr: bool = False,
        timeout: float | None = None,
        max_output: int | None = None,
        lifetime: "Lifetime | None" = None,
        **options: "Unpack[RunOptions]",
    ) -> Container | bytes:
        """Create a container and start it.

        Where waiting for the program is interrupted, by Ctrl-C or by a task's cancellation, the
        container is killed and removed.

        Args:
            image: its image, by name or as an ``Image``.
            command: the program and its arguments; the image's where None.
            detach: whether to return as soon as the program runs; else its output is waited for.
            stdin: what the program gets to read, while its output is taken.
            stdout: whether what it writes there is returned.
            stderr: likewise; with both, in the order in which it came.
            timeout: how many seconds the program may take, from its start; then the container is
                killed and, unless it goes on by itself (``detach``), removed. None for ever.
            max_output: how many bytes it may write, to both together, likewise.
            lifetime: ``process`` binds the container's life to this Python program's: when that
                ends, even by SIGKILL, the container is killed, and removed with ``rm=True``. So it
                is where None while the program is waited for; ``container`` has it go on.
            options: as those of ``ketch run``, with ``_`` for ``-``: ``memory="64m"``,
                ``env={"A": "b"}``, ``volume=["/data:/data"]``, ``rm=True``. An image that is not
                there is pulled, unless ``pull="never"``.

        Returns:
            The container with ``detach``, else what the program wrote to its standard output, or
            to what ``stdout`` and ``stderr`` say.

        Raises:
            ProgramFailedError: the program that was waited for ended with another status than 0.
            ProgramTimeoutError: it had not ended in time.
            ProgramOutputError: it wrote more than it was to.
            KetchError: the container cannot be made or started.
        """
        given.limits(timeout, max_output)
        if detach:
            if stdin is not None or max_output is not None:
                raise InvalidArgumentError(
                    "stdin and max_output are for a program that is waited for, and not with"
                    " detach=True",
                    "start() gives a session to write to and to read from",
                )
            session = self._run(
                image, command, options, lifetime or "container", detach=True, timeout=timeout
            )
            session.close()
            return self.get(session.id)
        data = None if stdin is None else given.content("stdin", stdin)
        if data is not None:
            options["interactive"] = True
        session = self._run(image, command, options, lifetime or "process")
        with session:
            pieces = sessions.gather(
                session, data or b"", timeout=timeout, max_output=max_output,
                end=lambda: self._end(session),
            )  # fmt: skip
        if session.exit_status:
            stderr_text = sessions.joined(pieces, "stderr")
            raise ProgramFailedError(
                f"container {session.id[:12]}: the program ended with status {session.exit_status}"
                f"{_last_words(stderr_text)}",
                exit_status=session.exit_status, stdout=sessions.joined(pieces, "stdout"),
                stderr=stderr_text,
            )  # fmt: skip
        return sessions.joined(
            pieces, *(["stdout"] if stdout else []), *(["stderr"] if stderr else [])
        )

    def start(
        self,
        image: "str | Image",
        command: "Command" = None,
        *,
        lifetime: "Lifetime" = "container",
        timeout: float | None = None,
        **options: "Unpack[RunOptions]",
    ) -> "Session":
        """Create a container and start it, attached: iterate over the result for its output.

        Args:
            image: its image, by name or as an ``Image``.
            command: the program and its arguments; the image's where None.
            lifetime: as for ``run``.
            timeout: how many seconds the container may run; then it is killed. None for ever.
            options: as for ``run``; with ``interactive=True`` input can be written.
        """
        given.limits(timeout, None)
        return self._run(image, command, options, lifetime, timeout=timeout)

    def _run(
        self, image: "str | Image", command: "Command", options: "RunOptions",
        lifetime: "Lifetime", *, detach: bool = False, timeout: float | None = None,
    ) -> "Session":  # fmt: skip
        name_of_image = _name(image)
        request, name = make_request(
            name_of_image, command, options, detach=detach, timeout=timeout
        )
        return self._with_image(
            name_of_image, options, lambda: self._start(request, name, lifetime, detach=detach)
        )

    def _start(
        self, request: "Request", name: str, lifetime: "Lifetime", *, detach: bool = True
    ) -> "Session":
        """Create a container as the API's document says, and start it."""
        fields: dict[str, wire.Value] = {
            "action": "run", "request": json.dumps(request), "--name": name,
            "lifetime": given.lifetime(lifetime), "--detach": detach, "forget": True,
        }  # fmt: skip
        return sessions.start(self._places, fields, self._end)

    def _end(self, session: "Session") -> None:
        """End and remove a container that was started for somebody who does not want it any more.

        As subprocess.run() kills its program when it is interrupted.
        """
        session.close()
        self._forget(session.id)

    def _forget(self, container_id: str) -> None:
        with self._places.uninterrupted(), contextlib.suppress(KetchError):
            self._places.engine.containers.remove(container_id, force=True, volumes=True)

    def create(
        self,
        image: "str | Image",
        command: "Command" = None,
        *,
        timeout: float | None = None,
        **options: "Unpack[RunOptions]",
    ) -> Container:
        """Create a container without starting it; arguments as for ``start``."""
        given.limits(timeout, None)
        name_of_image = _name(image)
        request, name = make_request(name_of_image, command, options, timeout=timeout)

        def make() -> "Record":
            with self._places.uninterrupted():
                return creation.create(self._places.engine, request, name=name)

        record = self._with_image(name_of_image, options, make)
        self._places.unless_delivered(lambda: self._forget(record.id))
        return Container(self._places, record)

    def _with_image(self, image: str, options: "RunOptions", make: "Callable[[], T]") -> "T":
        """Make something of an image, which is pulled first if that is asked for or needed."""
        policy = pull_policy({"pull": options.get("pull") or ""})
        platform = options.get("platform") or ""
        if policy == "always":
            self._images.pull(image, platform=platform)
        try:
            return make()
        except ImageNotFoundError:
            if policy != "missing" or isinstance(references.parse_any(image), str):
                raise
        self._images.pull(image, platform=platform)
        return make()

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
    ) -> "list[Container]":
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


def _name(image: "str | Image") -> str:
    return image if isinstance(image, str) else image.id


def _last_words(stderr: bytes) -> str:
    """Returns the end of what a program wrote there, to stand behind why it failed."""
    lines = stderr.decode(errors="surrogateescape").strip().splitlines()
    return f": {on_one_line(lines[-1][-_LAST_WORDS:])}" if lines else ""
