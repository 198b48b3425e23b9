"""The places of builds: what one has on the disk while it goes on.

    ROOT/builds/ID/            one build's; locked by whoever builds, flock(2)
    ROOT/builds/ID/roots/      what steps write to
    ROOT/builds/ID/blobs/      layers' archives that are not in the store yet
    ROOT/builds/ID/contexts/   what was unpacked and fetched
    ROOT/builds/ID/nothing/    nothing

The kernel drops the lock with the process, however that ends, and the next build removes what is
nobody's. All of it is closed to others.
"""

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator

from ketch.errors import KetchError, UnavailableError
from ketch.images.snapshots import spread
from ketch.linux import locks
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CLEANING_SECONDS = 1800  # of what killed builds have left, on a slow disk
_PARTS = ("roots", "blobs", "contexts")


class Place:
    """One build's directory.

    Args:
        path: where it is.

        follows: whether killed builds have left something.

    Attributes:
        path: where it is.
        follows: whether killed builds had left something.
    """

    def __init__(self, path: str, *, follows: bool = False) -> None:
        self.path = path
        self.follows = follows
        self._numbers = itertools.count()

    @property
    def contexts(self) -> str:
        """The directory of what was unpacked and fetched."""
        return f"{self.path}/contexts"

    @property
    def blobs(self) -> str:
        """The directory of archives on their way."""
        return f"{self.path}/blobs"

    @property
    def nothing(self) -> str:
        """An empty directory, like the root of no files."""
        return f"{self.path}/nothing"

    @contextlib.contextmanager
    def root(self) -> Iterator[str]:
        """Make the directory of something that is mounted, for a block."""
        # Where on the disk it comes to lie follows from its name: see ``spread``.
        path = f"{self.path}/roots/{next(self._numbers)}-{os.path.basename(self.path)[:8]}"
        try:
            os.mkdir(path, 0o700)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            yield path
        finally:
            remove_tree(path)


@contextlib.contextmanager
def opened(root: str) -> Iterator[Place]:
    """Have a place for a build, for a block, and remove those of builds that are no more.

    Args:
        root: the engine's directory.

    Raises:
        UnavailableError: the disk is full or failing.
    """
    path = f"{_all(root)}/{os.urandom(12).hex()}"
    with contextlib.ExitStack() as held:
        with _alone(root):
            follows = _clean(root)
            try:
                os.mkdir(path, 0o700)
                held.callback(remove_tree, path)
                lock = held.enter_context(owned(os.open(path, _DIRECTORY)))
                fcntl.flock(lock, fcntl.LOCK_EX)
                for name in _PARTS:
                    os.mkdir(f"{path}/{name}", 0o700)
                spread(f"{path}/roots")
                os.mkdir(f"{path}/nothing", 0o755)
                os.chmod(f"{path}/nothing", 0o755)
            except OSError as error:
                raise _unwritable(path, error) from error
        yield Place(path, follows=follows)


def clean(root: str) -> None:
    """Remove what killed builds have left.

    Args:
        root: the engine's directory.
    """
    if os.path.isdir(f"{root}/builds"):
        with _alone(root):
            _clean(root)


@contextlib.contextmanager
def _alone(root: str) -> Iterator[None]:
    """Hold the lock under which places are made and removed."""
    path = _all(root)
    try:
        # One after the other: those above the last would be open to others.
        os.makedirs(root, 0o700, exist_ok=True)
        os.makedirs(path, 0o700, exist_ok=True)
        descriptor = os.open(path, _DIRECTORY)
    except OSError as error:
        raise _unwritable(path, error) from error
    with owned(descriptor):
        locks.take(descriptor, fcntl.LOCK_EX, path, _CLEANING_SECONDS)
        yield


def _clean(root: str) -> bool:
    """Remove what killed builds have left; returns whether there was anything."""
    found = False
    for name in os.listdir(_all(root)):
        path = f"{_all(root)}/{name}"
        with contextlib.suppress(OSError), owned(os.open(path, _DIRECTORY)) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = True
            # A step that outlived its build by a moment may still write: then the next one does it.
            remove_tree(path)
    return found


def _all(root: str) -> str:
    return f"{root}/builds"


def _unwritable(path: str, error: OSError) -> KetchError:
    return UnavailableError(f"cannot write to {path}: {os.strerror(error.errno or 0)}")
