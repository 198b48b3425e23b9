"""A network namespace that is no container's, held by a process for whoever asked for it.

The request is a JSON object: ``network``, a name or ``default``; ``hosts``, the ``--add-host``
entries. The answer is the namespace's descriptor, and what is written to /etc/hosts and
/etc/resolv.conf by: ``gateways``, the host's addresses for ``host-gateway``; ``named``, whether the
engine's name server answers there; ``connections``, how many TCP sockets are ours; ``warning``,
what it does without, empty mostly.

Who asked keeps the connection as long as anything is to run in the namespace. When it closes, by
whatever end of its process, the links are cut off and the addresses given back.

Should what answers names there or leads out of a user's network be killed meanwhile, another one
takes its place. To ask for a way out one must be where the machine is, whose network the process
leaves; so one that it has forked before does.
"""

import json
import os
import select
from contextlib import ExitStack, closing, suppress

from ketch.engine import mishaps
from ketch.engine.containers.ledger import Keeper
from ketch.engine.home import entering
from ketch.engine.monitor import handover
from ketch.engine.networks import resolution, sandboxes, uplinks, wiring
from ketch.engine.records import names
from ketch.errors import KetchError, UnsupportedError
from ketch.linux import process
from ketch.network.sandbox import connections
from ketch.network.uplink.outside import NoWayOutError
from ketch.spec.endpoints import is_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ketch.engine.engine import Engine
    from ketch.engine.requests.client import Client
    from ketch.engine.settings import Settings


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
    with ExitStack() as held:
        way = None if entering.is_there(settings) else held.enter_context(_Way(settings))
        uplink = uplinks.leave(settings)
        with suppress(KetchError, OSError):
            sandboxes.clean(settings, store)
        sandbox_id = names.new_id()
        keeper = Keeper()
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
            "warning": wires.warning,
        }
        client.hand_over(json.dumps(told).encode(), sandbox.descriptor)
        if way is not None and uplink.connection is not None:
            way.watch(uplink.connection.detach())
        while not client.gone:
            poll = select.poll()
            poll.register(client, select.POLLIN)
            if resolver is not None:
                poll.register(resolver, select.POLLIN)
            if way is not None and way.descriptor >= 0:
                poll.register(way.descriptor, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            if client.fileno() in ready:
                client.receive()
            elif resolver is not None and resolver.fileno() in ready:
                resolver.close()
                resolver = resolution.register(settings, sandbox_id, sandbox.descriptor)
            elif way is not None:
                way.renew()
        if resolver is not None:
            resolver.close()


class _Way:
    """What leads out of a user's network, for as long as something is in a namespace.

    To be made where the machine's network is; a context manager.

    Args:
        settings: the engine's places.

    Attributes:
        descriptor: of the connection by which it is held, readable once nobody is behind it; -1
            for none.
    """

    __slots__ = ("_channel", "_pid", "descriptor")

    def __init__(self, settings: "Settings") -> None:
        self.descriptor = -1
        self._pid, self._channel = handover.fork(lambda channel: _ask_for_others(settings, channel))

    def __enter__(self) -> "_Way":
        """Returns this one."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        self.watch(-1)
        self._channel.close()
        os.waitpid(self._pid, 0)

    def watch(self, descriptor: int) -> None:
        """Hold it by another connection, this object's from now on."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = descriptor

    def renew(self) -> None:
        """Have another one, where that can be."""
        self.watch(-1)
        with suppress(OSError):
            self._channel.tell({"at": "lost"})
        _, descriptors = self._channel.hear() or ({}, ())
        if descriptors:
            self.watch(descriptors[0])


def _ask_for_others(settings: "Settings", channel: handover.Channel) -> None:
    handover.end_with_monitor()
    process.set_name("ketch-sandbox")
    while channel.hear() is not None:
        found: tuple[int, ...] = ()
        try:
            with closing(uplinks.reach(settings)) as uplink:
                uplink.ask_way()
                with suppress(NoWayOutError):  # steps fail by that, and say so
                    uplink.await_way()
                if uplink.connection is not None:
                    found = (uplink.connection.fileno(),)
                channel.tell({"at": "led"}, found)
        except KetchError as error:
            mishaps.note("lead a build out of the user's network", error)
            channel.tell({"at": "led"})
