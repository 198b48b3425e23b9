"""``exec``: another program in a running container, watched over by a monitor of its own."""

import json
import os
from contextlib import ExitStack, suppress

from ketch.engine import host, user_namespaces
from ketch.engine.configuration import cgroup_paths
from ketch.engine.containers.execs import check_running
from ketch.engine.monitor import filtering
from ketch.engine.monitor.running import read_beneath
from ketch.engine.monitor.supervision import Streams, Supervisor
from ketch.engine.networks import linking
from ketch.engine.processes import await_readable, open_process
from ketch.engine.requests import launch, wire
from ketch.errors import ENGINE_FAILED, ConflictError, InvalidArgumentError, KetchError, StartError
from ketch.linux.scopes import owned
from ketch.runtime import enter
from ketch.runtime.process import ProcessSetup
from ketch.spec import capabilities, environment, passwd
from ketch.spec.user_namespaces import is_apart

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from ketch.engine.containers.execs import Exec
    from ketch.engine.engine import Engine
    from ketch.engine.monitor.supervision import Log
    from ketch.engine.records.rows import Container
    from ketch.engine.requests.client import Client
    from ketch.engine.settings import Settings
    from ketch.spec.container import ExecConfig, Request
    from ketch.spec.runtime import Config, Process
    from ketch.spec.told import Say


_CANNOT_RUN = 126
_KINDS = {"AttachStdout": wire.OUTPUT, "AttachStderr": wire.ERRORS}


def execute(
    engine: "Engine",
    session: "Exec",
    client: "Client",
    *,
    detached: bool,
    explain: "Say | None" = None,
) -> int:
    """Run a session's program in its container until it ends.

    Args:
        engine: where the container is.
        session: what to run, and which streams its client has; the caller has claimed it.
        client: who asked; is told when the program runs, and stays attached unless detached.
        detached: whether that is all the client wants.
        explain: takes what is told of each step, when it begins.

    Returns:
        The program's exit status.

    Raises:
        NotFoundError: no such container.
        ConflictError: it does not run.
        StartError: the program cannot be run.
    """
    container = engine.containers.find(session.container_id)
    try:
        with ExitStack() as held:
            supervisor = start(engine, container, session, held, client, explain=explain)
            if detached:
                client.close()
            else:
                client.starter = True
                asked = session.config
                takes = tuple(kind for name, kind in _KINDS.items() if asked.get(name))
                supervisor.attach(client, gives=bool(asked.get("AttachStdin")), takes=takes)
            status = supervisor.run()
    except BaseException as error:
        engine.execs.mark_ended(session, container, getattr(error, "exit_status", ENGINE_FAILED))
        raise
    engine.execs.mark_ended(session, container, status)
    return status


def start(
    engine: "Engine",
    container: "Container",
    session: "Exec",
    held: ExitStack,
    client: "Client | None" = None,
    *,
    log: "Log | None" = None,
    explain: "Say | None" = None,
) -> Supervisor:
    """Run a session's program.

    Args:
        engine: where the container is.
        container: the container.
        session: what to run; the caller has claimed it.
        held: owns what is needed as long as it runs.
        client: who is told, or None.
        log: where its output goes, or None.
        explain: takes what is told of each step, when it begins.

    Returns:
        Who watches over it, to be run.

    Raises:
        ConflictError: the container does not run.
        KetchError: the program cannot be run; ``exit_status`` says what a shell would.
    """
    check_running(container)
    pidfd = held.enter_context(open_process(container.init_pid, container.init_start_time))
    if pidfd is None:
        raise ConflictError(f"container {container.id} is not running")
    try:
        return _start(engine, container, session, held, client, log, pidfd, explain)
    except (FileNotFoundError, ProcessLookupError) as error:
        if await_readable(pidfd, 0):  # it has ended meanwhile
            raise ConflictError(f"container {container.id} is not running") from error
        raise
    except KetchError as error:
        if not isinstance(error, (ConflictError, StartError)):
            error.exit_status = _CANNOT_RUN  # type: ignore[attr-defined]
        raise


