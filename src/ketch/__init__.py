"""ketch: a complete Linux container engine in Python.

    import ketch
    print(ketch.Engine().containers.run("busybox", ["echo", "hi"], rm=True))

``Engine`` is the library's entrance, ``Sandbox`` that of programs which nobody has read;
``ketch.aio`` has one for asyncio, ``ketch.errors`` what goes wrong. They are loaded when they are
first asked for, since the command line has no use for them.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch import aio, errors
    from ketch.library.archives import Archive
    from ketch.library.container import Change, Container, LogEntry, Result
    from ketch.library.engine import Engine
    from ketch.library.images import Image
    from ketch.library.networks import Network
    from ketch.library.sessions import Session
    from ketch.library.volumes import Volume
    from ketch.sandbox.changes import ProjectChange
    from ketch.sandbox.code import CodeError, CodeResult
    from ketch.sandbox.egress.record import Connection
    from ketch.sandbox.egress.secret import Secret
    from ketch.sandbox.files import Entry, Files
    from ketch.sandbox.pool import Pool
    from ketch.sandbox.programs import Process, RunResult
    from ketch.sandbox.sandbox import Sandbox
    from ketch.sandbox.watching import FileEvent

__version__ = "0.1.0"
__all__ = [
    "Archive", "Change", "CodeError", "CodeResult", "Connection", "Container", "Engine", "Entry",
    "FileEvent", "Files", "Image", "LogEntry", "Network", "Pool", "Process", "ProjectChange",
    "Result", "RunResult", "Sandbox", "Secret", "Session", "Volume", "__version__", "aio", "errors",
]  # fmt: skip
# Where each is.
_MODULES = {
    "Archive": "library.archives", "Change": "library.container", "CodeError": "sandbox.code",
    "CodeResult": "sandbox.code", "Connection": "sandbox.egress.record",
    "Container": "library.container", "Engine": "library.engine",
    "Entry": "sandbox.files", "FileEvent": "sandbox.watching", "Files": "sandbox.files",
    "Image": "library.images",
    "LogEntry": "library.container", "Network": "library.networks", "Pool": "sandbox.pool",
    "Process": "sandbox.programs", "ProjectChange": "sandbox.changes",
    "Result": "library.container", "RunResult": "sandbox.programs", "Sandbox": "sandbox.sandbox",
    "Secret": "sandbox.egress.secret", "Session": "library.sessions", "Volume": "library.volumes",
}  # fmt: skip


def __getattr__(name: str) -> "Any":
    """Load what the library offers at its first use."""
    # ``from ketch import cgroups`` asks here as well, before it looks for the package.
    if name not in __all__:
        raise AttributeError(f"module 'ketch' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - not for the command line

    if name in _MODULES:
        return getattr(import_module(f"ketch.{_MODULES[name]}"), name)
    return import_module(f"ketch.{name}")


def __dir__() -> list[str]:
    """What there is, loaded or not."""
    return sorted({*globals(), *__all__})
