"""Routes about networks."""

from typing import TYPE_CHECKING

from ketch.engine.home import entering
from ketch.engine.networks import connecting, listing
from ketch.engine.networks import settings as network_settings
from ketch.errors import ConflictError, InvalidArgumentError, PermissionDeniedError
from ketch.spec import network as vocabulary
from ketch.spec.container import EndpointChange
from ketch.spec.template_functions import plain

if TYPE_CHECKING:
    from typing import Any

    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine


async def list_(call: "Call") -> None:
    """Answer ``GET /networks``."""
    found = await call.run(_list, call.filters_given())
    if call.version >= (1, 28):  # since then a list does not say who is connected
        found = [{**one, "Containers": {}} for one in found]
    await call.reply(200, found)


def _list(engine: "Engine", pairs: list[str]) -> "list[Any]":
    found = listing.select(engine.networks, engine.endpoints, pairs)
    return [plain(network_settings.network(engine, one)) for one in found]


async def inspect(call: "Call") -> None:
    """Answer ``GET /networks/{id}``."""
    if call.text("scope") not in {"", "local"}:
        await call.run(_inspect, f"{call['id']} in scope {call.text('scope')}")
    await call.reply(200, await call.run(_inspect, call["id"]))


def _inspect(engine: "Engine", reference: str) -> "Any":
    return plain(network_settings.network(engine, engine.networks.find(reference)))


async def create(call: "Call") -> None:
    """Answer ``POST /networks/create``."""
    document = await call.document(vocabulary.NetworkCreate)
    if call.version < (1, 48):
        document.pop("EnableIPv4", None)
    if not document.get("Name"):
        raise InvalidArgumentError("network name cannot be empty")
    identifier, warnings = await call.run_slowly(_create, document)
    await call.reply(201, {"Id": identifier, "Warning": "\n".join(warnings)})


def _create(engine: "Engine", document: "dict[str, Any]") -> tuple[str, list[str]]:
    network, warnings = entering.with_engine(engine, lambda one: one.networks.create(document))
    return network.id, warnings


async def remove(call: "Call") -> None:
    """Answer ``DELETE /networks/{id}``."""
    await call.run_slowly(_remove, call["id"])
    await call.reply(204)


def _remove(engine: "Engine", reference: str) -> None:
    try:
        entering.with_engine(engine, lambda one: one.networks.remove(reference))
    except ConflictError as error:
        # Here dockerd has 403 for what is 409 everywhere else.
        raise PermissionDeniedError(error.message, error.hint) from error


async def connect(call: "Call") -> None:
    """Answer ``POST /networks/{id}/connect``."""
    asked = await call.document(EndpointChange)
    settings = asked.get("EndpointConfig", {})
    await call.run_slowly(_connect, call["id"], _container(asked), settings)
    await call.reply(200)


def _connect(engine: "Engine", network: str, container: str, settings: "dict[str, Any]") -> None:
    entering.with_engine(engine, lambda one: connecting.connect(one, network, container, settings))


async def disconnect(call: "Call") -> None:
    """Answer ``POST /networks/{id}/disconnect``."""
    asked = await call.document(EndpointChange)
    await call.run_slowly(_disconnect, call["id"], _container(asked), asked.get("Force", False))
    await call.reply(200)


def _disconnect(engine: "Engine", network: str, container: str, force: bool) -> None:
    entering.with_engine(
        engine, lambda one: connecting.disconnect(one, network, container, force=force)
    )


def _container(asked: EndpointChange) -> str:
    if not asked.get("Container"):
        raise InvalidArgumentError("invalid JSON: Container is wanted")
    return asked["Container"]


async def prune(call: "Call") -> None:
    """Answer ``POST /networks/prune``."""
    removed = await call.run_slowly(_prune, call.filters_given())
    await call.reply(200, {"NetworksDeleted": removed or None})


def _prune(engine: "Engine", pairs: list[str]) -> list[str]:
    return entering.with_engine(
        engine, lambda one: listing.prune(one.networks, one.endpoints, pairs)
    )


ROUTES: "Routes" = (
    ("GET", "/networks", list_),
    ("GET", "/networks/", list_),
    ("POST", "/networks/create", create),
    ("POST", "/networks/prune", prune),
    ("GET", "/networks/{id}", inspect),
    ("DELETE", "/networks/{id}", remove),
    ("POST", "/networks/{id}/connect", connect),
    ("POST", "/networks/{id}/disconnect", disconnect),
)
