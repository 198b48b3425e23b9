"""A step's mounts, from what the Dockerfile says to what the process that runs it is told."""

import base64
import contextlib
import os
from collections.abc import Callable, Mapping

from ketch.build import graph
from ketch.build.graph import MountKind
from ketch.build.request import Request
from ketch.build.steps import caches
from ketch.dataclass import dataclass, field
from ketch.engine.engine import Engine
from ketch.engine.processes import Patience
from ketch.errors import InvalidArgumentError, NotFoundError
from ketch.linux.copytree import copy_tree
from ketch.linux.scopes import owned

SECRET_BYTES_MAX = 500 * 1024
"""BuildKit's limit (session/secrets)."""

_SECRET_MODE = 0o400
_SOCKET_MODE = 0o600
_PIPES = "/dev/pipes"


@dataclass(frozen=True)
class Prepared:
    """A prepared root (``Snapshotter.prepare``) to mount from.

    Attributes:
        directory: where it was prepared. What a mount that may be written to changes is thrown
            away with it, so it is one mount's alone.
        identity: what its content follows from, empty where its layers say that.
    """

    directory: str
    identity: str = ""


Source = Prepared | int
"""What is mounted; an int is the descriptor of a directory, which cannot be written to there."""


@dataclass
class Described:
    """What a step's mounts come to.

    Attributes:
        mounts: see ``ketch.engine.monitor.step_mounts``.
        variables: secrets that are variables, ``NAME=value``.
        descriptors: what goes to the step's process with them.
        agents: paths of ssh agents' sockets, in the order of their mounts.
    """

    mounts: "list[dict[str, object]]" = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)


