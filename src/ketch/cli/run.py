"""``ketch run`` and ``create``: create a container; start it and stay attached to it.

The client reads the command line and hands over what was asked for; a monitor, forked from the
zygote, does the rest and outlives the client.
"""

from ketch.cli import session
from ketch.cli.caller import (
    about_caller,
    client_configuration,
    detach_keys,
    explainer,
    require_terminal,
)
from ketch.cli.flags import Command, UsageError, parse
from ketch.engine.requests import launch, wire
from ketch.errors import ImageNotFoundError, InvalidArgumentError
from ketch.spec.options import CREATE_OPTIONS, OPTIONS, pull_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.client_configuration import ClientConfiguration
    from ketch.cli.flags import Parsed
    from ketch.engine.requests.wire import Value
    from ketch.engine.settings import Settings

RUN = Command(
    "ketch run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    OPTIONS,
    minimum_arguments=1,
    interspersed=False,
)

CREATE = Command(
    "ketch create [OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    CREATE_OPTIONS,
    minimum_arguments=1,
    interspersed=False,
)


def create(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch create``."""
    parsed = parse(CREATE, arguments)
    signals = session.Signals(every=False)
    asked = _ask(settings, parsed, "create", signals, client_configuration())
    print(asked.id)
    return 0


def run(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch run``."""
    parsed = parse(RUN, arguments)
    interactive, terminal = parsed.enabled("interactive"), parsed.enabled("tty")
    detached = parsed.enabled("detach")
    if interactive and terminal and not detached:
        require_terminal()
    configuration = client_configuration()
    keys = detach_keys(parsed, configuration)
    forward_signals = parsed.enabled("sig-proxy")
    # Before anything is asked for, so that an interrupt never leaves it half done.
    signals = session.Signals(every=forward_signals and not detached)
    started = _ask(settings, parsed, "run", signals, configuration)
    if detached:
        print(started.id)
        return 0
    return started.attach(
        interactive=interactive,
        terminal=terminal,
        forward_signals=forward_signals,
        detach_keys=keys,
        shown=_shown(parsed.items("attach")),
    )


def _shown(attach: list[str]) -> tuple[int, ...]:
    """Which of the program's output the caller wants to see: all unless it names streams."""
    if not attach:
        return (wire.OUTPUT, wire.ERRORS)
    kinds = (("stdout", wire.OUTPUT), ("stderr", wire.ERRORS))
    return tuple(kind for name, kind in kinds if name in attach)


def _ask(
    settings: "Settings",
    parsed: "Parsed",
    action: str,
    signals: session.Signals,
    configuration: "ClientConfiguration | None",
) -> session.Session:
    """Have a container made, of an image that is pulled first if that is asked for or needed."""
    try:
        policy = pull_policy(parsed.values)
    except InvalidArgumentError as error:
        raise UsageError(error.message, error.hint, exit_status=125) from error
    request: dict[str, Value] = {
        "action": action,
        **about_caller(settings),
        "arguments": parsed.arguments,
        "given": sorted(parsed.given),
        **{f"--{name}": value for name, value in parsed.values.items()},
        **(session.window() if parsed.enabled("tty") else {}),
    }
    if configuration is not None:
        given = parsed.items("env")
        request["--env"] = [*configuration.proxies(given), *given]
    explain = explainer(parsed)
    awaited = wire.CREATED if action == "create" else wire.STARTED

    def pull(*, missing: bool) -> None:
        from ketch.cli import missing as images  # noqa: PLC0415 - not for images that are here

        images.pull(
            settings, parsed.arguments[0], signals, command=action,
            platform=parsed.text("platform"), quiet=parsed.enabled("quiet"), missing=missing,
            explain=parsed.text("explain"),
        )  # fmt: skip

    def ask() -> session.Session:
        asked = session.Session(lambda: launch.connect(settings), request, signals, explain)
        try:
            asked.await_started(awaited)
        except session.Failure as failure:
            # It is there, though its start has failed, and a script can ask about it.
            if asked.id:
                print(asked.id)
            first = parsed.arguments[0]
            if first[:1] in {"/", "."} and failure.message.startswith("invalid reference"):
                failure.hint = f"the image comes first: ketch {action} IMAGE {first}"
            raise
        return asked

    if policy == "always":
        pull(missing=False)
    try:
        return ask()
    except session.Failure as failure:
        if policy != "missing" or failure.error_class != ImageNotFoundError.__name__:
            raise
    pull(missing=True)
    return ask()
