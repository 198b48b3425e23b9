"""What ``inspect`` shows of networks, in the Docker Engine API's keys and order."""

import os
import time

from ketch.engine.networks import publishing
from ketch.spec import ports as grammar
from ketch.spec.template_functions import NilMap, NilSlice, Struct
from ketch.spec.timestamps import rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ketch.engine.engine import Engine
    from ketch.engine.networks.endpoints import Endpoints
    from ketch.engine.networks.members import Member
    from ketch.engine.networks.records import Network
    from ketch.engine.records.rows import Container
    from ketch.network.ports import Port

_DEFAULT = "bridge"
_DEFAULT_KEYS = (
    "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress",
    "IPPrefixLen", "IPv6Gateway", "MacAddress",
)  # fmt: skip


def document(engine: "Engine", container: "Container") -> Struct:
    """A container's ``NetworkSettings``."""
    running = container.is_active
    endpoints = {}
    for member in engine.endpoints.of(container.id):
        endpoints[member.network_name] = _endpoint(container, member, _gateways(engine, member))
    default = endpoints.get(_DEFAULT) or _endpoint(container, None, {})
    ports = engine.endpoints.ports([container.id]).get(container.id, ()) if running else ()
    path = f"/proc/{container.init_pid}/ns/net"
    return Struct(
        {
            "Bridge": "",
            "SandboxID": _sandbox_id(container, path) if running else "",
            "SandboxKey": path if running else "",
            "Ports": published(container.record, ports) if running and (endpoints or ports) else {},
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": NilSlice(),
            "SecondaryIPv6Addresses": NilSlice(),
            **{key: default[key] for key in _DEFAULT_KEYS},
            "Networks": endpoints,
        }
    )


def mac_asked(engine: "Engine", container: "Container") -> str:
    """The hardware address that was asked for on the network of a container's mode; empty for none.

    Docker shows it as ``Config.MacAddress`` too, where it once was.
    """
    mode = container.record.get("HostConfig", {}).get("NetworkMode", "")
    return next(
        (
            member.settings.get("MacAddress") or ""
            for member in engine.endpoints.of(container.id)
            if mode in {member.network_name, member.network_id}
        ),
        "",
    )


def networks_of(
    engine: "Engine", containers: "Sequence[Container]"
) -> "dict[str, dict[str, Struct]]":
    """The networks of many containers, by container, as the API's list tells them.

    Docker leaves out there what was asked for, and what a container is called.
    """
    gateways: dict[str, dict[int, str]] = {}
    members = engine.endpoints.of_all({container.id for container in containers})
    found: dict[str, dict[str, Struct]] = {}
    for container in containers:
        shown = found[container.id] = {}
        for member in members.get(container.id, ()):
            if member.addresses and member.network_id not in gateways:
                gateways[member.network_id] = _gateways(engine, member)
            endpoint = _endpoint(container, member, gateways.get(member.network_id, {}))
            endpoint.update(Links=None, Aliases=None, DriverOpts=None, DNSNames=None)
            shown[member.network_name] = endpoint
    return found


def published(
    record: "dict[str, Any]", ports: "Sequence[Port]"
) -> "dict[str, list[Struct] | None]":
    """The ports of a running container: exposed ones, and where the others are published."""
    exposed = record.get("Config", {}).get("ExposedPorts") or {}
    mode = record.get("HostConfig", {}).get("NetworkMode", "")
    found: dict[str, list[Struct] | None] = dict.fromkeys(
        () if mode in {"host", "none"} else sorted(exposed, key=_order)
    )
    for port in ports:
        name = f"{port.port}/{port.protocol}"
        places = found.get(name) or []
        found[name] = places
        host_port = "" if port.routed else str(port.host_port)
        places.append(Struct({"HostIp": str(port.host_address), "HostPort": host_port}))
    return found


def listed(record: "dict[str, Any]", ports: "Sequence[Port]") -> "list[dict[str, Any]]":
    """The ports of a running container as the API's list tells them (``Port``)."""
    named = {f"{port.port}/{port.protocol}" for port in ports}
    found: list[dict[str, Any]] = [
        {"PrivatePort": number, "Type": protocol}
        for number, protocol in (
            grammar.parse(text) for text in published(record, ports) if text not in named
        )
    ]
    return found + [
        {
            "IP": str(port.host_address),
            "PrivatePort": port.port,
            "PublicPort": port.host_port,
            "Type": port.protocol,
        }
        for port in ports
        if not port.routed
    ]


def summary(record: "dict[str, Any]", ports: "Sequence[Port]") -> str:
    """The ports of a running container in a line, as ``ps`` shows them.

    Neighbours that are published under their own numbers are joined, as Docker's client does:
    ``0.0.0.0:8000-8001->8000-8001/tcp``.
    """
    named = {f"{port.port}/{port.protocol}" for port in ports if not port.routed}
    every = [
        (number, "", 0, protocol)
        for number, protocol in (
            grammar.parse(text) for text in published(record, ports) if text not in named
        )
    ]
    every += [
        (port.port, str(port.host_address), port.host_port, port.protocol)
        for port in ports
        if not port.routed
    ]
    done, mappings = [], []
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    for inside, place, outside, protocol in sorted(every):
        if place and outside != inside:
            mappings.append(f"{publishing.bracketed(place)}:{outside}->{inside}/{protocol}")
            continue
        first, last = groups.get((place, protocol), (inside, inside - 1))
        if last != inside - 1:
            done.append(_group(place, protocol, first, last))
            first = inside
        groups[place, protocol] = (first, inside)
    done += [_group(*key, *span) for key, span in groups.items()]
    return ", ".join(done + mappings)


