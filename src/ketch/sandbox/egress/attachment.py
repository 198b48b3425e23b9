"""How a sandbox with rules gets its relay, and how that is asked."""

import json
import os
import socket
import subprocess
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ketch.engine.requests import launch
from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError, UnavailableError
from ketch.sandbox.egress import policy, serving, steering
from ketch.sandbox.egress.record import Connection

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ketch.library.container import Container

_LABEL = "org.ketch.sandbox.egress"  # the rules that a sandbox was made with, as JSON
_LABEL_SERVERS = "org.ketch.sandbox.egress.dns"  # likewise the name servers

_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from ketch.sandbox.egress.serving import main; main()"
)
_STARTING_SECONDS = 30
_ANSWER_SECONDS = 10.0


def checked(rules: "Iterable[str]") -> list[str]:
    """Rules, each as it was written.

    Raises:
        InvalidArgumentError: one of them is none.
    """
    if isinstance(rules, str):
        raise InvalidArgumentError(f"egress={rules!r}: rules in a tuple are wanted")
    return [rule.text for rule in policy.Policy(map(policy.parse, rules)).rules]


def labels(rules: list[str], servers: "Iterable[str]") -> dict[str, str]:
    """What is written on a container that is to have a relay; nothing for others.

    Raises:
        InvalidArgumentError: a name server is no address.
    """
    if not rules:
        return {}
    try:
        told = [str(ip_address(one)) for one in servers]
    except ValueError as error:
        raise InvalidArgumentError(f"dns: {error}") from error
    return {_LABEL: json.dumps(rules), _LABEL_SERVERS: json.dumps(told)}


def attach(container: "Container") -> None:
    """Start a container's relay, if it is to have one; nothing of its image's runs there yet.

    Raises:
        UnavailableError: it cannot be had; the container then reaches nothing.
    """
    written = container.labels
    if _LABEL not in written:
        return
    engine = container._places.engine
    record = engine.containers.find(container.id)
    settings = engine.settings
    told = serving.Told(
        pid=record.init_pid, start_time=record.init_start_time,
        directory=settings.runtime_directory(record.id),
        rules=json.loads(written[_LABEL]), servers=json.loads(written[_LABEL_SERVERS]),
    )  # fmt: skip
    _name_server(f"{settings.container_directory(record.id)}/resolv.conf")
    words = [sys.executable, "-I", "-S", "-c", _BOOT, launch.package_directory(), "ketch-egress"]
    with (
        open(f"{settings.state}/{launch.ERROR_LOG}", "ab") as errors,
        subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            start_new_session=True, env={"PATH": os.defpath},
        ) as starting,
    ):  # fmt: skip
        try:
            said, _ = starting.communicate(json.dumps(told).encode(), timeout=_STARTING_SECONDS)
        except subprocess.TimeoutExpired:
            starting.kill()
            raise
    answer = said.decode(errors="replace")
    if answer != serving.READY:
        raise UnavailableError(
            f"what leads out of sandbox {record.name} cannot be had: {answer.strip()}",
            f"the end of {settings.state}/{launch.ERROR_LOG} tells more",
        )


def ask(container: "Container", **question: "Any") -> "dict[str, Any]":
    """Ask the relay of a container.

    Raises:
        ConflictError: it has none, or has ended.
        InvalidArgumentError: it cannot be.
    """
    data = bytearray()
    try:
        reached = launch.reach_monitor(container._places.settings, container.id, serving.SOCKET)
        with socket.socket(fileno=reached.detach()) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.sendall(json.dumps(question).encode())
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 20):
                data += piece
        answer: dict[str, Any] = json.loads(data)
    except (ConflictError, OSError, ValueError) as error:
        raise ConflictError(
            f"sandbox {container.name} has no relay",
            "it was made without rules (egress), or has ended, or its relay was killed, and it"
            " reaches nothing any more",
        ) from error
    if "error" in answer:
        raise InvalidArgumentError(answer["error"])
    return answer


def connections(container: "Container") -> list[Connection]:
    """Returns what a container has tried to reach."""
    return [Connection(*one) for one in ask(container, do="connections")["connections"]]


def deny(container: "Container", rules: "Iterable[str]") -> None:
    """Take rules away, all of them where none is named; see ``Sandbox.deny``."""
    there = ask(container, do="rules")["rules"]
    wanted = checked(rules) or there
    for rule in wanted:
        if rule not in there:
            raise NotFoundError(f"No such rule: {rule}", f"there are: {', '.join(there) or 'none'}")
    ask(container, do="deny", rules=wanted)


def _name_server(path: str) -> None:
    """Name the relay's name server in a running container's /etc/resolv.conf, in place."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"nameserver {steering.NAME_SERVER}\n")
