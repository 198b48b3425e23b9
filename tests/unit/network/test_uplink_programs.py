"""How the programs that lead out of a network are called: nothing of the machine's leads in."""

from ipaddress import ip_network

import pytest

from ketch.network.uplink import programs
from ketch.network.uplink.programs import PASTA, SLIRP, Program


def pasta(*versions: int) -> list[str]:
    return programs.words(PASTA, "/usr/bin/pasta", "/run/net", versions, "/state")


def after(words: list[str], name: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == name]


@pytest.mark.parametrize("versions", [(4,), (6,), (4, 6)])
def test_pasta_forwards_nothing_by_itself(versions: tuple[int, ...]) -> None:
    words = pasta(*versions)
    for name in ("--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"):
        assert after(words, name) == ["none"], name
    assert {"--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ra", "--no-netns-quit",
            "--netns-only", "--foreground", "--config-net"} <= set(words)  # fmt: skip
    assert after(words, "--netns") == ["/run/net"]
    assert after(words, "--ns-ifname") == [programs.LINK]
    assert after(words, "--log-file") == ["/state/log"]
    assert int(after(words, "--log-size")[0]) <= 1 << 20
    assert after(words, "--mtu") == ["65520"]


def test_pasta_speaks_for_what_the_machine_reaches() -> None:
    four, six, both = pasta(4), pasta(6), pasta(4, 6)
    assert after(both, "--address") == ["192.0.0.100", "fd6b:6574:6368:1::100"]
    assert after(both, "--gateway") == ["192.0.0.2", "fd6b:6574:6368:1::2"]
    assert after(both, "--netmask") == ["24"]
    assert after(both, "--dns-forward") == ["192.0.0.3"]
    assert ("--ipv4-only" in both, "--ipv6-only" in both) == (False, False)
    assert (after(four, "--address"), "--ipv4-only" in four) == (["192.0.0.100"], True)
    assert "--ipv6-only" not in four
    assert (after(six, "--gateway"), "--ipv6-only" in six) == (["fd6b:6574:6368:1::2"], True)
    assert "--ipv4-only" not in six
    assert after(six, "--dns-forward") == []


def test_slirp_is_shut_in_and_leads_to_no_loopback() -> None:
    words = programs.words(SLIRP, "/usr/bin/slirp4netns", "/run/net", (4, 6), "/state")
    assert {"--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"} <= set(words)
    assert after(words, "--cidr") == ["192.0.0.0/24"]
    assert words[-4:] == ["--netns-type", "path", "/run/net", programs.LINK]
    assert "--enable-ipv6" not in words


FOUR, SIX, BOTH = frozenset({4}), frozenset({6}), frozenset({4, 6})


@pytest.mark.parametrize(
    ("installed", "versions", "ways"),
    [
        ([], BOTH, []),
        ([PASTA], BOTH, [[(PASTA, BOTH)]]),
        ([PASTA], SIX, [[(PASTA, SIX)]]),
        ([SLIRP], BOTH, [[(SLIRP, FOUR)]]),
        ([SLIRP], SIX, []),
        ([PASTA, SLIRP], FOUR, [[(SLIRP, FOUR)], [(PASTA, FOUR)]]),
        ([PASTA, SLIRP], SIX, [[(PASTA, SIX)]]),
        (
            [PASTA, SLIRP], BOTH,
            [[(SLIRP, FOUR), (PASTA, SIX)], [(SLIRP, FOUR)], [(PASTA, BOTH)]],
        ),
    ],
)  # fmt: skip
def test_each_version_is_spoken_by_the_better_one(
    installed: list[Program], versions: frozenset[int], ways: object
) -> None:
    """And each alone follows, in case the other does not start."""
    assert programs.ways(installed, versions) == ways


def test_two_that_lead_out_together_have_links_of_their_own() -> None:
    way = programs.ways([PASTA, SLIRP], BOTH)[0]
    links = [programs.link(program, way) for program, _ in way]
    assert sorted(links) == sorted(programs.LINKS)
    assert programs.link(PASTA, [(PASTA, BOTH)]) == programs.LINK
    told = programs.words(PASTA, "/p", "/run/net", (6,), "/state", links[1])
    assert after(told, "--ns-ifname") == [links[1]]


def test_the_addresses_are_nobodys() -> None:
    special, local = ip_network("192.0.0.0/24"), ip_network("fc00::/7")
    for one in (programs.ADDRESS.ip, programs.GATEWAY, programs.NAMESERVER):
        assert one in special
    for other in (programs.ADDRESS_6.ip, programs.GATEWAY_6):
        assert other in local
    assert len({programs.ADDRESS.ip, programs.GATEWAY, programs.NAMESERVER}) == 3


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "it says nothing"),
        ("\n \n", "it says nothing"),
        ("first\nlast\n\n", "last"),
        ("12.3456: Couldn't open /dev/net/tun", "Couldn't open /dev/net/tun"),
        ("0.0012: ERROR:   no way", "no way"),
        ("ERROR: no way", "no way"),
        ("open /x: denied", "open /x: denied"),
        ("x" * 1000, "x" * 400),
    ],
)
def test_why_one_does_not_start(said: str, why: str) -> None:
    assert programs.reason(said) == why
