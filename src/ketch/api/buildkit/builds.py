"""Builds that are asked for by BuildKit's API: from a Solve call to the answer.

A client asks for a build either at once, or, as buildx does, in three steps: a Solve that names no
front end, which waits; calls of ``LLBBridge``, which ask the front end itself for results; and a
Return, which says which of them the waiting Solve is to export. A result is what was asked for
until it is exported: then it is built. All calls of one build share its name, ``Ref``.
Source: moby/buildkit, control/control.go, control/gateway/gateway.go, solver/llbsolver/solver.go.
"""

import asyncio
import base64
import contextlib
import json
import os
import threading
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, TypeVar

from ketch.api.buildkit import asking, llb, schema
from ketch.api.buildkit.agents import Agents
from ketch.api.buildkit.asking import Asked
from ketch.api.buildkit.client import Client
from ketch.api.buildkit.grpc import Code, StatusError
from ketch.api.buildkit.places import ClientPlaces
from ketch.api.buildkit.sessions import Session, Sessions
from ketch.api.buildkit.telling import Telling
from ketch.api.errors import message
from ketch.build import answering, place
from ketch.build.failures import BuildError
from ketch.build.request import LayoutInput, Output
from ketch.build.solving import Calling
from ketch.dataclass import dataclass, replace
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from ketch.spec.dockerfile.errors import DockerfileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    from ketch.api.application import Application
    from ketch.build.planning.outline import Answer
    from ketch.build.progress import Event, Progress
    from ketch.build.request import Input, Request, Result
    from ketch.engine.engine import Engine
    from ketch.engine.processes import Patience
    from ketch.spec.dockerfile.errors import Place, Source

    Work = Callable[[Engine, Request, Progress, Patience], "R"]
    Solve = Work[Result]

R = TypeVar("R")

BUILDS_MAX = 32
"""How many builds may go on at once; others wait their turn."""
_BEGUN_MAX = 1000
"""How many may have begun, those that wait for their clients included."""
ARRIVAL_SECONDS = 6.0
"""How long a call that belongs to a build waits for it to begin: solver/jobs.go."""
_LINGER_SECONDS = 10.0  # for who asks for the status of a build that has just ended
_NAME_CHARACTERS_MAX = 200
_RESULTS_MAX = 256
_HISTORY_MAX = 50
_HISTORY_LOG_BYTES_MAX = 16 << 20
"""How much of what programs wrote is kept of all builds that have ended."""
_READABLE = {"git", "http", "https"}


@dataclass(frozen=True)
class Record:
    """A build that has ended.

    Attributes:
        ref: its name.
        asked: what for.
        began_ns: when.
        ended_ns: when it ended.
        error: what went wrong, None for nothing.
        response: what was answered.
        telling: what it said.
    """

    ref: str
    asked: "Asked"
    began_ns: int
    ended_ns: int
    error: StatusError | None
    response: dict[str, str]
    telling: Telling


class Upload:
    """A context that comes as the body of one request, for a build that another asks for.

    Attributes:
        stream: the body, once it is there.
        taken: is set when the build has come.
        read: is set when the build wants no more of it.
    """

    def __init__(self) -> None:
        self.stream: asyncio.Future[BinaryIO] = asyncio.get_running_loop().create_future()
        self.taken = asyncio.Event()
        self.read = asyncio.Event()


class Build:
    """One build.

    Args:
        ref: its name.
        session: the client's, empty for one that has none.
        body: a context that came with the request itself.

    Attributes:
        telling: what it says.
        returned: what is exported: resolved by a Return.
        results: what its front end was asked for, by the names that it gave.
        sources: results that are a source by itself, by their names.
        earlier: results of other builds that are its inputs: paths of OCI layouts by their names.
        held: what lasts as long as the build.
    """

    def __init__(self, ref: str, session: str, body: "BinaryIO | None" = None) -> None:
        self.ref = ref
        self.session = session
        self.body = body
        self.telling = Telling()
        self.results: dict[str, Asked] = {}
        self.sources: dict[str, llb.Source] = {}
        self.earlier: dict[str, str] = {}
        self.held = contextlib.ExitStack()
        self.returned: asyncio.Future[Asked | None] = asyncio.get_running_loop().create_future()
        self.began_ns = time.time_ns()


