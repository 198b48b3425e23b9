"""What one client asks for, done in a process of its own: create, run, start, exec.

For a start, that process is a starter, forked from the container's monitor and its keeper in name.
"""

import json
import os
from contextlib import suppress

from ketch.engine import mishaps
from ketch.engine.containers import creation
from ketch.engine.containers.ledger import Keeper
from ketch.engine.engine import Engine
from ketch.engine.monitor import execution, finishing, handover, running
from ketch.engine.networks import resolution, uplinks
from ketch.engine.processes import await_readable, open_process
from ketch.engine.requests import wire
from ketch.engine.requests.client import Client
from ketch.engine.requests.launch import ERROR_LOG
from ketch.engine.settings import Settings
from ketch.errors import ENGINE_FAILED, KetchError, UnavailableError, in_words
from ketch.network.uplink.outside import NoWayOutError
from ketch.spec import endpoints, environment, options
from ketch.spec.capabilities import spelt_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Collection, Mapping, Sequence

    from ketch.engine.monitor.attending import Gatekeeper
    from ketch.engine.monitor.handover import Channel
    from ketch.engine.records.rows import Container
    from ketch.spec.container import ExecConfig, Request
    from ketch.spec.told import Say

    Fields = Mapping[str, wire.Value]
    Stay = Callable[[], None]
    Work = Callable[[Client, Fields], Stay | None]


