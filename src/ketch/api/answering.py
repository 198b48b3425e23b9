"""From a request to its answer: the route, the handler, what an error is answered with, the log."""

import asyncio
import time
from typing import TYPE_CHECKING

from ketch.api import errors, origins, router
from ketch.api.call import Call
from ketch.api.http import NOTHING, ClientGoneError
from ketch.errors import KetchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.api.application import Application
    from ketch.api.http import Exchange

_SILENT_PATHS = ("/_ping",)


async def handle(
    application: "Application", names: "Sequence[str] | None", exchange: "Exchange"
) -> None:
    """Answer one request, whatever comes of it.

    Args:
        application: what answers.
        names: what the server may be called there, as ``origins.check`` takes it.
        exchange: the request and its answer.
    """
    application.active += 1
    began = time.monotonic()
    cause: BaseException | None = None
    try:
        origins.check(exchange, names)
        await _answer(application, exchange)
    except ClientGoneError as error:
        cause = error
        raise
    except Exception as error:  # noqa: BLE001 - a client is owed an answer to everything
        cause = error
        await _fail(exchange, error)
    except asyncio.CancelledError as error:
        cause = error
        raise
    finally:
        application.active -= 1
        application.last_used = time.monotonic()
        _log(application, exchange, time.monotonic() - began, cause)


async def _answer(application: "Application", exchange: "Exchange") -> None:
    call = Call(application, exchange)
    handler, call.parameters = router.find(call.method, call.path)
    await handler(call)


async def _fail(exchange: "Exchange", error: Exception) -> None:
    if exchange.status:
        # Amid an answer; only the connection's end can tell that it is not whole.
        raise ClientGoneError from error
    number = errors.status(error)
    await exchange.reply(number, NOTHING if number == 304 else {"message": errors.message(error)})


def _log(
    application: "Application", exchange: "Exchange", seconds: float, cause: BaseException | None
) -> None:
    status = exchange.status
    level = "error" if status >= 500 and status != 501 else "info"
    if level == "info" and (exchange.target.endswith(_SILENT_PATHS)):
        level = "debug"
    facts: dict[str, object] = {
        "method": exchange.method, "path": exchange.target, "status": status,
        "duration_ms": round(seconds * 1000, 3),
    }  # fmt: skip
    if isinstance(cause, ClientGoneError):
        facts["cause"] = "the client left"
    elif isinstance(cause, KetchError):
        facts["cause"] = cause.message
        if cause.hint:
            facts["hint"] = cause.hint
    elif cause is not None:
        facts["cause"] = repr(cause)
        if level == "error" and not isinstance(cause, OSError):
            import traceback  # noqa: PLC0415 - only for a mistake of our own

            facts["traceback"] = "".join(traceback.format_exception(cause))
    application.log(level, "request", **facts)
