"""Which containers a list shows: ``ps`` and its filters, for every face of ketch alike."""

from ketch.engine.records import rows, states
from ketch.engine.views import summary
from ketch.errors import InvalidArgumentError, KetchError
from ketch.linux import procfs
from ketch.spec.values import boolean, unsigned16

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.engine import Engine
    from ketch.engine.images.images import Images
    from ketch.engine.records.rows import Container
    from ketch.spec.filters import Filters

    Test = Callable[[Container], bool]

FILTERS = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label",
    "name", "network", "publish", "since", "status", "volume",
)  # fmt: skip
_STATUSES = {*states.ACTIVE, states.CREATED, states.REMOVING, states.EXITED, states.DEAD}
_HEALTHS = {"none", "starting", "healthy", "unhealthy"}


def select(
    engine: "Engine", chosen: "Filters", *, everything: bool = False, last: int = 0
) -> "list[Container]":
    """Returns the containers that fit all filters, newest first.

    Args:
        engine: where to look.
        chosen: the filters, of FILTERS.
        everything: whether those that do not run count as well, as they do where a status or a
            number is asked for.
        last: no more than so many, whatever they are doing; 0 for no such limit.

    Raises:
        InvalidArgumentError: a filter's value is wrong.
        NotFoundError: ``before`` or ``since`` name no container.
    """
    tests = [make(engine, chosen) for name, make in _TESTS.items() if name in chosen]
    everything = everything or last > 0 or "status" in chosen
    found = [
        container
        for container in _between(engine, chosen, everything)
        if chosen.pattern("id", container.id)
        and chosen.pattern("name", container.name, f"/{container.name}")
        and all(fits(container) for fits in tests)
    ]
    return found[:last] if last > 0 else found


def _between(engine: "Engine", chosen: "Filters", everything: bool) -> "list[Container]":
    """Returns the containers made before and since those that were named."""
    limits = [(name, engine.containers.find(text).created_ns)
              for name in ("before", "since") for text in chosen.values(name)]  # fmt: skip
    found = _every(engine, everything)
    for name, limit_ns in limits:
        found = [
            container
            for container in found
            if (container.created_ns < limit_ns if name == "before"
                else container.created_ns > limit_ns)
        ]  # fmt: skip
    return found


def _every(engine: "Engine", everything: bool) -> "list[Container]":
    """Returns all containers, or those that are active, without what works on them if it can be."""
    with engine.store.reading() as connection:
        found = rows.every(connection, procfs.boot_id())
    if any(container.left_behind for container in found):
        return engine.containers.list(all=everything)
    return [one for one in found if one.is_whole and (everything or one.is_active)]


# Each of these reads a filter's values once and returns what says whether a container fits.


def _status(_engine: "Engine", chosen: "Filters") -> "Test":
    wanted = chosen.values("status")
    for text in wanted:
        if text not in _STATUSES:
            raise InvalidArgumentError(f"invalid filter 'status={text}'")
    return lambda container: container.status in wanted


def _exited(_engine: "Engine", chosen: "Filters") -> "Test":
    wanted = chosen.numbers("exited")
    return lambda container: (
        not container.is_active and bool(container.finished_ns) and container.exit_status in wanted
    )


def _health(_engine: "Engine", chosen: "Filters") -> "Test":
    wanted = chosen.values("health")
    for text in wanted:
        if text not in _HEALTHS:
            raise InvalidArgumentError(f"unrecognized filter value for health: {text}")
    return lambda container: summary.health(container) in wanted


def _is_task(_engine: "Engine", chosen: "Filters") -> "Test":
    # There are no services here, and so no container is one's task.
    wanted = [_truth("is-task", text) for text in chosen.values("is-task")]
    return lambda _: False in wanted


def _label(_engine: "Engine", chosen: "Filters") -> "Test":
    return lambda container: chosen.labels("label", summary.labels(container))


def _network(engine: "Engine", chosen: "Filters") -> "Test":
    names = engine.endpoints.network_names()
    wanted = set()
    for text in chosen.values("network"):
        try:
            wanted.add(engine.networks.find(text).name)
        except KetchError:
            wanted.add(text)  # one that is gone, or that nobody has made yet
    return lambda container: not wanted.isdisjoint(names.get(container.id, ()))


def _volume(_engine: "Engine", chosen: "Filters") -> "Test":
    wanted = set(chosen.values("volume"))

    def fits(container: "Container") -> bool:
        return any(
            not wanted.isdisjoint((point.get("Name") or point["Source"], point["Destination"]))
            for point in container.record.get("Mounts", ())
        )

    return fits


def _ports(engine: "Engine", chosen: "Filters") -> "Test":
    """``publish`` and ``expose`` are alternatives, in Docker too."""
    from ketch.engine.networks import settings  # noqa: PLC0415 - only for these two

    published = engine.endpoints.ports()
    outside, inside = _port_numbers(chosen, "publish"), _port_numbers(chosen, "expose")

    def fits(container: "Container") -> bool:
        if not container.is_active:
            return False
        return any(
            (port.get("PublicPort", 0), port["Type"]) in outside
            or (port["PrivatePort"], port["Type"]) in inside
            for port in settings.listed(container.record, published.get(container.id, ()))
        )

    return fits


def _port_numbers(chosen: "Filters", name: str) -> set[tuple[int, str]]:
    found = set()
    for text in chosen.values(name):
        span, _, protocol = text.partition("/")
        first, dash, last = span.partition("-")
        try:
            low = unsigned16(first)
            high = unsigned16(last) if dash else low
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"error while looking up for {name} {text}: {error.message}"
            ) from error
        found |= {(number, protocol or "tcp") for number in range(low, high + 1)}
    return found


def _ancestor(engine: "Engine", chosen: "Filters") -> "Test":
    """An image, or what was committed on it."""
    parents = {image.id: image.parent_id for image in engine.images.list()}
    wanted = set()
    for text in chosen.values("ancestor"):
        try:
            wanted.add(engine.images.resolve(text).id)
        except KetchError:
            continue

    def fits(container: "Container") -> bool:
        image_id = container.image_id
        while image_id and image_id not in wanted:
            image_id = parents.get(image_id, "")
        return bool(image_id)

    return fits


def _truth(name: str, text: str) -> bool:
    try:
        return boolean(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid filter '{name}=[{text}]'") from error


_TESTS: "dict[str, Callable[[Engine, Filters], Test]]" = {
    "ancestor": _ancestor, "exited": _exited, "expose": _ports, "health": _health,
    "is-task": _is_task, "label": _label, "network": _network, "publish": _ports,
    "status": _status, "volume": _volume,
}  # fmt: skip


class ImageNames:
    """How containers' images are shown: by the name that was used, while that is the image's.

    Args:
        images: where names are looked up.
    """

    __slots__ = ("_found", "_images")

    def __init__(self, images: "Images") -> None:
        self._images = images
        self._found: dict[str, str] = {}

    def shown(self, container: "Container", *, whole: bool) -> str:
        """Returns a container's image as the user named it, or its identifier.

        Args:
            container: whose image.
            whole: whether an identifier is given at its full length.
        """
        name = container.image_reference
        if name not in self._found:
            try:
                self._found[name] = self._images.resolve(name).id
            except KetchError:
                self._found[name] = ""  # the image is gone, or has lost its name
        if self._found[name] == container.image_id:
            return name or "<no image>"
        return container.image_id if whole else container.image_id.partition(":")[2][:12]
