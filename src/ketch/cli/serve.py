"""``ketch serve``: the Docker Engine API."""

import os
import sys

from ketch.cli.flags import Command, Flag, parse
from ketch.engine.home import places
from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

DEFAULT_HOST = "unix:///run/ketch.sock"

_SERVE = Command(
    "ketch serve [OPTIONS]",
    "Serve the Docker Engine API",
    [
        Flag("group", "G", default="ketch", help="Group that may use the Unix socket"),
        Flag("host", "H", "list", f"Socket to listen on: unix:///PATH or tcp://HOST:PORT "
             f"(default {DEFAULT_HOST}; an ordinary user's: $XDG_RUNTIME_DIR/ketch.sock)"),
        Flag("idle-timeout", "", "int", "End after so many seconds without a request, 0 for never"),
        Flag("install-unit", "", "bool", "Install unit files for systemd, and end"),
        Flag("log-level", "l", default="info", help="What to log: debug, info, warn, error"),
        Flag("tlscacert", help="Trust clients with certificates signed by this authority"),
        Flag("tlscert", help="The server's certificate"),
        Flag("tlskey", help="The server's private key"),
    ],
    maximum_arguments=0,
)  # fmt: skip


def serve(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch serve``."""
    from ketch.api import application, listeners, server  # noqa: PLC0415 - asyncio and all
    from ketch.engine.places import close  # noqa: PLC0415

    parsed = parse(_SERVE, arguments)
    group = parsed.text("group")
    if settings.home:
        if "group" in parsed.given:
            raise InvalidArgumentError(
                "--group: an ordinary user's socket is that user's alone", "leave it out"
            )
        group = ""
    if parsed.enabled("install-unit"):
        from ketch.api import units  # noqa: PLC0415 - only here

        for line in units.install(settings, sys.argv[0], group):
            print(line)
        return 0
    level = parsed.text("log-level")
    if level not in application.LEVELS:
        raise InvalidArgumentError(
            f"invalid --log-level: {level}", f"one of {', '.join(application.LEVELS)}"
        )
    # Whoever asks first opens the engine, and that may be late.
    for directory in (settings.root, settings.state):
        close(directory)
    app = application.Application(settings, level)
    tls = listeners.Tls(parsed.text("tlscacert"), parsed.text("tlscert"), parsed.text("tlskey"))
    found = listeners.inherited(os.environ, tls)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    own = f"unix://{places.api_socket(settings.state)}" if settings.home else DEFAULT_HOST
    hosts = parsed.items("host") or ([] if found else [own])
    try:
        for host in hosts:
            found.append(listeners.listen(host, tls, group, lambda text: app.log("warn", text)))
    except BaseException:
        for listener in found:
            listener.close()
        raise
    server.run(app, found, parsed.number("idle-timeout"))
    return 0
