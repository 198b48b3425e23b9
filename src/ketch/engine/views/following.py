"""A container's log for those who look at it: to its end, or for as long as the container runs."""

import contextlib

from ketch.engine import logs
from ketch.engine.processes import ENDLESS, Patience, open_process
from ketch.errors import NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.engine.containers.containers import Containers
    from ketch.engine.logs.reading import Entry
    from ketch.engine.records.rows import Container


def entries(
    containers: "Containers",
    container: "Container",
    directory: str,
    *,
    follow: bool = False,
    tail: int | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    patience: Patience = ENDLESS,
) -> "Iterator[Entry]":
    """Read a container's log.

    Args:
        containers: where the container is recorded.
        container: the container.
        directory: its directory.
        follow: whether to wait for what it goes on to write, until it no longer runs; a restart by
            its own policy is no end.
        tail: how many entries from the end to begin at; None for all.
        since_ns: leave out what is older, in nanoseconds since the epoch.
        until_ns: stop at what is newer.
        patience: how the caller waits.

    Yields:
        What ``reading.Reader.entries`` does.

    Raises:
        UnsupportedError: the log's driver keeps nothing that could be read.
    """
    reader = logs.reader(container, directory)

    def ended() -> bool:
        try:
            return not containers.find(container.id).is_active
        except NotFoundError:
            return True

    def read() -> "Iterator[Entry]":
        with contextlib.ExitStack() as held:
            monitor = None
            if follow:
                monitor = held.enter_context(
                    open_process(container.monitor_pid, container.monitor_start_time)
                )
            yield from reader.entries(
                tail=tail,
                since_ns=since_ns,
                until_ns=until_ns,
                ended=ended if follow else None,
                end_descriptor=monitor,
                patience=patience,
            )

    return read()
