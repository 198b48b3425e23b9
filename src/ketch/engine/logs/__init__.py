"""A container's log: written by its monitor or that one's scribe, read by anybody.

Which driver writes it and how its files are bounded is the container's ``HostConfig.LogConfig``;
Docker's drivers ``json-file``, ``local``, ``none``, ``syslog`` and ``journald`` are here, in
Docker's formats. ``writer`` opens it for the monitor, ``reader`` for everybody else.

What a monitor does not need (reading, TLS, templates) is loaded where it is used. All drivers are
loaded here, in the process that monitors are forked from, and so are there once for all.
"""

import os

from ketch.engine.logs import files, json_file, local, remote, tags
from ketch.spec import log_drivers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from ketch.engine.logs.reading import Reader
    from ketch.engine.records.rows import Container
    from ketch.spec.container import LogConfig

    class Writer(Protocol):
        """Where a program's output is recorded."""

        def write(self, stream: str, data: bytes, time_ns: int) -> None:
            """Record what was read of a stream, at a time in nanoseconds since the epoch."""

        def flush(self) -> bool:
            """Pass on what could not be yet; returns whether nothing is left of that."""

        def close(self, time_ns: int) -> None:
            """Record lines that were begun, and let go of everything."""


def config(container: "Container") -> "LogConfig":
    """Returns what a container's log was asked to be."""
    asked = container.record.get("HostConfig", {}).get("LogConfig") or {}
    return {"Type": asked.get("Type") or log_drivers.JSON_FILE, "Config": asked.get("Config") or {}}


def log_path(container: "Container", directory: str) -> str:
    """Where a container's log is, in its directory; empty where Docker would not tell either."""
    if config(container)["Type"] == log_drivers.JSON_FILE:
        return f"{directory}/{container.id}-json.log"
    return ""


def writer(container: "Container", directory: str) -> "Writer | None":
    """Open a container's log for the one who writes it; None where nothing is to be written.

    Args:
        container: the container.
        directory: its directory.

    Raises:
        InvalidArgumentError: an option is malformed.
        UnavailableError: nobody is there to take it.
    """
    asked = config(container)
    driver, options = asked["Type"], asked["Config"]
    if driver == log_drivers.NONE:
        return None
    rotation = log_drivers.rotation(driver, options)
    if driver == log_drivers.JSON_FILE:
        attributes: Mapping[str, str] | None = None
        if options:
            attributes = tags.attributes(container, options)
            if options.get("tag"):
                attributes = {**attributes, "tag": tags.tag(container, options["tag"])}
        return json_file.Writer(f"{directory}/{container.id}-json.log", rotation, attributes)
    cache = None
    if driver == log_drivers.LOCAL or options.get("cache-disabled", "") not in {"true", "1"}:
        os.makedirs(f"{directory}/local-logs", 0o700, exist_ok=True)
        cache = local.Writer(_local_path(directory), rotation)
    if driver == log_drivers.LOCAL:
        return cache
    connection, form = remote.open_driver(
        driver, options, tags.tag(container, options.get("tag", "")),
        lambda: tags.journal_fields(container, options),
    )  # fmt: skip
    capacity_bytes = None
    if options.get("mode") == log_drivers.NON_BLOCKING:
        capacity_bytes = log_drivers.buffer_bytes(options)
    return remote.Writer(connection, form, capacity_bytes, cache)


def reader(container: "Container", directory: str) -> "Reader":
    """Open a container's log for reading.

    Raises:
        UnsupportedError: its driver keeps nothing that could be read.
    """
    from ketch.engine.logs import reading  # noqa: PLC0415
    from ketch.errors import UnsupportedError  # noqa: PLC0415

    asked = config(container)
    driver, options = asked["Type"], asked["Config"]
    if driver == log_drivers.JSON_FILE:
        return reading.Reader(f"{directory}/{container.id}-json.log", reading.JsonFile())
    if driver == log_drivers.NONE or options.get("cache-disabled", "") in {"true", "1"}:
        raise UnsupportedError("configured logging driver does not support reading")
    return reading.Reader(_local_path(directory), reading.Local())


def lost(container: "Container", directory: str) -> int:
    """Returns how many entries a container's log has lost for want of room on its disk."""
    is_json = config(container)["Type"] == log_drivers.JSON_FILE
    return files.lost(directory if is_json else os.path.dirname(_local_path(directory)))


def details(attributes: "Mapping[str, str]") -> str:
    """Returns what an entry tells besides as ``logs --details`` shows it: ``a=1,b=2``."""
    from urllib.parse import quote_plus  # noqa: PLC0415

    return ",".join(
        f"{quote_plus(name)}={quote_plus(attributes[name])}" for name in sorted(attributes)
    )


def _local_path(directory: str) -> str:
    return f"{directory}/local-logs/container.log"
