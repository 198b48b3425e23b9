"""Docker and podman of one's own: other directories, other namespaces, nothing on the host."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence

from tests.support import leftovers
from tests.support.commands import Engine
from tests.support.images import busybox_archive

CGROUP = leftovers.PEERS_CGROUP


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
    if not shutil.which("dockerd") or not shutil.which("docker"):
        raise PeerUnavailableError("docker is not installed (Debian: docker.io)")
    socket = directory / "docker.sock"
    runtimes = ["--add-runtime", f"other={runtime}", "--default-runtime", "other"]
    with (
        contextlib.nullcontext(list(enter)) if enter else namespaces(directory) as inside,
        (directory / "dockerd.log").open("wb") as log,
    ):
        daemon = subprocess.Popen(
            [*inside, "dockerd",
             "--data-root", str(directory / "data"), "--exec-root", str(directory / "exec"),
             "--pidfile", str(directory / "pid"), "--host", f"unix://{socket}",
             "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{CGROUP}",
             *(runtimes if runtime else ())],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            engine = Engine(
                "docker",
                ["docker", "--host", f"unix://{socket}"],
                {"DOCKER_CONFIG": str(directory), "DOCKER_CLI_HINTS": "false"},
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
            _remove_cgroups(CGROUP)


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
    if not shutil.which("podman"):
        raise PeerUnavailableError("podman is not installed (Debian: podman)")
    configuration = directory / "containers.conf"
    # Its own defaults for these limits exceed what a container's root may ask for.
    configuration.write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{directory}/net"\n'
        '[engine]\nruntime_supports_json = ["runc", "crun", "ketch-oci"]\n',
        encoding="utf-8",
    )
    runtime = runtime or shutil.which("runc") or ""
    runtimes = ["--runtime", runtime] if runtime else []
    with contextlib.nullcontext(list(enter)) if enter else namespaces(directory) as inside:
        engine = Engine(
            "podman",
            [*inside, "podman", *runtimes, "--root", str(directory / "root"), "--runroot",
             str(directory / "run"), "--cgroup-manager", "cgroupfs", "--storage-driver",
             "overlay"],
            {"CONTAINERS_CONF": str(configuration)},
        )  # fmt: skip
        try:
            imported = engine("import", str(busybox_archive()), "busybox")
            if imported.status:
                raise PeerUnavailableError(f"podman does not work here: {imported.err[-300:]}")
            yield engine
            engine("rm", "--force", "--all")
        finally:
            _remove_cgroups("libpod_parent")
            _remove_cgroups(CGROUP)


def _await_docker(engine: Engine, daemon: "subprocess.Popen[bytes]", log: pathlib.Path) -> None:
    deadline = time.monotonic() + 30
    while engine("version").status:
        if daemon.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(encoding="utf-8", errors="replace")[-400:]
            raise PeerUnavailableError(f"dockerd does not start here: {tail}")
        time.sleep(0.2)


def _remove_cgroups(name: str) -> None:
    for parent in ["/sys/fs/cgroup", *map(str, pathlib.Path("/sys/fs/cgroup").iterdir())]:
        top = os.path.join(parent, name)
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
