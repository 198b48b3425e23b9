"""Builds by BuildKit that are asked for by ``POST /build?version=2``, as before docker 23.

The query is the request, the session is found by its name, and the answer has BuildKit's status
messages in lines of JSON. A context that is an archive comes as the body, or, from clients that
read an answer only when their body has ended, as the body of another request of the same build.
Source: moby/moby, builder/builder-next/builder.go; docker/cli, cli/command/image/build_buildkit.go.
"""

import asyncio
import base64
import contextlib
import os
from typing import TYPE_CHECKING, Any, cast

from ketch.api import build_queries
from ketch.api.buildkit import asking, schema
from ketch.api.buildkit.builds import Upload
from ketch.api.buildkit.control import Control
from ketch.api.errors import message as message_of
from ketch.api.flows import Inlet, Outlet, line
from ketch.api.transfer import JSON
from ketch.errors import ConflictError, InvalidArgumentError, KetchError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import BinaryIO

    from ketch.api.buildkit.builds import Build, Builds
    from ketch.api.call import Call

_TRACE, _IMAGE = "moby.buildkit.trace", "moby.image.id"
_UPLOAD = f"{build_queries.UPLOADED}:"
_MEETING_SECONDS = 5.0
"""How long a build and its context wait for each other: moby's builder has the same."""


async def build(call: "Call", builds: "Builds") -> None:
    """Answer the request.

    Raises:
        KetchError: it is wrong, or its context does not come.
    """
    identifier = call.text("buildid")
    if identifier.startswith(_UPLOAD):
        await _upload(call, builds, identifier.removeprefix(_UPLOAD))
        return
    asked = _request(call)
    async with contextlib.AsyncExitStack() as held:
        inlet: Inlet | None = None
        body: BinaryIO | None = None
        if not call.text("remote"):
            inlet = Inlet(call)
            body = cast("BinaryIO", inlet)
        else:
            while await call.exchange.read():
                pass
            if call.text("remote") == build_queries.UPLOADED:
                body = await held.enter_async_context(_uploaded(builds, identifier))
        begun = held.enter_context(builds.begun(asked.Ref, asked.Session, body))
        solving = asyncio.ensure_future(Control(builds).answered(begun, asked))
        solving.add_done_callback(lambda _: begun.telling.end())
        watching = asyncio.ensure_future(_watch(call, inlet, solving))
        call.application.builds[identifier or asked.Ref] = solving.cancel
        try:
            await _tell(call, begun, solving)
        finally:
            call.application.builds.pop(identifier or asked.Ref, None)
            for task in (watching, solving):
                task.cancel()
            await asyncio.gather(watching, solving, return_exceptions=True)


async def _tell(call: "Call", begun: "Build", solving: "asyncio.Task[Any]") -> None:
    """Tell how a build goes, and what comes of it."""
    outlet = Outlet(call, JSON)
    async for message in begun.telling.messages():
        trace = base64.b64encode(schema.encode(message)).decode()
        await outlet.send(line({"id": _TRACE, "aux": trace}))
    try:
        await asyncio.wait((solving,))
        if solving.cancelled():
            raise UnavailableError("context canceled")
        found = solving.result()
        if name := found.get("containerimage.config.digest"):
            await outlet.send(line({"id": _IMAGE, "aux": {"ID": name}}))
    except (KetchError, OSError) as error:
        if not call.exchange.status:
            raise
        text = message_of(error)
        await outlet.send(line({"errorDetail": {"message": text}, "error": text}))
    await outlet.end()


async def _watch(call: "Call", inlet: Inlet | None, solving: "asyncio.Task[Any]") -> None:
    """Have the build end when its client has left, once all of the request is read."""
    if inlet is not None:
        await inlet.ended.wait()
    await call.exchange.gone()
    solving.cancel()


def _request(call: "Call") -> Any:
    """Returns the query as a Solve request."""
    words = schema.messages("control")
    output = build_queries.output(call)
    inline = [words.CacheOptionsEntry(Type="inline")] if build_queries.caches_inline(call) else []
    return words.SolveRequest(
        Ref=os.urandom(12).hex(),
        Session=call.text("session"),
        Frontend=asking.DOCKERFILE,
        FrontendAttrs=build_queries.attributes(call, f"{asking.UPLOADS}body"),
        Exporters=[words.Exporter(Type=output[0], Attrs=output[1])] if output else [],
        Cache=words.CacheOptions(Exports=inline),
        Entitlements=["network.host"] if call.text("networkmode") == "host" else [],
    )


async def _upload(call: "Call", builds: "Builds", name: str) -> None:
    """Give a build the body of this request as its context; answer when it wants no more of it."""
    upload = builds.uploads.setdefault(name, Upload())
    if upload.stream.done():
        raise ConflictError(f"build {name[:100]} has a context already")
    upload.stream.set_result(cast("BinaryIO", Inlet(call)))
    try:
        async with asyncio.timeout(_MEETING_SECONDS):
            await upload.taken.wait()
    except TimeoutError:
        raise UnavailableError(f"no build {name[:100]} has come for its context") from None
    finally:
        builds.uploads.pop(name, None)
    await upload.read.wait()
    await call.reply(200)


@contextlib.asynccontextmanager
async def _uploaded(builds: "Builds", name: str) -> "AsyncIterator[BinaryIO]":
    """Give the context that another request brings, for a block."""
    if not name:
        raise InvalidArgumentError("a build whose context is uploaded needs a buildid")
    upload = builds.uploads.setdefault(name, Upload())
    try:
        async with asyncio.timeout(_MEETING_SECONDS):
            stream = await asyncio.shield(upload.stream)
    except TimeoutError:
        raise UnavailableError(f"the context of build {name[:100]} has not come") from None
    finally:
        builds.uploads.pop(name, None)
    upload.taken.set()
    try:
        yield stream
    finally:
        upload.read.set()
