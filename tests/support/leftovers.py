"""What a test run may have left on the machine, found by comparing before and after."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

from ketch.engine.settings import is_ordinary
from ketch.linux import nftables, rtnetlink
from ketch.network import bridge as bridges
from ketch.network import firewall, ip_forward

# Every process of a run carries this variable in its environment, and every directory that a run
# makes for an engine carries its value in its name: so what is ours can be told from the rest.
RUN_VARIABLE = "KETCH_TEST_RUN"

# Set where other suites run on this machine at the same time: then only what carries the run's
# name, its processes and mounts, is looked for, since nobody could tell whose the rest is.
SHARED_VARIABLE = "KETCH_TEST_SHARED"

# The table that engines keep, beside the bridge of each; every bridge's name begins with this.
TABLE = "inet ketch"
TABLES = {TABLE, "bridge ketch"}
BRIDGE_PREFIX = "ketch"

# Containers of peers live below cgroups whose names begin so, to be removed with all they hold.
PEERS_CGROUP = "ketch-test-peer"

# A cgroup of a container or of an engine; other services' come and go as they like.
_ENGINES_CGROUP = re.compile(r"ketch|libpod|docker|/[0-9a-f]{64}")

State = dict[str, frozenset[str]]


def state(run: str, *, cheap: bool = False) -> State:
    """List what outlives processes, by kind.

    Args:
        run: the value of RUN_VARIABLE, by which processes are found.
        cheap: only what takes a millisecond to list, for use around every test.
    """
    if os.environ.get(SHARED_VARIABLE):
        ours = {"mount": frozenset(name for name in _mounts() if run in name)}
        return ours if cheap else {**ours, "process": _named_processes(run)}
    found = {
        "mount": _mounts(),
        "link": frozenset(os.listdir("/sys/class/net")),
        # The peers' own is made and removed with them, whatever test runs meanwhile.
        "cgroup": _cgroups() - (_peers_cgroups() if cheap else frozenset()),
    }
    if not cheap:
        found["nftables rule"] = _rules()
        found["process"] = _named_processes(run)
        found["path"] = frozenset(_paths())
    return found


def left(before: State, run: str, *, patience_seconds: float = 15) -> list[str]:
    """Name what is there now and was not before, of the kinds that ``before`` has.

    The kernel takes down a dead namespace's links and mounts a moment after its last process, so
    a difference counts only once it has stayed.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        after = state(run, cheap="process" not in before)
        found = [
            f"{kind} {what}"
            for kind, things in after.items()
            for what in sorted(things - before[kind])
        ]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def remove_network(bridge: str) -> None:
    """Take away what a default network keeps: its bridge, and what the packet filter has of it."""
    with rtnetlink.Socket() as host:
        known = bridges.read(host, bridge)
    subprocess.run(["ip", "link", "delete", bridge], check=True)
    firewall.forget(bridge, known)


@contextlib.contextmanager
def packet_filter_as_before() -> Iterator[None]:
    """Have the host forward packets afterwards, and drop them, as it did before.

    The tables that engines keep go after the last of all bridges, where there were none before.
    Where other suites run, packets of theirs are forwarded as well, so that stays as it is.
    """
    if is_ordinary() or not shutil.which("nft"):
        yield
        return
    forwarded = {version: ip_forward.is_on(version) for version in ip_forward.SWITCHES}
    before = _tables()
    yield
    new = _tables() - before
    if any(link.startswith(BRIDGE_PREFIX) for link in os.listdir("/sys/class/net")):
        new -= TABLES
    if SHARED_VARIABLE in os.environ:
        new &= TABLES
    else:
        for version, was_on in forwarded.items():
            if not was_on:
                pathlib.Path(ip_forward.SWITCHES[version]).write_text("0", encoding="ascii")
    for table in new:
        subprocess.run(["nft", "delete", "table", *table.split()], check=False)


@contextlib.contextmanager
def interpreter_as_before() -> Iterator[None]:
    """Take away the mount of the interpreter that ketch-oci keeps, when nobody had it before."""
    kept = pathlib.Path("/run/ketch-oci")
    had = kept.exists()
    yield
    if not had and kept.exists():
        for mounted in kept.glob(".python/bin/*"):
            subprocess.run(["umount", mounted], check=False, capture_output=True)
        shutil.rmtree(kept)


