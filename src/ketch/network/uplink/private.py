"""How a program is called that leads out for one container alone, as the container asks. Pure.

What is asked for is podman's: ``pasta[:OPTIONS]``, pasta's own options parted by commas, and
``slirp4netns[:NAME=VALUE,...]``. So is what holds where nothing else is asked for: see
podman-run(1), and ``createPastaArgs`` of its libnetwork.
"""

from ipaddress import ip_address, ip_network

from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.network.uplink import programs
from ketch.network.uplink.programs import MTU_BYTES, PASTA, SLIRP, Program
from ketch.spec.digits import decimal
from ketch.spec.endpoints import private_options
from ketch.spec.values import boolean, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    # Protocol, the machine's address (empty for all) and port, the container's port.
    Forward = tuple[str, str, int, int]

# Link-local addresses, which stand for the machine's name server and for the machine: as podman's.
NAMESERVER = ip_address("169.254.1.1")
HOST = ip_address("169.254.1.2")
# Since August 2024; another one does without.
GUEST = "--map-guest-addr"

_PORTS = {
    ("-t", "--tcp-ports"): "-t", ("-u", "--udp-ports"): "-u",
    ("-T", "--tcp-ns"): "-T", ("-U", "--udp-ns"): "-U",
}  # fmt: skip
_KETCHS_OWN = (
    "-f", "--foreground", "-F", "--fd", "-P", "--pid", "--netns", "--netns-only", "--userns",
    "--runas", "--no-netns-quit",
)  # fmt: skip
_SLIRP_OPTIONS = (
    "allow_host_loopback", "cidr", "enable_ipv6", "mtu", "outbound_addr", "outbound_addr6",
    "port_handler",
)  # fmt: skip
_SLIRP_NETWORK = ip_network("10.0.2.0/24")
_SLIRP_LINK = "tap0"
# getopt_long(3), of the C library.
_WRONG = ("unrecognized", "invalid", "ambiguous", "requires an argument", "doesn't allow")


