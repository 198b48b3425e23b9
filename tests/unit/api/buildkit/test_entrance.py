"""BuildKit's API on a server, with a client that is as buildx is and a builder that is none."""

import asyncio
import contextlib
import http.server
import json
import os
import pathlib
import socket as sockets
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from ketch.api.application import Application
from ketch.api.buildkit import builds as builds_module
from ketch.api.buildkit import grpc, posted, schema, sessions
from ketch.api.buildkit.builds import Builds
from ketch.api.buildkit.client import FILE_SEND, FILE_SYNC
from ketch.api.buildkit.grpc import Call, Code, StatusError
from ketch.api.buildkit.receiving import Receiver
from ketch.api.buildkit.sending import Sender
from ketch.api.listeners import Tls, listen
from ketch.api.server import Server
from ketch.build.progress import Log, Progress, Status, VertexState
from ketch.build.request import Archive, Request, Result, SessionDirectory
from ketch.engine.engine import Engine
from ketch.engine.processes import Patience
from ketch.engine.settings import Settings
from ketch.errors import KetchError, NotFoundError, UnavailableError
from ketch.spec.dockerfile.errors import DockerfileError, Place, Source
from tests.unit.api.buildkit.buildx import BRIDGE, CONTROL, ask, dialled, files, session, words
from tests.unit.api.buildkit.buildx import upgraded as upgraded_

Solve = Callable[[Engine, Request, Progress, Patience], Result]
Handler = Callable[[Call], Awaitable[None]]


@contextlib.asynccontextmanager
async def served(directory: pathlib.Path, solve: Solve) -> AsyncIterator[str]:
    """Serve an engine whose builder is ``solve``."""
    application = Application(Settings(str(directory / "root"), str(directory / "state")), "warn")
    application.shared["buildkit"] = Builds(application, solve)
    path = str(directory / "api.sock")
    listener = listen(f"unix://{path}", Tls(), "root", lambda _: None)
    task = asyncio.create_task(Server(application, [listener], 0).run())
    try:
        yield path
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def run(directory: pathlib.Path, solve: Solve, test: Callable[[str], Awaitable[None]]) -> None:
    async def main() -> None:
        async with served(directory, solve) as socket:
            await asyncio.wait_for(test(socket), 30)

    asyncio.run(main())


def nothing(_engine: Engine, _request: Request, _progress: Progress, _: Patience) -> Result:
    return Result(metadata={"containerimage.digest": "sha256:1", "other": {"a": 1}})


async def build(
    socket: str, name: str = "ref", attributes: dict[str, str] | None = None, **more: Any
) -> tuple[dict[str, str], list[Any]]:
    """Build as buildx does; return what is answered, and how it went."""
    asked = words.SolveRequest(Ref=name, Session="s", **more)
    async with dialled(socket) as connection, asyncio.TaskGroup() as group:
        solving = group.create_task(ask(connection, CONTROL + "Solve", asked, words.SolveResponse))
        telling = group.create_task(
            ask(connection, CONTROL + "Status", words.StatusRequest(Ref=name), words.StatusResponse)
        )
        await ask(connection, BRIDGE + "Ping", words.PingRequest(), words.PongResponse, name)
        wanted = words.BridgeSolveRequest(
            Frontend="dockerfile.v0", FrontendOpt=attributes or {"filename": "Dockerfile"}
        )
        [chosen] = await ask(connection, BRIDGE + "Solve", wanted, words.BridgeSolveResponse, name)
        await ask(
            connection, BRIDGE + "Return", words.ReturnRequest(result=chosen.result),
            words.ReturnResponse, name,
        )  # fmt: skip
        [answer] = await solving
        return dict(answer.ExporterResponse), await telling


def _sync(directory: pathlib.Path, asked: list[dict[str, list[str]]]) -> Handler:
    """The client's side of file sync."""

    async def handle(call: Call) -> None:
        named: dict[str, list[str]] = {}
        for key, value in call._metadata:
            named.setdefault(key, []).append(value)
        asked.append(named)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sender = Sender(descriptor)
            for packets in sender.names():
                await call.send_encoded(packets)
            while not sender.is_finished:
                for message in await call.receive():
                    for packet in sender.take(message):
                        await call.send_encoded(packet)
        finally:
            os.close(descriptor)

    return handle


async def _secret(call: Call) -> None:
    asked = await call.request(files.GetSecretRequest)
    if asked.ID != "known":
        raise NotFoundError("secret not found")
    await call.send(files.GetSecretResponse(data=b"it"))


