"""What a container is told of others by ``--link``, Docker's older way of naming them."""

from ketch.engine.networks.records import BRIDGE
from ketch.errors import ConflictError, NotFoundError
from ketch.spec import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.engine import Engine
    from ketch.engine.networks.members import Member
    from ketch.engine.records.rows import Container


class Link:
    """What a container on the default network is told of another one by ``--link``.

    Attributes:
        hosts: lines of /etc/hosts.
        variables: of its environment, as ``NAME=value``.
    """

    __slots__ = ("hosts", "variables")

    def __init__(self, hosts: str, variables: list[str]) -> None:
        self.hosts = hosts
        self.variables = variables


def links_of(engine: "Engine", container: "Container", *, running: bool = False) -> list[Link]:
    """What a container is told of others by ``--link`` on the default network.

    On networks that somebody made, links are names for the resolver alone.

    Args:
        engine: where they are recorded.
        container: the container, its addresses leased.
        running: whether it runs, and has to do without those that do not run any more.

    Raises:
        NotFoundError: another container is no more.
        ConflictError: it does not run.
    """
    found: list[Link] = []
    asked = container.record["HostConfig"].get("Links") or ()
    if not asked or not _on_default(engine, container.id):
        return found
    for text in asked:
        reference, alias = links.split(text)
        try:
            other = engine.containers.find(reference)
        except NotFoundError as error:
            if running:
                continue
            raise NotFoundError(f"could not get container for {reference}: {error}") from error
        alias = alias or other.name
        if not other.is_active:
            if running:
                continue
            raise ConflictError(
                f"Cannot link to a non running container: /{other.name} "
                f"AS /{container.name}/{alias}"
            )
        config = other.record["Config"]
        for member in _on_default(engine, other.id):
            names = " ".join(dict.fromkeys([alias, config["Hostname"], other.name]))
            address = next((one.ip for one in member.addresses if one.version == 4), None)
            variables = links.variables(
                container.name, alias, str(address), config.get("ExposedPorts") or (),
                config.get("Env") or (),
            ) if address else []  # fmt: skip
            hosts = "".join(f"{one.ip}\t{names}\n" for one in member.addresses)
            found.append(Link(hosts, variables))
    return found


def _on_default(engine: "Engine", container_id: str) -> "list[Member]":
    """A container's membership in the default network: one or none."""
    members = engine.endpoints.of(container_id)
    return [member for member in members if member.network_name == BRIDGE]
