"""``ketch.aio.Sandbox``: the same, awaited; who is cancelled leaves nothing behind."""

import asyncio
import inspect
import pathlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, assert_type

import pytest

import ketch
import ketch.aio
from ketch.errors import ConflictError, NotFoundError
from tests.support.commands import Engine as Command

pytestmark = pytest.mark.in_process

PROGRAMS = {place: place for place in ("/usr", "/lib", "/lib64") if pathlib.Path(place).exists()}
needs_python = pytest.mark.skipif(
    not pathlib.Path("/usr/bin/python3").exists(), reason="this machine has no /usr/bin/python3"
)

Main = Callable[["ketch.aio.Engine"], Awaitable[None]]


@pytest.fixture
def places(ketch: Command) -> tuple[str, str]:
    options = list(ketch.prefix)
    return options[options.index("--root") + 1], options[options.index("--state") + 1]


def _run(places: tuple[str, str], main: Main) -> None:
    async def whole() -> None:
        async with ketch.aio.Engine(*places) as engine:
            await main(engine)
            assert await engine.containers.list(all=True) == []

    asyncio.run(whole())


async def _programs(sandbox: ketch.aio.Sandbox) -> str:
    return (await sandbox.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).text


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 30
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def test_everything_is_awaited(places: tuple[str, str], tmp_path: pathlib.Path) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        made = await ketch.aio.Sandbox.create("busybox", engine=engine)
        async with made as sandbox:
            assert inspect.iscoroutinefunction(sandbox.run)
            result = await sandbox.run("echo hi; exit 3")
            assert (result.status, result.text) == (3, "hi\n")
            assert (await sandbox.run_code("cd /tmp; pwd", "shell")).stdout == "/tmp\n"
            await sandbox.files.write("a/b", "text")
            assert [one.path for one in await sandbox.files.list("a")] == ["/workspace/a/b"]
            await sandbox.files.download("a", tmp_path / "down")
            assert (tmp_path / "down" / "b").read_text() == "text"
            session = await sandbox.start(["cat"], stdin=True)
            await session.write(b"words")
            await session.end_input()
            assert [piece async for piece in session] == [("stdout", b"words")]
            (fork,) = await sandbox.fork()
            async with fork:
                assert await fork.files.read("a/b") == b"text"
            (found,) = await ketch.aio.Sandbox.list(engine=engine)
            same = await ketch.aio.Sandbox.connect(sandbox.name, engine=engine)
            assert found.id == same.id == sandbox.id
        assert not await asyncio.to_thread(lambda: sandbox.is_running)
        with pytest.raises(NotFoundError):
            await ketch.aio.Sandbox.connect(sandbox.name, engine=engine)

    _run(places, main)


def test_who_cancels_ends_what_runs(places: tuple[str, str]) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        async with await ketch.aio.Sandbox.create("busybox", engine=engine) as sandbox:
            task = asyncio.create_task(sandbox.run("sleep 1234 & sleep 1235"))
            await _until(lambda: _has(sandbox, "1235"))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert "sleep 123" not in await _programs(sandbox)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sandbox.run_code("sleep 1236", "shell"), 0.5)
            await _until(lambda: _lacks(sandbox, "1236"))
            assert (await sandbox.run_code("echo again", "shell")).stdout == "again\n"

    _run(places, main)


async def _has(sandbox: ketch.aio.Sandbox, word: str) -> bool:
    return f"sleep {word}" in await _programs(sandbox)


async def _lacks(sandbox: ketch.aio.Sandbox, word: str) -> bool:
    return f"sleep {word}" not in await _programs(sandbox)


def test_who_waits_for_a_turn_and_leaves_takes_nobody_s_state(places: tuple[str, str]) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        async with await ketch.aio.Sandbox.create("busybox", engine=engine) as sandbox:
            await sandbox.run_code("a=kept", "shell")
            first = asyncio.create_task(sandbox.run_code("sleep 1; echo $a", "shell"))
            await asyncio.sleep(0.2)
            second = asyncio.create_task(sandbox.run_code("a=lost", "shell"))
            await asyncio.sleep(0.2)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            assert (await first).stdout == "kept\n"
            assert (await sandbox.run_code("echo $a", "shell")).stdout == "kept\n"

    _run(places, main)


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06, 0.1, 0.2])
def test_one_whose_making_is_cancelled_is_not_there(places: tuple[str, str], delay: float) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        before = len(await engine.images.list(all=True))
        task = asyncio.create_task(ketch.aio.Sandbox.create("busybox", engine=engine))
        await asyncio.sleep(delay)
        task.cancel()
        try:
            left = await task
        except asyncio.CancelledError:
            assert await ketch.aio.Sandbox.list(engine=engine) == []
            left = await ketch.aio.Sandbox.create("busybox", engine=engine)
        async with left:
            forking = asyncio.create_task(left.fork(2))
            await asyncio.sleep(delay * 4)
            forking.cancel()
            try:
                for one in await forking:
                    await one.kill()
            except asyncio.CancelledError:
                assert len(await ketch.aio.Sandbox.list(engine=engine)) == 1
        assert len(await engine.images.list(all=True)) == before

    _run(places, main)


def test_a_pool_gives_each_once(places: tuple[str, str]) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        async with ketch.aio.Pool(2, "busybox", engine=engine) as pool:
            async with await pool.acquire() as first, await pool.acquire() as second:
                assert first.name != second.name
                await first.files.write("mark", "x")

            async def work(sandbox: ketch.aio.Sandbox, item: int) -> str:
                if item == 9:
                    raise ValueError(item)
                return (await sandbox.run(f"ls; echo {item}")).text

            assert [text async for text in pool.map(work, range(3))] == ["0\n", "1\n", "2\n"]
            with pytest.raises(ValueError, match="9"):
                _ = [text async for text in pool.map(work, (1, 9, 1, 1))]
            waiting = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0)
            waiting.cancel()
        with pytest.raises(ConflictError, match="closed"):
            await pool.acquire()
        async with ketch.aio.Pool(1, "no-such-image", engine=engine, pull="never") as broken:
            with pytest.raises(NotFoundError):
                await broken.acquire()

    _run(places, main)


if TYPE_CHECKING:
    # Never run: mypy fails where a type is another, or where an error that it is to find is none.

    async def _typed(sandbox: ketch.aio.Sandbox, pool: ketch.aio.Pool) -> None:
        assert_type(await ketch.aio.Sandbox.create("busybox"), ketch.aio.Sandbox)
        assert_type(await ketch.aio.Sandbox.list(), list[ketch.aio.Sandbox])
        assert_type(await sandbox.run("true"), ketch.RunResult)
        assert_type(await sandbox.run_code("1"), ketch.CodeResult)
        assert_type(await sandbox.start("true"), ketch.aio.Process)
        assert_type(await sandbox.files.list(), list[ketch.Entry])
        assert_type(await sandbox.fork(2), list[ketch.aio.Sandbox])
        assert_type(await sandbox.snapshot(), ketch.aio.Image)
        assert_type(await pool.acquire(), ketch.aio.Sandbox)

        async def measure(one: ketch.aio.Sandbox, item: str) -> int:
            return len(item + one.name)

        assert_type(pool.map(measure, ["a"]), AsyncIterator[int])
        pool.map(measure, [1])  # type: ignore[arg-type]
        await sandbox.run_code("1", "cobol")  # type: ignore[arg-type]
