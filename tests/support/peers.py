"""Docker and podman of one's own: other directories, other namespaces, nothing on the host.

Those of Debian 13 where ``make peers`` has made a tree of it: then they run on that root, laid
under a file system in memory, so that each finds it as it was made. Else those that the host has.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence

from tests.support import leftovers
from tests.support.commands import Engine
from tests.support.images import CACHE, busybox_archive

CGROUP = f"{leftovers.PEERS_CGROUP}-{os.getpid()}"
"""A worker's own: who ends a daemon removes what is empty there."""

TREE = CACHE / "peers-trixie"
"""Debian 13 with the peers of today."""

_RUNTIMES = {"runc": "/usr/sbin/runc", "ketch-oci": "/opt/ketch/bin/ketch-oci"}
"""Where OCI runtimes are in the tree."""

_CHECKOUT = pathlib.Path(__file__).parents[2]

# In a mount namespace of its own: the tree with what is written kept in memory, what programs
# expect of a host, and the directories that both sides see at the same place.
_SETTLE = """
set -e
tree=$1 merged=$2 checkout=$3; shift 2
mount -t tmpfs tmpfs "$merged"; mkdir "$merged/upper" "$merged/work" "$merged/root"
root=$merged/root
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$merged/upper,workdir=$merged/work" "$root"
for place in /dev /sys; do mount --rbind "$place" "$root$place"; done
mount -t proc proc "$root/proc"
for place in /run /opt; do mount -t tmpfs tmpfs "$root$place"; done
# podman takes the hybrid's second hierarchy for its own, and finds no controllers there.
! mountpoint -q "$root/sys/fs/cgroup/unified" || umount -l "$root/sys/fs/cgroup/unified"
for place; do mkdir -p "$root$place"; mount --rbind "$place" "$root$place"; done
cp /etc/resolv.conf "$root/etc/resolv.conf"
# ketch for this root's Python: a virtual environment of the checkout.
ketch=$root/opt/ketch
mkdir -p "$ketch/bin"
for python in "$root"/usr/lib/python3.*; do
    packages=$ketch/lib/${python##*/}/site-packages
    mkdir -p "$packages"; echo "$checkout/src" >"$packages/ketch.pth"
done
echo "home = /usr/bin" >"$ketch/pyvenv.cfg"
ln -s /usr/bin/python3 "$ketch/bin/python3"
cp "$checkout/bin/ketch-oci" "$ketch/bin/ketch-oci"
cd "$root"; mkdir .host; pivot_root . .host; umount -l /.host; rmdir /.host
"""


class PeerUnavailableError(Exception):
    """The peer is not installed or does not start here; the message says which."""


@contextlib.contextmanager
def namespaces(directory: pathlib.Path) -> Iterator[list[str]]:
    """Hold new network and mount namespaces; give the command prefix that enters them.

    The prefix is ``nsenter`` with a pid: a process that sleeps until the end of the block.

    Args:
        directory: where the peer's files are; its mounts stay private to the namespaces.
    """
    holder = subprocess.Popen(
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c",
         "ip link set lo up && mount -t tmpfs tmpfs /run && echo ready && exec sleep infinity"],
        stdout=subprocess.PIPE, cwd=directory,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"ready\n":
            raise PeerUnavailableError("new namespaces cannot be made here")
        yield ["nsenter", "--target", str(holder.pid), "--net", "--mount", "--"]
    finally:
        holder.kill()
        holder.wait()


