"""What an ordinary user's ketch costs, beside root's and podman's: ``python -m bench.rootless``.

- ``run --rm busybox true`` with a network, as the same user by ketch and by podman, and by root's
  ketch, in turns. The first figure that counts is ketch's as a user by ketch's as root.
- Private memory of one more idle container, of all processes that are there for it.
- Throughput of a published port and outward, through what leads out of the user's network; the
  machine is a network namespace with a link that leads nowhere, so all of it is one machine's.
"""

import argparse
import contextlib
import functools
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

from bench.containers import idle_private_kb
from bench.machine import engines, machine
from bench.network import _CHUNK, _serving, _within
from bench.timing import Case, run_in_turns, works
from tests.support import peers, users
from tests.support.commands import Engine
from tests.support.images import busybox_archive

_ADDRESS = "192.0.2.2"  # of RFC 5737
_PORT = 8000
_LINK = (
    "ip link add out type veth peer name nowhere && ip address add 192.0.2.2/24 dev out && "
    "ip link set nowhere up && ip link set out up && ip route add default via 192.0.2.1"
)


def main() -> int:
    """Run the benchmark and print tables."""
    parser = argparse.ArgumentParser(prog="bench.rootless", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="starts of each kind")
    parser.add_argument("--seconds", type=float, default=120, help="for the starts altogether")
    parser.add_argument("--megabytes", type=int, default=512, help="for each throughput")
    options = parser.parse_args()
    with machine("bench.rootless") as (stack, scratch):
        subprocess.run(["sh", "-c", _LINK], check=True)
        (root,), _ = engines(stack, scratch, ())
        user = stack.enter_context(users.made(f"ketch-bench-{os.getpid()}"))
        mine = user.ketch
        mine.ok("import", "-", "busybox", stdin=busybox_archive().read_bytes())
        stack.callback(lambda: mine("system", "reset", "--force"))
        # How somebody becomes a user for a command is no cost of ketch's: root becomes one too.
        become = [word.replace(f"={user.name}", "=root") for word in user.prefix()]
        root = Engine("ketch", [*become, *root.prefix])
        found = {"as root": root, "as a user": mine, **_podman(user)}
        newer = _newer_podman(stack, scratch)
        _starts({**found, **newer}, options.rounds, options.seconds)
        for name, engine in list(found.items())[:2]:
            idle_kb, _ = idle_private_kb(engine)
            print(f"private memory of one more idle container, {name}: {idle_kb} kB")
        for name, engine in found.items():
            _traffic(name, engine, options.megabytes)
    return 0


def _podman(user: users.User) -> dict[str, Engine]:
    """The user's podman, if it is installed and runs here."""
    if not shutil.which("podman"):
        print("(podman is not installed)")
        return {}
    words = ["podman", "--cgroup-manager", "cgroupfs", "--runtime", "runc"]
    podman = Engine("podman", [*user.prefix(), *words])
    told = podman("import", "-", "busybox", stdin=busybox_archive().read_bytes())
    if told.status or (told := podman("run", "--rm", "busybox", "true")).status:
        print(f"(podman does not run as a user here: {told.err.strip()[-200:]})")
        return {}
    return {f"{podman('--version').out.strip()} as a user": podman}


# The machine's device may be root's: the user has one of its own. What a user keeps is in memory,
# as that tree's root is, where overlayfs does not stack.
_ANN = """
useradd --create-home ann; mount -t tmpfs -o uid=ann,gid=ann,mode=700 tmpfs /home/ann
mkdir -m 700 /run/ann; chown ann /run/ann; mkdir /run/net; mknod -m 666 /run/net/tun c 10 200
mount --bind /run/net/tun /dev/net/tun
"""


