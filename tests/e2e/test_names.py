"""Names of containers, looked up from inside; who answers, and for how long."""

import os
import pathlib
import signal
import time

import pytest

from tests.support import leftovers
from tests.support.commands import Engine

LOOK_UP = "nslookup -type=a {} 2>&1 | sed -n 's/^Address: *//p' | grep -v :53"


def resolvers(run_name: str) -> list[int]:
    """Return the pids of this run's resolvers."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = entry.joinpath("cmdline").read_bytes()
        except OSError:
            continue
        if b"\0ketch-names\0" in command and run_name.encode() in command:
            found.append(int(entry.name))
    return found


def await_number(run_name: str, number: int) -> list[int]:
    """Wait until there is this number of resolvers, and return them."""
    deadline = time.monotonic() + 10
    while len(found := resolvers(run_name)) != number:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def test_containers_find_each_other_on_the_default_network(ketch: Engine) -> None:
    db = ketch.ok("run", "-d", "--name", "db", "-h", "store", "busybox", "sleep", "60")
    try:
        address = ketch.ok("exec", "db", "hostname", "-i")
        script = "; ".join(LOOK_UP.format(name) for name in ("db", "DB", "store", db[:12]))
        assert ketch.ok("run", "--rm", "busybox", "sh", "-c", script).split() == [address] * 4
        reverse = ketch.ok("run", "--rm", "busybox", "sh", "-c", f"nslookup {address}")
        assert "name = db.bridge" in reverse
        assert ketch.ok("run", "--rm", "busybox", "ping", "-c1", "-W2", "db")
        started = ketch.ok("run", "-d", "busybox", "sleep", "60")
        assert ketch.ok("exec", started, "sh", "-c", LOOK_UP.format("db")) == address
        ketch.ok("rm", "-f", "db")
        assert ketch("exec", started, "sh", "-c", LOOK_UP.format("db")).out.strip() == ""
        ketch.ok("rm", "-f", started)
    finally:
        ketch("rm", "-f", "db")


def test_a_link_on_the_default_network_gives_variables(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "db-one", "-e", "WORD=x y", "-e", "EMPTY=", "-e", "HOME=/h",
              "--expose", "5432", "--expose", "80-83", "--expose", "80/udp", "--expose", "53/udp",
              "busybox", "sleep", "60")  # fmt: skip
    try:
        address = engine.ok("exec", "db-one", "hostname", "-i")
        engine.ok("run", "-d", "--name", "web", "-e", "MY_DB_NAME=mine", "--link", "db-one:my-db",
                  "busybox", "sh", "-c", "env > /env; exec sleep 60")  # fmt: skip
        wanted = {
            "MY_DB_NAME": "mine", "MY_DB_ENV_WORD": "x y", "MY_DB_ENV_EMPTY": "",
            "MY_DB_PORT": f"udp://{address}:53",
            "MY_DB_PORT_80_TCP_START": f"tcp://{address}:80",
            "MY_DB_PORT_80_TCP_PORT_START": "80",
            "MY_DB_PORT_80_TCP_END": f"tcp://{address}:83",
            "MY_DB_PORT_80_TCP_PORT_END": "83",
        }  # fmt: skip
        for protocol, numbers in (("tcp", (80, 81, 82, 83, 5432)), ("udp", (53, 80))):
            for number in numbers:
                variable = f"MY_DB_PORT_{number}_{protocol.upper()}"
                wanted |= {
                    variable: f"{protocol}://{address}:{number}", f"{variable}_ADDR": address,
                    f"{variable}_PORT": str(number), f"{variable}_PROTO": protocol,
                }  # fmt: skip
        # Those of its program, and of what is run beside it.
        for command in (("sh", "-c", "until [ -s /env ]; do sleep 0.1; done; cat /env"), ("env",)):
            lines = engine.ok("exec", "web", *command).splitlines()
            shown = {name: value for name, _, value in (line.partition("=") for line in lines)}
            assert {k: v for k, v in shown.items() if k.startswith("MY_DB")} == wanted
        assert f"{address}\tmy-db " in engine.ok("exec", "web", "cat", "/etc/hosts")
        engine.ok("stop", "-t", "0", "db-one")
        refused = engine("run", "--rm", "--name", "late", "--link", "db-one:db", "busybox", "true")
        assert "Cannot link to a non running container: /db-one AS /late/db" in refused.err
    finally:
        engine("rm", "-f", "web", "db-one")


@pytest.mark.root_engine("a program of the kernel's socket lookup is root's to load")
def test_port_53_is_left_to_the_container(ketch: Engine) -> None:
    script = "nc -l -p 53 & sleep 0.2; kill -0 $! && nslookup $HOSTNAME"
    out = ketch.ok("run", "--rm", "-h", "me", "busybox", "sh", "-c", script)
    assert "127.0.0.11:53" in out


def test_there_is_no_name_server_without_a_network(ketch: Engine) -> None:
    out = ketch.ok("run", "--rm", "--network", "none", "busybox", "cat", "/etc/resolv.conf")
    assert "127.0.0.11" not in out


def test_a_container_gets_a_name_server_with_its_first_network(engine: Engine) -> None:
    engine.ok("network", "create", "later")
    try:
        container = engine.ok("run", "-d", "--network", "none", "--name", "late",
                              "--dns", "192.0.2.111", "--dns", "192.0.2.112",
                              "busybox", "sleep", "60")  # fmt: skip
        assert "127.0.0.11" not in engine.ok("exec", container, "cat", "/etc/resolv.conf")
        engine.ok("network", "disconnect", "none", container)
        engine.ok("network", "connect", "later", container)
        # Docker adds notes on where it comes from.
        told = engine.ok("exec", container, "grep", "-v", "^#", "/etc/resolv.conf")
        assert told.split() == ["nameserver", "127.0.0.11", "options", "ndots:0"]
        address = engine.ok("exec", container, "hostname", "-i")
        look_up = LOOK_UP.format("late")
        assert engine.ok("exec", container, "sh", "-c", look_up) == address
        # What somebody writes there stays; the name server does as well.
        engine.ok("exec", container, "sh", "-c", "echo 'nameserver 192.0.2.1' > /etc/resolv.conf")
        engine.ok("network", "disconnect", "later", container)
        engine.ok("network", "connect", "later", container)
        told = engine.ok("exec", container, "cat", "/etc/resolv.conf")
        assert told == "nameserver 192.0.2.1"
        address = engine.ok("exec", container, "hostname", "-i")
        assert engine.ok(
            "exec", container, "sh", "-c", f"nslookup late 127.0.0.11 | grep {address}"
        )
    finally:
        engine("rm", "-f", "late")
        engine("network", "rm", "later")


def test_the_resolver_is_found_again_by_who_starts_one_now_and_then(
    ketch: Engine, run_name: str
) -> None:
    leftovers.stop_zygotes(run_name)
    await_number(run_name, 0)
    ketch.ok("run", "--rm", "busybox", "true")
    (pid,) = await_number(run_name, 1)
    time.sleep(5)
    ketch.ok("run", "--rm", "busybox", "true")
    assert resolvers(run_name) == [pid]


def test_a_killed_resolver_is_replaced(ketch: Engine, run_name: str) -> None:
    leftovers.stop_zygotes(run_name)
    await_number(run_name, 0)
    ketch.ok("run", "-d", "--name", "web", "busybox", "sleep", "60")
    try:
        (pid,) = await_number(run_name, 1)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while pid in resolvers(run_name):  # its last moments
            assert time.monotonic() < deadline
            time.sleep(0.01)
        await_number(run_name, 1)
        assert ketch.ok("exec", "web", "sh", "-c", LOOK_UP.format("web"))
    finally:
        ketch("rm", "-f", "web")
