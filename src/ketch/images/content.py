"""The content store: blobs named by their digest, in the layout that OCI tools read.

``ROOT/blobs/ALGORITHM/HEX`` holds the blobs, ``ROOT/oci-layout`` and ``ROOT/index.json`` make the
directory an OCI image layout, which skopeo and others can read as it is. A blob is written to
``ROOT/ingest/``, verified, flushed to the disk and renamed: under its name it is whole, always.
Who writes holds ``lock.shared``, who deletes ``lock.exclusive``, so what a deleter finds in
``ingest/`` was left by a writer that died.

Source: OCI image specification, image-layout.md.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from ketch.errors import DigestMismatchError, NotFoundError, UnavailableError
from ketch.linux.scopes import owned
from ketch.spec import digest as digests
from ketch.spec.image import DOCUMENT_SIZE_MAX, OCI_LAYOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class ContentStore:
    """The blobs below one directory.

    Args:
        root: that directory; it is made with the first blob.
    """

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, digest: str) -> str:
        """Returns where a blob is, or would be.

        Raises:
            InvalidArgumentError: this is no digest.
        """
        algorithm, digits = digests.split(digest)
        return f"{self.root}/blobs/{algorithm}/{digits}"

    def __contains__(self, digest: str) -> bool:
        """Whether the store holds a blob."""
        return os.path.exists(self.path(digest))

    def size_bytes(self, digest: str) -> int:
        """Returns a blob's length.

        Raises:
            NotFoundError: the store does not hold it.
        """
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError as error:
            raise _missing(digest) from error

    def open(self, digest: str) -> int:
        """Open a blob for reading.

        Returns:
            A descriptor that the caller owns.

        Raises:
            NotFoundError: the store does not hold it.
        """
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise _missing(digest) from error

    def read(self, digest: str, limit_bytes: int = DOCUMENT_SIZE_MAX) -> bytes:
        """Read a small blob whole and verify it.

        Raises:
            NotFoundError: the store does not hold it.
            DigestMismatchError: its content has changed on the disk.
            UnavailableError: it is larger than the limit.
        """
        with owned(self.open(digest)) as descriptor:
            size = os.fstat(descriptor).st_size
            if size > limit_bytes:
                raise UnavailableError(
                    f"blob {digest} is {size} bytes long, at most {limit_bytes} were expected"
                )
            content = b""
            while len(content) < size and (piece := os.read(descriptor, size - len(content))):
                content += piece
        _verify(digests.computed(content, digest).partition(":")[2], digest)
        return content

    def write(self, content: bytes) -> str:
        """Store some bytes and return their digest."""
        digest = digests.of(content)
        if digest not in self:
            with self.writer() as writer:
                writer.write(content)
                writer.commit(digest)
        return digest

    def writer(self, algorithm: str = "sha256") -> "BlobWriter":
        """Returns a writer of a new blob, to be used in a ``with`` block."""
        self.make_layout()
        return BlobWriter(self, algorithm)

    def delete(self, digest: str) -> None:
        """Delete a blob, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(digest))

    def digests(self) -> Iterator[str]:
        """Yield the digest of every blob."""
        for algorithm in _names(f"{self.root}/blobs"):
            for digits in _names(f"{self.root}/blobs/{algorithm}"):
                if digests.valid(f"{algorithm}:{digits}"):
                    yield f"{algorithm}:{digits}"

    def delete_unfinished(self) -> None:
        """Delete what writers left that died; ``lock.exclusive`` must be held."""
        for name in _names(f"{self.root}/ingest"):
            os.unlink(f"{self.root}/ingest/{name}")

    def write_index(self, content: bytes) -> None:
        """Have ``index.json``, the list of images for tools that read OCI layouts, say this."""
        self.make_layout()
        if self.read_index() != content:
            self._replace("index.json", content)

    def read_index(self) -> bytes:
        """Returns what ``index.json`` says, nothing where there is none."""
        try:
            with open(f"{self.root}/index.json", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def make_layout(self) -> None:
        """Make the directories, if they are missing: whoever brings a blob here itself."""
        if os.path.exists(f"{self.root}/oci-layout"):
            return
        os.makedirs(self.root, 0o700, exist_ok=True)
        for name in ("blobs", "blobs/sha256", "ingest"):
            os.makedirs(f"{self.root}/{name}", 0o700, exist_ok=True)
        self._replace("oci-layout", OCI_LAYOUT)

    def _replace(self, name: str, content: bytes) -> None:
        temporary = f"{self.root}/ingest/{os.urandom(12).hex()}"
        try:
            with owned(os.open(temporary, _NEW, 0o644)) as descriptor:
                try:
                    _write_all(descriptor, content)
                    os.fsync(descriptor)
                    os.rename(temporary, f"{self.root}/{name}")
                except BaseException:
                    os.unlink(temporary)
                    raise
        except OSError as error:
            raise _unwritable(self.root, error) from error


class BlobWriter:
    """A blob on its way into the store: in a ``with`` block, write, then commit.

    Without ``commit`` the block leaves nothing.
    """

    __slots__ = ("_algorithm", "_append", "_descriptor", "_hash", "_path", "_store", "_update",
                 "size_bytes")  # fmt: skip

    def __init__(self, store: ContentStore, algorithm: str) -> None:
        import hashlib  # noqa: PLC0415 - not for a container's start

        from ketch.linux import sparse  # noqa: PLC0415 - likewise

        self.size_bytes = 0
        self._store = store
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self._update: Callable[[bytes], None] = self._hash.update
        self._append = sparse.append  # a layer may hold a disk's image, most of it never written
        self._path = f"{store.root}/ingest/{os.urandom(12).hex()}"
        self._descriptor = -1

    def __enter__(self) -> "BlobWriter":
        """Make the unfinished file."""
        try:
            self._descriptor = os.open(self._path, _NEW, 0o600)
        except OSError as error:
            raise _unwritable(self._store.root, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        """Delete the file unless it was committed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._descriptor)

    @property
    def path(self) -> str:
        """Where the unfinished blob is, for whoever reads along."""
        return self._path

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    def write(self, content: bytes) -> None:
        """Append some bytes.

        Raises:
            UnavailableError: the disk is full or failing.
        """
        self._update(content)
        self.size_bytes += len(content)
        try:
            self._append(self._descriptor, content)
        except OSError as error:
            raise _unwritable(self._store.root, error) from error

    def commit(self, expected: str = "") -> str:
        """Verify the blob and give it its name.

        Args:
            expected: the digest that was promised, empty where nobody promised any.

        Returns:
            Its digest.

        Raises:
            DigestMismatchError: the content is not what was promised.
            UnavailableError: the disk is full or failing.
        """
        digest = self.digest
        if expected:
            _verify(digest.partition(":")[2], expected)
        path = self._store.path(digest)
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            os.fchmod(self._descriptor, 0o644)
            os.fsync(self._descriptor)
            os.rename(self._path, path)
            sync_directory(os.path.dirname(path))
        except OSError as error:
            raise _unwritable(self._store.root, error) from error
        return digest


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def sync_directory(path: str) -> None:
    """Wait until a directory's names are on the disk."""
    with owned(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as descriptor:
        os.fsync(descriptor)


def _verify(digits: str, digest: str) -> None:
    if digits != digest.partition(":")[2]:
        algorithm = digest.partition(":")[0]
        raise DigestMismatchError(
            f"content has the digest {algorithm}:{digits}, and not {digest} as it should"
        )


def _missing(digest: str) -> NotFoundError:
    return NotFoundError(f"blob {digest} is not in the store", "pull or import the image again")


def _unwritable(root: str, error: OSError) -> UnavailableError:
    hint = "free some space" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
    return UnavailableError(f"cannot write to {root}: {os.strerror(error.errno or 0)}", hint)
