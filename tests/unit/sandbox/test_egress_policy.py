# ruff: noqa: E501 - tables
"""What rules mean: names, addresses and ports that may be reached, however written."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.sandbox.egress import policy

PUBLIC = ip_address("93.184.215.14")
labels = st.from_regex(r"\A[a-z]([a-z0-9-]{0,20}[a-z0-9])?\Z")
hosts = st.lists(labels, min_size=2, max_size=5).map(".".join)


def allows(rule: str, name: str, port: int = 443) -> bool:
    normal = policy.normal(name)
    return bool(normal and policy.Policy([policy.parse(rule)]).by_name(normal, port))


@given(hosts)
def test_a_name_is_itself_however_it_is_written(host: str) -> None:
    for written in (host, host.upper(), f"{host}.", host.title()):
        assert policy.normal(written) == host
        assert allows(host, written)
        assert allows(written, host)
    assert not allows(host, f"x{host}")
    assert not allows(host, f"{host}x")
    assert not allows(host, f"x.{host}")


@given(hosts, hosts)
def test_a_wildcard_is_all_names_below_and_nothing_else(host: str, below: str) -> None:
    rule = f"*.{host}:443"
    assert allows(rule, f"{below}.{host}")
    assert not allows(rule, host)
    assert not allows(rule, f"{below}{host}")
    assert not allows(rule, f"{host}.{below}") or f"{host}.{below}".endswith(f".{host}")
    assert not allows(rule, f"{below}.{host}", 80)


@given(st.text(max_size=30))
def test_what_is_read_is_a_rule_or_refused(text: str) -> None:
    try:
        rule = policy.parse(text)
    except InvalidArgumentError:
        return
    assert rule.text == text
    assert rule.name or rule.network
    assert policy.parse(text) == rule


@given(st.text(max_size=30))
def test_a_normal_name_is_normal(text: str) -> None:
    name = policy.normal(text)
    if name is not None:
        assert policy.normal(name) == name
        assert name.isascii()
        assert name == name.lower()


def test_other_scripts_are_one_name() -> None:
    assert policy.normal("Bücher.example") == "xn--bcher-kva.example"
    assert allows("bücher.example", "xn--bcher-kva.example")
    assert allows("xn--bcher-kva.example", "BÜCHER.example")
    assert policy.normal("bücher。example") == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    "text",
    ["2130706433", "0x7f000001", "0x7f.1", "127.1", "1.2.3.4", "a.0x", "a.1", "", ".", "a..b", "-a.b",
     "a-.b", "a b.c", "a/b.c", "a@b", "a:b", "x" * 64 + ".y", ".".join(["x" * 60] * 5), "a\0.b", "[::1]"],
)  # fmt: skip
def test_what_is_an_address_elsewhere_or_nothing_is_no_name(text: str) -> None:
    assert policy.normal(text) is None


@pytest.mark.parametrize(
    "text",
    ["*", "*.com", "**.a.b", "a.*.b", "a*.b.c", "a.b:0", "a.b:65536", "a.b:0000165536", "a.b:x", "a.b:", "a.b:443:80",
     "https://a.b", "a.b/c", "10.0.0.0/33", "10.0.0.0/x", "a.b@", "a.b@c.d", "@10.0.0.1", "[::1", "::1]",
     "[::1]x", "2130706433", "0x7f.1", "a.b:٤", "a.b:-1", "a.b:+1", ""],
)  # fmt: skip
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="egress"):
        policy.parse(text)


@pytest.mark.parametrize(
    ("rule", "address", "port", "wanted"),
    [
        ("10.1.0.0/16:5432", "10.1.2.3", 5432, True),
        ("10.1.0.0/16:5432", "10.1.2.3", 5433, False),
        ("10.1.0.0/16:5432", "10.2.2.3", 5432, False),
        ("10.1.0.0/16", "::ffff:10.1.2.3", 80, True),
        ("::ffff:10.1.0.0/112", "10.1.2.3", 443, True),
        ("10.1.2.3:*", "10.1.2.3", 1, True),
        ("[2001:db8::1]:22", "2001:db8::1", 22, True),
        ("[2001:db8::/32]:22", "2001:db8:9::1", 22, True),
        ("2001:db8::/32", "2001:db8:9::1", 443, True),
        ("2001:db8::/32", "2001:db9::1", 443, False),
        ("0.0.0.0/0", "2001:db8::1", 443, False),
        ("a.example@10.0.0.1", "10.0.0.1", 443, False),
    ],
)
def test_addresses(rule: str, address: str, port: int, wanted: bool) -> None:
    found = policy.Policy([policy.parse(rule)]).by_address(ip_address(address), port)
    assert bool(found) == wanted


def reachable(rule: str, address: str, *own: str) -> bool:
    rules = [policy.parse(rule)]
    return policy.refusal(rules, ip_address(address), [ip_address(one) for one in own]) is None


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "10.0.0.1", "172.31.0.1", "192.168.0.1", "169.254.169.254", "169.254.0.1",
     "100.64.0.1", "100.100.100.200", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "192.0.2.1",
     "198.18.0.1", "168.63.129.16", "::1", "::", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
     "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "fe80::1", "fc00::1",
     "fd00:ec2::254", "ff02::1", "2001:db8::1", "2001::1"],
)  # fmt: skip
def test_a_name_does_not_lead_to_what_is_not_public(address: str) -> None:
    assert not reachable("a.example", address)
    assert not reachable("0.0.0.0/0", address)
    assert not reachable("::/0", address)


def test_what_is_closed_is_opened_by_naming_it() -> None:
    assert reachable("a.example", "93.184.215.14")
    assert reachable("a.example", "2606:2800:21f::1")
    assert reachable("a.example@10.0.0.0/8", "10.1.2.3")
    assert reachable("a.example@127.0.0.1", "127.0.0.1")
    assert reachable("a.example@127.0.0.1", "93.184.215.14")
    assert not reachable("a.example@127.0.0.1", "127.0.0.2")
    assert not reachable("a.example@8.0.0.0/6", "10.1.2.3")
    for network, metadata in (
        ("169.254.0.0/16", "169.254.169.254"), ("169.254.0.0/16", "169.254.170.23"),
        ("169.254.0.0/16", "169.254.42.42"), ("fd00::/8", "fd20:ce::254"),
        ("fd00::/8", "fd00:ec2::23"), ("fe80::/10", "fe80::a9fe:a9fe"),
    ):  # fmt: skip
        assert not reachable(f"a.example@{network}", metadata)
        assert reachable(f"a.example@{metadata}", metadata)
    assert reachable("a.example@169.254.169.254", "169.254.169.254")
    assert not reachable("a.example", "93.184.215.14", "93.184.215.14")
    assert not reachable("a.example@10.0.0.0/8", "10.1.2.3", "10.1.2.3")
    assert reachable("a.example@10.1.2.3", "10.1.2.3", "10.1.2.3")
    assert not reachable("a.example@10.1.2.0/24", "::ffff:10.1.2.3", "10.1.2.3")


@given(st.integers(0, 2**32 - 1))
def test_an_address_in_another_one_is_as_closed(number: int) -> None:
    address = IPv4Address(number)
    closed = policy.closed(address) is not None
    for around in (
        IPv6Address(0xFFFF << 32 | number),
        IPv6Address(0x64FF9B << 96 | number),
        IPv6Address(0x2002 << 112 | number << 80 | 1),
    ):
        assert (policy.closed(around) is not None) == closed


def test_there_are_so_many_rules_and_no_more() -> None:
    with pytest.raises(InvalidArgumentError, match="more than"):
        policy.Policy(policy.parse(f"a{number}.example") for number in range(1025))
