"""What the library's ``build`` is asked for, and how it is followed."""

import contextlib
import os
import queue
import threading
from typing import TYPE_CHECKING, NamedTuple

from ketch.build import asking, builder
from ketch.build.entrusted import GivenAgents
from ketch.build.progress import Event
from ketch.build.request import MAIN_CONTEXT, Archive, Result
from ketch.dataclass import replace
from ketch.engine.engine import Engine
from ketch.errors import InvalidArgumentError
from ketch.library import given, options
from ketch.library.interruption import CalledOffError, Interruption
from ketch.spec.build_flags import FLAGS
from ketch.spec.build_options import AgentSource
from ketch.spec.flag import Values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import IO, BinaryIO

    from ketch.build.request import Request
    from ketch.images.registry.credentials import Credentials
    from ketch.library.images import Image
    from ketch.library.places import Places

    Secret = str | bytes | os.PathLike[str]

# These concern a command line alone; the library has parameters in their place.
_OF_THE_COMMAND = {
    "compress", "explain", "file", "iidfile", "isolation", "metadata-file",
    "progress", "quiet", "secret", "ssh",
}  # fmt: skip

KNOWN = tuple(flag for flag in FLAGS if flag.name not in _OF_THE_COMMAND)
"""What ``build`` has as keywords."""

_EVENTS_MAX = 1000


class Built(NamedTuple):
    """What a build came to: the last of what is told of it.

    Attributes:
        image: the image; None where it went elsewhere than into the store.
        digest: of its manifest or index, empty where there is none.
        metadata: what ``ketch build --metadata-file`` writes.
    """

    image: "Image | None"
    digest: str
    metadata: "Mapping[str, object]"


BuildEvent = Event | Built
"""What is told of a build that goes on: ``ketch.build.progress``; the last is ``Built``."""


class Asked(NamedTuple):
    """What a build is made of, beside its options.

    Attributes:
        context: a directory's path, an address, or an archive to read.
        dockerfile: its path in the context, empty for ``Dockerfile``.
        dockerfile_text: the Dockerfile itself, None where it is to be read.
        secrets: their contents, or path objects that lead to files.
        ssh: sockets of agents, by id.
        credentials: who asks registries; Docker's ``config.json`` says it where None.
        keywords: options.
    """

    context: "str | os.PathLike[str] | IO[bytes]"
    dockerfile: str
    dockerfile_text: "str | bytes | None"
    secrets: "Mapping[str, Secret]"
    ssh: "Mapping[str, str | os.PathLike[str]]"
    credentials: "Credentials | None"
    keywords: "Mapping[str, object]"


class _Secrets:
    """Secrets that a program has at hand."""

    def __init__(self, secrets: "Mapping[str, Secret]") -> None:
        self._secrets = secrets

    def get(self, id: str) -> bytes | None:  # noqa: A002 - the field's word
        """See ``ketch.build.request.Secrets``."""
        secret = self._secrets.get(id)
        if isinstance(secret, os.PathLike):
            with open(secret, "rb") as file:
                return file.read()
        return secret.encode() if isinstance(secret, str) else secret


def build(places: "Places", asked: Asked, progress: "Callable[[Event], object] | None") -> "Result":
    """Build in the caller's thread.

    Args:
        places: the engine's.
        asked: what.
        progress: is given each event, from any thread, one at a time.

    Raises:
        KetchError: it cannot be built.
    """

    def tell(event: Event) -> None:
        if progress is not None:
            progress(event)

    with contextlib.ExitStack() as held:
        request = _request(asked, held)
        return builder.build(places.engine, request, tell, patience=places.patience)


def follow(places: "Places", asked: Asked) -> "Iterator[Event | Result]":
    """Yield what is told of a build, which goes on in a thread of its own; the result at last.

    Who does not want the rest any more closes the iterator, and the build ends.

    Raises:
        KetchError: it cannot be built.
    """
    told: queue.Queue[Event | Result | BaseException] = queue.Queue(_EVENTS_MAX)
    interruption = Interruption()

    def work() -> None:
        engine = Engine(places.settings, patience=interruption)
        outcome: Result | BaseException
        try:
            with contextlib.ExitStack() as held:
                request = _request(asked, held)
                outcome = builder.build(engine, request, put, patience=interruption)
        except BaseException as error:  # noqa: BLE001 - raised where it is followed
            outcome = error
        finally:
            engine.store.close()
        with contextlib.suppress(CalledOffError):
            put(outcome)

    def put(item: "Event | Result | BaseException") -> None:
        while True:
            interruption.check()
            with contextlib.suppress(queue.Full):
                told.put(item, timeout=0.1)
                return

    thread = threading.Thread(target=work, name="ketch-build", daemon=True)
    thread.start()
    try:
        while True:
            item = _next(told, places)
            if isinstance(item, BaseException):
                raise item
            yield item
            if isinstance(item, Result):
                return
    finally:
        interruption.call_off()
        thread.join()
        interruption.close()


def _next(
    told: "queue.Queue[Event | Result | BaseException]", places: "Places"
) -> "Event | Result | BaseException":
    while True:
        with contextlib.suppress(queue.Empty):
            return told.get(timeout=0.1)
        places.patience.wait(0)


def _request(asked: Asked, held: contextlib.ExitStack) -> "Request":
    values, _ = options.read(KNOWN, asked.keywords)
    # What a command line has beside these, as if it had not been given.
    whole = {flag.name: flag.initial() for flag in FLAGS} | values
    path = given.path(asked.context)
    request = asking.request(Values(whole), path or ".", asking.Caller(os.environ), held)
    contexts = dict(request.contexts)
    if path is None:
        stream: BinaryIO = given.file("path", asked.context, "read")  # type: ignore[assignment]
        contexts[MAIN_CONTEXT] = Archive(stream)
    text = asked.dockerfile_text
    if text is not None and asked.dockerfile:
        raise InvalidArgumentError("dockerfile and dockerfile_text are the same thing twice")
    agents = GivenAgents(
        [AgentSource(name, (os.fspath(place),)) for name, place in asked.ssh.items()], os.environ
    )
    who = asked.credentials
    return replace(
        request,
        contexts=contexts,
        dockerfile=asked.dockerfile or "Dockerfile",
        dockerfile_text=text.encode() if isinstance(text, str) else text,
        secrets=_Secrets(asked.secrets),
        agents=held.enter_context(agents),
        credentials=None if who is None else lambda _host: who,
    )
