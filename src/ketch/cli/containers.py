"""The commands about containers that exist: rm, stop, restart, kill, pause, unpause, wait."""

from ketch.cli.caller import explained
from ketch.cli.each import for_each, tell_each
from ketch.cli.flags import Command, Flag, parse
from ketch.engine.containers.containers import Containers
from ketch.engine.records.store import Store
from ketch.spec.flag import EXPLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

RM = Command(
    "ketch rm [OPTIONS] CONTAINER [CONTAINER...]",
    "Remove one or more containers",
    (
        EXPLAIN,
        Flag("force", "f", "bool", "Force the removal of a running container (uses SIGKILL)"),
        Flag("link", "l", "bool", "Remove the specified link (CONTAINER/ALIAS)"),
        Flag("volumes", "v", "bool", "Remove anonymous volumes associated with the container"),
    ),
    minimum_arguments=1,
)
STOP = Command(
    "ketch stop [OPTIONS] CONTAINER [CONTAINER...]",
    "Stop one or more running containers",
    (
        EXPLAIN,
        Flag("signal", "s", help="Signal to send to the container"),
        Flag(
            "timeout", "t", "int", "Seconds to wait before killing the container", aliases=("time",)
        ),
    ),
    minimum_arguments=1,
)
RESTART = Command(
    "ketch restart [OPTIONS] CONTAINER [CONTAINER...]",
    "Restart one or more containers",
    STOP.flags,
    minimum_arguments=1,
)
PAUSE = Command(
    "ketch pause [OPTIONS] CONTAINER [CONTAINER...]",
    "Pause all processes within one or more containers",
    (EXPLAIN,),
    minimum_arguments=1,
)
UNPAUSE = Command(
    "ketch unpause [OPTIONS] CONTAINER [CONTAINER...]",
    "Unpause all processes within one or more containers",
    (EXPLAIN,),
    minimum_arguments=1,
)
KILL = Command(
    "ketch kill [OPTIONS] CONTAINER [CONTAINER...]",
    "Kill one or more running containers",
    (EXPLAIN, Flag("signal", "s", help="Signal to send to the container")),
    minimum_arguments=1,
)
WAIT = Command(
    "ketch wait CONTAINER [CONTAINER...]",
    "Block until one or more containers stop, then print their exit codes",
    minimum_arguments=1,
)


def rm(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch rm``."""
    parsed = parse(RM, arguments)
    containers = _containers(settings)
    force = parsed.enabled("force")

    if parsed.enabled("link"):
        from ketch.engine.engine import Engine  # noqa: PLC0415
        from ketch.engine.networks.unlinking import unlink  # noqa: PLC0415 - rarely asked for

        def remove_link(reference: str) -> str:
            unlink(Engine(settings), reference)
            return reference

        with explained(settings, parsed):
            return for_each(parsed.arguments, remove_link, absent_is_fine=force)
    removed = containers.remove_each(
        parsed.arguments, force=force, volumes=parsed.enabled("volumes")
    )
    # By force, what is not there is as good as removed.
    with explained(settings, parsed):
        return tell_each(removed, absent_is_fine=force)


def stop(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch stop``."""
    parsed = parse(STOP, arguments)
    containers = _containers(settings)
    timeout_seconds = parsed.number("timeout") if "timeout" in parsed.given else None
    signal = parsed.text("signal")

    def stop_one(reference: str) -> str:
        containers.stop(reference, timeout_seconds, signal)
        return reference

    with explained(settings, parsed):
        return for_each(parsed.arguments, stop_one)


def restart(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch restart``."""
    from ketch.engine.containers import restarting  # noqa: PLC0415 - of no use to the others

    parsed = parse(RESTART, arguments)
    containers = _containers(settings)
    timeout_seconds = parsed.number("timeout") if "timeout" in parsed.given else None

    def restart_one(reference: str) -> str:
        restarting.restart(settings, containers, reference, timeout_seconds, parsed.text("signal"))
        return reference

    with explained(settings, parsed):
        return for_each(parsed.arguments, restart_one)


def pause(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch pause``."""
    parsed = parse(PAUSE, arguments)
    containers = _containers(settings)

    def pause_one(reference: str) -> str:
        containers.pause(reference)
        return reference

    with explained(settings, parsed):
        return for_each(parsed.arguments, pause_one)


def unpause(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch unpause``."""
    parsed = parse(UNPAUSE, arguments)
    containers = _containers(settings)

    def unpause_one(reference: str) -> str:
        containers.unpause(reference)
        return reference

    with explained(settings, parsed):
        return for_each(parsed.arguments, unpause_one)


def kill(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch kill``."""
    parsed = parse(KILL, arguments)
    containers = _containers(settings)

    def kill_one(reference: str) -> str:
        containers.kill(reference, parsed.text("signal") or "KILL")
        return reference

    with explained(settings, parsed):
        return for_each(parsed.arguments, kill_one)


def wait(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch wait``."""
    parsed = parse(WAIT, arguments)
    containers = _containers(settings)
    return for_each(parsed.arguments, lambda reference: str(containers.wait(reference)))


def _containers(settings: "Settings") -> Containers:
    return Containers(settings, Store(settings.root))
