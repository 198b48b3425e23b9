"""What BuildKit's clients ask for besides a Dockerfile's build, of ``ketch serve`` as installed."""

import asyncio
import hashlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from ketch.api.buildkit import schema
from ketch.api.buildkit.grpc import StatusError
from tests.support import serving
from tests.support.archives import archive, member
from tests.support.commands import Engine
from tests.support.registry import Handler, fake
from tests.support.repositories import Repository, served
from tests.unit.api.buildkit.buildx import CONTROL, ask, dialled, session, words

BAKED = r"""
target "default" {
  dockerfile-inline = "FROM busybox\nCOPY f* /\nRUN cat /f* > /said\n"
  tags = ["baked"]
}
"""


@pytest.fixture
def docker(served_engine: Engine, ketch: Engine) -> Iterator[Engine]:
    """Return docker's command line with buildx on the server."""
    if served_engine("buildx", "version").status:
        pytest.skip("buildx is not installed (Debian: docker-buildx)")
    yield served_engine
    ketch("rmi", "-f", "baked")
    ketch("builder", "prune", "-af")


def test_bake_has_its_definitions_from_a_repository_or_a_url(
    docker: Engine, ketch: Engine, tmp_path: pathlib.Path
) -> None:
    """buildx asks for them as a graph that is one source, and reads files of it."""
    project = Repository(tmp_path / "project.git")
    project.commit(**{"docker-bake.hcl": BAKED, "file": "of a repository"})
    with served(tmp_path) as server:
        done = docker("buildx", "bake", f"http://{server.host}/project.git")
        assert done.status == 0, str(done)
        assert ketch.ok("run", "--rm", "baked", "cat", "/said") == "of a repository"
    without = 'target "default" {\n dockerfile-inline = "FROM scratch\\nLABEL a=b\\n"\n}\n'
    given = {
        "/docker-bake.hcl": without.encode(),
        "/project.tar": archive(member(b"docker-bake.hcl", data=without.encode()),
                                member(b"Dockerfile", data=b"FROM scratch\nLABEL a=b\n")),
    }  # fmt: skip
    with fake() as server:

        def answer(request: Handler) -> bool:
            request.answer(200, given[request.path])
            return True

        server.hooks[:] = [answer]
        done = docker("buildx", "bake", f"http://{server.host}/docker-bake.hcl")
        assert done.status == 0, str(done)
        # buildx sees that it is an archive and makes a graph that unpacks it, or fails to (0.13).
        done = docker("buildx", "bake", f"http://{server.host}/project.tar")
        assert done.status == 1
        assert re.search("LLB graph with an operation file|llb.State for copy", done.err), str(done)


# By their fields in pb.Op (moby/buildkit, solver/pb/ops.proto).
_OPERATIONS = {"exec": 2, "file": 4, "build": 5, "merge": 6, "diff": 7}


def refused(engine: Engine, request: Any) -> str:
    """Ask for a build as ``buildctl build`` does; return the words that it is refused in."""
    socket = engine.prefix[2].removeprefix("unix://")

    async def solve() -> None:
        async with session(socket, request.Session, {}), dialled(socket) as connection:
            await ask(connection, CONTROL + "Solve", request, words.SolveResponse)

    with pytest.raises(StatusError) as failed:
        asyncio.run(solve())
    return failed.value.message


@pytest.mark.parametrize("name", list(_OPERATIONS))
def test_graphs_of_operations_are_refused_by_name(served_engine: Engine, name: str) -> None:
    """No client of the tests' sends them."""
    source = schema.encode(words.Op(source=words.SourceOp(identifier="docker-image://busybox")))
    digest = f"sha256:{hashlib.sha256(source).hexdigest()}"
    entered = schema.encode(words.Op(inputs=[words.Input(digest=digest)]))
    operation = entered + bytes([_OPERATIONS[name] << 3 | 2, 0])  # an empty message of that field
    graph = words.Definition(**{"def": [source, operation]})
    request = words.SolveRequest(Ref=f"graph-{name}", Session=f"graph-{name}", definition=graph)
    told = refused(served_engine, request)
    assert f"an LLB graph with an operation {name} " in told


def test_another_front_end_is_not_fetched(docker: Engine, tmp_path: pathlib.Path) -> None:
    """What a Dockerfile says of it is noted; who asks for it by itself is told which it is not."""
    (tmp_path / "Dockerfile").write_text("# syntax=127.0.0.1:1/front/end\nFROM scratch\nADD x /\n")
    (tmp_path / "x").touch()
    for words_of in ((), ("--build-arg", "BUILDKIT_SYNTAX=127.0.0.1:1/front/end")):
        done = docker("build", "-q", *words_of, str(tmp_path))
        assert done.status == 0, str(done)
    chosen = {"source": "127.0.0.1:1/front/end"}
    request = words.SolveRequest(
        Ref="front", Session="front", Frontend="gateway.v0", FrontendAttrs=chosen
    )
    told = refused(docker, request)
    assert re.search(r"front end .gateway.v0 127.0.0.1:1/front/end.", told), told


def test_http2_and_protobuf_are_loaded_when_a_client_of_buildkit_asks(
    ketch: Engine, docker: Engine, tmp_path: pathlib.Path
) -> None:
    socket = tmp_path / "api.sock"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    with serving.served(ketch.prefix, socket, tmp_path / "log") as server:
        maps = pathlib.Path(f"/proc/{server.pid}/maps")
        asking = Engine("other", ["docker", "--host", f"unix://{socket}"], docker.environment)
        asking.ok("version")
        asking.ok("images")
        assert "/google/_upb/" not in maps.read_text()
        done = asking("build", "-q", str(tmp_path))
        assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.out), str(done)
        assert "/google/_upb/" in maps.read_text()