@contextlib.contextmanager
def places(directory: pathlib.Path, enter: Sequence[str] = ()) -> Iterator[list[str]]:
    """Hold what a peer runs in; give the command prefix that enters it.

    Args:
        directory: where the peer's files are, at the same path inside.
        enter: the command prefix of the network namespace to use, from ``namespaces``; a new one
            where empty.
    """
    if not TREE.exists():
        with contextlib.nullcontext(list(enter)) if enter else namespaces(directory) as inside:
            yield inside
        return
    merged = pathlib.Path(tempfile.mkdtemp(prefix="tree-", dir=directory))
    unshare = ["unshare", *([] if enter else ["--net"]), "--mount", "--propagation", "private"]
    # A worktree's cache may be another checkout's, by a link.
    seen = [_CHECKOUT, CACHE.resolve(), tempfile.gettempdir(), directory]
    script = f"{_SETTLE}ip link set lo up; echo ready; exec sleep infinity"
    holder = subprocess.Popen(
        [*enter, *unshare, "sh", "-c", script, "sh", str(TREE), str(merged), *map(str, seen)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"ready\n":
            raise PeerUnavailableError("the tree of Debian 13 cannot be entered here")
        yield ["nsenter", "--target", str(holder.pid), "--net", "--mount", "--root", "--wdns=/"]
    finally:
        holder.kill()
        holder.wait()
        merged.rmdir()


def runtime_inside(path: str) -> str:
    """Tell where an OCI runtime of the host's, runc or ketch-oci, is for a peer."""
    return _RUNTIMES.get(os.path.basename(path), path) if TREE.exists() else path


def program(name: str, inside: Sequence[str]) -> str:
    """Tell where a peer's program is, seen from inside; empty where it is not installed."""
    words = [*inside, "sh", "-c", f"command -v {name}"]
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout.strip()


def give_plugins(configuration: pathlib.Path) -> None:
    """Give a docker command the tree's plugins: buildx and compose.

    Args:
        configuration: its DOCKER_CONFIG.
    """
    there = TREE / "usr/libexec/docker/cli-plugins"
    if there.is_dir() and not (configuration / "cli-plugins").exists():
        (configuration / "cli-plugins").symlink_to(there)


@contextlib.contextmanager
def docker(
    directory: pathlib.Path, runtime: str = "", enter: Sequence[str] = ()
) -> Iterator[Engine]:
    """Start a dockerd and give the docker command that speaks to it, with image ``busybox``.

    Its bridge and its iptables rules live in a network namespace of its own.

    Args:
        directory: where its files are.
        runtime: path of the OCI runtime that runs its containers, or empty for its own choice.
        enter: the command prefix of the namespaces to use, from ``namespaces``; new ones where
            empty.
    """
    socket = directory / "docker.sock"
    other = f"other={runtime_inside(runtime)}"
    runtimes = ["--add-runtime", other, "--default-runtime", "other"]
    with (
        places(directory, enter) as inside,
        (directory / "dockerd.log").open("wb") as log,
    ):
        if not program("dockerd", inside) or not shutil.which("docker"):
            raise PeerUnavailableError("docker is not installed (Debian: docker.io)")
        daemon = subprocess.Popen(
            [*inside, "dockerd",
             "--data-root", str(directory / "data"), "--exec-root", str(directory / "exec"),
             "--pidfile", str(directory / "pid"), "--host", f"unix://{socket}",
             "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{CGROUP}",
             *(runtimes if runtime else ())],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            give_plugins(directory)
            engine = Engine(
                "docker",
                ["docker", "--host", f"unix://{socket}"],
                {
                    "DOCKER_CONFIG": str(directory),
                    "DOCKER_CLI_HINTS": "false",
                    "TMPDIR": str(directory),
                },  # where buildx leaves directories
            )
            _await_docker(engine, daemon, directory / "dockerd.log")
            engine.ok("import", str(busybox_archive()), "busybox")
            engine.ok("run", "--rm", "busybox", "true")  # makes the cgroup, which stays
            yield engine
            for container in engine("ps", "--all", "--quiet").out.split():
                engine("rm", "--force", container)
        finally:
            daemon.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(30)
            daemon.kill()
            remove_cgroups(CGROUP)


@contextlib.contextmanager
def podman(
    directory: pathlib.Path, runtime: str = "", enter: Sequence[str] = ()
) -> Iterator[Engine]:
    """Give a podman with image ``busybox`` whose containers, networks and mounts are its own.

    Args:
        directory: where its files are.
        runtime: path of the OCI runtime that runs its containers; runc where empty.
        enter: the command prefix of the namespaces to use, from ``namespaces``; new ones where
            empty.
    """
    configuration = directory / "containers.conf"
    # Its own defaults for these limits exceed what a container's root may ask for.
    configuration.write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{directory}/net"\n'
        '[engine]\nruntime_supports_json = ["runc", "crun", "ketch-oci"]\n',
        encoding="utf-8",
    )
    with places(directory, enter) as inside:
        if not program("podman", inside):
            raise PeerUnavailableError("podman is not installed (Debian: podman)")
        runtime = runtime_inside(runtime) or program("runc", inside)
        runtimes = ["--runtime", runtime] if runtime else []
        engine = Engine(
            "podman",
            [*inside, "podman", *runtimes, "--root", str(directory / "root"), "--runroot",
             str(directory / "run"), "--cgroup-manager", "cgroupfs", "--storage-driver",
             "overlay"],
            {"CONTAINERS_CONF": str(configuration), "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"},
        )  # fmt: skip
        try:
            imported = engine("import", str(busybox_archive()), "busybox")
            if imported.status:
                raise PeerUnavailableError(f"podman does not work here: {imported.err[-300:]}")
            yield engine
            engine("rm", "--force", "--all")
        finally:
            remove_cgroups("libpod_parent")
            remove_cgroups(CGROUP)


def _await_docker(engine: Engine, daemon: "subprocess.Popen[bytes]", log: pathlib.Path) -> None:
    deadline = time.monotonic() + 30
    while engine("version").status:
        if daemon.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(encoding="utf-8", errors="replace")[-400:]
            raise PeerUnavailableError(f"dockerd does not start here: {tail}")
        time.sleep(0.2)


def remove_cgroups(name: str) -> None:
    """Remove a cgroup that a peer's containers were in, and those below, once they are empty."""
    for parent in ["/sys/fs/cgroup", *map(str, pathlib.Path("/sys/fs/cgroup").iterdir())]:
        top = os.path.join(parent, name)
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
