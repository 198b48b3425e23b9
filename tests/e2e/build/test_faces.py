"""The same builder by the library, for asyncio, and by Docker's API without BuildKit."""

import asyncio
import io
import json
import pathlib
import socket
import tarfile
import time
from collections.abc import Iterator

import docker  # type: ignore[import-untyped]
import pytest
import requests

import ketch
import ketch.aio
from ketch.build.progress import Log, VertexState
from ketch.errors import KetchError
from ketch.library.building import Built
from tests.support.commands import Engine

TEXT = "FROM busybox\nARG WHO=nobody\nRUN echo made for $WHO > /made\nCMD cat /made\n"


def places(engine: Engine) -> tuple[str, str]:
    _, _, root, _, state = engine.prefix
    return root, state


@pytest.fixture
def client(served_engine: Engine) -> Iterator["docker.DockerClient"]:
    url = served_engine.prefix[served_engine.prefix.index("--host") + 1]
    found = docker.DockerClient(base_url=url)
    yield found
    found.close()


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


def test_what_the_api_refuses(client: "docker.DockerClient") -> None:
    api = client.api
    for query, body, status in (
        ({"version": "2"}, b"", 501), ({"remote": "/etc"}, b"", 400),
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
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as made:
        text = b"FROM busybox\nRUN echo begun; sleep 600\n"
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(text)
        made.addfile(member, io.BytesIO(text))
    api = client.api
    answer = api.post(
        api._url("/build"), params={"buildid": "one"}, data=archive.getvalue(), stream=True
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
