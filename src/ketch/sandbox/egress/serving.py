"""The relay's process: from its start, for one sandbox, to that one's end.

It is started with a document on its standard input (``Told``), says ``ready``, or what failed, on
its standard output, and lives as long as the sandbox's first process. ``egress.socket`` in the
container's runtime directory is where its user asks it: one JSON object a connection, and one for
an answer, after which the connection ends.
"""

import contextlib
import json
import os
import select
import socket
import sys
import threading
from typing import TYPE_CHECKING, TypedDict

from ketch.errors import KetchError
from ketch.linux import process, procfs
from ketch.sandbox.egress import policy, resolving, steering
from ketch.sandbox.egress.relay import Relay, allow_many

if TYPE_CHECKING:
    from typing import Any

    from ketch.sandbox.egress import secret
    from ketch.sandbox.egress.tls import Vaults

READY = "ready\n"
SOCKET = "egress"  # its name, as ``launch`` has names of sockets
_QUESTION_BYTES_MAX = 1 << 20
_SECONDS = 5.0
_BACKLOG = 16


class Told(TypedDict):
    """What the process is told at its start.

    Attributes:
        pid: the sandbox's first process.
        start_time: when that began, in clock ticks since boot.
        directory: the container's runtime directory.
        rules: what the sandbox may reach.
        servers: which name servers are asked; the machine's where there are none.
        secrets: what is put in, and for whom.
        certified: what is shown as these.
    """

    pid: int
    start_time: int
    directory: str
    rules: list[str]
    servers: list[str]
    secrets: "list[secret.Handed]"
    certified: "list[secret.Certified]"


def main() -> None:
    """Run as ``attachment`` says."""
    told: Told = json.load(sys.stdin)
    os.chdir("/")
    os.umask(0o077)
    process.set_name("ketch-egress")
    try:
        pidfd = process.pidfd_open(told["pid"])
        if procfs.process_start_time(told["pid"]) != told["start_time"]:
            raise ProcessLookupError("the sandbox has ended")
        namespace = steering.namespace_of(pidfd, told["pid"])
        sockets = steering.steer(namespace)
        os.close(namespace)
        allow_many()
        listener = _listen(told["directory"])
    except (KetchError, OSError) as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(1)
    if os.fork():  # whoever started this has no child to wait for
        os._exit(0)
    listener.listen(_BACKLOG)  # in the name of the process that stays (SO_PEERCRED)
    servers = told["servers"]
    relay = Relay(
        sockets,
        policy.Policy(map(policy.parse, told["rules"])),
        (lambda: servers) if servers else resolving.host_servers,
        _vaults(told),
    )
    process.prctl(process.PR_SET_DUMPABLE, 0)  # nobody else's to trace, and no core to write
    relay.start()
    threading.Thread(target=_converse, args=(relay, listener, told), daemon=True).start()
    sys.stdout.write(READY)
    sys.stdout.flush()
    with open(os.devnull, "r+b") as nothing:
        for stream in (0, 1):
            os.dup2(nothing.fileno(), stream)
    select.select((pidfd,), (), ())
    os._exit(0)


def _vaults(told: Told) -> "Vaults | None":
    """What the sandbox uses without having it; without any, TLS need not be loaded."""
    if not told["secrets"]:
        return None
    from ketch.sandbox.egress.tls import Vaults  # noqa: PLC0415 - half of what this process loads

    return Vaults(told["secrets"], told["certified"])


def _listen(directory: str) -> socket.socket:
    """Listen in a directory, whose path may be longer than a socket's address."""
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(directory)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{SOCKET}.socket")
    listener.bind(f"{SOCKET}.socket")
    os.chdir("/")
    return listener


def _converse(relay: Relay, listener: socket.socket, told: Told) -> None:
    while True:
        with contextlib.suppress(OSError, ValueError):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(_SECONDS)
                _pid, user, _group = process.peer(connection)
                if user != os.getuid():
                    continue
                data = b""
                while piece := connection.recv(_QUESTION_BYTES_MAX):
                    data += piece
                    if len(data) > _QUESTION_BYTES_MAX:
                        raise ValueError("too long a question")
                connection.sendall(json.dumps(_answer(relay, told, json.loads(data))).encode())


def _answer(relay: Relay, told: Told, asked: "dict[str, Any]") -> "dict[str, Any]":
    rules = [rule.text for rule in relay.policy.rules]
    match asked["do"]:
        case "connections":
            return {"connections": relay.record.seen()}
        case "rules":
            return {"rules": rules}
        case "hand":  # for a sandbox that is made like this one
            return {"secrets": told["secrets"], "certified": told["certified"]}
        case "allow":
            wanted = [*rules, *asked["rules"]]
        case "deny":
            wanted = [rule for rule in rules if rule not in asked["rules"]]
        case _:
            return {"error": "nobody knows what that means"}
    try:
        relay.change(map(policy.parse, wanted))
    except KetchError as error:
        return {"error": error.message}
    return {"rules": [rule.text for rule in relay.policy.rules]}
