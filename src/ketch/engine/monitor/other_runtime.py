"""A container, or a program in one, that another OCI runtime runs: runc, crun, gVisor's runsc.

Between the monitor and the program stands **the shim**, a process of ours and the monitor's child::

    monitor ──▶ shim, a child subreaper ──▶ runtime create, ends
                  └────────── is given ───────▶ the program, as its parent is gone

It calls the runtime, passes signals on to the program, and ends as that ends: so to the monitor it
is the program. It has what another program cannot be handed by descriptor, in a mount namespace of
its own: the root filesystem, sources that are detached trees, namespaces to be joined. All of that
goes with it, whatever ends it, and what it leaves running is in the container's control group.
"""

import json
import os
import select
import signal
import socket
from contextlib import ExitStack, suppress

from ketch.engine import mishaps
from ketch.engine.configuration import bundle, runtimes
from ketch.engine.containers import driven
from ketch.engine.monitor import handover
from ketch.errors import KetchError, StartError, SyscallError, UnavailableError, in_words
from ketch.linux import mount, namespaces, process, signals
from ketch.linux.libc import AT_RECURSIVE, MACHINE
from ketch.linux.removetree import remove_tree
from ketch.linux.scopes import owned
from ketch.runtime import driving, mappings, outside, pid_one

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings
    from ketch.spec.runtime import Config, Mount, Process

    Streams = tuple[int, int, int]

_DESCRIPTOR = "/proc/self/fd/"
# What older ones still take; they leave out what they do not know.
_OCI_VERSION = "1.0.2"
_UNIFIED = "/sys/fs/cgroup/unified"
_INIT = "init"  # a source to be replaced
_GRACE_SECONDS = 30
_CONSOLE_SECONDS = 10
# Programs that pass signals on and reap, as podman and Docker have them.
_INITS = ("docker-init", "catatonit", "tini")
_INIT_DIRECTORIES = ("/usr/local/bin", "/usr/bin", "/usr/libexec/podman", "/usr/libexec/docker",
                     "/usr/lib/podman", "/usr/sbin")  # fmt: skip


class Program:
    """A program that another runtime has made, as the engine has its own: ``runtime.create``.

    Attributes:
        pid: its pid.
        pidfd: descriptor of the shim, which ends with its status.
        console: the terminal's master, or None.
        between: 0: nobody else has to be reaped.
    """

    __slots__ = ("_channel", "_look", "_waits", "between", "console", "pid", "pidfd")

    def __init__(
        self, channel: handover.Channel, pidfd: int, look: "Callable[[], None]", *, waits: bool
    ) -> None:
        self._channel = channel
        self._look = look
        self._waits = waits  # for its start, which has not happened with its making
        self.pidfd = pidfd
        self.between = 0
        heard = self._hear(driving.MAKING_SECONDS + _GRACE_SECONDS)
        self.pid = int(heard[0]["pid"])
        self.console = heard[1][0] if heard[1] else None

    def start(self) -> None:
        """Let the program run.

        Raises:
            KetchError: it cannot be run.
        """
        if not self._waits:
            return
        self._channel.tell({"do": "start"})
        self._hear(driving.MAKING_SECONDS + _GRACE_SECONDS)

    def abandon(self) -> None:
        """End the program, which nobody is going to watch over."""
        with suppress(OSError):
            self._channel.tell({"do": "end"})
        self._channel.close()
        if not select.select([self.pidfd], [], [], _GRACE_SECONDS)[0]:
            with suppress(ProcessLookupError, SyscallError):
                process.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)
        self.pidfd = -1
        if self.console is not None:
            with suppress(OSError):  # the streams have it
                os.close(self.console)

    def close(self) -> None:
        """Let go of it: what was started lives on."""
        self._channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _hear(self, seconds: int) -> "tuple[dict[str, Any], tuple[int, ...]]":
        heard = None
        for _ in range(seconds):
            if select.select([self._channel], [], [], 1)[0]:
                heard = self._channel.hear()
                break
            self._look()
        if heard is None:
            raise UnavailableError("the process that calls the container's runtime has gone")
        fields = heard[0]
        if "failure" in fields:
            message, hint = str(fields["failure"]), str(fields["hint"])
            if fields["status"]:
                raise StartError(message, hint, exit_status=int(fields["status"]))  # type: ignore[arg-type]
            raise UnavailableError(message, hint)
        return heard


def _go_on() -> None:
    """Nobody is there who could lose interest."""


