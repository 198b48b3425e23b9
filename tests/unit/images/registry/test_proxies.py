import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.images.registry.proxies import proxy_for

PROXY = {"HTTP_PROXY": "http://p:1", "https_proxy": "q:2"}


@pytest.mark.parametrize(
    ("scheme", "host", "no_proxy", "proxy"),
    [
        ("http", "example.org", "", "http://p:1"),
        ("https", "example.org", "", "http://q:2"),
        ("https", "localhost", "", ""),
        ("https", "127.0.0.9", "", ""),
        ("https", "::1", "", ""),
        ("https", "example.org", "*", ""),
        ("https", "example.org", "other,example.org", ""),
        ("https", "a.example.org", "example.org", ""),
        ("https", "notexample.org", "example.org", "http://q:2"),
        ("https", "example.org", ".example.org", "http://q:2"),
        ("https", "a.example.org", "*.example.org", ""),
        ("https", "example.org", "example.org:443", ""),
        ("https", "example.org", "example.org:444", "http://q:2"),
        ("https", "10.1.2.3", "10.0.0.0/8", ""),
        ("https", "11.1.2.3", "10.0.0.0/8,nonsense/99", "http://q:2"),
        ("https", "fd00::1", "fd00::1", ""),
    ],
)
def test_which_proxy(scheme: str, host: str, no_proxy: str, proxy: str) -> None:
    assert proxy_for(scheme, host, 443, {**PROXY, "NO_PROXY": no_proxy}) == proxy


def test_all_proxy_is_for_what_has_none_of_its_own() -> None:
    environment = {"ALL_PROXY": "socks5://s:1080", "HTTP_PROXY": "http://p:1"}
    assert proxy_for("https", "example.org", 443, environment) == "socks5://s:1080"
    assert proxy_for("http", "example.org", 80, environment) == "http://p:1"


@pytest.mark.parametrize("value", ["ftp://p:1", "http://", "http://p:0", "http://p:99999", "://"])
def test_no_proxy_that_cannot_be(value: str) -> None:
    with pytest.raises(InvalidArgumentError, match="https_proxy"):
        proxy_for("https", "example.org", 443, {"HTTPS_PROXY": value})


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=30))
def test_any_environment_is_read_or_refused(value: str, exceptions: str, host: str) -> None:
    try:
        found = proxy_for("https", host, 443, {"HTTPS_PROXY": value, "NO_PROXY": exceptions})
    except InvalidArgumentError:
        return
    assert not found or value in found
