"""A gate into a running container: a process in its namespaces that clones programs there.

``enter`` has a process in between for each program, and most of what that takes is always the same:
joining control groups and namespaces, closing what it has inherited. A gate is that process, kept::

    caller ──fork──> gate: cgroups, setns(2); then, for each program,
      │ ── arguments, environment, streams ──▶ │
      └── is the parent of ── clone3(2) CLONE_PARENT ──> the new process, see ``enter.become``

It is in no PID namespace of the container's, so nobody inside sees it, sends it a signal or traces
it; nothing that comes from inside is read by it. It is in the container's control groups, as who is
in between is: what it clones is counted there, and is frozen and killed with the rest. Like that
one it is non-dumpable. It ends when the caller does.
"""

import _socket
import errno
import os
import struct

from ketch.errors import SyscallError, UnavailableError
from ketch.linux import capabilities, namespaces, process, signals
from ketch.linux.scopes import ExitStack, suppress
from ketch.runtime import enter
from ketch.runtime.create import Container
from ketch.runtime.handshake import Channel, run_child
from ketch.runtime.process import ProcessSetup, too_many_processes
from ketch.runtime.steps import JoinKeyring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ketch import cgroups
    from ketch.runtime.seccomp import Filter
    from ketch.spec.runtime import Config, Process

_OWN = ("args", "env", "cwd")
_HEAD = struct.Struct("III")  # how many words: arguments, environment; how many bytes they take
_ANSWER = struct.Struct("i")  # a pid, or an error number below zero
_DESCRIPTORS = 4  # standard input, output, error; the channel


class ClosedError(UnavailableError):
    """A gate has gone: somebody, or the kernel for want of memory, has killed it."""


class Gate:
    """A gate, as its maker has it: a process of one thread, and the parent of all that it clones.

    Args:
        init_pid: the container's init.
        init_pidfd: its descriptor, which makes sure that the pid is still its own.
        specification: what is cloned, but for arguments, environment and working directory.
        filter_: the system call filter that goes with it; none that asks somebody outside.
        cgroup: the container's.
        config: the container's configuration.
        container_id: its identifier.

    Raises:
        ConflictError: the container does not run.
        KetchError: it cannot be made.
    """

    __slots__ = ("_cgroup", "_kind", "_pid", "_socket")

    def __init__(
        self,
        init_pid: int,
        init_pidfd: int,
        specification: "Process",
        filter_: "Filter | None",
        cgroup: "cgroups.Manager",
        *,
        config: "Config",
        container_id: str,
    ) -> None:
        self._cgroup = cgroup
        self._kind = _kind(specification)
        setup = ProcessSetup(specification, filter_)
        with ExitStack() as stack:
            opened = enter.open_container(init_pid, init_pidfd, stack)
            in_user_namespace = bool(opened[-1] & namespaces.CLONE_NEWUSER)
            nested = not namespaces.in_initial_user_namespace()
            setup.settle(config, in_user_namespace=in_user_namespace, nested=nested)
            ours, theirs = _socket.socketpair(
                _socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC
            )
            stack.callback(theirs.close)
            told, channel = Channel.pair()
            stack.callback(told.close)
            stack.callback(channel.close)
            entry = enter.Entry(setup, channel, (0, 0, 0), init_pidfd, opened)
            entry.keyring = JoinKeyring(container_id, in_user_namespace=in_user_namespace)
            entry.open_cgroups(cgroup, init_pid, stack)
            if entry.into is not None and in_user_namespace:
                # Whoever has entered a user namespace may be nobody to the cgroup's owner.
                self._pid, pidfd = enter.clone(0, entry.into)
                entry.into = None
                if pidfd >= 0:
                    os.close(pidfd)
            else:
                self._pid = os.fork()
            if self._pid == 0:
                run_child(channel, lambda: _keep(entry, theirs))
            channel.close()
            theirs.close()
            self._socket = ours
            try:
                told.await_point()  # an error, or the end of it: it stands
                cgroup.adopt(self._pid)
            except BaseException:
                self.close()
                raise

    def suits(self, specification: "Process") -> bool:
        """Whether it can clone what is asked for."""
        return not specification.get("terminal") and _kind(specification) == self._kind

    def enter(
        self,
        specification: "Process",
        streams: tuple[int, int, int],
    ) -> Container:
        """Make a process in the container, up to the moment before its program runs.

        Args:
            specification: what it is to become; one that suits.
            streams: descriptors of its standard input, output and error.

        Returns:
            The new process, a child of the caller.

        Raises:
            ClosedError: the gate has gone, and nothing has begun.
            KetchError: why it could not be made.
        """
        ours, theirs = Channel.pair()
        try:
            pid = self._ask(specification, (*streams, theirs.fileno()))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        entered = Container(pid, process.pidfd_open(pid), ours)
        enter.see_in(entered, specification, self._cgroup)
        return entered

    def _ask(self, specification: "Process", descriptors: tuple[int, ...]) -> int:
        arguments, environment = specification["args"], specification.get("env", [])
        words = [specification["cwd"], *arguments, *environment]
        data = b"\0".join(map(os.fsencode, words))
        head = _HEAD.pack(len(arguments), len(environment), len(data))
        try:
            self._socket.sendmsg([head], process.rights(*descriptors), _socket.MSG_NOSIGNAL)
            self._socket.sendall(data)
            told = self._socket.recv(_ANSWER.size)
        except ConnectionError:
            told = b""
        if len(told) != _ANSWER.size:
            raise ClosedError("the process at the container's entrance has been killed")
        (number,) = _ANSWER.unpack(told)
        if number == -errno.EAGAIN:
            raise too_many_processes()
        if number < 0:
            raise UnavailableError(
                f"no process can be made in the container: {os.strerror(-number).lower()}"
            )
        return int(number)

    def close(self) -> None:
        """End it; what it has cloned goes on."""
        self._socket.close()
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signals.SIGKILL)  # a child that nobody has reaped: its own pid
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0


