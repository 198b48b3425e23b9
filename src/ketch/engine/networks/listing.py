"""Which networks a list shows and which a prune removes, for every face of ketch alike."""

import time

from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError
from ketch.spec import timestamps
from ketch.spec.filters import Filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.networks.endpoints import Endpoints
    from ketch.engine.networks.networks import Networks
    from ketch.engine.networks.records import Network

LIST_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
PRUNE_FILTERS = ("label", "label!", "until")

_TRUE, _FALSE = {"1", "t", "T", "true", "TRUE", "True"}, {"0", "f", "F", "false", "FALSE", "False"}


def select(networks: "Networks", endpoints: "Endpoints", pairs: "Iterable[str]") -> "list[Network]":
    """Returns the networks that fit all filters, by name.

    Args:
        networks: where to look.
        endpoints: who is on them.
        pairs: ``name=value``, of LIST_FILTERS.

    Raises:
        InvalidArgumentError: a filter is unknown or its value wrong.
    """
    chosen = Filters(pairs, LIST_FILTERS)
    for kind in chosen.values("type"):
        if kind not in {"builtin", "custom"}:
            raise InvalidArgumentError(f"invalid filter: 'type'='{kind}'")
    dangling = _dangling(chosen.values("dangling"))
    used = set() if dangling is None else endpoints.used_networks()
    return sorted(
        (
            network
            for network in networks.every()
            if chosen.exact("driver", network.driver)
            and (
                "id" not in chosen
                or any(network.id.startswith(start) for start in chosen.values("id"))
            )
            and chosen.labels("label", network.labels)
            and chosen.pattern("name", network.name)
            and chosen.exact("scope", "local")
            and chosen.exact("type", "builtin" if network.is_built_in else "custom")
            and dangling in {None, not network.is_built_in and network.id not in used}
        ),
        key=lambda network: network.name,
    )


def _dangling(values: list[str]) -> bool | None:
    """Whether those that nobody uses are wanted, or the others; None for either.

    Raises:
        InvalidArgumentError: it is not said in one word, Docker's rule for networks.
    """
    if len(values) > 1:
        raise InvalidArgumentError('got more than one value for filter key "dangling"')
    if not values:
        return None
    if values[0] not in _TRUE | _FALSE:
        raise InvalidArgumentError(f"invalid filter 'dangling={values[0]}'")
    return values[0] in _TRUE


def prune(networks: "Networks", endpoints: "Endpoints", pairs: "Iterable[str]") -> list[str]:
    """Remove the networks that no running container is on; returns their names.

    Args:
        networks: where to look.
        endpoints: who is on them.
        pairs: ``name=value``, of PRUNE_FILTERS.

    Raises:
        InvalidArgumentError: a filter is unknown or its value wrong.
    """
    chosen = Filters(pairs, PRUNE_FILTERS)
    until_ns = None
    if values := chosen.values("until"):
        if len(values) > 1:
            raise InvalidArgumentError("more than one until filter specified")
        until_ns = timestamps.moment(values[0], time.time_ns())
    used = endpoints.used_networks()
    removed = []
    for network in networks.every():
        if (
            network.is_built_in
            or network.id in used
            or (until_ns is not None and network.record["created_ns"] >= until_ns)
            or not chosen.labels("label", network.labels)
            or any(
                Filters([f"label={text}"], ["label"]).labels("label", network.labels)
                for text in chosen.values("label!")
            )
        ):
            continue
        try:
            networks.remove(network.id)
        except (ConflictError, NotFoundError):
            continue  # somebody was quicker, or has just come to use it
        removed.append(network.name)
    return removed
