"""``ketch logs``: what a container wrote."""

import os
import time

from ketch.cli.flags import Command, Flag, parse
from ketch.engine.containers import Containers
from ketch.engine.logs import Reader, log_path
from ketch.engine.store import Store
from ketch.errors import InvalidArgumentError, NotFoundError
from ketch.spec import timestamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.flags import Parsed
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
    aliases=("ketch container logs", "ketch logs"),
)

_FLUSH_BYTES = 64 * 1024


def logs(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch logs``."""
    parsed = parse(LOGS, arguments)
    containers = Containers(settings, Store(settings.root))
    container = containers.find(parsed.arguments[0])
    since_ns, until_ns = _moment(parsed, "since"), _moment(parsed, "until")

    def ended() -> bool:
        try:
            return not containers.find(container.id).is_active
        except NotFoundError:
            return True

    reader = Reader(log_path(settings.container_directory(container.id), container.id))
    entries = reader.entries(
        tail=_tail(parsed.text("tail")),
        since_ns=since_ns,
        until_ns=until_ns,
        ended=ended if parsed.enabled("follow") else None,
    )
    output = _Output(at_once=parsed.enabled("follow"), stamped=parsed.enabled("timestamps"))
    try:
        for stream, data, time_ns in entries:
            output.write(stream, data, time_ns)
        output.flush()
    except KeyboardInterrupt:
        output.flush()
        return 130
    return 0


class _Output:
    """Writes each entry to the stream it came from, in the order they came."""

    def __init__(self, *, at_once: bool, stamped: bool) -> None:
        self._at_once = at_once
        self._stamped = stamped
        self._descriptor = 1
        self._held = bytearray()
        self._amid_line = {"stdout": False, "stderr": False}

    def write(self, stream: str, data: bytes, time_ns: int) -> None:
        descriptor = 2 if stream == "stderr" else 1
        if descriptor != self._descriptor or len(self._held) > _FLUSH_BYTES:
            self.flush()
            self._descriptor = descriptor
        if self._stamped and not self._amid_line.get(stream):
            self._held += timestamps.rfc3339_fixed(time_ns).encode() + b" "
        self._amid_line[stream] = not data.endswith(b"\n")
        self._held += data
        if self._at_once:
            self.flush()

    def flush(self) -> None:
        while self._held:
            del self._held[: os.write(self._descriptor, self._held)]


def _tail(text: str) -> int | None:
    """Read ``--tail``; what is no number, or a negative one, means all, as in Docker."""
    return int(text) if text.isascii() and text.isdecimal() else None


def _moment(parsed: "Parsed", name: str) -> int | None:
    text = parsed.text(name)
    if not text:
        return None
    try:
        return timestamps.moment(text, time.time_ns())
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f'invalid value for "{name}": {error.message}') from error