class Builds:
    """All builds of a server.

    Args:
        application: the server's.
        solve: the builder.

    Attributes:
        sessions: of its clients.
        history: builds that have ended, the latest last.
        uploads: contexts that builds wait for, by the names of those.
    """

    def __init__(self, application: "Application", solve: "Solve") -> None:
        self.application = application
        self.sessions = Sessions()
        self.history: deque[Record] = deque(maxlen=_HISTORY_MAX)
        self.uploads: dict[str, Upload] = {}
        self._solve = solve
        self._there: dict[str, Build] = {}
        self._begun = 0
        self._turns = asyncio.Semaphore(BUILDS_MAX)
        self._arrived = asyncio.Event()
        # What front ends were asked for lately: a build may be an input of another one.
        self._results: OrderedDict[str, tuple[Asked, str]] = OrderedDict()

    @contextlib.contextmanager
    def begun(self, ref: str, session: str, body: "BinaryIO | None" = None) -> "Iterator[Build]":
        """Have a build for a block, and for a moment longer to those who ask how it goes.

        Raises:
            InvalidArgumentError: it has no name.
            ConflictError: there is one of that name.
            UnavailableError: there are too many.
        """
        if not ref or len(ref) > _NAME_CHARACTERS_MAX:
            raise InvalidArgumentError("a build needs a name (Ref)")
        if ref in self._there:
            raise ConflictError(f"build {ref} exists")
        if self._begun >= _BEGUN_MAX:
            raise UnavailableError(f"more than {_BEGUN_MAX} builds at once", "try again later")
        build = self._there[ref] = Build(ref, session, body)
        self._begun += 1
        self._arrived.set()
        try:
            yield build
        finally:
            self._begun -= 1
            build.telling.end()
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, build.held.close)
            loop.call_later(_LINGER_SECONDS, self._there.pop, ref, None)

    async def get(self, ref: str) -> Build:
        """Returns a build, which may still be on its way.

        Raises:
            NotFoundError: it does not come.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ARRIVAL_SECONDS):
                while ref not in self._there:
                    self._arrived.clear()
                    await self._arrived.wait()
        if ref not in self._there:
            raise NotFoundError(f"no such job {ref[:_NAME_CHARACTERS_MAX]}")
        return self._there[ref]

    async def telling(self, ref: str) -> Telling:
        """Returns what a build says, which may still be on its way, or have ended long ago.

        Raises:
            NotFoundError: it does not come.
        """
        if ref not in self._there:
            for record in reversed(self.history):
                if record.ref == ref:
                    return record.telling
        return (await self.get(ref)).telling

    def remember(self, record: Record) -> None:
        """Take a build that has ended into the history; logs of the oldest make room."""
        self.history.append(record)
        log_bytes = 0
        for known in reversed(self.history):
            log_bytes += known.telling.log_bytes
            if log_bytes > _HISTORY_LOG_BYTES_MAX:
                known.telling.forget_logs()

    def keep(self, name: str, asked: "Asked", session: str) -> None:
        """Remember what a front end was asked for."""
        self._results[name] = (asked, session)
        while len(self._results) > _RESULTS_MAX:
            self._results.popitem(last=False)

    async def run(self, build: Build, asked: "Asked") -> "Result":
        """Build what was asked for, and have its client get what it wanted of it.

        Raises:
            KetchError: it cannot be built.
        """
        result, told = await self._have(build, asked, self._solve)
        return replace(result, metadata={**result.metadata, **told})

    async def answer(self, build: Build, asked: "Asked", question: str) -> "Answer":
        """Answer a question about the Dockerfile: see ``ketch.build.answering``.

        Raises:
            KetchError: the Dockerfile cannot be read.
        """

        def work(
            engine: "Engine", wanted: "Request", progress: "Progress", patience: "Patience"
        ) -> "Answer":
            return answering.answer(engine, wanted, question, progress, patience)

        answer, _ = await self._have(build, replace(asked, outputs=()), work)
        return answer

    async def read(self, build: Build, source: llb.Source, path: str) -> bytes:
        """Returns a file of a source, such as a Dockerfile at a URL.

        Raises:
            KetchError: it cannot be had.
        """
        if source.scheme not in _READABLE:
            raise UnsupportedError(f"reading files of an LLB source {source.scheme}://")
        named = source.attributes.get("http.filename", path)
        if source.scheme != "git" and path != named:
            raise NotFoundError(f"{path[:200]}: no such file or directory")

        def work(engine: "Engine", wanted: "Request", _: "Progress", patience: "Patience") -> bytes:
            # Nobody is told: clients ask for many files that may not be there.
            if source.scheme == "git":
                return answering.text(engine, wanted, patience=patience)
            # As it is: whether it is an archive is what its reader wants to know.
            url = f"{source.scheme}://{source.path}"
            return answering.download(engine, wanted, url, patience)

        asked = Asked({"filename": path}, inputs={"context": source})
        text, _ = await self._have(build, asked, work)
        return text

    async def _have(
        self, build: Build, asked: "Asked", work: "Work[R]", session_name: str = ""
    ) -> "tuple[R, dict[str, str]]":
        """Have the builder do something for a client, as long as somebody waits for it."""
        name = session_name or build.session
        # Who posts a build may do without files, secrets and agents of its own.
        alone = build.body is not None and not name
        session = Session(None) if alone else await self.sessions.get(name)
        loop = asyncio.get_running_loop()
        client = Client(session, loop)
        teller = Teller(loop, build.telling)
        # A build waits for others in its thread, of which there are so many for the whole server.
        async with self._turns:
            return await self._in_thread(build, client, asked, work, teller)

    async def _in_thread(
        self, build: Build, client: Client, asked: "Asked", work: "Work[R]", teller: "Teller"
    ) -> "tuple[R, dict[str, str]]":
        with Calling() as patience:

            def do(engine: "Engine") -> "tuple[R, dict[str, str]]":
                def within(wanted: "Request") -> "R":
                    return work(engine, wanted, teller, patience)

                return self._do(engine, build, client, asked, within)

            running = asyncio.ensure_future(self.application.run_slowly(do))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                patience.call_off()
                client.call_off()
                await asyncio.wait((running,))
                running.exception()  # nobody is there to hear of it
                raise

    def _do(
        self,
        engine: "Engine",
        build: Build,
        client: Client,
        asked: "Asked",
        work: "Callable[[Request], R]",
    ) -> "tuple[R, dict[str, str]]":
        """Do it, in a thread, with what is the client's; returns what it is told beside as well."""

        def earlier(name: str) -> "Input":
            if name not in build.earlier:
                raise NotFoundError(f"the result {name[:100]} is no input of this build")
            return LayoutInput(build.earlier[name])

        with (
            ClientPlaces(client, self.sessions, engine.images.root, earlier, build.body) as places,
            Agents(client, places.private) as agents,
        ):
            wanted = replace(
                asking.request(asked, places),
                secrets=client,
                agents=agents,
                environment=os.environ,
                credentials=client.credentials,
            )
            found = work(wanted)
            return found, places.finish()

    async def take_in(self, build: Build, asked: "Asked") -> None:
        """Have results of other builds that are a build's inputs, while their clients are there.

        Raises:
            NotFoundError: one is not known any more.
            KetchError: one cannot be built.
        """
        for source in asked.inputs.values():
            name = source.path
            if source.scheme != llb.RESULT_SCHEME or name in build.earlier:
                continue
            if name not in self._results:
                raise NotFoundError(f"the result {name[:100]} is not known any more")
            earlier, session = self._results[name]
            path = await self.application.run_slowly(_private, build)
            output = Output("oci", {"compression": "uncompressed"}, directory=path)

            def work(
                engine: "Engine",
                wanted: "Request",
                progress: "Progress",
                patience: "Patience",
                output: Output = output,
            ) -> "Result":
                return self._solve(engine, replace(wanted, outputs=[output]), progress, patience)

            await self._have(build, replace(earlier, outputs=()), work, session)
            build.earlier[name] = path


