"""``ketch start`` and ``attach``: start a container that exists, stay with one that runs."""

import os
import sys
from contextlib import suppress

from ketch.cli import each, session
from ketch.cli.caller import (
    client_configuration,
    detach_keys,
    explained,
    explainer,
    require_terminal,
)
from ketch.cli.flags import Command, Flag, UsageError, parse
from ketch.engine.containers.containers import Containers
from ketch.engine.records import states
from ketch.engine.records.store import Store
from ketch.engine.requests import launch, starts
from ketch.errors import ConflictError, KetchError, NotModifiedError, spelt_out
from ketch.spec.flag import EXPLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.flags import Parsed
    from ketch.engine.records.rows import Container
    from ketch.engine.requests.wire import Value
    from ketch.engine.settings import Settings

_DETACH_KEYS = Flag("detach-keys", help="Override the key sequence for detaching a container")
START = Command(
    "ketch start [OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    (
        Flag("attach", "a", "bool", "Attach STDOUT/STDERR and forward signals"),
        Flag("checkpoint", help="Restore from this checkpoint"),
        Flag("checkpoint-dir", help="Use a custom checkpoint storage directory"),
        _DETACH_KEYS,
        EXPLAIN,
        Flag("interactive", "i", "bool", "Attach container's STDIN"),
    ),
    minimum_arguments=1,
)
ATTACH = Command(
    "ketch attach [OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    (
        _DETACH_KEYS,
        Flag("no-stdin", "", "bool", "Do not attach STDIN"),
        Flag("sig-proxy", "", "bool", "Proxy all received signals to the process", default=True),
    ),
    minimum_arguments=1,
    maximum_arguments=1,
)


def start(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch start``."""
    parsed = parse(START, arguments)
    if parsed.enabled("attach") or parsed.enabled("interactive"):
        if len(parsed.arguments) > 1:
            raise UsageError(
                "you cannot start and attach multiple containers at once", "", exit_status=1
            )
        return _start_attached(settings, parsed)
    if parsed.text("checkpoint"):
        if len(parsed.arguments) > 1:
            raise UsageError("you cannot restore multiple containers at once", "", exit_status=1)
        with explained(settings, parsed), suppress(NotModifiedError):
            starts.start(
                settings,
                parsed.arguments[0],
                parsed.text("checkpoint"),
                checkpoint_directory(parsed),
            )
        return 0
    with explained(settings, parsed):
        return _start_each(settings, parsed.arguments)


def _start_each(settings: "Settings", references: list[str]) -> int:
    failed = []
    for reference in references:
        try:
            starts.start(settings, reference)
        except NotModifiedError:
            pass
        except KetchError as error:
            each.say(error)
            failed.append(reference)
            continue
        print(reference, flush=True)
    if failed:
        print(f"ketch: failed to start containers: {spelt_out(', '.join(failed))}", file=sys.stderr)
    return 1 if failed else 0


def _start_attached(settings: "Settings", parsed: "Parsed") -> int:
    container = Containers(settings, Store(settings.root)).find(parsed.arguments[0])
    config = container.record["Config"]
    terminal = bool(config.get("Tty"))
    interactive = parsed.enabled("interactive") and bool(config.get("OpenStdin"))
    if container.is_active:
        return _attach(settings, container, parsed, interactive=interactive, forward=not terminal)
    fields: dict[str, Value] = {
        "action": "start", **settings.fields,
        "container": container.id, "attach": parsed.enabled("attach") or interactive,
        "stdin": interactive, "checkpoint": parsed.text("checkpoint"),
        "checkpoint-dir": checkpoint_directory(parsed),
        "--explain": parsed.text("explain"), **(session.window() if terminal else {}),
    }  # fmt: skip
    started = session.Session(
        lambda: launch.connect(settings),
        fields,
        session.Signals(every=not terminal),
        explainer(parsed),
    )
    started.await_started()
    return started.attach(
        interactive=interactive,
        terminal=terminal,
        forward_signals=not terminal,
        detach_keys=detach_keys(parsed, client_configuration()),
    )


def checkpoint_directory(parsed: "Parsed") -> str:
    """The directory that ``--checkpoint-dir`` names, empty for the container's own."""
    directory = parsed.text("checkpoint-dir")
    return os.path.abspath(directory) if directory else ""


def attach(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch attach``."""
    parsed = parse(ATTACH, arguments)
    container = Containers(settings, Store(settings.root)).find(parsed.arguments[0])
    if container.status == states.PAUSED:
        raise ConflictError("You cannot attach to a paused container, unpause it first")
    if container.status == states.RESTARTING:
        raise ConflictError("You cannot attach to a restarting container, wait until it is running")
    if not container.is_active:
        raise ConflictError("You cannot attach to a stopped container, start it first")
    config = container.record["Config"]
    interactive = bool(config.get("OpenStdin")) and not parsed.enabled("no-stdin")
    if interactive and config.get("Tty"):
        require_terminal()
    forward = parsed.enabled("sig-proxy") and not config.get("Tty")
    return _attach(settings, container, parsed, interactive=interactive, forward=forward)


def _attach(
    settings: "Settings",
    container: "Container",
    parsed: "Parsed",
    *,
    interactive: bool,
    forward: bool,
) -> int:
    keys = detach_keys(parsed, client_configuration())
    attached = session.Session(
        lambda: launch.reach_monitor(settings, container.id),
        {"action": "attach", "stdin": interactive, "stdout": True, "stderr": True},
        session.Signals(every=forward),
    )
    attached.await_started()
    Containers(settings, Store(settings.root)).note(container.id, "attach")
    return attached.attach(
        interactive=interactive,
        terminal=bool(container.record["Config"].get("Tty")),
        forward_signals=forward,
        detach_keys=keys,
    )
