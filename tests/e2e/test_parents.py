"""Networks of macvlan links, by the installed ketch on a host of its own."""

import json
import os
import pathlib
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from subprocess import PIPE, Popen, run

import pytest

from ketch.network import pinning
from tests.kernel.network import frames
from tests.kernel.network.machines import entered
from tests.support import images, leftovers, peers
from tests.support.commands import Engine
from tests.support.trusting import TRUSTING, trusted

pytestmark = pytest.mark.root_engine("an ordinary user has no links to put others on")

SUBNETS = ("--ipv6", "--subnet", "10.99.0.0/24", "--subnet", "fd00:99::/64")
PREFIX = "2001:db8:666::"


@dataclass
class Host:
    """A network namespace as the host, whose link ``lan`` leads to a machine, and a ketch on it.

    Attributes:
        enter: words that run a program on the host.
        machine: a descriptor of the namespace of the machine, 10.99.0.2 and fd00:99::2.
        ketch: the engine.
    """

    enter: list[str]
    machine: int
    ketch: Engine

    def run(self, *words: str) -> str:
        done = run([*self.enter, *words], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def settings(self, names: list[str]) -> list[str]:
        return self.run("sh", "-c", 'cd /proc/sys/net; cat "$@"', "sh", *names).split()

    def all_settings(self, link: str) -> str:
        return self.run(
            "sh", "-c", f"cd /proc/sys/net; grep -r --exclude stable_secret . ipv[46]/conf/{link}"
        )

    def learnt(self) -> list[str]:
        told = self.run("ip", "-6", "address") + self.run("ip", "-6", "route", "show", "default")
        return [line for line in told.splitlines() if PREFIX[:-2] in line or " ra " in line]


@pytest.fixture
def host(tmp_path: pathlib.Path, run_name: str) -> Iterator[Host]:
    state = tmp_path / run_name  # by which the engine's processes can be told
    state.mkdir(mode=0o700)
    with ExitStack() as stack:
        enter = stack.enter_context(peers.namespaces(tmp_path))
        far = stack.enter_context(
            Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 600"], stdout=PIPE)
        )
        stack.callback(far.kill)
        assert far.stdout is not None
        far.stdout.readline()
        machine = os.open(f"/proc/{far.pid}/ns/net", os.O_RDONLY)
        stack.callback(os.close, machine)
        program = str(pathlib.Path(sys.executable).with_name("ketch"))
        places = ["--root", str(tmp_path / "root"), "--state", str(state)]
        found = Host(enter, machine, Engine("ketch", [*enter, program, *places]))
        for version, settings in TRUSTING.items():
            for name, value in settings.items():
                found.run(
                    "sh", "-c", f"echo {value} >/proc/sys/net/ipv{version}/conf/default/{name}"
                )
        found.run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "eth0",
                  "netns", str(far.pid))  # fmt: skip
        found.run("ip", "link", "set", "lan", "up")
        with entered(machine):
            for words in (
                ("link", "set", "eth0", "up"),
                ("address", "add", "10.99.0.2/24", "dev", "eth0"),
                ("address", "add", "fd00:99::2/64", "dev", "eth0", "nodad"),
            ):
                run(["ip", *words], check=True)
        found.ketch.ok("import", str(images.busybox_archive()), "busybox")
        stack.callback(leftovers.stop_zygotes, run_name)
        stack.callback(_remove_all, found.ketch)
        yield found


def _remove_all(ketch: Engine) -> None:
    ketch("rm", "-f", *ketch("ps", "-aq").out.split())
    ketch("network", "rm", *ketch("network", "ls", "-q", "--filter", "type=custom").out.split())


def test_what_is_behind_a_parent_of_the_operators_teaches_the_host_nothing(host: Host) -> None:
    """And the parent itself stays as its operator has it."""
    before = host.all_settings("lan")
    host.ketch.ok("network", "create", "-d", "macvlan", "-o", "parent=lan", *SUBNETS, "lans")
    thief = host.ketch.ok("run", "-d", "--cap-add", "NET_ADMIN", "--network", "lans", "--ip",
                          "10.99.0.7", "busybox", "sleep", "600")  # fmt: skip
    document = json.loads(host.ketch.ok("inspect", thief))[0]
    mac = document["NetworkSettings"]["Networks"]["lans"]["MacAddress"]
    inside = os.open(f"/proc/{document['State']['Pid']}/ns/net", os.O_RDONLY)
    with ExitStack() as stack:
        stack.callback(os.close, inside)
        # It is a machine of the parent's network,
        with entered(host.machine):
            server = stack.enter_context(socket.create_server(("10.99.0.2", 0)))
        with entered(inside):
            socket.create_connection(server.getsockname(), 30).close()
        assert server.accept()[1][0] == "10.99.0.7"
        # and the host hears nothing of what it says, though the host would listen.
        lan = json.loads(host.run("ip", "-j", "link", "show", "lan"))[0]["address"]
        link_local = str(pinning.link_local(mac))
        forged = [
            frames.advertisement(mac, link_local, PREFIX, to=to)
            for to in ("33:33:00:00:00:01", lan, frames.LINK_LOCAL)
        ]
        frames.send(inside, *forged)
        assert host.learnt() == []
        assert host.all_settings("lan") == before
        # From beyond the parent comes what its operator has it take.
        frames.send(host.machine, *forged)
        assert host.learnt() != []


@pytest.mark.parametrize("kind", ["VLAN", "dummy"])
@pytest.mark.vm
def test_a_parent_that_is_made_trusts_nobody(host: Host, kind: str) -> None:
    words = ("-o", "parent=lan.50") if kind == "VLAN" else ()
    create = ("network", "create", "-d", "macvlan", *words, *SUBNETS, "made")
    begin = ("run", "--rm", "--network", "made", "busybox", "true")
    for command in (create, begin):
        done = host.ketch(*command)
        if "this kernel has no" in done.err:
            assert kind in done.err
            pytest.skip(done.err)
        assert done.status == 0, done.err

    def link() -> str:
        links = [one["ifname"] for one in json.loads(host.run("ip", "-j", "link"))]
        (made,) = set(links) - {"lo", "lan"}
        return str(made)

    assert trusted(link(), host.settings) == []
    # What an operator, or a program of his, has it learn is put right by the next start,
    name = link()
    for path in ("ipv6/conf/{}/accept_ra", "ipv4/conf/{}/accept_redirects"):
        host.run("sh", "-c", f"echo 1 >/proc/sys/net/{path.format(name)}")
    assert trusted(name, host.settings) != []
    host.ketch.ok(*begin)
    assert trusted(name, host.settings) == []
    # and it is made anew as it was.
    host.run("ip", "link", "delete", name)
    host.ketch.ok(*begin)
    assert link() == name
    assert trusted(name, host.settings) == []
