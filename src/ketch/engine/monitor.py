"""A monitor's life: one request, and whatever container or exec comes of it.

Forked from the zygote, or started by itself, it is the parent of the program that it starts. The
client may leave at any time; the monitor stays until the program has ended.
"""

import os

from ketch.engine import creation, execution, mishaps, running, wire
from ketch.engine.client import Client
from ketch.engine.engine import Engine
from ketch.engine.launch import ERROR_LOG
from ketch.engine.settings import Settings
from ketch.errors import KetchError, UnavailableError
from ketch.spec import environment, options

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Mapping

    Fields = Mapping[str, wire.Value]


def serve(connection: "_socket.socket") -> None:
    """Do what one client asks for.

    Args:
        connection: to the client; its request has not been read yet.
    """
    client = Client(connection)
    try:
        fields = client.read_request()
        action = _ACTIONS[_text(fields, "action")]
    except (wire.ProtocolError, OSError, KeyError):
        client.close()  # one that left, or is none of ours, is owed no answer
        return
    try:
        action(client, fields)
    except KetchError as error:
        if client.gone:
            mishaps.note(_text(fields, "action"), error)
        client.failed(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
        mishaps.note(_text(fields, "action"), error)
        message = str(error) if isinstance(error, OSError) else f"internal error: {error!r}"
        where = os.path.join(_text(fields, "state"), ERROR_LOG)
        client.failed(UnavailableError(message, f"the end of {where} tells more"))
    client.close()


def _run(client: Client, fields: "Fields") -> None:
    engine = _engine(fields)
    values = {name[2:]: value for name, value in fields.items() if name.startswith("--")}
    caller = _caller(fields)
    request = options.request(
        values, set(_list(fields, "given")), _list(fields, "arguments"), caller
    )
    if path := request["HostConfig"].get("ContainerIDFile"):
        request["HostConfig"]["ContainerIDFile"] = os.path.join(caller.directory, path)
    client.check_interest()
    container = creation.create(engine, request, name=_text(values, "name"), in_charge=True)
    for warning in container.record["Warnings"]:
        client.send(wire.ERRORS, f"WARNING: {warning}\n".encode())
    detached = bool(values["detach"])
    try:
        status = running.run(
            engine,
            container,
            client,
            detached=detached,
            explain=client.explain if values["explain"] else None,
        )
    finally:
        if container.auto_remove:
            _remove(engine, container.id)
    if not detached:
        client.ended(status)


def _remove(engine: Engine, container_id: str) -> None:
    """Remove a container that has ended; that this fails is not what its client waits to hear."""
    try:
        engine.containers.remove(container_id)
    except (KetchError, OSError) as error:
        mishaps.note(f"remove {container_id}", error)


def _exec(client: Client, fields: "Fields") -> None:
    caller = _caller(fields)
    variables: list[str] = []
    for name in _list(fields, "--env-file"):
        variables += environment.read_file(name, caller.content(name), caller.environment)
    variables += environment.resolve(_list(fields, "--env"), caller.environment)
    reference, *arguments = _list(fields, "arguments")
    asked = execution.Exec(
        arguments,
        environment=variables,
        user=_text(fields, "--user"),
        directory=_text(fields, "--workdir"),
        terminal=bool(fields["--tty"]),
        interactive=bool(fields["--interactive"]),
        detached=bool(fields["--detach"]),
        privileged=bool(fields["--privileged"]),
    )
    client.ended(execution.execute(_engine(fields), reference, asked, client))


def _engine(fields: "Fields") -> Engine:
    return Engine(Settings(_text(fields, "root"), _text(fields, "state")))


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


_ACTIONS = {"exec": _exec, "run": _run}
