"""Whoever is slow, silent or gone keeps nobody waiting but himself."""

import asyncio
import contextlib
import errno
import json
import pathlib
import time

import pytest

from ketch.api import bodies, flows, http, hub, router, server
from ketch.api.call import Call
from ketch.engine.engine import Engine
from ketch.engine.records import events
from ketch.engine.settings import Settings
from ketch.linux.inotify import Inotify
from tests.unit.api import client
from tests.unit.api.client import get
from tests.unit.api.test_framing import serve

SHORT = 0.4
CHUNKED = "Transfer-Encoding: chunked\r\n"


async def drip(path: str, start: bytes, piece: bytes) -> client.Answer:
    """Send a start, then a piece again and again, never silent for long; return the answer."""
    reader, writer = await asyncio.open_unix_connection(path)

    async def send() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(SHORT / 8)

    writer.write(start)
    sending = asyncio.create_task(send())
    try:
        return await asyncio.wait_for(client.answer(reader), 20)
    finally:
        sending.cancel()
        writer.close()


def test_a_head_that_never_ends(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_TIMEOUT_SECONDS", SHORT)

    async def check(path: str) -> None:
        found = await drip(path, b"GET /_ping HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"y")
        assert (found.status, found.headers["connection"]) == (408, "close")
        assert "takes too long" in found.document["message"]
        # It counts from a request's first byte: a connection may be kept for as long as one likes.
        reader, writer = await asyncio.open_unix_connection(path)
        for _ in range(2):
            await asyncio.sleep(2 * SHORT)
            writer.write(get("/_ping"))
            assert (await client.answer(reader)).status == 200
        # The second of two, of which only the start has come.
        writer.write(get("/_ping") + b"GET /_p")
        assert (await client.answer(reader)).status == 200
        assert (await asyncio.wait_for(client.answer(reader), 20)).status == 408
        writer.close()

    serve(tmp_path, check)


def test_a_body_that_never_ends(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SECONDS_MAX", SHORT)
    monkeypatch.setattr(http, "STALL_SECONDS", SHORT)

    async def check(path: str) -> None:
        head = get("/containers/create", method="POST", headers=CHUNKED)
        found = await drip(path, head, b"1\r\n \r\n")
        assert (found.status, "takes too long" in found.document["message"]) == (408, True)
        found, _ = await client.ask(path, get("/images/load", method="POST", headers=CHUNKED))
        assert "error" in found.document  # after nothing came: 200 was promised
        found, _ = await client.ask(path, head + b"malformed\r\n")
        assert (found.status, "bad request" in found.document["message"]) == (400, True)

    serve(tmp_path, check)


def test_slow_transfers_keep_nobody_else_waiting(tmp_path: pathlib.Path) -> None:
    async def check(path: str) -> None:
        async with contextlib.AsyncExitStack() as held:
            for _ in range(80):
                _, writer = await asyncio.open_unix_connection(path)
                held.callback(writer.close)
                target = "/images/create?fromSrc=-"
                writer.write(get(target, method="POST", headers=CHUNKED))
            await asyncio.sleep(0.5)
            found, _ = await client.ask(path, get("/volumes/create", method="POST", body=b"{}"))
            assert found.status == 201

    serve(tmp_path, check)


def test_who_takes_nothing_is_cut_off(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "STALL_SECONDS", SHORT)
    ended: list[BaseException] = []

    async def handler(call: Call) -> None:
        outlet = flows.Outlet(call, "x/y")

        def copy(engine: Engine) -> None:
            try:
                for _ in range(1000):
                    outlet.write(bytes(64 << 10))
            except BaseException as error:
                ended.append(error)
                raise

        await call.transfer(copy)

    monkeypatch.setattr(router, "find", lambda *_: (handler, {}))

    async def check(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(get("/images/get"))
        deadline = time.monotonic() + 20
        while not ended:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.IncompleteReadError):
            await client.answer(reader)
        writer.close()

    serve(tmp_path, check)


def test_a_full_house(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 8)

    async def check(path: str) -> None:
        async with contextlib.AsyncExitStack() as held:
            busy, writer = await asyncio.open_unix_connection(path)
            held.callback(writer.close)
            writer.write(get("/events"))
            assert (await busy.readline()).startswith(b"HTTP/1.1 200")
            for _ in range(40):
                _, other = await asyncio.open_unix_connection(path)
                held.callback(other.close)
            for _ in range(3):
                assert (await client.ask(path, get("/_ping")))[0].status == 200
            found, _ = await client.ask(path, get("/volumes/create", method="POST", body=b"{}"))
            name = found.document["Name"]
            text = await asyncio.wait_for(busy.readuntil(name.encode()), 10)
            assert b'"create"' in text

    serve(tmp_path, check)


@pytest.mark.parametrize("fault", ["queue", "watch", "query"])
def test_events_are_heard_whatever_fails_first(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    """Too many open files while somebody listens must not leave all who listen without a word."""
    failures = [OSError(errno.EMFILE, "Too many open files")] * 3
    original = {"queue": Inotify, "watch": Inotify.watch, "query": events.recorded}[fault]

    def failing(*args: object, **kwargs: object) -> object:
        if failures:
            raise failures.pop()
        return original(*args, **kwargs)  # type: ignore[operator]

    async def check(path: str) -> None:
        engine = Engine(Settings(str(tmp_path / "root"), str(tmp_path / "state")))
        engine.volumes.create("before")
        place = {"queue": (hub, "Inotify"), "watch": (Inotify, "watch"),
                 "query": (events, "recorded")}[fault]  # fmt: skip
        monkeypatch.setattr(*place, failing)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(get("/events"))
        assert (await client.answer_head(reader)).status == 200
        await asyncio.sleep(0.2)
        engine.volumes.create("after")
        text = await asyncio.wait_for(reader.readuntil(b"\n"), 10)
        while b"{" not in text:
            text = await asyncio.wait_for(reader.readuntil(b"\n"), 10)
        assert json.loads(text)["Actor"]["ID"] == "after"
        writer.close()

    serve(tmp_path, check)
    assert not failures
    assert "too many open files" in capfd.readouterr().err.lower()
