"""Namespaces of other containers: ``--network``, ``--ipc``, ``--pid``, ``--userns container:NAME``.

Another container's namespaces are taken by its init, which a pidfd holds meanwhile, so that no
other process can take its number. They are descriptors from then on: whether the other container
ends before this one is made does not matter.
"""

import os
import stat
from signal import pidfd_send_signal

from ketch.engine import user_namespaces
from ketch.engine.configuration.bundle_mounts import Files, Source
from ketch.engine.processes import open_process
from ketch.engine.records import states
from ketch.engine.user_namespaces import UserNamespace
from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError
from ketch.linux import beneath, mount, statfs
from ketch.linux.namespaces import CLONE_NEWNS, KINDS, setns
from ketch.linux.scopes import owned
from ketch.spec import endpoints
from ketch.spec import user_namespaces as user_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import ExitStack
    from typing import Any

    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.spec.container import Request

_MODES = (
    ("user", "UsernsMode"), ("network", "NetworkMode"), ("ipc", "IpcMode"), ("pid", "PidMode"),
)  # fmt: skip

# Whose /dev/shm others may have: its own, offered; the host's; one that it has from another.
_SHAREABLE = ("shareable", "host")


class Shared:
    """What a container has of others.

    Attributes:
        joined: paths of namespaces to join, by the runtime's kinds.
        sources: the other's /dev/shm, under that name.
        network_home: the container whose network it is in, which that one has of nobody; or None.
        user_namespace: the other's user namespace, or None.
    """

    __slots__ = ("joined", "network_home", "sources", "user_namespace")

    def __init__(self) -> None:
        self.joined: dict[str, str] = {}
        self.sources: dict[str, Source] = {}
        self.network_home: Container | None = None
        self.user_namespace: UserNamespace | None = None

    def request(self, request: "Request") -> "Request":
        """Returns a request with the host name of whose network the container is in."""
        if self.network_home is None:
            return request
        home = self.network_home.record["Config"]
        names = {key: home.get(key, "") for key in ("Hostname", "Domainname")}
        return {**request, "Config": {**request["Config"], **names}}  # type: ignore[typeddict-item]

    def files(self, engine: "Engine") -> Files | None:
        """Returns the files under /etc that it shares with whose network it is in, or None."""
        if self.network_home is None:
            return None
        directory = engine.settings.container_directory(self.network_home.id)
        return Files(f"{directory}/hosts", f"{directory}/hostname", f"{directory}/resolv.conf")


def donors(record: "Mapping[str, Any]") -> list[str]:
    """Returns the containers whose namespaces a container is to be in, as it names them."""
    modes = (record["HostConfig"].get(key) or "" for _, key in _MODES)
    return [reference for mode in modes if (reference := endpoints.container_of(mode))]


def in_order(
    containers: "Iterable[Container]", linked: "Mapping[str, Iterable[str]] | None" = None
) -> "list[Container]":
    """Returns containers in an order in which they can be started: donors before others.

    Args:
        containers: the containers; those that do not need each other stay in their order.
        linked: the ids of those that must run as well, by the id of who has links to them.
    """
    found = list(containers)
    ordered: dict[str, Container] = {}

    def add(container: "Container", asking: tuple[str, ...]) -> None:
        if container.id in ordered or container.id in asking:
            return
        for reference in (*donors(container.record), *(linked or {}).get(container.id, ())):
            for other in found:
                if other.name == reference.removeprefix("/") or other.id.startswith(reference):
                    add(other, (*asking, container.id))
        ordered[container.id] = container

    for container in found:
        add(container, ())
    return list(ordered.values())


def join(engine: "Engine", request: "Request", held: "ExitStack") -> Shared:
    """Open the namespaces of other containers that a container is to be in.

    Args:
        engine: where they are recorded.
        request: the container's whole configuration.
        held: takes what is open; it may be closed once the container is made.

    Raises:
        NotFoundError: there is no such container.
        ConflictError: it does not run.
        InvalidArgumentError: it does not share its IPC namespace.
    """
    shared = Shared()
    for kind, key in _MODES:
        mode: str = request["HostConfig"].get(key, "")  # type: ignore[assignment]
        reference = endpoints.container_of(mode)
        if not reference:
            continue
        donor = engine.containers.find(reference)
        _require_running(donor, kind)
        if kind == "user" and not user_ids.is_apart(donor.record["HostConfig"].get(key, "")):
            raise InvalidArgumentError(
                f"container {donor.name} has no ids of its own",
                "leave --userns out: both have the host's",
            )
        if kind == "ipc":
            _require_shareable(donor)
        with open_process(donor.init_pid, donor.init_start_time) as pidfd:
            if pidfd is None:
                raise _not_running(donor, kind)
            descriptor = os.open(
                f"/proc/{donor.init_pid}/ns/{KINDS[kind][1]}", os.O_RDONLY | os.O_CLOEXEC
            )
            held.callback(os.close, descriptor)
            try:
                if kind == "user":
                    ids = user_namespaces.of_process(donor.init_pid)
                    shared.user_namespace = UserNamespace(descriptor, *ids)
                pidfd_send_signal(pidfd, 0)  # it was its own number until now
                if kind == "ipc":
                    tree = _shared_memory(pidfd, donor)
                    held.callback(os.close, tree)
                    shared.sources["/dev/shm"] = Source(
                        f"/proc/self/fd/{tree}", shown=f"/dev/shm of container {donor.name}"
                    )
            except ProcessLookupError as error:
                raise _not_running(donor, kind) from error
        shared.joined[kind] = f"/proc/self/fd/{descriptor}"
        if kind == "network":
            shared.network_home = network_home(engine, donor) or donor
            if endpoints.is_container(shared.network_home.record["HostConfig"]["NetworkMode"]):
                raise ConflictError(
                    f"cannot join network of container {donor.id}: the container that it has its "
                    "network from was removed"
                )
    return shared


