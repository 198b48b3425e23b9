"""What a container's /etc/hosts, /etc/resolv.conf and /etc/hostname say. Pure.

The forms are Docker's (libnetwork/etchosts and libnetwork/internal/resolvconf), without its
comments: see hosts(5), resolv.conf(5) and hostname(5).
"""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from ketch.errors import InvalidArgumentError

# On hosts with systemd-resolved, /etc/resolv.conf names only a resolver on the host's loopback;
# this file has the servers behind it.
SYSTEMD_RESOLV_CONF = "/run/systemd/resolve/resolv.conf"
_SYSTEMD_STUB = "127.0.0.53"

_LOCAL_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""

_FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")
_FALLBACK_SERVERS_IPV6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")

HOST_GATEWAY = "host-gateway"


def hostname(name: str) -> str:
    """Content of /etc/hostname."""
    return f"{name}\n"


def hosts(
    own: Iterable[tuple[str, str]], hostname: str, domain: str = "", extra: Iterable[str] = ()
) -> str:
    """Content of /etc/hosts for a container with its own network namespace.

    Args:
        own: the networks it is on: pairs of its address there, IPv4 or IPv6, and its further names
            there, separated by spaces, mostly none.
        hostname: its host name, which may have a domain in it.
        domain: its domain, or empty.
        extra: what ``--add-host`` gave, as ``extra_host`` returns it.
    """
    qualified = f"{hostname}.{domain}" if domain else hostname
    names = qualified
    if "." in qualified:
        names += f" {qualified.split('.', 1)[0]}"
    lines = [f"{line}\n" for line in extra]
    lines += [f"{address}\t{f'{names} {further}'.strip()}\n" for address, further in own]
    return _LOCAL_HOSTS + "".join(lines)


def host_hosts(content: str, extra: Iterable[str] = ()) -> str:
    """Content of /etc/hosts for a container in the host's network: the host's, and more.

    Args:
        content: the host's /etc/hosts.
        extra: what ``--add-host`` gave, as ``extra_host`` returns it.
    """
    if content and not content.endswith("\n"):
        content += "\n"
    return content + "".join(f"{line}\n" for line in extra)


def extra_host(argument: str, gateways: Sequence[str] = ()) -> list[str]:
    """Lines of /etc/hosts for one ``--add-host``.

    Args:
        argument: ``NAME:ADDRESS`` or ``NAME=ADDRESS``; an IPv6 address may stand in brackets.
            The address ``host-gateway`` stands for the host.
        gateways: the host's addresses as the container reaches it, for ``host-gateway``.

    Raises:
        InvalidArgumentError: the argument is malformed, or the host has no address there.
    """
    at = min((at for at in (argument.find(":"), argument.find("=")) if at >= 0), default=-1)
    name, text = argument[:at], argument[at + 1 :]
    if at < 1 or not text or any(character.isspace() for character in argument):
        raise InvalidArgumentError(
            f'bad format for add-host: "{argument}"', "write it as name:address"
        )
    if text == HOST_GATEWAY:
        if not gateways:
            raise InvalidArgumentError(
                f"add-host {argument}: there is no host-gateway on this network",
                "give the address itself",
            )
        return [f"{gateway}\t{name}" for gateway in gateways]
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        ip_address(text)
    except ValueError as error:
        raise InvalidArgumentError(f'invalid IP address in add-host: "{text}"') from error
    return [f"{text}\t{name}"]


def is_stub(resolv_conf: str) -> bool:
    """Whether a host's /etc/resolv.conf names systemd-resolved's loopback server alone.

    SYSTEMD_RESOLV_CONF is to be used instead then.
    """
    return _Resolver(resolv_conf).servers == [_SYSTEMD_STUB]


def resolv_conf(
    host: str,
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    host_network: bool = False,
    ipv6: bool = False,
) -> str:
    """Content of /etc/resolv.conf.

    Args:
        host: the host's, to which what follows makes changes.
        servers: ``--dns``: instead of the host's servers.
        search: ``--dns-search``: instead of the host's domains; ``.`` for none.
        options: ``--dns-option``: instead of the host's options.
        host_network: the container is in the host's network, where loopback servers answer.
        ipv6: the container can reach IPv6 servers.

    Raises:
        InvalidArgumentError: a server of ``--dns`` is no IP address.
    """
    resolver = _Resolver(host)
    if servers:
        resolver.servers = [_server(server) for server in servers]
    elif not host_network:
        resolver.servers = [
            server for server in resolver.servers if _reachable(server, ipv6=ipv6)
        ] or [*_FALLBACK_SERVERS, *(_FALLBACK_SERVERS_IPV6 if ipv6 else ())]
    if search:
        resolver.search = [domain for domain in search if domain != "."]
    if options:
        resolver.options = list(options)
    return resolver.render()


class _Resolver:
    """A resolv.conf(5), taken apart."""

    __slots__ = ("options", "other", "search", "servers")

    def __init__(self, content: str) -> None:
        self.servers: list[str] = []
        self.search: list[str] = []
        self.options: list[str] = []
        self.other: list[str] = []
        for line in content.splitlines():
            keyword, *values = line.split() or ["#"]
            if keyword[0] in "#;":
                continue
            if keyword == "nameserver":
                self.servers += [value for value in values[:1] if _is_address(value)]
            elif keyword in {"search", "domain"}:
                # The last of them counts.
                self.search = values or self.search
            elif keyword == "options":
                self.options += values
            else:
                self.other.append(line)

    def render(self) -> str:
        lines = [f"nameserver {server}" for server in self.servers]
        if self.search:
            lines.append(f"search {' '.join(self.search)}")
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "".join(f"{line}\n" for line in lines + self.other)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _server(text: str) -> str:
    if not _is_address(text):
        raise InvalidArgumentError(f"{text} is not an ip address", "give --dns an IP address")
    return text


def _reachable(server: str, *, ipv6: bool) -> bool:
    """Whether a server of the host's answers from within a container."""
    address = ip_address(server)
    return not address.is_loopback and (address.version == 4 or ipv6)
