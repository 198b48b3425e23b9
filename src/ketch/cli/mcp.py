"""``ketch mcp``: a sandbox as the tools of a language model, by the Model Context Protocol.

The protocol is the package ``mcp``'s, an extra. One sandbox is made with the first call of a tool,
and all who are connected share it.
"""

import asyncio
import contextlib
import re
import secrets as randomness
import signal
import sys
from typing import TYPE_CHECKING, Any

from ketch.cli import sandboxes
from ketch.cli.flags import Command, Flag, parse
from ketch.errors import InvalidArgumentError, KetchError, UnsupportedError
from ketch.spec.digits import decimal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ketch import aio
    from ketch.cli.flags import Parsed
    from ketch.engine.settings import Settings

_OUTPUT_BYTES = 64 << 10
_TIMEOUT_MAX = 3600.0
_SNAPSHOTS_MAX = 16  # each is the user's disk's, and nobody else bounds how many a model makes
_SNAPSHOT_NAME = re.compile("[a-z0-9][a-z0-9_-]{0,63}")
MCP = Command(
    "ketch mcp [OPTIONS]",
    "Serve a sandbox to language models, by the Model Context Protocol\n\n"
    "A program such as a desktop assistant starts this and talks to it by its standard input and "
    "output; with --http many can, on this machine alone. The tools run, run_code, read, write, "
    "list and snapshot work in one sandbox, of the machine's programs and a project or of an "
    "image. With a project, changes tells of what was done to it, and 'ketch sandbox apply' takes "
    "that over. It needs the package: pip install 'ketch[mcp]'.",
    (
        *(flag for flag in sandboxes.RUN.flags if flag.name not in {"rm", "publish"}),
        Flag("http", help="Serve streamable HTTP at this port of 127.0.0.1; 0 for any"),
        Flag("max-output", "", "int", "How many bytes of output are told", default=_OUTPUT_BYTES),
        Flag("token", help="Part of the address under --http that others are not to guess "
             "(default: a new one each time)"),
    ),
    maximum_arguments=0,
)  # fmt: skip