def serve(
    connection: "_socket.socket",
    channel: "Channel | None" = None,
    alone: "Mapping[str, Work] | None" = None,
) -> "Stay | None":
    """Do what one client asks for.

    Args:
        connection: to the client; its request has not been read yet.
        channel: to the monitor that forked the caller, None where there is none.
        alone: what can be asked for without a monitor; the usual where None.

    Returns:
        What the calling process may stay for, if there is something.
    """
    client = Client(connection)
    stay = None
    try:
        fields = client.read_request()
        action = str(fields["action"])
        work = _with_monitor(action, channel) if channel else (alone or _ALONE)[action]
    except (wire.ProtocolError, OSError, KeyError):
        client.let_go()  # one that left, or is none of ours, is owed no answer
        return None
    try:
        stay = work(client, fields)
    except KetchError as error:
        if client.gone:
            mishaps.note(action, error)
        client.failed(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
        mishaps.note(action, error)
        message = in_words(error) if isinstance(error, OSError) else f"internal error: {error!r}"
        where = os.path.join(_text(fields, "state"), ERROR_LOG)
        client.failed(UnavailableError(message, f"the end of {where} tells more"))
    client.close()
    return stay


def restart(settings: Settings, container_id: str, channel: "Channel") -> None:
    """Start a container again, as its restart policy wants.

    Args:
        settings: the engine's places.
        container_id: the container.
        channel: to its monitor.
    """
    handover.end_with_monitor()  # nobody else would take over what is made
    engine = Engine(settings, Keeper.parent())
    try:
        container = engine.containers.resume(container_id)
        running.start(engine, container, channel, running.Manner(restarting=True))
    except (KetchError, OSError) as error:
        mishaps.note(f"restart {container_id}", error)


def register(
    fields: "Fields", channel: "Channel", has: "Collection[str]", taken: "Sequence[int]"
) -> None:
    """Have a running container's network served again: names, the way out, published ports.

    Args:
        fields: what the starter told the monitor.
        channel: to the monitor, which is given the connections to hold.
        has: the services that it has a connection to.
        taken: descriptors of sockets that keep published ports.
    """
    engine = _engine(fields)
    container = engine.containers.read(_text(fields, "container"))
    plan = engine.endpoints.current(container.id)
    mode = container.record["HostConfig"].get("NetworkMode", "")
    if endpoints.is_private(mode):
        from ketch.engine.networks import private  # noqa: PLC0415 - few ask for that

        kept = None if "uplink" in has else private.reconnect(engine, container)
        names, sockets = ([], []) if kept is None else (["uplink"], [kept.fileno()])
        channel.tell({"at": "registered", "services": names}, sockets)
        return
    uplink = uplinks.leave(engine.settings, outward=plan.leads_out and "uplink" not in has)
    with open_process(container.init_pid, container.init_start_time) as alive:
        if alive is None:
            return
        namespace = os.open(f"/proc/{container.init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if await_readable(alive, 0):
            return  # the pid may have been another process's by then
        services: dict[str, _socket.socket] = {}
        if "resolver" not in has:
            services["resolver"] = resolution.register(engine.settings, container.id, namespace)
        try:
            uplink.restore(plan.ports, taken)
        except (KetchError, OSError) as error:
            mishaps.note(f"publish ports of {container.id}", error)
        uplink.ask_way()
        with suppress(NoWayOutError):  # who started it has been told
            uplink.await_way()
        if uplink.connection is not None:
            services["uplink"] = uplink.connection
        channel.tell(
            {"at": "registered", "services": [*services]},
            [connection.fileno() for connection in services.values()],
        )


def _with_monitor(action: str, channel: "Channel") -> "Work":
    handover.end_with_monitor()  # nobody else would take over what is made
    if action == "run":
        return lambda client, fields: _run(client, fields, channel)
    if action == "start":
        return lambda client, fields: _start(client, fields, channel)
    if action == "exec-lasting":
        return lambda client, fields: _exec(client, fields, channel)
    raise KeyError(action)


def _run(client: Client, fields: "Fields", channel: "Channel") -> "Stay | None":
    engine = _engine(fields, Keeper.parent())
    engine.settings.say = _explain(client, fields)
    detached = bool(fields["--detach"])
    container = _made(engine, client, fields, keep=True, attached=not detached)
    if detached and not fields.get("hold"):
        client.created(container.id)  # told whatever comes of its start
    config = container.record["Config"]
    manner = running.Manner(
        client=client,
        attached=not detached,
        gives=bool(config.get("AttachStdin")) and not detached,
        explain=_explain(client, fields),
        hold=bool(fields.get("hold")),
        lifetime=fields.get("lifetime") == "process",
    )
    return _begin(engine, container, channel, manner, forget=bool(fields.get("forget")))


def _begin(
    engine: Engine,
    container: "Container",
    channel: "Channel",
    manner: running.Manner,
    *,
    forget: bool = False,
) -> "Stay | None":
    """Start a container; with ``--rm``, one that cannot be started goes.

    Args:
        engine: where it is recorded.
        container: the container.
        channel: to its monitor.
        manner: how.
        forget: whether it goes too where the client does not want it any more.

    Returns:
        What there is to stay for: an end that somebody waits for may be near.
    """
    try:
        begun = running.start(engine, container, channel, manner)
    except BaseException:
        unwanted = forget and manner.client is not None and manner.client.withdrawn
        if container.auto_remove or unwanted:
            with suppress(KetchError, OSError):
                engine.containers.remove(container.id, volumes=unwanted)
        raise
    if not manner.attached:
        return None
    return lambda: finishing.stay(channel, engine, begun)


def _start(client: Client, fields: "Fields", channel: "Channel") -> "Stay | None":
    engine = _engine(fields, Keeper.parent())
    engine.settings.say = _explain(client, fields)
    reference, attached = _text(fields, "container"), bool(fields.get("attach"))
    checkpoint = _find_checkpoint(engine, reference, fields)
    container = engine.containers.claim(reference, attached=attached)
    manner = running.Manner(
        client=client,
        attached=attached,
        gives=bool(fields.get("stdin")),
        hold=bool(fields.get("hold")),
        lifetime=fields.get("lifetime") == "process",
        checkpoint=checkpoint,
        window=_window(fields),
        explain=_explain(client, fields),
    )
    return _begin(engine, container, channel, manner)


def _find_checkpoint(engine: Engine, reference: str, fields: "Fields") -> str:
    """The directory of the checkpoint that a container is to go on from, empty for none."""
    name = fields.get("checkpoint")
    if not name:
        return ""
    from ketch.engine.containers import checkpoints  # noqa: PLC0415 wanted by few

    container = engine.containers.find(reference)
    place = _text(fields, "checkpoint-dir")
    directory = checkpoints.locate(engine.settings, container, str(name), place)
    checkpoints.require_support(container)
    return directory


def _checkpoint(client: Client, fields: "Fields") -> None:
    """Save a running container: by criu, so in a process of one thread."""
    from ketch.engine.containers import checkpoints  # noqa: PLC0415 wanted by few

    engine = _engine(fields)
    engine.settings.say = _explain(client, fields)
    checkpoints.create(
        engine,
        _text(fields, "container"),
        _text(fields, "checkpoint"),
        _text(fields, "checkpoint-dir"),
        leave_running=bool(fields["leave-running"]),
    )
    client.ended(0)


def _create(client: Client, fields: "Fields") -> None:
    engine = _engine(fields)
    engine.settings.say = _explain(client, fields)
    container = _made(engine, client, fields)
    client.created(container.id)


def _made(
    engine: Engine,
    client: Client,
    fields: "Fields",
    *,
    keep: bool = False,
    attached: bool = False,
) -> "Container":
    """Create the container that is asked for, and pass its warnings on."""
    request = _request(fields)
    client.check_interest()
    container = creation.create(
        engine, request, name=_text(fields, "--name"), keep=keep, attached=attached
    )
    for warning in container.record["Warnings"]:
        client.warn(f"WARNING: {warning}")
    return container


def _request(fields: "Fields") -> "Request":
    """The API's request: as it stands in ``request``, or from flags of a command line."""
    if "request" in fields:
        request: Request = json.loads(_text(fields, "request"))
        return request
    values = {name[2:]: value for name, value in fields.items() if name.startswith("--")}
    caller = _caller(fields)
    try:
        request = options.request(
            values, set(_list(fields, "given")), _list(fields, "arguments"), caller
        )
    except KetchError as error:
        # Whatever the command: what the command line itself could have found.
        error.exit_status = ENGINE_FAILED  # type: ignore[attr-defined]
        raise
    host = request["HostConfig"]
    # docker's command spells them out since 28.2; other clients' stand as they were sent.
    if added := host.get("CapAdd"):
        host["CapAdd"] = spelt_out(added)
    if dropped := host.get("CapDrop"):
        host["CapDrop"] = spelt_out(dropped)
    if window := _window(fields):
        host["ConsoleSize"] = window
    if path := host.get("ContainerIDFile"):
        host["ContainerIDFile"] = os.path.join(caller.directory, path)
    return request


def _exec(
    client: Client,
    fields: "Fields",
    channel: "Channel | None" = None,
    gate: "Gatekeeper | None" = None,
) -> None:
    """Create a session from a command line's flags, and start it.

    Args:
        client: who asks.
        fields: the request.
        channel: to who is going to watch over it, None where that is the caller.
        gate: by which it comes into its container, None for a way of its own.
    """
    caller = _caller(fields)
    variables: list[str] = []
    for name in _list(fields, "--env-file"):
        variables += environment.read_file(name, caller.content(name), caller.environment)
    variables += environment.resolve(_list(fields, "--env"), caller.environment)
    reference, *arguments = _list(fields, "arguments")
    detached = bool(fields["--detach"])
    asked: ExecConfig = {
        "Cmd": arguments,
        "Env": variables,
        "User": _text(fields, "--user"),
        "WorkingDir": _text(fields, "--workdir"),
        "Tty": bool(fields["--tty"]),
        "Privileged": bool(fields["--privileged"]),
        "AttachStdin": bool(fields["--interactive"]) and not detached,
        "AttachStdout": not detached,
        "AttachStderr": not detached,
    }
    if window := _window(fields):
        asked["ConsoleSize"] = window
    engine = _engine(fields) if gate is None else gate.engine
    keeper = Keeper() if channel is None else Keeper.parent()
    session = engine.execs.create(reference, asked, keeper)
    if channel is not None:
        execution.begin(engine, session, client, channel)
        return
    explain = _explain(client, fields)
    client.ended(
        execution.execute(engine, session, client, detached=detached, explain=explain, gate=gate)
    )


def _attend(client: Client, fields: "Fields") -> None:
    """Run programs in one container, one after the other, for whoever asks."""
    from ketch.engine.monitor import attending  # noqa: PLC0415 not for a container's start

    def run(connection: "_socket.socket", gate: "Gatekeeper") -> None:
        serve(connection, alone={"exec": lambda client, fields: _exec(client, fields, gate=gate)})

    idle_seconds = int(fields["idle"])  # type: ignore[arg-type]
    attending.attend(client, _engine(fields), _text(fields, "container"), run, idle_seconds)


def _exec_start(client: Client, fields: "Fields") -> None:
    """Start a session that was created before."""
    engine = _engine(fields)
    session = engine.execs.claim(_text(fields, "exec"))
    if window := _window(fields):
        session.config["ConsoleSize"] = window
    detached = bool(fields.get("detach"))
    client.ended(execution.execute(engine, session, client, detached=detached))


def _explain(client: Client, fields: "Fields") -> "Say | None":
    """Who takes what is told of steps; None where the client has not asked for that."""
    return client.explain if fields.get("--explain") else None


def _window(fields: "Fields") -> list[int] | None:
    """The height and width that a terminal is to have; None where nobody says."""
    sizes = [fields.get(name) for name in ("rows", "columns")]
    return sizes if all(sizes) else None  # type: ignore[return-value] # both are numbers


def _engine(fields: "Fields", keeper: Keeper | None = None) -> Engine:
    return Engine(Settings.told(fields), keeper)


def _caller(fields: "Fields") -> options.Caller:
    pairs = (entry.partition("=")[::2] for entry in _list(fields, "environment"))
    return options.Caller(_text(fields, "directory"), dict(pairs), _read)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _text(fields: "Fields", name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise wire.ProtocolError(f"field {name} is not text")
    return value


def _list(fields: "Fields", name: str) -> list[str]:
    value = fields[name]
    if not isinstance(value, list):
        raise wire.ProtocolError(f"field {name} is not a list")
    return value


def _sandbox(client: Client, fields: "Fields") -> None:
    """Hold a network namespace for whoever asks."""
    from ketch.engine.monitor import holding  # noqa: PLC0415 not for a container's start

    engine = _engine(fields)
    holding.hold(client, engine, json.loads(_text(fields, "request")))


def _steps(client: Client, _fields: "Fields") -> None:
    """Run programs that have no container, a process each: a build's steps."""
    from ketch.engine.host import examine  # noqa: PLC0415 not for a container's start
    from ketch.engine.monitor import stepping  # noqa: PLC0415 likewise

    machine = examine()

    def run(client: Client, fields: "Fields") -> None:
        stepping.run(client, _engine(fields), json.loads(_text(fields, "request")), machine)

    stepping.fork_for_each(client, lambda connection: serve(connection, alone={"step": run}))


_ALONE: "dict[str, Work]" = {
    "attend": _attend,
    "checkpoint": _checkpoint,
    "create": _create,
    "exec": _exec,
    "exec-start": _exec_start,
    "sandbox": _sandbox,
    "steps": _steps,
}