def _start(
    engine: "Engine",
    container: "Container",
    session: "Exec",
    held: ExitStack,
    client: "Client | None",
    log: "Log | None",
    pidfd: int,
    explain: "Say | None",
) -> Supervisor:
    asked = session.config
    directory = engine.settings.container_directory(container.id)
    with open(f"{directory}/config.json", encoding="utf-8") as file:
        config: Config = json.load(file)
    linked = [
        variable
        for link in linking.links_of(engine, container, running=True)
        for variable in link.variables
    ]
    specification = _specify(container, config, asked, linked)
    section = None if asked.get("Privileged") else config["linux"].get("seccomp")
    filter_, notified = filtering.prepare(engine.settings, section, specification)
    terminal = asked.get("Tty", False)
    streams = Streams.make(interactive=asked.get("AttachStdin", False), terminal=terminal)
    held.callback(streams.close)
    if is_apart(container.record["HostConfig"].get("UsernsMode", "")):
        user_namespaces.give(streams.given, user_namespaces.of_process(container.init_pid))
    entered = enter.enter(
        container.init_pid,
        pidfd,
        specification,
        ProcessSetup(specification, filter_),
        cgroup_paths.manager(engine.settings, container),
        streams.given,
        config=config,
        container_id=container.id,
        explain=explain,
        notified=notified,
    )
    held.callback(entered.close)
    listener = _listen(engine.settings, session, held) if terminal else None
    if client is not None:
        client.check_interest()
    engine.execs.mark_started(session, container, entered.pid)
    entered.start()
    streams.started(entered.console)
    if client is not None:
        client.started(session.id)
    return Supervisor(entered.pidfd, streams, log, listener=listener, identifier=session.id)


def _listen(settings: "Settings", session: "Exec", held: ExitStack) -> "_socket.socket | None":
    """Make the socket where the session's terminal is resized."""
    try:
        directory = os.open(
            settings.runtime_directory(session.container_id),
            os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC,
        )
    except FileNotFoundError:
        return None  # the container has just ended
    held.callback(os.close, directory)
    name = launch.exec_socket(session.id)
    listener = launch.listen(directory, name)
    listener.setblocking(False)
    held.callback(listener.close)
    held.callback(_unlink, f"{name}.socket", directory)
    return listener


def _unlink(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _specify(
    container: "Container", config: "Config", asked: "ExecConfig", linked: list[str]
) -> "Process":
    """The container's process, changed as asked, with the variables of links as they are now."""
    request: Request = container.record  # type: ignore[assignment]
    terminal = asked.get("Tty", False)
    process: Process = {**config["process"], "args": asked["Cmd"], "terminal": terminal}
    if size := asked.get("ConsoleSize"):
        process["consoleSize"] = {"height": size[0], "width": size[1]}
    if asked.get("WorkingDir") and not os.path.isabs(asked["WorkingDir"]):
        raise InvalidArgumentError(
            f"the working directory {asked['WorkingDir']} is invalid: it must be an absolute path"
        )
    user_name = asked.get("User") or request["Config"].get("User", "")
    with owned(
        os.open(f"/proc/{container.init_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    ) as root:
        group_text = read_beneath(root, "/etc/group")
        user = passwd.look_up(user_name, read_beneath(root, "/etc/passwd"), group_text)
    if asked.get("User"):
        added = passwd.group_ids(request["HostConfig"].get("GroupAdd") or (), group_text)
        own = [user.gid, *user.groups] if host.examine().sets_groups else []
        groups = list(dict.fromkeys([*own, *added]))
        process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": groups}
    process["env"] = environment.of_container(
        [*linked, *request["Config"].get("Env", ()), *(asked.get("Env") or ())],
        # Of whose network it is in, where it has none of its own; of the host, with its names.
        hostname=request["Config"].get("Hostname") or config.get("hostname") or os.uname().nodename,
        home=user.home,
        terminal=terminal,
    )
    if asked.get("WorkingDir"):
        process["cwd"] = asked["WorkingDir"]
    if asked.get("Privileged"):
        every = capabilities.to_names(host.examine().capabilities)
        process["capabilities"] = {"bounding": every, "effective": every, "permitted": every}
    return process
