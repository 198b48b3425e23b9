"""Names in containers: how a container gets a name server, and somebody who answers for it."""

import _socket
import os
import sys

from ketch.engine.requests import launch, wire
from ketch.errors import UnavailableError
from ketch.linux import process
from ketch.network import names, nameserver
from ketch.network.uplink import programs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ketch.engine.settings import Settings

# -I: nothing of the caller's environment counts; the package is where this one was found.
_BOOT = (
    "import sys; sys.path.append(sys.argv[4]); "
    "from ketch.engine.networks.resolver import main; main()"
)


def register(settings: "Settings", container_id: str, namespace: int) -> _socket.socket:
    """Have a container's questions answered: the resolver is started if it does not run.

    What the container asks before the resolver is ready waits for it.

    Args:
        settings: the engine's places.
        container_id: the container.
        namespace: descriptor of its network namespace, its loopback up.

    Returns:
        A connection that the container's monitor is to hold as long as the container runs. Its
        end, should the resolver be killed, means that the container is to be registered anew.

    Raises:
        UnavailableError: the resolver cannot be started.
        OSError: the kernel refused.
    """
    connection = _reach(settings)
    sockets: list[int] = []
    try:
        sockets = nameserver.open_sockets(namespace)
        connection.sendmsg([container_id.encode()], process.rights(namespace, *sockets))
    except BaseException:
        connection.close()
        raise
    finally:
        for descriptor in sockets:
            os.close(descriptor)
    return connection


def request(settings: "Settings", container_id: str) -> bool:
    """Have a running container's monitor register it, and wait for that.

    Returns:
        Whether it was not registered before.

    Raises:
        ConflictError: there is no monitor.
        UnavailableError: the monitor could not.
    """
    answer = launch.ask_monitor(settings, container_id, {"action": "names"})
    if answer[0] == wire.STARTED:
        return True
    if answer == (wire.EXIT, b"0"):
        return False
    raise UnavailableError(
        f"no name server can be had for container {container_id}",
        f"the end of {settings.state}/{launch.ERROR_LOG} tells more",
    )


def resolv_conf(
    resources: "Mapping[str, Any]", forwarding: "Sequence[str]" = (), *, named: bool
) -> str:
    """What a container's /etc/resolv.conf says, by the host's as it is now.

    Args:
        resources: the container's ``HostConfig``.
        forwarding: addresses by which the host's name server is reached.
        named: whether it has a name server of its own.
    """
    host = read(names.RESOLV_CONF)
    if names.is_stub(host):
        host = read(names.SYSTEMD_RESOLV_CONF) or host
    return names.resolv_conf(
        host,
        forwarding=forwarding,
        servers=resources.get("Dns", ()),
        search=resources.get("DnsSearch", ()),
        options=resources.get("DnsOptions", ()),
        host_network=resources["NetworkMode"] == "host",
        name_server=nameserver.ADDRESS if named else "",
    )


def read(path: str) -> str:
    """A text file of the host; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _reach(settings: "Settings") -> _socket.socket:
    # Those who see another network as the host's have another resolver.
    name = f"names-{os.stat('/proc/self/ns/net').st_ino}"
    # What serves the host's loopback is reached from a user's network by another address.
    loopback = str(programs.NAMESERVER) if settings.home else ""
    words = [sys.executable, "-I", "-c", _BOOT, "ketch-names", settings.root,
             f"{settings.state}/{name}.socket", launch.package_directory(), loopback]  # fmt: skip
    return launch.reach(settings.state, name, words, _socket.SOCK_SEQPACKET)
