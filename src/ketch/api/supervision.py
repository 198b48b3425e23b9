"""Tasks that nobody waits for: what they raise is heard, and they go on."""

import asyncio
import traceback
from typing import TYPE_CHECKING, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ketch.api.application import Application

FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.05, 2.0
_STEADY_SECONDS = 10.0

P = ParamSpec("P")


async def supervise(
    application: "Application",
    name: str,
    work: "Callable[P, Awaitable[None]]",
    *args: P.args,
    **kwargs: P.kwargs,
) -> None:
    """Do something again and again as long as it fails: each failure is logged, and followed by a
    pause that grows.

    Args:
        application: where the log is.
        name: what it is called there.
        work: what to do; once it returns, so does this.
        args: what it is given.
        kwargs: likewise.
    """
    loop = asyncio.get_running_loop()
    pause = FIRST_PAUSE_SECONDS
    while True:
        began = loop.time()
        try:
            await work(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be heard, and the work done
            if loop.time() - began > _STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            application.log(
                "error", "background", task=name, cause=repr(error),
                traceback="".join(traceback.format_exception(error)),
            )  # fmt: skip
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE_SECONDS)
        else:
            return
