"""What a sandbox is made with: all that is closed and bounded unless its maker asks otherwise."""

import contextlib
import math
import os
from typing import TYPE_CHECKING

from ketch.cgroups import delegation
from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError
from ketch.library import given
from ketch.linux import namespaces
from ketch.network import definition
from ketch.runtime.pid_one import PATH as INIT
from ketch.sandbox.forking import new_name
from ketch.spec import user_namespaces
from ketch.spec.digits import decimal
from ketch.spec.values import size as size_in_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ketch.library.engine import Engine
    from ketch.sandbox.egress.attachment import Wanted

LABEL = "org.ketch.sandbox"
"""What tells a sandbox from other containers."""

_USER, _USER_OF_FEW = "65534", "1000"
_NETWORK = "ketch-sandbox"
_NETWORK_CLOSED = "ketch-sandbox-closed"
# Neither do sandboxes reach each other, nor what listens on this machine.
_APART = {definition.ICC: "false", definition.HOST_ACCESS: "false"}
_FILE_BYTES_LEAST = 16 << 10  # of a file system's size for each file that it may hold
_OPEN_FILES = "1024:4096"


def locked(
    reached: "Wanted", *, name: str | None, user: str | None, memory: str | int | None,
    disk: str | int, writable: "Iterable[str]", mounts: "Mapping[str, str] | None",
    env: "Mapping[str, str] | None", idle_timeout: float | None, labels: "Mapping[str, str]",
    pids: int | None, userns: str,
) -> "dict[str, Any]":  # fmt: skip
    """Returns a sandbox's options, as ``ketch.Engine`` has them; arguments as for ``create``.

    Args:
        reached: what it reaches.
        name: as there.
        user: as there.
        memory: as there.
        disk: as there.
        writable: as there.
        mounts: as there.
        env: as there.
        idle_timeout: as there.
        labels: what its maker writes on it.
        pids: as there.
        userns: as there.

    Raises:
        InvalidArgumentError: a value cannot be.
    """
    places = [_absolute("writable", place) for place in writable]
    disk_bytes = bytes_of("disk", disk)
    memory_bytes = None if memory is None else bytes_of("memory", memory)
    idle = None if idle_timeout is None else given.seconds("idle_timeout", idle_timeout, some=True)
    if user is None:
        user = _USER if namespaces.in_initial_user_namespace() else _USER_OF_FEW
    numbers = user.partition(":")
    own = "mode=1777,exec,nosuid,nodev"
    if decimal(numbers[0]) is not None:
        own = f"mode=0700,exec,nosuid,nodev,uid={numbers[0]},gid={numbers[2] or numbers[0]}"
    files_max = max(1, disk_bytes // _FILE_BYTES_LEAST)
    alone = pids is not None and _counts_alone(userns)
    return {
        "name": name or new_name(),
        "entrypoint": INIT, "init": True, "rm": True, "user": user,
        "memory": memory_bytes, "memory_swap": memory_bytes,
        "cap_drop": ["ALL"], "hostname": "sandbox",
        "security_opt": ["no-new-privileges", "seccomp=sandbox"], "no_healthcheck": True,
        "tmpfs": {**dict.fromkeys(places, f"size={disk_bytes},nr_inodes={files_max},{own}"),
                  **reached.tmpfs},
        "shm_size": disk_bytes, "log_driver": "none", "stop_signal": "SIGKILL",
        "pids_limit": None if alone else pids,
        "ulimit": {"core": "0", "nofile": _OPEN_FILES, **({"nproc": str(pids)} if alone else {})},
        "label": {**labels, LABEL: "1", **reached.labels},
        "env": {**reached.env, **(env or {})},
        "volume": [f"{_there(source)}:{target if target.endswith(':rw') else f'{target}:ro'}"
                   for source, target in (mounts or {}).items()],
        "idle_timeout": math.ceil(idle or 0),
    }  # fmt: skip


def _counts_alone(userns: str) -> bool:
    """Whether setrlimit(2) has to bound the number of processes, since no cgroup can.

    It can where ids are the sandbox's own: each user namespace counts a user's processes apart
    (Linux 5.14), and a sandbox's programs cannot become another user.
    """
    if namespaces.in_initial_user_namespace() or not user_namespaces.is_apart(userns):
        return False
    return "pids" not in delegation.controllers()


def network(engine: "Engine", ports: tuple[int, ...], *, is_open: bool) -> str:
    """The network that a sandbox is on: none, one that this machine alone reaches, an open one."""
    if not is_open and not ports:
        return "none"
    name, internal = (_NETWORK, False) if is_open else (_NETWORK_CLOSED, True)
    options = _APART if is_open else _APART | {definition.PUBLISHED: "true"}
    try:
        engine.networks.get(name)
    except NotFoundError:
        with contextlib.suppress(ConflictError):  # somebody else has just made it
            engine.networks.create(name, internal=internal, options=options)
    return name


def published(engine: "Engine", ports: "Iterable[int]") -> "list[str]":
    """What leads to a sandbox's ports from where its address cannot be reached.

    An ordinary user's programs are in the host's network, and the address is in the user's own.
    """
    return [f"127.0.0.1::{port}" for port in ports] if engine._places.settings.home else []


def bytes_of(keyword: str, value: str | int) -> int:
    """Reads a size that is more than nothing.

    Raises:
        InvalidArgumentError: it is none.
    """
    try:
        found = size_in_bytes(str(value))
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{keyword}={value!r}: {error.message}") from error
    if found <= 0:
        raise InvalidArgumentError(f"{keyword}={value!r}: more than nothing is wanted")
    return found


def limit(keyword: str, value: object, *, whole: bool = False) -> None:
    """Check a limit: to the engine nothing means none, which only None is to mean here.

    Raises:
        InvalidArgumentError: it is no number above nothing.
    """
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if value is not None and not (is_number and value > 0):  # type: ignore[operator]
        kind = "whole number" if whole else "number"
        raise InvalidArgumentError(
            f"{keyword}={value!r}: a {kind} above 0 is wanted", "None is no limit"
        )


def own_ports(ports: "Iterable[int]") -> tuple[int, ...]:
    """Returns a sandbox's ports.

    Raises:
        InvalidArgumentError: one of them is none.
    """
    found = tuple(ports)
    for port in found:
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 1 << 16:
            raise InvalidArgumentError(f"ports: {port!r}: a number from 1 to 65535 is wanted")
    return found


def _there(source: str) -> str:
    """A mount's source; a path that is not there is nobody's wish to have made."""
    if os.path.isabs(source) and not os.path.lexists(source):
        raise InvalidArgumentError(f"mounts: {source}: no such file or directory")
    return source


def _absolute(keyword: str, path: str) -> str:
    if not os.path.isabs(path) or ":" in path:
        raise InvalidArgumentError(f"{keyword}: {path!r}: an absolute path without a colon")
    return path
