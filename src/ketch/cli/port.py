"""``ketch port``: where a container's ports are published."""

from ketch.cli.flags import Command, parse
from ketch.engine.engine import Engine
from ketch.engine.networks import settings as network_settings
from ketch.errors import InvalidArgumentError, NotFoundError
from ketch.spec.values import unsigned16

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

PORT = Command(
    "ketch port CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    minimum_arguments=1,
    maximum_arguments=2,
)


def port(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch port``."""
    name, *wanted = parse(PORT, arguments).arguments
    engine = Engine(settings)
    container = engine.containers.find(name)
    ports = engine.endpoints.ports([container.id]).get(container.id, ())
    published: dict[str, list[str]] = {}
    if container.is_active:
        for inside, places in network_settings.published(container.record, ports).items():
            published[inside] = [
                f"{_bracketed(place['HostIp'])}:{place['HostPort']}" for place in places or ()
            ]
    if not wanted:
        for inside in sorted(published, key=_order):
            print("".join(f"{inside} -> {place}\n" for place in published[inside]), end="")
        return 0
    number, slash, protocol = wanted[0].partition("/")
    try:
        unsigned16(number)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid port ({number}): {error.message}") from error
    found = published.get(f"{number}/{protocol or 'tcp'}")
    if not found:
        raise NotFoundError(f"No public port '{number}{slash}{protocol}' published for {name}")
    print("\n".join(found))
    return 0


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _order(port: str) -> tuple[int, str]:
    number, _, protocol = port.partition("/")
    return int(number), protocol
