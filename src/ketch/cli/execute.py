"""``ketch exec``: run another program in a running container."""

from ketch.cli import session
from ketch.cli.caller import (
    about_caller,
    client_configuration,
    detach_keys,
    explainer,
    require_terminal,
)
from ketch.cli.flags import Command, Flag, parse
from ketch.engine.requests import launch
from ketch.spec.flag import EXPLAIN, later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

EXEC = Command(
    "ketch exec [OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    (
        Flag("detach", "d", "bool", "Detached mode: run command in the background"),
        Flag("detach-keys", help="Key sequence that detaches from the command's terminal"),
        Flag(
            "env",
            "e",
            "list",
            "Set environment variables",
            convert=later("environment", "variable"),
        ),
        Flag("env-file", "", "list", "Read environment variables from a file"),
        EXPLAIN,
        Flag("interactive", "i", "bool", "Keep STDIN open even if not attached"),
        Flag("privileged", "", "bool", "Give extended privileges to the command"),
        Flag("tty", "t", "bool", "Allocate a pseudo-TTY"),
        Flag("user", "u", help="Username or UID (format: <name|uid>[:<group|gid>])"),
        Flag("workdir", "w", help="Working directory inside the container"),
    ),
    minimum_arguments=2,
    interspersed=False,
)  # fmt: skip


def exec_(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch exec``."""
    parsed = parse(EXEC, arguments)
    interactive, terminal = parsed.enabled("interactive"), parsed.enabled("tty")
    detached = parsed.enabled("detach")
    if interactive and terminal and not detached:
        require_terminal()
    keys = detach_keys(parsed, client_configuration())
    started = session.Session(
        lambda: launch.connect(settings),
        {
            "action": "exec",
            **about_caller(settings),
            "arguments": parsed.arguments,
            **{f"--{name}": value for name, value in parsed.values.items()},
            **(session.window() if terminal else {}),
        },
        session.Signals(every=False),
        explainer(parsed),
    )
    try:
        started.await_started()
    except session.Failure as failure:
        if detached:
            failure.exit_status = 1  # no program's, as nobody waits for one
        raise
    if detached:
        return 0
    return started.attach(
        interactive=interactive, terminal=terminal, forward_signals=False, detach_keys=keys
    )
