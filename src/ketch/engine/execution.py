"""``exec``: another program in a running container, watched over by a monitor of its own."""

import json
import os
from contextlib import ExitStack

from ketch import cgroups
from ketch.engine import host, names, wire
from ketch.engine.processes import open_process
from ketch.engine.running import read_beneath
from ketch.engine.supervision import Streams, Supervisor
from ketch.errors import ConflictError, InvalidArgumentError
from ketch.runtime import enter, seccomp
from ketch.runtime.process import ProcessSetup
from ketch.spec import capabilities, environment, passwd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.client import Client
    from ketch.engine.engine import Engine
    from ketch.engine.records import Container
    from ketch.spec.container import Request
    from ketch.spec.runtime import Config, Process


class Exec:
    """What an exec asks for.

    Args:
        arguments: the program and its arguments.
        environment: ``NAME=VALUE``, added to the container's.
        user: who runs it, ``--user``'s syntax, or empty for the container's own user.
        directory: where it starts, or empty for the container's own directory.
        terminal: whether it gets a terminal.
        interactive: whether it has a standard input.
        detached: whether the client leaves at once.
        privileged: whether it gets all capabilities.
    """

    __slots__ = (
        "arguments", "detached", "directory", "environment", "interactive", "privileged",
        "terminal", "user",
    )  # fmt: skip

    def __init__(
        self,
        arguments: "Sequence[str]",
        *,
        environment: "Sequence[str]" = (),
        user: str = "",
        directory: str = "",
        terminal: bool = False,
        interactive: bool = False,
        detached: bool = False,
        privileged: bool = False,
    ) -> None:
        self.arguments = list(arguments)
        self.environment = list(environment)
        self.user = user
        self.directory = directory
        self.terminal = terminal
        self.interactive = interactive
        self.detached = detached
        self.privileged = privileged


def execute(engine: "Engine", reference: str, asked: Exec, client: "Client") -> int:
    """Run a program in a running container until it ends.

    Args:
        engine: where the container is.
        reference: the container's name or identifier.
        asked: what to run.
        client: who asked; is told when the program runs, and stays attached unless detached.

    Returns:
        The program's exit status.

    Raises:
        NotFoundError: no such container.
        ConflictError: it does not run.
        StartError: the program cannot be run.
    """
    container = engine.containers.find(reference)
    directory = engine.settings.container_directory(container.id)
    with ExitStack() as held:
        pidfd = _open_init(container, held)
        with open(f"{directory}/config.json", encoding="utf-8") as file:
            config: Config = json.load(file)
        specification = _specify(container, config, asked)
        section = config["linux"].get("seccomp")
        filter_ = (
            seccomp.prepare(section, f"{engine.settings.root}/seccomp")
            if section and not asked.privileged
            else None
        )
        streams = Streams.make(
            interactive=asked.interactive and not asked.detached, terminal=asked.terminal
        )
        held.callback(streams.close)
        entered = enter.enter(
            container.init_pid,
            pidfd,
            specification,
            ProcessSetup(specification, filter_),
            cgroups.manager(config["linux"]["cgroupsPath"], cgroups.detect()),
            streams.given,
            config=config,
            container_id=container.id,
        )
        held.callback(entered.close)
        client.check_interest()
        entered.start()
        streams.started(entered.console)
        client.started(names.new_id())
        supervisor = Supervisor(entered.pidfd, streams)
        if asked.detached:
            client.close()
        else:
            client.starter = True
            supervisor.attach(client, gives=asked.interactive, takes=(wire.OUTPUT, wire.ERRORS))
        return supervisor.run()


def _open_init(container: "Container", held: ExitStack) -> int:
    """Open exactly the container's init; the descriptor belongs to ``held``.

    Raises:
        ConflictError: it does not run, or is paused.
    """
    if container.status == "paused":
        raise ConflictError(
            f"Container {container.name} is paused, unpause the container before exec"
        )
    pidfd = held.enter_context(open_process(container.init_pid, container.init_start_time))
    if pidfd is None:
        raise ConflictError(f"container {container.id} is not running")
    return pidfd


def _specify(container: "Container", config: "Config", asked: Exec) -> "Process":
    """The container's process, changed as asked."""
    request: Request = container.record  # type: ignore[assignment]
    process: Process = {**config["process"], "args": asked.arguments, "terminal": asked.terminal}
    if not asked.arguments[0]:
        raise InvalidArgumentError("the program's name is empty")
    user_name = asked.user or request["Config"].get("User", "")
    root = os.open(f"/proc/{container.init_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        group_text = read_beneath(root, "/etc/group")
        user = passwd.look_up(user_name, read_beneath(root, "/etc/passwd"), group_text)
    finally:
        os.close(root)
    if asked.user:
        groups = list(dict.fromkeys([user.gid, *user.groups]))
        process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": groups}
    process["env"] = environment.of_container(
        [*request["Config"].get("Env", ()), *asked.environment],
        hostname=request["Config"]["Hostname"],
        home=user.home,
        terminal=asked.terminal,
    )
    if asked.directory:
        process["cwd"] = asked.directory
    if asked.privileged:
        every = capabilities.to_names(host.examine().capabilities)
        process["capabilities"] = {"bounding": every, "effective": every, "permitted": every}
    return process
