"""``ketch mcp``: a sandbox as a model's tools, by the protocol's own package."""

import asyncio
import contextlib
import os
import pathlib
import re
import subprocess
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.commands import Engine

mcp = pytest.importorskip("mcp", reason="the extra ketch[mcp] is not installed")


async def _call(client: Any, tool: str, **arguments: object) -> Any:
    """Call a tool; returns what it told, and raises what it refused."""
    result = await client.call_tool(tool, arguments)
    text = "".join(one.text for one in result.content)
    if result.is_error:
        raise AssertionError(text)
    found = result.structured_content
    return found["result"] if found is not None and set(found) == {"result"} else (found or text)


@contextlib.asynccontextmanager
async def _by_stdio(ketch: Engine, *flags: str) -> AsyncIterator[Any]:
    from mcp.client.stdio import stdio_client

    command, *prefix = ketch.prefix
    server = mcp.StdioServerParameters(command=command, args=[*prefix, "mcp", *flags])
    async with mcp.Client(stdio_client(server)) as client:
        yield client


def _unlimited(engine: Engine) -> list[str]:
    """Flags that ask for no limits, where there can be none."""
    return [] if engine.limits else ["--memory=0", "--cpus=0", "--pids-limit=0"]


def test_a_model_works_on_a_project(ketch_engine: Engine, tmp_path: pathlib.Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "file").write_text("one\n")

    async def main() -> None:
        async with _by_stdio(
            ketch_engine, "--project", str(project), "--name", "models", "--max-output", "1000",
            *_unlimited(ketch_engine),
        ) as client:  # fmt: skip
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == {
                "run", "run_code", "read", "write", "list", "snapshot", "changes",
            }  # fmt: skip
            assert all(tool.description for tool in tools.values())
            done = await _call(client, "run", command="cat file; cat >&2; exit 3", stdin="typed")
            assert (done["status"], done["stdout"], done["stderr"]) == (3, "one\n", "typed")
            late = await _call(client, "run", command="sleep 100", timeout=0.5)
            assert late["timed_out"]
            loud = await _call(client, "run", command="yes")
            assert (loud["truncated"], len(loud["stdout"])) == (True, 1000)
            await _call(client, "run_code", code="x=42", language="shell")
            told = await _call(client, "run_code", code="echo $x", language="shell")
            assert told["stdout"] == "42\n"
            await _call(client, "write", path="new/file", content="two\n")
            assert "two" in str(await _call(client, "read", path="new/file"))
            listed = await _call(client, "list", path="new")
            assert [one["path"] for one in listed] == [f"{project}/new/file"]
            changed = await _call(client, "changes")
            assert [one["path"] for one in changed] == ["new", "new/file"]
            await _call(client, "run", command="seq 400 > new/long")
            told = {one["path"]: one["text"] for one in await _call(client, "changes")}
            assert "+two" in told["new/file"]
            assert told["new/long"].startswith("(left out")
            await _call(client, "run", command="rm new/long")
            for tool, wrong in (
                ("read", {"path": "nosuch"}), ("run", {"command": "x", "timeout": -1}),
                ("run_code", {"code": "x", "language": "cobol"}),
            ):  # fmt: skip
                assert (await client.call_tool(tool, wrong)).is_error, tool

    asyncio.run(main())
    assert not (project / "new").exists()
    assert ketch_engine("sandbox", "apply", "models").out == "A new\nA new/file\n"
    assert ketch_engine("sandbox", "rm", "models").status == 0


def test_a_model_works_in_an_image_and_leaves_nothing(ketch_engine: Engine) -> None:
    async def main() -> None:
        limits = _unlimited(ketch_engine) or ["--memory", "64m"]
        async with _by_stdio(ketch_engine, "--image", "busybox", *limits) as client:
            assert "changes" not in {tool.name for tool in (await client.list_tools()).tools}
            assert (await _call(client, "run", command="pwd"))["stdout"] == "/workspace\n"
            (name,) = ketch_engine("sandbox", "ls", "-q").out.splitlines()
            ketch_engine.ok("sandbox", "rm", name)
            ended = await client.call_tool("run", {"command": "pwd"})
            assert ended.is_error
            assert (await _call(client, "run", command="pwd"))["stdout"] == "/workspace\n"
            image = await _call(client, "snapshot")
            ketch_engine.ok("rmi", str(image))

    asyncio.run(main())
    assert ketch_engine("sandbox", "ls", "-q").out == ""


def test_a_model_takes_no_image_s_place_and_keeps_so_many(ketch_engine: Engine) -> None:
    """Whoever runs an image by its name runs none that a sandbox has made, unless it says so."""
    before = ketch_engine.ok("image", "inspect", "-f", "{{.Id}}", "busybox")

    async def main() -> None:
        flags = _unlimited(ketch_engine)
        async with _by_stdio(ketch_engine, "--image", "busybox", *flags) as client:
            for name in ("busybox", "busybox:latest"):
                told = await client.call_tool("snapshot", {"name": name})
                assert told.is_error == (":" in name), told
            for name in (
                "docker.io/library/busybox",
                "../busybox",
                "a@b",
                "A",
                "a\n",
                "-",
                "a" * 65,
            ):
                assert (await client.call_tool("snapshot", {"name": name})).is_error, name
            for _ in range(15):
                image = await _call(client, "snapshot", name="kept")
            assert (await client.call_tool("snapshot", {})).is_error
            named = ketch_engine.ok("image", "inspect", "-f", "{{.Id}}", "localhost/sandbox/kept")
            assert named.strip() == image

    asyncio.run(main())
    assert ketch_engine.ok("image", "inspect", "-f", "{{.Id}}", "busybox") == before
    ketch_engine.ok("rmi", "-f", "localhost/sandbox/kept", "localhost/sandbox/busybox")
    ketch_engine.ok("image", "prune", "-f")


def test_many_are_served_on_this_machine_alone(ketch_engine: Engine) -> None:
    flags = ("--image", "busybox", "--http", "0", *_unlimited(ketch_engine))
    command = [*ketch_engine.prefix, "mcp", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = server.stderr.readline().strip()
            found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/([\w-]{16,})/mcp", address)
            assert found, address

            async def main() -> None:
                for _ in range(100):
                    with contextlib.suppress(Exception):
                        async with mcp.Client(address) as client:
                            await client.list_tools()
                            break
                    await asyncio.sleep(0.1)
                async with mcp.Client(address) as one, mcp.Client(address) as two:
                    await _call(one, "write", path="shared", content="x")
                    assert (await _call(two, "run", command="cat shared"))["stdout"] == "x"
                with pytest.raises(Exception):  # noqa: B017, PT011 - of whatever the package has
                    async with mcp.Client(f"http://127.0.0.1:{found[1]}/mcp") as stranger:
                        await stranger.list_tools()

            asyncio.run(main())
        finally:
            server.terminate()
            server.wait(timeout=30)
    deadline = time.monotonic() + 30
    while ketch_engine("sandbox", "ls", "-q").out:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_without_the_package_it_says_what_to_install(
    ketch_engine: Engine, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "mcp").mkdir()
    (tmp_path / "mcp" / "__init__.py").write_text("")
    told = subprocess.run(
        [*ketch_engine.prefix, "mcp"], env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (told.returncode, "pip install 'ketch[mcp]'" in told.stderr) == (1, True), told