def network(engine: "Engine", shown: "Network") -> Struct:
    """What ``network inspect`` shows."""
    record = shown.record
    ipam = record.get("IPAM", {})
    return Struct(
        {
            "Name": shown.name,
            "Id": shown.id,
            "Created": rfc3339(record["created_ns"]),
            "Scope": "local",
            "Driver": shown.driver,
            "EnableIPv4": bool(record.get("EnableIPv4", True)),
            "EnableIPv6": bool(record.get("EnableIPv6", False)),
            "IPAM": Struct(
                {
                    "Driver": ipam.get("Driver", "default"),
                    "Options": NilMap() if ipam.get("Options") is None else ipam["Options"],
                    "Config": [_subnet(subnet.document()) for subnet in shown.subnets]
                    or [_subnet(entry) for entry in record.get("asked", ())],
                }
            ),
            "Internal": shown.internal,
            "Attachable": bool(record.get("Attachable")),
            "Ingress": False,
            "ConfigFrom": Struct(record.get("ConfigFrom") or {"Network": ""}),
            "ConfigOnly": bool(record.get("ConfigOnly")),
            "Containers": _containers(engine, engine.endpoints, shown),
            "Options": shown.options,
            "Labels": shown.labels,
        },
        optional={"Peers": NilSlice(), "Services": NilMap()},
    )


def _subnet(told: "dict[str, Any]") -> Struct:
    """One of a network's subnets, whose last field has a name of its own in Go."""
    shown = Struct(
        {
            "Subnet": told.get("Subnet", ""),
            "IPRange": told.get("IPRange", ""),
            "Gateway": told.get("Gateway", ""),
            "AuxAddress": told.get("AuxiliaryAddresses") or NilMap(),
        },
        "network.IPAMConfig",
    )
    shown.wire = Struct(told)
    return shown


def created_at(moment_ns: int) -> str:
    """When a network was made, as Docker's client prints it."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment_ns // 10**9))
    fraction = f"{moment_ns % 10**9:09}".rstrip("0")
    return f"{moment}{'.' + fraction if fraction else ''} +0000 UTC"


def _containers(engine: "Engine", endpoints: "Endpoints", shown: "Network") -> "dict[str, Struct]":
    names = engine.endpoints.container_names(shown.id)
    found = {}
    for member in endpoints.on(shown.id):
        texts = {address.version: str(address) for address in member.addresses}
        found[member.container_id] = Struct(
            {
                "Name": names.get(member.container_id, ""),
                "EndpointID": member.id,
                "MacAddress": member.mac,
                "IPv4Address": texts.get(4, ""),
                "IPv6Address": texts.get(6, ""),
            }
        )
    return found


def _gateways(engine: "Engine", member: "Member") -> dict[int, str]:
    """The gateways of a member's network, by IP version, while it has addresses there."""
    if not member.addresses:
        return {}
    network = engine.networks.find(member.network_id)
    found: dict[int, str] = {}
    for subnet in network.subnets:
        if subnet.gateway and not network.internal:
            found.setdefault(subnet.subnet.version, str(subnet.gateway))
    return found


def _endpoint(
    container: "Container", member: "Member | None", gateways: "Mapping[int, str]"
) -> Struct:
    settings: dict[str, Any] = member.settings if member else {}
    running = member is not None and bool(member.id) and container.is_active
    addresses = {one.version: one for one in member.addresses} if member and running else {}
    gateways = gateways if addresses else {}
    four, six = addresses.get(4), addresses.get(6)
    names: list[str] = NilSlice()
    if member and running and member.network_name != _DEFAULT and member.addresses:
        names = list(dict.fromkeys([container.name, *member.names]))
    asked = settings.get("IPAMConfig")
    return Struct(
        {
            "IPAMConfig": Struct(asked) if asked else None,
            "Links": settings.get("Links") or NilSlice(),
            "Aliases": settings.get("Aliases") or NilSlice(),
            "MacAddress": member.mac if member and running else settings.get("MacAddress") or "",
            "DriverOpts": settings.get("DriverOpts") or NilMap(),
            "GwPriority": settings.get("GwPriority") or 0,
            "NetworkID": _network_id(member),
            "EndpointID": member.id if member and running else "",
            "Gateway": gateways.get(4, ""),
            "IPAddress": str(four.ip) if four else "",
            "IPPrefixLen": four.network.prefixlen if four else 0,
            "IPv6Gateway": gateways.get(6, ""),
            "GlobalIPv6Address": str(six.ip) if six else "",
            "GlobalIPv6PrefixLen": six.network.prefixlen if six else 0,
            "DNSNames": names,
        }
    )


def _network_id(member: "Member | None") -> str:
    return member.network_id if member and len(member.network_id) == 64 else ""


def _sandbox_id(container: "Container", path: str) -> str:
    """An identifier of the namespace: none is kept, so it is made from what the kernel calls it."""
    import hashlib  # noqa: PLC0415 - only what is inspected has one

    try:
        name = f"{container.id} {os.stat(path).st_ino}"
    except OSError:
        return ""
    return hashlib.sha256(name.encode()).hexdigest()


def _order(text: str) -> tuple[int, str]:
    number, protocol = grammar.parse(text)
    return number, protocol


def _group(place: str, protocol: str, first: int, last: int) -> str:
    span = str(first) if first == last else f"{first}-{last}"
    before = f"{publishing.bracketed(place)}:{span}->" if place else ""
    return f"{before}{span}/{protocol}"
