"""What is HTTP is answered, what is not gets 4xx and an end, and no client can make it wait."""

import asyncio
import contextlib
import json
import pathlib
from collections.abc import Callable, Coroutine

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.api import client
from tests.unit.api.client import get

Check = Callable[[str], Coroutine[None, None, None]]


def serve(directory: pathlib.Path, check: Check) -> None:
    async def main() -> None:
        async with client.served(directory) as path:
            await check(path)

    asyncio.run(main())


def test_ping_as_docker_answers_it(tmp_path: pathlib.Path) -> None:
    async def check(path: str) -> None:
        for target in ("/_ping", "/v1.24/_ping", "/v1.50/_ping"):
            found, _ = await client.ask(path, get(target))
            assert (found.status, found.body) == (200, b"OK")
            assert found.headers["api-version"] == "1.50"
            assert found.headers["ostype"] == "linux"
            assert found.headers["content-type"] == "text/plain; charset=utf-8"
            assert found.headers["cache-control"] == "no-cache, no-store, must-revalidate"
        found, rest = await client.ask(path, get("/_ping", method="HEAD"), half_close=True)
        assert (found.status, rest) == (200, b"")

    serve(tmp_path, check)


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        ("/nothing", 404, "page not found"),
        ("/v1.50", 404, "page not found"),
        ("/", 404, "page not found"),
        ("/vx.y/_ping", 404, "page not found"),
        ("/v1.51/_ping", 400, "client version 1.51 is too new. Maximum supported"),
        ("/v1.23/_ping", 400, "client version 1.23 is too old. Minimum supported"),
        ("/containers/no%00body/json", 400, "NUL"),
        ("/containers/%ff/json", 400, "UTF-8"),
        ("/containers/json?filters=%7B", 400, "invalid JSON"),
        ("/containers/json?filters=[1]", 400, "invalid filter"),
        ('/containers/json?filters={"who":["x"]}', 400, "invalid filter 'who'"),
        ("/containers/json?limit=much", 400, "limit"),
        ("/containers/json?limit=much&limit=1", 400, "limit"),  # the first one counts
        ('/containers/json?filters={"status":{"running":1}}', 400, "invalid filter 'status'"),
        ('/containers/json?filters={"status":"running"}', 400, "invalid filter 'status'"),
        ("/containers/nobody/json", 404, "No such container: nobody"),
        ("/images/nothing/json", 404, "No such image: nothing:latest"),
        ("/swarm", 503, "This node is not a swarm manager"),
        ("/secrets", 503, "This node is not a swarm manager"),
    ],
)
def test_refusals(tmp_path: pathlib.Path, target: str, status: int, words: str) -> None:
    async def check(path: str) -> None:
        found, _ = await client.ask(path, get(target))
        assert found.status == status, found.body
        assert words in found.document["message"]
        assert list(found.document) == ["message"]

    serve(tmp_path, check)


