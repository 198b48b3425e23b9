"""How a container asks for networks: ``--network`` and the options that say more about one."""

from ketch.errors import InvalidArgumentError
from ketch.spec.values import integer, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.spec.container import EndpointSettings, IpamConfig

DEFAULT = "default"
"""The name that stands for the network of containers that ask for none."""


PRIVATE = ("pasta", "slirp4netns")
"""Modes of a container that has the machine's network by a program of its own, as podman's."""

_MAC_DIGITS = 12


class _Attachment:
    """One ``--network``: a network, and what the container wants to be there."""

    __slots__ = ("endpoint", "ipam", "network")

    def __init__(self, network: str) -> None:
        self.network = network
        self.endpoint: EndpointSettings = {}
        self.ipam: IpamConfig = {}

    def settings(self) -> "EndpointSettings":
        return {**self.endpoint, **({"IPAMConfig": self.ipam} if self.ipam else {})}


def is_user_defined(mode: str) -> bool:
    """Whether a network mode names a network that somebody made."""
    if mode in {"", DEFAULT, "bridge", "host", "none"}:
        return False
    return not is_container(mode) and not is_private(mode)


def is_private(mode: str) -> bool:
    """Whether a mode asks for a program that leads out for this container alone."""
    return mode.partition(":")[0] in PRIVATE


def private_options(mode: str) -> list[str]:
    """What the program is told: ``pasta:--mtu,1500`` has two options."""
    return [option for option in mode.partition(":")[2].split(",") if option]


def is_container(mode: str) -> bool:
    """Whether a mode asks for another container's namespace."""
    return mode == "container" or mode.startswith("container:")


def names_container(mode: str) -> bool:
    """Whether it also says which."""
    return mode.startswith("container:") and mode != "container:"


def container_of(mode: str) -> str:
    """The container that a mode such as ``container:web`` names; empty where it names none."""
    return mode.partition(":")[2] if is_container(mode) else ""


def network(text: str) -> str:
    """Checks one ``--network``: a name, or ``name=NAME,alias=...,ip=...``."""
    _read(text)
    return text


def networking(
    networks: "Sequence[str]", given: "Mapping[str, object]"
) -> "tuple[str, dict[str, EndpointSettings]]":
    """Returns the network mode and the API's ``EndpointsConfig``.

    Args:
        networks: the ``--network`` options.
        given: the options that belong to the first network, where they were given:
            ``network-alias``, ``link``, ``ip``, ``ip6``, ``link-local-ip``, ``mac-address``.

    Raises:
        InvalidArgumentError: they contradict each other.
    """
    attachments = [_read(text) for text in networks] or [_Attachment(DEFAULT)]
    _add_options(attachments[0], given)
    endpoints: dict[str, EndpointSettings] = {}
    for attachment in attachments:
        name = attachment.network
        _check(attachment)
        if name in endpoints:
            raise InvalidArgumentError(f"network {quoted(name)} is specified multiple times")
        endpoints[name] = attachment.settings()
    kinds = {is_user_defined(attachment.network) for attachment in attachments}
    if networks and len(kinds) > 1:
        raise InvalidArgumentError(
            "conflicting options: cannot attach both user-defined and non-user-defined "
            "network-modes"
        )
    mode = attachments[0].network
    if len(attachments) == 1 and not endpoints[mode]:
        endpoints = {}
    return mode, endpoints


def _read(text: str) -> _Attachment:
    name, equals, value = text.partition("=")
    if not (equals and name.replace("_", "a").isalnum() and value[:1].replace("_", "a").isalnum()):
        return _Attachment(text)
    attachment = _Attachment("")
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals:
            raise InvalidArgumentError(f"invalid field {field}")
        _take(attachment, key.strip().lower(), value.strip())
    if not attachment.network:
        raise InvalidArgumentError("network name/id is not specified")
    return attachment


