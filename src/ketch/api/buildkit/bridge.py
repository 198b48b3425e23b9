"""BuildKit's LLBBridge service, by which a client asks the Dockerfile front end for results itself.

buildx does so for every build: it asks for a result, or something about the Dockerfile, and says in
the end which result its waiting Solve is to export. All calls carry the build's name as metadata.
A result here is what was asked for; it is built when it is exported, or to be evaluated.
Source: moby/buildkit, frontend/gateway/pb/gateway.proto, frontend/gateway/gateway.go.
"""

import os
from typing import TYPE_CHECKING, Any

from ketch.api.buildkit import asking, grpc, llb, schema, subrequests, workers
from ketch.api.buildkit.asking import Asked
from ketch.api.buildkit.builds import failure
from ketch.api.buildkit.control import inputs
from ketch.api.buildkit.grpc import StatusError
from ketch.build.graph import Remark
from ketch.build.progress import Warned
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    UnsupportedError,
)
from ketch.spec.dockerfile.errors import Place

if TYPE_CHECKING:
    from ketch.api.buildkit.builds import Build, Builds
    from ketch.api.buildkit.grpc import Call, Handler

BUILD_ID = "buildkit-controlapi-buildid"
_SERVICE = "moby.buildkit.v1.frontend.LLBBridge"
_RESULTS_MAX = 100
"""How many results one build may ask for."""


