"""The library for asyncio: the same objects, whose methods are awaited.

    async with ketch.aio.Engine() as engine:
        container = await engine.containers.run("busybox", ["sleep", "9"], detach=True)
        async for stream, line in container.follow_logs(): ...

    async with await ketch.aio.Sandbox.create("busybox") as sandbox:
        print((await sandbox.run("echo hi")).text)

What these names are to type checkers and editors stands in ``aio.pyi``.
"""

from ketch.library.awaiting import (
    Archive,
    Container,
    Containers,
    Engine,
    Image,
    Images,
    Network,
    Networks,
    Session,
    Volume,
    Volumes,
)
from ketch.sandbox.awaited_pool import Pool
from ketch.sandbox.awaiting import Files, Process, Sandbox

__all__ = [
    "Archive", "Container", "Containers", "Engine", "Files", "Image", "Images", "Network",
    "Networks", "Pool", "Process", "Sandbox", "Session", "Volume", "Volumes",
]  # fmt: skip
