"""``ketch.aio``: what is awaited, iterated over, cancelled and forgotten."""

import asyncio
import contextlib
import gc
import inspect
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tarfile
import threading
import time
import warnings
from collections.abc import Awaitable, Callable

import pytest

import ketch
import ketch.aio
from ketch.errors import InvalidArgumentError, NotFoundError, UnavailableError
from tests.support.commands import Engine as Command

pytestmark = pytest.mark.in_process

Places = tuple[str, str]
Main = Callable[["ketch.aio.Engine"], Awaitable[None]]

_SLEEP = ["sleep", "1000"]


@pytest.fixture
def places(ketch: Command) -> Places:
    options = list(ketch.prefix)
    return options[options.index("--root") + 1], options[options.index("--state") + 1]


def _run(places: Places, main: Main) -> None:
    async def whole() -> None:
        async with ketch.aio.Engine(*places) as engine:
            await main(engine)

    asyncio.run(whole())


def _threads() -> int:
    """Count the threads that work for the library: those that are kept for more are few."""
    return sum(thread.name == "ketch" for thread in threading.enumerate())


async def _eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


def test_a_method_is_a_coroutine_function_and_an_iterator_is_one(places: Places) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        assert inspect.iscoroutinefunction(engine.containers.run)
        assert inspect.iscoroutinefunction(engine.info)
        task = asyncio.create_task(engine.containers.run("busybox", ["echo", "hi"], rm=True))
        assert await task == b"hi\n"
        async with await engine.containers.run("busybox", _SLEEP, detach=True) as container:
            assert (await anext(container.stats()))["id"] == container.id
            assert inspect.isasyncgen(container.log_entries(follow=True))
            with pytest.raises(NotFoundError):
                await engine.containers.get("nobody")
            with pytest.raises(InvalidArgumentError, match="nonsense"):
                await anext(container.log_entries(since="nonsense"))

    _run(places, main)


def test_a_call_that_is_not_awaited_warns(places: Places) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            engine.containers.run("busybox", ["true"])  # type: ignore[unused-coroutine]
            gc.collect()
        assert ["was never awaited" in str(warning.message) for warning in seen] == [True]

    _run(places, main)


def test_many_that_wait_keep_nobody_waiting_and_end_when_they_are_cancelled(
    places: Places,
) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        started = [
            asyncio.create_task(engine.containers.run("busybox", _SLEEP, name=f"lib-many-{number}"))
            for number in range(34)
        ]
        while len(await engine.containers.list(filters={"name": "lib-many"})) < len(started):
            await asyncio.sleep(0.05)
        for task in started:
            task.cancel()
        ended = await asyncio.gather(*started, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        # What a cancelled run has made is gone by the time that its cancellation is heard of.
        assert await engine.containers.list(all=True) == []
        await _eventually(lambda: _threads() <= 4, "threads are kept")

    _run(places, main)


def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing(places: Places) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        volumes = len(await engine.volumes.list())
        for number in range(10):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    engine.containers.run("busybox", _SLEEP, volume=["/data"]), number / 60
                )
            assert await engine.containers.list(all=True) == [], number
        for number in range(5):
            for begin in (
                engine.containers.run("busybox", _SLEEP, detach=True, volume=["/data"]),
                engine.containers.create("busybox", _SLEEP, volume=["/data"]),
                engine.containers.start("busybox", _SLEEP, volume=["/data"]),
            ):
                task = asyncio.create_task(begin)
                await asyncio.sleep(number / 40)
                if not task.cancel():
                    made = await task
                    assert isinstance(made, (ketch.aio.Container, ketch.aio.Session))
                    await (await engine.containers.get(made.id)).remove(force=True, volumes=True)
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                assert await engine.containers.list(all=True) == [], number
        assert len(await engine.volumes.list()) == volumes

    _run(places, main)


def test_a_result_that_comes_as_its_task_is_cancelled_is_put_away(places: Places) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        for begin in (
            engine.containers.run("busybox", _SLEEP, detach=True),
            engine.containers.create("busybox", _SLEEP),
        ):
            task = asyncio.create_task(begin)
            await asyncio.sleep(0)
            time.sleep(1)  # the loop hears of nothing until then
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await engine.containers.list(all=True) == []

    _run(places, main)


def test_what_waits_for_a_container_is_cancelled_alone(places: Places) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        stubborn = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
        async with await engine.containers.run("busybox", stubborn, detach=True) as container:
            for wait in (
                container.wait(),
                container.wait("next-exit"),
                container.wait("removed"),
                container.stop(timeout=-1),
                anext(container.follow_logs()),
                anext(container.log_entries(follow=True)),
            ):
                begun = time.monotonic()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(wait, 0.1)
                assert time.monotonic() - begun < 5
            session = await container.attach()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.read(), 0.1)
            await session.close()
            await container.reload()
            assert container.status == "running"
            await _eventually(lambda: _threads() <= 4, "threads are kept")

    _run(places, main)


def test_a_program_whose_exec_is_cancelled_is_killed(places: Places) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        async with await engine.containers.run("busybox", _SLEEP, detach=True) as container:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(container.exec_run(["sleep", "777"]), 1)
            _, rows = await container.top()
            assert [row[-1] for row in rows] == ["sleep 1000"]

    _run(places, main)


