"""Names in containers: how a container gets a name server, and somebody who answers for it."""

import _socket
import os
import sys

from ketch.engine import launch
from ketch.network import nameserver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

# -I: nothing of the caller's environment counts; site-packages does, where the DNS library is.
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
        rights = b"".join(
            descriptor.to_bytes(4, sys.byteorder) for descriptor in (namespace, *sockets)
        )
        connection.sendmsg(
            [container_id.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)]
        )
    except BaseException:
        connection.close()
        raise
    finally:
        for descriptor in sockets:
            os.close(descriptor)
    return connection


def _reach(settings: "Settings") -> _socket.socket:
    # Those who see another network as the host's have another resolver.
    name = f"names-{os.stat('/proc/self/ns/net').st_ino}"
    words = [sys.executable, "-I", "-c", _BOOT, "ketch-names", settings.root,
             f"{settings.state}/{name}.socket", launch.package_directory()]  # fmt: skip
    return launch.reach(settings.state, name, words, _socket.SOCK_SEQPACKET)