def test_pipelined_requests_are_answered_in_order(tmp_path: pathlib.Path) -> None:
    async def check(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(get("/_ping") + get("/nothing") + get("/version") + get("/_ping"))
        writer.write_eof()
        statuses = [(await client.answer(reader)).status for _ in range(4)]
        assert statuses == [200, 404, 200, 200]
        assert await reader.read() == b""

    serve(tmp_path, check)


def test_a_body_in_chunks_and_one_that_is_announced(tmp_path: pathlib.Path) -> None:
    document = json.dumps({"Image": "nothing", "Cmd": ["x"]}).encode()

    async def check(path: str) -> None:
        chunks = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in document) + b"0\r\n\r\n"
        target = "/containers/create"
        request = get(target, method="POST", headers="Transfer-Encoding: chunked\r\n") + chunks
        found, _ = await client.ask(path, request)
        assert (found.status, found.document["message"]) == (404, "No such image: nothing:latest")
        reader, writer = await asyncio.open_unix_connection(path)
        head = get(target, method="POST", headers="Expect: 100-continue\r\n", body=document)
        writer.write(head.removesuffix(document))
        assert await reader.readline() == b"HTTP/1.1 100 \r\n"
        assert await reader.readline() == b"\r\n"
        writer.write(document)
        assert (await client.answer(reader)).status == 404
        writer.close()

    serve(tmp_path, check)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"not http at all\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (get("/_ping", headers=f"X: {'y' * 200_000}\r\n"), 431),
        (get("/" + "a" * 200_000), 431),
        (get("/_ping", headers="Content-Length: -1\r\n"), 400),
        (get("/_ping", headers="Transfer-Encoding: gzip\r\n"), 501),
        (get("/containers/create", method="POST", body=b"{"), 400),
        (get("/containers/create", method="POST", body=b"[" * 100_000), 400),
        (get("/containers/create", method="POST", body=b'{"a":' * 100 + b"1" + b"}" * 100), 400),
        (get("/containers/create", method="POST", body=b'{"Image":3}'), 400),
        (get("/containers/create", method="POST", body=b'{"Image":"a\\u0000"}'), 400),
        (get("/containers/create", method="POST", body=b'{"HostConfig":{"Memory":1e30}}'), 400),
        (get("/containers/create", method="POST", body=b'{"Image":"\\ud800"}'), 400),
        (get("/containers/create", method="POST", body=b'{"Cmd":["a"],"Env":{"a":1}}'), 400),
        (get("/containers/create", method="POST", body=b"\xff\xfe"), 400),
        (get("/containers/create", method="POST", headers="Content-Type: text/xml\r\n",
             body=b"<a/>"), 400),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_so(tmp_path: pathlib.Path, request_: bytes, status: int) -> None:
    async def check(path: str) -> None:
        found, _ = await client.ask(path, request_)
        assert found.status == status, found.body
        assert found.document["message"]

    serve(tmp_path, check)


def test_a_body_without_end_is_cut_off(tmp_path: pathlib.Path) -> None:
    async def check(path: str) -> None:
        _, writer = await asyncio.open_unix_connection(path)
        headers = "Transfer-Encoding: chunked\r\n"
        writer.write(get("/containers/create", method="POST", headers=headers))
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 20 << 20:
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
        assert sent < 20 << 20, "it takes whatever is sent"

    serve(tmp_path, check)


def test_leaving_amid_a_request_harms_nobody(tmp_path: pathlib.Path) -> None:
    async def check(path: str) -> None:
        whole = get("/containers/create", method="POST", body=b'{"Image":"x"}')
        for cut in range(1, len(whole), 7):
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(whole[:cut])
            writer.close()
        found, _ = await client.ask(path, get("/_ping"))
        assert found.status == 200

    serve(tmp_path, check)


def test_a_server_without_work_leaves(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with client.served(tmp_path, idle_seconds=1) as path:
            assert (await client.ask(path, get("/_ping")))[0].status == 200
            for _ in range(100):
                if not pathlib.Path(path).exists():
                    return
                await asyncio.sleep(0.1)
            pytest.fail("it is still there")

    asyncio.run(main())


TEXT = st.text(max_size=40)
PATHS = st.lists(
    st.sampled_from(["containers", "images", "json", "exec", "networks", "volumes", "create",
                     "v1.24", "v1.50", "..", "", "events", "x", "*", "%2e%2e", "prune"]) | TEXT,
    max_size=5,
).map("/".join)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        TEXT | st.sampled_from(["Image", "Cmd", "HostConfig", "Memory", "Mounts", "Env"]),
        inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    requests=st.lists(
        st.tuples(st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "PATCH"]), PATHS,
                  st.dictionaries(TEXT, TEXT, max_size=3), JSON | st.binary(max_size=50)),
        min_size=1, max_size=8,
    ),
    noise=st.binary(max_size=60),
)  # fmt: skip
def test_any_request_gets_an_answer_and_no_mistake(
    tmp_path_factory: pytest.TempPathFactory,
    requests: list[tuple[str, str, dict[str, str], object]],
    noise: bytes,
) -> None:
    from urllib.parse import quote, urlencode

    async def check(path: str) -> None:
        for method, place, query, body in requests:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            if place.strip("/").endswith("events"):
                continue  # it has no end
            target = f"/{quote(place, safe='/%*')}?{urlencode(query, errors='replace')}"
            found, _ = await client.ask(path, get(target, method=method, body=content))
            assert found.status != 500, (method, target, content, found.body)
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(noise)
        writer.close()
        assert (await client.ask(path, get("/_ping")))[0].status == 200

    serve(tmp_path_factory.mktemp("api"), check)
