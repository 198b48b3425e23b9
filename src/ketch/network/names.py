"""What a container's /etc/hosts, /etc/resolv.conf and /etc/hostname say. Pure.

The forms are Docker's (libnetwork/etchosts and libnetwork/internal/resolvconf), without its
comments: see hosts(5), resolv.conf(5) and hostname(5).
"""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from ketch.errors import InvalidArgumentError
from ketch.spec.hosts import HOST_GATEWAY

RESOLV_CONF = "/etc/resolv.conf"

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

FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")
_FALLBACK_SERVERS_IPV6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")


def hostname(name: str) -> str:
    """Content of /etc/hostname."""
    return f"{name}\n"


def hosts(
    own: Iterable[str],
    hostname: str,
    domain: str = "",
    extra: Iterable[str] = (),
    gateways: Sequence[str] = (),
) -> str:
    """Content of /etc/hosts for a container with its own network namespace.

    Args:
        own: its addresses, on every network it is on.
        hostname: its host name, which may have a domain in it.
        domain: its domain, or empty.
        extra: what ``--add-host`` gave, as ``NAME:ADDRESS``.
        gateways: the host's addresses as the container reaches it, for ``host-gateway``.

    Raises:
        InvalidArgumentError: ``host-gateway`` was given where there is none.
    """
    names = f"{hostname}.{domain}" if domain else hostname
    if "." in names:
        names += f" {names.split('.', 1)[0]}"
    return (
        _LOCAL_HOSTS
        + _extra_lines(extra, gateways)
        + "".join(f"{address}\t{names}\n" for address in own)
    )


def sandbox_hosts(hostname: str, extra: Iterable[str] = (), gateways: Sequence[str] = ()) -> str:
    """Content of /etc/hosts for a build's step: no address of its own, BuildKit's form.

    Args:
        hostname: what it is called.
        extra: as in ``hosts``.
        gateways: as in ``hosts``.
    """
    local = f"127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    return local + _extra_lines(extra, gateways)


def host_hosts(content: str, extra: Iterable[str] = (), gateways: Sequence[str] = ()) -> str:
    """Content of /etc/hosts for a container in the host's network: the host's, and more.

    Args:
        content: the host's /etc/hosts.
        extra: as in ``hosts``.
        gateways: as in ``hosts``.
    """
    if content and not content.endswith("\n"):
        content += "\n"
    return content + _extra_lines(extra, gateways)


def _extra_lines(extra: Iterable[str], gateways: Sequence[str]) -> str:
    lines = []
    for entry in extra:
        name, _, address = entry.partition(":")
        if address != HOST_GATEWAY:
            lines.append(f"{address}\t{name}\n")
        elif gateways:
            lines += [f"{gateway}\t{name}\n" for gateway in gateways]
        else:
            raise InvalidArgumentError(
                f"--add-host {entry}: the host has no address on this network",
                "give the address itself",
            )
    return "".join(lines)


def is_stub(resolv_conf: str) -> bool:
    """Whether a host's /etc/resolv.conf names systemd-resolved's loopback server alone.

    SYSTEMD_RESOLV_CONF is to be used instead then.
    """
    return _Resolver(resolv_conf).servers == [_SYSTEMD_STUB]


def resolv_conf(
    host: str,
    *,
    forwarding: Sequence[str] = (),
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    host_network: bool = False,
    ipv6: bool = False,
    name_server: str = "",
) -> str:
    """Content of /etc/resolv.conf.

    Args:
        host: the host's, to which what follows makes changes.
        forwarding: addresses by which the host's servers are reached, before these themselves.
        servers: ``--dns``: addresses instead of the host's servers.
        search: ``--dns-search``: instead of the host's domains; ``.`` for none.
        options: ``--dns-option``: instead of the host's options.
        host_network: the container is in the host's network, where loopback servers answer.
        ipv6: the container can reach IPv6 servers.
        name_server: address of the container's own name server, which asks the others.
    """
    resolver = _Resolver(host)
    if name_server:
        resolver.servers = [name_server]
    elif servers:
        resolver.servers = list(servers)
    elif not host_network:
        resolver.servers = [
            *forwarding,
            *(server for server in resolver.servers if _reachable(server, ipv6=ipv6)),
        ] or [*FALLBACK_SERVERS, *(_FALLBACK_SERVERS_IPV6 if ipv6 else ())]
    if search:
        resolver.search = [domain for domain in search if domain != "."]
    if options:
        resolver.options = list(options)
    if name_server and not any(option.startswith("ndots:") for option in resolver.options):
        # A container's name has no dots, and is not to be looked for in search domains first.
        resolver.options.append("ndots:0")
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


def _reachable(server: str, *, ipv6: bool) -> bool:
    """Whether a server of the host's answers from within a container."""
    address = ip_address(server)
    return not address.is_loopback and (address.version == 4 or ipv6)


def servers_in(resolv_conf: str) -> list[str]:
    """The addresses of the name servers that a resolv.conf(5) names."""
    found = []
    for line in resolv_conf.splitlines():
        keyword, *values = line.split() or [""]
        if keyword == "nameserver" and values and _is_address(values[0]):
            found.append(str(ip_address(values[0])))
    return found