class Bridge:
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
            "Ping": self.ping,
            "Solve": self.solve,
            "Return": self.return_,
            "Evaluate": self.evaluate,
            "Inputs": self.inputs,
            "Warn": self.warn,
            "ReadFile": self.read_file,
            "StatFile": self.stat_file,
        })  # fmt: skip

    async def ping(self, call: "Call") -> None:
        """Say what can be asked here."""
        await call.request(self._words.PingRequest)
        await self._build(call)
        answer = self._words.PongResponse(
            FrontendAPICaps=workers.abilities(workers.BRIDGE),
            LLBCaps=workers.abilities(workers.BUILDS),
            Workers=[await self._builds.application.run(workers.record)],
        )
        await call.send(answer)

    async def solve(self, call: "Call") -> None:
        """Ask for a result, or, by ``requestid``, about the Dockerfile."""
        message = await call.request(self._words.BridgeSolveRequest)
        build = await self._build(call)
        if getattr(message.definition, "def"):
            source = llb.source_of(message.definition, "what is asked for")
            name = self._named(build)
            build.sources[name] = source
            result = self._words.Result(ref=self._words.Ref(id=name))
            await call.send(self._words.BridgeSolveResponse(result=result))
            return
        asked = Asked(
            attributes=dict(message.FrontendOpt),
            frontend=message.Frontend,
            inputs=inputs(message.FrontendInputs),
            cache_from=[(one.Type, dict(one.Attrs)) for one in message.CacheImports],
        )
        try:
            asking.check_frontend(asked)
            await self._builds.take_in(build, asked)
            result = await self._result(build, asked)
            if message.Evaluate and result.ref.id:
                await self._evaluate(build, result.ref.id)
        except (KetchError, OSError) as error:
            raise failure(error) from error
        await call.send(self._words.BridgeSolveResponse(result=result))

    async def _result(self, build: "Build", asked: Asked) -> Any:
        about = asked.attributes.get("requestid", "")
        if about == subrequests.DESCRIBE:
            return self._words.Result(metadata=subrequests.described())
        if about:
            answer = await self._builds.answer(build, asked, subrequests.question(about))
            return self._words.Result(metadata=subrequests.answered(about, answer))
        name = self._named(build)
        build.results[name] = asked
        self._builds.keep(name, asked, build.session)
        graph = llb.definition(f"{llb.RESULT_SCHEME}://{name}")
        return self._words.Result(ref=self._words.Ref(**{"id": name, "def": graph}))

    def _named(self, build: "Build") -> str:
        if len(build.results) + len(build.sources) >= _RESULTS_MAX:
            raise ConflictError(f"a build asks for more than {_RESULTS_MAX} results")
        return os.urandom(12).hex()

    async def read_file(self, call: "Call") -> None:
        """Read a file of a source that was asked for by itself."""
        message = await call.request(self._words.ReadFileRequest)
        data = await self._read(call, message.Ref, message.FilePath)
        if message.HasField("Range"):
            first = max(message.Range.Offset, 0)
            data = data[first : first + message.Range.Length] if message.Range.Length > 0 else b""
        await call.send(self._words.ReadFileResponse(Data=data))

    async def stat_file(self, call: "Call") -> None:
        """Tell of a file of a source that was asked for by itself."""
        message = await call.request(self._words.StatFileRequest)
        data = await self._read(call, message.Ref, message.Path)
        stat = self._words.FileStat(path=message.Path, mode=0o644, size=len(data))
        await call.send(self._words.StatFileResponse(stat=stat))

    async def _read(self, call: "Call", name: str, path: str) -> bytes:
        build = await self._build(call)
        if name not in build.sources:
            raise UnsupportedError("reading files of what a Dockerfile comes to")
        try:
            return await self._builds.read(build, build.sources[name], path.lstrip("/"))
        except (KetchError, OSError) as error:
            raise failure(error) from error

    async def return_(self, call: "Call") -> None:
        """Take what the waiting Solve is to export, or why there is nothing."""
        message = await call.request(self._words.ReturnRequest)
        build = await self._build(call)
        if build.returned.done():
            raise ConflictError("the build has returned already")
        if message.error.code:
            error = message.error
            build.returned.set_exception(
                StatusError(error.code, error.message, list(error.details))
            )
            build.returned.exception()  # it is heard of, if by nobody else
        else:
            build.returned.set_result(self._chosen(build, message.result))
        await call.send(self._words.ReturnResponse())

    def _chosen(self, build: "Build", result: Any) -> Asked | None:
        kind = result.WhichOneof("result")
        names = {
            None: [],
            "ref": [result.ref.id],
            "refDeprecated": [result.refDeprecated],
            "refs": [one.id for one in result.refs.refs.values()],
            "refsDeprecated": list(result.refsDeprecated.refs.values()),
        }[kind]
        # Of a source by itself nothing is exported.
        names = [name for name in names if name and name not in build.sources]
        if not names:
            return None
        if len(names) > 1 or names[0] not in build.results:
            raise InvalidArgumentError("what is returned is no result of this build")
        return build.results[names[0]]

    async def evaluate(self, call: "Call") -> None:
        """Have a result be built."""
        message = await call.request(self._words.EvaluateRequest)
        build = await self._build(call)
        try:
            await self._evaluate(build, message.Ref)
        except (KetchError, OSError) as error:
            raise failure(error) from error
        await call.send(self._words.EvaluateResponse())

    async def _evaluate(self, build: "Build", name: str) -> None:
        if name not in build.results:
            raise NotFoundError(f"no such result {name[:100]}")
        await self._builds.run(build, build.results[name])

    async def inputs(self, call: "Call") -> None:
        """Say that there are no inputs but those that are given with what is asked for."""
        await call.request(self._words.InputsRequest)
        await call.send(self._words.InputsResponse())

    async def warn(self, call: "Call") -> None:
        """Take a warning of the client's own."""
        message = await call.request(self._words.WarnRequest)
        build = await self._build(call)
        first = message.ranges[0] if message.ranges else None
        place = Place(first.start.line, max(first.start.line, first.end.line)) if first else None
        finding = Remark(
            rule="",
            description=b"\n".join(message.detail).decode(errors="replace"),
            url=message.url,
            message=message.short.decode(errors="replace"),
            place=place,
        )
        info = message.info
        build.telling.tell(Warned(message.digest, finding, info.filename, info.data))
        await call.send(self._words.WarnResponse())

    async def _build(self, call: "Call") -> "Build":
        ref = call.value(BUILD_ID)
        if not ref:
            raise InvalidArgumentError("no buildid found in context")
        return await self._builds.get(ref)
