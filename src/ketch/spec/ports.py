"""Port options: ``--expose`` and ``--publish``, as the API's ExposedPorts and PortBindings."""

from ketch.errors import InvalidArgumentError
from ketch.spec.values import unsigned16

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.spec.container import PortBinding

PROTOCOLS = ("tcp", "udp", "sctp")
FORM = "it is [ADDRESS:][HOST PORT:]CONTAINER PORT[/PROTOCOL], as in 8080:80"
"""What a published port looks like, for who has written something else."""


def exposed(entries: "Iterable[str]") -> dict[str, dict[str, object]]:
    """Reads ``--expose port[-port][/protocol]`` entries.

    Returns:
        The API's ``ExposedPorts``: ``80/tcp`` and an empty object for each port.
    """
    found: dict[str, dict[str, object]] = {}
    for entry in entries:
        if ":" in entry:
            raise InvalidArgumentError(f"invalid port format for --expose: {entry}")
        ports, protocol = _protocol(entry)
        try:
            first, last = _range(ports)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"invalid range format for --expose: {entry}, error: {error.message}"
            ) from error
        _check_protocol(protocol)
        found |= {f"{port}/{protocol}": {} for port in range(first, last + 1)}
    return found


def published(entries: "Iterable[str]") -> "dict[str, list[PortBinding]]":
    """Reads ``--publish`` entries.

    An entry is ``[[address:][port[-port]]:]port[-port][/protocol]``, or names its parts:
    ``published=8080,target=80,protocol=udp``.

    Returns:
        The API's ``PortBindings``: container ports such as ``80/tcp``, and where on the host each
        is published; an empty ``HostPort`` stands for a free one, a range for one out of it.
    """
    found: dict[str, list[PortBinding]] = {}
    for entry in entries:
        for port, binding in _publish(_plain(entry) if "=" in entry else entry):
            found.setdefault(port, []).append(binding)
    return found


def parse(port: str) -> tuple[int, str]:
    """Splits a container port such as ``80/tcp`` into its number and its protocol.

    Raises:
        InvalidArgumentError: it is no port.
    """
    number, protocol = _protocol(port)
    _check_protocol(protocol)
    try:
        return unsigned16(number), protocol
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid port specification: {quoted_port(port)}") from error


def quoted_port(port: str) -> str:
    """Returns a port in quotes, for messages."""
    return f'"{port}"'


def host_range(text: str) -> tuple[int, int]:
    """Reads a ``HostPort``: empty or 0 for any free one (0, 0), a number, or a range.

    Raises:
        InvalidArgumentError: it is none of these.
    """
    if not text:
        return 0, 0
    try:
        return _range(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid port specification: {quoted_port(text)}") from error


def _plain(entry: str) -> str:
    """The short form of an entry whose parts are named."""
    parts = {"protocol": "tcp"}
    for field in entry.split(","):
        key, equals, value = field.partition("=")
        if not equals or not key:
            raise InvalidArgumentError(
                f"invalid publish opts format (should be name=value but got '{field}')"
            )
        parts[key] = value
    return f"{parts.get('published', '')}:{parts.get('target', '')}/{parts['protocol']}"


def _publish(entry: str) -> "list[tuple[str, PortBinding]]":
    head, _, container = entry.rpartition(":")
    address, _, host = head.rpartition(":")
    ports, protocol = _protocol(container)
    if not ports:
        raise InvalidArgumentError(f"no port specified: {entry}<empty>")
    _check_protocol(protocol)
    address = _address(address)
    first, last = _named_range("containerPort", ports)
    if not host:
        numbers = [""] * (last - first + 1)
    else:
        host_first, host_last = _named_range("hostPort", host)
        if first == last and host_first != host_last:
            numbers = [f"{host_first}-{host_last}"]  # whichever of them is free
        elif last - first != host_last - host_first:
            raise InvalidArgumentError(
                f"invalid ranges specified for container and host Ports: {ports} and {host}", FORM
            )
        else:
            numbers = [str(number) for number in range(host_first, host_last + 1)]
    return [
        (f"{first + offset}/{protocol}", {"HostIp": address, "HostPort": number})
        for offset, number in enumerate(numbers)
    ]


def _protocol(text: str) -> tuple[str, str]:
    ports, _, protocol = text.partition("/")
    return ports, protocol.lower() or "tcp"


def _check_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise InvalidArgumentError(f"invalid proto: {protocol}", f"one of {', '.join(PROTOCOLS)}")


def _address(text: str) -> str:
    if not text:
        return ""
    import ipaddress  # noqa: PLC0415 - most ports are published on every address

    bare = text
    if text[0] == "[":
        if text[-1] != "]":
            raise InvalidArgumentError(
                f"invalid IP address {text}: address {text}: missing ']' in address"
            )
        bare = text[1:-1]
    try:
        ipaddress.ip_address(bare)
    except ValueError as error:
        raise InvalidArgumentError(f"invalid IP address: {bare}", FORM) from error
    return bare


def _named_range(name: str, text: str) -> tuple[int, int]:
    try:
        return _range(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid {name}: {text}", FORM) from error


def _range(text: str) -> tuple[int, int]:
    if not text:
        raise InvalidArgumentError("empty string specified for ports")
    low, dash, high = text.partition("-")
    first = unsigned16(low)
    last = unsigned16(high) if dash else first
    if last < first:
        raise InvalidArgumentError(f"invalid range specified for port: {text}")
    return first, last
