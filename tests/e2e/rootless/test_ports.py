"""Published ports of an ordinary user's containers: passed on by a process of the user's own."""

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ketch.linux import namespaces
from tests.support import commands
from tests.support.users import User

_ECHO = "exec nc -ll -p 80 -e cat"


@pytest.fixture(scope="module")
def echo(user: User) -> Iterator[tuple[int, int]]:
    """Run a container that says all again; return the machine's ports to it, tcp and udp."""
    user.ketch.ok("run", "-d", "--name", "echo", "-p", "80", "-p", "7/udp", "busybox", "sh", "-c",
                  _ECHO)  # fmt: skip
    try:
        ports = [int(user.ketch.ok("port", "echo", port).rpartition(":")[2])
                 for port in ("80/tcp", "7/udp")]  # fmt: skip
        pid = int(user.ketch.ok("inspect", "-f", "{{.State.Pid}}", "echo"))
        threading.Thread(target=say_datagrams_again, args=(pid,), daemon=True).start()
        await_true(lambda: says_again("127.0.0.1", ports[0]))
        yield ports[0], ports[1]
    finally:
        user.ketch.ok("rm", "-f", "echo")


def say_datagrams_again(pid: int) -> None:
    """Serve port 7 in the network of a process, in a thread that ends with it."""
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:
        namespaces.setns(namespace.fileno(), namespaces.CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 7))
        server.settimeout(1)
        while os.path.exists(f"/proc/{pid}"):
            with contextlib.suppress(TimeoutError):
                said, peer = server.recvfrom(100)
                server.sendto(said, peer)


