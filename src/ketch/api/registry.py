"""Routes about registries: who one is there, and what they have."""

import os
from typing import TYPE_CHECKING

from ketch.api.transfer import AuthConfig, credentials, from_document
from ketch.images.registry import search as registry_search
from ketch.images.registry.login import log_in, registry_host
from ketch.images.registry.registries import Registries
from ketch.spec import image as documents
from ketch.spec import reference as references

if TYPE_CHECKING:
    from typing import Any

    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine
    from ketch.images.registry.credentials import Credentials
    from ketch.images.registry.search import Found
    from ketch.spec.filters import Filters


async def auth(call: "Call") -> None:
    """Answer ``POST /auth``: whether a registry believes somebody; nothing is kept here."""
    # dockerd asks for no type here.
    asked: AuthConfig = await call.document(AuthConfig, typed=False)
    kept = await call.run_slowly(_log_in, asked.get("serveraddress", ""), from_document(asked))
    await call.reply(200, {"Status": "Login Succeeded", "IdentityToken": kept.identity_token})


def _log_in(_engine: "Engine", address: str, who: "Credentials") -> "Credentials":
    with Registries(os.environ, credentials=who) as registries:
        return log_in(registries, registry_host(address), who)


async def search(call: "Call") -> None:
    """Answer ``GET /images/search``."""
    chosen = call.filters(registry_search.FILTERS)
    limit = call.number("limit") or 0
    who = credentials(call.exchange.headers.get("x-registry-auth", ""))
    found = await call.run_slowly(_search, call.text("term"), limit, chosen, who)
    await call.reply(
        200,
        [
            {
                "star_count": image.stars,
                "is_official": image.official,
                "name": image.name,
                "is_automated": image.automated,
                "description": image.description,
            }
            for image in found
        ],
    )


def _search(
    _engine: "Engine", term: str, limit: int, filters: "Filters", who: "Credentials"
) -> "list[Found]":
    with Registries(os.environ, credentials=who) as registries:
        return registry_search.search(registries, term, limit, filters)


async def distribution(call: "Call") -> None:
    """Answer ``GET /distribution/{name}/json``: what a registry has under a name."""
    who = credentials(call.exchange.headers.get("x-registry-auth", ""))
    await call.reply(200, await call.run_slowly(_distribution, call["name"], who))


def _distribution(_engine: "Engine", text: str, who: "Credentials") -> "dict[str, Any]":
    name = references.parse(text).tagged()
    with Registries(os.environ, credentials=who) as registries:
        repository = registries.repository(name)
        manifest = repository.manifest(name.digest or name.tag)
        if manifest.media_type in documents.INDEX_TYPES:
            index = documents.parse_index(manifest.content)
            platforms: list[dict[str, Any]] = [
                {**entry.get("platform", {})} for entry in index["manifests"]
            ]
        else:
            parsed = documents.parse_manifest(manifest.content)
            layer = parsed["config"]
            content = repository.blob(layer["digest"], layer["size"])
            config: dict[str, Any] = {**documents.parse_config(content)}
            keys = ("architecture", "os", "variant")
            platforms = [{key: config[key] for key in keys if config.get(key)}]
    return {
        "Descriptor": {
            "mediaType": manifest.media_type, "digest": manifest.digest,
            "size": len(manifest.content),
        },
        "Platforms": platforms,
    }  # fmt: skip


ROUTES: "Routes" = (
    ("POST", "/auth", auth),
    ("GET", "/images/search", search),
    ("GET", "/distribution/{name*}/json", distribution),
)
