"""A network namespace that is no container's, held by a process for whoever asked for it.

The request is a JSON object: ``network``, a name or ``default``; ``hosts``, the ``--add-host``
entries. The answer is the namespace's descriptor, and what is written to /etc/hosts and
/etc/resolv.conf by: ``gateways``, the host's addresses for ``host-gateway``; ``named``, whether the
engine's name server answers there; ``connections``, how many TCP sockets are ours.

Who asked keeps the connection as long as anything is to run in the namespace. When it closes, by
whatever end of its process, the links are cut off and the addresses given back.
"""

import json
import select
from contextlib import ExitStack, suppress

from ketch.engine.containers.ledger import Keeper
from ketch.engine.networks import resolution, sandboxes, uplinks, wiring
from ketch.engine.records import names
from ketch.errors import KetchError, UnsupportedError
from ketch.linux import process
from ketch.network.sandbox import connections
from ketch.spec.endpoints import is_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ketch.engine.engine import Engine
    from ketch.engine.requests.client import Client


def hold(client: "Client", engine: "Engine", asked: "Mapping[str, Any]") -> None:
    """Make a network namespace, hand it over, and hold it until the client leaves.

    Args:
        client: who asked.
        engine: whose networks.
        asked: see above.

    Raises:
        NotFoundError: there is no such network.
        UnsupportedError: it is the host's, or a container's.
        UnavailableError: no address is free.
        KetchError, OSError: the kernel refused a step.
    """
    process.set_name("ketch-sandbox")
    name = str(asked["network"])
    record = {
        "Config": {"Hostname": ""},
        "HostConfig": {
            "NetworkMode": "bridge" if name == "default" else name,
            "ExtraHosts": list(asked["hosts"]),
        },
    }
    if name in {"host", "none"} or name.startswith("container:") or is_private(name):
        raise UnsupportedError(f"a build cannot hold the network {name}")
    settings, store = engine.settings, engine.store
    uplink = uplinks.leave(settings)
    with suppress(KetchError, OSError):
        sandboxes.clean(settings, store)
    sandbox_id = names.new_id()
    keeper = Keeper()
    with ExitStack() as held:
        held.callback(sandboxes.release, settings, store, sandbox_id)
        sandboxes.declare(settings, store, sandbox_id, record, (keeper.pid, keeper.start_time))
        held.callback(uplink.close)
        wires = held.enter_context(wiring.connect(engine, sandbox_id, record, uplink, told=False))
        sandbox = wires.sandbox
        if sandbox is None:  # made of the host's network meanwhile
            raise UnsupportedError(f"a build cannot hold the network {name}")
        resolver = None
        if wires.addresses:
            resolver = resolution.register(settings, sandbox_id, sandbox.descriptor)
        wires.settle()
        told = {
            "named": bool(wires.addresses),
            "gateways": wires.gateways,
            "connections": connections(sandbox.descriptor),
        }
        client.hand_over(json.dumps(told).encode(), sandbox.descriptor)
        while not client.gone:
            poll = select.poll()
            poll.register(client, select.POLLIN)
            if resolver is not None:
                poll.register(resolver, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            if client.fileno() in ready:
                client.receive()
            elif resolver is not None:  # killed: another one takes its place
                resolver.close()
                resolver = resolution.register(settings, sandbox_id, sandbox.descriptor)
        if resolver is not None:
            resolver.close()
