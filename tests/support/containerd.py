"""A containerd of one's own, and ``ctr`` that speaks to it."""

import contextlib
import hashlib
import io
import json
import pathlib
import platform
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence

from tests.support import peers
from tests.support.commands import Engine
from tests.support.images import busybox_archive

IMAGE = "docker.io/library/busybox:latest"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@contextlib.contextmanager
def containerd(directory: pathlib.Path) -> Iterator[Engine]:
    """Start a containerd and give the ``ctr`` that speaks to it, with IMAGE.

    Args:
        directory: where all it stores is; its mounts stay in namespaces of its own.
    """
    # The shim's sockets are under /run/containerd whatever is said here; /run is private.
    configuration = (
        f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
        f'[grpc]\naddress = "{directory}/s"\n'
    )
    with running(directory, configuration) as (engine, _, _):
        yield engine


@contextlib.contextmanager
def running(
    directory: pathlib.Path,
    configuration: str,
    namespace: str = "default",
    snapshotter: str = "native",
) -> Iterator[tuple[Engine, list[str], Callable[[], None]]]:
    """Start a containerd; give its ``ctr``, with IMAGE.

    Given too are the command prefix of where it runs, and what stops it and starts it anew.

    Args:
        directory: as above.
        configuration: its file's text, by which it listens at ``s`` in the directory.
        namespace: of containerd's, in which the image and all containers are.
        snapshotter: what the image is unpacked by.
    """
    (directory / "config.toml").write_text(configuration, encoding="utf-8")
    image = directory / "busybox.tar"
    write_image(image, IMAGE, ["sh"])
    with peers.places(directory) as enter, (directory / "log").open("wb") as log:
        if not peers.program("containerd", enter) or not peers.program("ctr", enter):
            raise peers.PeerUnavailableError("containerd is not installed (Debian: containerd)")
        words = [*enter, "ctr", "--address", f"{directory}/s", "--namespace", namespace]
        engine = Engine("ctr", words)
        command = [*enter, "containerd", "--config", str(directory / "config.toml")]
        daemons: list[subprocess.Popen[bytes]] = []

        def start() -> None:
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
            deadline = time.monotonic() + 30
            while engine("version").status:
                if daemons[-1].poll() is not None or time.monotonic() > deadline:
                    tail = (directory / "log").read_text(errors="replace")[-400:]
                    raise peers.PeerUnavailableError(f"containerd does not start here: {tail}")
                time.sleep(0.2)

        def stop() -> None:
            daemon = daemons.pop()
            daemon.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()
            daemon.wait()

        def start_anew() -> None:
            stop()
            start()

        try:
            start()
            engine.ok("image", "import", "--snapshotter", snapshotter, str(image))
            yield engine, enter, start_anew
            for line in engine("tasks", "list", "--quiet").out.split():
                engine("tasks", "delete", "--force", line)
            for line in engine("containers", "list", "--quiet").out.split():
                engine("containers", "delete", line)
        finally:
            while daemons:
                stop()
            peers.remove_cgroups(peers.CGROUP)


def write_image(path: pathlib.Path, reference: str, command: Sequence[str]) -> None:
    """Write an archive as ``docker save`` does, with busybox as its only layer.

    Args:
        path: the archive's.
        reference: the image's.
        command: what it runs.
    """
    layer = busybox_archive().read_bytes()
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Env": ["PATH=/bin:/sbin:/usr/bin"], "Cmd": [*command]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        for name, content in (
            ("config.json", config),
            ("layer.tar", layer),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
