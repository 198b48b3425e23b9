"""What a network is asked to be: checks of the API's ``NetworkCreate`` document. Pure.

Words and rules are Docker's (``ValidateIPAM`` of its API types, and its bridge, macvlan and ipvlan
drivers), except that an option nobody knows is refused instead of ignored.
"""

from ipaddress import ip_address, ip_interface, ip_network

from ketch.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError
from ketch.linux import rtnetlink
from ketch.network.ipam import Network
from ketch.spec.digits import decimal
from ketch.spec.endpoints import is_private
from ketch.spec.values import boolean, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PREDEFINED = ("bridge", "host", "none", "default")
DRIVERS = ("bridge", "macvlan", "ipvlan")
IPAM_DRIVERS = ("", "default", "null")

_BRIDGE = "com.docker.network.bridge."
_DRIVER = "com.docker.network.driver."

NAME = f"{_BRIDGE}name"
ICC = f"{_BRIDGE}enable_icc"
MASQUERADE = f"{_BRIDGE}enable_ip_masquerade"
HOST_BINDING = f"{_BRIDGE}host_binding_ipv4"
DEFAULT_BRIDGE = f"{_BRIDGE}default_bridge"
GATEWAY_MODE = {4: f"{_BRIDGE}gateway_mode_ipv4", 6: f"{_BRIDGE}gateway_mode_ipv6"}
INHIBIT_IPV4 = f"{_BRIDGE}inhibit_ipv4"
SOURCE = {4: "com.docker.network.host_ipv4", 6: "com.docker.network.host_ipv6"}
PREFIX = "com.docker.network.container_iface_prefix"
MTU = f"{_DRIVER}mtu"
# ketch's own: whether containers send from the addresses that they were given alone.
PINNED = "ketch.bridge.pinned"
# Whether its containers may begin conversations with the host.
HOST_ACCESS = "ketch.bridge.host_access"
# Whether ports are published, for the host's programs, on a network that leads nowhere.
PUBLISHED = "ketch.bridge.published"

MODES = ("nat", "nat-unprotected", "routed", "isolated")

_BRIDGE_OPTIONS = {
    NAME, ICC, MASQUERADE, HOST_BINDING, DEFAULT_BRIDGE, INHIBIT_IPV4, PREFIX, MTU, PINNED,
    HOST_ACCESS, PUBLISHED, *GATEWAY_MODE.values(), *SOURCE.values(),
}  # fmt: skip
_TRUTHS = (ICC, MASQUERADE, DEFAULT_BRIDGE, INHIBIT_IPV4, PINNED, HOST_ACCESS, PUBLISHED)
_PARENT_OPTIONS = {
    "macvlan": {"parent", "macvlan_mode", MTU, PREFIX},
    "ipvlan": {"parent", "ipvlan_mode", "ipvlan_flag", MTU, PREFIX},
}
_LINK_NAME_BYTES = 15


def check(document: "Mapping[str, Any]") -> None:
    """Check a request for a network.

    Args:
        document: in the API's keys.

    Raises:
        InvalidArgumentError: in Docker's words.
        NotFoundError: there is no such driver.
        PermissionDeniedError: the network is one of those that are always there.
    """
    name = document.get("Name", "")
    if not name.strip():
        raise InvalidArgumentError("invalid network name: name is empty")
    if "\0" in name:  # which no command line could say again
        raise InvalidArgumentError(f"invalid network name {name!r}: a NUL is in it")
    if name in PREDEFINED:
        raise PermissionDeniedError(
            f"operation is not permitted on predefined {name} network", "choose another name"
        )
    if is_private(name):
        raise PermissionDeniedError(
            f"cannot make a network {quoted(name)}: that is a network mode", "choose another name"
        )
    driver = document.get("Driver") or "bridge"
    if driver in {"host", "null"}:
        raise PermissionDeniedError(
            f'only one instance of "{driver}" network is allowed', "use --network host or none"
        )
    if driver not in DRIVERS:
        raise NotFoundError(f'plugin "{driver}" not found', f"drivers are: {', '.join(DRIVERS)}")
    if document.get("Ingress"):
        raise InvalidArgumentError("Ingress network can not be created: there is no swarm")
    if document.get("Scope") not in {None, "", "local"}:
        raise InvalidArgumentError(
            f'scope {quoted(document["Scope"])} needs a swarm: only "local" is possible'
        )
    if document.get("ConfigOnly") and document.get("ConfigFrom", {}).get("Network"):
        raise InvalidArgumentError("a config-only network cannot be made from another one")
    ipam = document.get("IPAM") or {}
    if ipam.get("Driver", "") not in IPAM_DRIVERS:
        raise NotFoundError(
            f'IPAM plugin "{ipam["Driver"]}" not found', "the IPAM driver is: default"
        )
    if ipam.get("Options"):
        raise InvalidArgumentError(f"the default IPAM driver has no option {min(ipam['Options'])}")
    check_options(driver, document.get("Options") or {})
    _check_subnets(ipam.get("Config") or [], ipv6=bool(document.get("EnableIPv6")))


