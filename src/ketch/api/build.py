"""Routes of building, as Docker's clients without BuildKit ask for it, and of the build cache."""

import asyncio
import base64
import binascii
import os
import re
from typing import TYPE_CHECKING, cast

from ketch.api import transfer
from ketch.api.documents import conform
from ketch.api.encoding import parse
from ketch.api.flows import Inlet, Outlet
from ketch.api.leaving import Leaving
from ketch.build.addresses import remote
from ketch.build.progress import Log, VertexState, Warned
from ketch.build.request import MAIN_CONTEXT, Archive, CachePlace, Request
from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.images.registry.credentials import Credentials, bare_host, key_of
from ketch.spec import reference as references
from ketch.spec import values

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

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
        raise UnsupportedError(
            "BuildKit's sessions are served at /session and /grpc, not at /build: "
            "use docker 23 or later, or DOCKER_BUILDKIT=0"
        )
    inlet = Inlet(call)
    request = _request(call, inlet)
    if call.text("remote"):  # else the builder reads the body
        while await call.exchange.read():
            pass
        inlet.ended.set()
    quiet = call.flag("q")
    identifier = call.text("buildid")
    with Leaving() as patience:
        cancellations = call.application.builds
        if identifier:
            cancellations[identifier] = patience
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


def _request(call: "Call", inlet: Inlet) -> Request:
    """Read the query and the headers.

    Raises:
        InvalidArgumentError: something in them is malformed.
    """
    address = call.text("remote")
    context = remote(address) if address else Archive(cast("BinaryIO", inlet), owned=False)
    if context is None:
        raise InvalidArgumentError(f"remote {address[:200]!r} is neither a Git nor an HTTP address")
    shm_size_bytes = call.number("shmsize") or 0
    if shm_size_bytes < 0:
        raise InvalidArgumentError("SHM size can not be less than 0")
    network = call.text("networkmode")
    return Request(
        contexts={MAIN_CONTEXT: context},
        dockerfile=call.text("dockerfile") or "Dockerfile",
        target=call.text("target"),
        platforms=[call.text("platform")] if call.text("platform") else (),
        build_args=_document(call, "buildargs", dict[str, str | None]) or {},
        labels=_document(call, "labels", dict[str, str]) or {},
        tags=[references.new_name(text, "a tag cannot have a digest").familiar
              for text in call.texts("t") if text],
        no_cache=call.flag("nocache"),
        pull=call.flag("pull"),
        network="default" if network in {"", "default", "bridge"} else network,
        add_hosts=[one for text in call.texts("extrahosts") for one in _hosts(text)],
        shm_size_bytes=shm_size_bytes,
        ulimits=_ulimits(call),
        cgroup_parent=call.text("cgroupparent"),
        limits=_limits(call),
        entitlements=("network.host",) if network == "host" else (),
        cache_from=[CachePlace("registry", {"ref": name})
                    for name in _document(call, "cachefrom", list[str]) or ()],
        squash=call.flag("squash"),
        environment=os.environ,
        credentials=_credentials(call.exchange.headers.get("x-registry-config", "")),
    )  # fmt: skip


def _document(call: "Call", name: str, wanted: object) -> "Any":
    """Returns a field of the query that is JSON, None where it is missing."""
    text = call.text(name)
    return conform(parse(text.encode()), wanted, name) if text else None


def _hosts(text: str) -> list[str]:
    """Docker's clients send a list with commas, docker-py a map in JSON."""
    if text.startswith("{"):
        found = conform(parse(text.encode()), dict[str, str], "extrahosts")
        return [f"{name}:{address}" for name, address in found.items()]
    return [one for one in text.split(",") if one]


def _ulimits(call: "Call") -> list[str]:
    found = _document(call, "ulimits", list[dict[str, object]]) or ()
    limits = []
    for one in found:
        small = {name.lower(): value for name, value in one.items()}
        soft, hard = small.get("soft"), small.get("hard")
        if not isinstance(soft, int) or not isinstance(hard, int):
            raise InvalidArgumentError("ulimits: Soft and Hard must be numbers")
        text = f"{small.get('name')}={soft}:{hard}"
        values.ulimit(text)
        limits.append(text)
    return limits


def _limits(call: "Call") -> dict[str, object]:
    numbers = {
        "CpuPeriod": "cpuperiod", "CpuQuota": "cpuquota", "CpuShares": "cpushares",
        "Memory": "memory", "MemorySwap": "memswap",
    }  # fmt: skip
    found: dict[str, object] = {key: call.number(name) for key, name in numbers.items()}
    found |= {"CpusetCpus": call.text("cpusetcpus"), "CpusetMems": call.text("cpusetmems")}
    return {name: value for name, value in found.items() if value}


def _credentials(text: str) -> "Callable[[str], Credentials]":
    """Read ``X-Registry-Config``: who the client is, by registry.

    Raises:
        InvalidArgumentError: it is malformed.
    """
    known: dict[str, Credentials] = {}
    if text:
        try:
            content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError) as error:
            raise InvalidArgumentError(f"invalid X-Registry-Config: {error}") from error
        configured = conform(parse(content), dict[str, transfer.AuthConfig], "X-Registry-Config")
        for place, found in (configured or {}).items():
            known[key_of(bare_host(place))] = transfer.from_document(found)
    return lambda host: known.get(key_of(host), Credentials())


async def cancel(call: "Call") -> None:
    """Answer ``POST /build/cancel``: by the identifier that the client gave its build."""
    identifier = call.text("id")
    if not identifier:
        raise InvalidArgumentError("build ID not provided")
    if patience := call.application.builds.get(identifier):
        patience.leave()
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
