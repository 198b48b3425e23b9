"""Names and addresses as option values: ``--add-host``, ``--dns`` and ``--dns-search``."""

from ketch.errors import InvalidArgumentError
from ketch.spec.values import quoted

HOST_GATEWAY = "host-gateway"
"""Stands for the host's address on the container's network."""


def address(text: str) -> str:
    """Checks an IPv4 or IPv6 address and returns its usual spelling."""
    import ipaddress  # noqa: PLC0415 - few commands have an address, all import this module

    try:
        parsed = ipaddress.ip_address(text.strip())
    except ValueError as error:
        raise InvalidArgumentError(f"IP address is not correctly formatted: {text}") from error
    if "%" in text:  # A zone is an interface's, and a container has its own interfaces.
        raise InvalidArgumentError(f"IP address is not correctly formatted: {text}")
    return str(parsed)


def extra_host(text: str) -> str:
    """Checks ``name:address`` or ``name=address``; returns ``name:address``.

    The address may stand in square brackets or be ``host-gateway``.
    """
    name, separator, target = text.partition("=")
    if not separator:
        name, separator, target = text.partition(":")
    if not separator or not name or ":" in name:
        raise InvalidArgumentError(f"bad format for add-host: {quoted(text)}", "it is NAME:ADDRESS")
    if target != HOST_GATEWAY:
        if len(target) > 2 and target[0] == "[" and target[-1] == "]":
            target = target[1:-1]
        try:
            address(target)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"invalid IP address in add-host: {quoted(target)}"
            ) from error
    return f"{name}:{target}"


def search_domain(text: str) -> str:
    """Checks a domain of resolv.conf's ``search``; ``.`` alone means none."""
    domain = text.strip(" ")
    if domain == ".":
        return domain
    domain = domain.rstrip().removesuffix(".")
    labels_good = all(
        label.isascii()
        and label[:1] != "-"
        and label[-1:] != "-"
        and label.replace("-", "").isalnum()
        for label in domain.split(".")
    )
    if len(domain) < 255 and labels_good and any(map(str.isalpha, domain)):
        return domain
    raise InvalidArgumentError(f"{text.strip(' ')} is not a valid domain")
