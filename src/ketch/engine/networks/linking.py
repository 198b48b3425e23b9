"""What a container is told of others by ``--link``, Docker's older way of naming them."""

from contextlib import suppress

from ketch.engine.networks import hosts_file
from ketch.engine.networks.records import BRIDGE
from ketch.engine.records import links
from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError
from ketch.spec import endpoints
from ketch.spec import links as texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.engine import Engine
    from ketch.engine.networks.members import Member
    from ketch.engine.records.rows import Container
    from ketch.engine.settings import Settings
    from ketch.spec.container import Request


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
    with engine.store.reading() as connection:
        asked = links.of(connection, container.id)
    if not asked or not _on_default(engine, container.id):
        return found
    for one in asked:
        try:
            other = engine.containers.find(one.target_id)
        except NotFoundError as error:
            if running:
                continue
            raise NotFoundError(
                f"could not get container for {one.target_name}: {error}",
                f"ketch rm --link {container.name}/{one.alias} takes the link back",
            ) from error
        if not other.is_active:
            if running:
                continue
            raise ConflictError(
                f"Cannot link to a non running container: /{other.name} "
                f"AS /{container.name}/{one.alias}"
            )
        config = other.record["Config"]
        for member in _on_default(engine, other.id):
            address = next((one.ip for one in member.addresses if one.version == 4), None)
            variables = texts.variables(
                container.name, one.alias, str(address), config.get("ExposedPorts") or (),
                config.get("Env") or (),
            ) if address else []  # fmt: skip
            found.append(Link(_lines(one.alias, other, member), variables))
    return found


def resolve(engine: "Engine", request: "Request") -> "list[tuple[str, str]]":
    """The containers that a request's ``Links`` name, by id, and what each is to be called.

    Raises:
        InvalidArgumentError: there is no such container, or it has the host's network.
    """
    resources = request["HostConfig"]
    asked = resources.get("Links") or ()
    if not asked or endpoints.is_user_defined(resources.get("NetworkMode", "")):
        return []
    found = []
    for text in asked:
        reference, alias = texts.split(text)
        try:
            other = _home(engine, reference)
        except NotFoundError as error:
            raise InvalidArgumentError(
                f"could not get container for {reference}: {error.message}"
            ) from error
        if other.record["HostConfig"]["NetworkMode"] == "host":
            raise InvalidArgumentError(
                "conflicting options: host type networking can't be used with links. This would "
                "result in undefined behavior"
            )
        found.append((other.id, alias or reference))
    return found


def _home(engine: "Engine", reference: str) -> "Container":
    """Whose network a container is in, that one has the address."""
    seen: set[str] = set()
    container = engine.containers.find(reference)
    while container.id not in seen:
        seen.add(container.id)
        named = endpoints.container_of(container.record["HostConfig"]["NetworkMode"])
        if not named:
            return container
        container = engine.containers.find(named)
    raise InvalidArgumentError(
        f"container {reference} is in nobody's network but, in turns, its own"
    )


def tell(engine: "Engine", container: "Container") -> None:
    """Tell those that run and have a link to a container, which has a new address, of that."""
    with engine.store.reading() as connection:
        having = links.to(connection, container.id)
    own = _on_default(engine, container.id) if having else []
    for one in having:
        with suppress(NotFoundError, FileNotFoundError):  # it has gone meanwhile
            other = engine.containers.read(one.container_id)
            if other.is_active and own and _on_default(engine, other.id):
                lines = "".join(_lines(one.alias, container, member) for member in own)
                _change_hosts(engine.settings, other, one.alias, container, lines)


def untell(
    settings: "Settings", having: "Container", alias: str, target: "Container | None"
) -> None:
    """Have a running container forget what it was told of another one."""
    if having.is_active:
        with suppress(FileNotFoundError):
            _change_hosts(settings, having, alias, target, "")


def _change_hosts(
    settings: "Settings", having: "Container", alias: str, target: "Container | None", lines: str
) -> None:
    hostname = target.record["Config"].get("Hostname", "") if target else ""

    def gone(_address: str, names: list[str]) -> bool:
        # What somebody else says of that name stands alone: --add-host.
        return names[:1] == [alias] and (len(names) > 1 or alias == hostname)

    with hosts_file.locked(settings, having.id):
        hosts_file.change(settings, having.id, gone, lines)


def _lines(alias: str, other: "Container", member: "Member") -> str:
    """What /etc/hosts says of a link."""
    names = " ".join(dict.fromkeys([alias, other.record["Config"]["Hostname"], other.name]))
    return "".join(f"{one.ip}\t{names}\n" for one in member.addresses)


def _on_default(engine: "Engine", container_id: str) -> "list[Member]":
    """A container's membership in the default network: one or none."""
    members = engine.endpoints.of(container_id)
    return [member for member in members if member.network_name == BRIDGE]
