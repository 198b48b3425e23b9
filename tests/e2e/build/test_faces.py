"""The same builder by the library, for asyncio, and by Docker's API without BuildKit."""

import asyncio
import base64
import concurrent.futures
import io
import json
import pathlib
import re
import shutil
import socket
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import docker  # type: ignore[import-untyped]
import pytest
import requests

import ketch
import ketch.aio
from ketch.api.buildkit import schema
from ketch.build.progress import Log, VertexState
from ketch.errors import KetchError
from ketch.library.building import Built
from tests.support.commands import Engine

TEXT = "FROM busybox\nARG WHO=nobody\nRUN echo made for $WHO > /made\nCMD cat /made\n"
TRACE = "moby.buildkit.trace"


def places(engine: Engine) -> tuple[str, str]:
    _, _, root, _, state = engine.prefix
    return root, state


@pytest.fixture
def client(served_engine: Engine) -> Iterator["docker.DockerClient"]:
    url = served_engine.prefix[served_engine.prefix.index("--host") + 1]
    found = docker.DockerClient(base_url=url)
    yield found
    found.close()


@pytest.mark.in_process
def test_the_library_builds(ketch_engine: Engine, tmp_path: pathlib.Path) -> None:
    with ketch.Engine(*places(ketch_engine)) as engine:
        (tmp_path / "Dockerfile").write_text(TEXT)
        told: list[object] = []
        image = engine.images.build(
            tmp_path, tag="faces", build_args={"WHO": "a test"}, progress=told.append
        )
        assert image.tags == ["faces:latest"]
        assert engine.containers.run("faces", rm=True) == b"made for a test\n"
        assert any(isinstance(one, VertexState) and "RUN" in one.name for one in told)
        secret = "FROM busybox\nRUN --mount=type=secret,id=s cp /run/secrets/s /s\n"
        engine.images.build(tmp_path, dockerfile_text=secret, tag="faces", secrets={"s": "word"})
        assert engine.containers.run("faces", ["cat", "/s"], rm=True) == b"word"
        with pytest.raises(KetchError, match="exit code: 3") as failed:
            engine.images.build(tmp_path, dockerfile_text="FROM busybox\nRUN exit 3\n")
        assert ">>> RUN exit 3" in failed.value.excerpt  # type: ignore[attr-defined]
        engine.images.remove("faces", force=True)


@pytest.mark.in_process
def test_who_follows_no_further_ends_the_build(
    ketch_engine: Engine, tmp_path: pathlib.Path
) -> None:
    with ketch.Engine(*places(ketch_engine)) as engine:
        text = "FROM busybox\nRUN echo begun; sleep 600\n"
        following = engine.images.follow_build(tmp_path, dockerfile_text=text)
        for event in following:
            if isinstance(event, Log):
                break
        begun = time.monotonic()
        following.close()  # type: ignore[attr-defined] # a generator
        assert time.monotonic() - begun < 30


@pytest.mark.in_process
def test_asyncio_builds(ketch_engine: Engine, tmp_path: pathlib.Path) -> None:
    async def build() -> None:
        async with ketch.aio.Engine(*places(ketch_engine)) as engine:
            last: object = None
            async for event in engine.images.follow_build(
                tmp_path, dockerfile_text=TEXT, tag="aio"
            ):
                last = event
            assert isinstance(last, Built)
            assert last.image is not None
            slow = engine.images.build(tmp_path, dockerfile_text="FROM busybox\nRUN sleep 600\n")
            task = asyncio.ensure_future(slow)
            await asyncio.sleep(2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 30)
            await engine.images.remove("aio", force=True)

    asyncio.run(build())