def _private(engine: "Engine", build: Build) -> str:
    """Make a directory that lasts as long as a build; returns its path."""
    return build.held.enter_context(place.opened(engine.images.root)).contexts


class Teller:
    """Takes a build's events from its threads to the loop.

    Args:
        loop: the server's.
        telling: where they are kept.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, telling: Telling) -> None:
        self._loop = loop
        self._telling = telling
        self._lock = threading.Lock()
        self._waiting: list[Event] = []

    def __call__(self, event: "Event") -> None:
        """Take an event."""
        with self._lock:
            self._waiting.append(event)
            if len(self._waiting) > 1:
                return
        self._loop.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for event in waiting:
            self._telling.tell(event)


def failure(error: BaseException) -> StatusError:
    """Returns a build's failure as BuildKit's clients expect it, with the Dockerfile's lines.

    Any other status than UNKNOWN they would write before the message.
    """
    if isinstance(error, StatusError):
        return error
    details = []
    if isinstance(error, BuildError | DockerfileError) and error.source is not None:
        details.append(_blamed(error.source, error.places))
    # Clients write these words in front of whatever it is.
    return StatusError(Code.UNKNOWN, message(error).removeprefix("failed to solve: "), details)


def _blamed(source: "Source", places: "Sequence[Place]") -> Any:
    """Returns the lines that are to blame: errdefs.Source, as util/grpcerrors encodes it."""
    document = {
        "info": {
            "filename": source.name,
            "data": base64.b64encode(source.text).decode(),
            "language": "Dockerfile",
        },
        "ranges": [{"start": {"line": one.first}, "end": {"line": one.last}} for one in places],
    }
    words = schema.messages("control")
    return words.Any(
        type_url="github.com/moby/buildkit/errdefs.Source+json",
        value=json.dumps(document).encode(),
    )