def by_id(engine: "Engine", request: "Request") -> "Request":
    """A request in which other containers are named by their ids, which stay when names change.

    Raises:
        InvalidArgumentError: there is no such container; but the one whose network a container
            is to be in is looked for when it starts, as in Docker.
    """
    changed: dict[str, str] = {}
    for _, key in _MODES:
        reference = endpoints.container_of(request["HostConfig"].get(key) or "")  # type: ignore[arg-type]
        if not reference:
            continue
        try:
            changed[key] = f"container:{engine.containers.find(reference).id}"
        except NotFoundError as error:
            if key != "NetworkMode":
                raise InvalidArgumentError(error.message, error.hint) from error
    if not changed:
        return request
    return {**request, "HostConfig": {**request["HostConfig"], **changed}}  # type: ignore[typeddict-item]


def network_home(engine: "Engine", container: "Container") -> "Container | None":
    """The container at the end of a chain of those that have each other's network.

    Args:
        engine: where they are recorded.
        container: one that may have its network from another.

    Returns:
        None where it has its own, or where one of the chain is no more.
    """
    found: Container | None = None
    seen = {container.id}
    while reference := endpoints.container_of(container.record["HostConfig"]["NetworkMode"]):
        try:
            found = container = engine.containers.find(reference)
        except NotFoundError:
            return None
        if container.id in seen:
            return None
        seen.add(container.id)
    return found


def _require_running(donor: "Container", kind: str) -> None:
    if donor.status == states.RESTARTING:
        raise ConflictError(
            f"Container {donor.id} is restarting, wait until the container is running"
        )
    if donor.status not in {states.RUNNING, states.PAUSED}:
        raise _not_running(donor, kind)


def _not_running(donor: "Container", kind: str) -> ConflictError:
    message = {
        "network": f"cannot join network of a non running container: {donor.id}",
        "ipc": f"can't join IPC of container {donor.id}: container {donor.id} is not running",
        "pid": f"container {donor.id} is not running",
        "user": f"cannot join user namespace of a non running container: {donor.id}",
    }[kind]
    return ConflictError(message, f"start it first: ketch start {donor.name}")


def _require_shareable(donor: "Container") -> None:
    mode = donor.record.get("HostConfig", {}).get("IpcMode", "")
    if mode not in _SHAREABLE and not endpoints.is_container(mode):
        raise _not_shareable(donor)


def _not_shareable(donor: "Container") -> InvalidArgumentError:
    return InvalidArgumentError(
        f"can't join IPC of container {donor.id}: non-shareable IPC "
        "(hint: use IpcMode:shareable for the donor container)"
    )


def _shared_memory(pidfd: int, donor: "Container") -> int:
    """A detached copy of what the other container has mounted at /dev/shm.

    Mounts can be copied only by whoever is in their namespace: this process goes there for two
    system calls. It loads nothing meanwhile, and looks the name up beneath the other's root.
    """
    with (
        owned(os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)) as home,
        owned(os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as here,
    ):
        setns(pidfd, CLONE_NEWNS)
        try:
            with (
                owned(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root,
                owned(beneath.open_path(root, "/dev/shm", follow=False)) as place,
            ):
                tree = mount.open_tree(place, "", mount.OPEN_TREE_CLONE)
        except FileNotFoundError as error:
            raise _not_shareable(donor) from error
        finally:
            setns(home, CLONE_NEWNS)
            os.fchdir(here)
    if not stat.S_ISDIR(os.fstat(tree).st_mode) or statfs.kind(tree) != statfs.TMPFS_MAGIC:
        os.close(tree)
        raise _not_shareable(donor)
    return tree
