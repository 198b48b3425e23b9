"""Stores of blobs that a client keeps: OCI layouts that it gives and takes.

A client has a layout on its disk, and serves its blobs by containerd's content service; its index
it reads and writes itself. Here a layout is got into a directory of ours, or sent from one. Every
blob is held against its digest and size, whoever sent it.
Source: moby/buildkit, session/content; containerd/containerd, core/content/proxy.
"""

import contextlib
import errno
import hashlib
import os
from typing import TYPE_CHECKING, Any

from ketch.api.buildkit import fsutil, schema
from ketch.api.buildkit.grpc import Code, StatusError, framed
from ketch.api.buildkit.http2 import StreamEndedError
from ketch.errors import DigestMismatchError, InvalidArgumentError, UnavailableError
from ketch.linux.scopes import owned
from ketch.spec import digest as digests
from ketch.spec import image as documents
from ketch.spec import platforms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.api.buildkit.client import Client
    from ketch.spec.image import Descriptor, Platform

EXPORTED = "export"
"""The store that a client takes results in: client/solve.go."""

_READ = "/containerd.services.content.v1.Content/Read"
_WRITE = "/containerd.services.content.v1.Content/Write"
_STORE = "buildkit-attachable-store-id"
_WRITING, _COMMIT = 1, 2
_PIECE_BYTES = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Store:
    """One store of a client's.

    Args:
        client: whose.
        name: its.
    """

    def __init__(self, client: "Client", name: str) -> None:
        self._client = client
        self._metadata = fsutil.metadata({_STORE: [name]})
        self._words = schema.messages("session")

    def fetch(self, digest: str, path: str, wanted: "Sequence[Platform]") -> None:
        """Get an image, or what of an index is for some platforms, as an OCI layout.

        Args:
            digest: of its manifest or index.
            path: of an empty directory.
            wanted: the platforms.

        Raises:
            DigestMismatchError: a blob is another one than it was to be.
            InvalidArgumentError: a document is malformed.
            UnavailableError: the client has gone, or has it not.
        """
        content = self._document(digest, path)
        is_index = documents.is_index(content)
        if is_index:
            entries = documents.parse_index(content)["manifests"]
            chosen: dict[str, Descriptor] = {}
            for platform in wanted:
                for entry in platforms.by_preference(entries, platform)[:1]:
                    chosen[entry["digest"]] = entry
            if not chosen and wanted:
                raise platforms.unmatched(entries, wanted[0])
            for entry in chosen.values():
                self._manifest(self._document(entry["digest"], path), path)
        else:
            self._manifest(content, path)
        media_type = documents.OCI_INDEX if is_index else documents.OCI_MANIFEST
        entry = documents.descriptor(media_type, digest, len(content))
        index: documents.Index = {
            "schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": [entry],
        }  # fmt: skip
        _write(f"{path}/index.json", documents.encode(index))
        _write(f"{path}/oci-layout", documents.OCI_LAYOUT)

    def send(self, path: str) -> None:
        """Give the client all blobs of an OCI layout that it has not.

        Args:
            path: of the layout.

        Raises:
            UnavailableError: the client has gone, or cannot write them.
        """
        for algorithm in os.listdir(f"{path}/blobs"):
            directory = f"{path}/blobs/{algorithm}"
            for name in sorted(os.listdir(directory)):
                with owned(os.open(f"{directory}/{name}", _FILE)) as descriptor:
                    self._send_blob(f"{algorithm}:{name}", descriptor)

    def _document(self, digest: str, path: str) -> bytes:
        self._blob(digest, path, documents.DOCUMENT_SIZE_MAX)
        with open(_blob_path(path, digest), "rb") as file:
            return file.read()

    def _manifest(self, content: bytes, path: str) -> None:
        manifest = documents.parse_manifest(content)
        self._blob(manifest["config"]["digest"], path, documents.DOCUMENT_SIZE_MAX)
        for layer in manifest["layers"]:
            self._blob(layer["digest"], path, layer["size"])

    def _blob(self, digest: str, path: str, bytes_max: int) -> None:
        """Get one blob, unless it is there."""
        target = _blob_path(path, digest)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            descriptor = os.open(target, _NEW, 0o600)
        except FileExistsError:
            return
        calling = self._client.call(_READ, self._metadata)
        algorithm, expected = digests.split(digest)
        hashed = hashlib.new(algorithm)
        size = 0
        try:
            with owned(descriptor):
                request = self._words.ReadContentRequest(digest=digest)
                self._client.wait_for(calling.send(request))
                self._client.wait_for(calling.end())
                while messages := self._client.next(calling):
                    for message in messages:
                        data = schema.decode(self._words.ReadContentResponse, message).data
                        size += len(data)
                        if size > min(bytes_max, documents.BLOB_SIZE_MAX):
                            raise InvalidArgumentError(f"{digest}: more than {bytes_max} bytes")
                        hashed.update(data)
                        _write_all(descriptor, data)
        finally:
            self._client.break_off(calling)
        if hashed.hexdigest() != expected:
            raise DigestMismatchError(f"the client's blob {digest} is another one")

    def _send_blob(self, digest: str, descriptor: int) -> None:
        total = os.fstat(descriptor).st_size
        calling = self._client.call(_WRITE, self._metadata)
        words = self._words

        def send(**fields: Any) -> None:
            message = words.WriteContentRequest(
                ref=f"ketch-{digest}", total=total, expected=digest, **fields
            )
            self._client.wait_for(calling.send_encoded(framed(schema.encode(message))))

        try:
            # Who has it already says so, and takes nothing more.
            with contextlib.suppress(StreamEndedError):
                offset = 0
                send(action=_WRITING)
                while data := os.pread(descriptor, _PIECE_BYTES, offset):
                    send(action=_WRITING, offset=offset, data=data)
                    offset += len(data)
                send(action=_COMMIT, offset=offset)
                self._client.wait_for(calling.end())
            while self._client.next(calling):
                pass
        except StatusError as error:
            if error.code != Code.ALREADY_EXISTS:
                raise
        finally:
            self._client.break_off(calling)


def _blob_path(path: str, digest: str) -> str:
    algorithm, encoded = digests.split(digest)
    return f"{path}/blobs/{algorithm}/{encoded}"


def _write(path: str, content: bytes) -> None:
    with owned(os.open(path, _NEW, 0o600)) as descriptor:
        _write_all(descriptor, content)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise UnavailableError(f"cannot keep the client's blob: {reason}") from error