def test_a_write_that_is_cancelled_breaks_no_later_one(places: Places) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        slow = ["sh", "-c", "sleep 1; wc -c"]
        async with await engine.containers.start("busybox", slow, interactive=True, rm=True) as it:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(it.write(bytes(8 << 20)), 0.3)
            await it.write(b"more")
            await it.end_input()
            (output, _) = await it.read()
            assert (it.exit_status, int(output) > 1 << 20) == (0, True)

    _run(places, main)


def test_iterators_that_are_left_keep_no_threads(places: Places) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        async def listen() -> None:
            async for _ in engine.events():
                pass

        ended = await asyncio.gather(
            *(asyncio.wait_for(listen(), 0.2) for _ in range(50)), return_exceptions=True
        )
        assert all(isinstance(one, TimeoutError) for one in ended)
        await _eventually(lambda: _threads() <= 4, "threads of iterators that timed out")
        async with await engine.containers.run("busybox", _SLEEP, detach=True) as container:
            for _ in range(20):
                async for _sample in container.stats():
                    break  # and nobody closes it
            await anext(container.stats())
            gc.collect()
            await _eventually(lambda: _threads() <= 4, "threads of iterators that were left")

    _run(places, main)


_INTERRUPTED = """
import asyncio, sys, ketch, ketch.aio
async def whole():
    async with ketch.aio.Engine(*sys.argv[1:]) as engine:
        await asyncio.gather(*(
            engine.containers.run("busybox", ["sh", "-c", "trap '' INT TERM; sleep 1000"])
            for _ in range(3)
        ))
def plain():
    ketch.Engine(*sys.argv[1:]).containers.run("busybox", ["sleep", "1000"])
"""


@pytest.mark.parametrize(("count", "call"), [(3, "asyncio.run(whole())"), (1, "plain()")])
def test_ctrl_c_ends_a_run_within_a_moment(places: Places, count: int, call: str) -> None:
    program = [sys.executable, "-c", f"{_INTERRUPTED}\n{call}", *places]
    library = ketch.Engine(*places)
    with subprocess.Popen(program, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while len(library.containers.list()) < count:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        try:
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()  # or its end is waited for without one
    assert time.monotonic() - begun < 15
    assert errors.rstrip().endswith(b"KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT
    assert library.containers.list(all=True) == []


def test_closing_an_engine_calls_off_what_it_does(places: Places) -> None:
    async def main() -> None:
        engine = ketch.aio.Engine(*places)
        task = asyncio.create_task(engine.containers.run("busybox", _SLEEP))
        events = engine.events()
        following = asyncio.ensure_future(anext(events))
        while not await engine.containers.list():
            await asyncio.sleep(0.02)
        await following
        await engine.close()
        with pytest.raises(UnavailableError, match="closed"):
            await task
        with pytest.raises(UnavailableError, match="closed"):
            await engine.info()
        await _eventually(lambda: _threads() == 0, "threads are kept")

    asyncio.run(main())
    assert ketch.Engine(*places).containers.list(all=True) == []


def test_too_many_open_files_are_an_error_and_no_hang(places: Places) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        await engine.info()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
        try:
            waiting = (engine.events(since="1h", until="1s") for _ in range(60))
            ended = await asyncio.gather(*map(anext, waiting), return_exceptions=True)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        errors = [one for one in ended if isinstance(one, BaseException)]
        errors = [one for one in errors if not isinstance(one, StopAsyncIteration)]  # no events
        assert errors
        assert all(isinstance(one, (OSError, UnavailableError)) for one in errors), errors
        assert (await engine.containers.run("busybox", ["echo", "hi"], rm=True)) == b"hi\n"

    _run(places, main)


def test_archives_are_read_and_written(places: Places, tmp_path: pathlib.Path) -> None:
    async def main(engine: ketch.aio.Engine) -> None:
        async with await engine.containers.create("busybox", ["cat", "/new/file"]) as container:
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "file").write_text("kept\n")
            await container.copy_to(f"{tmp_path}/new", "/")
            async with await container.get_archive("/new") as archive:
                pieces = [piece async for piece in archive]
            (tmp_path / "got.tar").write_bytes(b"".join(pieces))
            with tarfile.open(tmp_path / "got.tar") as found:
                assert found.getnames() == ["new", "new/file"]
            async with await container.export() as archive:
                await container.put_archive("/tmp", archive)
            await container.start()
            assert (await container.wait(), await container.logs()) == (0, b"kept\n")
            assert ("added", "/tmp/new/file") in await container.diff()

    _run(places, main)


def test_a_pull_that_is_cancelled_ends(places: Places) -> None:
    """A registry that says nothing holds a task, a process's end and a thread up no longer."""

    async def main(engine: ketch.aio.Engine) -> None:
        silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.images.pull(f"127.0.0.1:{port}/some/image"), 0.5)
        assert time.monotonic() - begun < 5
        await _eventually(lambda: _threads() <= 1 and not _connected(port), "it still waits")
        silent.close()

    _run(places, main)


def _connected(port: int) -> bool:
    """Whether this process has a connection to a port of this machine."""
    inodes = set()
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2] == f"0100007F:{port:04X}":
            inodes.add(f"socket:[{fields[9]}]")
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") in inodes:
                return True
    return False
