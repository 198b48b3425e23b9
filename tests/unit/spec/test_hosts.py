import pytest

from ketch.errors import InvalidArgumentError
from ketch.spec import hosts


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a:1.2.3.4", "a:1.2.3.4"),
        ("a=1.2.3.4", "a:1.2.3.4"),
        ("a:::1", "a:::1"),
        ("a=[::1]", "a:::1"),
        ("a:[1.2.3.4]", "a:1.2.3.4"),
        ("a:host-gateway", "a:host-gateway"),
    ],
)
def test_extra_hosts(text: str, result: str) -> None:
    assert hosts.extra_host(text) == result


@pytest.mark.parametrize("text", ["", "a", ":1.2.3.4", "=1.2.3.4", "a:b=1.2.3.4"])
def test_extra_hosts_need_a_name_and_an_address(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="bad format for add-host"):
        hosts.extra_host(text)


@pytest.mark.parametrize("text", ["a:1.2.3", "a:host", "a:", "a:fe80::1%eth0", "a:1.2.3.04"])
def test_extra_hosts_need_a_good_address(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid IP address in add-host"):
        hosts.extra_host(text)


def test_addresses_get_their_usual_spelling() -> None:
    assert hosts.address(" 8.8.8.8 ") == "8.8.8.8"
    assert hosts.address("0:0:0:0:0:0:0:1") == "::1"


def test_search_domains() -> None:
    assert hosts.search_domain(".") == "."
    assert hosts.search_domain("example.com.") == "example.com"
    assert hosts.search_domain("a-b.c1") == "a-b.c1"


@pytest.mark.parametrize("text", ["", "1.2", "-a", "a-.b", "a..b", "a b", "ä", "a" * 255])
def test_bad_search_domains(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is not a valid domain"):
        hosts.search_domain(text)