def create(
    settings: "Settings",
    container: "Container",
    config: "Config",
    *,
    rootfs: int,
    streams: "Streams",
    look: "Callable[[], None]",
) -> Program:
    """Have a container made up to the moment before its program runs.

    Args:
        settings: the engine's places.
        container: the container.
        config: its configuration, as ketch's own runtime would have it.
        rootfs: its root filesystem, a detached mount.
        streams: the program's ends of its standard streams.
        look: is called now and then, and raises what there is to be given up for.

    Raises:
        StartError: the program cannot be run.
        KetchError: the runtime is not there, or failed.
    """
    words = runtimes.resolve(settings, container.record["HostConfig"]["Runtime"])
    place = runtimes.directory_of(settings, container.id)
    remove_tree(place)  # of the run before
    os.makedirs(f"{place}/bundle", 0o700)
    runtimes.keep(settings, container.id, words)
    runtime = driving.Runtime(words, f"{place}/state", container.id)
    try:
        return _create(runtime, config, f"{place}/bundle", rootfs, streams, look)
    except BaseException:
        driven.forget(settings, container.id)
        raise


def _create(
    runtime: driving.Runtime,
    config: "Config",
    place: str,
    rootfs: int,
    streams: "Streams",
    look: "Callable[[], None]",
) -> Program:
    with ExitStack() as held:
        root = f"{_DESCRIPTOR}{rootfs}"
        trees = {root: rootfs}
        config = {**config, "mounts": [_plain(entry, config, trees, held)
                                       for entry in config["mounts"]]}  # fmt: skip
        _add_init(config)
        terminal = config["process"].get("terminal", False)

        def prepare() -> None:
            _lay_out(config, root, place, trees)

        def make(abandoned: int) -> int:
            return runtime.create(streams, terminal=terminal, abandoned=abandoned)

        return _shim(
            place, prepare, make, runtime.start, terminal=terminal, sibling=True, look=look
        )


def enter(
    settings: "Settings",
    container: "Container",
    session_id: str,
    specification: "Process",
    streams: "Streams",
    *,
    sibling: bool,
) -> Program:
    """Have a program run in a container that runs.

    Args:
        settings: the engine's places.
        container: the container.
        session_id: a name for this program.
        specification: the program.
        streams: its ends of its standard streams.
        sibling: whether the shim becomes a child of the caller's parent.

    Raises:
        StartError: it cannot be run.
        KetchError: the runtime is not there, or failed.
    """
    place = f"{runtimes.directory_of(settings, container.id)}/exec-{session_id}"
    os.mkdir(place, 0o700)
    try:
        with open(f"{place}/process.json", "w", encoding="utf-8") as file:
            json.dump(specification, file)
        runtime = driven.of(settings, container.id)
        terminal = specification.get("terminal", False)

        def make(abandoned: int) -> int:
            return runtime.exec(streams, terminal=terminal, abandoned=abandoned)

        return _shim(
            place,
            lambda: _join_shim(container.init_pid),
            make,
            None,
            terminal=terminal,
            sibling=sibling,
        )
    finally:
        remove_tree(place)


def _plain(entry: "Mount", config: "Config", trees: dict[str, int], held: ExitStack) -> "Mount":
    """A mount as any runtime takes it; what stands behind descriptors is added to the trees."""
    plain: Mount = {**entry}
    plain.pop("shown", None)
    source, options = entry.get("source", ""), entry.get("options", [])
    by_descriptor = source.startswith(_DESCRIPTOR)
    if "idmap" in options:
        tree = mount.open_tree(-100, source, mount.OPEN_TREE_CLONE | AT_RECURSIVE)
        held.callback(os.close, tree)
        with owned(_mapping(entry, config)) as namespace:
            mount.mount_setattr(
                tree, set_attributes=mount.MOUNT_ATTR_IDMAP, user_namespace=namespace,
                recursive=True,
            )  # fmt: skip
        plain["options"] = [option for option in options if option != "idmap"]
        plain.pop("uidMappings", None)
        plain.pop("gidMappings", None)
        plain["source"] = f"{_DESCRIPTOR}{tree}"
        trees[plain["source"]] = tree
    elif by_descriptor and source not in trees:
        trees[source] = outside.detached(int(source.removeprefix(_DESCRIPTOR)))
        held.callback(os.close, trees[source])
    return plain


def _mapping(entry: "Mount", config: "Config") -> int:
    """Open the user namespace whose ids a mount is to show."""
    if entry.get("uidMappings"):
        return mappings.open_namespace(entry["uidMappings"], entry["gidMappings"])
    paths = [one["path"] for one in config["linux"]["namespaces"] if one["type"] == "user"]
    return os.open(paths[0], os.O_RDONLY | os.O_CLOEXEC)


