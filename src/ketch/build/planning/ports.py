"""What EXPOSE names: ``[address:][port:]port[-port][/protocol]``; the container's part is kept.

Source: github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb/convert_expose.go.
"""

import ipaddress

from ketch.errors import InvalidArgumentError
from ketch.spec.digits import decimal
from ketch.spec.ports import PROTOCOLS

_PORT_MAX = 65_535


def exposed(words: "tuple[str, ...]") -> list[str]:
    """Returns the ports that some words name, each as ``80/tcp``.

    Raises:
        InvalidArgumentError: one names none.
    """
    return [port for word in words for port in _ports(word)]


def _ports(word: str) -> list[str]:
    before, _, own = word.rpartition(":")
    address, _, host = before.rpartition(":")
    ports, _, protocol = own.partition("/")
    if not ports:
        raise InvalidArgumentError(f"no port specified: {own}<empty>")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidArgumentError(f"invalid proto: {protocol}")
    if address:
        _check_address(address)
    first, last = _range(ports, "containerPort")
    if host:
        host_first, host_last = _range(host, "hostPort")
        if last - first != host_last - host_first and first != last:
            raise InvalidArgumentError(
                f"invalid ranges specified for container and host Ports: {ports} and {host}"
            )
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _check_address(address: str) -> None:
    plain = address[1:-1] if address[0] == "[" and address[-1] == "]" else address
    try:
        ipaddress.ip_address(plain)
    except ValueError as error:
        raise InvalidArgumentError(f"invalid IP address: {plain}") from error


def _range(text: str, name: str) -> tuple[int, int]:
    ends = [decimal(end) for end in text.split("-")]
    first, last = ends[0], ends[-1]
    if len(ends) > 2 or first is None or last is None or not first <= last <= _PORT_MAX:
        raise InvalidArgumentError(f"invalid {name}: {text}")
    return first, last
