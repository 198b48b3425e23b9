"""One run of criu(8), which saves and restores processes: ``criu swrk``, asked over a socket.

::

    us ──request──▶ criu ──notification──▶ us ──"go on"──▶ criu ... ──answer──▶ us

It runs in a mount namespace of its own, so that what is mounted for it is seen by nobody and goes
with it; for a restore also in the container's control groups, where the restored processes are its
siblings, children of ours.

Source: https://criu.org/RPC, https://criu.org/CLI/opt/swrk.
"""

import _socket
import os
import select
import struct

from ketch import cgroups
from ketch.errors import UnavailableError, in_words
from ketch.linux import mount, namespaces, process
from ketch.runtime.process import restore_signals
from ketch.spec import criu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ketch.cgroups import Manager

_ANSWER_BYTES_MAX = 1 << 20
_KINDS = {criu.DUMP: "DUMP", criu.RESTORE: "RESTORE", criu.PRE_DUMP: "PRE_DUMP",
          criu.NOTIFY: "NOTIFY", criu.FEATURE_CHECK: "FEATURE_CHECK"}  # fmt: skip
_NOT_STARTED = 127
_DIRECTORIES = ("images_dir_fd", "work_dir_fd")
_WORDS_BYTES_MAX = 4096
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Criu:
    """criu, waiting for one request; a context manager that ends it.

    Args:
        program: its name or path.
        images: the directory of its images.
        work: that of its logs and work files, or empty.
        streams: descriptors of its standard streams, which restored processes may inherit.
        inherited: further descriptors for it, which keep their numbers.
        cgroup: the control groups to run in, or None.
        prepare: what to do in its mount namespace before it starts.
        sibling: whether it, and what it restores, become children of the caller's parent.

    Raises:
        UnavailableError: it is not installed, or could not be prepared.

    Attributes:
        pid: its pid.
        directories: what it is to be told of its directories.
    """

    __slots__ = ("_pidfd", "_sibling", "_socket", "directories", "pid")

    def __init__(
        self,
        program: str,
        *,
        images: str = "",
        work: str = "",
        streams: tuple[int, int, int] = (0, 1, 2),
        inherited: "tuple[int, ...]" = (),
        cgroup: "Manager | None" = None,
        prepare: "Callable[[], None] | None" = None,
        sibling: bool = False,
    ) -> None:
        path = _find(program)
        self._sibling = sibling
        ours, theirs = _socket.socketpair(
            _socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
        )
        into = cgroup.descriptor() if cgroup else None
        entrances = cgroup.entrances() if cgroup else []
        try:
            flags = process.CLONE_PARENT if sibling else 0
            self.pid, self._pidfd = process.clone3(flags, cgroup=into)
            if self.pid == 0:
                try:
                    ours.close()
                    cgroups.enter(entrances)
                    _become(path, theirs, (images, work), streams, inherited, prepare)
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
                    theirs.send(in_words(error).encode(errors="replace")[:_WORDS_BYTES_MAX])
                os._exit(_NOT_STARTED)
        finally:
            theirs.close()
            for descriptor in (*entrances, *([] if into is None else [into])):
                os.close(descriptor)
        self._meet(ours)

    def _meet(self, ours: _socket.socket) -> None:
        """Take the socket that the child made, and wait until it has become criu."""
        told, rights, _, _ = ours.recvmsg(
            _WORDS_BYTES_MAX, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC
        )
        if rights:
            self._socket = _socket.socket(fileno=process.received(rights))
            pairs = zip(_DIRECTORIES, struct.unpack("ii", told), strict=True)
            self.directories = {name: number for name, number in pairs if number >= 0}
            told = ours.recv(_WORDS_BYTES_MAX)
        ours.close()
        if not told:  # it has been executed
            return
        if rights:
            self._socket.close()
        self._await_end()
        raise UnavailableError(f"criu could not be started: {told.decode(errors='replace')}")

    def __enter__(self) -> "Criu":
        """Returns the run."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()

    def close(self) -> None:
        """Hang up, and reap it, unless that is the business of our parent."""
        self._socket.close()
        self._await_end()

    def _await_end(self) -> None:
        if self._sibling:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll()
        else:
            os.waitpid(self.pid, 0)
        os.close(self._pidfd)

    def ask(
        self,
        fields: "dict[str, Any]",
        notified: "Callable[[str, int, int | None], None] | None" = None,
    ) -> "dict[str, Any]":
        """Make the request, and see it through.

        Args:
            fields: as ``ketch.spec.criu`` has them.
            notified: what to do at a point that criu tells of: its name, the pid of the restored
                init and a descriptor, which it owns, as far as they come with it.

        Returns:
            The answer.

        Raises:
            UnavailableError: criu failed.
        """
        self._socket.send(criu.request(fields))
        while True:
            data, rights, _, _ = self._socket.recvmsg(
                _ANSWER_BYTES_MAX, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC
            )
            descriptor = process.received(rights)
            if not data:
                raise UnavailableError("criu failed: it ended without an answer")
            answer = criu.response(data)
            if not answer.get("success"):
                kind = _KINDS.get(answer.get("type", 0), "?")
                number = answer.get("errno", 0)
                raise UnavailableError(f"criu failed: type {kind} errno {number}")
            if answer.get("type") != criu.NOTIFY:
                return answer
            told = answer.get("notify", {})
            if notified is not None:
                notified(told.get("script", ""), told.get("pid", 0), descriptor)
            elif descriptor is not None:
                os.close(descriptor)
            self._socket.send(criu.request({"type": criu.NOTIFY, "notify_success": True}))


def _find(program: str) -> str:
    directories = [""] if "/" in program else os.environ.get("PATH", "").split(":")
    for directory in directories:
        path = os.path.join(directory, program)
        if os.access(path, os.X_OK):
            return path
    raise UnavailableError(
        f"{program} is not installed, and it is what saves and restores processes",
        "install criu, or name it with --criu",
    )


def _become(
    path: str,
    channel: _socket.socket,
    directories: tuple[str, str],
    streams: tuple[int, int, int],
    inherited: "tuple[int, ...]",
    prepare: "Callable[[], None] | None",
) -> None:
    """In the child: become criu."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    # Slaves, as what a container has of the host's mounts: criu makes those from these.
    mount.mount("", "/", flags=mount.MS_SLAVE | mount.MS_REC)
    if prepare is not None:
        prepare()
    # criu reaches its directories through whoever made the socket, and mounts in them: so that has
    # to be itself, in its own mount namespace.
    opened = [os.open(each, _DIRECTORY) if each else -1 for each in directories]
    client, server = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    channel.sendmsg([struct.pack("ii", *opened)], process.rights(client.fileno()))
    client.close()
    for number, descriptor in enumerate(streams):
        if number == descriptor:
            os.set_inheritable(number, True)
        else:
            os.dup2(descriptor, number)
    for descriptor in (server.fileno(), *inherited, *opened):
        if descriptor >= 0:
            os.set_inheritable(descriptor, True)
    restore_signals()
    os.execv(path, [path, "swrk", str(server.fileno())])
