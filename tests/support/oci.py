"""OCI runtimes side by side: runc, which shows that a check is fair, and ketch-oci."""

import json
import os
import pathlib
import subprocess
from typing import Any

from tests.support.commands import Engine


def quietly(engine: Engine, *words: str) -> int:
    """Run a command whose process outlives it, with no streams; return the exit status."""
    null = subprocess.DEVNULL
    command = [*engine.prefix, *words]
    return subprocess.run(
        command, check=False, stdin=null, stdout=null, stderr=null, timeout=60
    ).returncode


def delete_all(engine: Engine) -> None:
    """Delete every container of a runtime."""
    for container in engine("list", "--quiet").out.split():
        engine("delete", "--force", container)


def configuration(rootfs: pathlib.Path, *arguments: str) -> dict[str, Any]:
    """Return what ``config.json`` of a plain container holds."""
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {
            "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        },
    ]  # fmt: skip
    capabilities = ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(arguments),
            "env": ["PATH=/bin:/sbin:/usr/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": True,
        },
        "root": {"path": str(rootfs), "readonly": True},
        "hostname": "test",
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "cgroupsPath": f"/ketch-test-oci-{os.getpid()}",
        },
    }


def write_bundle(directory: pathlib.Path, config: dict[str, Any]) -> str:
    """Write a bundle; return its path as an argument."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(directory)


def configuration_of(bundle: str, *arguments: str) -> dict[str, Any]:
    """Return a bundle's configuration for another program, with a cgroup but no terminal."""
    text = pathlib.Path(bundle, "config.json").read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)
    config["process"] |= {"args": list(arguments), "terminal": False}
    config["linux"]["cgroupsPath"] += "-other"
    return config


def cgroup_file(controller: str, name: str) -> str | None:
    """Return what a file of the plain container's v1 cgroup says, or None where there is none."""
    path = f"/sys/fs/cgroup/{controller}/ketch-test-oci-{os.getpid()}/{name}"
    try:
        return pathlib.Path(path).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
