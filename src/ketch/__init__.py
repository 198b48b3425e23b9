"""ketch: a complete Linux container engine in Python.

    import ketch
    print(ketch.Engine().containers.run("busybox", ["echo", "hi"], rm=True))

``Engine`` is the library's entrance; ``ketch.aio`` has one for asyncio, ``ketch.errors`` what goes
wrong. They are loaded when they are first asked for, since the command line has no use for them.
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

__version__ = "0.1.0"
__all__ = [
    "Archive", "Change", "Container", "Engine", "Image", "LogEntry", "Network", "Result", "Session",
    "Volume", "__version__", "aio", "errors",
]  # fmt: skip
# Where each is.
_MODULES = {
    "Archive": "archives", "Change": "container", "Container": "container", "Engine": "engine",
    "Image": "images", "LogEntry": "container", "Network": "networks", "Result": "container",
    "Session": "sessions", "Volume": "volumes",
}  # fmt: skip


def __getattr__(name: str) -> "Any":
    """Load what the library offers at its first use."""
    # ``from ketch import cgroups`` asks here as well, before it looks for the package.
    if name not in __all__:
        raise AttributeError(f"module 'ketch' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - not for the command line

    if name in _MODULES:
        return getattr(import_module(f"ketch.library.{_MODULES[name]}"), name)
    return import_module(f"ketch.{name}")


def __dir__() -> list[str]:
    """What there is, loaded or not."""
    return sorted({*globals(), *__all__})