def _newer_podman(stack: contextlib.ExitStack, scratch: pathlib.Path) -> dict[str, Engine]:
    """The podman of Debian 13, of a user of that tree; its starts alone are comparable."""
    if not peers.TREE.exists():
        print("(there is no tree of Debian 13: make peers)")
        return {}
    directory = scratch / "newer"
    directory.mkdir(mode=0o755)
    scratch.chmod(0o755)
    inside = stack.enter_context(peers.places(directory))
    told = Engine("root", inside)("sh", "-ec", _ANN)
    podman = Engine("podman", [
        *inside, "setpriv", "--reuid=ann", "--regid=ann", "--init-groups", "--reset-env", "--",
        "env", "PATH=/usr/bin:/usr/sbin", "XDG_RUNTIME_DIR=/run/ann", "HOME=/home/ann",
        "sh", "-c", 'cd; exec "$@"', "sh", "podman", "--cgroup-manager=cgroupfs",
        "--events-backend=file", "--runtime=runc",
    ])  # fmt: skip
    if not told.status:
        told = podman("import", "-", "busybox", stdin=busybox_archive().read_bytes())
    if told.status or (told := podman("run", "--rm", "busybox", "true")).status:
        print(f"(Debian 13's podman does not run as a user here: {told.err.strip()[-400:]})")
        return {}
    stack.callback(lambda: podman("system", "migrate"))
    return {f"{podman('--version').out.strip()} as a user": podman}


def _starts(found: dict[str, Engine], rounds: int, seconds: float) -> None:
    cases = []
    for name, engine in found.items():
        words = [*engine.prefix, "run", "--rm", "busybox", "true"]
        words[0] = shutil.which(words[0]) or words[0]
        case = Case(name, "run --rm", words, {**os.environ, **engine.environment})
        if said := works(case):
            print(f"({name}: {said[-200:]})")
        else:
            cases.append(case)
    counted = run_in_turns(cases, rounds=rounds, seconds=seconds)
    print(f"run --rm busybox true, {counted} rounds: median, quartiles, ms")
    least = cases[0].median_ms
    for case in cases:
        first, third = case.quartiles_ms
        ratio = f"{case.median_ms / least:.2f} of the first"
        print(f"  {case.engine:<32}{case.median_ms:8.0f}  {first:.0f} to {third:.0f}  {ratio}")


def _traffic(name: str, engine: Engine, megabytes: int) -> None:
    port = 18000
    engine.ok("run", "-d", "--name", "far", "-p", f"{port}:{_PORT}", "busybox", "sleep", "1000")
    try:
        pid, here = int(engine.ok("inspect", "-f", "{{.State.Pid}}", "far")), os.getpid()
        take = functools.partial(_take, count=megabytes << 20)
        with _serving(pid, _PORT, take):
            near = _speed(here, "127.0.0.1", port, megabytes)
            own = _speed(here, _ADDRESS, port, megabytes)
        with _serving(here, port + 1, take):
            outward = _speed(pid, _ADDRESS, port + 1, megabytes)
    finally:
        engine("rm", "-f", "far", timeout=60)
    print(f"{name}: MB/s to a published port by loopback {near}, by the machine's address {own}; "
          f"outward {outward}")  # fmt: skip


def _take(listening: socket.socket, count: int) -> None:
    """Take so many bytes of each, and say so: the pasta of 2023 does not pass on half an end."""
    while True:
        accepted, _ = listening.accept()
        left = count
        while left > 0 and (data := accepted.recv(1 << 18)):
            left -= len(data)
        accepted.send(b"!")
        accepted.close()


def _speed(pid: int, address: str, port: int, megabytes: int) -> str:
    """MB/s of a stream from a process's network to an address."""
    try:
        with _within(pid), socket.create_connection((address, port), timeout=30) as talking:
            begun = time.perf_counter()
            for _ in range((megabytes << 20) // len(_CHUNK)):
                talking.sendall(_CHUNK)
            talking.recv(1)
            return f"{megabytes / (time.perf_counter() - begun):.0f}"
    except OSError as error:
        return f"none ({error})"


if __name__ == "__main__":
    sys.exit(main())
