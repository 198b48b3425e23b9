"""Routes of building, as Docker's clients without BuildKit ask for it, and of the build cache."""

import asyncio
import re
from typing import TYPE_CHECKING, cast

from ketch.api import build_queries, transfer
from ketch.api.flows import Inlet, Outlet
from ketch.api.leaving import Leaving
from ketch.build.progress import Log, VertexState, Warned
from ketch.build.request import Request
from ketch.errors import InvalidArgumentError
from ketch.spec import reference as references

if TYPE_CHECKING:
    from typing import BinaryIO

    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.build.cache.pruning import Pruned
    from ketch.build.progress import Event
    from ketch.engine.engine import Engine

_STEP = re.compile(
    r"\[(?:(?P<stage>[^\]]*?) )?(?P<number>\d+)/(?P<total>\d+)\] (?P<text>.*)", re.DOTALL
)


class _Told:
    """A build's events as lines of JSON, as dockerd's classic builder has them.

    Args:
        outlet: where they go.
        quiet: whether only the image's ID is told.
    """

    def __init__(self, outlet: Outlet, *, quiet: bool) -> None:
        self._outlet = outlet
        self._quiet = quiet
        self._begun: set[str] = set()

    def take(self, event: "Event") -> None:
        """Tell an event."""
        if self._quiet:
            return
        if isinstance(event, Log):
            self.say(event.data.decode("utf-8", "replace"))
        elif isinstance(event, Warned):
            self.say(f"[Warning] {event.warning.rule}: {event.warning.message}\n")
        elif isinstance(event, VertexState) and (step := _STEP.fullmatch(event.name)):
            self._step(event, step)

    def _step(self, event: VertexState, step: "re.Match[str]") -> None:
        if event.started_ns and event.id not in self._begun:
            self._begun.add(event.id)
            self.say(f"Step {step['number']}/{step['total']} : {step['text']}\n")
        if event.completed_ns and event.cached:
            self.say(" ---> Using cache\n")

    def say(self, text: str) -> None:
        """Send a piece of text."""
        self._outlet.tell({"stream": text})


async def build(call: "Call") -> None:
    """Answer ``POST /build``."""
    if call.text("version") == "2":
        from ketch.api.buildkit import entrance  # noqa: PLC0415 - h2, protobuf: for who asks

        await entrance.build(call)
        return
    inlet = Inlet(call)
    request = build_queries.request(call, cast("BinaryIO", inlet))
    if call.text("remote"):  # else the builder reads the body
        while await call.exchange.read():
            pass
        inlet.ended.set()
    quiet = call.flag("q")
    identifier = call.text("buildid")
    with Leaving() as patience:
        cancellations = call.application.builds
        if identifier:
            cancellations[identifier] = patience.leave
        told = asyncio.ensure_future(_tell(call, request, patience, inlet, quiet=quiet))
        try:
            await asyncio.shield(told)
        except asyncio.CancelledError:
            patience.leave()
            await asyncio.wait((told,))
            raise
        finally:
            cancellations.pop(identifier, None)


async def _tell(
    call: "Call", request: Request, patience: Leaving, inlet: Inlet, *, quiet: bool
) -> None:
    """Build, and tell of it; what fails after the first line is told in one more."""
    watching = asyncio.ensure_future(_watch(call, patience, inlet))

    def work(engine: "Engine", outlet: Outlet) -> None:
        from ketch.build import builder  # noqa: PLC0415 - whoever builds pays for it

        told = _Told(outlet, quiet=quiet)
        result = builder.build(engine, request, told.take, patience=patience)
        outlet.tell({"aux": {"ID": result.image_id}})
        if quiet:
            told.say(f"{result.image_id}\n")
            return
        if result.warning:
            told.say(result.warning)
        told.say(f"Successfully built {result.image_id.partition(':')[2][:12]}\n")
        for name in request.tags:
            told.say(f"Successfully tagged {references.parse(name).tagged().familiar}\n")

    try:
        await transfer.told(call, work)
    finally:
        watching.cancel()
        await asyncio.wait((watching,))


async def _watch(call: "Call", patience: Leaving, inlet: Inlet) -> None:
    """Have the build end when its client has left, once all of the request is read."""
    await inlet.ended.wait()
    await call.exchange.gone()
    patience.leave()


async def cancel(call: "Call") -> None:
    """Answer ``POST /build/cancel``: by the identifier that the client gave its build."""
    identifier = call.text("id")
    if not identifier:
        raise InvalidArgumentError("build ID not provided")
    if end := call.application.builds.get(identifier):
        end()
    await call.reply(204)


async def prune(call: "Call") -> None:
    """Answer ``POST /build/prune``."""
    sizes = {
        "keep_bytes": call.number("reserved-space") or call.number("keep-storage") or 0,
        "most_bytes": call.number("max-used-space") or 0,
        "free_bytes": call.number("min-free-space") or 0,
    }
    pruned = await call.run_slowly(_prune, call.filters_given(), call.flag("all"), sizes)
    deleted = pruned.ids or None
    await call.reply(200, {"CachesDeleted": deleted, "SpaceReclaimed": pruned.freed_bytes})


def _prune(engine: "Engine", pairs: list[str], every: bool, sizes: dict[str, int]) -> "Pruned":
    from ketch.build.cache import pruning  # noqa: PLC0415 - whoever builds pays for it

    return pruning.prune(engine, pairs, all=every, **sizes)


ROUTES: "Routes" = (
    ("POST", "/build", build),
    ("POST", "/build/cancel", cancel),
    ("POST", "/build/prune", prune),
)
