"""Routes about registries: who one is there, and what they have."""

import os
from typing import TYPE_CHECKING

from ketch.api.transfer import from_document
from ketch.images.registry.login import log_in, registry_host
from ketch.images.registry.registries import Registries

if TYPE_CHECKING:
    from ketch.api.application import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine
    from ketch.images.registry.credentials import Credentials


async def auth(call: "Call") -> None:
    """Answer ``POST /auth``: whether a registry believes somebody; nothing is kept here."""
    body = await call.exchange.document()
    who = from_document(body)
    address = body.get("serveraddress") or ""
    kept = await call.run_slowly(_log_in, str(address), who)
    await call.reply(200, {"Status": "Login Succeeded", "IdentityToken": kept.identity_token})


def _log_in(_engine: "Engine", address: str, who: "Credentials") -> "Credentials":
    with Registries(os.environ, credentials=who) as registries:
        return log_in(registries, registry_host(address), who)


ROUTES: "Routes" = (("POST", "/auth", auth),)