def _tables() -> set[str]:
    """Name the tables of engines, and those with iptables' rules about forwarded packets."""
    chains = [entry["chain"] for entry in nftables.listing("chains") if "chain" in entry]
    found = {(chain["family"], chain["table"], chain["name"]) for chain in chains}
    return {
        f"{family} {table}" for family, table, name in found
        if f"{family} {table}" in TABLES or (table, name) == ("filter", "FORWARD")
    }  # fmt: skip


def remove_named_namespaces() -> None:
    """Take away what ip-netns(8) mounts at its first use, unless somebody's namespace is there."""
    names = pathlib.Path("/run/netns")
    if names.is_dir() and not any(names.iterdir()):
        subprocess.run(["umount", str(names)], check=False)
        names.rmdir()


def processes(run: str) -> dict[int, str]:
    """Find the run's processes, by their arguments, environment or container's mounts.

    Returns:
        Names and command lines by pid; without this process and its ancestors.
    """
    ours = {}
    ancestors = _ancestors()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in ancestors:
            continue
        with contextlib.suppress(OSError):
            process = pathlib.Path("/proc", entry)
            command = process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").strip()
            if not command:  # a zombie or a kernel thread
                continue
            facts = command + process.joinpath("environ").read_bytes()
            facts += process.joinpath("mountinfo").read_bytes()
            if run.encode() in facts:
                name = process.joinpath("comm").read_text(encoding="utf-8").strip()
                ours[int(entry)] = f"{name}: {command.decode(errors='replace')[:500]}"
    return ours


def working(run: str, state: str) -> list[str]:
    """Name the processes of an engine that have something to do for it.

    Args:
        run: the value of RUN_VARIABLE.
        state: the engine's state directory, which they have among their arguments.

    Returns:
        Names, as ps(1) shows them. Without zygote, resolver and holder, which wait for work, and
        without a server, which a fixture may keep for the length of the run.
    """
    ours = {
        pid: command.partition(":")[0]
        for pid, command in processes(run).items()
        if state in command and " serve " not in command
    }
    return [
        name
        for pid, name in ours.items()
        # A monitor has the name of the zygote, its parent, for its first moment.
        if name not in {"ketch-zygote", "ketch-names", "ketch-holder"}
        or (name == "ketch-zygote" and ours.get(_parent(pid)) == name)
    ]


def _parent(pid: int) -> int:
    """Return the parent's pid, 0 where the process is gone."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def _named_processes(run: str) -> frozenset[str]:
    return frozenset(f"{pid} {name}" for pid, name in processes(run).items())


def _paths() -> list[str]:
    parents = [pathlib.Path(name) for name in ("/run/netns", "/run/ketch", "/var/lib/ketch")]
    return [str(path) for top in parents if top.exists() for path in (top, *top.glob("*"))]


def _mounts() -> frozenset[str]:
    lines = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    found: dict[str, int] = {}
    for line in lines:
        before, _, after = line.partition(" - ")
        name = f"{before.split()[4]} ({after.split()[0]})"
        found[name] = found.get(name, 0) + 1
    return frozenset(f"{name} number {n}" for name, count in found.items() for n in range(count))


def _rules() -> frozenset[str]:
    if os.geteuid() != 0:
        return frozenset()
    try:
        listing = subprocess.run(["nft", "--stateless", "list", "ruleset"], capture_output=True,
                                 check=True, text=True).stdout  # fmt: skip
    except (FileNotFoundError, subprocess.CalledProcessError):
        return frozenset()
    table = ""
    rules = set()
    for line in listing.splitlines():
        if line.startswith("table "):
            table = line.removesuffix("{").strip()
        rules.add(f"{table}: {line.strip()}")
    return frozenset(rules)


def _cgroups() -> frozenset[str]:
    root = "/sys/fs/cgroup"
    return frozenset(
        directory
        for directory, _, _ in os.walk(root)
        if _ENGINES_CGROUP.search(directory.removeprefix(root))
    )


def _peers_cgroups() -> frozenset[str]:
    found = pathlib.Path("/sys/fs/cgroup").glob(f"*/{PEERS_CGROUP}-*")
    return frozenset(map(str, found))


def _ancestors() -> set[int]:
    found = set()
    pid = os.getpid()
    while pid:
        found.add(pid)
        pid = _parent(pid)
    return found


def stop_zygotes(run_name: str) -> None:
    """End a run's warm processes, which would leave by themselves after a minute unused."""
    for pid, command in processes(run_name).items():
        if command.startswith(("ketch-zygote", "ketch-names")):
            os.kill(pid, signal.SIGTERM)