def test_docker_py_builds(client: "docker.DockerClient", tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text(TEXT)
    image, log = client.images.build(
        path=str(tmp_path), tag="py", buildargs={"WHO": "docker-py"}, labels={"a": "b"},
        nocache=True, rm=True,
    )  # fmt: skip
    text = "".join(line.get("stream", "") for line in log)
    assert "Step 2/2 : RUN echo made for docker-py > /made" in text
    assert "Successfully tagged py:latest" in text
    assert image.labels == {"a": "b"}
    assert client.containers.run("py", remove=True) == b"made for docker-py\n"
    with pytest.raises(docker.errors.BuildError, match="exit code: 7"):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 7\n"))
    client.images.remove("py", force=True)


def test_docker_py_prunes(client: "docker.DockerClient", ketch_engine: Engine) -> None:
    context = b"FROM busybox\nRUN head -c 300000 /dev/urandom > /pruned\n"
    client.images.build(fileobj=io.BytesIO(context), tag="pruned")
    listed = client.api.df()["BuildCache"]
    (step,) = [one for one in listed if "/pruned" in one["Description"]]
    assert (step["Size"], step["InUse"], step["Shared"]) == (300000, False, True)
    client.images.remove("pruned")
    assert client.api.prune_builds(filters={"until": "24h"})["CachesDeleted"] is None
    pruned = client.api.prune_builds(all=True)
    assert step["ID"] in pruned["CachesDeleted"]
    assert pruned["SpaceReclaimed"] >= 300000
    assert client.api.df()["BuildCache"] == []
    assert re.search(r"^Total:\s+0B$", ketch_engine.ok("builder", "du"), re.MULTILINE)


def test_testcontainers_builds(
    served_engine: Engine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from testcontainers.core.image import DockerImage

    host = served_engine.prefix[served_engine.prefix.index("--host") + 1]
    monkeypatch.setenv("DOCKER_HOST", host)
    (tmp_path / "Other").write_text(TEXT)
    asked: dict[str, Any] = {"dockerfile_path": "Other", "buildargs": {"WHO": "testcontainers"}}
    with DockerImage(path=tmp_path, tag="contained", **asked) as image:
        assert served_engine.ok("run", "--rm", "contained") == "made for testcontainers"
        logs = [line.get("stream", "") for line in image.get_logs()]
        assert any("RUN echo made for" in line for line in logs)
    assert served_engine("image", "inspect", "contained").status == 1


def test_docker_without_buildkit(served_engine: Engine, tmp_path: pathlib.Path) -> None:
    older = Engine("older", served_engine.prefix, {**served_engine.environment,
                                                   "DOCKER_BUILDKIT": "0"})  # fmt: skip
    (tmp_path / "Dockerfile").write_text(f"{TEXT}COPY file /\n")
    (tmp_path / "file").write_text("x")
    options = ["--build-arg", "WHO=older", "--label", "a=b", "--no-cache", "-t", "older"]
    done = older("build", *options, str(tmp_path))
    assert done.status == 0, str(done)
    assert re.search(r"^Step \d+/\d+ : RUN echo made for older > /made$", done.out, re.MULTILINE)
    assert re.search(r"^Successfully built [0-9a-f]{12}$", done.out, re.MULTILINE)
    assert "Successfully tagged older:latest" in done.out
    assert older.ok("run", "--rm", "older") == "made for older"
    failed = older("build", "-", stdin="FROM busybox\nRUN exit 7\n")
    assert failed.status != 0
    assert "exit code: 7" in failed.err
    older.ok("rmi", "older")


OLD_COMPOSE = """
version: "2.4"
services:
  made:
    build:
      context: .
      args: {WHO: compose}
      labels: {a: b}
    image: composed
"""


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="docker-compose is not installed")
def test_the_older_compose_builds(served_engine: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text(TEXT)
    (tmp_path / "docker-compose.yml").write_text(OLD_COMPOSE)
    host = served_engine.prefix[served_engine.prefix.index("--host") + 1]
    for buildkit in ("0", "1"):
        variables = {**served_engine.environment, "DOCKER_HOST": host,
                     "DOCKER_BUILDKIT": buildkit, "COMPOSE_DOCKER_CLI_BUILD": buildkit}  # fmt: skip
        program = shutil.which("docker-compose") or ""
        compose = Engine("compose", [program, "-f", f"{tmp_path}/docker-compose.yml"], variables)
        done = compose("build", timeout=100)
        assert done.status == 0, str(done)
        assert served_engine.ok("run", "--rm", "composed") == "made for compose"
        assert served_engine.ok("inspect", "-f", "{{.Config.Labels.a}}", "composed") == "b"
        served_engine.ok("rmi", "composed")


def packed(dockerfile: str) -> bytes:
    """Returns a context of a Dockerfile alone, as an archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as made:
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(dockerfile.encode())
        made.addfile(member, io.BytesIO(dockerfile.encode()))
    return archive.getvalue()


def posted(api: "docker.APIClient", body: bytes, **query: str) -> list[dict[str, Any]]:
    """Post a build to BuildKit; return what is told."""
    answer = api.post(api._url("/build"), params={"version": "2", **query}, data=body)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.content.splitlines()]


def traced(lines: list[dict[str, Any]]) -> list[Any]:
    """Returns BuildKit's status messages of an answer."""
    traces = [base64.b64decode(one["aux"]) for one in lines if one.get("id") == TRACE]
    return [schema.decode(schema.messages("control").StatusResponse, one) for one in traces]


def test_buildkit_is_asked_by_a_post(client: "docker.DockerClient") -> None:
    """So do docker before 23 and others, with a session or, as here, without."""
    api = client.api
    text = "FROM busybox\nARG WHO\nRUN echo told $WHO > /made; cat /made\n"
    asked = {
        "t": "posted", "buildargs": '{"WHO": "all", "BUILDKIT_INLINE_CACHE": "1"}',
        "labels": '{"a": "b"}', "extrahosts": "there:192.0.2.1", "nocache": "1",
        "ulimits": '[{"Name": "nofile", "Soft": 1024, "Hard": 1024}]',
    }  # fmt: skip
    lines = posted(api, packed(text), **asked)
    messages = traced(lines)
    assert b"told all" in b"".join(log.msg for one in messages for log in one.logs)
    names = [vertex.name for one in messages for vertex in one.vertexes]
    assert "[2/2] RUN echo told all > /made; cat /made" in names
    image = client.images.get("posted")
    assert [one["aux"] for one in lines if one.get("id") == "moby.image.id"] == [{"ID": image.id}]
    assert image.labels == {"a": "b"}
    client.images.remove("posted", force=True)
    last = posted(api, packed("FROM busybox\nRUN exit 7\n"))[-1]
    assert last["errorDetail"] == {"message": last["error"]}
    assert "exit code: 7" in last["error"]
    failed = posted(api, packed("FROM busybox\nRUN --mount=type=secret,id=a,required true\n"))[-1]
    assert "secret a: not found" in failed["error"]


def test_a_context_comes_by_a_request_of_its_own(client: "docker.DockerClient") -> None:
    api, upload = client.api, {"version": "2", "buildid": "upload-request:one"}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        body = packed("FROM busybox\nRUN echo came\n")
        sending = pool.submit(api.post, api._url("/build"), params=upload, data=body)
        lines = posted(api, b"", buildid="one", remote="upload-request", t="uploaded")
        assert sending.result().status_code == 200
    assert "moby.image.id" in [one["id"] for one in lines]
    client.images.remove("uploaded", force=True)


def test_what_the_api_refuses(client: "docker.DockerClient") -> None:
    api = client.api
    for query, body, status in (
        ({"version": "2", "networkmode": "other"}, b"", 400),
        ({"version": "2", "squash": "1"}, b"", 501),
        ({"version": "2", "outputs": "[{},{}]"}, b"", 400),
        ({"version": "2", "remote": "upload-request"}, b"", 400), ({"remote": "/etc"}, b"", 400),
        ({"buildargs": "["}, b"", 400), ({"t": "A B"}, b"", 400), ({"shmsize": "-1"}, b"", 400),
        ({"ulimits": '[{"Name": "nofile"}]'}, b"", 400),
    ):  # fmt: skip
        answer = api.post(api._url("/build"), params=query, data=body)
        assert answer.status_code == status, answer.text
    answer = api.post(api._url("/build/cancel"))
    assert answer.status_code == 400
    assert api.post(api._url("/build/cancel"), params={"id": "unknown"}).status_code == 204


def test_a_client_that_leaves_ends_what_is_fetched_for_it(client: "docker.DockerClient") -> None:
    """No body comes with such a request whose end anybody would read."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/context.tar"
        url = client.api._url("/build")
        with pytest.raises(requests.exceptions.Timeout):
            client.api.post(url, params={"remote": address}, timeout=2)
        client.api.close()
        asking, _ = silent.accept()
        with asking:
            asking.settimeout(30)
            while asking.recv(1 << 16):
                pass


def test_a_client_that_leaves_ends_its_build(client: "docker.DockerClient") -> None:
    api = client.api
    answer = api.post(
        api._url("/build"),
        params={"buildid": "one"},
        data=packed("FROM busybox\nRUN echo begun; sleep 600\n"),
        stream=True,
    )
    lines = answer.iter_lines()
    for line in lines:
        if "begun" in json.loads(line).get("stream", ""):
            break
    assert api.post(api._url("/build/cancel"), params={"id": "one"}).status_code == 204
    begun = time.monotonic()
    rest = b"".join(lines)
    assert b"context canceled" in rest
    assert time.monotonic() - begun < 30
