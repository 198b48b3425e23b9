"""What is a client's of a build: its directories, uploads, and what it is sent of the result."""

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING, cast

from ketch.api.buildkit.client import Client
from ketch.api.buildkit.stores import EXPORTED, Store
from ketch.build import place
from ketch.build.request import Archive, CachePlace, LayoutInput, Output, SessionDirectory
from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.linux.scopes import owned
from ketch.spec import image as documents
from ketch.spec.build_options import is_true

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

    from ketch.api.buildkit.client import Writer
    from ketch.api.buildkit.sessions import Sessions
    from ketch.build.place import Place
    from ketch.build.request import Input

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class ClientPlaces:
    """The places of one client's build, in the build's thread; a context manager.

    Args:
        client: whose.
        sessions: where other sessions of the client's are found.
        root: path of the engine's directory, in which there is a private one for a block.
        result: returns what an earlier build came to.
        body: what the client has uploaded with its request.
    """

    def __init__(
        self,
        client: Client,
        sessions: "Sessions",
        root: str,
        result: "Callable[[str], Input]",
        body: "BinaryIO | None" = None,
    ) -> None:
        self.result = result
        self._client = client
        self._sessions = sessions
        self._root = root
        self._body = body
        self._held = contextlib.ExitStack()
        self._place: Place | None = None
        self._writers: list[Writer] = []
        self._directories: list[tuple[int, str]] = []
        self._layouts: list[str] = []
        self._caches: list[tuple[str, str]] = []

    def __enter__(self) -> "ClientPlaces":
        """Returns the places themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of all of it; what was not finished the client hears of."""
        self._held.close()

    def private(self) -> str:
        """Make a directory for this build alone, which goes with it, and returns its path."""
        if self._place is None:
            self._place = self._held.enter_context(place.opened(self._root))
        return tempfile.mkdtemp(dir=self._place.path)

    def directory(self, name: str, session: str) -> "Input":
        """Returns a directory that the client sends."""
        if not session:
            return SessionDirectory(self._client, name)
        other = self._client.wait_for(self._sessions.get(session))
        return SessionDirectory(self._client.of(other), name)

    def upload(self, path: str) -> "Input":
        """Returns what the client uploads, once."""
        if self._body is not None:
            return Archive(self._body)
        stream = self._client.upload("buildkit-session", path)
        self._held.callback(stream.close)
        return Archive(stream)

    def layout(self, store: str, digest: str, platforms: "Sequence[str]") -> "Input":
        """Returns an image of an OCI layout of the client's, which is got at once."""
        wanted = [documents.parse_platform(one) for one in platforms]
        path = self.private()
        Store(self._client, f"oci:{store}").fetch(
            digest, path, wanted or [documents.host_platform()]
        )
        return LayoutInput(path, digest)

    def output(self, number: int, type_: str, attributes: "Mapping[str, str]") -> Output:
        """Returns an output that the client gets, once the build has come to it."""
        if type_ == "local":
            path = self.private()
            self._directories.append((number, path))
            return Output(type_, attributes, directory=path)
        if type_ in {"docker", "oci"} and not is_true(attributes.get("tar", "true")):
            path = self.private()
            self._layouts.append(path)
            return Output(type_, attributes, directory=path)
        writer = self._client.writer(number)
        self._held.callback(writer.close)
        self._writers.append(writer)
        return Output(type_, attributes, stream=cast("BinaryIO", writer))

    def cache_from(self, type_: str, attributes: "Mapping[str, str]") -> CachePlace:
        """Returns a place that a cache is read from; one of the client's is got at once."""
        if type_ != "local":
            return CachePlace(type_, attributes)
        digest = attributes.get("digest", "")
        if not digest:
            raise InvalidArgumentError("a cache of type local needs a digest")
        path = self.private()
        Store(self._client, f"local:{attributes.get('src', '')}").fetch(digest, path, ())
        return CachePlace(type_, {**attributes, "src": path})

    def cache_to(self, type_: str, attributes: "Mapping[str, str]") -> CachePlace:
        """Returns a place that a cache is written to; the client gets one of its own in the end."""
        if type_ != "local":
            return CachePlace(type_, attributes)
        path = self.private()
        self._caches.append((f"local:{attributes.get('dest', '')}", path))
        return CachePlace(type_, {**attributes, "dest": path})

    def finish(self) -> dict[str, str]:
        """Have the client get what it asked for, whole.

        Returns:
            What it is told beside: of a cache of its own the manifest, which it puts into an index.

        Raises:
            UnavailableError: it has gone, or cannot write it.
        """
        told: dict[str, str] = {}
        for name, path in self._caches:
            Store(self._client, name).send(path)
            with open(f"{path}/index.json", "rb") as file:
                [entry] = documents.parse_index(file.read())["manifests"]
            entry.pop("annotations", None)
            told["cache.manifest"] = documents.encode(entry).decode()
        for writer in self._writers:
            writer.finish()
        for path in self._layouts:
            Store(self._client, EXPORTED).send(path)
        for number, path in self._directories:
            try:
                directory = os.open(path, _DIRECTORY)
            except OSError as error:
                raise UnavailableError(f"the result is gone: {error.strerror}") from error
            with owned(directory):
                self._client.send(number, directory)
        return told
