"""``ketch network``: networks, and who is connected to them."""

import sys
from ipaddress import ip_address, ip_network

from ketch.cli import client_configuration, each, formats, usual_flags
from ketch.cli.caller import explained
from ketch.cli.documents import show
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.prompts import confirmed
from ketch.cli.tables import table
from ketch.engine.engine import Engine
from ketch.engine.networks import connecting, listing
from ketch.engine.networks import settings as network_settings
from ketch.errors import InvalidArgumentError, KetchError, NotFoundError
from ketch.spec import environment
from ketch.spec.flag import EXPLAIN
from ketch.spec.template_functions import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.flags import Parsed
    from ketch.engine.networks.records import Network
    from ketch.engine.settings import Settings

CREATE = Command(
    "ketch network create [OPTIONS] NETWORK",
    "Create a network",
    (
        Flag("attachable", "", "bool", "Enable manual container attachment"),
        Flag("aux-address", "", "list", "Auxiliary addresses, which no container gets (name=IP)",
             metavar="map"),
        Flag("config-from", help="The network from which to copy the configuration"),
        Flag("config-only", "", "bool", "Create a configuration only network"),
        Flag("driver", "d", help="Driver: bridge, macvlan or ipvlan", default="bridge"),
        EXPLAIN,
        Flag("gateway", "", "list", "The gateway of each subnet", metavar="strings"),
        Flag("ingress", "", "bool", "Create swarm routing-mesh network"),
        Flag("internal", "", "bool", "Restrict external access to the network"),
        Flag("ip-range", "", "list", "The part of a subnet that containers get",
             metavar="strings"),
        Flag("ipam-driver", help="IP Address Management Driver", default="default"),
        Flag("ipam-opt", "", "list", "Set IPAM driver specific options", metavar="map"),
        Flag("ipv4", "", "bool", "Enable or disable IPv4 address assignment", default=True),
        Flag("ipv6", "", "bool", "Enable or disable IPv6 address assignment"),
        Flag("label", "", "list", "Set metadata on a network", convert=environment.label),
        Flag("opt", "o", "list", "Set driver specific options", metavar="map"),
        Flag("scope", help="Control the network's scope"),
        Flag("subnet", "", "list", "Subnet in CIDR format", metavar="strings"),
    ),
    minimum_arguments=1,
    maximum_arguments=1,
)  # fmt: skip
LS = Command(
    "ketch network ls [OPTIONS]",
    "List networks",
    (
        usual_flags.filters("driver=bridge"),
        usual_flags.LIST_FORMAT,
        Flag("no-trunc", "", "bool", "Do not truncate the output"),
        Flag("quiet", "q", "bool", "Only display network IDs"),
    ),
    maximum_arguments=0,
)  # fmt: skip
INSPECT = Command(
    "ketch network inspect [OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    (
        usual_flags.DOCUMENT_FORMAT,
        Flag("verbose", "v", "bool", "Verbose output for diagnostics"),
    ),
    minimum_arguments=1,
)
CONNECT = Command(
    "ketch network connect [OPTIONS] NETWORK CONTAINER",
    "Connect a container to a network",
    (
        Flag("alias", "", "list", "Add network-scoped alias for the container",
             metavar="strings"),
        Flag("driver-opt", "", "list", "driver options for the network", metavar="strings"),
        EXPLAIN,
        Flag("gw-priority", "", "int", "Highest gw-priority provides the default gateway"),
        Flag("ip", help='IPv4 address (e.g., "172.30.100.104")'),
        Flag("ip6", help='IPv6 address (e.g., "2001:db8::33")'),
        Flag("link", "", "list", "Add link to another container"),
        Flag("link-local-ip", "", "list", "Add a link-local address for the container",
             metavar="strings"),
    ),
    minimum_arguments=2,
    maximum_arguments=2,
)  # fmt: skip
DISCONNECT = Command(
    "ketch network disconnect [OPTIONS] NETWORK CONTAINER",
    "Disconnect a container from a network",
    (EXPLAIN, Flag("force", "f", "bool", "Force the container to disconnect from a network")),
    minimum_arguments=2,
    maximum_arguments=2,
)
RM = Command(
    "ketch network rm NETWORK [NETWORK...]",
    "Remove one or more networks",
    (EXPLAIN, Flag("force", "f", "bool", "Do not error if the network does not exist")),
    minimum_arguments=1,
)
PRUNE = Command(
    "ketch network prune [OPTIONS]",
    "Remove all unused networks",
    (
        EXPLAIN,
        usual_flags.filters("until=<timestamp>", ""),
        usual_flags.UNASKED,
    ),
    maximum_arguments=0,
)  # fmt: skip

