"""BuildKit's Control service: builds, how they go, what their cache takes up, what is here.

Source: moby/buildkit, api/services/control/control.proto, control/control.go.
"""

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, Any

from ketch import __version__
from ketch.api.buildkit import caching, grpc, llb, schema, workers
from ketch.api.buildkit.asking import Asked
from ketch.api.buildkit.builds import Record, failure
from ketch.api.buildkit.grpc import Code, StatusError
from ketch.api.buildkit.telling import timestamp
from ketch.dataclass import replace
from ketch.errors import KetchError, NotFoundError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.api.buildkit.builds import Build, Builds
    from ketch.api.buildkit.grpc import Call, Handler
    from ketch.build.request import Result

_SERVICE = "moby.buildkit.v1.Control"
_COMPLETE = 1  # BuildHistoryEventType


class Control:
    """The service.

    Args:
        builds: the server's.
    """

    def __init__(self, builds: "Builds") -> None:
        self._builds = builds
        self._words = schema.messages("control")

    def methods(self) -> "dict[str, Handler]":
        """Returns what answers which path."""
        return grpc.paths(_SERVICE, {
            "Solve": self.solve,
            "Status": self.status,
            "DiskUsage": self.disk_usage,
            "Prune": self.prune,
            "Info": self.info,
            "ListWorkers": self.list_workers,
            "ListenBuildHistory": self.listen_build_history,
            "UpdateBuildHistory": self.update_build_history,
        })  # fmt: skip

    async def solve(self, call: "Call") -> None:
        """Build what is asked for, or what a client's own front end returns."""
        asked = await call.request(self._words.SolveRequest)
        if asked.SourcePolicy:
            raise UnsupportedError(
                "a source policy", "leave out EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"
            )
        with self._builds.begun(asked.Ref, asked.Session) as build:
            response = await self.answered(build, asked)
        await call.send(self._words.SolveResponse(ExporterResponse=response))

    async def answered(self, build: "Build", message: Any) -> "Mapping[str, str]":
        """Have a build go its way, and be remembered; returns what its exporters answer.

        Args:
            build: which.
            message: a ``SolveRequest``.

        Raises:
            StatusError: it failed.
        """
        asked = _asked(message)
        response: dict[str, str] = {}
        error: StatusError | None = None
        try:
            if not message.Frontend:
                if getattr(message.definition, "def"):
                    llb.source_of(message.definition, "what is to be built")
                    raise UnsupportedError("a build without a front end: an LLB graph by itself")
                chosen = await build.returned
                if chosen is None:
                    return response
                asked = _exported(chosen, asked)
            response = exporter_response(await self._builds.run(build, asked))
        except (KetchError, OSError) as failed:
            error = failure(failed)
            raise error from failed
        except asyncio.CancelledError:
            error = StatusError(Code.CANCELLED, "context canceled")
            raise
        finally:
            if not message.Internal and asked.attributes:
                self._builds.remember(_record(build, asked, error, response))
        return response

    async def status(self, call: "Call") -> None:
        """Tell how a build goes, until its end; of one that has ended, how it went."""
        asked = await call.request(self._words.StatusRequest)
        telling = await self._builds.telling(asked.Ref)
        async for message in telling.messages():
            await call.send(message)

    async def disk_usage(self, call: "Call") -> None:
        """Tell what the cache holds."""
        asked = await call.request(self._words.DiskUsageRequest)
        await call.send(await self._builds.application.run_slowly(caching.listed, asked))

    async def prune(self, call: "Call") -> None:
        """Remove what the cache holds, and tell of it."""
        asked = await call.request(self._words.PruneRequest)
        await call.send(*await self._builds.application.run_slowly(caching.pruned, asked))

    async def info(self, call: "Call") -> None:
        """Say what this is."""
        await call.request(self._words.InfoRequest)
        version = self._words.BuildkitVersion(package="ketch", version=f"v{__version__}")
        await call.send(self._words.InfoResponse(buildkitVersion=version))

    async def list_workers(self, call: "Call") -> None:
        """Tell who builds: ketch, for which platforms."""
        await call.request(self._words.ListWorkersRequest)
        record = await self._builds.application.run(workers.record)
        await call.send(self._words.ListWorkersResponse(record=[record]))

    async def listen_build_history(self, call: "Call") -> None:
        """Tell of the latest builds that have ended, and, unless asked to leave, of those to come.

        They are those since the server began.
        """
        asked = await call.request(self._words.BuildHistoryRequest)
        told: set[str] = set()
        while True:
            for record in self._builds.history:
                if record.ref in told or (asked.Ref and record.ref != asked.Ref):
                    continue
                told.add(record.ref)
                if not asked.ActiveOnly:
                    event = self._words.BuildHistoryEvent(
                        type=_COMPLETE, record=self._history(record)
                    )
                    await call.send(event)
            if asked.EarlyExit:
                await call.send()  # so that there are headers, even of nothing
                return
            await asyncio.sleep(1)

    async def update_build_history(self, call: "Call") -> None:
        """Forget a build."""
        asked = await call.request(self._words.UpdateBuildHistoryRequest)
        found = [one for one in self._builds.history if one.ref == asked.Ref]
        if not found:
            raise NotFoundError(f"failed to retrieve build {asked.Ref[:200]}")
        if asked.Pinned:
            raise UnsupportedError("pinned builds: what is known of builds ends with the server")
        if asked.Delete:
            for one in found:
                self._builds.history.remove(one)
        await call.send(self._words.UpdateBuildHistoryResponse())

    def _history(self, record: Record) -> Any:
        error, steps = record.error, record.telling.steps
        return self._words.BuildHistoryRecord(
            Ref=record.ref,
            Frontend=record.asked.frontend,
            FrontendAttrs=record.asked.attributes,
            Exporters=[
                self._words.Exporter(Type=kind, Attrs=attributes)
                for kind, attributes in record.asked.outputs
            ],
            error=self._words.Status(code=error.code, message=error.message) if error else None,
            CreatedAt=timestamp(record.began_ns),
            CompletedAt=timestamp(record.ended_ns),
            ExporterResponse=record.response,
            numTotalSteps=len(steps),
            numCompletedSteps=len(steps),
            numCachedSteps=sum(steps.values()),
            numWarnings=len(record.telling.warnings),
        )


