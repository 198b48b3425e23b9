"""Rules are there when they are needed, and what they are is asked of the kernel."""

import json
import multiprocessing
import subprocess
from ipaddress import IPv4Interface
from typing import Any

import pytest

from ketch.linux import nftables
from ketch.network import firewall
from ketch.network.bridge import Bridge

pytestmark = pytest.mark.root


def nft(*arguments: str) -> None:
    subprocess.run(["nft", *arguments], check=True)


def install(bridge: Bridge) -> bool:
    """Install what is missing; whether anything was."""
    transaction = firewall.ensure(firewall.Wanted([bridge]))
    if transaction is None:
        return False
    transaction.wait()
    return True


def elements(name: str) -> list[Any]:
    for entry in nftables.listing("set", "inet", "ketch", name):
        if "set" in entry:
            found: list[Any] = entry["set"].get("elem", [])
            return found
    raise AssertionError(f"no set {name}")


def test_rules_are_installed_once(bridge: Bridge) -> None:
    assert install(bridge)
    before = nftables.listing("table", "inet", "ketch")
    assert not install(bridge)
    assert nftables.listing("table", "inet", "ketch") == before
    assert elements("bridges") == ["ketch0"]
    assert elements("masquerading") == [
        {"concat": ["ipv4", "ketch0"]},
        {"concat": ["ipv6", "ketch0"]},
    ]
    assert elements("within") == [{"concat": ["ketch0", "ketch0"]}]
    assert elements("internal") == []


@pytest.mark.parametrize(
    "command",
    [
        ("flush", "ruleset"),
        ("delete", "table", "inet", "ketch"),
        ("flush", "set", "inet", "ketch", "revision"),
        ("flush", "set", "inet", "ketch", "bridges"),
    ],
)
def test_rules_that_somebody_removed_come_back(bridge: Bridge, command: tuple[str, ...]) -> None:
    install(bridge)
    before = nftables.listing("table", "inet", "ketch")
    nft(*command)
    assert install(bridge)
    assert not install(bridge)
    assert without_handles(nftables.listing("table", "inet", "ketch")) == without_handles(before)


def without_handles(listing: list[dict[str, Any]]) -> list[str]:
    for entry in listing:
        for value in entry.values():
            value.pop("handle", None)
    return sorted(json.dumps(entry, sort_keys=True) for entry in listing)


def test_an_older_revision_is_replaced(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    install(bridge)
    nft("flush", "set", "inet", "ketch", "revision")
    nft("add", "element", "inet", "ketch", "revision", "{ 4711 }")
    nft("add", "rule", "inet", "ketch", "forward", "counter", "drop")
    assert install(bridge)
    assert elements("revision") == [firewall.REVISION]
    assert "counter" not in json.dumps(nftables.listing("chain", "inet", "ketch", "forward"))


def test_bridges_come_and_go_beside_each_other(bridge: Bridge) -> None:
    other = Bridge("ketch1", [IPv4Interface("172.18.0.1/16")], internal=True)
    install(bridge)
    assert install(other)
    assert sorted(elements("bridges")) == ["ketch0", "ketch1"]
    assert elements("internal") == ["ketch1"]
    assert {element["concat"][1] for element in elements("masquerading")} == {"ketch0"}
    assert len(elements("within")) == 2
    firewall.forget("ketch1")
    firewall.forget("ketch1")
    assert elements("bridges") == ["ketch0"]
    assert elements("internal") == []
    assert not install(bridge)


@pytest.mark.parametrize("iptables", ["ip", "ip6"])
def test_a_foreign_chain_is_touched_only_when_its_policy_drops_our_packets(
    bridge: Bridge, iptables: str
) -> None:
    install(bridge)
    nft("add", "table", iptables, "filter")
    nft(
        *("add", "chain", iptables, "filter", "FORWARD"),
        "{ type filter hook forward priority 0; policy accept; }",
    )
    nft("add", "rule", iptables, "filter", "FORWARD", "counter")
    assert not install(bridge)
    nft("add", "chain", iptables, "filter", "FORWARD", "{ policy drop; }")
    # Packets of a network without IPv6 never pass ip6's chains.
    assert install(bridge) == (iptables == "ip")
    assert not install(bridge)
    rules = [
        entry["rule"]
        for entry in nftables.listing("chain", iptables, "filter", "FORWARD")
        if "rule" in entry
    ]
    assert ["comment" in rule for rule in rules] == [False, True, True][: len(rules)]
    assert len(rules) == (3 if iptables == "ip" else 1)


def install_many(worker: int) -> int:
    for number in range(5):
        install(Bridge(f"ketch{worker}n{number}", [IPv4Interface(f"10.{worker}.{number}.1/24")]))
    return worker


def test_eight_processes_at_once_lose_nothing() -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        assert pool.map(install_many, range(8), chunksize=1) == list(range(8))
    wanted = {f"ketch{worker}n{number}" for worker in range(8) for number in range(5)}
    assert set(elements("bridges")) == wanted
    rules = [entry for entry in nftables.listing("table", "inet", "ketch") if "rule" in entry]
    assert len(rules) == firewall.script().count("add rule inet")
