"""The resolver's process: what it knows of an engine's containers, and how long it stays.

What it does is in ``ketch.network.resolver``; ``ketch.engine.networks.resolution`` starts it.
"""

import asyncio
import contextlib
import json
import os
import resource
import socket
import sys
from ipaddress import ip_interface

from ketch.engine.records.store import Store
from ketch.engine.requests import launch
from ketch.errors import InvalidArgumentError
from ketch.linux import process
from ketch.network import names, resolver
from ketch.network.dns import Directory, Endpoint
from ketch.spec.links import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LATECOMER_SECONDS = 0.2


def main() -> None:
    """Run as ``resolution.register`` says; descriptor SOCKET is where containers register."""
    _script, _role, root, path, _package, loopback = sys.argv
    os.closerange(launch.SOCKET + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    process.set_name("ketch-names")
    os.set_inheritable(launch.SOCKET, False)
    # A socket each question that is passed on; whoever started this may have been short of them.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    known = Known(Store(root))
    service = resolver.Resolver(
        socket.socket(fileno=launch.SOCKET),
        resolver.Directories(known.names, known.servers),
        resolver.HostServers((names.RESOLV_CONF,), names.FALLBACK_SERVERS, loopback),
    )
    place = launch.place(path)
    asyncio.run(service.serve())
    # First nobody new can come, then those who came in the meantime are served.
    if place == launch.place(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    asyncio.run(service.serve(_LATECOMER_SECONDS))


class Known:
    """What the engine's database says, read again when somebody has written.

    Args:
        store: the database.
    """

    __slots__ = ("_names", "_servers", "_store", "_version")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._version = -1
        self._names: Directory
        self._servers: dict[str, list[str]] = {}

    def names(self) -> Directory:
        """Returns who is called what, now."""
        self._refresh()
        return self._names

    def servers(self, container_id: str) -> list[str]:
        """Returns the addresses that ``--dns`` named for a container."""
        self._refresh()
        if container_id not in self._servers:
            with self._store.reading() as connection:
                row = connection.execute(
                    "SELECT json_extract(record, '$.HostConfig.Dns') FROM container WHERE id = ?",
                    (container_id,),
                ).fetchone()
            self._servers[container_id] = json.loads(row[0]) if row and row[0] else []
        return self._servers[container_id]

    def _refresh(self) -> None:
        version = self._store.version()
        if version != self._version:
            self._names = Directory(self._endpoints())
            self._servers.clear()
            self._version = version

    def _endpoints(self) -> "Iterator[Endpoint]":
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT container_id, network_name, container.name, names, ipv4, ipv6,"
                " json_extract(settings, '$.Links') AS links,"
                " json_extract(network.record, '$.Internal') AS internal"
                " FROM endpoint JOIN network ON network.id = network_id"
                " LEFT JOIN container ON container.id = container_id"
                " WHERE endpoint.id != '' ORDER BY container_id, position"
            ).fetchall()
        by_name = {row["name"]: row["container_id"] for row in rows}
        for row in rows:
            # A sandbox, which is no container's, may ask, and is called nothing.
            called = (row["name"], *json.loads(row["names"])) if row["name"] else ()
            addresses = [
                ip_interface(row[version]).ip for version in ("ipv4", "ipv6") if row[version]
            ]
            links = {}
            for link in json.loads(row["links"] or "[]"):
                with contextlib.suppress(InvalidArgumentError):  # recorded when nobody looked at it
                    reference, alias = split(link)
                    links[alias or reference] = by_name.get(reference, reference)
            if addresses:
                yield Endpoint(
                    row["container_id"], row["network_name"],
                    list(dict.fromkeys(filter(None, called))), addresses,
                    links=links, leads_out=not row["internal"],
                )  # fmt: skip
