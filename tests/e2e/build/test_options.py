"""What is typed after ``ketch build``, and what steps and images then have."""

import json
import os
import pathlib
import re
from typing import Any

import pytest

from tests.support.commands import Engine

TEXT = r"""FROM busybox
RUN grep there /etc/hosts && test "$(stat -f -c %b /dev/shm)" = 512 && test "$(ulimit -n)" = 77
RUN --network=host readlink /proc/self/ns/net > /network
RUN --security=insecure grep CapEff /proc/self/status > /power
RUN echo 1 > /gone
RUN rm /gone
"""
LIMITS = {
    "memory/memory.limit_in_bytes": "67108864", "cpu/cpu.shares": "300",
    "cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000",
    "cpuset/cpuset.cpus": "0", "cpuset/cpuset.mems": "0",
}  # fmt: skip


def test_what_steps_and_the_image_get(ketch: Engine, tmp_path: pathlib.Path, run_name: str) -> None:
    (tmp_path / "Dockerfile").write_text(TEXT)
    done = ketch(
        "build", "--add-host", "there:192.0.2.9", "--shm-size", "2m", "--ulimit", "nofile=77:88",
        "--allow", "network.host", "--allow", "security.insecure", "--squash", "--compress",
        "--force-rm", "--load", "--platform", "linux/amd64", "--isolation", "default",
        "-t", f"{run_name}-options", "--progress", "plain", str(tmp_path),
    )  # fmt: skip
    assert done.status == 0, str(done)
    image = f"{run_name}-options"
    try:
        (found,) = json.loads(ketch.ok("inspect", image))
        assert len(found["RootFS"]["Layers"]) == 2  # the base's, and all others in one
        assert ketch.ok("run", "--rm", image, "cat", "/network") == os.readlink("/proc/self/ns/net")
        power = ketch.ok("run", "--rm", image, "cat", "/power").split()[-1]
        assert int(power, 16) & 1 << 21  # CAP_SYS_ADMIN
    finally:
        ketch("rmi", image)


@pytest.mark.root_engine("cgroup v1 gives ordinary users none")
def test_limits(ketch: Engine, tmp_path: pathlib.Path, run_name: str) -> None:
    if not os.path.isdir("/sys/fs/cgroup/memory"):
        pytest.skip("cgroup v1 has these names")
    shown = " ".join(f"/sys/fs/cgroup/{name}" for name in LIMITS)
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN cat {shown}; sleep 1\n")
    done = ketch(
        "build", "--no-cache", "--progress", "plain", "--memory", "64m", "--memory-swap", "96m",
        "--cpu-shares", "300", "--cpu-quota", "50000", "--cpu-period", "100000",
        "--cpuset-cpus", "0", "--cpuset-mems", "0", "--cgroup-parent", f"/{run_name}",
        str(tmp_path),
    )  # fmt: skip
    assert done.status == 0, str(done)
    said = re.findall(r"^#\d+ [\d.]+ (\d+)$", done.err, re.MULTILINE)
    assert said == list(LIMITS.values())
    assert not os.path.exists(f"/sys/fs/cgroup/memory/{run_name}")


def test_what_is_attested_and_annotated(ketch: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    layout = tmp_path / "layout"
    ketch.ok(
        "build", "--attest", "type=provenance,mode=max", "--annotation", "index:x=y",
        "--annotation", "z=1", "-o", f"type=oci,tar=false,dest={layout}", str(tmp_path),
    )  # fmt: skip

    def blob(of: Any) -> Any:
        path = layout / "blobs" / "sha256" / of["digest"].removeprefix("sha256:")
        return json.loads(path.read_text())

    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    index = blob(entry)
    assert index["annotations"] == {"x": "y"}
    image, attestation = (blob(one) for one in index["manifests"])
    assert image["annotations"] == {"z": "1"}
    (statement,) = attestation["layers"]
    about = blob(statement)["predicate"]
    assert about["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]["source"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sbom=true"], "an SBOM is made by a scanner, and none is named"),
        (["--progress", "bad"], "invalid progress mode bad"),
        (["--allow", "everything"], "everything"),
        (["--isolation", "hyperv"], "hyperv"),
        (["--platform", "bad/bad/bad/bad"], "bad/bad/bad/bad"),
        (["--cache-to", "type=gha"], "gha"),
        (["--output", "type=other"], "other"),
        (["--secret", "id=a,src=/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_is_refused(
    ketch: Engine, tmp_path: pathlib.Path, options: list[str], said: str
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    done = ketch("build", *options, str(tmp_path))
    assert done.status != 0
    assert said in done.err