def _add_init(config: "Config") -> None:
    """Put an init into the container that asks for one: ketch's own is no file."""
    wanted = bundle.init_of(config)
    if not wanted:
        return
    if wanted == "alone":
        source, words = _INIT, [pid_one.PATH]
    else:
        source = _installed_init()
        words = [pid_one.PATH, "--", *config["process"]["args"]]
    config["mounts"].append(
        {"destination": pid_one.PATH, "type": "bind", "source": source, "options": ["bind", "ro"]}
    )
    config["process"] = {**config["process"], "args": words}


def _installed_init() -> str:
    for name in _INITS:
        for directory in _INIT_DIRECTORIES:
            if os.access(f"{directory}/{name}", os.X_OK):
                return f"{directory}/{name}"
    raise UnavailableError(
        f"--init: none of {', '.join(_INITS)} is installed, one of which another runtime needs",
        "install one, as by the package catatonit or tini, or leave --init out",
    )


def _lay_out(config: "Config", root: str, place: str, trees: dict[str, int]) -> None:
    """Mount what the bundle needs, seen by nobody else, and write its configuration."""
    linux = config["linux"]
    namespaces.unshare(namespaces.CLONE_NEWNS)
    if linux.get("rootfsPropagation") == "shared":
        _cut_off(place)  # mounts of the container are to be seen outside
        _cut_off(_UNIFIED)
    else:
        mount.mount("", "/", flags=mount.MS_REC | mount.MS_SLAVE)
    _cover_unified()
    moved = outside.places(trees, place)
    moved[_INIT] = f"{place}/init"
    # Without mount points: the container's root may have ids that are not ours to make files with.
    outside.lay_out({**config, "mounts": []}, root, place, trees)
    if bundle.init_of(config) == "alone":
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        with open(os.open(f"{place}/init", flags, 0o755), "wb") as file:
            file.write(pid_one.executable(MACHINE, pid_one.NOBODY, pid_one.NO_DESCRIPTOR))
    joined = []
    for one in linux["namespaces"]:
        path = one.get("path", "")
        if path.startswith(_DESCRIPTOR):
            target = f"{place}/{one['type']}"
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))
            mount.mount(path, target, flags=mount.MS_BIND)
            one = {**one, "path": target}  # noqa: PLW2901 the same, elsewhere
        joined.append(one)
    told = {
        **config,
        "ociVersion": _OCI_VERSION,
        "root": {**config["root"], "path": f"{place}/root"},
        "mounts": [{**entry, "source": moved.get(entry.get("source", ""), entry.get("source", ""))}
                   for entry in config["mounts"]],
        "linux": {**linux, "namespaces": joined},
    }  # fmt: skip
    with open(f"{place}/config.json", "w", encoding="utf-8") as file:
        json.dump(told, file)


