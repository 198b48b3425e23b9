"""What a sandbox's relay passes on: ``python -m bench.egress``.

A gigabyte from a server of this machine's, and new TLS connections a second, from a sandbox with
rules; beside the rates, the processor time that the relay took, which holds on a busy machine too.
"""

import argparse
import contextlib
import multiprocessing
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable

import ketch
from bench.machine import machine
from ketch.engine.requests import launch
from tests.support.images import busybox_archive

_MEGABYTE = 1 << 20
_SCRIPT = r"""
import socket, ssl, sys, threading, time
what, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
address = socket.gethostbyname("host.docker.internal")
begun = time.monotonic()
if what == "bulk":
    with socket.create_connection((address, port)) as made:
        made.sendall(b"\0")
        held, got = bytearray(1 << 20), 0
        while size := made.recv_into(held):
            got += size
    assert got == count << 20, got
else:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    said = ssl.MemoryBIO()
    hello = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname="host.docker.internal")
    try:
        hello.do_handshake()
    except ssl.SSLWantReadError:
        pass
    first = said.read()

    def connect():
        for _ in range(count // 4):
            with socket.create_connection((address, port)) as made:
                made.sendall(first)
                assert made.recv(16)

    threads = [threading.Thread(target=connect) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
print(count / (time.monotonic() - begun))
"""


def main() -> int:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(prog="bench.egress", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--connections", type=int, default=3000)
    options = parser.parse_args()
    with machine("bench.egress") as (stack, scratch):
        engine = ketch.Engine(f"{scratch}/root", f"{scratch}/state")
        with open(busybox_archive(), "rb") as archive:
            engine.images.import_(archive, "busybox")
        ports = [
            _served(stack, _pour, options.megabytes), _served(stack, _alert, 0),
        ]  # fmt: skip
        programs = {place: place for place in ("/usr", "/lib", "/lib64") if os.path.exists(place)}
        rules = [f"host.docker.internal@127.0.0.1:{port}" for port in ports]
        with ketch.Sandbox.create(
            "busybox", engine=engine, mounts=programs, egress=rules, cpus=os.cpu_count() or 1
        ) as sandbox:
            relay = _relay(engine, sandbox)
            for what, port, count, unit in (
                ("bulk", ports[0], options.megabytes, "MiB"),
                ("tls", ports[1], options.connections, "connections"),
            ):
                before = _processor_seconds(relay)
                told = sandbox.run(
                    ["python3", "-c", _SCRIPT, what, str(port), str(count)], timeout=600
                )
                if told.status:
                    print(f"bench: {told.stderr.decode()}", file=sys.stderr)
                    return 1
                spent = _processor_seconds(relay) - before
                print(
                    f"{float(told.text):10.0f} {unit} a second"
                    f" {count / max(spent, 0.01):10.0f} {unit} a second of the relay's processor"
                )
    return 0


def _served(
    stack: contextlib.ExitStack, serve: Callable[[socket.socket, int], None], size: int
) -> int:
    """Serve in a process of its own; returns the port."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    process = multiprocessing.Process(target=serve, args=(listener, size), daemon=True)
    process.start()
    stack.callback(process.kill)
    return int(listener.getsockname()[1])


def _pour(listener: socket.socket, megabytes: int) -> None:
    data = bytes(_MEGABYTE)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)
            for _ in range(megabytes):
                connection.sendall(data)


def _alert(listener: socket.socket, _: int) -> None:
    """Answer a ClientHello by a few bytes: what TLS itself costs is not the relay's."""

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x15\x03\x03\x00\x02\x02\x28")

    for _number in range(3):
        threading.Thread(target=serve).start()
    serve()


def _relay(engine: ketch.Engine, sandbox: ketch.Sandbox) -> int:
    settings = engine._places.settings
    with contextlib.closing(launch.reach_monitor(settings, sandbox.id, "egress")) as reached:
        credentials = reached.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("iii", credentials)[0])


def _processor_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