_HEADS = {"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE"}
_OTHER_HEADS = {
    "CreatedAt": "CREATED AT", "Internal": "INTERNAL", "IPv4": "IPV4", "IPv6": "IPV6",
    "Labels": "LABELS",
}  # fmt: skip
_SHORT_ID_LENGTH = 12


def create(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch network create``."""
    parsed = parse(CREATE, arguments)
    document: dict[str, Any] = {
        "Name": parsed.arguments[0],
        "Driver": parsed.text("driver"),
        "Scope": parsed.text("scope"),
        "Internal": parsed.enabled("internal"),
        "Attachable": parsed.enabled("attachable"),
        "Ingress": parsed.enabled("ingress"),
        "ConfigOnly": parsed.enabled("config-only"),
        "EnableIPv4": parsed.enabled("ipv4"),
        "EnableIPv6": parsed.enabled("ipv6"),
        "IPAM": {
            "Driver": parsed.text("ipam-driver"),
            "Options": _mapping(parsed.items("ipam-opt")),
            "Config": _subnets(parsed),
        },
        "Options": _mapping(parsed.items("opt")),
        "Labels": environment.mapping(parsed.items("label")),
    }
    if parsed.text("config-from"):
        document["ConfigFrom"] = {"Network": parsed.text("config-from")}
    with explained(settings, parsed):
        network, warnings = Engine(settings).networks.create(document)
    for warning in warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    print(network.id)
    return 0


def ls(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch network ls``."""
    parsed = parse(LS, arguments)
    engine = Engine(settings)
    found = listing.select(engine.networks, engine.endpoints, parsed.items("filter"))
    whole = parsed.enabled("no-trunc")
    rows = [_row(network, whole=whole) for network in found]
    template = client_configuration.list_format(
        "networksFormat", parsed.text("format"), quiet=parsed.enabled("quiet")
    )
    if parsed.enabled("quiet") and template in {"", "table"}:
        print("".join(f"{row['ID']}\n" for row in rows), end="")
    elif template in {"", "table"}:
        lines = [[row[name] for name in _HEADS] for row in rows]
        print(table([[*_HEADS.values()], *lines]), end="")
    elif template == formats.RAW:
        names = {"ID": "network_id", "Name": "name", "Driver": "driver", "Scope": "scope"}
        print(formats.raw(rows, names, quiet=parsed.enabled("quiet")), end="")
    else:
        heads = Struct({**_HEADS, **_OTHER_HEADS}, "network")
        print(formats.render([Struct(row, "network") for row in rows], template, heads), end="")
    return 0


def inspect(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch network inspect``."""
    parsed = parse(INSPECT, arguments)
    engine = Engine(settings)
    return show(
        parsed.arguments,
        lambda name: network_settings.network(engine, engine.networks.find(name)),
        parsed.text("format"),
    )


def connect(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch network connect``."""
    parsed = parse(CONNECT, arguments)
    asked: dict[str, Any] = {
        "Aliases": parsed.items("alias"),
        "Links": parsed.items("link"),
        "DriverOpts": _driver_options(parsed.items("driver-opt")),
        "GwPriority": parsed.number("gw-priority"),
        "IPAMConfig": {
            key: value
            for key, value in (
                ("IPv4Address", parsed.text("ip")),
                ("IPv6Address", parsed.text("ip6")),
                ("LinkLocalIPs", parsed.items("link-local-ip")),
            )
            if value
        },
    }
    network, container = parsed.arguments
    given = {key: value for key, value in asked.items() if value}
    with explained(settings, parsed):
        connecting.connect(Engine(settings), network, container, given)
    return 0


def disconnect(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch network disconnect``."""
    parsed = parse(DISCONNECT, arguments)
    network, container = parsed.arguments
    with explained(settings, parsed):
        connecting.disconnect(Engine(settings), network, container, force=parsed.enabled("force"))
    return 0


def rm(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch network rm``."""
    parsed = parse(RM, arguments)
    networks = Engine(settings).networks
    status = 0
    with explained(settings, parsed):
        for name in parsed.arguments:
            try:
                networks.remove(name)
            except KetchError as error:
                if parsed.enabled("force") and isinstance(error, NotFoundError):
                    continue
                each.say(error)
                status = 1
            else:
                print(name, flush=True)
    return status


def prune(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch network prune``."""
    parsed = parse(PRUNE, arguments)
    warning = "WARNING! This will remove all custom networks not used by at least one container."
    if not parsed.enabled("force") and not confirmed(warning):
        return 0
    engine = Engine(settings)
    # Those whose end nobody saw are on no network any more.
    engine.containers.list()
    with explained(settings, parsed):
        removed = listing.prune(engine.networks, engine.endpoints, parsed.items("filter"))
    if removed:
        print("Deleted Networks:\n" + "".join(f"{name}\n" for name in removed))
    return 0


def _row(network: "Network", *, whole: bool) -> "dict[str, Any]":
    record, labels = network.record, network.labels
    return {
        "CreatedAt": network_settings.created_at(record["created_ns"]),
        "Driver": network.driver,
        "ID": network.id if whole else network.id[:_SHORT_ID_LENGTH],
        "IPv4": _truth(record.get("EnableIPv4", True)),
        "IPv6": _truth(record.get("EnableIPv6")),
        "Internal": _truth(network.internal),
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
        "Name": network.name,
        "Scope": "local",
        "Label": lambda key: labels.get(key, ""),
    }


def _truth(value: object) -> str:
    return "true" if value else "false"


def _mapping(entries: list[str]) -> dict[str, str]:
    """Options as Docker reads them: one without a value is an empty string."""
    return {key: value for key, _, value in (entry.partition("=") for entry in entries)}


def _driver_options(entries: list[str]) -> dict[str, str]:
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key.strip():
            raise InvalidArgumentError("invalid key value pair format in driver options")
        found[key.strip()] = value.strip()
    return found


def _listed(entries: list[str]) -> list[str]:
    """Values of a flag that takes several at once, parted by commas."""
    return [one for entry in entries for one in entry.split(",")]


def _subnets(parsed: "Parsed") -> "list[dict[str, Any]]":
    """Bring subnets, ranges, gateways and auxiliary addresses together, as Docker's client does.

    Raises:
        InvalidArgumentError: one of them fits no subnet, or a subnet has two.
    """
    subnets = _listed(parsed.items("subnet"))
    ranges, gateways = _listed(parsed.items("ip-range")), _listed(parsed.items("gateway"))
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise InvalidArgumentError("every ip-range or gateway must have a corresponding subnet")
    found: dict[str, dict[str, Any]] = {}
    for subnet in subnets:
        if any(_within(subnet, other) or _within(other, subnet) for other in found):
            raise InvalidArgumentError("multiple overlapping subnet configuration is not supported")
        found[subnet] = {"Subnet": subnet}
    for key, what, several, values in (
        ("IPRange", "range", "ranges (%s, %s) on the same subnet (%s)", ranges),
        ("Gateway", "gateway", "gateways (%s, %s) for the same subnet (%s)", gateways),
    ):
        for value in values:
            home = _home(value, subnets, what)
            if key in found[home]:
                words = several % (value, found[home][key], home)
                raise InvalidArgumentError(f"cannot configure multiple {words}")
            found[home][key] = value
    for name, value in _mapping(parsed.items("aux-address")).items():
        home = _home(value, subnets, "aux-address")
        found[home].setdefault("AuxiliaryAddresses", {})[name] = value
    return list(found.values())


def _home(value: str, subnets: list[str], what: str) -> str:
    for subnet in subnets:
        if _within(value, subnet):
            return subnet
    raise InvalidArgumentError(f"no matching subnet for {what} {value}")


def _within(value: str, subnet: str) -> bool:
    """Whether an address or a network begins in a network."""
    try:
        # Without a slash it would be a single address.
        home = ip_network(subnet if "/" in subnet else "", strict=False)
    except ValueError as error:
        raise InvalidArgumentError(f"invalid subnet: invalid CIDR address: {subnet}") from error
    try:
        address = ip_address(value.partition("/")[0])
    except ValueError:
        return False
    return address in home
