"""Files that tell a container its name, its neighbours and its servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.network import names

LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


def test_hosts_of_a_container_without_a_network() -> None:
    assert names.hosts([], "box") == LOCAL


def test_hosts_name_the_container_after_what_the_user_added() -> None:
    assert names.hosts(["172.17.0.2", "fd00::2"], "box", extra=["db:10.0.0.9", "six:fd00::1"]) == (
        LOCAL + "10.0.0.9\tdb\nfd00::1\tsix\n172.17.0.2\tbox\nfd00::2\tbox\n"
    )


@pytest.mark.parametrize(
    ("hostname", "domain", "expected"),
    [
        ("box", "example.org", "box.example.org box"),
        ("box.example.org", "", "box.example.org box"),
        ("box", "", "box"),
    ],
)
def test_hosts_have_the_qualified_name_and_the_bare_one(
    hostname: str, domain: str, expected: str
) -> None:
    content = names.hosts(["172.17.0.2"], hostname, domain)
    assert content == LOCAL + f"172.17.0.2\t{expected}\n"


def test_a_container_in_the_hosts_network_has_the_hosts_hosts() -> None:
    content = names.host_hosts("10.1.1.1 gate", ["db:::1"])
    assert content == "10.1.1.1 gate\n::1\tdb\n"


def test_the_host_may_be_added_by_its_gateways() -> None:
    extra = ["host.docker.internal:host-gateway"]
    assert names.host_hosts("", extra, ["172.17.0.1", "fd00::1"]) == (
        "172.17.0.1\thost.docker.internal\nfd00::1\thost.docker.internal\n"
    )
    with pytest.raises(InvalidArgumentError, match="the host has no address on this network"):
        names.hosts([], "box", extra=extra)


HOST = """\
# made by hand
; and old
domain ignored.example
search example.org example.net
nameserver 127.0.0.53
nameserver fd00::53
nameserver 10.0.0.53
nameserver nonsense
nameserver
options edns0
options ndots:2
sortlist 10.0.0.0
"""


def test_servers_that_a_container_cannot_reach_are_left_out() -> None:
    rest = "search example.org example.net\noptions edns0 ndots:2\nsortlist 10.0.0.0\n"
    assert names.resolv_conf(HOST) == f"nameserver 10.0.0.53\n{rest}"
    assert names.resolv_conf(HOST, ipv6=True) == (
        f"nameserver fd00::53\nnameserver 10.0.0.53\n{rest}"
    )
    assert names.resolv_conf(HOST, host_network=True) == (
        f"nameserver 127.0.0.53\nnameserver fd00::53\nnameserver 10.0.0.53\n{rest}"
    )


def test_where_no_server_is_left_public_ones_are_taken() -> None:
    host = "nameserver 127.0.0.1\nnameserver ::1\n"
    assert names.resolv_conf(host) == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
    assert names.resolv_conf("", ipv6=True).count("nameserver") == 4
    assert names.resolv_conf("", host_network=True) == ""


def test_what_the_user_gives_replaces_what_the_host_has() -> None:
    content = names.resolv_conf(
        HOST, servers=["127.0.0.1", "::1"], search=["corp"], options=["timeout:1"]
    )
    assert content == (
        "nameserver 127.0.0.1\nnameserver ::1\nsearch corp\noptions timeout:1\nsortlist 10.0.0.0\n"
    )
    assert "search" not in names.resolv_conf(HOST, search=["."])


def test_systemd_s_stub_is_known() -> None:
    assert names.is_stub("nameserver 127.0.0.53\noptions edns0\n")
    assert not names.is_stub("nameserver 127.0.0.53\nnameserver 10.0.0.53\n")
    assert not names.is_stub("nameserver 127.0.0.1\n")


@given(st.text())
def test_any_file_of_a_host_gives_one_with_a_server(host: str) -> None:
    lines = names.resolv_conf(host).splitlines()
    assert any(line.startswith("nameserver ") for line in lines)


def test_the_hostname_file_is_one_line() -> None:
    assert names.hostname("box") == "box\n"