def mcp(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch mcp``."""
    parsed = parse(MCP, arguments)
    port, token = parsed.text("http"), parsed.text("token") or randomness.token_urlsafe(16)
    number = decimal(port or "0")
    if number is None or number >= 1 << 16:
        raise InvalidArgumentError(f"--http {port}: it is no port")
    if not all(letter.isalnum() or letter in "-_" for letter in token):
        raise InvalidArgumentError(f"--token {token}: letters, digits, - and _ are wanted")
    _package()
    # As Ctrl-C: what serves HTTP lets go of its connections, then hands the signal on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(settings, parsed, port, token))
    return 0


def _package() -> "tuple[Any, type[Exception]]":
    """Returns the package's server, and its error for what a tool could not do."""
    try:
        from mcp.server import MCPServer  # noqa: PLC0415 - an extra
        from mcp.server.mcpserver.exceptions import ToolError  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise UnsupportedError(
            "ketch mcp needs the Python package mcp, of version 2 or later",
            "install it beside ketch: pip install 'ketch[mcp]'",
        ) from error
    return MCPServer, ToolError


async def _serve(settings: "Settings", parsed: "Parsed", port: str, token: str) -> None:
    from ketch import __version__, aio  # noqa: PLC0415 - loads asyncio's library

    server_class, tool_error = _package()
    async with aio.Engine(settings.root, settings.state, zygote=settings.zygote) as engine:
        tools = Tools(settings, engine, parsed, tool_error)
        server = server_class(
            "ketch", version=__version__, instructions=_INSTRUCTIONS, log_level="WARNING"
        )
        for tool in tools.all():
            server.add_tool(tool, name=tool.__name__.rstrip("_"))
        try:
            if not port:
                await server.run_stdio_async()
                return
            chosen = int(port) or _free_port()
            path = f"/{token}/mcp"
            sys.stderr.write(f"http://127.0.0.1:{chosen}{path}\n")
            sys.stderr.flush()
            await server.run_streamable_http_async(
                host="127.0.0.1", port=chosen, streamable_http_path=path
            )
        finally:
            await tools.close()


_INSTRUCTIONS = (
    "A locked sandbox on the user's machine: programs run without privileges, without a network "
    "unless it was allowed, and with bounded memory, disk and time. Files outlive calls."
)


def _free_port() -> int:
    import socket  # noqa: PLC0415 - for --http 0 alone

    with socket.create_server(("127.0.0.1", 0)) as found:
        number: int = found.getsockname()[1]
    return number


class Tools:
    """What a model can do, each method a tool: its docstring is what the model reads.

    Args:
        settings: of the engine.
        engine: where the sandbox is made.
        parsed: the command line, which says how.
        error: the class of errors that a model is told of.
    """

    def __init__(
        self, settings: "Settings", engine: "aio.Engine", parsed: "Parsed", error: type[Exception]
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._image, self._project = parsed.text("image"), parsed.text("project")
        self._create = sandboxes.creation(parsed)
        if self._image:  # nothing of it is wanted afterwards
            self._create["lifetime"] = "process"
        self._max_output = parsed.number("max-output")
        self._error = error
        self._making = asyncio.Lock()
        self._snapshots = 0
        self._sandbox: aio.Sandbox | None = None

    def all(self) -> "list[Callable[..., Any]]":
        """Returns the tools."""
        tools: list[Callable[..., Any]] = [
            self.run, self.run_code, self.read, self.write, self.list_, self.snapshot,
        ]  # fmt: skip
        return tools if self._image else [*tools, self.changes]

    async def close(self) -> None:
        """Kill the sandbox, unless there are changes that its user may want."""
        if self._sandbox is None:
            return
        with contextlib.suppress(KetchError):
            if sandboxes.tell_of_changes(self._sandbox.name, sandboxes.engine_of(self._settings)):
                return
        await self._sandbox.kill()

    async def run(self, command: str, timeout: float = 60.0, stdin: str = "") -> "dict[str, Any]":
        """Run a shell command and tell its exit status and output.

        Args:
            command: for /bin/sh.
            timeout: seconds after which it is killed.
            stdin: what it gets to read.
        """
        async with self._used() as sandbox:
            result = await sandbox.run(
                command, stdin=stdin.encode(), timeout=self._bounded(timeout),
                max_output=self._max_output,
            )  # fmt: skip
        told = result._asdict()
        return {**told, "stdout": _text(result.stdout), "stderr": _text(result.stderr)}

    async def run_code(
        self, code: str, language: str = "python", context: str = "default", timeout: float = 60.0
    ) -> "dict[str, Any]":
        """Run code in an interpreter that keeps its variables between calls.

        Args:
            code: the code; the value of its last expression is told as text.
            language: python, shell or node.
            context: of several interpreters, the name of this one.
            timeout: seconds after which it is interrupted.
        """
        languages: Any = language
        async with self._used() as sandbox:
            result = await sandbox.run_code(
                code, languages, context, timeout=self._bounded(timeout),
                max_output=self._max_output,
            )  # fmt: skip
        return {**result._asdict(), "error": result.error and result.error._asdict()}

    async def read(self, path: str) -> str:
        """Read a text file of the sandbox."""
        async with self._used() as sandbox:
            return _text(await sandbox.files.read(path, max_bytes=self._max_output))

    async def write(self, path: str, content: str) -> str:
        """Write a text file in the sandbox; directories above it are made."""
        async with self._used() as sandbox:
            await sandbox.files.write(path, content)
        return f"{path} is written"

    async def list_(self, path: str = ".", recursive: bool = False) -> "list[dict[str, Any]]":
        """List a directory of the sandbox."""
        async with self._used() as sandbox:
            return [one._asdict() for one in await sandbox.files.list(path, recursive=recursive)]

    async def snapshot(self, name: str = "") -> str:
        """Keep the sandbox's files as an image, and tell its ID; what runs is not kept.

        Args:
            name: what it is called, one word: the image is localhost/sandbox/NAME. Without one the
                image has its ID alone.
        """
        # Under any other name it could take the place of an image that its user runs.
        if name and not _SNAPSHOT_NAME.fullmatch(name):
            raise self._error(f"name: one word of small letters, digits, - and _ is wanted: {name}")
        async with self._used() as sandbox:
            if self._snapshots == _SNAPSHOTS_MAX:
                raise self._error(f"no more than {_SNAPSHOTS_MAX} snapshots")
            self._snapshots += 1
            return (await sandbox.snapshot(name and f"localhost/sandbox/{name}")).id

    async def changes(self) -> "list[dict[str, Any]]":
        """Tell what was done to the project, with differences of text files, short ones first."""
        async with self._used() as sandbox:
            found = await sandbox.changes()
        left = self._max_output
        texts = {}
        for one in sorted(found, key=lambda one: len(one.text)):
            left -= len(one.text)
            texts[one.path] = one.text if left >= 0 else "(left out: too much for one answer)\n"
        return [{**one._asdict(), "text": texts[one.path]} for one in found]

    @contextlib.asynccontextmanager
    async def _used(self) -> "AsyncIterator[aio.Sandbox]":
        """Give the sandbox, which is made where there is none, for a block."""
        from ketch import aio  # noqa: PLC0415 - loads asyncio's library

        try:
            async with self._making:
                last = self._sandbox
                if last is not None and not await asyncio.to_thread(lambda: last.is_running):
                    self._sandbox = None
                    raise self._error(
                        "the sandbox has ended: its time or its memory was up. The next call "
                        "begins another, without its files"
                    )
                if self._sandbox is None:
                    self._sandbox = await (
                        aio.Sandbox.create(self._image, engine=self._engine, **self._create)
                        if self._image
                        else aio.Sandbox.host(self._project, engine=self._engine, **self._create)
                    )
            yield self._sandbox
        except KetchError as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise self._error(f"{error.message}{hint}") from error

    def _bounded(self, timeout: float) -> float:
        if not 0 < timeout <= _TIMEOUT_MAX:
            raise self._error(f"timeout: up to {_TIMEOUT_MAX:g} seconds")
        return timeout


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
