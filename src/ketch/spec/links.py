"""``--link`` on the default network: the variables that tell a container of another one.

Docker's legacy links, see docs.docker.com/engine/network/links, "Environment variables".
"""

from ketch.errors import InvalidArgumentError
from ketch.spec import ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# The other container's own, which say nothing to anybody else.
_OWN = frozenset({"HOME", "PATH"})
_RUN_MINIMUM = 3  # ports one after the other that are told of as one range as well


def split(text: str) -> tuple[str, str]:
    """Reads a ``--link``, ``name[:alias]``: the other container, and what it is called if that is
    said. Docker's inspect writes ``/name:/own-name/alias``, which is taken too.

    Raises:
        InvalidArgumentError: in Docker's words.
    """
    if not text:
        raise InvalidArgumentError("empty string specified for links")
    reference, _, alias = text.partition(":")
    if not reference or ":" in alias:
        raise InvalidArgumentError(f"bad format for links: {text}")
    shown = reference.startswith("/")
    return reference.removeprefix("/"), alias.rpartition("/")[2] if shown else alias


def variables(
    name: str, alias: str, address: str, exposed: "Iterable[str]", environment: "Iterable[str]"
) -> list[str]:
    """The variables that a link gives, as ``NAME=value``.

    Args:
        name: of the container that gets them.
        alias: what it calls the other one.
        address: the other's IPv4 address.
        exposed: the ports that the other one exposes, such as ``80/tcp``.
        environment: the other's variables.
    """
    prefix = alias.upper().replace("-", "_")
    found = sorted(
        (ports.parse(text) for text in exposed), key=lambda one: (one[0], one[1] != "tcp", one[1])
    )
    lines = []
    if found:
        number, protocol = found[0]
        lines.append(f"{prefix}_PORT={protocol}://{address}:{number}")
    lines += _ranges(prefix, address, found)
    for number, protocol in found:
        variable = f"{prefix}_PORT_{number}_{protocol.upper()}"
        lines += [
            f"{variable}={protocol}://{address}:{number}",
            f"{variable}_ADDR={address}",
            f"{variable}_PORT={number}",
            f"{variable}_PROTO={protocol}",
        ]
    lines.append(f"{prefix}_NAME=/{name}/{alias}")
    for entry in environment:
        own, equals, value = entry.partition("=")
        if equals and own not in _OWN:
            lines.append(f"{prefix}_ENV_{own}={value}")
    return lines


def _ranges(prefix: str, address: str, found: "list[tuple[int, str]]") -> list[str]:
    """What tells of ports in a row; as in Docker, whatever their protocols, by the first one's."""
    lines = []
    first = 0
    while first < len(found):
        last = first
        while last + 1 < len(found) and found[last + 1][0] - found[first][0] <= last + 1 - first:
            last += 1
        number, protocol = found[first]
        end, end_protocol = found[last]
        if last - first + 1 < _RUN_MINIMUM:
            first += 1
            continue
        variable = f"{prefix}_PORT_{number}_{protocol.upper()}"
        lines += [
            f"{variable}_START={protocol}://{address}:{number}",
            f"{variable}_ADDR={address}",
            f"{variable}_PROTO={protocol}",
            f"{variable}_PORT_START={number}",
            f"{variable}_END={end_protocol}://{address}:{end}",
            f"{variable}_PORT_END={end}",
        ]
        first = last + 1
    return lines
