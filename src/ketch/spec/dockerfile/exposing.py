"""The ports of EXPOSE.

Source: github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb/convert_expose.go.
"""

from typing import TYPE_CHECKING

from ketch.dataclass import dataclass
from ketch.spec.digits import signed
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.values import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

PORTS_MAX = 3 * 65_536
"""How many ports one instruction may come to: all of all protocols."""

_PORT_MAX = 65_535


@dataclass(frozen=True)
class Exposed:
    """A word of EXPOSE.

    Attributes:
        word: as it is written.
        first: the first port.
        last: the last one.
        protocol: as it is written, ``tcp`` where it is not.
        mapped: whether an address or a port of the host is given too, which count for nothing.
    """

    word: str
    first: int
    last: int
    protocol: str = "tcp"
    mapped: bool = False

    @property
    def ports(self) -> tuple[str, ...]:
        """What an image has: ``80/tcp``."""
        protocol = self.protocol.lower()
        return tuple(f"{port}/{protocol}" for port in range(self.first, self.last + 1))


def read(words: "Iterable[str]") -> tuple[Exposed, ...]:
    """Reads the words of an EXPOSE, once variables are in.

    Each is ``[[address:][port[-port]]:]port[-port][/protocol]``.

    Raises:
        DockerfileError: one is malformed, or they come to more ports than ``PORTS_MAX``.
    """
    found = tuple(map(_word, words))
    if sum(each.last - each.first + 1 for each in found) > PORTS_MAX:
        raise DockerfileError(f"EXPOSE of more than {PORTS_MAX} ports")
    return found


def _word(word: str) -> Exposed:
    host, colon, port = word.rpartition(":")
    address, _, host_port = host.rpartition(":") if colon else ("", "", "")
    numbers, _, protocol = port.partition("/")
    if not numbers:
        raise DockerfileError(f"invalid port: {quoted(word)}: no port specified")
    if protocol.lower() not in {"", "tcp", "udp", "sctp"}:
        raise DockerfileError(f"invalid port: {quoted(word)}: invalid proto: {protocol}")
    if address:
        _check_address(address)
    first, last = _range(numbers, "containerPort")
    if host_port:
        host_first, host_last = _range(host_port, "hostPort")
        if last != first and last - first != host_last - host_first:
            raise DockerfileError(
                f"invalid ranges specified for container and host Ports: {numbers} and {host_port}"
            )
    return Exposed(word, first, last, protocol or "tcp", mapped=bool(address or host_port))


def _check_address(text: str) -> None:
    import ipaddress  # noqa: PLC0415 - few ports are exposed at an address

    bare = text[1:-1] if text[0] == "[" and text[-1] == "]" else text
    try:
        ipaddress.ip_address(bare)
    except ValueError as error:
        raise DockerfileError(f"invalid IP address: {bare}") from error


def _range(text: str, kind: str) -> tuple[int, int]:
    first_text, dash, last_text = text.partition("-")
    first = signed(first_text)
    last = signed(last_text) if dash else first
    if first is None or last is None or not 0 <= first <= last <= _PORT_MAX:
        raise DockerfileError(f"invalid {kind}: {text}")
    return first, last
