"""How a sandbox with rules gets its relay, and how that is asked."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ketch.engine.requests import launch
from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError, UnavailableError
from ketch.sandbox.egress import policy, secret, serving, steering
from ketch.sandbox.egress.record import Connection
from ketch.sandbox.files import Files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ketch.library.container import Container
    from ketch.sandbox.egress.secret import Secret

_LABEL = "org.ketch.sandbox.egress"  # the rules that a sandbox was made with, as JSON
_LABEL_SERVERS = "org.ketch.sandbox.egress.dns"  # likewise the name servers

_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from ketch.sandbox.egress.serving import main; main()"
)
_BELIEF = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_BUNDLE_BYTES_MAX = 4 << 20
_TRUST_OPTIONS = "size=8m,nr_inodes=8,mode=0755,nosuid,nodev,noexec"
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


class Wanted:
    """What a new sandbox is to reach.

    Args:
        egress: rules, None for everything.
        secrets: what it is to use without having it; whom that is for may be reached as well.
        servers: the name servers that are asked.

    Attributes:
        rules: all rules.
        labels: what is written on its container.
        env: variables that its programs find.
        tmpfs: what is mounted for it.

    Raises:
        InvalidArgumentError: a rule is none, or a name server no address.
        UnavailableError: secrets need a package that is not installed.
    """

    def __init__(
        self,
        egress: "Iterable[str] | None",
        secrets: "Iterable[Secret]" = (),
        servers: "Iterable[str]" = (),
    ) -> None:
        given = list(secrets)
        if given and egress is None:
            raise InvalidArgumentError(
                "secrets, and egress=None: who reaches everything passes no relay",
                "name what it may reach: egress=(...)",
            )
        hosts = list(dict.fromkeys(host for one in given for host in one.hosts))
        self.rules = checked([*checked(egress or ()), *hosts])
        self.labels: dict[str, str] = {}
        self.env: dict[str, str] = {}
        self.tmpfs: dict[str, str] = {}
        self._authority = ""
        self._certified: list[secret.Certified] = []
        self._handed = secret.handed(given)
        if self.rules:
            try:
                told = [str(ip_address(one)) for one in servers]
            except ValueError as error:
                raise InvalidArgumentError(f"dns: {error}") from error
            self.labels = {_LABEL: json.dumps(self.rules), _LABEL_SERVERS: json.dumps(told)}
        if given:
            self._authority, self._certified = secret.authority(hosts)
            self.env = dict.fromkeys(secret.VARIABLES, secret.BUNDLE)
            self.env |= {one.name: one.placeholder for one in given}
            self.tmpfs = {secret.DIRECTORY: _TRUST_OPTIONS}

    def attach(self, container: "Container") -> None:
        """Start the relay of the container that was made so; nothing of its image's runs there yet.

        Raises:
            UnavailableError: it cannot be had; the container then reaches nothing.
        """
        _attach(container, self._handed, self._certified)
        if self._authority:
            _believe(container, self._authority)


def attach_like(container: "Container", origin: "Container") -> None:
    """Start the relay of a container that was made like another one, if that has one.

    Raises:
        ConflictError: the other one's has ended, and with it its secrets.
        UnavailableError: as for ``Wanted.attach``.
    """
    if _LABEL in container.labels:
        held = ask(origin, do="hand")
        _attach(container, held["secrets"], held["certified"])


def _attach(
    container: "Container",
    secrets: "list[secret.Handed]",
    certified: "list[secret.Certified]",
) -> None:
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
        secrets=secrets, certified=certified,
    )  # fmt: skip
    _name_server(f"{settings.container_directory(record.id)}/resolv.conf")
    words = [sys.executable, "-I", "-S", "-c", _BOOT, launch.package_directory(), "ketch-egress"]
    # Whom it believes is the caller's to say; nothing else of the environment counts.
    variables = {name: os.environ[name] for name in _BELIEF if name in os.environ}
    with (
        open(f"{settings.state}/{launch.ERROR_LOG}", "ab") as errors,
        subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            start_new_session=True, env={"PATH": os.defpath, **variables},
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


def _believe(container: "Container", authority: str) -> None:
    """Have a sandbox's programs believe an authority beside those that its image has."""
    own = b""
    files = Files(container)
    for path in secret.BUNDLES:
        with contextlib.suppress(NotFoundError, InvalidArgumentError):
            own = files.read(path, max_bytes=_BUNDLE_BYTES_MAX)
            break
    data = own + (b"" if own.endswith(b"\n") or not own else b"\n") + authority.encode()
    directory, name = os.path.split(secret.BUNDLE)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as written:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o444
        written.addfile(member, io.BytesIO(data))
    container.put_archive(directory, archive.getvalue())


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
