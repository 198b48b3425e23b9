"""How programs are called that lead out for one container alone."""

import pytest

from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.network.uplink.private import Asked, reason


def _words(mode: str, *forwards: tuple[str, str, int, int], guest: bool = True) -> list[str]:
    return Asked(mode).words("/p", "/net", forwards, "/d/1", guest=guest)


def _valued(words: list[str], name: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == name]


def test_pasta_by_itself_lets_nothing_in_and_nothing_to_the_machines_loopback() -> None:
    words = _words("pasta")
    assert [_valued(words, name) for name in ("-t", "-u", "-T", "-U")] == [["none"]] * 4
    assert "--no-map-gw" in words
    assert _valued(words, "--dns-forward") == ["169.254.1.1"]
    assert _valued(words, "--map-guest-addr") == ["169.254.1.2"]
    assert "--map-guest-addr" not in _words("pasta", guest=False)


def test_what_is_asked_for_takes_the_place_of_what_else_would_be_said() -> None:
    words = _words("pasta:--map-gw,-T,5000,-t8080,--udp-ports=53,--dns-forward,192.0.2.9,--debug")
    assert (_valued(words, "-T"), _valued(words, "-t"), _valued(words, "-u")) == (["5000"], [], [])
    assert _valued(words, "-U") == ["none"]
    assert {"--map-gw", "--no-map-gw", "--quiet"}.isdisjoint(words)
    assert _valued(words, "--dns-forward") == ["192.0.2.9"]
    assert Asked("pasta:--dns-forward,192.0.2.9").nameservers() == ["192.0.2.9"]


def test_published_ports_that_are_neighbours_are_one_range() -> None:
    words = _words(
        "pasta", ("tcp", "", 8001, 81), ("udp", "", 53, 53), ("tcp", "", 8000, 80),
        ("tcp", "", 8002, 90), ("tcp", "127.0.0.1", 8003, 91),
    )  # fmt: skip
    assert _valued(words, "-t") == [
        "8000-8001:80-81", "8002-8002:90-90", "127.0.0.1/8003-8003:91-91",
    ]  # fmt: skip
    assert _valued(words, "-u") == ["53-53:53-53"]


def test_the_machine_is_reached_by_an_address_or_by_the_gateway() -> None:
    assert Asked("pasta").hosts(["192.0.2.1"], guest=True) == ["169.254.1.2"]
    assert Asked("pasta").hosts(["192.0.2.1"], guest=False) == []
    assert Asked("pasta:--map-gw").hosts(["192.0.2.1"], guest=False) == ["192.0.2.1"]
    assert Asked("pasta:--map-guest-addr,none").hosts([], guest=True) == []


def test_versions() -> None:
    assert Asked("pasta").versions == {4, 6}
    assert Asked("pasta:-4").versions == {4}
    assert Asked("pasta:--ipv6-only").versions == {6}
    assert Asked("slirp4netns").versions == {4}


@pytest.mark.parametrize("option", ["-P", "--pid=/x", "--netns", "--foreground", "--runas"])
def test_what_is_ketchs_own_to_say_is_refused(option: str) -> None:
    with pytest.raises(InvalidArgumentError, match="ketch's own"):
        Asked(f"pasta:{option}")


def test_slirp4netns_has_podmans_options() -> None:
    words = _words("slirp4netns:mtu=1500,cidr=10.9.0.0/24,enable_ipv6=true,outbound_addr=eth0")
    assert _valued(words, "--mtu") == ["1500"]
    assert _valued(words, "--cidr") == ["10.9.0.0/24"]
    assert {"--enable-ipv6", "--outbound-addr=eth0", "--disable-host-loopback"} <= set(words)
    asked = Asked("slirp4netns:allow_host_loopback=true,cidr=10.9.0.0/24")
    assert (asked.nameservers(), asked.hosts([], guest=True)) == (["10.9.0.3"], ["10.9.0.2"])
    assert Asked("slirp4netns").hosts([], guest=True) == []


@pytest.mark.parametrize("options", ["mtu", "mtu=x", "nonsense=1", "cidr=10.0.0.0/31", "cidr=x"])
def test_what_slirp4netns_has_not_is_refused(options: str) -> None:
    with pytest.raises(InvalidArgumentError):
        Asked(f"slirp4netns:{options}")
    with pytest.raises(UnsupportedError):
        Asked("slirp4netns:port_handler=rootlesskit")


def test_a_wrong_option_is_told_without_the_list_of_all() -> None:
    said = "/usr/bin/pasta: unrecognized option '--x'\nUsage: pasta\n  -t, --tcp-ports SPEC\n"
    assert reason(said) == "unrecognized option '--x'"
    assert reason("0.01: ERROR:   Failed to bind\n") == "Failed to bind"