def _kind(specification: "Process") -> "dict[str, object]":
    """What of a process a gate has settled."""
    return {name: value for name, value in specification.items() if name not in _OWN}


def _keep(entry: enter.Entry, socket: _socket.socket) -> "NoReturn":
    """In the gate: enter, and clone what is asked for until nobody asks any more."""
    enter.go_inside(entry, socket.fileno())
    os.close(entry.root)
    enter.belong(entry)
    # Not its own capabilities: those that a program could ever have.
    capabilities.restrict(entry.setup.capabilities.bounding)
    entry.channel.close()
    while True:
        asked = _hear(entry, socket)
        if asked is None:
            os._exit(0)
        try:
            pid, pidfd = process.clone3(process.CLONE_PARENT, cgroup=entry.into)
        except SyscallError as error:
            pid, pidfd = -(error.errno or errno.EINVAL), -1
        if pid == 0:
            socket.close()
            if entry.into is not None:
                os.close(entry.into)
            run_child(entry.channel, lambda: enter.become(entry))
        entry.channel.close()  # its end is the program's start
        for descriptor in (*asked, pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        socket.send(_ANSWER.pack(pid))


def _hear(entry: enter.Entry, socket: _socket.socket) -> "tuple[int, ...] | None":
    """Take in what is to be cloned; returns descriptors to close here, None at the end."""
    room = _socket.CMSG_SPACE(_ANSWER.size * _DESCRIPTORS)
    head, rights, _, _ = socket.recvmsg(_HEAD.size, room, _socket.MSG_CMSG_CLOEXEC)
    if len(head) != _HEAD.size or not rights:
        return None
    arguments, environment, left = _HEAD.unpack(head)
    parts = []
    while left:
        part = socket.recv(left)
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    words = [os.fsdecode(word) for word in b"".join(parts).split(b"\0")]
    setup = entry.setup
    setup.directory = words[0]
    setup.arguments = words[1 : 1 + arguments]
    setup.environment = words[1 + arguments : 1 + arguments + environment]
    descriptors: tuple[int, ...] = struct.unpack(f"{_DESCRIPTORS}i", rights[0][2])
    entry.streams = (descriptors[0], descriptors[1], descriptors[2])
    entry.channel = Channel(_socket.socket(fileno=descriptors[3]))
    return descriptors[:3]
