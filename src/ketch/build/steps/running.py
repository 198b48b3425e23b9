"""The steps of one build: each from its description to its end."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Mapping, Sequence

from ketch.build import failures, graph
from ketch.build.request import Request
from ketch.build.steps import cleaning
from ketch.build.steps.following import Following, Outcome, Output
from ketch.build.steps.forking import Forker
from ketch.build.steps.mounts import Describer, Source
from ketch.build.steps.networks import Networks, Sandbox
from ketch.engine.configuration import cdi
from ketch.engine.engine import Engine
from ketch.engine.processes import ENDLESS, Patience
from ketch.engine.requests import launch, wire
from ketch.errors import InvalidArgumentError, StartError, UnavailableError
from ketch.spec import values

HOSTNAME = "buildkitsandbox"
"""What steps find as their host's name, unless it is chosen: BuildKit's."""

_CHUNK_BYTES = 64 * 1024
_OWN_NETWORK = graph.Network.DEFAULT


class Steps:
    """Runs the steps of one build; to be closed. Its methods may be called from any thread.

    Args:
        engine: the engine, or one of the same places.
        request: of the build: network, limits, added hosts, and so on.
        scope: whose caches its steps have.
    """

    def __init__(self, engine: Engine, request: Request, scope: str = "") -> None:
        self._settings = engine.settings
        self._request = request
        self._describer = Describer(engine, request, scope)
        self._ulimits = [values.ulimit(text) for text in request.ulimits]
        self._forker = Forker(self._settings)
        self._networks = Networks(self._settings, request.network, request.add_hosts)
        self._lock = threading.Lock()
        self._has_warned = False
        self._ending: list[socket.socket] = []

    def __enter__(self) -> "Steps":
        """Own it for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give up the networks, and wait for what ended steps are still taking away."""
        self._networks.close()
        self._forker.close()
        with self._lock:
            ending, self._ending = self._ending, []
        for connection in ending:
            with connection, contextlib.suppress(OSError):
                while connection.recv(_CHUNK_BYTES):
                    pass

    def run(
        self,
        step: graph.Run,
        root: str,
        output: Output,
        *,
        sources: Mapping[graph.Mount, Source] | None = None,
        patience: Patience = ENDLESS,
    ) -> Outcome:
        """Run a step's program to its end.

        Args:
            step: what to run.
            root: directory of the prepared root that it changes; its upper layer is the result.
            output: takes what it writes; the program waits for that.
            sources: where the mounts come from that have a source.
            patience: how to wait; a wait that is called off ends the program.

        Raises:
            StartError: the program cannot be run; ``exit_status`` says what a shell would.
            InvalidArgumentError: the step asks for what cannot be.
            KetchError: something that it needs cannot be had.
        """
        if self._network(step) != _OWN_NETWORK:
            return self._run(step, root, output, sources or {}, None, patience)
        sandbox = self._networks.take()
        self._warn(sandbox, output)
        clean = False
        try:
            outcome = self._run(step, root, output, sources or {}, sandbox, patience)
            clean = not step.insecure and not sandbox.is_used
        finally:
            self._networks.give_back(sandbox, clean=clean)
        return outcome

    def _warn(self, sandbox: Sandbox, output: Output) -> None:
        """Tell once what the build's network does without: a step may fail by that."""
        with self._lock:
            warning = sandbox.warning if not self._has_warned else ""
            self._has_warned = self._has_warned or bool(warning)
        if warning:
            output(2, f"WARNING: {warning}\n".encode())

    def _network(self, step: graph.Run) -> graph.Network:
        """What a step reaches: what its instruction says, else what the build does."""
        if step.network is graph.Network.DEFAULT:
            with contextlib.suppress(ValueError):
                return graph.Network(self._request.network or "default")
        return step.network

    def _run(
        self,
        step: graph.Run,
        root: str,
        output: Output,
        sources: Mapping[graph.Mount, Source],
        sandbox: Sandbox | None,
        patience: Patience,
    ) -> Outcome:
        description = self._describe(step, root, sandbox)
        with contextlib.ExitStack() as held:
            pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
            for ours, _ in pipes:
                held.callback(os.close, ours)
            descriptors = [theirs for _, theirs in pipes]
            try:
                if sandbox is not None:
                    description["network"] = len(descriptors)
                    descriptors.append(sandbox.descriptor)
                found = self._describer.describe(step, sources, len(descriptors), held, patience)
                description["mounts"], description["variables"] = found.mounts, found.variables
                connection = self._ask(description, [*descriptors, *found.descriptors])
            finally:
                for _, theirs in pipes:
                    os.close(theirs)
            following = Following(connection, [ours for ours, _ in pipes], output, found.agents)
            held.callback(following.close)
            try:
                outcome = following.follow(patience)
            except (StartError, InvalidArgumentError) as error:
                connection.close()
                raise failures.not_run(step, error) from error
            except BaseException:
                connection.close()
                raise
        if outcome is None:
            connection.close()
            cleaning.clean_up(self._settings.state)
            raise UnavailableError(
                "the process that ran a build's step has gone",
                f"{self._settings.state}/{launch.ERROR_LOG} tells more",
            )
        with self._lock:
            self._ending.append(connection)
        if sandbox is not None:
            sandbox.is_used = following.connections > sandbox.connections
        return outcome

    def _describe(self, step: graph.Run, root: str, sandbox: Sandbox | None) -> "dict[str, object]":
        request = self._request
        network = self._network(step)
        mode = {graph.Network.DEFAULT: "bridge"}.get(network, str(network))
        resources: dict[str, object] = {
            **request.limits,
            "NetworkMode": mode,
            "Privileged": step.insecure,
            "Ulimits": self._ulimits,
            "ExtraHosts": list(step.hosts or request.add_hosts),
        }
        if request.shm_size_bytes:
            resources["ShmSize"] = request.shm_size_bytes
        if request.cgroup_parent:
            resources["CgroupParent"] = request.cgroup_parent
        if step.devices:
            resources["DeviceRequests"] = [
                {"Driver": "cdi", "DeviceIDs": cdi.matching(step.devices)}
            ]
        return {
            "directory": root,
            "config": {
                "Cmd": list(step.arguments),
                "Env": [*step.environment, *step.hidden],
                "User": step.user,
                "WorkingDir": step.directory,
                "Hostname": step.hostname or HOSTNAME,
            },
            "host": resources,
            "network": None,
            "named": sandbox is not None and sandbox.named,
            "gateways": list(sandbox.gateways) if sandbox is not None else [],
        }

    def _ask(self, description: "dict[str, object]", descriptors: Sequence[int]) -> socket.socket:
        """Have a process run a step; returns the connection to it."""
        if len(descriptors) > wire.DESCRIPTORS_MAX:
            raise InvalidArgumentError(
                f"a step with {len(descriptors)} mounts cannot be run",
                f"{wire.DESCRIPTORS_MAX} descriptors go with it",
            )
        fields: dict[str, wire.Value] = {
            "action": "step", **self._settings.fields,
            "request": json.dumps(description),
        }  # fmt: skip
        request = wire.encode(fields)
        if len(request) > wire.PAYLOAD_BYTES_MAX:
            raise InvalidArgumentError(
                "the step's here-documents and secrets are too long",
                "COPY what is longer from the context",
            )
        connection = self._forker.fork()
        try:
            connection.sendall(wire.frame(wire.REQUEST, request))
            socket.send_fds(connection, [wire.frame(wire.DESCRIPTORS)], descriptors)
        except BaseException:
            connection.close()
            raise
        return connection
