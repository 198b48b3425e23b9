"""``ketch logs``: what a container wrote."""

import os
import time

from ketch.cli.flags import Command, Flag, parse
from ketch.engine import logs as log
from ketch.engine.containers.containers import Containers
from ketch.engine.records.store import Store
from ketch.engine.views import following
from ketch.errors import InvalidArgumentError
from ketch.spec import timestamps
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.flags import Parsed
    from ketch.engine.logs.reading import Entry
    from ketch.engine.settings import Settings

LOGS = Command(
    "ketch logs [OPTIONS] CONTAINER",
    "Fetch the logs of a container",
    (
        Flag("details", "", "bool", "Show extra details provided to logs"),
        Flag("follow", "f", "bool", "Follow log output"),
        Flag(
            "since",
            help='Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative '
            '(e.g. "42m" for 42 minutes)',
        ),
        Flag("tail", "n", help="Number of lines to show from the end of the logs", default="all"),
        Flag("timestamps", "t", "bool", "Show timestamps"),
        Flag(
            "until",
            help='Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative '
            '(e.g. "42m" for 42 minutes)',
        ),
    ),
    minimum_arguments=1,
    maximum_arguments=1,
)

_FLUSH_BYTES = 64 * 1024


def logs(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch logs``."""
    parsed = parse(LOGS, arguments)
    containers = Containers(settings, Store(settings.root))
    since_ns, until_ns = moment_flag(parsed, "since"), moment_flag(parsed, "until")
    container = containers.find(parsed.arguments[0])
    follow = parsed.enabled("follow")
    entries = following.entries(
        containers,
        container,
        settings.container_directory(container.id),
        follow=follow,
        tail=_tail(parsed.text("tail")),
        since_ns=since_ns,
        until_ns=until_ns,
    )
    output = _Output(
        at_once=follow,
        stamped=parsed.enabled("timestamps"),
        detailed=parsed.enabled("details"),
    )
    try:
        for entry in entries:
            output.write(entry)
        output.flush()
    except KeyboardInterrupt:
        output.flush()
        return 130
    return 0


class _Output:
    """Writes each entry to the stream it came from, in the order they came."""

    def __init__(self, *, at_once: bool, stamped: bool, detailed: bool) -> None:
        self._at_once = at_once
        self._stamped = stamped
        self._detailed = detailed
        self._descriptor = 1
        self._held = bytearray()

    def write(self, entry: "Entry") -> None:
        time_ns, stream, data, attributes = entry
        descriptor = 2 if stream == "stderr" else 1
        if descriptor != self._descriptor or len(self._held) > _FLUSH_BYTES:
            self.flush()
            self._descriptor = descriptor
        # Also within a line that was cut, as Docker does.
        if self._stamped:
            self._held += timestamps.rfc3339_fixed(time_ns).encode() + b" "
        if self._detailed:
            self._held += log.details(attributes).encode() + b" "
        self._held += data
        if self._at_once:
            self.flush()

    def flush(self) -> None:
        while self._held:
            del self._held[: os.write(self._descriptor, self._held)]


def _tail(text: str) -> int | None:
    """Read ``--tail``; what is no number, or a negative one, means all, as in Docker."""
    return decimal(text)


def moment_flag(parsed: "Parsed", name: str) -> int | None:
    """Returns the moment that a flag gave, in nanoseconds since the epoch; None where it did not.

    Raises:
        InvalidArgumentError: it is none.
    """
    text = parsed.text(name)
    if not text:
        return None
    try:
        return timestamps.moment(text, time.time_ns())
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f'invalid value for "{name}": {error.message}') from error
