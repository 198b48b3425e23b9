"""Where BuildKit's clients come in: ``POST /session``, ``POST /grpc``, and by way of ``/build``.

On the first the client is the server, on the second we are; both leave HTTP/1. HTTP/2 and protobuf
are loaded with this module, by the first client that comes.
Source: moby/moby, api/server/router/grpc and session.
"""

import traceback
from typing import TYPE_CHECKING

from ketch.api.buildkit import grpc, posted, schema, sessions
from ketch.api.buildkit.bridge import Bridge
from ketch.api.buildkit.builds import Builds
from ketch.api.buildkit.control import Control
from ketch.api.buildkit.http2 import Connection
from ketch.build import builder
from ketch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from ketch.api.application import Application
    from ketch.api.buildkit.grpc import Call as GrpcCall
    from ketch.api.buildkit.http2 import Stream
    from ketch.api.call import Call
    from ketch.api.http import RawStream
    from ketch.api.router import Routes

_SHARED = "buildkit"
_SERVING = 1  # grpc.health.v1, HealthCheckResponse.ServingStatus
_HEALTH = "/grpc.health.v1.Health/Check"
_HELD_BYTES_MAX = 32 << 20


async def session(call: "Call") -> None:
    """Answer ``POST /session``: the client serves us its files and more."""
    headers = call.exchange.headers
    name = headers.get(sessions.ID, "")
    there = _builds(call.application).sessions
    _check(call)
    there.check(name)
    raw = await _upgraded(call)
    shared_key = headers.get(sessions.SHARED_KEY, "")
    await there.serve(raw, name, shared_key, call.exchange.values(sessions.METHOD))


async def build(call: "Call") -> None:
    """Answer ``POST /build`` of a client that asks for BuildKit there."""
    await posted.build(call, _builds(call.application))


async def serve(call: "Call") -> None:
    """Answer ``POST /grpc``: we serve the client."""
    application = call.application
    builds = _builds(application)
    _check(call)
    methods = {**Control(builds).methods(), **Bridge(builds).methods(), _HEALTH: _health}

    async def accept(stream: "Stream") -> None:
        mistake = await grpc.answer(stream, methods)
        if mistake is not None:
            trace = "".join(traceback.format_exception(mistake))
            application.log("error", "buildkit", cause=repr(mistake), traceback=trace)

    raw = await _upgraded(call)
    await Connection(raw, client=False, accept=accept, held_max=_HELD_BYTES_MAX).run()


async def _health(call: "GrpcCall") -> None:
    words = schema.messages("session")
    await call.request(words.HealthCheckRequest)
    await call.send(words.HealthCheckResponse(status=_SERVING))


def _check(call: "Call") -> None:
    protocol = call.exchange.headers.get("upgrade", "")
    if not protocol:
        raise InvalidArgumentError("no upgrade proto in request")
    if protocol != "h2c":
        raise InvalidArgumentError(f"protocol {protocol[:100]} not supported")


async def _upgraded(call: "Call") -> "RawStream":
    return await call.exchange.hijack("", upgrade={"Connection": "Upgrade", "Upgrade": "h2c"})


def _builds(application: "Application") -> Builds:
    found = application.shared.get(_SHARED)
    if not isinstance(found, Builds):
        found = application.shared[_SHARED] = Builds(application, builder.build)
    return found


ROUTES: "Routes" = (
    ("POST", "/grpc", serve),
    ("POST", "/session", session),
)
