"""Throw-away bundles, and containers made of them by the runtime's own functions."""

import copy
import json
import os
import pathlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ketch import cgroups
from ketch.runtime import create, enter, init, seccomp
from ketch.runtime.plan import Plan
from ketch.runtime.process import ProcessSetup
from ketch.runtime.validate import validate
from tests.support import images

Config = dict[str, Any]

_CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_NET_ADMIN",
                 "CAP_SYS_ADMIN", "CAP_KILL"]  # fmt: skip
NAMESPACES = ("mount", "pid", "uts", "ipc", "network")
MAPPED = [{"containerID": 0, "hostID": 200_000, "size": 65_536}]


def configuration(*program: str, **process: Any) -> Config:
    """Give a configuration such as ``runc spec`` writes, for a program in busybox."""
    return {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {
            "cwd": "/",
            "args": list(program),
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            **process,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES]},
    }  # fmt: skip


def in_user_namespace(config: Config) -> Config:
    """Give the configuration a user namespace of its own."""
    config = copy.deepcopy(config)
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"]["uidMappings"] = MAPPED
    config["linux"]["gidMappings"] = MAPPED
    return config


def join(config: Config, kind: str, path: str) -> None:
    """Have the configuration join a namespace instead of making it."""
    namespaces = config["linux"]["namespaces"]
    namespaces[:] = [entry for entry in namespaces if entry["type"] != kind]
    namespaces.append({"type": kind, "path": path})


class Bundle:
    """A directory with a root file system of busybox."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.rootfs = directory / "rootfs"
        self.rootfs.mkdir()
        archive = images.busybox_archive()
        subprocess.run(["tar", "-C", str(self.rootfs), "-xf", str(archive)], check=True)

    def birth(self, config: Config, **options: Any) -> init.Birth:
        """Validate a configuration and plan it."""
        valid = validate(json.loads(json.dumps(config)))
        section = valid["linux"].get("seccomp")
        filter_ = seccomp.prepare(section, str(self.directory / "seccomp")) if section else None
        setup = ProcessSetup(valid["process"], filter_)
        plan = Plan(valid, cgroups.detect(), str(self.directory))
        return init.Birth(plan, setup, str(self.directory), **options)

    @contextmanager
    def container(
        self, config: Config, *, cgroup: Any = None, **options: Any
    ) -> Iterator["Container"]:
        """Create a container; kill it at the end of the block if it still lives."""
        output = os.memfd_create("output")
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            options.setdefault("streams", (null, output, output))
            birth = self.birth(config, **options)
            made = Container(create.create(birth, cgroup), output, self)
            try:
                yield made
            finally:
                made.end()
        finally:
            os.close(output)
            os.close(null)

    def run(self, config: Config, **options: Any) -> tuple[int, str]:
        """Run a container to its end; return its status and what it wrote."""
        with self.container(config, **options) as container:
            container.start()
            status = container.wait()
            return status, container.output()

    def output(self, config: Config, **options: Any) -> str:
        """Run a container that must succeed; return what it wrote."""
        status, text = self.run(config, **options)
        assert status == 0, text
        return text


class Container:
    """A container, and what it writes."""

    def __init__(self, made: create.Container, output: int, bundle: Bundle) -> None:
        self.made = made
        self.pid = made.pid
        self.bundle = bundle
        self._output = output
        self._status: int | None = None

    def start(self) -> None:
        self.made.start()

    def wait(self) -> int:
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def output(self) -> str:
        return os.pread(self._output, 1 << 20, 0).decode()

    def namespace(self, kind: str) -> str:
        return os.readlink(f"/proc/{self.pid}/ns/{kind}")

    def execute(self, config: Config, /, **options: Any) -> tuple[int, str]:
        """Run another process in the container, with the configuration's ``process``."""
        output = os.memfd_create("output")
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            specification = config["process"]
            setup = ProcessSetup(specification, options.pop("filter_", None))
            entered = enter.enter(
                self.pid, self.made.pidfd, specification, setup,
                options.pop("cgroup", NoCgroup()), (null, output, output), **options,
            )  # fmt: skip
            entered.start()
            status = os.waitstatus_to_exitcode(os.waitpid(entered.pid, 0)[1])
            entered.close()
            return status, os.pread(output, 1 << 20, 0).decode()
        finally:
            os.close(output)
            os.close(null)

    def end(self) -> None:
        if self._status is None:
            self.made.abandon()
            self._status = -9
        else:
            self.made.close()


class NoCgroup:
    """Where a process needs no cgroup to enter."""

    path = "/"

    def entrances(self) -> list[int]:
        return []

    def descriptor(self, near: int | None = None) -> None:
        return None

    def adopt(self, pid: int) -> None:
        pass
