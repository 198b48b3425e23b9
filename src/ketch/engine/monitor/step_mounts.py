"""What is mounted for a step: parts of other file systems, caches, files that are on no disk.

The request's ``mounts`` is a list of objects, each with ``kind`` and ``target``:

===========  ======================================================================================
``bind``     ``descriptor``, a directory by number, ``directory``, a prepared root, or ``empty``;
             ``path``, the part of it; ``read_only``. What is written to a prepared root is thrown
             away with that.
``tmpfs``    ``size_bytes``, 0 for half of the memory
``file``     ``content`` in base64, ``mode``, ``uid``, ``gid``: a secret
``files``    ``files``, names to contents in base64: here-documents
``agent``    ``agent``, a number from 0, ``mode``, ``uid``, ``gid``: a socket, whose listening end
             is handed to who asked, all of them in the order of their numbers
===========  ======================================================================================

All sources are brought together in a mount namespace of this process's own, in a tmpfs that covers
a directory of the engine's: nothing of it is seen elsewhere, and it is gone with the process. Of a
source that others may write to, its part is found beneath it by descriptor, once, and that very
place is what is mounted (CVE-2024-23651).
"""

import _socket
import binascii
import os

from ketch.engine.requests import launch
from ketch.errors import NotFoundError, SyscallError
from ketch.linux import beneath, mount, namespaces, owners
from ketch.linux.libc import AT_FDCWD, AT_RECURSIVE
from ketch.linux.scopes import owned, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ketch.images.snapshots import Snapshotter
    from ketch.spec.runtime import Mount

_SECRET = ("ro", "nosuid", "nodev", "noexec")


class Mounts:
    """A step's mounts.

    Args:
        snapshotter: the engine's.
        asked: see above.
        descriptors: those that came with the request.

    Attributes:
        targets: where something is mounted.
        listeners: the sockets that are to be handed over, by the numbers of their agents.
    """

    __slots__ = ("_asked", "_place", "_snapshotter", "_sources", "_trees", "listeners", "targets")

    def __init__(
        self,
        snapshotter: "Snapshotter",
        asked: "Sequence[Mapping[str, Any]]",
        descriptors: "Sequence[int]",
    ) -> None:
        self._snapshotter = snapshotter
        # Those above before those below.
        self._asked = sorted(asked, key=lambda one: str(one["target"]).split("/"))
        self._place = ""
        self._sources: list[str] = []
        self.targets = [str(one["target"]) for one in asked]
        self.listeners: dict[int, _socket.socket] = {}
        # Taken in the mount namespace that they belong to.
        self._trees = [
            mount.open_tree(
                descriptors[one["descriptor"]], "", mount.OPEN_TREE_CLONE | AT_RECURSIVE
            )
            if "descriptor" in one
            else -1
            for one in self._asked
        ]

    def prepare(self, place: str) -> None:
        """Leave the host's mount namespace, and bring all sources together.

        Args:
            place: path of a directory of the engine's, which is covered for this process.

        Raises:
            NotFoundError: a source has no such part.
            KetchError, OSError: the kernel refused.
        """
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.mount("", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
        with owned(_memory()) as memory:
            mount.move_mount(memory, AT_FDCWD, place)
        self._place = place
        os.mkdir(f"{place}/rootfs", 0o700)
        self._sources = [self._source(one, number) for number, one in enumerate(self._asked)]

    def write(self, name: str, text: str) -> str:
        """Write a file that everybody may read; returns its path."""
        return self._write(f"{self._place}/{name}", text.encode(), 0o644)

    def specifications(self) -> "list[Mount]":
        """Returns the runtime's ``mounts``."""
        return [
            _specification(one, source)
            for one, source in zip(self._asked, self._sources, strict=True)
        ]

    def _source(self, one: "Mapping[str, Any]", number: int) -> str:
        kind = one["kind"]
        place = f"{self._place}/{number}"
        if kind == "tmpfs":
            return "tmpfs"
        if kind == "file":
            content = binascii.a2b_base64(one["content"])
            return self._write(place, content, one["mode"], one["uid"], one["gid"])
        if kind == "files":
            os.mkdir(place, 0o755)
            for name, content in one["files"].items():
                self._write(
                    f"{place}/{os.path.basename(name)}", binascii.a2b_base64(content), 0o755
                )
            return place
        if kind == "agent":
            return self._listen(one, number)
        return self._bound(one, number)

    def _bound(self, one: "Mapping[str, Any]", number: int) -> str:
        place = f"{self._place}/{number}"
        os.mkdir(place, 0o755)
        if one.get("empty"):
            top = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            top = self._tree(one, number)
            mount.move_mount(top, AT_FDCWD, place)
        path = os.path.normpath("/" + one["path"])
        with owned(top):
            try:
                # As long as this process lives.
                return f"/proc/self/fd/{beneath.open_path(top, path)}"
            except SyscallError as error:
                raise NotFoundError(
                    f"{one['target']}: {path}: {os.strerror(error.errno or 0).lower()}",
                    "what is mounted has no such path",
                ) from error

    def _tree(self, one: "Mapping[str, Any]", number: int) -> int:
        if self._trees[number] >= 0:
            return self._trees[number]
        if one["read_only"]:
            return self._snapshotter.view(one["directory"])
        return self._snapshotter.mount(one["directory"], passing=True)

    def _listen(self, one: "Mapping[str, Any]", number: int) -> str:
        with owned(os.open(self._place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
            self.listeners[one["agent"]] = launch.listen(directory, str(number))
        path = f"{self._place}/{number}.socket"
        owners.give(os.fsencode(path), one["uid"], one["gid"])
        os.chmod(path, one["mode"])
        return path

    def _write(self, path: str, content: bytes, mode: int, uid: int = 0, gid: int = 0) -> str:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "wb") as file:
            file.write(content)
            owners.give(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)
        return path


def _memory() -> int:
    """A file system in memory, not to be swapped out where the kernel has that (Linux 6.4)."""
    with owned(mount.fsopen("tmpfs")) as context:
        mount.fsconfig(context, "mode", "0700")
        with suppress(OSError):
            mount.fsconfig(context, "noswap")
        return mount.fsmount(context)


def _specification(one: "Mapping[str, Any]", source: str) -> "Mount":
    kind = one["kind"]
    target = str(one["target"])
    if kind == "tmpfs":
        options = ["nosuid"]
        if one["size_bytes"]:
            options.append(f"size={one['size_bytes']}")
        return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
    options = ["rbind", "rprivate"]
    if kind == "file":
        options += _SECRET
    elif kind == "files" or one.get("read_only"):
        options.append("rro")
    return {"destination": target, "type": "bind", "source": source, "options": options}