def _join_shim(init_pid: int) -> None:
    """Enter the mount namespace of a container's shim, where its runtime finds the bundle."""
    with open(f"/proc/{init_pid}/stat", "rb") as file:
        shim = int(file.read().rpartition(b")")[2].split()[1])
    with owned(os.open(f"/proc/{shim}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)) as namespace:
        namespaces.setns(namespace, namespaces.CLONE_NEWNS)


def _cover_unified() -> None:
    """Hide cgroup v2 where v1 is mounted beside, by which containers are limited: crun refuses."""
    with suppress(SyscallError):
        mount.umount2(_UNIFIED, mount.MNT_DETACH)


def _cut_off(place: str) -> None:
    """Keep what is mounted at a place from being mounted outside, and nothing else."""
    while True:
        try:
            mount.mount("", place, flags=mount.MS_SLAVE)
        except OSError:  # no mount point
            if place == "/":
                raise
            place = os.path.dirname(place)
        else:
            return


def _shim(
    place: str,
    prepare: "Callable[[], None]",
    make: "Callable[[int], int]",
    start: "Callable[[int], None] | None",
    *,
    terminal: bool,
    sibling: bool,
    look: "Callable[[], None]" = _go_on,
) -> Program:
    """Begin a shim; returns the program that it has made.

    Args:
        place: its working directory.
        prepare: what it does before that.
        make: has the program made, and returns its pid; given what can be read when it is in vain.
        start: has it run, where that is another step.
        terminal: whether the program has a terminal, which the runtime sends.
        sibling: whether it becomes a child of the caller's parent.
        look: as for ``create``.
    """
    ours, theirs = handover.Channel.pair()
    pid, pidfd = process.clone3(process.CLONE_PARENT if sibling else 0)
    if pid == 0:
        ours.close()
        _live(_Shim(theirs, start), lambda: _made(place, prepare, make, theirs, terminal=terminal))
    theirs.close()
    try:
        return Program(ours, pidfd, look, waits=start is not None)
    except BaseException:
        ours.close()
        if not select.select([pidfd], [], [], _GRACE_SECONDS)[0]:
            process.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        raise


def _made(
    place: str,
    prepare: "Callable[[], None]",
    make: "Callable[[int], int]",
    channel: handover.Channel,
    *,
    terminal: bool,
) -> tuple[int, list[int]]:
    """Make the program; returns its pid, and its terminal if it has one."""
    prepare()
    os.chdir(place)
    listener = None
    if terminal:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind("console.sock")
        listener.listen(1)
    pid = make(channel.fileno())
    return pid, [] if listener is None else [_console(listener)]


def _console(listener: socket.socket) -> int:
    """The terminal's master, which the runtime has sent by now."""
    listener.settimeout(_CONSOLE_SECONDS)
    try:
        sender, _ = listener.accept()
        with sender:
            sender.settimeout(_CONSOLE_SECONDS)
            _, rights, _, _ = sender.recvmsg(4096, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise UnavailableError("the container's runtime has sent no terminal") from error
    console = process.received(rights)
    if console is None:
        raise UnavailableError("the container's runtime has sent no terminal")
    return console


def _live(shim: "_Shim", make: "Callable[[], tuple[int, list[int]]]") -> "NoReturn":
    """Live a shim's life; never back into the caller's."""
    status = 1
    try:
        status = shim.live(make)
    except BaseException as error:  # noqa: BLE001 - no way back
        mishaps.note("what calls a container's runtime", error)
    os._exit(status)


class _Shim:
    """The parent of a program that another runtime has made.

    Args:
        channel: to who wants the program.
        start: has it run, where making it does not.
    """

    __slots__ = ("_channel", "_monitor", "_pid", "_start", "_status")

    def __init__(self, channel: handover.Channel, start: "Callable[[int], None] | None") -> None:
        self._channel: handover.Channel | None = channel
        self._start = start
        self._monitor = os.getppid()
        self._pid = 0
        self._status: int | None = None

    def live(self, make: "Callable[[], tuple[int, list[int]]]") -> int:
        """Make the program, and wait for its end; returns its exit status."""
        process.set_name("ketch-shim")
        process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGTERM)
        assert self._channel is not None
        try:
            self._pid, console = make()
        except (KetchError, OSError) as error:
            self._fail(error)
            return 1
        # From here on they are waited for, and for nobody else.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._channel.tell({"pid": self._pid}, console)
        awaited = signals.signalfd()
        process.close_all_but({awaited, self._channel.fileno()})
        self._serve(awaited)
        assert self._status is not None
        return self._status

    def _fail(self, error: Exception) -> None:
        assert self._channel is not None
        with suppress(OSError):
            self._channel.tell(
                {
                    "failure": getattr(error, "message", "") or in_words(error),
                    "hint": getattr(error, "hint", ""),
                    "status": getattr(error, "exit_status", 0),
                }
            )

    def _serve(self, signalled: int) -> None:
        """Pass signals on and obey, until the program ends."""
        self._reap()  # it may be over already
        if os.getppid() != self._monitor:
            self._end()
        while self._status is None:
            awaited = [signalled] if self._channel is None else [signalled, self._channel.fileno()]
            ready = select.select(awaited, [], [])[0]
            if signalled in ready:
                number = int.from_bytes(os.read(signalled, 128)[:4], "little")
                if os.getppid() != self._monitor:
                    self._end()
                elif number != signal.SIGCHLD:
                    self._send(number)
                self._reap()
            elif self._channel is not None:
                self._obey(self._channel)

    def _obey(self, channel: handover.Channel) -> None:
        heard = channel.hear()
        if heard is None:
            channel.close()
            self._channel = None
            if self._start is not None:  # and nobody will ever start it
                self._end()
        elif heard[0]["do"] == "end":
            self._end()
        elif self._start is not None:
            try:
                self._start(channel.fileno())
            except (KetchError, OSError) as error:
                self._fail(error)
                self._end()
            else:
                self._start = None
                channel.tell({"at": "started"})

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)  # our child, which nobody else reaps

    def _end(self) -> None:
        self._send(signal.SIGKILL)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while self._status is None:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._pid:
                    code = os.waitstatus_to_exitcode(status)
                    self._status = code if code >= 0 else 128 - code
