"""Platforms as BuildKit writes them, in arguments, names and documents.

Source: github.com/containerd/platforms, "Normalize" and "FormatAll".
"""

from typing import TYPE_CHECKING

from ketch.spec import image as documents

if TYPE_CHECKING:
    from ketch.spec.image import Platform

_PLAIN_VARIANTS = {("amd64", "v1"), ("arm64", "v8")}


def normal(platform: "Platform") -> "Platform":
    """Returns a platform without the variant that goes without saying, but with an arm's."""
    system = platform["os"].lower()
    architecture, variant = documents.usual(
        platform["architecture"].lower(), platform.get("variant", "").lower()
    )
    if architecture == "arm" and not variant:
        variant = "v7"
    made: Platform = {"architecture": architecture, "os": "darwin" if system == "macos" else system}
    if variant and (architecture, variant) not in _PLAIN_VARIANTS:
        made["variant"] = variant
    return made


def parse(text: str) -> "Platform":
    """Reads ``os[/architecture[/variant]]``.

    Raises:
        InvalidArgumentError: it is no platform.
    """
    return normal(documents.parse_platform(text))


def host() -> "Platform":
    """Returns the platform that steps run on unless they are told otherwise: this machine's."""
    return normal(documents.host_platform())


def shown(platform: "Platform") -> str:
    """Returns ``os/architecture[/variant]``."""
    parts = (platform["os"], platform["architecture"], platform.get("variant", ""))
    return "/".join(part for part in parts if part)


def same_machine(one: "Platform", other: "Platform") -> bool:
    """Whether system and architecture are the same, whatever the variants."""
    return (one["os"], one["architecture"]) == (other["os"], other["architecture"])