def exporter_response(result: "Result") -> dict[str, str]:
    """Returns what a build came to as a client is told: texts, what is none as JSON in base64.

    Source: moby/buildkit, exporter/containerimage/exptypes, client/solve.go.
    """
    found: dict[str, str] = {}
    for name, value in result.metadata.items():
        if isinstance(value, str):
            found[name] = value
        else:
            document = json.dumps(value, separators=(",", ":")).encode()
            found[name] = base64.b64encode(document).decode()
    return found


def _asked(message: Any) -> Asked:
    """Returns what a Solve request says by itself."""
    outputs = [(one.Type, dict(one.Attrs)) for one in message.Exporters]
    if not outputs and message.ExporterDeprecated:
        outputs = [(message.ExporterDeprecated, dict(message.ExporterAttrsDeprecated))]
    cache = message.Cache
    exports = _places(cache.Exports)
    if cache.ExportRefDeprecated:
        old = {**cache.ExportAttrsDeprecated, "ref": cache.ExportRefDeprecated}
        exports = [*exports, ("registry", old)]
    imports = [("registry", {"ref": one}) for one in cache.ImportRefsDeprecated]
    return Asked(
        attributes=dict(message.FrontendAttrs),
        frontend=message.Frontend,
        inputs=inputs(message.FrontendInputs),
        outputs=outputs,
        cache_from=[*_places(cache.Imports), *imports],
        cache_to=exports,
        entitlements=list(message.Entitlements),
    )


def inputs(graphs: "Mapping[str, Any]") -> dict[str, llb.Source]:
    """Returns what a front end's inputs are.

    Raises:
        UnsupportedError: one is no single source.
    """
    return {name: llb.source_of(graph, f"input {name[:200]!a}") for name, graph in graphs.items()}


def _places(entries: "Sequence[Any]") -> "list[tuple[str, Mapping[str, str]]]":
    return [(one.Type, dict(one.Attrs)) for one in entries]


def _exported(chosen: Asked, waiting: Asked) -> Asked:
    """Returns what a client's front end chose, to be exported as the waiting Solve says."""
    return replace(
        chosen,
        outputs=waiting.outputs,
        cache_from=[*chosen.cache_from, *waiting.cache_from],
        cache_to=waiting.cache_to,
        entitlements=waiting.entitlements,
    )


def _record(
    build: "Build", asked: Asked, error: StatusError | None, response: dict[str, str]
) -> Record:
    return Record(
        ref=build.ref,
        asked=asked,
        began_ns=build.began_ns,
        ended_ns=time.time_ns(),
        error=error,
        response=response,
        telling=build.telling,
    )