def await_true(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 15
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def says_again(address: str, port: int, count: int = 5) -> bool:
    """Return whether all that is said comes back, and then the end."""
    said = (b"hello" * count)[:count]
    try:
        with socket.create_connection((address, port), 5) as connection:

            def say() -> None:
                with contextlib.suppress(OSError):
                    connection.sendall(said)
                    connection.shutdown(socket.SHUT_WR)

            thread = threading.Thread(target=say)
            thread.start()
            heard = bytearray()
            while data := connection.recv(65536):
                heard += data
            thread.join()
    except OSError:
        return False
    return heard == said


def is_refused(address: str, port: int) -> bool:
    """Return whether nobody listens."""
    with socket.socket() as asking:
        return asking.connect_ex((address, port)) == errno.ECONNREFUSED


def own_address() -> str:
    """Return an address of this machine that is not its loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but its loopback's")
        address: str = asking.getsockname()[0]
        return address


def test_streams_are_whole_by_any_address(echo: tuple[int, int]) -> None:
    assert says_again("127.0.0.1", echo[0], 8_000_000)
    assert says_again(own_address(), echo[0])


def test_datagrams_are_answered_from_where_they_were_sent_to(echo: tuple[int, int]) -> None:
    for address in ("127.0.0.1", "127.0.0.2", own_address()):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(5)
            asking.connect((address, echo[1]))  # what comes from elsewhere is not heard
            asking.send(b"hello")
            assert asking.recv(100) == b"hello"


def name_clients(pid: int, kind: socket.SocketKind) -> None:
    """Tell who comes to port 9 of a process's network as whom, in a thread that ends with it."""
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:
        namespaces.setns(namespace.fileno(), namespaces.CLONE_NEWNET)
    with socket.socket(socket.AF_INET6, kind) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", 9))
        server.settimeout(1)
        if kind == socket.SOCK_STREAM:
            server.listen()
        while os.path.exists(f"/proc/{pid}"):
            with contextlib.suppress(OSError):
                if kind == socket.SOCK_STREAM:
                    connection, peer = server.accept()
                    with connection:
                        connection.sendall(repr(peer[:2]).encode())
                else:
                    _, peer = server.recvfrom(100)
                    server.sendto(repr(peer[:2]).encode(), peer)


def _as_whom(kind: socket.SocketKind, address: str, port: int) -> tuple[str, str]:
    """Return as whom somebody is who asks, and as whom the container sees it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as asking:
        asking.settimeout(5)
        asking.connect((address, port))
        asking.send(b"who?")
        seen = asking.recv(100).decode().replace("::ffff:", "")
        return repr(asking.getsockname()[:2]), seen


def test_the_container_sees_the_clients_own_address(user: User) -> None:
    own = own_address()
    user.ketch.ok("network", "create", "--ipv6", "seen")
    try:
        user.ketch.ok("run", "-d", "--name", "seeing", "--network", "seen", "-p", "9",
                      "-p", "9/udp", "busybox", "sleep", "1000")  # fmt: skip
        pid = int(user.ketch.ok("inspect", "-f", "{{.State.Pid}}", "seeing"))
        gateway = user.ketch.ok("exec", "seeing", "sh", "-c", "ip route | cut -d' ' -f3 | head -n1")
        for kind, protocol in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
            threading.Thread(target=name_clients, args=(pid, kind), daemon=True).start()
            four, six = (
                int(line.rpartition(":")[2])
                for line in user.ketch.ok("port", "seeing", f"9/{protocol}").splitlines()
            )

            def is_served(kind: socket.SocketKind = kind, port: int = four) -> bool:
                with contextlib.suppress(OSError):
                    return bool(_as_whom(kind, "127.0.0.1", port)[1])
                return False

            await_true(is_served)
            for _ in range(3):  # connections of one container's do not end the next one's
                asked, seen = _as_whom(kind, own, four)
                assert asked == seen
            assert gateway in _as_whom(kind, "127.0.0.1", four)[1]
            own6 = _own_ipv6()
            if own6:
                asked, seen = _as_whom(kind, own6, six)
                assert asked == seen
        # What the container itself sends to such a client goes the way that it went before.
        with socket.create_server((own, 0)) as server:
            server.settimeout(10)
            user.ketch.ok("exec", "-d", "seeing", "nc", own, str(server.getsockname()[1]))
            server.accept()[0].close()
    finally:
        user.ketch.ok("rm", "-f", "seeing")
        user.ketch.ok("network", "rm", "seen")


def _own_ipv6() -> str:
    """Return an IPv6 address of this machine that is not its loopback's; empty without any."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asking:
        with contextlib.suppress(OSError):
            asking.connect(("2001:db8::1", 9))  # nothing is sent there
            address: str = asking.getsockname()[0]
            return address
        return ""


def test_ipv6(user: User) -> None:
    user.ketch.ok("network", "create", "--ipv6", "six")
    try:
        user.ketch.ok("run", "-d", "--name", "echo6", "--network", "six", "-p", "[::1]::80",
                      "busybox", "nc", "-ll", "-p", "80", "-e", "cat")  # fmt: skip
        port = int(user.ketch.ok("port", "echo6", "80").rpartition(":")[2])
        await_true(lambda: says_again("::1", port))
    finally:
        user.ketch.ok("rm", "-f", "echo6")
        user.ketch.ok("network", "rm", "six")


@pytest.mark.parametrize("killed", ["ketch-ports", "ketch-uplink"])
def test_killed_what_passes_on_is_there_again(
    user: User, echo: tuple[int, int], killed: str
) -> None:
    pids = {name: pid for pid, name in names(user).items()}
    assert user.run("kill", "-9", str(pids[killed])).status == 0
    await_true(lambda: pids[killed] not in names(user))
    await_true(lambda: says_again("127.0.0.1", echo[0]))
    assert f":{echo[0]}->80/tcp" in user.ketch.ok("ps")


def names(user: User) -> dict[int, str]:
    """Return the names of a user's processes, by pid."""
    found = {}
    for pid in user.processes():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            found[pid] = file.read().strip()
    return found


def test_a_port_is_free_again_when_its_container_has_ended(user: User) -> None:
    with socket.socket() as asking:
        asking.bind(("", 0))
        port = asking.getsockname()[1]
    words = ("run", "-d", "--name", "again", "-p", f"{port}:80", "busybox", "sh", "-c", _ECHO)
    for _ in range(2):
        user.ketch.ok(*words)
        await_true(lambda: says_again("127.0.0.1", port))
        user.ketch.ok("restart", "-t", "0", "again")
        await_true(lambda: says_again("127.0.0.1", port))
        # By this the machine's end is closed first, and so in TIME_WAIT.
        with socket.create_connection(("127.0.0.1", port), 5):
            user.ketch.ok("kill", "again")
            user.ketch.ok("wait", "again")
        user.ketch.ok("rm", "again")
    await_true(lambda: is_refused("127.0.0.1", port))


def test_a_port_follows_its_container_to_another_network(user: User) -> None:
    ketch = user.ketch
    ketch.ok("network", "create", "--internal", "inside")
    try:
        ketch.ok("run", "-d", "--name", "moved", "--network", "inside", "-p", "80", "busybox",
                 "sh", "-c", _ECHO)  # fmt: skip
        ketch.ok("network", "connect", "bridge", "moved")
        port = int(ketch.ok("port", "moved", "80").rpartition(":")[2])
        await_true(lambda: says_again("127.0.0.1", port))
    finally:
        ketch.ok("rm", "-f", "moved")
        ketch.ok("network", "rm", "inside")


def test_what_cannot_be_published_is_refused_by_name(user: User) -> None:
    there = user.ketch.ok("ps", "-a", "-q")
    low = user.ketch("run", "--rm", "-p", "80:80", "busybox", "true")
    assert low.status == 125
    assert "net.ipv4.ip_unprivileged_port_start=80" in low.err
    sctp = user.ketch("run", "--rm", "-p", "80/sctp", "busybox", "true")
    assert sctp.status == 125
    assert "not of sctp" in sctp.err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = user.ketch("run", "--rm", "-p", f"{port}:80", "busybox", "true")
    assert other.status == 125
    assert "address already in use" in other.err
    assert user.ketch.ok("ps", "-a", "-q") == there


def test_who_says_nothing_keeps_nobody_out(user: User, echo: tuple[int, int]) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(400):
            held.enter_context(socket.create_connection(("127.0.0.1", echo[0]), 5))
        for number in range(2000):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spray:
                spray.sendto(b"%d" % number, ("127.0.0.1", echo[1]))
        assert says_again("127.0.0.1", echo[0])


def test_another_user_does_not_reach_who_publishes(user: User, echo: tuple[int, int]) -> None:
    reach = "import sys, socket as s; s.socket(s.AF_UNIX, s.SOCK_SEQPACKET).connect(sys.argv[1])"
    words = ["/usr/bin/python3", "-c", reach, f"{user.session}/ketch/uplink.socket"]
    assert user.run(*words).status == 0
    stranger = [word.replace(f"={user.name}", "=65534").replace("--init-groups", "--clear-groups")
                for word in user.prefix()]  # fmt: skip
    told = commands.Engine("stranger", stranger)(*words)
    assert "PermissionError" in told.err