class Asked:
    """What a container asks for.

    Args:
        mode: its ``NetworkMode``.

    Attributes:
        program: which is to lead out.

    Raises:
        InvalidArgumentError: an option means nothing, or is ketch's to say.
        UnsupportedError: it cannot be.
    """

    __slots__ = ("_options", "program")

    def __init__(self, mode: str) -> None:
        self._options = private_options(mode)
        self.program: Program = PASTA if mode.partition(":")[0] == PASTA.name else SLIRP
        if self.program is SLIRP:
            self._slirp()
            return
        for option in self._options:
            if option.partition("=")[0] in _KETCHS_OWN:
                raise InvalidArgumentError(f"pasta's option {option} is ketch's own to say")

    @property
    def versions(self) -> frozenset[int]:
        """The IP versions that it may lead out by."""
        if self.program is SLIRP:
            return frozenset({4})  # its forwards are: those of 1.2 know no other
        only = {4: self._has("-4", "--ipv4-only"), 6: self._has("-6", "--ipv6-only")}
        return frozenset(version for version in (4, 6) if only[version] or not any(only.values()))

    def words(
        self, path: str, network: str, forwards: "Iterable[Forward]", place: str, *, guest: bool
    ) -> list[str]:
        """The words that start the program, which stays in the foreground.

        Args:
            path: where it is.
            network: a path to the network namespace.
            forwards: the machine's ports that lead to the container.
            place: the beginning of paths where it may write: ``PLACE.log``, and ``PLACE.pid`` or
                ``PLACE.socket``.
            guest: whether this pasta knows ``--map-guest-addr``.
        """
        if self.program is SLIRP:
            return [
                path, *self._slirp(), "--configure", "--enable-sandbox", "--enable-seccomp",
                "--ready-fd", "3", "--api-socket", f"{place}.socket",
                "--netns-type", "path", network, _SLIRP_LINK,
            ]  # fmt: skip
        found = [
            path, "--foreground", "--netns", network, "--netns-only", "--no-netns-quit",
            "--config-net", "--pid", f"{place}.pid",
            *(option for option in self._options if option != "--map-gw"),
        ]  # fmt: skip
        told = [*_ports(forwards)]
        for names, short in _PORTS.items():
            if not self._has(*names) and short not in told:
                told += [short, "none"]
        found += told
        if not self._has("--map-gw", "--no-map-gw"):
            found.append("--no-map-gw")
        if not self._values("--dns-forward"):
            found += ["--dns-forward", str(NAMESERVER)]
        if guest and not self._values(GUEST):
            found += [GUEST, str(HOST)]
        if not self._has("-d", "--debug", "--trace", "-q", "--quiet"):
            found.append("--quiet")
        if not self._values("-l", "--log-file"):
            found += ["--log-file", f"{place}.log"]
        return found

    def nameservers(self) -> list[str]:
        """Addresses at which the machine's name server answers."""
        if self.program is SLIRP:
            return [str(self._slirp_network()[3])]
        return self._values("--dns-forward") or [str(NAMESERVER)]

    def hosts(self, gateways: "Iterable[str]", *, guest: bool) -> list[str]:
        """Addresses by which the container reaches the machine itself.

        Args:
            gateways: the next hops of its default routes.
            guest: whether the program knows ``--map-guest-addr``.
        """
        if self.program is SLIRP:
            loopback = "--disable-host-loopback" not in self._slirp()
            return [str(self._slirp_network()[2])] if loopback else []
        if guest:
            return [one for one in self._values(GUEST) or [str(HOST)] if one != "none"]
        return list(gateways) if self._has("--map-gw") else []

    def _has(self, *names: str) -> bool:
        return any(
            option.partition("=")[0] in names
            # A short one may have its value at once: -t8080.
            or any(len(name) == 2 and option.startswith(name) for name in names)
            for option in self._options
        )

    def _values(self, *names: str) -> list[str]:
        found = []
        for position, option in enumerate(self._options):
            name, equals, value = option.partition("=")
            if name in names:
                found += [value] if equals else self._options[position + 1 : position + 2]
        return found

    def _slirp_network(self) -> "list[object]":
        named = dict(option.partition("=")[::2] for option in self._options)
        network = ip_network(named["cidr"]) if "cidr" in named else _SLIRP_NETWORK
        return [network[number] for number in range(4)]

    def _slirp(self) -> list[str]:
        """The options of slirp4netns, by podman's names for them."""
        given = {"mtu": str(MTU_BYTES), "allow_host_loopback": "false", "enable_ipv6": "false"}
        for option in self._options:
            name, equals, value = option.partition("=")
            if name not in _SLIRP_OPTIONS or not equals or not value:
                raise InvalidArgumentError(
                    f"unknown option for slirp4netns: {quoted(option)}",
                    f"options are: {', '.join(f'{one}=' for one in _SLIRP_OPTIONS)}",
                )
            given[name] = value
        if given.pop("port_handler", SLIRP.name) != SLIRP.name:
            raise UnsupportedError(
                "ports of slirp4netns are passed on by itself alone", "say port_handler=slirp4netns"
            )
        found = ["--mtu", str(_number("mtu", given["mtu"]))]
        if not boolean(given["allow_host_loopback"]):
            found.append("--disable-host-loopback")
        if boolean(given["enable_ipv6"]):
            found.append("--enable-ipv6")
        if cidr := given.get("cidr"):
            try:
                ip_network(cidr)[3]
            except (ValueError, IndexError) as error:
                raise InvalidArgumentError(f"invalid cidr {cidr}") from error
            found += ["--cidr", cidr]
        for name in ("outbound_addr", "outbound_addr6"):
            if name in given:
                found.append(f"--{name.replace('_', '-')}={given[name]}")
        return found


def reason(said: str) -> str:
    """What a program says of why it does not start.

    Args:
        said: what it has written, which for a wrong option ends with all that there are.
    """
    for line in said.splitlines():
        if "option" in line and any(word in line for word in _WRONG):
            return line.partition(": ")[2][:400] or line[:400]
    return programs.reason(said)


def _number(name: str, text: str) -> int:
    number = decimal(text, digits_max=5)
    if number is None:
        raise InvalidArgumentError(f"invalid {name} {text}")
    return number


def _ports(forwards: "Iterable[Forward]") -> list[str]:
    """Pasta's words for published ports, neighbours joined: a range is one listening word."""
    spans: list[tuple[Forward, int]] = []  # the first, and how many
    for forward in sorted(forwards):
        (protocol, address, outside, inside), count = spans[-1] if spans else (("", "", 0, 0), 0)
        if count and forward == (protocol, address, outside + count, inside + count):
            spans[-1] = (protocol, address, outside, inside), count + 1
        else:
            spans.append((forward, 1))
    found = []
    for (protocol, address, outside, inside), count in spans:
        place = f"{address}/" if address else ""
        span = f"{outside}-{outside + count - 1}:{inside}-{inside + count - 1}"
        found += ["-t" if protocol == "tcp" else "-u", f"{place}{span}"]
    return found
