"""What leads an ordinary user's containers out of their network: real pasta, real sockets."""

import contextlib
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.users import User

pytestmark = pytest.mark.skipif(
    not (shutil.which("pasta") or shutil.which("slirp4netns")),
    reason="neither pasta nor slirp4netns is installed",
)

# Say a line to an address and a port, and print the answer until the other end closes. Not the
# other way round: of who has closed first, the pasta of 2023 does not tell when the others do.
_TALK = "rm -f /p; mkfifo /p; exec 3<>/p; echo hello >&3; timeout 5 nc $0 $1 <&3"


def _own_address(family: socket.AddressFamily, far: str) -> str:
    """Return the machine's address on its way to another one; nothing is sent there."""
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((far, 9))
        except OSError:
            pytest.skip(f"this machine has no way to {far}")
        address: str = asking.getsockname()[0]
        return address


@contextlib.contextmanager
def _serving(family: socket.AddressFamily) -> Iterator[int]:
    """Serve on all of the machine's addresses, in a thread; yield the port."""
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind(("", 0))
        server.listen()
        threading.Thread(target=_answer_streams, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _answer_streams(server: socket.socket) -> None:
    """Answer each connection's first line, and end it, until the server is shut down."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                count, said = 0, b""
                while not said.endswith(b"\n"):
                    said = connection.recv(65536)
                    count += len(said)
                connection.sendall(b"%d bytes\n" % count)


def _answer_questions(server: socket.socket) -> None:
    """Answer every question for an address with 198.51.100.7."""
    with contextlib.suppress(OSError):
        while True:
            asked, peer = server.recvfrom(4096)
            if not asked:
                return
            question = asked[12 : asked.index(0, 12) + 5]
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("198.51.100.7")
            header = asked[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
            server.sendto(header + question + record, peer)


def test_a_stream_reaches_the_machine(user: User) -> None:
    address = _own_address(socket.AF_INET, "192.0.2.1")
    with _serving(socket.AF_INET) as port:
        told = user.ketch("run", "--rm", "busybox", "sh", "-c", _TALK, address, str(port))
    assert (told.out, told.err) == ("6 bytes\n", ""), str(told)


@pytest.mark.parametrize("network", ["bridge", "own"])
def test_a_large_stream_comes_out_whole(user: User, network: str) -> None:
    """In packets as large as what leads out takes them: smaller ones are lost, and it gives up."""
    address = _own_address(socket.AF_INET, "192.0.2.1")
    talk = (
        "mkfifo /p; exec 3<>/p; cat /sys/class/net/eth0/mtu; timeout 60 nc $0 $1 <&3 &"
        " { head -c 67108864 /dev/zero; echo; } >&3; wait"
    )
    if network == "own":
        user.ketch.ok("network", "create", "own")
    with _serving(socket.AF_INET) as port:
        told = user.ketch(
            "run", "--rm", "--network", network, "busybox", "sh", "-c", talk, address, str(port)
        )
    assert (told.out, told.err) == ("65520\n67108865 bytes\n", ""), str(told)


def test_host_gateway_is_the_machine(user: User) -> None:
    with _serving(socket.AF_INET) as port:
        words = ("run", "--rm", "--add-host", "machine:host-gateway", "busybox", "sh", "-c")
        talk = "set -- $(grep -m 1 machine /etc/hosts) $0; " + _TALK.replace("$0 $1", "$1 $3")
        assert user.ketch.ok(*words, talk, str(port)) == "6 bytes"


@pytest.mark.parametrize(("hidden", "left"), [("pasta", "slirp4netns"), ("slirp4netns", "pasta")])
def test_either_leads_out_where_the_other_is_not_installed(
    user: User, hidden: str, left: str
) -> None:
    paths = {name: shutil.which(name) for name in (hidden, left)}
    if not all(paths.values()):
        pytest.skip("pasta and slirp4netns are not both installed")
    address = _own_address(socket.AF_INET, "192.0.2.1")
    inside = ["nsenter", f"--target={user.mounts}", "--mount"]
    user.end()  # the next command's namespaces lack what is hidden now
    subprocess.run([*inside, "mount", "--bind", "/dev/null", str(paths[hidden])], check=True)
    try:
        with _serving(socket.AF_INET) as port:
            told = user.ketch("run", "--rm", "busybox", "sh", "-c", _TALK, address, str(port))
        assert (told.out, told.err) == ("6 bytes\n", ""), str(told)
        assert set(_leading(user).values()) == {"ketch-uplink", left}
        checked = user.ketch("system", "check").out
        assert any(hidden in line and "not installed" in line for line in checked.splitlines())
    finally:
        user.end()
        subprocess.run([*inside, "umount", str(paths[hidden])], check=True)


def test_one_who_reads_slowly_gets_it_all_and_in_time(user: User) -> None:
    """slirp4netns keeps what the reader is too slow for; pasta drops it, and waits each time."""
    if not shutil.which("slirp4netns"):
        pytest.skip("without slirp4netns it is pasta that leads out")
    address, size = _own_address(socket.AF_INET, "192.0.2.1"), 48 << 20
    user.ketch.ok("run", "-d", "--name", "sender", "busybox", "sleep", "1000")
    pid = user.ketch.ok("inspect", "-f", "{{.State.Pid}}", "sender")
    # As fast as it goes, by the machine's own program in the container's network.
    send = (
        "import socket, sys; far = (sys.argv[1], int(sys.argv[2]));"
        f"socket.create_connection(far).sendall(bytes({size}))"
    )
    with socket.create_server((address, 0)) as server:
        far = (address, str(server.getsockname()[1]))
        sending = subprocess.Popen(
            ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", send, *far]
        )
        try:
            server.settimeout(60)
            reading, _ = server.accept()
            with reading:
                reading.settimeout(30)
                count, began = 0, time.monotonic()
                while count < size and (piece := reading.recv(1 << 18)):
                    count += len(piece)
                    time.sleep(0.003)
                took = time.monotonic() - began
        finally:
            sending.kill()
            sending.wait()
            user.ketch.ok("rm", "-f", "sender")
    assert count == size
    assert took < 10


def test_what_listens_on_the_machines_loopback_is_not_reached(user: User) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0)
        tries = "for a in $(ip route | cut -d' ' -f3) 192.0.0.2 192.0.0.3; do nc -w 1 $a $0; done"
        port = str(server.getsockname()[1])
        user.ketch("run", "--rm", "busybox", "timeout", "8", "sh", "-c", tries, port)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_ipv6_reaches_the_machine(user: User) -> None:
    if not shutil.which("pasta"):
        pytest.skip("slirp4netns leads out by IPv4 alone")
    address = _own_address(socket.AF_INET6, "2001:db8::1")
    user.ketch.ok("network", "create", "--ipv6", "six")
    try:
        with _serving(socket.AF_INET6) as port:
            told = user.ketch.ok("run", "--rm", "--network", "six", "busybox", "sh", "-c",
                                 _TALK, address, str(port))  # fmt: skip
    finally:
        user.ketch.ok("network", "rm", "six")
    assert told == "6 bytes"


def test_datagrams_reach_a_name_server_on_the_machine(user: User) -> None:
    address = _own_address(socket.AF_INET, "192.0.2.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        threading.Thread(target=_answer_questions, args=(server,), daemon=True).start()
        told = user.ketch.ok("run", "--rm", "--dns", address, "busybox", "nslookup", "-type=a",
                             "far.example")  # fmt: skip
        server.sendto(b"", (address, 53))
    assert "198.51.100.7" in told


def test_a_builds_step_gets_out(user: User) -> None:
    address = _own_address(socket.AF_INET, "192.0.2.1")
    with _serving(socket.AF_INET) as port:
        dockerfile = f"FROM busybox\nRUN sh -c '{_TALK}' {address} {port} > /told\n"
        script = "mkdir -p leading && cd leading && printf '%s' \"$0\" > Dockerfile"
        build = f"{script} && ketch build -q -t led ."
        assert user.run("sh", "-c", build, dockerfile).status == 0
    assert user.ketch.ok("run", "--rm", "--network", "none", "led", "cat", "/told") == "6 bytes"
    user.ketch.ok("rmi", "led")


@pytest.mark.parametrize("killed", [("ketch-uplink",), ("pasta", "slirp4netns")])
def test_killed_amid_a_builds_step_it_is_there_again(user: User, killed: tuple[str, ...]) -> None:
    address = _own_address(socket.AF_INET, "192.0.2.1")
    with socket.socket() as server:
        server.bind(("", 0))  # nobody listens yet
        port = server.getsockname()[1]
        step = (
            f"echo begun; until sh -c '{_TALK}' {address} {port} | grep bytes; do sleep 0.2; done"
        )
        words = ("build", "--progress=plain", "--no-cache", "--output=type=cacheonly", "-")
        building = user.ketch.start(*words)
        try:
            assert building.stdin is not None
            assert building.stderr is not None
            building.stdin.write(f"FROM busybox\nRUN {step}\n".encode())
            building.stdin.close()
            building.stdin = None
            while b"begun\n" not in (line := building.stderr.readline()) or b"RUN" in line:
                assert line, "the step has not begun"
            time.sleep(1)  # one that does not last is started again more slowly
            for pid, name in _leading(user).items():
                if name in killed:
                    user.run("kill", "-9", str(pid))
            server.listen()
            threading.Thread(target=_answer_streams, args=(server,), daemon=True).start()
            _, errors = building.communicate(timeout=60)
            assert building.returncode == 0, errors
        finally:
            building.kill()
            building.communicate()
            server.shutdown(socket.SHUT_RDWR)
    _await(lambda: not _leading(user))


def test_it_begins_with_the_first_that_needs_it_and_ends_with_the_last(user: User) -> None:
    ketch = user.ketch
    _await(lambda: not _leading(user))
    ketch.ok("network", "create", "--internal", "inside")
    ketch.ok("run", "--rm", "--network", "inside", "busybox", "true")
    ketch.ok("network", "rm", "inside")
    assert not any(name in {"pasta", "slirp4netns"} for name in _leading(user).values())
    ketch.ok("run", "-d", "--name", "first", "busybox", "sleep", "1000")
    ketch.ok("run", "-d", "--name", "second", "busybox", "sleep", "1000")
    leading = list(_leading(user).values())
    assert len(leading) == len(set(leading)) > 1  # who has started them, and one or two programs
    ketch.ok("rm", "-f", "first", "second")
    _await(lambda: not _leading(user))


@pytest.mark.parametrize("killed", [("ketch-uplink",), ("pasta", "slirp4netns")])
def test_killed_it_is_there_again_soon(user: User, killed: tuple[str, ...]) -> None:
    address = _own_address(socket.AF_INET, "192.0.2.1")
    user.ketch.ok("run", "-d", "--name", "server", "busybox", "sleep", "1000")
    try:
        with _serving(socket.AF_INET) as port:
            words = ("exec", "server", "sh", "-c", _TALK, address, str(port))
            _await(lambda: user.ketch(*words).out == "6 bytes\n")
            time.sleep(1)  # one that does not last is started again more slowly
            for pid, name in _leading(user).items():
                if name in killed:
                    user.run("kill", "-9", str(pid))
            _await(lambda: user.ketch(*words).out == "6 bytes\n")
    finally:
        user.ketch.ok("rm", "-f", "server")


def test_without_it_containers_start_and_it_is_said_why(user: User) -> None:
    _await(lambda: not _leading(user))
    device = pathlib.Path(f"/proc/{user.mounts}/root/dev/net/tun")
    device.chmod(0o600)
    try:
        told = user.ketch("run", "--rm", "busybox", "echo", "here")
        dockerfile = "FROM busybox\nRUN true\nRUN echo again"
        built = user.ketch("build", "--no-cache", "-", stdin=dockerfile)
        alone = user.ketch("build", "--no-cache", "--network", "none", "-", stdin=dockerfile)
    finally:
        device.chmod(0o666)
        _await(lambda: not _leading(user))  # or who comes next is told the same for five seconds
    assert (told.status, told.out) == (0, "here\n")
    reason = "/dev/net/tun is not this user's to open"
    assert reason in told.err
    assert (built.status, built.err.count(reason)) == (0, 1), str(built)
    assert (alone.status, reason in alone.err) == (0, False), str(alone)


def _leading(user: User) -> dict[int, str]:
    """Return what leads out of a user's network: names by pids."""
    found = {}
    for pid in user.processes():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            name = file.read().strip()
            if name == "ketch-uplink":
                found[pid] = name
            elif name.startswith(("pasta", "passt", "slirp4netns")):
                found[pid] = "slirp4netns" if name.startswith("slirp") else "pasta"
    return found


def _await(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)
