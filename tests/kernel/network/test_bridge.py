"""A bridge ends up as it should be, whatever was there and whoever else is at it."""

import multiprocessing
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from ketch.errors import ConflictError, SyscallError
from ketch.linux import rtnetlink
from ketch.linux.netlink import Request
from ketch.network import bridge as bridges
from ketch.network.bridge import Bridge
from tests.kernel.network import machines

pytestmark = pytest.mark.root


def ipv4(kernel: rtnetlink.Socket, index: int) -> list[str]:
    return [str(address) for address in kernel.addresses(index, 4)]


def check(kernel: rtnetlink.Socket, index: int) -> None:
    link = kernel.link("ketch0")
    assert link is not None
    assert (link.index, link.kind, link.up) == (index, "bridge", True)
    assert link.mac == "02:42:ac:11:00:01"
    assert ipv4(kernel, index) == ["172.17.0.1/16"]
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"


def test_a_missing_bridge_is_made_and_found_again(kernel: rtnetlink.Socket, bridge: Bridge) -> None:
    # A new namespace takes this over from the host.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    index = bridges.ensure(kernel, bridge)
    check(kernel, index)
    assert bridges.ensure(kernel, bridge) == index
    check(kernel, index)


def test_what_a_killed_process_left_undone_is_done(
    kernel: rtnetlink.Socket, bridge: Bridge
) -> None:
    kernel.execute(rtnetlink.add_bridge("ketch0", bridge.mac, 1500))
    check(kernel, bridges.ensure(kernel, bridge))


def test_no_bridge_has_an_address_before_it_says_whose_it_is(
    kernel: rtnetlink.Socket, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look is where somebody who is killed would stop: between two messages."""
    seen: list[tuple[bool, bool]] = []
    attempt = rtnetlink.Socket.attempt

    def look(socket: rtnetlink.Socket, *requests: Request) -> list[SyscallError | None]:
        done = attempt(socket, *requests)
        if link := kernel.link("ketch0"):
            seen.append((link.alias == "mine", bool(ipv4(kernel, link.index))))
        return done

    monkeypatch.setattr(rtnetlink.Socket, "attempt", look)
    index = bridges.ensure(kernel, bridge, "mine")
    assert seen == [(False, False), (True, True)]
    bridges.ensure(kernel, bridge, "another's")
    link = kernel.link(index)
    assert link is not None
    assert link.alias == "mine"


def test_a_bridge_that_is_down_or_stale_is_mended(kernel: rtnetlink.Socket, bridge: Bridge) -> None:
    index = bridges.ensure(kernel, bridge)
    kernel.execute(
        rtnetlink.set_link(index, up=False),
        rtnetlink.delete_address(index, bridge.addresses[0]),
        rtnetlink.add_address(index, IPv4Interface("172.18.0.1/16")),
    )
    assert bridges.ensure(kernel, bridge) == index
    check(kernel, index)


def test_a_network_with_another_subnet_has_another_hardware_address(
    kernel: rtnetlink.Socket, bridge: Bridge
) -> None:
    """By it the packet filter knows what comes to the host."""
    bridges.ensure(kernel, Bridge(bridge.name, [IPv4Interface("172.18.0.1/16")]))
    bridges.ensure(kernel, bridge)
    link = kernel.link(bridge.name)
    assert link is not None
    assert link.mac == bridge.mac == "02:42:ac:11:00:01"


def test_an_operators_own_address_stays(kernel: rtnetlink.Socket, bridge: Bridge) -> None:
    index = bridges.ensure(kernel, bridge)
    kernel.execute(rtnetlink.add_address(index, IPv4Interface("10.9.9.1/24")))
    bridges.ensure(kernel, bridge)
    assert set(ipv4(kernel, index)) == {"172.17.0.1/16", "10.9.9.1/24"}


def test_another_link_of_that_name_is_left_alone(kernel: rtnetlink.Socket, bridge: Bridge) -> None:
    kernel.execute(rtnetlink.add_bridge("other", bridge.mac, 1500))
    other = kernel.link("other")
    assert other is not None
    with machines.machine() as descriptor:
        kernel.execute(
            rtnetlink.add_veth(
                "ketch0",
                "eth0",
                namespace=descriptor,
                bridge=other.index,
                mac=bridge.mac,
                mtu_bytes=1500,
            )
        )
        with pytest.raises(ConflictError, match="ketch0 is in the way: it is veth, not a bridge"):
            bridges.ensure(kernel, bridge)


def ensure_repeatedly(bridge_name: str) -> list[int]:
    bridge = Bridge(bridge_name, [IPv4Interface("172.17.0.1/16")])
    with rtnetlink.Socket() as kernel:
        return [bridges.ensure(kernel, bridge) for _ in range(20)]


def test_eight_processes_at_once_make_one_bridge(kernel: rtnetlink.Socket) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        found = pool.map(ensure_repeatedly, ["ketch0"] * 8, chunksize=1)
    (index,) = {index for indices in found for index in indices}
    check(kernel, index)
