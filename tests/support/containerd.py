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
from collections.abc import Iterator

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
    configuration = directory / "config.toml"
    # The shim's sockets are under /run/containerd whatever is said here; /run is private.
    configuration.write_text(
        f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
        f'[grpc]\naddress = "{directory}/s"\n',
        encoding="utf-8",
    )
    image = directory / "busybox.tar"
    _write_image(image)
    with peers.places(directory) as enter, (directory / "log").open("wb") as log:
        if not peers.program("containerd", enter) or not peers.program("ctr", enter):
            raise peers.PeerUnavailableError("containerd is not installed (Debian: containerd)")
        daemon = subprocess.Popen(
            [*enter, "containerd", "--config", str(configuration)], stdout=log, stderr=log
        )
        try:
            engine = Engine("ctr", [*enter, "ctr", "--address", f"{directory}/s"])
            deadline = time.monotonic() + 30
            while engine("version").status:
                if daemon.poll() is not None or time.monotonic() > deadline:
                    tail = (directory / "log").read_text(errors="replace")[-400:]
                    raise peers.PeerUnavailableError(f"containerd does not start here: {tail}")
                time.sleep(0.2)
            engine.ok("image", "import", "--snapshotter", "native", str(image))
            yield engine
            for line in engine("tasks", "list", "--quiet").out.split():
                engine("tasks", "delete", "--force", line)
            for line in engine("containers", "list", "--quiet").out.split():
                engine("containers", "delete", line)
        finally:
            daemon.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()
            daemon.wait()


def _write_image(path: pathlib.Path) -> None:
    """Write an archive as ``docker save`` does, with busybox as its only layer."""
    layer = busybox_archive().read_bytes()
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Env": ["PATH=/bin:/sbin:/usr/bin"], "Cmd": ["sh"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        for name, content in (
            ("config.json", config),
            ("layer.tar", layer),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
