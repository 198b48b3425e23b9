"""buildx's container driver: BuildKit's own daemon, in a container that buildx makes and drives.

The daemon is BuildKit as Debian 13's dockerd has it built in: no package has it by itself. What
buildx asks of the engine is the same: to create a container with a volume and control groups, put
its configuration there, and execute ``buildctl``, whose standard streams are the connection.
"""

import hashlib
import json
import pathlib
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support import images
from tests.support.commands import Engine
from tests.support.peers import TREE

pytestmark = [
    pytest.mark.skipif(not TREE.exists(), reason="there is no tree of Debian 13 (make peers)"),
    pytest.mark.timeout(400),
]

# On a host where nobody listens: buildx asks for a pull first, and takes what is there then.
IMAGE = "127.0.0.1:1/buildkit"

DAEMON = r"""FROM busybox
COPY --parents usr/sbin/dockerd usr/sbin/runc usr/bin/containerd usr/bin/containerd-shim-runc-v2 \
  usr/lib64/ld-linux* usr/lib/*/ld-linux* usr/lib/*/lib*.so.* usr/bin/python3 usr/bin/python3.* \
  usr/lib/python3.*/*.py usr/lib/python3.*/encodings usr/lib/python3.*/collections \
  usr/lib/python3.*/re usr/lib/python3.*/lib-dynload /
RUN ln -s usr/lib64 /lib64
COPY <<'EOF' /etc/docker/daemon.json
{"features": {"containerd-snapshotter": true}, "iptables": false, "ip6tables": false,
 "userland-proxy": false, "exec-opts": ["native.cgroupdriver=cgroupfs"],
 "data-root": "/var/lib/buildkit"}
EOF
COPY --chmod=755 <<'EOF' /usr/bin/buildkitd
#!/bin/sh
echo "asked for: $*"
exec dockerd
EOF
COPY --chmod=755 <<'EOF' /usr/bin/buildctl
#!/usr/bin/python3 -IS
import os, select, socket, sys, time
daemon = socket.socket(socket.AF_UNIX)
deadline = time.monotonic() + 90
while daemon.connect_ex("/var/run/docker.sock"):
    if time.monotonic() > deadline:
        sys.exit("the daemon does not listen")
    time.sleep(0.05)
daemon.sendall(b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
head = b""
while not head.endswith(b"\r\n\r\n"):
    head += daemon.recv(1) or sys.exit("no answer")
if sys.argv[1:] == ["dial-stdio"]:
    streams = {0: daemon.fileno(), daemon.fileno(): 1}
    while daemon.fileno() in streams:
        for origin in select.select(list(streams), [], [])[0]:
            if data := os.read(origin, 65536):
                while data:
                    data = data[os.write(streams[origin], data):]
            elif streams.pop(origin) != 1:
                daemon.shutdown(socket.SHUT_WR)
EOF
ENTRYPOINT ["buildkitd"]
"""

DOCKERFILE = """FROM scratch AS made
ADD root.tar /
RUN --mount=type=cache,target=/c --mount=type=secret,id=word --network=none \
    cat /run/secrets/word && cat /proc/uptime >/when
FROM made
COPY large /
"""


@pytest.fixture
def docker(served_engine: Engine, ketch: Engine, tmp_path: pathlib.Path) -> Iterator[Engine]:
    """Return docker's command line on a server whose engine has BuildKit's image."""
    if served_engine("buildx", "version").status:
        pytest.skip("buildx is not installed (Debian: docker-buildx)")
    ketch.ok("build", "-q", "-t", IMAGE, "-f", "-", str(TREE), stdin=DAEMON, timeout=200)
    yield replace(served_engine, environment={**served_engine.environment, "TMPDIR": str(tmp_path)})
    ketch("rmi", "-f", IMAGE, "driven")
    ketch("builder", "prune", "-af")


@pytest.mark.root_engine("buildx names a control group, of which a user has none")
def test_builds_in_a_container_of_buildx(
    docker: Engine, ketch: Engine, run_name: str, tmp_path: pathlib.Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "root.tar").write_bytes(images.busybox_archive().read_bytes())
    (context / "large").write_bytes(bytes(range(256)) * 40_000)
    (tmp_path / "word").write_text("spoken\n")
    (tmp_path / "buildkitd.toml").write_text("debug = true\n")
    name, container = run_name, f"buildx_buildkit_{run_name}0"
    parent = f"/{run_name}"
    docker.ok("buildx", "create", "--name", name, "--driver", "docker-container",
              "--driver-opt", f"image={IMAGE},cgroup-parent={parent},env.A=b",
              "--config", f"{tmp_path}/buildkitd.toml")  # fmt: skip
    # The same limit of files in each step, which this machine's root may have.
    building = ("buildx", "build", "--builder", name, "--progress=plain", "--ulimit",
                "nofile=1024:1024", "--secret", f"id=word,src={tmp_path}/word")  # fmt: skip
    try:
        booted = docker("buildx", "inspect", "--bootstrap", name, timeout=120)
        assert booted.status == 0, str(booted)
        assert re.search(r"^Driver: +docker-container$", booted.out, re.MULTILINE)
        assert re.search(r"^Status: +running$", booted.out, re.MULTILINE), str(booted)
        (found,) = json.loads(ketch.ok("inspect", container))
        asked = found["HostConfig"]
        assert (asked["Privileged"], asked["Init"], asked["CgroupParent"]) == (True, True, parent)
        assert "A=b" in found["Config"]["Env"]
        (volume,) = found["Mounts"]
        assert (volume["Name"], volume["Destination"]) == (
            f"{container}_state", "/var/lib/buildkit",
        )  # fmt: skip
        given = ketch.ok("exec", container, "cat", "/etc/buildkit/buildkitd.toml")
        assert given == "debug = true"
        assert "asked for: --config /etc/buildkit/buildkitd.toml" in ketch.ok("logs", container)

        # Both ways through the same streams: the context there, the image back, and loaded here.
        told = docker(*building, "-t", "driven", "--load", str(context), timeout=200)
        assert told.status == 0, str(told)
        assert re.search(r"^#\d+ [\d.]+ spoken$", told.err, re.MULTILINE), told.err
        large = ketch.ok("run", "--rm", "driven", "sha256sum", "/large").split()[0]
        assert large == hashlib.sha256((context / "large").read_bytes()).hexdigest()
        when = ketch.ok("run", "--rm", "driven", "cat", "/when")

        # Its volume outlives the stop, and with it the cache.
        docker.ok("buildx", "stop", name)
        assert ketch.ok("inspect", "-f", "{{.State.Status}}", container) == "exited"
        again = docker(*building, "-o", f"{tmp_path}/files", str(context), timeout=200)
        assert again.status == 0, str(again)
        assert (tmp_path / "files/when").read_text().strip() == when
        assert len(re.findall(r"^#\d+ CACHED$", again.err, re.MULTILINE)) == 3, again.err
        assert "Total:" in docker.ok("buildx", "du", "--builder", name)

        (context / "Dockerfile").write_text("FROM scratch\nRUN true\n")
        failed = docker(*building, str(context), timeout=100)
        assert failed.status == 1
        assert "Dockerfile:2" in failed.err, str(failed)
    finally:
        removed = docker("buildx", "rm", name)
        ketch("rm", "-f", "-v", container)
        ketch("volume", "rm", f"{container}_state")
    assert removed.status == 0, str(removed)