async def _credentials(call: Call) -> None:
    asked = await call.request(files.CredentialsRequest)
    await call.send(files.CredentialsResponse(Username=asked.Host, Secret="p"))


async def _health(call: Call) -> None:
    await call.send(files.HealthCheckResponse(status=1))


SECRETS: dict[str, Handler] = {
    "/moby.buildkit.secrets.v1.Secrets/GetSecret": _secret,
    "/moby.filesync.v1.Auth/Credentials": _credentials,
    "/grpc.health.v1.Health/Check": _health,
}


def test_a_build_gets_files_secrets_and_credentials_and_tells_how_it_goes(
    tmp_path: pathlib.Path,
) -> None:
    source, kept = tmp_path / "source", tmp_path / "kept"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "ä").write_bytes(b"x" * 1_000_000)
    (source / "Dockerfile").write_text("FROM scratch")
    kept.mkdir()
    got: dict[str, Any] = {}

    def solve(_engine: Engine, request: Request, progress: Progress, _: Patience) -> Result:
        context = request.contexts["context"]
        assert isinstance(context, SessionDirectory)
        got["key"] = context.session.key
        directory = os.open(kept, os.O_RDONLY)
        context.session.fetch(context.name, directory, include=["ä*"], exclude=["*.o", "!a b"])
        os.close(directory)
        assert request.secrets is not None
        assert request.credentials is not None
        got["secrets"] = [request.secrets.get(one) for one in ("known", "unknown")]
        got["user"] = request.credentials("registry.example").user
        progress(VertexState("sha256:1", "[1/1] FROM x", started_ns=1_000_000_001))
        progress(Status("sha256:1", "transferring", 3, 4, 5))
        progress(Log("sha256:1", 2, b"said", 6))
        progress(VertexState("sha256:1", "[1/1] FROM x", started_ns=1_000_000_001,
                             completed_ns=2, cached=True))  # fmt: skip
        return nothing(_engine, request, progress, _)

    asked: list[dict[str, list[str]]] = []

    async def test(socket: str) -> None:
        methods = {FILE_SYNC: _sync(source, asked), **SECRETS}
        async with session(socket, "s", methods, "key"):
            answer, told = await build(
                socket, Exporters=[words.Exporter(Type="moby", Attrs={"name": "x"})]
            )
            assert answer == {
                "containerimage.digest": "sha256:1", "other": "eyJhIjoxfQ==",
            }  # fmt: skip
            vertexes = [one for message in told for one in message.vertexes]
            assert [(one.name, one.cached) for one in vertexes] == [
                ("[1/1] FROM x", False), ("[1/1] FROM x", True),
            ]  # fmt: skip
            assert (vertexes[0].started.seconds, vertexes[0].started.nanos) == (1, 1)
            [log] = [one for message in told for one in message.logs]
            assert (log.stream, log.msg) == (2, b"said")
            [status] = [one for message in told for one in message.statuses]
            assert (status.ID, status.current, status.total) == ("transferring", 3, 4)
            async with dialled(socket) as connection:
                request = words.BuildHistoryRequest(EarlyExit=True)
                path = CONTROL + "ListenBuildHistory"
                [event] = await ask(connection, path, request, words.BuildHistoryEvent)
                assert event.record.Ref == "ref"
                assert event.record.numCachedSteps == 1

    run(tmp_path, solve, test)
    assert got == {"key": "key", "secrets": [b"it", None], "user": "registry.example"}
    assert (kept / "sub" / "ä").read_bytes() == b"x" * 1_000_000
    assert asked[0]["dir-name"] == ["context"]
    assert asked[0]["include-patterns"] == ["%C3%A4%2A"]
    assert asked[0]["include-patterns-encoded"] == ["1"]
    assert asked[0]["exclude-patterns"] == ["*.o", "!a b"]


