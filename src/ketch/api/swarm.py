"""Routes of swarm mode and plugins, answered as by a daemon that is in no swarm and has none."""

from typing import TYPE_CHECKING

from ketch.errors import NotFoundError, UnavailableError, UnsupportedError

if TYPE_CHECKING:
    from ketch.api.call import Call
    from ketch.api.router import Routes

_NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)


async def _no_manager(_call: "Call") -> None:
    raise UnavailableError(_NO_MANAGER)


async def _no_member(_call: "Call") -> None:
    raise UnavailableError("This node is not part of a swarm")


async def _no_swarms(_call: "Call") -> None:
    raise UnsupportedError("ketch has no swarm mode")


async def _no_plugins(call: "Call") -> None:
    await call.reply(200, [])


async def _no_plugin(call: "Call") -> None:
    raise NotFoundError(f'plugin "{call["name"]}" not found')


async def _no_plugin_system(_call: "Call") -> None:
    raise UnsupportedError("ketch has no plugins")


def _routes() -> "Routes":
    found: list[tuple[str, str, object]] = [
        ("GET", "/swarm", _no_manager),
        ("POST", "/swarm/init", _no_swarms),
        ("POST", "/swarm/join", _no_swarms),
        ("POST", "/swarm/leave", _no_member),
        ("POST", "/swarm/update", _no_manager),
        ("POST", "/swarm/unlock", _no_manager),
        ("GET", "/swarm/unlockkey", _no_manager),
        ("GET", "/nodes", _no_manager),
        ("GET", "/nodes/{id}", _no_manager),
        ("DELETE", "/nodes/{id}", _no_manager),
        ("POST", "/nodes/{id}/update", _no_manager),
        ("GET", "/tasks", _no_manager),
        ("GET", "/tasks/{id}", _no_manager),
        ("GET", "/tasks/{id}/logs", _no_manager),
        ("GET", "/services/{id}/logs", _no_manager),
        ("GET", "/plugins", _no_plugins),
        ("GET", "/plugins/privileges", _no_plugin_system),
        ("POST", "/plugins/pull", _no_plugin_system),
        ("POST", "/plugins/create", _no_plugin_system),
        ("GET", "/plugins/{name*}/json", _no_plugin),
        ("POST", "/plugins/{name*}/enable", _no_plugin),
        ("POST", "/plugins/{name*}/disable", _no_plugin),
        ("POST", "/plugins/{name*}/upgrade", _no_plugin),
        ("POST", "/plugins/{name*}/push", _no_plugin),
        ("POST", "/plugins/{name*}/set", _no_plugin),
        ("DELETE", "/plugins/{name*}", _no_plugin),
    ]
    for topic in ("services", "secrets", "configs"):
        found += [
            ("GET", f"/{topic}", _no_manager),
            ("POST", f"/{topic}/create", _no_manager),
            ("GET", f"/{topic}/{{id}}", _no_manager),
            ("DELETE", f"/{topic}/{{id}}", _no_manager),
            ("POST", f"/{topic}/{{id}}/update", _no_manager),
        ]
    return found  # type: ignore[return-value]


ROUTES: "Routes" = _routes()
