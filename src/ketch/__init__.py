"""ketch: a complete Linux container engine in Python.

    import ketch
    print(ketch.Engine().containers.run("busybox", ["echo", "hi"], rm=True))

``Engine`` is the library's entrance; ``ketch.aio`` has one for asyncio, ``ketch.errors`` what goes
wrong. They are loaded when they are first asked for, since the command line has no use for them.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.library.engine import Engine

__version__ = "0.1.0"
__all__ = ["Engine", "__version__"]


def __getattr__(name: str) -> "Any":
    """Load what the library offers at its first use."""
    # ``from ketch import cgroups`` asks here as well, before it looks for the package.
    if name not in {"Engine", "aio", "errors"}:
        raise AttributeError(f"module 'ketch' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - not for the command line

    if name == "Engine":
        return import_module("ketch.library.engine").Engine
    return import_module(f"ketch.{name}")