def test_results_go_to_the_client_as_archives_and_as_files(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    written: dict[str, bytes] = {}

    def solve(_engine: Engine, request: Request, _progress: Progress, _: Patience) -> Result:
        archive, directory = request.outputs
        assert archive.stream is not None
        for _number in range(10):
            archive.stream.write(b"a" * 100_000)
        path = pathlib.Path(directory.directory)
        (path / "d").mkdir()
        (path / "d" / "file").write_text("content")
        (path / "link").symlink_to("/etc/passwd")
        return Result()

    async def send(call: Call) -> None:
        number = call.value("buildkit-attachable-exporter-id")
        if number == "0":
            parts = []
            while messages := await call.receive():
                parts += [schema.decode(files.BytesMessage, one).data for one in messages]
            written[number] = b"".join(parts)
            return
        descriptor = os.open(target, os.O_RDONLY)
        with Receiver(descriptor) as receiver:
            while messages := await call.receive():
                for message in messages:
                    if packets := receiver.take(message):
                        await call.send_encoded(packets)
        os.close(descriptor)

    async def test(socket: str) -> None:
        async with session(socket, "s", {FILE_SEND: send}):
            await build(socket, Exporters=[
                words.Exporter(Type="oci", Attrs={"dest": "x"}), words.Exporter(Type="local"),
            ])  # fmt: skip

    run(tmp_path, solve, test)
    assert written == {"0": b"a" * 1_000_000}
    assert (target / "d" / "file").read_text() == "content"
    assert os.readlink(target / "link") == "/etc/passwd"
    assert list((tmp_path / "root" / "builds").iterdir()) == []


def test_a_failure_is_told_with_the_lines_that_are_to_blame(tmp_path: pathlib.Path) -> None:
    def solve(_engine: Engine, _request: Request, _progress: Progress, _: Patience) -> Result:
        source = Source("Dockerfile", b"FROM a\nRUN b\n")
        place = Place(2, 2)
        raise DockerfileError("exit code: 1", places=[place], source=source)

    async def test(socket: str) -> None:
        async with session(socket, "s", {}):
            with pytest.raises(BaseExceptionGroup) as raised:
                await build(socket)
            [error] = [one for one in raised.value.exceptions if isinstance(one, StatusError)]
            assert (error.code, error.message) == (Code.UNKNOWN, "exit code: 1")
            [detail] = error.details
            assert detail.type_url == "github.com/moby/buildkit/errdefs.Source+json"
            assert b'"ranges": [{"start": {"line": 2}' in detail.value

    run(tmp_path, solve, test)


def test_a_session_that_goes_ends_what_waits_for_it(tmp_path: pathlib.Path) -> None:
    waiting = threading.Event()
    raised: list[BaseException] = []

    def solve(_engine: Engine, request: Request, _progress: Progress, _: Patience) -> Result:
        context = request.contexts["context"]
        assert isinstance(context, SessionDirectory)
        directory = os.open(tmp_path, os.O_RDONLY)
        waiting.set()
        try:
            context.session.fetch("context", directory)
        except KetchError as error:
            raised.append(error)
            raise
        finally:
            os.close(directory)
        return Result()

    async def test(socket: str) -> None:
        async with session(socket, "s", {FILE_SYNC: silent}):
            building = asyncio.ensure_future(build(socket))
            while not waiting.is_set():
                await asyncio.sleep(0.01)
        with pytest.raises(BaseExceptionGroup):
            await building

    run(tmp_path, solve, test)
    assert isinstance(raised[0], UnavailableError)


def test_a_client_that_does_not_answer_is_given_up(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_HEALTH_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(sessions, "_HEALTH_SECONDS", 0.5)

    async def test(socket: str) -> None:
        named = [("X-Docker-Expose-Session-Uuid", "s")]
        async with session(socket, "s", {"/grpc.health.v1.Health/Check": silent}):
            answers = []
            while "101" not in answers:
                line, _, writer = await upgraded_(socket, "/session", named)
                answers.append(line.split()[1])
                writer.close()
                await asyncio.sleep(0.05)
            # It had the name until it was given up.
            assert answers[0] == "409"
        monkeypatch.setattr(sessions, "_HEALTH_SECONDS", 20.0)
        async with session(socket, "t", SECRETS):
            await asyncio.sleep(0.3)
            line, _, writer = await upgraded_(
                socket, "/session", [("X-Docker-Expose-Session-Uuid", "t")]
            )
            assert line.split()[1] == "409"
            writer.close()

    run(tmp_path, nothing, test)


async def silent(_call: Call) -> None:
    await asyncio.Event().wait()


def test_a_build_that_nobody_waits_for_ends(tmp_path: pathlib.Path) -> None:
    ended = threading.Event()

    def solve(
        _engine: Engine, _request: Request, _progress: Progress, patience: Patience
    ) -> Result:
        try:
            patience.wait(None)
        finally:
            ended.set()
        return Result()

    async def test(socket: str) -> None:
        methods = {"/moby.buildkit.secrets.v1.Secrets/GetSecret": silent}
        async with session(socket, "s", methods), dialled(socket) as connection:
            calling = await grpc.call(connection, CONTROL + "Solve")
            asked = words.SolveRequest(Ref="r", Session="s", Frontend="dockerfile.v0")
            await calling.send(asked)
            await asyncio.sleep(0.2)
            assert not ended.is_set()
            calling.break_off()
            await asyncio.to_thread(ended.wait, 5)
            assert ended.is_set()

    run(tmp_path, solve, test)


def test_an_agent_is_a_socket_of_ours(tmp_path: pathlib.Path) -> None:
    got: list[bytes] = []
    places: list[str] = []

    def solve(_engine: Engine, request: Request, _progress: Progress, _: Patience) -> Result:
        assert request.agents is not None
        assert request.agents.socket("other") is None
        path = request.agents.socket("default")
        assert path is not None
        places.append(path)
        assert os.stat(os.path.dirname(path)).st_mode & 0o077 == 0
        # Short, as an address must be, whatever the directory of the tests is called.
        short = os.open(path, os.O_PATH)
        for word in (b"one", b"two"):
            with sockets.socket(sockets.AF_UNIX) as agent:
                agent.connect(f"/proc/self/fd/{short}")
                agent.sendall(word)
                agent.shutdown(sockets.SHUT_WR)
                got.append(agent.recv(100))
        os.close(short)
        return Result()

    async def check(call: Call) -> None:
        if (await call.request(files.CheckAgentRequest)).ID != "default":
            raise NotFoundError("no such agent")
        await call.send(files.CheckAgentResponse())

    async def forward(call: Call) -> None:
        assert call.value("buildkit.ssh.id") == "default"
        while messages := await call.receive():
            for message in messages:
                data = schema.decode(files.BytesMessage, message).data
                await call.send(files.BytesMessage(data=data.upper()))

    methods: dict[str, Handler] = {
        "/moby.sshforward.v1.SSH/CheckAgent": check,
        "/moby.sshforward.v1.SSH/ForwardAgent": forward,
    }

    async def test(socket: str) -> None:
        async with session(socket, "s", methods):
            await build(socket)

    run(tmp_path, solve, test)
    assert got == [b"ONE", b"TWO"]
    assert not os.path.exists(places[0])


def test_what_is_uploaded_is_the_context(tmp_path: pathlib.Path) -> None:
    got: list[bytes] = []

    def solve(_engine: Engine, request: Request, _progress: Progress, _: Patience) -> Result:
        context = request.contexts["context"]
        assert isinstance(context, Archive)
        got.append(context.stream.read())
        return Result()

    async def pull(call: Call) -> None:
        assert (call.value("urlhost"), call.value("urlpath")) == ("buildkit-session", "/up")
        for _ in range(5):
            await call.send(files.BytesMessage(data=b"u" * 100_000))

    async def test(socket: str) -> None:
        async with session(socket, "s", {"/moby.upload.v1.Upload/Pull": pull}):
            await build(socket, attributes={"context": "http://buildkit-session/up"})

    run(tmp_path, solve, test)
    assert got == [b"u" * 500_000]


def test_a_dockerfile_is_asked_about(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "Dockerfile").write_text("FROM scratch as One\nARG A=1\nCOPY x /\n")

    async def about(connection: Any, what: str) -> dict[str, bytes]:
        asked = words.BridgeSolveRequest(Frontend="dockerfile.v0", FrontendOpt={"requestid": what})
        [found] = await ask(connection, BRIDGE + "Solve", asked, words.BridgeSolveResponse, "r")
        return dict(found.result.metadata)

    async def test(socket: str) -> None:
        async with (
            session(socket, "s", {FILE_SYNC: _sync(source, [])}),
            dialled(socket) as connection,
        ):
            waiting = await grpc.call(connection, CONTROL + "Solve")
            await waiting.send(words.SolveRequest(Ref="r", Session="s", Internal=True))
            found = await about(connection, "frontend.lint")
            rules = [one["ruleName"] for one in json.loads(found["result.json"])["warnings"]]
            assert rules == ["StageNameCasing", "FromAsCasing"]
            assert b"WARNING: FromAsCasing" in found["result.txt"]
            assert found["result.statuscode"] == b"1"
            found = await about(connection, "frontend.targets")
            [target] = json.loads(found["result.json"])["targets"]
            assert (target["name"], target["default"]) == ("one", True)
            found = await about(connection, "frontend.outline")
            assert json.loads(found["result.json"])["args"][0]["name"] == "A"
            found = await about(connection, "frontend.subrequests.describe")
            assert b"Lint a Dockerfile" in found["result.txt"]
            with pytest.raises(StatusError, match="unsupported request") as raised:
                await about(connection, "frontend.x")
            assert raised.value.code == Code.UNIMPLEMENTED
            await ask(
                connection, BRIDGE + "Return", words.ReturnRequest(), words.ReturnResponse, "r"
            )
            [answer] = await waiting.receive()
            assert answer == b""

    run(tmp_path, nothing, test)


@pytest.mark.parametrize(
    ("path", "protocol", "headers", "status"),
    [
        ("/grpc", "", [], "400"), ("/grpc", "tcp", [], "400"), ("/session", "h2c", [], "400"),
        ("/session", "h2c", [("X-Docker-Expose-Session-Uuid", "x" * 201)], "400"),
    ],
)  # fmt: skip
def test_other_upgrades_are_refused(
    path: str, protocol: str, headers: list[tuple[str, str]], status: str, tmp_path: pathlib.Path
) -> None:
    async def test(socket: str) -> None:
        line, _, writer = await upgraded_(socket, path, headers, protocol)
        assert line.split()[1] == status
        writer.close()

    run(tmp_path, nothing, test)


def test_names_are_taken_once_and_must_be_known(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds_module, "ARRIVAL_SECONDS", 0.1)
    monkeypatch.setattr(sessions, "ARRIVAL_SECONDS", 0.1)

    async def test(socket: str) -> None:
        async with session(socket, "s", {}):
            named = [("X-Docker-Expose-Session-Uuid", "s")]
            line, _, writer = await upgraded_(socket, "/session", named)
            assert line.split()[1] == "409"
            writer.close()
            await build(socket)
            async with dialled(socket) as connection:
                for path, request, kind, code in (
                    (CONTROL + "Status", words.StatusRequest(Ref="none"), words.StatusResponse,
                     Code.NOT_FOUND),
                    (CONTROL + "Solve", words.SolveRequest(Ref="ref"), words.SolveResponse,
                     Code.FAILED_PRECONDITION),
                    (CONTROL + "Solve", words.SolveRequest(), words.SolveResponse,
                     Code.INVALID_ARGUMENT),
                    (CONTROL + "Session", words.StatusRequest(), words.StatusResponse,
                     Code.UNIMPLEMENTED),
                    (BRIDGE + "Ping", words.PingRequest(), words.PongResponse,
                     Code.INVALID_ARGUMENT),
                ):  # fmt: skip
                    with pytest.raises(StatusError) as raised:
                        await ask(connection, path, request, kind)
                    assert raised.value.code == code

    run(tmp_path, nothing, test)


def test_nothing_of_http2_and_protobuf_is_loaded_before_a_client_asks() -> None:
    script = """
import asyncio, pathlib, sys, tempfile
from tests.unit.api.client import ask, get, served

async def main():
    with tempfile.TemporaryDirectory() as directory:
        async with served(pathlib.Path(directory)) as path:
            for target in ("/_ping", "/version", "/info", "/containers/json"):
                assert (await ask(path, get(target)))[0].status == 200
            print(sorted({"h2", "hpack", "google.protobuf"} & sys.modules.keys()))
            await ask(path, get("/grpc", method="POST"))
            print(sorted({"h2", "hpack", "google.protobuf"} & sys.modules.keys()))

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True,
        cwd=pathlib.Path(__file__).parents[4],
    )  # fmt: skip
    assert done.stdout == "[]\n['google.protobuf', 'h2', 'hpack']\n", done.stderr


def test_files_of_a_url_are_read(tmp_path: pathlib.Path) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"FROM scratch\n")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    async def test(socket: str) -> None:
        url = f"http://127.0.0.1:{server.server_port}/D"
        source = words.SourceOp(identifier=url, attrs={"http.filename": "Dockerfile"})
        graph = words.Definition(**{"def": [schema.encode(words.Op(source=source))]})
        async with session(socket, "s", {}), dialled(socket) as connection:
            waiting = await grpc.call(connection, CONTROL + "Solve")
            await waiting.send(words.SolveRequest(Ref="r", Session="s", Internal=True))
            wanted = words.BridgeSolveRequest(definition=graph)
            [found] = await ask(
                connection, BRIDGE + "Solve", wanted, words.BridgeSolveResponse, "r"
            )
            ref = found.result.ref.id
            part = words.FileRange(Offset=5, Length=4)
            for request, expected in (
                (words.ReadFileRequest(Ref=ref, FilePath="Dockerfile"), b"FROM scratch\n"),
                (words.ReadFileRequest(Ref=ref, FilePath="Dockerfile", Range=part), b"scra"),
            ):
                [read] = await ask(
                    connection, BRIDGE + "ReadFile", request, words.ReadFileResponse, "r"
                )
                assert read.Data == expected
            asked = words.StatFileRequest(Ref=ref, Path="/Dockerfile")
            [stat] = await ask(connection, BRIDGE + "StatFile", asked, words.StatFileResponse, "r")
            assert (stat.stat.size, stat.stat.mode) == (13, 0o644)
            asked = words.StatFileRequest(Ref=ref, Path="other")
            with pytest.raises(StatusError, match="no such file"):
                await ask(connection, BRIDGE + "StatFile", asked, words.StatFileResponse, "r")
            result = words.ReturnRequest(result=found.result)
            await ask(connection, BRIDGE + "Return", result, words.ReturnResponse, "r")
            assert await waiting.receive() == [b""]

    try:
        run(tmp_path, nothing, test)
    finally:
        server.shutdown()
        server.server_close()


async def _posted(socket: str, query: str, body: bytes = b"") -> tuple[bytes, bytes]:
    """Post a build; return the answer's head and body."""
    reader, writer = await asyncio.open_unix_connection(socket)
    lines = [f"POST /build?version=2&{query} HTTP/1.1", "Host: docker", "Connection: close",
             f"Content-Length: {len(body)}"]  # fmt: skip
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    answer = await reader.read()
    writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    return head, rest


def test_a_posted_build_has_its_session(tmp_path: pathlib.Path) -> None:
    got: list[Any] = []

    def solve(_engine: Engine, request: Request, progress: Progress, _: Patience) -> Result:
        assert request.secrets is not None
        assert isinstance(request.contexts["context"], SessionDirectory)
        got.append((request.secrets.get("known"), request.target, dict(request.build_args)))
        progress(Log("sha256:1", 2, b"said", 6))
        return Result(metadata={"containerimage.config.digest": "sha256:2"})

    async def test(socket: str) -> None:
        asked = "session=s&remote=client-session&target=t&buildargs=%7B%22A%22:%221%22%7D"
        async with session(socket, "s", SECRETS):
            head, told = await _posted(socket, asked)
            assert head.startswith(b"HTTP/1.1 200")
            assert b'{"id":"moby.image.id","aux":{"ID":"sha256:2"}}' in told
            assert b'{"id":"moby.buildkit.trace","aux":"' in told

    run(tmp_path, solve, test)
    assert got == [(b"it", "t", {"A": "1"})]


def test_contexts_and_builds_that_wait_in_vain(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posted, "_MEETING_SECONDS", 0.2)

    async def test(socket: str) -> None:
        head, told = await _posted(socket, "buildid=a&remote=upload-request")
        assert b"the context of build a has not come" in told
        head, told = await _posted(socket, "buildid=upload-request:a", b"body")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"no build a has come for its context" in told

    run(tmp_path, nothing, test)


def test_what_builds_said_is_kept_for_a_while(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``buildx history logs`` asks for it."""
    monkeypatch.setattr(builds_module, "_LINGER_SECONDS", 0.0)
    monkeypatch.setattr(builds_module, "_HISTORY_LOG_BYTES_MAX", 5)

    def solve(_engine: Engine, request: Request, progress: Progress, _: Patience) -> Result:
        progress(VertexState("sha256:1", "[1/1] FROM x", started_ns=1))
        progress(Log("sha256:1", 2, b"said", 6))
        return nothing(_engine, request, progress, _)

    async def test(socket: str) -> None:
        async with session(socket, "s", {}):
            for name in ("old", "new"):
                await build(socket, name)
        async with dialled(socket) as connection:
            for name, said in (("old", []), ("new", [b"said"])):
                asked = words.StatusRequest(Ref=name)
                told = await ask(connection, CONTROL + "Status", asked, words.StatusResponse)
                assert [one.name for message in told for one in message.vertexes]
                assert [one.msg for message in told for one in message.logs] == said

    run(tmp_path, solve, test)