def check_options(driver: str, options: "Mapping[str, str]") -> None:
    """Check a driver's options.

    Raises:
        InvalidArgumentError: an option is unknown or has a value that cannot be.
    """
    known = _BRIDGE_OPTIONS if driver == "bridge" else _PARENT_OPTIONS[driver]
    for key in sorted(options):
        if key not in known:
            raise InvalidArgumentError(
                f"the {driver} driver has no option {key}", f"it has: {', '.join(sorted(known))}"
            )
        if key in _TRUTHS:
            _truth(key, options[key])
    if MTU in options and not 68 <= (decimal(options[MTU]) or 0) <= 65535:
        raise InvalidArgumentError(f"failed to parse {MTU} value: {quoted(options[MTU])}")
    if driver == "bridge":
        _check_bridge(options)
    elif driver == "macvlan":
        _one_of("macvlan_mode", options, rtnetlink.MACVLAN_MODES)
    else:
        _one_of("ipvlan_mode", options, rtnetlink.IPVLAN_MODES)
        _one_of("ipvlan_flag", options, rtnetlink.IPVLAN_FLAGS)


def truth(options: "Mapping[str, str]", key: str, default: bool) -> bool:
    """A checked option that is true or false."""
    return _truth(key, options[key]) if key in options else default


def _check_bridge(options: "Mapping[str, str]") -> None:
    name = options.get(NAME, "")
    if len(name.encode()) > _LINK_NAME_BYTES or "/" in name or name in {".", ".."}:
        raise InvalidArgumentError(
            f"{name!r} cannot be a bridge's name", f"at most {_LINK_NAME_BYTES} bytes, none a /"
        )
    for key in GATEWAY_MODE.values():
        _one_of(key, options, MODES)
    for key in (HOST_BINDING, *SOURCE.values()):
        if key in options:
            try:
                address = ip_address(options[key])
            except ValueError as error:
                raise InvalidArgumentError(
                    f"{key}: {quoted(options[key])} is no address"
                ) from error
            if (key == SOURCE[6]) != (address.version == 6):
                raise InvalidArgumentError(f"{key}: {address} is of the other IP version")


def _one_of(key: str, options: "Mapping[str, str]", choices: "Any") -> None:
    if options.get(key, "") not in {"", *choices}:
        raise InvalidArgumentError(
            f"{key}: unknown value {quoted(options[key])}", f"one of {', '.join(choices)}"
        )


def _truth(key: str, text: str) -> bool:
    try:
        return boolean(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{key}: {error.message}") from error


def _check_subnets(configured: "list[dict[str, Any]]", *, ipv6: bool) -> None:
    errors = []
    seen: list[Network] = []
    for entry in configured:
        text = entry.get("Subnet", "")
        if not text:
            errors.append("an IPAM configuration without a subnet")
            continue
        try:
            interface = ip_interface(text)
        except ValueError:
            errors.append(f"invalid subnet {text}: invalid CIDR block notation")
            continue
        subnet = interface.network
        if "/" not in text:
            errors.append(f"invalid subnet {text}: invalid CIDR block notation")
        elif interface.ip != subnet.network_address:
            errors.append(f"invalid subnet {text}: it should be {subnet}")
        if subnet.version == 6 and not ipv6:
            errors.append(
                f"invalid subnet {text}: IPv6 has not been enabled for this network (--ipv6)"
            )
        if any(one.version == subnet.version and one.overlaps(subnet) for one in seen):
            errors.append("multiple overlapping subnet configuration is not supported")
        seen.append(subnet)
        errors += _range_errors(entry.get("IPRange", ""), subnet)
        errors += _address_errors("gateway", entry.get("Gateway", ""), subnet)
        for address in (entry.get("AuxiliaryAddresses") or {}).values():
            errors += _address_errors("auxiliary address", address, subnet)
    if errors:
        raise InvalidArgumentError("invalid network config:\n" + "\n".join(errors))


def _range_errors(text: str, subnet: Network) -> list[str]:
    if not text:
        return []
    try:
        ip_range = ip_network(text, strict=False)
    except ValueError:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    if ip_range.version != subnet.version:
        return [f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"]
    if ip_range.prefixlen < subnet.prefixlen:
        return [f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"]
    if ip_interface(text).ip != ip_range.network_address or "/" not in text:
        return [f"invalid ip-range {text}: it should be {ip_range}"]
    if not ip_range.overlaps(subnet):
        return [f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"]
    return []


def _address_errors(what: str, text: str, subnet: Network) -> list[str]:
    if not text:
        return []
    try:
        address = ip_address(text)
    except ValueError:
        return [f"invalid {what} {text}: invalid address"]
    if address.version != subnet.version:
        return [f"invalid {what} {text}: parent subnet is an IPv{subnet.version} block"]
    if address not in subnet:
        return [f"invalid {what} {text}: parent subnet {subnet} doesn't contain this address"]
    return []
