"""Blobs on their way to a registry: not at all where it has them, whole, or what is missing."""

import contextlib
import os
from typing import TYPE_CHECKING

from ketch.errors import KetchError, RegistryError, UnavailableError
from ketch.images.registry.repository import FilePart
from ketch.images.registry.transport import BrokenOffError, UnreachableError
from ketch.linux.scopes import owned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.images.content import ContentStore
    from ketch.images.registry.repository import Repository

CHUNK_BYTES = 16 << 20
_PAUSE_SECONDS_MAX = 15.0


def mount(repository: "Repository", digest: str, sources: "Sequence[str]") -> str:
    """Have the registry take a blob over from another of its repositories.

    Args:
        repository: where the blob is to be.
        digest: which.
        sources: paths of repositories that may have it.

    Returns:
        The source that worked; empty where none did.
    """
    for source in sources:
        with contextlib.suppress(KetchError):
            upload = repository.mount_blob(digest, source)
            if upload is None:
                return source
            repository.cancel_upload(upload)
    return ""


def send_missing(
    repository: "Repository",
    content: "ContentStore",
    digest: str,
    *,
    attempts: int,
    sent: "Callable[[int], object]" = lambda _: None,
) -> bool:
    """Upload a blob of the store unless the registry has it; returns whether it was sent.

    Args:
        repository: where to.
        content: the store.
        digest: which.
        attempts: as for ``send``, as is what is not named here.
        sent: see there.

    Raises:
        KetchError: it is not in the store, or the registry refuses it or cannot be reached.
    """
    if repository.has_blob(digest):
        return False
    with owned(content.open(digest)) as descriptor:
        size_bytes = os.fstat(descriptor).st_size
        send(repository, digest, descriptor, size_bytes, attempts=attempts, sent=sent)
    return True


def send(
    repository: "Repository",
    digest: str,
    descriptor: int,
    size_bytes: int,
    *,
    attempts: int,
    sent: "Callable[[int], object]",
) -> None:
    """Upload a blob.

    First it is sent in one request. If that breaks off, the registry is asked how much has
    arrived, and the rest is sent in chunks; so a registry without chunks is asked for none.

    Args:
        repository: where to.
        digest: which.
        descriptor: of the file that holds it.
        size_bytes: its length.
        attempts: how often to try without getting any further.
        sent: is called with how much has been sent, which may become less.

    Raises:
        KetchError: the registry refuses it, or cannot be reached.
    """
    upload = repository.begin_upload()
    offset = furthest = failures = 0
    chunked = upload.minimum_bytes > 0
    while True:
        try:
            if not chunked:
                part = _part(descriptor, 0, size_bytes, sent)
                repository.upload_whole(upload, digest, size_bytes, part)
                return
            while offset < size_bytes:
                length = min(max(CHUNK_BYTES, upload.minimum_bytes), size_bytes - offset)
                part = _part(descriptor, offset, length, sent)
                repository.upload_chunk(upload, offset, length, part)
                offset += length
            repository.finish_upload(upload, digest)
        except (BrokenOffError, UnreachableError) as error:
            # Against the best so far: a registry may lose what it had, time after time.
            failures = 0 if offset > furthest else failures + 1
            furthest = max(furthest, offset)
            if failures >= attempts:
                raise UnavailableError(
                    f"upload of {digest} to {repository.shown}: {error.message}", error.hint
                ) from error
            repository.pause(min(2.0**failures, _PAUSE_SECONDS_MAX))
            chunked = True
            arrived = repository.uploaded_bytes(upload)
            if arrived is None or arrived > size_bytes:
                upload, arrived = repository.begin_upload(), 0
            offset = arrived
        except RegistryError:
            # Too large in one piece (413) for the registry or for what stands before it.
            if chunked:
                raise
            chunked, offset = True, 0
            upload = repository.begin_upload()
        else:
            return


def _part(
    descriptor: int, offset: int, size_bytes: int, sent: "Callable[[int], object]"
) -> "Callable[[], FilePart]":
    def open_part() -> FilePart:
        position = offset

        def count(more: int) -> None:
            nonlocal position
            position += more
            sent(position)

        return FilePart(descriptor, offset, size_bytes, count)

    return open_part
