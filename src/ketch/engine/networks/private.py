"""A container that has the machine's network by a program of its own: ``--network pasta``.

It is on no network of the engine's. The program is kept by the process that leads out of a user's
network (``ketch.network.uplink``), root's as well, and ends with the connection to that, which the
container's monitor holds.
"""

import json
import os
from contextlib import ExitStack

from ketch.engine.networks import publishing, uplinks
from ketch.engine.processes import await_readable, open_process
from ketch.network import telling
from ketch.network.sandbox import Sandbox
from ketch.network.uplink.outside import Outside
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ketch.engine.engine import Engine
    from ketch.engine.networks.wiring import Wiring
    from ketch.engine.records.rows import Container
    from ketch.network.ports import Port
    from ketch.network.uplink.private import Forward
    from ketch.spec.told import Say


def connect(
    engine: "Engine",
    container_id: str,
    record: "Mapping[str, Any]",
    wiring: "Wiring",
    say: "Say | None",
    owner: int | None,
) -> None:
    """Make a starting container's network namespace, and have it led out of.

    Args:
        engine: where it is recorded.
        container_id: its id.
        record: its request, completed.
        wiring: takes what it holds.
        say: takes what is told of each step, when it begins.
        owner: descriptor of its user namespace, or None for the host's.

    Raises:
        ConflictError: a port is somebody else's.
        UnavailableError: the program cannot be had, or does not start.
        KetchError, OSError: the kernel refused a step.
    """
    uplink = wiring.uplink
    assert isinstance(uplink, Outside)  # by uplinks.leave_privately
    with ExitStack() as undo:
        undo.callback(wiring.close)
        plan = engine.endpoints.acquire_private(container_id, record, uplink)
        # They are for the program now, which takes them when it starts.
        publishing.let_go(plan.taken)
        if say:
            say(telling.of_namespace(container_id[:12]))
        sandbox = wiring.own(Sandbox(ipv6=True, owner=owner))
        mode = record["HostConfig"]["NetworkMode"]
        wiring.servers, wiring.gateways = uplink.lead(
            _document(mode, plan.ports), sandbox.descriptor
        )
        wiring.addresses = [str(one.ip) for one in sandbox.addresses()]
        if say:
            program = mode.partition(":")[0]
            words = f"{program} leads out, with {', '.join(wiring.addresses)} · tun(4)"
            say(Told("network", words))
        undo.pop_all()


def reconnect(engine: "Engine", container: "Container") -> "_socket.socket | None":
    """Have a running container led out of again, when who kept its program was killed.

    Args:
        engine: where it is recorded.
        container: the container.

    Returns:
        The connection that its monitor is to hold; None where it has ended.

    Raises:
        UnavailableError: the program does not start.
    """
    ports = engine.endpoints.ports([container.id]).get(container.id, [])
    uplink = uplinks.leave_privately(engine.settings)
    with open_process(container.init_pid, container.init_start_time) as alive:
        if alive is None:
            return None
        namespace = os.open(f"/proc/{container.init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if await_readable(alive, 0):
            return None  # the pid may have been another process's by then
        uplink.lead(_document(container.record["HostConfig"]["NetworkMode"], ports), namespace)
        return uplink.connection


def _document(mode: str, ports: "Sequence[Port]") -> str:
    """What the program is to do, as ``ketch.network.uplink.outside`` has it."""
    return json.dumps({"mode": mode, "forwards": _forwards(ports)})


def _forwards(ports: "Sequence[Port]") -> "list[Forward]":
    """Published ports as the programs have them: one for all addresses, of both versions."""
    found: dict[tuple[str, int, int], list[str]] = {}
    for port in ports:
        key = (port.protocol, port.host_port, port.port)
        found.setdefault(key, []).append(str(port.host_address))
    return [
        (protocol, address, outside, inside)
        for (protocol, outside, inside), addresses in found.items()
        for address in ([""] if {"0.0.0.0", "::"} <= set(addresses) else addresses)
    ]
