"""Looking for images by a word: Docker Hub's search, or a registry's list of its repositories.

The search is the one that was left of Docker's registry protocol v1. A registry without it is
asked for its catalogue (distribution specification, ``_catalog``), which tells names alone.
"""

import json
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from ketch.errors import InvalidArgumentError, RegistryError
from ketch.images.registry.configuration import Endpoint
from ketch.images.registry.headers import next_page
from ketch.images.registry.login import registry_host
from ketch.images.registry.repository import next_target
from ketch.spec.digits import decimal
from ketch.spec.reference import DEFAULT_DOMAIN
from ketch.spec.values import boolean

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ketch.images.registry.registries import Registries
    from ketch.images.registry.session import Session
    from ketch.spec.filters import Filters

LIMIT = 25
_LIMIT_MAX = 100
_HUB = "index.docker.io"
_ANSWER_MAX = 8 << 20
_PAGES_MAX = 100
_CATALOGUE_MAX = 32 << 20


FILTERS = ("is-automated", "is-official", "stars")


class Found(NamedTuple):
    """One image that was found.

    Attributes:
        name: as people write it.
        description: what its authors say.
        stars: how many people like it.
        official: whether it is one of Docker's own.
        automated: whether it was built by Docker Hub.
    """

    name: str
    description: str
    stars: int
    official: bool
    automated: bool


def search(
    registries: "Registries", term: str, limit: int = 0, filters: "Filters | None" = None
) -> list[Found]:
    """Look for images.

    Args:
        registries: how registries are reached.
        term: a word; with ``HOST/`` before it, at that registry.
        limit: how many to find at most; 0 leaves it to the registry.
        filters: of FILTERS; what does not fit is left out of what was found.

    Raises:
        InvalidArgumentError: the term, the limit or a filter cannot be.
        RegistryError: the registry has no search, or its answer is none.
    """
    if limit and not 1 <= limit <= _LIMIT_MAX:
        raise InvalidArgumentError(
            f"invalid limit: {limit}: must be between 1 and {_LIMIT_MAX}"
            if limit > 0
            else f"invalid limit: {limit}"
        )
    if "://" in term:
        raise InvalidArgumentError(
            "invalid repository name: repository name should not have a scheme"
        )
    fits = _test(filters)
    domain, word = _split(term)
    host = _HUB if domain == DEFAULT_DOMAIN else domain
    lax = registries.configuration.is_insecure(host)
    endpoint = Endpoint(host, ("https", "http") if lax else ("https",), verifies=not lax)
    session = registries.session(endpoint)
    count = limit or LIMIT
    path = f"/v1/search?{urlencode({'q': word, 'n': count})}"
    with session.request("GET", path) as answer:
        content, status = answer.read_all(_ANSWER_MAX), answer.status
    if status == 404 and domain != DEFAULT_DOMAIN:
        return list(filter(fits, _catalogue(session, domain, word)[:count]))
    if status != 200:
        raise RegistryError(f"Unexpected status code {status} from the search at {host}")
    prefix = "" if domain == DEFAULT_DOMAIN else f"{domain}/"
    found = [_one(entry, prefix) for entry in _objects(content, "results", host)][:count]
    return list(filter(fits, found))


def _split(term: str) -> tuple[str, str]:
    """Returns registry and word."""
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return registry_host(first), rest
    return DEFAULT_DOMAIN, term.removeprefix("library/")


def _catalogue(session: "Session", domain: str, word: str) -> list[Found]:
    names: list[str] = []
    target = "/v2/_catalog?n=1000"
    left_bytes = _CATALOGUE_MAX
    for _ in range(_PAGES_MAX):
        with session.checked("GET", target, f"the catalogue of {domain}", (200,),
                             ("registry:catalog:*",)) as answer:  # fmt: skip
            content = answer.read_all(left_bytes)
            following = next_page(answer.field("Link"))
            url = answer.url
        left_bytes -= len(content)
        try:
            found = json.loads(content)["repositories"] or []
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise RegistryError(f"the catalogue of {domain} is malformed") from error
        if not isinstance(found, list):
            raise RegistryError(f"the catalogue of {domain} is malformed")
        names += [name for name in found if isinstance(name, str)]
        if not following:
            break
        target = next_target(url, following)
    return [Found(f"{domain}/{name}", "", 0, False, False) for name in names if word in name]


def _objects(content: bytes, key: str, host: str) -> "list[dict[str, Any]]":
    try:
        found = json.loads(content)[key] or []
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise RegistryError(f"the answer of the search at {host} is malformed") from error
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise RegistryError(f"the answer of the search at {host} is malformed")
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _one(entry: "dict[str, Any]", prefix: str) -> Found:
    stars = entry.get("star_count")
    return Found(
        prefix + _text(entry.get("name")),
        _text(entry.get("description")),
        stars if type(stars) is int else 0,
        entry.get("is_official") is True,
        entry.get("is_automated") is True,
    )


def _test(filters: "Filters | None") -> "Callable[[Found], bool]":
    """Returns whether an image fits filters.

    Raises:
        InvalidArgumentError: a value is wrong.
    """
    if filters is None:
        return lambda _: True
    official, automated = (
        {_boolean(name, text) for text in filters.values(name)}
        for name in ("is-official", "is-automated")
    )
    least = 0
    for text in filters.values("stars"):
        stars = decimal(text)
        if stars is None:
            raise InvalidArgumentError(f"invalid filter 'stars={text}'")
        least = max(least, stars)
    return lambda image: (
        official <= {image.official} and automated <= {image.automated} and image.stars >= least
    )


def _boolean(name: str, text: str) -> bool:
    try:
        return boolean(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid filter '{name}={text}'") from error
