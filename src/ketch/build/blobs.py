"""Layers' archives on their way into the store: written while steps end, and named all at once.

The store's own writer waits for the disk with each blob. Here all of a build's wait together, and
those of stages that no image needs never get there.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ketch.errors import KetchError, UnavailableError
from ketch.images.content import sync_directory
from ketch.linux import sparse
from ketch.linux.scopes import owned
from ketch.linux.syncfs import syncfs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.images.content import ContentStore

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Blob:
    """One archive that is being hashed, and written where somebody will want it.

    Attributes:
        size_bytes: how long it is by now.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.size_bytes = 0
        self._path = path
        self._descriptor = descriptor
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, content: bytes) -> None:
        """Append some bytes.

        Raises:
            UnavailableError: the disk is full or failing.
        """
        self._hash.update(content)
        self.size_bytes += len(content)
        if self._descriptor >= 0:
            try:
                sparse.append(self._descriptor, content)
            except OSError as error:
                raise _unwritable(self._path, error) from error

    def keep(self) -> None:
        """Have it there for ``Blobs.publish``."""
        if self._descriptor >= 0:
            os.rename(self._path, f"{os.path.dirname(self._path)}/{self.digest.partition(':')[2]}")


class Blobs:
    """The archives of one build.

    Args:
        content: the store.
        directory: where they are meanwhile, in the store's file system.
    """

    def __init__(self, content: "ContentStore", directory: str) -> None:
        self._content = content
        self._directory = directory

    @contextlib.contextmanager
    def writer(self, *, written: bool = True) -> Iterator[Blob]:
        """Begin one; without ``Blob.keep`` the block leaves nothing.

        Args:
            written: whether it is wanted, or only its digest.
        """
        if not written:
            yield Blob("", -1)
            return
        path = f"{self._directory}/new-{os.urandom(12).hex()}"
        try:
            descriptor = os.open(path, _NEW, 0o644)
        except OSError as error:
            raise _unwritable(path, error) from error
        with owned(descriptor):
            try:
                yield Blob(path, descriptor)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def __contains__(self, digest: str) -> bool:
        """Whether an archive is here, or in the store."""
        return os.path.exists(self._path(digest)) or digest in self._content

    def write(self, content: bytes) -> str:
        """Keep a document; returns its digest."""
        with self.writer() as blob:
            blob.write(content)
            if blob.digest not in self:
                blob.keep()
            return blob.digest

    def size_bytes(self, digest: str) -> int:
        """Returns how long one is that is here, or in the store.

        Raises:
            NotFoundError: it is in neither.
        """
        try:
            return os.stat(self._path(digest)).st_size
        except FileNotFoundError:
            return self._content.size_bytes(digest)

    def publish(self, digests: "Iterable[str]") -> None:
        """Bring some into the store, on the disk and whole.

        Args:
            digests: which; those that are in the store stay there.

        Raises:
            UnavailableError: the disk is full or failing.
        """
        moved = [one for one in dict.fromkeys(digests) if os.path.exists(self._path(one))]
        if not moved:
            return
        self._content.make_layout()
        try:
            with owned(os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)) as directory:
                syncfs(directory)
            for digest in moved:
                os.rename(self._path(digest), self._content.path(digest))
            sync_directory(os.path.dirname(self._content.path(moved[0])))
        except OSError as error:
            raise _unwritable(self._directory, error) from error

    def _path(self, digest: str) -> str:
        return f"{self._directory}/{digest.partition(':')[2]}"


def _unwritable(path: str, error: OSError) -> KetchError:
    return UnavailableError(f"cannot write to {path}: {os.strerror(error.errno or 0)}")