class Describer:
    """Finds what steps' mounts are made of.

    Args:
        engine: of the thread.
        request: of the build: secrets and agents.
        scope: whose caches they are.
    """

    def __init__(self, engine: Engine, request: Request, scope: str) -> None:
        self._engine = engine
        self._request = request
        self._scope = scope

    def describe(
        self,
        step: graph.Run,
        sources: Mapping[graph.Mount, Source],
        first: int,
        held: contextlib.ExitStack,
        patience: Patience,
    ) -> Described:
        """Find what a step's mounts are made of, and lock its caches.

        Args:
            step: the step.
            sources: where its mounts come from that have a source.
            first: the number of the first descriptor.
            held: what is to be kept until the step has ended.
            patience: how to wait for caches that others have.

        Raises:
            NotFoundError: a secret or an agent that must be there is not.
            InvalidArgumentError: a secret is too long, or no text where it is to be a variable.
            UnavailableError: a cache cannot be made.
        """
        found = Described()
        taken = self._take_caches(step, sources, held, patience)

        def number(descriptor: int) -> int:
            found.descriptors.append(descriptor)
            return first + len(found.descriptors) - 1

        for one in step.mounts:
            if one.kind is MountKind.SECRET:
                self._secret(one, found)
            elif one.kind is MountKind.SSH:
                self._agent(one, found)
            elif one.kind is MountKind.TMPFS:
                found.mounts.append(
                    {"kind": "tmpfs", "target": one.target, "size_bytes": one.size_bytes}
                )
            elif one.kind is MountKind.CACHE:
                files = number(taken[self._wanted(one, sources)].files)
                found.mounts.append(_bind(one, {"descriptor": files}))
            else:
                found.mounts.append(_bind(one, _source(sources.get(one), number)))
        # Whoever locks them is not to be gone before the step's process.
        found.descriptors += [cache.lock for cache in taken.values()]
        if step.files:
            texts = {name: _encoded(content) for name, content in step.files.items()}
            found.mounts.append({"kind": "files", "target": _PIPES, "files": texts})
        return found

    def _take_caches(
        self,
        step: graph.Run,
        sources: Mapping[graph.Mount, Source],
        held: contextlib.ExitStack,
        patience: Patience,
    ) -> dict[caches.Wanted, caches.Held]:
        """Lock a step's caches, in an order that all steps have: else two could wait for ever."""
        wanted = {
            self._wanted(one, sources): sources.get(one)
            for one in step.mounts
            if one.kind is MountKind.CACHE
        }
        taken: dict[caches.Wanted, caches.Held] = {}
        for one in sorted(wanted, key=lambda one: one.key):
            fill = self._filling(wanted[one]) if one.seed else None
            taken[one] = caches.take(self._engine.settings.root, one, patience, fill)
            held.callback(taken[one].close)
        return taken

    def _wanted(self, mount: graph.Mount, sources: Mapping[graph.Mount, Source]) -> caches.Wanted:
        owner = (mount.mode, mount.uid, mount.gid)
        source = sources.get(mount)
        # With an owner of its own a cache begins empty, unless a part of the source is mounted:
        # what BuildKit does.
        if owner != (None, 0, 0) and os.path.normpath(f"/{mount.source_path}") == "/":
            source = None
        elif source is not None:
            owner = (None, 0, 0)
        return caches.Wanted(
            self._scope, mount.id or mount.target, mount.sharing, self._identity(source), *owner
        )

    def _identity(self, source: Source | None) -> str:
        if source is None:
            return ""
        if isinstance(source, int):
            raise TypeError("a cache's first content is a prepared root's")
        layers = self._engine.images.snapshotter.prepared_on(source.directory)
        return source.identity or " ".join(layers)

    def _filling(self, source: Source | None) -> caches.Fill:
        assert isinstance(source, Prepared)

        def fill(files: int) -> None:
            with owned(self._engine.images.snapshotter.view(source.directory)) as view:
                copy_tree(view, files)

        return fill

    def _secret(self, mount: graph.Mount, found: Described) -> None:
        secrets = self._request.secrets
        content = secrets.get(mount.id) if secrets is not None else None
        if content is None:
            if mount.required:
                raise NotFoundError(
                    f"secret {mount.id}: not found", f"give it with --secret id={mount.id}"
                )
            return
        if len(content) > SECRET_BYTES_MAX:
            raise InvalidArgumentError(
                f"secret {mount.id}: {len(content)} bytes are too many",
                f"a secret has at most {SECRET_BYTES_MAX} bytes",
            )
        if mount.variable:
            if b"\0" in content:
                raise InvalidArgumentError(
                    f"secret {mount.id}: a variable cannot hold a NUL byte",
                    "mount it as a file: leave env= out",
                )
            found.variables.append(f"{mount.variable}={os.fsdecode(content)}")
        if mount.target:
            found.mounts.append({
                "kind": "file", "target": mount.target, "content": _encoded(content),
                "mode": _SECRET_MODE if mount.mode is None else mount.mode,
                "uid": mount.uid, "gid": mount.gid,
            })  # fmt: skip

    def _agent(self, mount: graph.Mount, found: Described) -> None:
        agents = self._request.agents
        name = mount.id or "default"
        socket = agents.socket(name) if agents is not None else None
        if socket is None:
            if mount.required:
                raise NotFoundError(
                    f'no SSH key "{name}" forwarded from the client',
                    f"give an agent with --ssh {name}",
                )
            return
        target = mount.target or f"/run/buildkit/ssh_agent.{len(found.agents)}"
        if not found.agents:
            found.variables.append(f"SSH_AUTH_SOCK={target}")
        found.mounts.append({
            "kind": "agent", "target": target, "agent": len(found.agents),
            "mode": _SOCKET_MODE if mount.mode is None else mount.mode,
            "uid": mount.uid, "gid": mount.gid,
        })  # fmt: skip
        found.agents.append(socket)


def _source(source: Source | None, number: Callable[[int], int]) -> "dict[str, object]":
    if source is None:
        return {"empty": True}
    if isinstance(source, int):
        return {"descriptor": number(source)}
    return {"directory": source.directory}


def _bind(mount: graph.Mount, source: "dict[str, object]") -> "dict[str, object]":
    if "descriptor" in source and mount.kind is MountKind.BIND and not mount.read_only:
        raise TypeError("what may be written to is mounted from a prepared root")
    return {
        "kind": "bind", "target": mount.target, "path": mount.source_path or "/",
        "read_only": mount.read_only, **source,
    }  # fmt: skip


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
