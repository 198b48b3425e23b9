"""Containers saved to files by criu(8), and what is saved of them.

A checkpoint is a directory of criu's images under its container's, ``checkpoints/NAME``, or in a
directory that the user names. It holds processes and their memory; files are the container's own,
which stay where they are. What criu logs is in ``criu`` under the container's directory.

Source: moby's ``daemon/checkpoint.go`` of Docker 28.
"""

import json
import os

from ketch.engine.containers import telling
from ketch.engine.processes import open_process
from ketch.engine.records import names, states
from ketch.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    UnsupportedError,
)
from ketch.linux import programs, removetree
from ketch.runtime import checkpoint
from ketch.spec import endpoints, runtime_names
from ketch.spec.user_namespaces import is_apart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings
    from ketch.spec.container import HostConfig
    from ketch.spec.runtime import Config

# What serves a request has no variables, and criu runs tar, ip and iptables.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def create(
    engine: "Engine", reference: str, name: str, directory: str = "", *, leave_running: bool = False
) -> None:
    """Save a running container; unless it is to run on, it has ended then.

    For a process of one thread, as everything that asks criu.

    Args:
        engine: where the container is.
        reference: the container.
        name: the checkpoint's.
        directory: where to put it, empty for the container's own.
        leave_running: whether the container is to run on.

    Raises:
        NotFoundError: no such container.
        InvalidArgumentError: that is no name.
        ConflictError: the container does not run.
        AlreadyExistsError: it has such a checkpoint.
        UnsupportedError: it has something that cannot be saved, or criu cannot work here.
        UnavailableError: criu failed; the container runs on.
    """
    container = engine.containers.find(reference)
    if container.status == states.PAUSED:
        raise ConflictError(f"Container {reference} is paused, unpause it first")
    if container.status != states.RUNNING:
        raise ConflictError(f"Container {reference} not running")
    images = _place(engine.settings, container, name, directory)
    require_support(container)
    with open_process(container.init_pid, container.init_start_time) as pidfd:
        if pidfd is None:
            raise ConflictError(f"Container {reference} not running")
        _make(images, container, name)
        engine.settings.tell(telling.of_checkpoint, container, images)
        try:
            _save(engine, container, images, leave_running=leave_running)
        except BaseException:
            removetree.remove_tree(images)
            raise
    engine.containers.note(container.id, "checkpoint")
    engine.settings.tell(telling.of_note, container, "checkpoint", {})
    if not leave_running:
        engine.containers.wait(container.id)


def list_(settings: "Settings", container: "Container", directory: str = "") -> list[str]:
    """Returns the names of a container's checkpoints, or of those in a directory, in order."""
    place = _directory(settings, container, directory)
    try:
        found = sorted(os.listdir(place))
    except FileNotFoundError:
        return []
    return [name for name in found if checkpoint.is_saved(f"{place}/{name}")]


def locate(settings: "Settings", container: "Container", name: str, directory: str = "") -> str:
    """Returns the directory of a checkpoint.

    Args:
        settings: the engine's places.
        container: whose it is.
        name: its name.
        directory: where it is, empty for the container's own.

    Raises:
        InvalidArgumentError: that is no name.
        NotFoundError: there is none of that name.
    """
    images = _place(settings, container, name, directory)
    if not checkpoint.is_saved(images):
        raise NotFoundError(f"checkpoint {name} does not exist for container {container.name}")
    return images


def remove(settings: "Settings", container: "Container", name: str, directory: str = "") -> None:
    """Remove a checkpoint; the arguments and failures are those of ``locate``."""
    images = locate(settings, container, name, directory)
    settings.tell(telling.of_checkpoint_removal, container, images)
    removetree.remove_tree(images)


def require_support(container: "Container") -> None:
    """Make sure that a container can be saved and restored here.

    Raises:
        UnsupportedError: it has what cannot be, or criu cannot work.
    """
    config = container.record["Config"]
    resources: HostConfig = container.record["HostConfig"]
    network = resources.get("NetworkMode") or ""
    reasons = {
        "another runtime (--runtime)": runtime_names.is_other(container.record),
        "a terminal (--tty)": config.get("Tty"),
        "an open standard input (--interactive)": config.get("OpenStdin"),
        "an init of the engine's (--init)": resources.get("Init"),
        "the host's network or another container's (--network)": network == "host"
        or endpoints.is_container(network),
        "a program that leads out for it alone (--network)": endpoints.is_private(network),
        "ids of its own (--userns)": is_apart(resources.get("UsernsMode", "")),
        "namespaces of others (--pid, --ipc, --uts)": resources.get("PidMode")
        or resources.get("UTSMode")
        or resources.get("IpcMode") == "host"
        or endpoints.is_container(resources.get("IpcMode") or ""),
    }
    for what, has in reasons.items():
        if has:
            raise UnsupportedError(
                f"cannot checkpoint container {container.name}: it has {what}, which ketch does"
                " not save yet"
            )
    os.environ.setdefault("PATH", _PATH)
    try:
        checked = programs.ask(["criu", "check"])
    except FileNotFoundError as error:
        raise UnsupportedError(
            "criu is not installed, and it is what saves and restores processes", "install criu"
        ) from error
    if checked.returncode:
        reason = (checked.stderr.strip().splitlines() or ["criu check failed"])[0]
        raise UnsupportedError(
            f"criu cannot work on this kernel, {os.uname().release}: {reason}",
            "criu check tells more; a newer criu may know this kernel",
        )


def options(settings: "Settings", container: "Container", images: str) -> checkpoint.Options:
    """Returns what criu is told of a container's checkpoint."""
    asked = checkpoint.Options(images)
    asked.work_path = f"{settings.container_directory(container.id)}/criu"
    return asked


def _save(engine: "Engine", container: "Container", images: str, *, leave_running: bool) -> None:
    """Have criu save a container; where that ends it, it is neither started again nor removed."""
    directory = engine.settings.container_directory(container.id)
    with open(f"{directory}/config.json", encoding="utf-8") as file:
        config: Config = json.load(file)
    for namespace in config["linux"]["namespaces"]:
        if namespace["type"] == "network":  # the starter's descriptor, when it was written
            namespace["path"] = f"/proc/{container.init_pid}/ns/net"
    asked = options(engine.settings, container, images)
    if leave_running:
        asked.flags.add("leave_running")
    else:
        engine.containers.note(container.id, columns={"on_end": "keep"})
    try:
        checkpoint.checkpoint(
            config,
            container.init_pid,
            f"/proc/{container.init_pid}/root",
            engine.containers.cgroup(container),
            asked,
            engine.settings.say,
        )
    except BaseException:
        engine.containers.note(container.id, columns={"on_end": container.on_end})
        raise


def _place(settings: "Settings", container: "Container", name: str, directory: str) -> str:
    if not names.is_name(name):
        raise InvalidArgumentError(
            f"Invalid checkpoint ID ({name}), only {names.ALLOWED} are allowed"
        )
    return f"{_directory(settings, container, directory)}/{name}"


def _directory(settings: "Settings", container: "Container", directory: str) -> str:
    if directory and not os.path.isabs(directory):
        raise InvalidArgumentError(f"checkpoint directory {directory}: the path is not absolute")
    return directory or f"{settings.container_directory(container.id)}/checkpoints"


def _make(images: str, container: "Container", name: str) -> None:
    os.makedirs(os.path.dirname(images), 0o700, exist_ok=True)
    try:
        os.mkdir(images, 0o700)
    except FileExistsError as error:
        raise AlreadyExistsError(
            f"checkpoint with name {name} already exists for container {container.name}"
        ) from error