def _take(attachment: _Attachment, key: str, value: str) -> None:
    endpoint, ipam = attachment.endpoint, attachment.ipam
    if key == "name":
        attachment.network = value
    elif key == "alias":
        endpoint.setdefault("Aliases", []).append(value)
    elif key == "ip":
        ipam["IPv4Address"] = value
    elif key == "ip6":
        ipam["IPv6Address"] = value
    elif key == "link-local-ip":
        ipam.setdefault("LinkLocalIPs", []).append(value)
    elif key == "mac-address":
        endpoint["MacAddress"] = value
    elif key == "driver-opt":
        name, equals, option = value.partition("=")
        if not equals or not name.strip():
            raise InvalidArgumentError("invalid key value pair format in driver options")
        endpoint.setdefault("DriverOpts", {})[name.strip().lower()] = option.strip()
    elif key == "gw-priority":
        try:
            endpoint["GwPriority"] = integer(value)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"invalid gw-priority ({value}): invalid syntax") from error
    else:
        raise InvalidArgumentError(f"invalid field key {key}")


def _add_options(attachment: _Attachment, given: "Mapping[str, object]") -> None:
    """Adds the options about the first network; what it says itself cannot be said again."""
    endpoint, ipam = attachment.endpoint, attachment.ipam
    sections: dict[str, tuple[dict[str, object], str, str]] = {
        "network-alias": (endpoint, "Aliases", "alias"),  # type: ignore[dict-item]
        "link": (endpoint, "Links", "links"),  # type: ignore[dict-item]
        "ip": (ipam, "IPv4Address", "IPv4 address"),  # type: ignore[dict-item]
        "ip6": (ipam, "IPv6Address", "IPv6 address"),  # type: ignore[dict-item]
        "mac-address": (endpoint, "MacAddress", "MAC address"),  # type: ignore[dict-item]
        "link-local-ip": (ipam, "LinkLocalIPs", "link-local IP addresses"),  # type: ignore[dict-item]
    }
    for option, (section, key, words) in sections.items():
        value = given.get(option)
        if not value:
            continue
        if section.get(key):
            raise InvalidArgumentError(
                f"conflicting options: cannot specify both --{option} and per-network {words}"
            )
        # Elsewhere a link is between two containers, and stands in HostConfig alone.
        if option != "link" or is_user_defined(attachment.network):
            section[key] = value


def _check(attachment: _Attachment) -> None:
    name, endpoint = attachment.network, attachment.endpoint
    if not name.strip():
        raise InvalidArgumentError("no name set for network")
    if not is_user_defined(name):
        if endpoint.get("Aliases"):
            raise InvalidArgumentError(
                "network-scoped aliases are only supported for user-defined networks"
            )
        if endpoint.get("Links"):
            raise InvalidArgumentError("links are only supported for user-defined networks")
    if address := endpoint.get("MacAddress"):
        mac_address(address)


def mac_address(text: str) -> str:
    """Reads a link's address, six bytes in one of the usual spellings (Go's ParseMAC).

    Returns:
        It as the kernel spells it, ``02:42:ac:11:00:02``.

    Raises:
        InvalidArgumentError: it is none. One of eight bytes, which Go takes too, no link here has.
    """
    for separator, digits in ((":", 2), ("-", 2), (".", 4)):
        parts = text.split(separator)
        whole = "".join(parts).lower()
        well_parted = all(len(part) == digits for part in parts)
        if well_parted and len(whole) == _MAC_DIGITS and not whole.strip("0123456789abcdef"):
            return ":".join(whole[at : at + 2] for at in range(0, _MAC_DIGITS, 2))
    raise InvalidArgumentError(f"{text} is not a valid mac address")


def link(text: str) -> str:
    """Checks ``--link container[:alias]``."""
    if not text:
        raise InvalidArgumentError("empty string specified for links")
    if text.count(":") > 1:
        raise InvalidArgumentError(f"bad format for links: {text}")
    return text
