"""A network as the Docker Engine API describes it. Types only: imported under ``TYPE_CHECKING``.

Source: Docker Engine API 1.50, ``NetworkCreate``.
"""

from typing import TypedDict


class NetworkCreate(TypedDict, total=False):
    """What a new network is to be."""

    Name: str
    Driver: str
    Scope: str
    EnableIPv4: bool
    EnableIPv6: bool
    IPAM: "Ipam"
    Internal: bool
    Attachable: bool
    Ingress: bool
    ConfigOnly: bool
    ConfigFrom: "ConfigReference"
    Options: dict[str, str]
    Labels: dict[str, str]


class Ipam(TypedDict, total=False):
    """Where its addresses come from."""

    Driver: str
    Config: list["IpamConfig"]
    Options: dict[str, str]


class IpamConfig(TypedDict, total=False):
    """One of its subnets."""

    Subnet: str
    IPRange: str
    Gateway: str
    AuxiliaryAddresses: dict[str, str]


class ConfigReference(TypedDict, total=False):
    """The network whose configuration it has."""

    Network: str
