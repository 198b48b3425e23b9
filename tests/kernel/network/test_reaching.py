"""What a sandbox's relay connects to, and what it takes for this machine's own."""

import socket
import subprocess
from ipaddress import ip_address

import pytest

from ketch.linux import rtnetlink
from ketch.sandbox.egress import policy
from ketch.sandbox.egress.reaching import Network, RefusedError

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("93.184.215.14", ["addr", "add", "93.184.215.14/24", "dev", "lo"]),
        ("93.184.216.34", ["route", "add", "local", "93.184.216.0/24", "dev", "lo"]),
        ("2606:2800:21f::7", ["-6", "route", "add", "local", "2606:2800:21f::/64", "dev", "lo"]),
    ],
    ids=["an address", "a load balancer's", "a load balancer's, IPv6"],
)
def test_what_arrives_at_this_machine_is_its_own(host: int, address: str, words: list[str]) -> None:
    """Whether a link has the address or not: its services are behind it."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", *words], check=True)
    where = ip_address(address)
    family = socket.AF_INET6 if where.version == 6 else socket.AF_INET
    with socket.socket(family) as listening:
        listening.bind(("", 0))
        listening.listen()
        port = listening.getsockname()[1]
        everything = "[::/0]" if where.version == 6 else "0.0.0.0/0"
        network = Network(list)
        with pytest.raises(RefusedError, match="this machine's own"):
            network.reach(where, port, [policy.parse(f"{everything}:*")])
        rule = policy.parse(f"[{address}]:*" if where.version == 6 else f"{address}:*")
        connection, _ = network.reach(where, port, [rule])
        connection.close()


def test_what_nobody_leads_to_is_nowhere(host: int) -> None:
    with rtnetlink.Socket() as kernel:
        assert kernel.route_to(ip_address("93.184.216.34")) is None
        assert kernel.route_to(ip_address("2606:2800:21f::7")) is None
    with pytest.raises(OSError, match="unreachable"):
        Network(list).reach(ip_address("93.184.216.34"), 80, [policy.parse("0.0.0.0/0:80")])
