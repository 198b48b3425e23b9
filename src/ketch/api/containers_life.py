"""Routes that end containers, and wait for that."""

from typing import TYPE_CHECKING

from ketch.api import hub
from ketch.api.encoding import encode
from ketch.engine.networks import unlinking
from ketch.errors import InvalidArgumentError, NotFoundError, NotModifiedError

if TYPE_CHECKING:
    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container


def _find(engine: "Engine", reference: str) -> "Container":
    return engine.containers.find(reference)


def end_signal(call: "Call") -> str:
    """Returns the signal to stop a container by that was asked for, which could be since 1.42."""
    return call.text("signal") if call.version >= (1, 42) else ""


async def stop(call: "Call") -> None:
    """Answer ``POST /containers/{id}/stop``."""
    await call.run_slowly(_stop, call["id"], call.number("t"), end_signal(call))
    await call.reply(204)


def _stop(engine: "Engine", reference: str, seconds: int | None, signal: str) -> None:
    container = engine.containers.find(reference)
    if not container.is_active:
        raise NotModifiedError(f"container {reference} does not run")
    engine.containers.stop(container.id, seconds, signal)


async def kill(call: "Call") -> None:
    """Answer ``POST /containers/{id}/kill``."""
    await call.run_slowly(_kill, call["id"], call.text("signal") or "KILL")
    await call.reply(204)


def _kill(engine: "Engine", reference: str, signal: str) -> None:
    engine.containers.kill(reference, signal)


async def remove(call: "Call") -> None:
    """Answer ``DELETE /containers/{id}``."""
    if call.flag("link"):
        await call.run(_unlink, call["id"])
    else:
        await call.run_slowly(_remove, call["id"], force=call.flag("force"), volumes=call.flag("v"))
    await call.reply(204)


def _remove(engine: "Engine", reference: str, *, force: bool, volumes: bool) -> None:
    engine.containers.remove(reference, force=force, volumes=volumes)


def _unlink(engine: "Engine", reference: str) -> None:
    unlinking.unlink(engine, reference)


async def wait(call: "Call") -> None:
    """Answer ``POST /containers/{id}/wait``; its head is sent as soon as the wait has begun.

    Before 1.30 there were no conditions, and the head came with the end.
    """
    waits_at_once = call.version >= (1, 30)
    condition = (call.text("condition") if waits_at_once else "") or "not-running"
    if condition not in {"not-running", "next-exit", "removed"}:
        raise InvalidArgumentError(f'invalid condition: "{condition}"')
    events = hub.of(call.application)
    # Before the look at the container, so that no end falls between the two.
    newest = await events.newest()
    container = await call.run(_find, call["id"])
    if waits_at_once:
        await call.exchange.begin("application/json")
    told: dict[str, object] = {}
    if condition == "not-running" and not container.is_active:
        told["StatusCode"] = container.exit_status
        if container.error:
            told["Error"] = {"Message": container.error}
    else:
        told["StatusCode"] = await call.while_there(_await_end(call, container, condition, newest))
    if not waits_at_once:
        await call.exchange.begin("application/json")
    await call.exchange.write(encode(told))
    await call.exchange.end()


async def _await_end(call: "Call", container: "Container", condition: str, newest: int) -> int:
    """Wait for a container's next end, or its removal; returns its exit status."""
    status = container.exit_status
    async for event in hub.of(call.application).follow(newest):
        if event is None:
            # A monitor that was killed records nothing: looking at its container settles that.
            try:
                found = await call.run(_find, container.id)
            except NotFoundError:
                return status
            if condition == "not-running" and not found.is_active:
                return found.exit_status
        elif event.type == "container" and event.actor_id == container.id:
            if event.action == "die":
                status = int(event.attributes.get("exitCode", 0))
                if condition != "removed":
                    return status
            elif event.action == "destroy":
                return status if event.exit_status is None else event.exit_status
    return status


ROUTES: "Routes" = (
    ("POST", "/containers/{id*}/stop", stop),
    ("POST", "/containers/{id*}/kill", kill),
    ("POST", "/containers/{id*}/wait", wait),
    ("DELETE", "/containers/{id*}", remove),
)
